//! A body in chunks: sizes, extensions, trailers. A byte at a time, but for the data.

use super::{
    Fault,
    head::{NAME_BYTES_MAX, is_token},
};

/// Digits of a size, leading zeros included.
const SIZE_DIGITS_MAX: u8 = 15;
/// Bytes of extensions of a whole body: half of what the parser takes. Nobody reads them.
const EXTENSION_BYTES_MAX: u32 = 8 * 1024;
/// Bytes of trailer fields.
const TRAILER_BYTES_MAX: u32 = 8 * 1024;
/// Trailer fields.
const TRAILERS_MAX: u32 = 32;

/// A body in chunks, as far as it has come.
#[derive(Debug)]
pub(super) struct Chunks {
    state: State,
    extension_bytes: u32,
    trailer_bytes: u32,
    trailers: u32,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Size {
        digits: u8,
        size: u64,
    },
    Extension {
        size: u64,
    },
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// The beginning of a trailer line, or of the end.
    Trailer,
    TrailerName {
        bytes: usize,
    },
    TrailerValue,
    TrailerLf,
    EndLf,
}

pub(super) enum Progress {
    /// All was taken, and more is to come.
    More,
    /// The body ended behind what was taken.
    End,
    /// The byte behind what was taken is wrong.
    Wrong(Fault),
}

impl Chunks {
    pub(super) const fn new() -> Self {
        Self { state: State::Size { digits: 0, size: 0 }, extension_bytes: 0, trailer_bytes: 0, trailers: 0 }
    }

    /// Takes what has come: how much of it, and what is behind that.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> (usize, Progress) {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if let State::Data { left } = self.state {
                let here = bytes.len() - at;
                let taken = usize::try_from(left).map_or(here, |left| left.min(here));
                at += taken;
                let left = left - taken as u64;
                self.state = if left > 0 { State::Data { left } } else { State::DataCr };
                continue;
            }
            match self.step(byte) {
                Ok(Some(state)) => self.state = state,
                Ok(None) => return (at + 1, Progress::End),
                Err(fault) => return (at, Progress::Wrong(fault)),
            }
            at += 1;
        }
        (at, Progress::More)
    }

    /// The state after a byte, or none after the last one.
    fn step(&mut self, byte: u8) -> Result<Option<State>, Fault> {
        let next = match (self.state, byte) {
            (State::Size { digits, size }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < SIZE_DIGITS_MAX => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                State::Size { digits: digits + 1, size: size << 4 | u64::from(digit) }
            }
            (State::Size { digits: 1.., size }, b'\r') => State::SizeLf { size },
            (State::Size { digits: 1.., size }, b';') => State::Extension { size },
            (State::Size { .. }, _) => return Err(Fault::ChunkSize),

            (State::Extension { size }, b'\r') => State::SizeLf { size },
            (State::Extension { size }, b'\t' | b' '..=b'~') => {
                self.extension_bytes += 1;
                if self.extension_bytes > EXTENSION_BYTES_MAX {
                    return Err(Fault::ChunkExtension);
                }
                State::Extension { size }
            }
            (State::Extension { .. }, _) => return Err(Fault::ChunkExtension),

            (State::SizeLf { size: 0 }, b'\n') => State::Trailer,
            (State::SizeLf { size }, b'\n') => State::Data { left: size },
            (State::SizeLf { .. }, _) => return Err(Fault::LineEnd),

            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { digits: 0, size: 0 },
            // `advance` takes the data itself.
            (State::Data { .. } | State::DataCr | State::DataLf, _) => return Err(Fault::ChunkEnd),

            (State::Trailer, b'\r') => State::EndLf,
            (State::EndLf, b'\n') => return Ok(None),
            (State::EndLf | State::TrailerLf, byte) if byte != b'\n' => return Err(Fault::LineEnd),
            (_, byte) => return self.trailer(byte).map(Some),
        };
        Ok(Some(next))
    }

    fn trailer(&mut self, byte: u8) -> Result<State, Fault> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(Fault::Trailer);
        }
        match (self.state, byte) {
            (State::Trailer, byte) if is_token(byte) => {
                self.trailers += 1;
                if self.trailers > TRAILERS_MAX {
                    return Err(Fault::Trailer);
                }
                Ok(State::TrailerName { bytes: 1 })
            }
            (State::TrailerName { bytes }, byte) if is_token(byte) && bytes < NAME_BYTES_MAX => {
                Ok(State::TrailerName { bytes: bytes + 1 })
            }
            (State::TrailerName { .. }, b':') => Ok(State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::TrailerValue),
            (State::TrailerLf, b'\n') => Ok(State::Trailer),
            _ => Err(Fault::Trailer),
        }
    }
}

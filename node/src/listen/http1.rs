//! HTTP/1 on the wire, judged before the parser sees it: where each message ends, and whether its bytes can be read in
//! one way only. The parser behind it is lenient where others are strict; what two readers could see differently ends
//! here. Values alone: no I/O, no clock. What a request means (host, path, method) is decided in `gateway/route.rs`.
//!
//! Body bytes pass as they come. A head passes when it is whole and good: until then its bytes are kept back by the
//! caller and shown again with more behind them, each looked at once. After a fault nothing is looked at any more.

mod chunked;
mod fault;
mod head;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod oracle;

use chunked::Chunks;
pub(crate) use fault::Fault;
use head::Head;
pub(crate) use head::{is_method, is_token};

/// What a head may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Bytes from the request line to the empty line.
    pub(crate) head_bytes_max: usize,
    /// Header fields.
    pub(crate) fields_max: usize,
}

/// The messages of a connection, one after the other.
#[derive(Debug)]
pub(crate) struct Messages {
    bounds: Bounds,
    state: State,
    /// Heads that were good.
    heads: u64,
}

#[derive(Debug)]
enum State {
    Head(Head),
    /// So many bytes of a body are still to come.
    Length(u64),
    Chunked(Chunks),
    /// Nothing is looked at any more.
    Over,
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    None,
    Length(u64),
    Chunked,
}

/// What became of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// So many of them may be passed on. What remains, if nothing is wrong, is the beginning of a head.
    pub(crate) passed: usize,
    /// What is wrong with the byte after them, or with the head that begins there.
    pub(crate) wrong: Option<Wrong>,
}

/// A message that is not passed on to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) fault: Fault,
    /// The place of its request among those of the connection, from 0.
    pub(crate) request: u64,
    pub(crate) place: Place,
}

/// Where a message is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In its head; so many bytes from the head's first are a request line that is good, blank line before it included.
    Head { request_line: usize },
    /// In its body: the head has passed.
    Body,
}

impl Messages {
    pub(crate) const fn new(bounds: Bounds) -> Self {
        Self { bounds, state: State::Head(Head::new()), heads: 0 }
    }

    /// Looks at what has come: what was not passed on before, and more behind it.
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> Scanned {
        let mut passed = 0;
        loop {
            let rest = bytes.get(passed..).unwrap_or_default();
            match &mut self.state {
                State::Head(head) => match head.advance(rest, &self.bounds) {
                    head::Progress::Partial => return Scanned { passed, wrong: None },
                    head::Progress::Whole { bytes, body } => {
                        passed += bytes;
                        self.heads += 1;
                        self.state = match body {
                            Body::None => State::Head(Head::new()),
                            Body::Length(length) => State::Length(length),
                            Body::Chunked => State::Chunked(Chunks::new()),
                        };
                    }
                    head::Progress::Wrong(fault) => {
                        let place = Place::Head { request_line: head.request_line() };
                        return self.end(passed, Wrong { fault, request: self.heads, place });
                    }
                },
                State::Length(left) => {
                    let taken = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                    passed += taken;
                    *left -= taken as u64;
                    if *left > 0 {
                        return Scanned { passed, wrong: None };
                    }
                    self.state = State::Head(Head::new());
                }
                State::Chunked(chunks) => {
                    let (taken, progress) = chunks.advance(rest);
                    passed += taken;
                    match progress {
                        chunked::Progress::More => return Scanned { passed, wrong: None },
                        chunked::Progress::End => self.state = State::Head(Head::new()),
                        chunked::Progress::Wrong(fault) => {
                            let request = self.heads.saturating_sub(1);
                            return self.end(passed, Wrong { fault, request, place: Place::Body });
                        }
                    }
                }
                State::Over => return Scanned { passed, wrong: None },
            }
        }
    }

    fn end(&mut self, passed: usize, wrong: Wrong) -> Scanned {
        self.state = State::Over;
        Scanned { passed, wrong: Some(wrong) }
    }
}

#[cfg(test)]
mod tests;

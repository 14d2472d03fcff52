//! The bytes of a segment, format 1. All numbers are little endian.
//!
//! ```text
//! segment = header (64 bytes), records
//! header  = magic "QUORLOG\n" | format u32 | 0 u32 | number u64 | salt u64 | durable u64 | 0 … | crc u32
//! record  = crc u32 | body_crc u32 | len u32 | kind u8, 0 0 0 | index u64 | synced u64 | body | zeros to a multiple of 8
//! ```
//!
//! A record's `crc` covers the rest of its 32-byte header, its own position and the segment's salt, so that neither stale bytes nor
//! a record copied elsewhere (into the body of another one, say) pass for a record of this place. `body_crc` covers body and padding.
//!
//! `synced` is how a torn tail is told from damage: the length of the segment that was known to be on the disk when this record was
//! written. Bytes before the largest `synced` of any intact record were durable once: if they do not check, they have been damaged.
//! Bytes after it may be what a power cut left of an unacknowledged batch. `durable` says the same for the records at the head, which
//! are synced before the segment gets its name.

use crc32fast::Hasher;

pub(crate) const MAGIC: [u8; 8] = *b"QUORLOG\n";
/// The format that this release writes, and the newest that it reads.
pub(crate) const FORMAT: u32 = 1;
pub(crate) const SEGMENT_HEADER: u64 = 64;
pub(crate) const RECORD_HEADER: u64 = 32;
const ALIGNMENT: u64 = 8;
/// The longest body. A length above it is damage; it also keeps a position's length in 32 bits.
pub(crate) const BODY_BYTES_MAX: usize = 64 << 20;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An entry of the log, at `index`.
    Entry,
    /// The vote; replaces the one before.
    Vote,
    /// How far the log is committed; replaces the one before.
    Committed,
    /// Entries from `index` on are gone.
    Truncate,
    /// Entries up to and including `index` are gone; the body is the caller's marker.
    Purge,
    /// At the head of a segment: the entries held when it began, from `index` to the body's u64; an empty body means none.
    Held,
    /// Nothing but a newer `synced`, written when the log falls idle or closes.
    Mark,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Kind::Entry => 1,
            Kind::Vote => 2,
            Kind::Committed => 3,
            Kind::Truncate => 4,
            Kind::Purge => 5,
            Kind::Held => 6,
            Kind::Mark => 7,
        }
    }

    fn from_code(code: u8) -> Option<Kind> {
        [Kind::Entry, Kind::Vote, Kind::Committed, Kind::Truncate, Kind::Purge, Kind::Held, Kind::Mark]
            .into_iter()
            .find(|kind| kind.code() == code)
    }
}

/// The first bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) number: u64,
    pub(crate) salt: u64,
    pub(crate) durable: u64,
}

/// Why a segment's header was not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    NotASegment,
    Newer(u32),
    Damaged,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER as usize);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.salt.to_le_bytes());
        bytes.extend_from_slice(&self.durable.to_le_bytes());
        bytes.resize(SEGMENT_HEADER as usize - 4, 0);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderFault> {
        if bytes.get(..8) != Some(&MAGIC) {
            return Err(HeaderFault::NotASegment);
        }
        let checked = bytes.get(..SEGMENT_HEADER as usize - 4).ok_or(HeaderFault::Damaged)?;
        if u32_at(bytes, SEGMENT_HEADER as usize - 4) != Some(crc32fast::hash(checked)) {
            return Err(HeaderFault::Damaged);
        }
        // After the checksum: a damaged format number is damage, not the future.
        match u32_at(bytes, 8) {
            Some(FORMAT) => {}
            Some(newer) if newer > FORMAT => return Err(HeaderFault::Newer(newer)),
            _ => return Err(HeaderFault::Damaged),
        }
        match (u64_at(bytes, 16), u64_at(bytes, 24), u64_at(bytes, 32)) {
            (Some(number), Some(salt), Some(durable)) => Ok(SegmentHeader { number, salt, durable }),
            _ => Err(HeaderFault::Damaged),
        }
    }
}

/// A record's header once it has checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heading {
    /// None: written by a later release.
    pub(crate) kind: Option<Kind>,
    pub(crate) index: u64,
    pub(crate) len: u32,
    pub(crate) synced: u64,
    body_crc: u32,
}

impl Heading {
    /// Reads the header of the record that starts with these bytes; `None` if it does not check.
    pub(crate) fn decode(bytes: &[u8], salt: u64, offset: u64) -> Option<Heading> {
        let header = bytes.get(..RECORD_HEADER as usize)?;
        if u32_at(header, 0)? != header_crc(header, salt, offset)? {
            return None;
        }
        let len = u32_at(header, 8)?;
        if len as usize > BODY_BYTES_MAX {
            return None;
        }
        Some(Heading {
            kind: header.get(12).copied().and_then(Kind::from_code),
            index: u64_at(header, 16)?,
            len,
            synced: u64_at(header, 24)?,
            body_crc: u32_at(header, 4)?,
        })
    }

    /// The body of the record that starts with these bytes; `None` if it is cut short or does not check.
    pub(crate) fn body<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let padded = bytes.get(RECORD_HEADER as usize..footprint(self.len as usize) as usize)?;
        (crc32fast::hash(padded) == self.body_crc).then(|| padded.get(..self.len as usize)).flatten()
    }
}

/// Bytes that a record takes in the segment.
pub(crate) fn footprint(body: usize) -> u64 {
    RECORD_HEADER + (body as u64).next_multiple_of(ALIGNMENT)
}

/// Where and when a record is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    pub(crate) salt: u64,
    /// The record's position in its segment.
    pub(crate) offset: u64,
    pub(crate) synced: u64,
}

/// Appends a record to the buffer that will be written at its place.
pub(crate) fn encode(out: &mut Vec<u8>, stamp: Stamp, kind: Kind, index: u64, body: &[u8]) {
    let mut padding = [0; ALIGNMENT as usize].as_slice();
    padding = padding.get(..body.len().next_multiple_of(ALIGNMENT as usize) - body.len()).unwrap_or_default();
    let mut body_crc = Hasher::new();
    body_crc.update(body);
    body_crc.update(padding);
    let mut header = Vec::with_capacity(RECORD_HEADER as usize);
    header.extend_from_slice(&[0; 4]);
    header.extend_from_slice(&body_crc.finalize().to_le_bytes());
    header.extend_from_slice(&(body.len() as u32).to_le_bytes());
    header.extend_from_slice(&[kind.code(), 0, 0, 0]);
    header.extend_from_slice(&index.to_le_bytes());
    header.extend_from_slice(&stamp.synced.to_le_bytes());
    let crc = header_crc(&header, stamp.salt, stamp.offset).unwrap_or_default();
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(header.get(4..).unwrap_or_default());
    out.extend_from_slice(body);
    out.extend_from_slice(padding);
}

/// Whether an intact record after the damage at `damaged` says that those bytes had been on the disk.
pub(crate) fn was_durable(bytes: &[u8], salt: u64, damaged: u64) -> bool {
    let mut offset = damaged;
    loop {
        offset += ALIGNMENT;
        let Some(rest) = bytes.get(offset as usize..).filter(|rest| rest.len() >= RECORD_HEADER as usize) else {
            return false;
        };
        if Heading::decode(rest, salt, offset).is_some_and(|found| found.synced > damaged && found.body(rest).is_some())
        {
            return true;
        }
    }
}

fn header_crc(header: &[u8], salt: u64, offset: u64) -> Option<u32> {
    let mut crc = Hasher::new();
    crc.update(&salt.to_le_bytes());
    crc.update(&offset.to_le_bytes());
    crc.update(header.get(4..)?);
    Some(crc.finalize())
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { salt: 7, offset: 640, synced: 320 };

    #[test]
    fn a_record_reads_back_at_its_place_only() {
        for body in [b"".as_slice(), b"1", b"12345678", b"123456789"] {
            let mut bytes = Vec::new();
            encode(&mut bytes, STAMP, Kind::Entry, 42, body);
            assert_eq!(bytes.len() as u64, footprint(body.len()));
            let heading = Heading::decode(&bytes, 7, 640).unwrap();
            assert_eq!((heading.kind, heading.index, heading.synced), (Some(Kind::Entry), 42, 320));
            assert_eq!(heading.body(&bytes), Some(body));
            assert_eq!(Heading::decode(&bytes, 8, 640), None, "another segment");
            assert_eq!(Heading::decode(&bytes, 7, 648), None, "another place");
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let mut bytes = Vec::new();
        encode(&mut bytes, STAMP, Kind::Entry, 42, b"body");
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let body = Heading::decode(&damaged, 7, 640).and_then(|heading| heading.body(&damaged));
            assert_eq!(body, None, "bit {bit}");
        }
    }

    #[test]
    fn only_a_later_record_written_after_a_sync_proves_damage() {
        let mut bytes = vec![0xff; 64];
        encode(&mut bytes, Stamp { salt: 7, offset: 64, synced: 16 }, Kind::Entry, 1, b"same batch");
        assert!(was_durable(&bytes, 7, 8));
        assert!(!was_durable(&bytes, 7, 16));
        assert!(!was_durable(&bytes, 9, 8));
    }
}

//! How a record lies in sled, and the running total that proves a checkpoint complete.

use std::fmt;

use bytes::Bytes;
use crc32fast::Hasher;

use super::tree::guarded;
use crate::KeyValue;

const MARKER: u8 = 0;
const RECORD: u8 = 1;
const PART: u8 = 2;
/// The layout of the marker and the records. Another one is not worth reading: a checkpoint is rebuilt.
const FORMAT: u32 = 1;
/// Values are split into parts of this size. A leaf of sled holds up to 17 of them, and one of more than 128 KiB gets a file of its own.
const PART_BYTES: usize = 4 << 10;
const RECORD_HEADER: usize = 8;

/// The records of a checkpoint in sum: a number, and a sum of checksums that any missing, stale or foreign record changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Total {
    pub(super) count: u64,
    sum: u64,
    pub(super) bytes: u64,
}

impl Total {
    pub(super) fn add(&mut self, stamp: Stamp) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(stamp.mixed());
        self.bytes = self.bytes.wrapping_add(stamp.bytes());
    }

    pub(super) fn remove(&mut self, stamp: Stamp) {
        self.count = self.count.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(stamp.mixed());
        self.bytes = self.bytes.wrapping_sub(stamp.bytes());
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records of {} bytes (sum {:016x})", self.count, self.bytes, self.sum)
    }
}

/// What a record contributes to the total.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    crc: u32,
    key: u32,
    value: u32,
}

impl Stamp {
    pub(super) fn of(key: &[u8], value: &[u8]) -> Stamp {
        let mut crc = Hasher::new();
        crc.update(&(key.len() as u32).to_le_bytes());
        crc.update(key);
        crc.update(value);
        Stamp { crc: crc.finalize(), key: key.len() as u32, value: value.len() as u32 }
    }

    /// The stamp in front of a stored record's value.
    pub(super) fn stored(key: &[u8], head: &[u8]) -> Option<Stamp> {
        Some(Stamp { crc: u32_at(head, 0)?, key: key.len() as u32, value: u32_at(head, 4)? })
    }

    /// How many parts follow the first one.
    pub(super) fn parts(&self) -> u32 {
        (self.value as usize).div_ceil(PART_BYTES).saturating_sub(1) as u32
    }

    fn bytes(&self) -> u64 {
        u64::from(self.key) + u64::from(self.value)
    }

    /// Spread over 64 bits, so that sums of different sets differ.
    fn mixed(&self) -> u64 {
        let mut mixed = (u64::from(self.value) << 32 | u64::from(self.crc)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

pub(super) fn marker_key() -> [u8; 1] {
    [MARKER]
}

pub(super) fn record_key(key: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(1 + key.len());
    stored.push(RECORD);
    stored.extend_from_slice(key);
    stored
}

pub(super) fn part_key(key: &[u8], part: u32) -> Vec<u8> {
    let mut stored = Vec::with_capacity(9 + key.len());
    stored.push(PART);
    stored.extend_from_slice(&(key.len() as u32).to_be_bytes());
    stored.extend_from_slice(key);
    stored.extend_from_slice(&part.to_be_bytes());
    stored
}

/// The record's own value in sled, and the parts after it.
pub(super) fn split<'a>(stamp: &Stamp, value: &'a [u8]) -> (Vec<u8>, impl Iterator<Item = &'a [u8]>) {
    let (first, rest) = value.split_at_checked(PART_BYTES).unwrap_or((value, &[]));
    let mut head = Vec::with_capacity(RECORD_HEADER + first.len());
    head.extend_from_slice(&stamp.crc.to_le_bytes());
    head.extend_from_slice(&stamp.value.to_le_bytes());
    head.extend_from_slice(first);
    (head, rest.chunks(PART_BYTES))
}

pub(super) fn encode_marker(total: &Total, marker: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&total.count.to_le_bytes());
    bytes.extend_from_slice(&total.sum.to_le_bytes());
    bytes.extend_from_slice(&total.bytes.to_le_bytes());
    bytes.extend_from_slice(marker);
    let crc = crc32fast::hash(bytes.get(4..).unwrap_or_default());
    crc.to_le_bytes().into_iter().chain(bytes.into_iter().skip(4)).collect()
}

pub(super) fn decode_marker(bytes: &[u8]) -> Option<(Total, Bytes)> {
    if u32_at(bytes, 0)? != crc32fast::hash(bytes.get(4..)?) || u32_at(bytes, 4)? != FORMAT {
        return None;
    }
    let total = Total { count: u64_at(bytes, 8)?, sum: u64_at(bytes, 16)?, bytes: u64_at(bytes, 24)? };
    Some((total, Bytes::copy_from_slice(bytes.get(32..)?)))
}

/// The records of a checkpoint, each verified as it is read. It ends early at one that is damaged: whether they were all is said in
/// the end.
pub struct Records {
    db: sled::Db,
    iter: sled::Iter,
    total: Total,
    failed: Option<String>,
}

impl Records {
    pub(super) fn new(db: &sled::Db) -> Records {
        Records { db: db.clone(), iter: db.scan_prefix([RECORD]), total: Total::default(), failed: None }
    }

    /// Reads what has not been read, and adds it all up; or why it cannot be had.
    pub(super) fn finish(mut self) -> Result<Total, String> {
        self.by_ref().for_each(drop);
        self.failed.map_or(Ok(self.total), Err)
    }

    /// The next record with its stamp, or why it cannot be had.
    fn step(&mut self) -> Option<Result<(Stamp, KeyValue), String>> {
        let (db, iter) = (&self.db, &mut self.iter);
        match guarded(|| iter.next().transpose()) {
            Ok(None) => None,
            Ok(Some((stored, head))) => Some(read(db, stored.get(1..).unwrap_or_default(), &head)),
            Err(error) => Some(Err(error.to_string())),
        }
    }
}

fn read(db: &sled::Db, key: &[u8], head: &[u8]) -> Result<(Stamp, KeyValue), String> {
    let stamp = Stamp::stored(key, head).ok_or("a record is too short for its header")?;
    let mut value = head.get(RECORD_HEADER..).unwrap_or_default().to_vec();
    for part in 1..=stamp.parts() {
        let stored = guarded(|| db.get(part_key(key, part))).map_err(|error| error.to_string())?;
        value.extend_from_slice(&stored.ok_or("a part of a value is missing")?);
    }
    if Stamp::of(key, &value) == stamp {
        Ok((stamp, (key.to_vec(), value)))
    } else {
        Err("a record does not match its checksum".to_owned())
    }
}

impl Iterator for Records {
    type Item = KeyValue;

    fn next(&mut self) -> Option<KeyValue> {
        if self.failed.is_some() {
            return None;
        }
        match self.step()? {
            Ok((stamp, record)) => {
                self.total.add(stamp);
                Some(record)
            }
            Err(why) => {
                self.failed = Some(why);
                None
            }
        }
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("total", &self.total).finish_non_exhaustive()
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

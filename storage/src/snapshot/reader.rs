//! Reading a snapshot file, block by block, each verified before any record of it is given out.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use crc32fast::Hasher;

use super::writer::block_crc;
use super::{BLOCK_BYTES, BLOCK_HEADER, FORMAT, MAGIC, RECORD_BYTES_MAX, TRAILER};
use crate::fs::{File, Fs, Real};
use crate::{Error, KeyValue};

const HEADER: usize = 24;
const BLOCK_BYTES_MAX: usize = BLOCK_BYTES + RECORD_BYTES_MAX + 8;

/// The records of a snapshot file, in the order they were put. The iterator ends with `None` only after the trailer has proved that
/// nothing is missing: build aside from it, and use what was built only then.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: Box<dyn File>,
    index: u64,
    head: Bytes,
    offset: u64,
    block: Vec<u8>,
    block_at: u64,
    read: usize,
    records_left: u32,
    records: u64,
    whole: Hasher,
    ended: bool,
}

impl Reader {
    /// Opens a snapshot file anywhere, for reading alone, and verifies its header.
    pub fn open(path: &Path) -> Result<Reader, Error> {
        Reader::of(path, Real::open_to_read(path))
    }

    /// The same on another file system than the real one.
    pub fn open_on(fs: &dyn Fs, path: &Path) -> Result<Reader, Error> {
        Reader::of(path, fs.open(path))
    }

    fn of(path: &Path, file: std::io::Result<Box<dyn File>>) -> Result<Reader, Error> {
        let file = file.map_err(|error| Error::io(path, "open", error))?;
        let mut reader = Reader {
            path: path.to_owned(),
            file,
            index: 0,
            head: Bytes::new(),
            offset: 0,
            block: Vec::new(),
            block_at: 0,
            read: 0,
            records_left: 0,
            records: 0,
            whole: Hasher::new(),
            ended: false,
        };
        reader.header()?;
        Ok(reader)
    }

    /// The log index whose state this is.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// How long the file is.
    pub fn file_bytes(&self) -> Result<u64, Error> {
        self.file.len().map_err(|error| Error::io(&self.path, "read", error))
    }

    /// The caller's head.
    pub fn head(&self) -> &Bytes {
        &self.head
    }

    /// Reads everything; returns the number of records.
    pub fn verify(mut self) -> Result<u64, Error> {
        for record in self.by_ref() {
            record?;
        }
        Ok(self.records)
    }

    fn header(&mut self) -> Result<(), Error> {
        let fixed = self.bytes(0, 0, HEADER)?;
        if fixed.get(..8) != Some(&MAGIC) {
            return Err(self.corrupt(0, "not a snapshot"));
        }
        let (format, length) = (number(&fixed, 8), number(&fixed, 12) as usize);
        if length > RECORD_BYTES_MAX {
            return Err(self.corrupt(12, "an impossible length of the head"));
        }
        let mut header = fixed;
        header.extend(self.bytes(12, HEADER as u64, length)?);
        let crc = self.bytes(12, (HEADER + length) as u64, 4)?;
        if number(&crc, 0) != crc32fast::hash(&header) {
            return Err(self.corrupt(0, "the header does not match its checksum"));
        }
        if format != FORMAT {
            return Err(Error::Newer { file: self.path.clone(), found: format, supported: FORMAT });
        }
        self.index = long_number(&header, 16);
        self.head = Bytes::from(header.split_off(HEADER));
        self.whole.update(&header);
        self.whole.update(&self.head);
        self.whole.update(&crc);
        self.offset = (HEADER + length + 4) as u64;
        Ok(())
    }

    fn next_record(&mut self) -> Result<Option<KeyValue>, Error> {
        while self.records_left == 0 {
            if self.read != self.block.len() {
                return Err(self.corrupt(self.block_at, "the block holds more than its records"));
            }
            if !self.next_block()? {
                return Ok(None);
            }
        }
        let record = self.block.get(self.read..).unwrap_or_default();
        let split = record.split_at_checked(8).and_then(|(lengths, rest)| {
            let (key, rest) = rest.split_at_checked(number(lengths, 0) as usize)?;
            Some((key.to_vec(), rest.get(..number(lengths, 4) as usize)?.to_vec()))
        });
        let Some((key, value)) = split else {
            return Err(self.corrupt(self.block_at, "a record reaches beyond its block"));
        };
        self.read += 8 + key.len() + value.len();
        self.records_left -= 1;
        self.records += 1;
        Ok(Some((key, value)))
    }

    /// Reads the next block; `false` after the trailer.
    fn next_block(&mut self) -> Result<bool, Error> {
        let at = self.offset;
        let header = self.bytes(at, at, BLOCK_HEADER)?;
        let length = number(&header, 0) as usize;
        if length == 0 {
            self.trailer(at)?;
            return Ok(false);
        }
        if length > BLOCK_BYTES_MAX {
            return Err(self.corrupt(at, "an impossible length of a block"));
        }
        let payload = self.bytes(at, at + BLOCK_HEADER as u64, length)?;
        let lengths = header.split_at_checked(4).and_then(|(length, rest)| Some((length, rest.get(..4)?)));
        let crc = lengths.map(|(length, count)| block_crc(at, length, count, &payload));
        if crc != Some(number(&header, 8)) {
            return Err(self.corrupt(at, "the block does not match its checksum"));
        }
        self.whole.update(&header);
        self.whole.update(&payload);
        self.records_left = number(&header, 4);
        self.offset = at + (BLOCK_HEADER + length) as u64;
        (self.block, self.block_at, self.read) = (payload, at, 0);
        Ok(true)
    }

    fn trailer(&mut self, at: u64) -> Result<(), Error> {
        let trailer = self.bytes(at, at, TRAILER)?;
        if trailer.get(..TRAILER - 4).map(crc32fast::hash) != Some(number(&trailer, TRAILER - 4)) {
            return Err(self.corrupt(at, "the trailer does not match its checksum"));
        }
        if long_number(&trailer, 4) != self.records || number(&trailer, 12) != self.whole.clone().finalize() {
            return Err(self.corrupt(at, "the records are not those that the trailer counts"));
        }
        let end = at + TRAILER as u64;
        match self.file.len().map_err(|error| Error::io(&self.path, "read", error))? {
            length if length == end => Ok(()),
            _ => Err(self.corrupt(end, "bytes after the trailer")),
        }
    }

    /// Reads the bytes here; if they are not there, the damage is what began at `part`.
    fn bytes(&self, part: u64, offset: u64, length: usize) -> Result<Vec<u8>, Error> {
        // A damaged length must not ask for more memory than the file could fill.
        let end = self.file.len().map_err(|error| Error::io(&self.path, "read", error))?;
        if offset + length as u64 > end {
            return Err(self.corrupt(part, format!("the file ends at byte {end}, before the snapshot does")));
        }
        let mut bytes = vec![0; length];
        let read = self.file.read_at(&mut bytes, offset).map_err(|error| Error::io(&self.path, "read", error))?;
        if read < length { Err(self.corrupt(part, "cut short while it was read")) } else { Ok(bytes) }
    }

    fn corrupt(&self, offset: u64, what: impl Into<String>) -> Error {
        Error::corrupt(&self.path, offset, what)
    }
}

impl Iterator for Reader {
    type Item = Result<KeyValue, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.next_record().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

fn long_number(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

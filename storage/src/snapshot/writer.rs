//! Making a snapshot file: from records, or from the bytes of another node's file.

use bytes::Bytes;
use crc32fast::Hasher;

use super::{Aside, BLOCK_BYTES, BLOCK_HEADER, FORMAT, MAGIC, RECORD_BYTES_MAX, Reader, Stored};
use crate::Error;

/// Writes records into a new snapshot. It exists once [`Writer::finish`] has returned; dropped before, nothing remains.
#[derive(Debug)]
pub struct Writer {
    aside: Aside,
    index: u64,
    block: Vec<u8>,
    block_records: u32,
    records: u64,
    whole: Hasher,
}

impl Writer {
    pub(super) fn begin(aside: Aside, index: u64, head: &Bytes) -> Result<Writer, Error> {
        if head.len() > RECORD_BYTES_MAX {
            return Err(Error::refused(format!("a snapshot's head of {} bytes", head.len())));
        }
        let mut header = Vec::with_capacity(28 + head.len());
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&FORMAT.to_le_bytes());
        header.extend_from_slice(&(head.len() as u32).to_le_bytes());
        header.extend_from_slice(&index.to_le_bytes());
        header.extend_from_slice(head);
        header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        let mut writer = Writer { aside, index, block: Vec::new(), block_records: 0, records: 0, whole: Hasher::new() };
        writer.append(&header)?;
        Ok(writer)
    }

    /// Adds a record.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        if key.len().saturating_add(value.len()) > RECORD_BYTES_MAX {
            return Err(Error::refused(format!("a record of {} bytes", key.len().saturating_add(value.len()))));
        }
        self.block.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.block.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.block.extend_from_slice(key);
        self.block.extend_from_slice(value);
        self.block_records += 1;
        self.records += 1;
        if self.block.len() >= BLOCK_BYTES { self.end_block() } else { Ok(()) }
    }

    /// Makes the snapshot durable under its final name. One of the same index is replaced.
    pub fn finish(mut self) -> Result<Stored, Error> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        let mut trailer = vec![0; 4];
        trailer.extend_from_slice(&self.records.to_le_bytes());
        trailer.extend_from_slice(&self.whole.clone().finalize().to_le_bytes());
        trailer.extend_from_slice(&crc32fast::hash(&trailer).to_le_bytes());
        self.aside.append(&trailer)?;
        self.aside.finish(self.index)
    }

    fn end_block(&mut self) -> Result<(), Error> {
        let length = (self.block.len() as u32).to_le_bytes();
        let count = self.block_records.to_le_bytes();
        let crc = block_crc(self.aside.end, &length, &count, &self.block);
        let mut bytes = Vec::with_capacity(BLOCK_HEADER + self.block.len());
        bytes.extend_from_slice(&length);
        bytes.extend_from_slice(&count);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.append(&mut self.block);
        self.block_records = 0;
        self.append(&bytes)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.whole.update(bytes);
        self.aside.append(bytes)
    }
}

/// The checksum of a block at this position.
pub(super) fn block_crc(position: u64, length: &[u8], count: &[u8], payload: &[u8]) -> u32 {
    let mut crc = Hasher::new();
    crc.update(&position.to_le_bytes());
    crc.update(length);
    crc.update(count);
    crc.update(payload);
    crc.finalize()
}

/// Takes in the bytes of a snapshot file in order. It exists once [`Incoming::finish`] has verified it.
#[derive(Debug)]
pub struct Incoming {
    aside: Aside,
}

impl Incoming {
    pub(super) fn begin(aside: Aside) -> Incoming {
        Incoming { aside }
    }

    /// Adds the next bytes.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.aside.append(bytes)
    }

    /// Bytes so far.
    pub fn received(&self) -> u64 {
        self.aside.end
    }

    /// Starts over, with nothing received.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.aside.file.cut(0).map_err(|error| Error::io(&self.aside.path, "cut", error))?;
        self.aside.end = 0;
        Ok(())
    }

    /// Verifies every byte, and makes the snapshot durable under the name that its own header gives it.
    pub fn finish(self) -> Result<Stored, Error> {
        let reader = Reader::open_on(self.aside.fs.as_ref(), &self.aside.path)?;
        let index = reader.index();
        reader.verify()?;
        self.aside.finish(index)
    }
}

//! Snapshot files: a whole state as (key, value) records, for newcomers, for backups and for rebuilding a checkpoint.
//!
//! A file is written (or received) under another name, synced, renamed, and its directory synced: under its final name it is whole.
//! Format 1, little endian:
//!
//! ```text
//! file    = header, blocks, trailer
//! header  = magic "QUORSNP\n" | format u32 | head length u32 | index u64 | head | crc u32 of all this
//! block   = length u32 (never 0) | records u32 | crc u32 (of the block's position, these lengths and the payload) | payload
//! record  = key length u32 | value length u32 | key | value
//! trailer = 0 u32 | records u64 | crc u32 of every byte before the trailer | crc u32 of the trailer before it
//! ```
//!
//! When to take one, and what keys and values mean, is not known here.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::Error;
use crate::fs::{File, Fs, Real};

mod reader;
mod writer;

pub use reader::Reader;
pub use writer::{Incoming, Writer};

const MAGIC: [u8; 8] = *b"QUORSNP\n";
/// The format that this release writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
const SUFFIX: &str = ".snapshot";
const UNFINISHED: &str = ".partial";
/// A block is written once it holds this much.
const BLOCK_BYTES: usize = 128 << 10;
/// The longest key and value together, and the longest head: a length above it is damage.
pub const RECORD_BYTES_MAX: usize = 64 << 20;
const BLOCK_HEADER: usize = 12;
const TRAILER: usize = 20;

/// The directory of snapshot files.
#[derive(Debug, Clone)]
pub struct Snapshots {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    /// Keeps the names of unfinished files apart.
    unfinished: Arc<AtomicU64>,
}

/// A whole snapshot file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The log index whose state it holds.
    pub index: u64,
    /// Where it is.
    pub path: PathBuf,
    /// How long it is.
    pub bytes: u64,
}

impl Snapshots {
    /// Opens the directory, and removes what an earlier process did not finish.
    pub fn open(dir: &Path) -> Result<Snapshots, Error> {
        Snapshots::open_on(Arc::new(Real), dir)
    }

    /// The same on another file system than the real one.
    pub fn open_on(fs: Arc<dyn Fs>, dir: &Path) -> Result<Snapshots, Error> {
        fs.create_dir(dir).map_err(|error| Error::io(dir, "create", error))?;
        for name in fs.list(dir).map_err(|error| Error::io(dir, "list", error))? {
            if name.ends_with(UNFINISHED) {
                let path = dir.join(name);
                fs.remove(&path).map_err(|error| Error::io(&path, "remove", error))?;
            }
        }
        Ok(Snapshots { fs, dir: dir.to_owned(), unfinished: Arc::default() })
    }

    /// Begins a snapshot of the state at this index. The head is the caller's, and can be read without the records.
    pub fn write(&self, index: u64, head: Bytes) -> Result<Writer, Error> {
        Writer::begin(self.aside()?, index, &head)
    }

    /// Begins to take in the bytes of a snapshot file from elsewhere.
    pub fn receive(&self) -> Result<Incoming, Error> {
        Ok(Incoming::begin(self.aside()?))
    }

    /// Opens a snapshot of this directory.
    pub fn read(&self, stored: &Stored) -> Result<Reader, Error> {
        Reader::open_on(self.fs.as_ref(), &stored.path)
    }

    /// The bytes of a snapshot, as they are.
    pub fn file(&self, stored: &Stored) -> Result<Box<dyn File>, Error> {
        self.fs.open(&stored.path).map_err(|error| Error::io(&stored.path, "open", error))
    }

    /// The snapshots, oldest first. Their contents are verified only when they are read.
    pub fn list(&self) -> Result<Vec<Stored>, Error> {
        let mut found = Vec::new();
        for name in self.fs.list(&self.dir).map_err(|error| Error::io(&self.dir, "list", error))? {
            let Some(index) = name.strip_suffix(SUFFIX).and_then(|index| index.parse().ok()) else {
                continue;
            };
            let path = self.dir.join(&name);
            let length = self.fs.open(&path).and_then(|file| file.len());
            let bytes = length.map_err(|error| Error::io(&path, "open", error))?;
            found.push(Stored { index, path, bytes });
        }
        found.sort_by_key(|stored| stored.index);
        Ok(found)
    }

    /// The snapshot of the highest index.
    pub fn latest(&self) -> Result<Option<Stored>, Error> {
        Ok(self.list()?.pop())
    }

    /// Removes the snapshots below this index; returns how many. Open readers of them still work.
    pub fn remove_older_than(&self, keep: u64) -> Result<usize, Error> {
        let mut removed = 0;
        for stored in self.list()?.iter().filter(|stored| stored.index < keep) {
            self.remove(stored)?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Removes one snapshot, such as a damaged one.
    pub fn remove(&self, stored: &Stored) -> Result<(), Error> {
        self.fs.remove(&stored.path).map_err(|error| Error::io(&stored.path, "remove", error))?;
        self.fs.sync_dir(&self.dir).map_err(|error| Error::io(&self.dir, "sync", error))
    }

    fn aside(&self) -> Result<Aside, Error> {
        let number = self.unfinished.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("{number}{UNFINISHED}"));
        let file = self.fs.create(&path).map_err(|error| Error::io(&path, "create", error))?;
        Ok(Aside { fs: self.fs.clone(), dir: self.dir.clone(), path, file, end: 0, finished: false })
    }
}

/// A file that does not have its final name yet. Dropped unfinished, it is removed.
#[derive(Debug)]
struct Aside {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    path: PathBuf,
    file: Box<dyn File>,
    end: u64,
    finished: bool,
}

impl Aside {
    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_at(bytes, self.end).map_err(|error| Error::io(&self.path, "write", error))?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Makes the contents durable, then the name.
    fn finish(mut self, index: u64) -> Result<Stored, Error> {
        let path = self.dir.join(format!("{index:020}{SUFFIX}"));
        self.file.sync().map_err(|error| Error::io(&self.path, "sync", error))?;
        self.fs.rename(&self.path, &path).map_err(|error| Error::io(&self.path, "rename", error))?;
        self.finished = true;
        self.fs.sync_dir(&self.dir).map_err(|error| Error::io(&self.dir, "sync", error))?;
        Ok(Stored { index, path, bytes: self.end })
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.finished {
            // If this fails, opening the directory the next time removes it.
            drop(self.fs.remove(&self.path));
        }
    }
}

//! The checkpoint: the applied state as key and value records in sled, written by changes, so that a restart need not replay the log.
//!
//! **What it promises: nothing but honesty.** sled 0.34 loses data on power cuts (its `flush` is no `fdatasync`, and it rewrites its
//! segments in place), panics on damaged files, and cannot be asked whether it is whole. So each commit is one atomic batch with a
//! marker that counts the records and sums their checksums; it is flushed, and the files are synced from here. What [`Checkpoint::load`]
//! gives back has been proved by a full scan against that marker. Whatever is missing, damaged, incomplete or makes sled panic is
//! deleted, and the caller rebuilds it from a snapshot and the log. A power cut at a bad moment may cost the checkpoint that had been
//! committed before: so what only the checkpoint holds is not safe. Purge the log no further than the newest snapshot file.
//!
//! The keys in sled: `0` the marker, `1 key` a record with its checksum and the first part of its value, `2 length key part` the other
//! parts. Values are split because sled puts large ones into files of their own.
//!
//! **Not here**: what keys and values mean, when to commit, snapshots. Calls block; keep them off the threads that serve.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::{Error, KeyValue};
use records::{Records, Total};
use tree::{Tree, Writes, add};

mod records;
mod tree;

/// A state on its way out of the checkpoint. It is proved complete when its records have been read to the end, and not before.
#[derive(Debug)]
pub struct Loading {
    /// What the caller committed with it.
    pub marker: Bytes,
    /// How many records there should be.
    pub count: u64,
    /// The records, by ascending key.
    pub records: Records,
}

/// The checkpoint in its directory.
pub struct Checkpoint {
    dir: PathBuf,
    /// None: there is no checkpoint (any more) to build on.
    tree: Option<Tree>,
    /// What the tree holds; None until it has been loaded or replaced.
    total: Option<Total>,
    discarded: Option<String>,
}

/// What the checkpoint takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointSize {
    /// Records.
    pub records: u64,
    /// Bytes of their keys and values.
    pub live_bytes: u64,
    /// Bytes of sled's files.
    pub disk_bytes: u64,
}

impl Checkpoint {
    /// Opens what is there. Whatever sled cannot open is deleted; [`Checkpoint::discarded`] says why.
    pub fn open(dir: &Path) -> Result<Checkpoint, Error> {
        let mut checkpoint = Checkpoint { dir: dir.to_owned(), tree: None, total: None, discarded: None };
        if tree::exists(dir) {
            match Tree::open(dir)? {
                Ok(tree) => checkpoint.tree = Some(tree),
                Err(why) => checkpoint.discard(why)?,
            }
        }
        Ok(checkpoint)
    }

    /// Gives out the checkpoint while it is read, once, and proves it by that. What `read` made of it comes back only if it was all
    /// there and whole. `None`: there is none, or it was deleted just now because it could not be proved ([`Checkpoint::discarded`] says
    /// why); rebuild the state and [`Checkpoint::replace`] it.
    pub fn load<T>(&mut self, read: impl FnOnce(&mut Loading) -> T) -> Result<Option<T>, Error> {
        let Some(tree) = &self.tree else {
            return Ok(None);
        };
        let why = match tree.marker() {
            Ok(Some((total, marker))) => {
                let mut loading = Loading { marker, count: total.count, records: tree.records() };
                let read = read(&mut loading);
                match loading.records.finish() {
                    Ok(found) if found == total => {
                        self.total = Some(total);
                        return Ok(Some(read));
                    }
                    Ok(found) => format!("it should hold {total}, but holds {found}"),
                    Err(why) => why,
                }
            }
            Ok(None) => "it was never finished".to_owned(),
            Err(why) => why,
        };
        self.discard(why)?;
        Ok(None)
    }

    /// Why the checkpoint that was here had to be deleted, for the operator's log.
    pub fn discarded(&self) -> Option<&str> {
        self.discarded.as_deref()
    }

    /// Changes records (`None` removes one) and the marker on top of what was loaded or replaced. Of several changes to one key the last
    /// counts. When this returns, sled has written it and its files are synced.
    ///
    /// A commit of up to 20,000 writes and 16 MiB is one atomic batch: after a crash in it the checkpoint is what it was before. A
    /// larger one is written in slices, and a crash in it costs the checkpoint. After an error there is no checkpoint any more, and nothing else is lost: go on without, and replace it.
    pub fn commit(&mut self, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>, marker: Bytes) -> Result<(), Error> {
        let (Some(tree), Some(total)) = (&self.tree, self.total) else {
            return Err(Error::refused("there is no complete checkpoint to change: replace it first"));
        };
        // Of several changes to one key the last; looked up in the order of sled's pages.
        let changes: BTreeMap<_, _> = changes.into_iter().collect();
        let written = (|| {
            let mut total = total;
            let mut writes = Writes::default();
            for (key, value) in &changes {
                if writes.full() {
                    tree.begin(&mut writes);
                    tree.apply(&mut writes)?;
                }
                tree.change(&mut writes, &mut total, key, value.as_deref())?;
            }
            tree.finish(writes, &total, &marker)?;
            Ok(total)
        })();
        match written {
            Ok(total) => {
                self.total = Some(total);
                Ok(())
            }
            Err(error) => self.give_up(error),
        }
    }

    /// Replaces everything. Each key comes once. Until this returns, there is no checkpoint.
    pub fn replace(&mut self, records: impl IntoIterator<Item = KeyValue>, marker: Bytes) -> Result<(), Error> {
        self.clear()?;
        let tree = match Tree::open(&self.dir)? {
            Ok(tree) => tree,
            Err(why) => return Err(Error::io(&self.dir, "open the new checkpoint in", std::io::Error::other(why))),
        };
        let written = (|| {
            let mut total = Total::default();
            let mut writes = Writes::default();
            for (key, value) in records {
                if writes.enough() {
                    tree.apply(&mut writes)?;
                }
                add(&mut writes, &mut total, &key, &value)?;
            }
            tree.finish(writes, &total, &marker)?;
            Ok(total)
        })();
        self.tree = Some(tree);
        match written {
            Ok(total) => {
                self.total = Some(total);
                Ok(())
            }
            Err(error) => self.give_up(error),
        }
    }

    /// What it takes; `None` without a complete checkpoint.
    pub fn size(&self) -> Option<CheckpointSize> {
        let (tree, total) = (self.tree.as_ref()?, self.total?);
        Some(CheckpointSize { records: total.count, live_bytes: total.bytes, disk_bytes: tree.disk_bytes() })
    }

    fn give_up(&mut self, error: Error) -> Result<(), Error> {
        // The first error is the one that explains; deleting is tried again when the directory is opened.
        drop(self.discard(error.to_string()));
        Err(error)
    }

    fn discard(&mut self, why: String) -> Result<(), Error> {
        self.discarded = Some(why);
        self.clear()
    }

    /// Closes sled and deletes its files.
    fn clear(&mut self) -> Result<(), Error> {
        self.total = None;
        if let Some(tree) = self.tree.take() {
            tree.close();
        }
        tree::delete(&self.dir)
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint").field("dir", &self.dir).field("total", &self.total).finish_non_exhaustive()
    }
}

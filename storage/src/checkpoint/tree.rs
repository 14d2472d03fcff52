//! The only file that calls sled. Every call may panic on damaged files, and is caught.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};
use sled::Batch;

use super::records::{self, Records, Stamp, Total};
use crate::Error;
use crate::fs::before_sync;

/// sled's page cache. The state itself is in memory anyway; this serves the scan at start and the lookups of a commit.
const CACHE_BYTES: u64 = 64 << 20;
/// sled cannot free a page's old versions (some 4 KiB for each write) before the batch ends, so one batch of 20,000 writes takes 80 MiB
/// for the moment; a million would take gigabytes.
const BATCH_WRITES: usize = 20_000;
const BATCH_BYTES: usize = 16 << 20;
/// sled's threads may hold its lock a little longer than its handle lives.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// sled's files in use.
pub(super) struct Tree {
    dir: PathBuf,
    db: sled::Db,
}

/// Writes to sled, gathered for one batch. Of several to one key the last counts.
#[derive(Default)]
pub(super) struct Writes {
    batch: Batch,
    count: usize,
    bytes: usize,
}

impl Writes {
    fn insert(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.count += 1;
        self.bytes += key.len() + value.len();
        self.batch.insert(key, value);
    }

    fn remove(&mut self, key: Vec<u8>) {
        self.count += 1;
        self.bytes += key.len();
        self.batch.remove(key);
    }

    /// Whether one batch should not hold more.
    pub(super) fn full(&self) -> bool {
        self.count >= BATCH_WRITES || self.bytes >= BATCH_BYTES
    }

    /// Whether to write them where nothing is gained by having many in one batch.
    pub(super) fn enough(&self) -> bool {
        self.count >= BATCH_WRITES / 10 || self.bytes >= BATCH_BYTES / 10
    }
}

/// Why sled did not do as asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("{0}")]
    Sled(sled::Error),
    #[error("sled panicked: {0}")]
    Panic(String),
}

/// Whether there is anything that could be a checkpoint.
pub(super) fn exists(dir: &Path) -> bool {
    dir.join("db").exists() || dir.join("conf").exists()
}

/// Deletes the files; the directory stays, empty.
pub(super) fn delete(dir: &Path) -> Result<(), Error> {
    // Emptied first: after a failure sled's threads may hold its files, and their space, for as long as this process lives.
    for file in files(dir)? {
        match File::options().write(true).truncate(true).open(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io(&file, "empty", error)),
            _ => {}
        }
    }
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(dir, "delete", error)),
        _ => crate::fs::Fs::create_dir(&crate::fs::Real, dir).map_err(|error| Error::io(dir, "create", error)),
    }
}

impl Tree {
    /// Opens or makes it. The outer error is this machine's, the inner one says what is wrong with the files.
    pub(super) fn open(dir: &Path) -> Result<Result<Tree, String>, Error> {
        crate::fs::Fs::create_dir(&crate::fs::Real, dir).map_err(|error| Error::io(dir, "create", error))?;
        remove_leftovers(dir)?;
        wait_for_lock(dir)?;
        // Not flushed behind our back: commits do it, and sync afterwards.
        let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        Ok(guarded(|| config.open()).map(|db| Tree { dir: dir.to_owned(), db }).map_err(|fault| fault.to_string()))
    }

    /// The marker, and the total that it promises.
    pub(super) fn marker(&self) -> Result<Option<(Total, Bytes)>, String> {
        match guarded(|| self.db.get(records::marker_key())).map_err(|fault| fault.to_string())? {
            Some(bytes) => Ok(Some(records::decode_marker(&bytes).ok_or("its marker does not match its checksum")?)),
            None => Ok(None),
        }
    }

    /// Everything, verified and added up as it is read.
    pub(super) fn records(&self) -> Records {
        Records::new(&self.db)
    }

    /// The writes that add, replace or remove a record, whatever is there.
    pub(super) fn change(
        &self,
        writes: &mut Writes,
        total: &mut Total,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), Error> {
        let stored = records::record_key(key);
        let before = guarded(|| self.db.get(&stored)).map_err(|fault| self.error("read", fault))?;
        if let Some(head) = before {
            let damaged = || Error::corrupt(&self.dir, 0, "a record is too short for its header");
            let stamp = Stamp::stored(key, &head).ok_or_else(damaged)?;
            total.remove(stamp);
            writes.remove(stored);
            for part in 1..=stamp.parts() {
                writes.remove(records::part_key(key, part));
            }
        }
        match value {
            Some(value) => add(writes, total, key, value),
            None => Ok(()),
        }
    }

    /// From here to [`Tree::finish`] a crash leaves something that is not taken for a checkpoint.
    pub(super) fn begin(&self, writes: &mut Writes) {
        writes.remove(records::marker_key().to_vec());
    }

    /// Writes what has been gathered, all or nothing.
    pub(super) fn apply(&self, writes: &mut Writes) -> Result<(), Error> {
        let Writes { batch, count, .. } = std::mem::take(writes);
        let applied = guarded(|| self.db.apply_batch(batch)).map_err(|fault| self.error("write", fault));
        collect_garbage(count);
        applied
    }

    /// Writes the rest together with the marker, and syncs.
    pub(super) fn finish(&self, mut writes: Writes, total: &Total, marker: &[u8]) -> Result<(), Error> {
        writes.insert(records::marker_key().to_vec(), records::encode_marker(total, marker));
        self.apply(&mut writes)?;
        guarded(|| self.db.flush()).map_err(|fault| self.error("flush", fault))?;
        sync_all(&self.dir)
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        guarded(|| self.db.size_on_disk()).unwrap_or_default()
    }

    /// Closes it, even if sled panics in doing so.
    pub(super) fn close(self) {
        drop(catch_unwind(AssertUnwindSafe(move || drop(self.db))));
    }

    fn error(&self, action: &'static str, fault: Fault) -> Error {
        match fault {
            Fault::Sled(sled::Error::Io(error)) => Error::io(&self.dir, action, error),
            other => Error::corrupt(&self.dir, 0, other.to_string()),
        }
    }
}

/// The writes that add a record which is not there yet.
pub(super) fn add(writes: &mut Writes, total: &mut Total, key: &[u8], value: &[u8]) -> Result<(), Error> {
    if key.len().saturating_add(value.len()) > u32::MAX as usize {
        return Err(Error::refused(format!("a record of {} bytes", value.len())));
    }
    let stamp = Stamp::of(key, value);
    let (head, parts) = records::split(&stamp, value);
    writes.insert(records::record_key(key), head);
    for (number, part) in (1..).zip(parts) {
        writes.insert(records::part_key(key, number), part.to_vec());
    }
    total.add(stamp);
    Ok(())
}

/// Frees the versions of pages that these writes have replaced. Left to itself sled frees a few with each later call, far fewer than a
/// batch makes: without this, writing a million records left 5 GiB behind (with it, 0.2).
fn collect_garbage(writes: usize) {
    // A round frees up to eight bags of 62; each write leaves about two versions behind.
    for _ in 0..=writes * 2 / (8 * 62) * 2 {
        crossbeam_epoch::pin().flush();
    }
}

/// Calls sled; a panic is an error like others.
pub(super) fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(Fault::Sled),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(Fault::Panic(text.unwrap_or_default()))
        }
    }
}

/// A crash while sled wrote its index of pages leaves files that it trips over.
fn remove_leftovers(dir: &Path) -> Result<(), Error> {
    for file in files(dir)? {
        if file.extension().is_some_and(|extension| extension == "generating") {
            std::fs::remove_file(&file).map_err(|error| Error::io(&file, "remove", error))?;
        }
    }
    Ok(())
}

/// Told apart from damage, because a checkpoint in use must not be deleted.
fn wait_for_lock(dir: &Path) -> Result<(), Error> {
    let file = match File::open(dir.join("db")) {
        Ok(file) => file,
        Err(_) => return Ok(()),
    };
    let began = Instant::now();
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if began.elapsed() > LOCK_WAIT {
            return Err(Error::Locked { dir: dir.to_owned(), pid: None });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// sled's flush only starts the writing of its file; this waits until files and names are on the disk.
fn sync_all(dir: &Path) -> Result<(), Error> {
    for place in [dir.to_owned(), dir.join("blobs")] {
        for file in files(&place)? {
            let synced = before_sync().and_then(|()| File::open(&file)).and_then(|open| open.sync_data());
            match synced {
                // sled removes files of its own in the background.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result.map_err(|error| Error::io(&file, "sync", error))?,
            }
        }
        if place.exists() {
            before_sync()
                .and_then(|()| File::open(&place))
                .and_then(|open| open.sync_all())
                .map_err(|error| Error::io(&place, "sync", error))?;
        }
    }
    Ok(())
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let listed = match std::fs::read_dir(dir) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(dir, "list", error)),
    };
    let mut files = Vec::new();
    for entry in listed {
        let entry = entry.map_err(|error| Error::io(dir, "list", error))?;
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            files.push(entry.path());
        }
    }
    Ok(files)
}

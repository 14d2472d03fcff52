//! The write-ahead log: entries, vote, committed, truncations and purges in one stream of synced segments. The truth of this node.
//!
//! **What it promises.** A completion that reports success means: this, and everything queued before it, is on the disk. It survives
//! `kill -9` and power loss. What was queued and not acknowledged may survive as well, always as a prefix of the queue. Damage is an
//! [`Error::Corrupt`] with file and offset, when the log is opened or an entry is read; it is never skipped and never served.
//!
//! **How.** One I/O thread takes everything queued, writes it behind the last segment and makes it durable with one `fdatasync`, so
//! waiting writers share the price of a sync. A segment is written aside with the vote and the markers at its head, synced, renamed and
//! its directory synced; from then on the one before is complete, and only the newest may have a torn tail. That tail is cut when the
//! log is opened, but only where no later record proves that it had once been synced (`log/format.rs`). After a failed write or sync
//! nothing is acknowledged any more: the kernel may have dropped the pages and call the next sync a success. Purging removes whole
//! segments, oldest first, after the record of the purge is durable.
//!
//! **A disk that runs full.** Room behind the newest segment is held in advance ([`LogSettings::reserve_bytes`], allocated in the file and
//! not part of its length). While the disk has room, the reserve is kept whole; once it cannot be, the log is *short* ([`Shortage`]):
//! it goes on from the reserve, begins no new segment, and its callers are to give it nothing that they can refuse. So what they had
//! decided before they could know finds room, and so do votes and marks, for as long as it takes to make room.
//!
//! **Not here**: what the bytes mean, when to purge, elections. Clones share the log; the last one dropped finishes the queue.
//!
//! **Why not `raft-log` 0.4** (with `chunked-wal` 0.2), which was judged first. It does sync file data before it completes, sync the
//! directory on create and unlink, group commits, keeps vote and purge marker in each chunk, and stops after a failed sync. But: (1) it
//! calls `std::fs` on concrete files throughout, so no simulated disk can be put under it. (2) Its records have no checked header:
//! any record in the newest chunk that decodes to an unexpected end of file is taken for a torn tail, so one damaged length cuts off all
//! acknowledged records after it, and in a chunk's first record it deletes the chunk (`handle_record_error`,
//! `remove_incomplete_tail_chunks`). (3) Conversely a torn batch whose later page reached the disk without the earlier one is "damaged"
//! and the log does not open again after an honest power cut. (4) Errors are `io::Error` with text: no file, no offset, no full disk to
//! match on; completions still queued behind a failure are dropped. (5) By default each batch first waits a millisecond for company.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

use crate::Error;
use crate::fs::{Fs, Real};
use contents::{Contents, Place};
use segment::{Run, Segment};

mod contents;
mod format;
mod replay;
mod segment;
mod stepper;
mod writer;

pub use stepper::Stepper;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place in the log; each is one more than the one before.
    pub index: u64,
    /// What the caller stores.
    pub bytes: Bytes,
}

/// The limits of a log.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// A segment that has reached this size is followed by a new one. Disk space is freed in these steps.
    pub segment_bytes: u64,
    /// Latest entries kept in memory; older ones are read from their files.
    pub cache_bytes: usize,
    /// Bytes queued for the I/O thread. Above it, callers wait: a disk that is slower than its callers must not fill the memory.
    pub queue_bytes: usize,
    /// An idle log notes after this time how much of it is durable, so that later damage to its very end is told from a torn tail.
    pub idle_mark: Duration,
    /// Room held behind the newest entry, so that a disk that runs full stops nobody at once; 0 for none.
    pub reserve_bytes: u64,
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings {
            segment_bytes: 64 << 20,
            cache_bytes: 64 << 20,
            queue_bytes: 64 << 20,
            idle_mark: Duration::from_millis(100),
            reserve_bytes: 24 << 20,
        }
    }
}

/// The longest entry, vote or marker.
pub const RECORD_BYTES_MAX: usize = format::BODY_BYTES_MAX;

/// The highest index of an entry: one less than there are numbers, so that there is always a next one.
const INDEX_MAX: u64 = u64::MAX - 1;

/// What a log takes on disk, for metrics and for deciding when to purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogSize {
    /// Entries that can be read.
    pub entries: u64,
    /// Files.
    pub segments: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// Whether the disk has no room left to keep the log's reserve whole.
#[derive(Debug, Clone, Default)]
pub struct Shortage(Arc<AtomicBool>);

impl Shortage {
    /// Whether it is so now. Nothing should be appended that can be refused.
    pub fn is_now(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, short: bool) {
        self.0.store(short, Ordering::Relaxed);
    }
}

type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

enum Job {
    Append { first: u64, ticket: u64, entries: Vec<Bytes>, done: Done },
    Vote { vote: Bytes, done: Done },
    Committed { committed: Bytes },
    Truncate { index: u64, done: Done },
    Purge { index: u64, marker: Bytes, done: Done },
    Sync { done: Done },
}

impl Job {
    /// Bytes that it will write, roughly.
    fn weight(&self) -> usize {
        let overhead = format::RECORD_HEADER as usize;
        match self {
            Job::Append { entries, .. } => entries.iter().map(|entry| entry.len() + overhead).sum(),
            Job::Vote { vote: bytes, .. } | Job::Committed { committed: bytes } => bytes.len() + overhead,
            Job::Purge { marker, .. } => marker.len() + overhead,
            Job::Truncate { .. } | Job::Sync { .. } => overhead,
        }
    }

    fn done(self) -> Option<Done> {
        match self {
            Job::Append { done, .. }
            | Job::Vote { done, .. }
            | Job::Truncate { done, .. }
            | Job::Purge { done, .. }
            | Job::Sync { done } => Some(done),
            Job::Committed { .. } => None,
        }
    }
}

/// What callers and the I/O thread share.
struct Shared {
    inner: Mutex<Inner>,
    /// There is something to write, or the end has come.
    work: Condvar,
    /// The queue has room again.
    room: Condvar,
}

#[derive(Default)]
struct Inner {
    contents: Contents,
    segments: BTreeMap<u32, Arc<Segment>>,
    bytes: u64,
    queue: VecDeque<Job>,
    queued_bytes: usize,
    /// Distinguishes entries that had the same index in turn.
    tickets: u64,
    failure: Option<Error>,
    closing: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The log. See the head of this file.
#[derive(Clone)]
pub struct Log {
    owner: Arc<Owner>,
}

struct Owner {
    shared: Arc<Shared>,
    settings: LogSettings,
    torn_bytes: u64,
    shortage: Shortage,
    thread: Option<JoinHandle<()>>,
}

impl Log {
    /// Opens the log in this directory, or begins one if it has no segments.
    pub fn open(dir: &Path, settings: LogSettings) -> Result<Log, Error> {
        Log::open_on(Arc::new(Real), dir, settings)
    }

    /// Opens the log on another file system than the real one.
    pub fn open_on(fs: Arc<dyn Fs>, dir: &Path, settings: LogSettings) -> Result<Log, Error> {
        let (writer, mut owner) = Owner::open(fs, dir, settings)?;
        let thread = std::thread::Builder::new()
            .name("storage-log".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| Error::io(dir, "start the log's thread for", error))?;
        owner.thread = Some(thread);
        Ok(Log { owner: Arc::new(owner) })
    }

    /// Opens the log without a thread: nothing is written before the caller [steps](Stepper::step), for simulations in which every write
    /// happens at a moment of their choice. Here [`Log::sync`] waits for ever, unless somebody else steps.
    pub fn open_stepped(fs: Arc<dyn Fs>, dir: &Path, settings: LogSettings) -> Result<(Log, Stepper), Error> {
        let (writer, owner) = Owner::open(fs, dir, settings)?;
        Ok((Log { owner: Arc::new(owner) }, Stepper::new(writer)))
    }

    /// Adds entries at the end; `done` runs once they are durable, in the order of calls.
    ///
    /// They can be read as soon as this returns. It returns at once, unless more than [`LogSettings::queue_bytes`] are queued. `done`
    /// runs on the I/O thread (or, if the log has failed, on the caller's): it must be short and must not call the log.
    pub fn append(&self, records: Vec<Record>, done: impl FnOnce(Result<(), Error>) + Send + 'static) {
        let mut inner = self.room();
        let first = records.first().map(|record| record.index);
        let next = inner.contents.next().or(first).unwrap_or_default();
        for (expected, Record { index, bytes }) in (next..).zip(&records) {
            if *index != expected || *index > INDEX_MAX || bytes.len() > RECORD_BYTES_MAX {
                drop(inner);
                let what = format!("entry {index} of {} bytes where entry {expected} is next", bytes.len());
                return done(Err(Error::refused(what)));
            }
        }
        let ticket = inner.tickets;
        if inner.failure.is_none() {
            inner.tickets += records.len() as u64;
            for (ticket, record) in (ticket..).zip(&records) {
                inner.contents.push(record.index, Place::Queued { ticket }, Some(record.bytes.clone()));
            }
        }
        let entries = records.into_iter().map(|record| record.bytes).collect();
        self.queue(inner, Job::Append { first: next, ticket, entries, done: Box::new(done) });
    }

    /// Replaces the vote; `done` runs once it is durable.
    pub fn save_vote(&self, vote: Bytes, done: impl FnOnce(Result<(), Error>) + Send + 'static) {
        let mut inner = self.room();
        if inner.failure.is_none() {
            inner.contents.markers.vote = Some(vote.clone());
        }
        self.queue(inner, Job::Vote { vote, done: Box::new(done) });
    }

    /// The last vote saved.
    pub fn vote(&self) -> Option<Bytes> {
        self.lock().contents.markers.vote.clone()
    }

    /// Replaces the note of how far the log is committed. Not synced by itself: a crash may bring back an older one.
    pub fn save_committed(&self, committed: Bytes) {
        let mut inner = self.room();
        if inner.failure.is_none() {
            inner.contents.markers.committed = Some(committed.clone());
        }
        self.queue(inner, Job::Committed { committed });
    }

    /// The last committed note.
    pub fn committed(&self) -> Option<Bytes> {
        self.lock().contents.markers.committed.clone()
    }

    /// The entries of this range that are held, from its start, at most about this many bytes but at least one entry.
    ///
    /// A range that begins before [`Log::first_index`] is read from there.
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<Record>, Error> {
        let mut records = Vec::new();
        let mut stored = Vec::new();
        let mut bytes_left = bytes_max;
        {
            let inner = self.lock();
            let Some((first, last)) = inner.contents.first().zip(inner.contents.last()) else {
                return Ok(records);
            };
            for index in range.start.max(first)..range.end.min(last + 1) {
                let recent = inner.contents.recent(index);
                let place = inner.contents.place(index);
                let length = match (&recent, place) {
                    (Some(bytes), _) => bytes.len(),
                    (None, Some(Place::Stored { len, .. })) => len as usize,
                    _ => break,
                };
                if length > bytes_left && !records.is_empty() {
                    break;
                }
                bytes_left = bytes_left.saturating_sub(length);
                if let (None, Some(Place::Stored { segment, len, offset })) = (&recent, place)
                    && let Some(segment) = inner.segments.get(&segment)
                {
                    stored.push((segment.clone(), records.len(), index, offset, len));
                }
                records.push(Record { index, bytes: recent.unwrap_or_default() });
            }
        }
        // Outside the lock: segments purged meanwhile stay readable through their open handles.
        let mut fill = |from: usize, entries: Vec<(u64, Bytes)>| {
            for (slot, (_, bytes)) in records.iter_mut().skip(from).zip(entries) {
                slot.bytes = bytes;
            }
        };
        let mut run = Run::default();
        let mut run_from = 0;
        for (segment, at, index, offset, len) in stored {
            if !run.takes(&segment, offset) {
                fill(run_from, run.read()?);
                run_from = at;
            }
            run.add(segment, index, offset, len);
        }
        fill(run_from, run.read()?);
        Ok(records)
    }

    /// Removes the entries from this index on; `done` runs once that is durable.
    pub fn truncate_from(&self, index: u64, done: impl FnOnce(Result<(), Error>) + Send + 'static) {
        let mut inner = self.room();
        if let Some((purged, _)) = inner.contents.markers.purged.as_ref().filter(|(purged, _)| index <= *purged) {
            let what = format!("truncating from entry {index}, which was purged (to {purged})");
            drop(inner);
            return done(Err(Error::refused(what)));
        }
        if index > INDEX_MAX {
            drop(inner);
            return done(Err(Error::refused(format!("truncating from entry {index}, which cannot be"))));
        }
        if inner.failure.is_none() {
            inner.contents.truncate_from(index);
        }
        self.queue(inner, Job::Truncate { index, done: Box::new(done) });
    }

    /// Removes the entries up to and including this index, and remembers the caller's marker for it. The index may lie beyond the last
    /// entry: the log then goes on behind it. `done` runs once the purge is durable and the segments no longer needed are removed.
    pub fn purge_to(&self, index: u64, marker: Bytes, done: impl FnOnce(Result<(), Error>) + Send + 'static) {
        let mut inner = self.room();
        if let Some((purged, _)) = inner.contents.markers.purged.as_ref().filter(|(purged, _)| index < *purged) {
            let what = format!("purging to entry {index} after a purge to {purged}");
            drop(inner);
            return done(Err(Error::refused(what)));
        }
        if index > INDEX_MAX {
            drop(inner);
            return done(Err(Error::refused(format!("purging to entry {index}, which cannot be"))));
        }
        if inner.failure.is_none() {
            inner.contents.purge_to(index, marker.clone());
        }
        self.queue(inner, Job::Purge { index, marker, done: Box::new(done) });
    }

    /// The last purge: its index and marker.
    pub fn purged(&self) -> Option<(u64, Bytes)> {
        self.lock().contents.markers.purged.clone()
    }

    /// The index of the first entry held.
    pub fn first_index(&self) -> Option<u64> {
        self.lock().contents.first()
    }

    /// The index of the last entry held.
    pub fn last_index(&self) -> Option<u64> {
        self.lock().contents.last()
    }

    /// The last entry held.
    pub fn last(&self) -> Result<Option<Record>, Error> {
        match self.last_index() {
            Some(last) => Ok(self.read(last..last + 1, RECORD_BYTES_MAX)?.pop()),
            None => Ok(None),
        }
    }

    /// Waits until everything queued so far is durable.
    pub fn sync(&self) -> Result<(), Error> {
        let (done, wait) = std::sync::mpsc::sync_channel(1);
        self.queue(self.room(), Job::Sync { done: Box::new(move |result| drop(done.send(result))) });
        wait.recv().unwrap_or_else(|_| Err(Error::refused("the log is closed")))
    }

    /// The first failure, after which nothing is acknowledged.
    pub fn failure(&self) -> Option<Error> {
        self.lock().failure.clone()
    }

    /// Tells at any time whether the log lives on its reserve. On a file system that cannot hold room it never says so.
    pub fn shortage(&self) -> Shortage {
        self.owner.shortage.clone()
    }

    /// What the log takes on disk, without its reserve.
    pub fn size(&self) -> LogSize {
        let inner = self.lock();
        LogSize { entries: inner.contents.len() as u64, segments: inner.segments.len() as u64, bytes: inner.bytes }
    }

    /// Bytes of an unacknowledged batch that a crash had left at the end and that opening has cut off.
    pub fn torn_bytes(&self) -> u64 {
        self.owner.torn_bytes
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.owner.shared.lock()
    }

    /// Waits until the queue is below its limit.
    fn room(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.lock();
        while inner.queued_bytes >= self.owner.settings.queue_bytes.max(1) && inner.failure.is_none() {
            inner = self.owner.shared.room.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner
    }

    fn queue(&self, mut inner: MutexGuard<'_, Inner>, job: Job) {
        if let Some(failure) = inner.failure.as_ref().map(Error::poison) {
            drop(inner);
            if let Some(done) = job.done() {
                done(Err(failure));
            }
            return;
        }
        inner.queued_bytes += job.weight();
        inner.queue.push_back(job);
        drop(inner);
        self.owner.shared.work.notify_one();
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        f.debug_struct("Log")
            .field("first", &inner.contents.first())
            .field("last", &inner.contents.last())
            .field("failure", &inner.failure)
            .finish_non_exhaustive()
    }
}

impl Owner {
    fn open(fs: Arc<dyn Fs>, dir: &Path, settings: LogSettings) -> Result<(writer::Writer, Owner), Error> {
        fs.create_dir(dir).map_err(|error| Error::io(dir, "create", error))?;
        let replayed = replay::replay(fs.as_ref(), dir)?;
        let torn_bytes = replayed.torn_bytes;
        let shortage = Shortage::default();
        let (writer, shared) = writer::Writer::new(fs, dir, &settings, replayed, shortage.clone())?;
        Ok((writer, Owner { shared, settings, torn_bytes, shortage, thread: None }))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.work.notify_one();
        // A completion may own the last clone; the I/O thread cannot wait for itself.
        if let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != std::thread::current().id()) {
            // It reports its failures to those who wait for it, never by panicking.
            drop(thread.join());
        }
    }
}

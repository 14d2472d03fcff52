//! The I/O thread: takes what is queued, writes it, syncs once, completes. The only code that changes the log's files once it is open.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::contents::{Markers, Place};
use super::format::{self, Kind, Stamp};
use super::replay::{Found, Replayed};
use super::segment::Segment;
use super::{Done, Inner, Job, LogSettings, Shared};
use crate::Error;
use crate::fs::Fs;

/// One write and sync take at most about this much: larger batches gain nothing and make the first in line wait for the last.
const BATCH_BYTES: usize = 8 << 20;

pub(super) struct Writer {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    shared: Arc<Shared>,
    segment_bytes: u64,
    cache_bytes: usize,
    idle_mark: Duration,
    segment: Arc<Segment>,
    /// Where its head ends.
    begun_at: u64,
    /// Where the next write goes.
    end: u64,
    /// How much of the segment is durable.
    synced: u64,
    /// Whether a record says so.
    marked: bool,
    /// The highest entry in the current segment.
    highest: Option<u64>,
    /// Complete segments, oldest first.
    complete: VecDeque<Found>,
    /// What has been written, as opposed to queued.
    held: Option<(u64, u64)>,
    markers: Markers,
    buffer: Vec<u8>,
    /// Entries in the buffer: index, ticket, place.
    placed: Vec<(u64, u64, Place)>,
}

impl Writer {
    pub(super) fn new(
        fs: Arc<dyn Fs>,
        dir: &Path,
        settings: &LogSettings,
        replayed: Replayed,
    ) -> Result<(Writer, Arc<Shared>), Error> {
        let Replayed { contents, mut segments, end, .. } = replayed;
        let held = contents.first().zip(contents.last());
        let markers = contents.markers.clone();
        let (current, end, fresh) = match segments.pop() {
            Some(found) => (found, end, false),
            None => {
                let (segment, end) = Segment::begin(fs.as_ref(), dir, 1, held, &markers)?;
                (Found { segment: Arc::new(segment), bytes: end, highest: None }, end, true)
            }
        };
        let complete = VecDeque::from(segments);
        let open: BTreeMap<u32, Arc<Segment>> = complete
            .iter()
            .chain([&current])
            .map(|found| (found.segment.number as u32, found.segment.clone()))
            .collect();
        let bytes = complete.iter().map(|found| found.bytes).sum::<u64>() + end;
        let inner = Inner { contents, segments: open, bytes, ..Inner::default() };
        let shared = Arc::new(Shared { inner: Mutex::new(inner), work: Condvar::new(), room: Condvar::new() });
        let writer = Writer {
            fs,
            dir: dir.to_owned(),
            shared: shared.clone(),
            segment_bytes: settings.segment_bytes,
            cache_bytes: settings.cache_bytes,
            idle_mark: settings.idle_mark,
            segment: current.segment,
            begun_at: if fresh { end } else { 0 },
            end,
            synced: end,
            // What was found may include records after the last one that says how much is durable.
            marked: false,
            highest: current.highest,
            complete,
            held,
            markers,
            buffer: Vec::new(),
            placed: Vec::new(),
        };
        Ok((writer, shared))
    }

    pub(super) fn run(mut self) {
        // Whatever ends this thread, nobody waits for ever.
        let _end = End { shared: self.shared.clone() };
        while let Some(jobs) = self.next_batch() {
            self.serve(jobs);
        }
    }

    /// Waits for work; `None` when the log closes and the queue is empty.
    fn next_batch(&mut self) -> Option<Vec<Job>> {
        let shared = self.shared.clone();
        let mut inner = shared.lock();
        loop {
            if !inner.queue.is_empty() {
                let mut weight = 0;
                let mut jobs = Vec::new();
                while weight < BATCH_BYTES
                    && let Some(job) = inner.queue.pop_front()
                {
                    weight += job.weight();
                    jobs.push(job);
                }
                inner.queued_bytes -= weight;
                drop(inner);
                shared.room.notify_all();
                return Some(jobs);
            }
            let idle = !self.marked && inner.failure.is_none();
            if inner.closing {
                drop(inner);
                if idle {
                    self.mark();
                    // A lost mark loses nothing but the power to tell damage from a torn tail.
                    drop(self.segment.sync());
                }
                return None;
            }
            if idle {
                let (again, timeout) =
                    shared.work.wait_timeout(inner, self.idle_mark).unwrap_or_else(PoisonError::into_inner);
                inner = again;
                if timeout.timed_out() && inner.queue.is_empty() && !inner.closing {
                    drop(inner);
                    self.mark();
                    inner = shared.lock();
                }
            } else {
                inner = shared.work.wait(inner).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Writes a batch, syncs once, completes everyone in order.
    fn serve(&mut self, jobs: Vec<Job>) {
        if let Some(failure) = self.shared.lock().failure.as_ref().map(Error::poison) {
            jobs.into_iter().filter_map(Job::done).for_each(|done| done(Err(failure.clone())));
            return;
        }
        let mut waiting: Vec<Done> = Vec::new();
        let mut purging: Vec<Done> = Vec::new();
        let mut wanted = false;
        let mut result = Ok(());
        for job in jobs {
            if result.is_ok() {
                result = self.put(&job);
            }
            wanted |= !matches!(job, Job::Committed { .. });
            let purge = matches!(job, Job::Purge { .. });
            match job.done() {
                Some(done) if purge => purging.push(done),
                Some(done) => waiting.push(done),
                None => {}
            }
        }
        result = result.and_then(|()| self.flush(wanted));
        self.complete(&result, waiting);
        if result.is_ok() && !purging.is_empty() {
            result = self.remove_purged();
        }
        self.complete(&result, purging);
    }

    /// Encodes a job behind what is already in the buffer.
    fn put(&mut self, job: &Job) -> Result<(), Error> {
        match job {
            Job::Append { first, ticket, entries, .. } => {
                for (at, entry) in (0u64..).zip(entries) {
                    let index = first + at;
                    let offset = self.record(Kind::Entry, index, entry)?;
                    let place = Place::Stored { segment: self.segment.number as u32, len: entry.len() as u32, offset };
                    self.placed.push((index, ticket + at, place));
                    self.highest = self.highest.max(Some(index));
                    self.held = Some((self.held.map_or(index, |(first, _)| first), index));
                }
            }
            Job::Vote { vote, .. } => {
                self.record(Kind::Vote, 0, vote)?;
                self.markers.vote = Some(vote.clone());
            }
            Job::Committed { committed } => {
                self.record(Kind::Committed, 0, committed)?;
                self.markers.committed = Some(committed.clone());
            }
            Job::Truncate { index, .. } => {
                self.record(Kind::Truncate, *index, &[])?;
                self.held =
                    self.held.filter(|(first, _)| first < index).map(|(first, last)| (first, last.min(index - 1)));
            }
            Job::Purge { index, marker, .. } => {
                self.record(Kind::Purge, *index, marker)?;
                self.held =
                    self.held.filter(|(_, last)| last > index).map(|(first, last)| (first.max(index + 1), last));
                self.markers.purged = Some((*index, marker.clone()));
            }
            Job::Sync { .. } => {}
        }
        Ok(())
    }

    /// Adds one record to the buffer, beginning a new segment first if this one is full. Returns where it will lie.
    fn record(&mut self, kind: Kind, index: u64, body: &[u8]) -> Result<u64, Error> {
        let mut offset = self.end + self.buffer.len() as u64;
        // However small the limit, a segment holds something besides its head: else one would follow another without end.
        if offset >= self.segment_bytes && offset > self.begun_at {
            self.flush(true)?;
            self.rotate()?;
            offset = self.end;
        }
        let stamp = Stamp { salt: self.segment.salt, offset, synced: self.synced };
        format::encode(&mut self.buffer, stamp, kind, index, body);
        Ok(offset)
    }

    /// Writes the buffer out and, if wanted, makes everything so far durable.
    fn flush(&mut self, durable: bool) -> Result<(), Error> {
        if !self.buffer.is_empty() {
            self.segment.write(&self.buffer, self.end)?;
            let written = self.buffer.len() as u64;
            self.end += written;
            self.buffer.clear();
            // One huge batch must not keep its memory for ever.
            self.buffer.shrink_to(BATCH_BYTES);
            let mut inner = self.shared.lock();
            inner.bytes += written;
            for (index, ticket, place) in self.placed.drain(..) {
                inner.contents.stored(index, ticket, place);
            }
            inner.contents.shrink_recent(self.cache_bytes);
        }
        if durable && self.synced < self.end {
            self.segment.sync()?;
            self.synced = self.end;
            self.marked = false;
        }
        Ok(())
    }

    /// Begins the next segment. Everything in the current one is durable.
    fn rotate(&mut self) -> Result<(), Error> {
        let number = self.segment.number + 1;
        let (segment, end) = Segment::begin(self.fs.as_ref(), &self.dir, number, self.held, &self.markers)?;
        let segment = Arc::new(segment);
        let before = std::mem::replace(&mut self.segment, segment.clone());
        self.complete.push_back(Found { segment: before, bytes: self.end, highest: self.highest.take() });
        (self.begun_at, self.end, self.synced, self.marked) = (end, end, end, true);
        let mut inner = self.shared.lock();
        inner.bytes += end;
        inner.segments.insert(number as u32, segment);
        Ok(())
    }

    /// Removes the oldest segments as far as nothing in them is needed. The record of the purge is durable already.
    fn remove_purged(&mut self) -> Result<(), Error> {
        let Some(purged) = self.markers.purged.as_ref().map(|(index, _)| *index) else {
            return Ok(());
        };
        while let Some(found) =
            self.complete.front().filter(|found| found.highest.is_none_or(|highest| highest <= purged))
        {
            let path = &found.segment.path;
            self.fs.remove(path).map_err(|error| Error::io(path, "remove", error))?;
            // Before the next one goes: a power cut must not bring back an older segment without those that follow it.
            self.fs.sync_dir(&self.dir).map_err(|error| Error::io(&self.dir, "sync", error))?;
            let mut inner = self.shared.lock();
            inner.segments.remove(&(found.segment.number as u32));
            inner.bytes -= found.bytes;
            drop(inner);
            self.complete.pop_front();
        }
        Ok(())
    }

    /// Notes that everything so far is durable. Not synced: it matters only once it has reached the disk.
    fn mark(&mut self) {
        self.marked = true;
        let stamp = Stamp { salt: self.segment.salt, offset: self.end, synced: self.synced };
        let mut record = Vec::new();
        format::encode(&mut record, stamp, Kind::Mark, 0, &[]);
        match self.segment.write(&record, self.end) {
            Ok(()) => {
                self.end += record.len() as u64;
                self.shared.lock().bytes += record.len() as u64;
            }
            // What was written of it will be overwritten.
            Err(Error::Full { .. }) => {}
            Err(error) => self.fail(&error),
        }
    }

    fn complete(&mut self, result: &Result<(), Error>, waiting: Vec<Done>) {
        if let Err(error) = result {
            self.fail(error);
        }
        for done in waiting {
            done(result.clone());
        }
    }

    /// From here on nothing succeeds.
    fn fail(&mut self, error: &Error) {
        let mut inner = self.shared.lock();
        inner.failure.get_or_insert_with(|| error.clone());
        drop(inner);
        self.shared.room.notify_all();
    }
}

/// Answers whoever still waits when the I/O thread ends, be it by a panic in a completion.
struct End {
    shared: Arc<Shared>,
}

impl Drop for End {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        let closed = Error::refused("the log is closed");
        let failure = inner.failure.get_or_insert(closed).poison();
        let queue = std::mem::take(&mut inner.queue);
        inner.queued_bytes = 0;
        drop(inner);
        self.shared.room.notify_all();
        queue.into_iter().filter_map(Job::done).for_each(|done| done(Err(failure.clone())));
    }
}

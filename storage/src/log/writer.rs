//! The I/O thread: takes what is queued, writes it, syncs once, completes. The only code that changes the log's files once it is open.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::contents::{Markers, Place};
use super::format::{self, Kind, Stamp};
use super::replay::{Found, Replayed};
use super::segment::Segment;
use super::{Done, Inner, Job, LogSettings, Shared, Shortage};
use crate::Error;
use crate::fs::Fs;

/// One write and sync take at most about this much: larger batches gain nothing and make the first in line wait for the last.
const BATCH_BYTES: usize = 8 << 20;

/// A log that is short looks this often whether there is room again.
const SHORT_LOOK: Duration = Duration::from_millis(500);

/// The reserve is filled up in steps of this part of it, not with each write.
const RESERVE_STEPS: u64 = 4;

pub(super) struct Writer {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    shared: Arc<Shared>,
    segment_bytes: u64,
    cache_bytes: usize,
    idle_mark: Duration,
    /// 0 if none is wanted, or the file system cannot hold room.
    reserve_bytes: u64,
    /// Up to where room is held in the current segment.
    reserved: u64,
    shortage: Shortage,
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
        shortage: Shortage,
    ) -> Result<(Writer, Arc<Shared>), Error> {
        let Replayed { contents, mut segments, end, .. } = replayed;
        let held = contents.first().zip(contents.last());
        let markers = contents.markers.clone();
        let (current, end, fresh) = match segments.pop() {
            Some(found) => (found, end, false),
            None => {
                let (segment, end) = Segment::begin(fs.as_ref(), dir, 1, held, &markers, None)?;
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
        let mut writer = Writer {
            fs,
            dir: dir.to_owned(),
            shared: shared.clone(),
            segment_bytes: settings.segment_bytes,
            cache_bytes: settings.cache_bytes,
            idle_mark: settings.idle_mark,
            reserve_bytes: settings.reserve_bytes,
            reserved: 0,
            shortage,
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
        writer.hold_room();
        Ok((writer, shared))
    }

    pub(super) fn run(mut self) {
        let _end = self.end();
        while let Some(jobs) = self.next_batch() {
            self.serve(jobs);
        }
    }

    /// Whatever ends this writer, nobody waits for ever.
    pub(super) fn end(&self) -> End {
        End { shared: self.shared.clone() }
    }

    /// Writes one batch of what is queued now, and completes it. `false` if nothing is.
    pub(super) fn step(&mut self) -> bool {
        let shared = self.shared.clone();
        let Some(jobs) = take_batch(&mut shared.lock()) else { return false };
        shared.room.notify_all();
        self.serve(jobs);
        true
    }

    /// What a writer does for which there is nothing to do: see [`LogSettings::idle_mark`].
    pub(super) fn rest(&mut self) {
        if !self.marked && self.shared.lock().failure.is_none() {
            self.mark();
        }
    }

    /// Waits for work; `None` when the log closes and the queue is empty.
    fn next_batch(&mut self) -> Option<Vec<Job>> {
        let shared = self.shared.clone();
        let mut inner = shared.lock();
        loop {
            if let Some(jobs) = take_batch(&mut inner) {
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
            let short = self.shortage.is_now() && inner.failure.is_none();
            if idle || short {
                let patience = match (idle, short) {
                    (true, true) => self.idle_mark.min(SHORT_LOOK),
                    (true, false) => self.idle_mark,
                    _ => SHORT_LOOK,
                };
                let (again, timeout) =
                    shared.work.wait_timeout(inner, patience).unwrap_or_else(PoisonError::into_inner);
                inner = again;
                if timeout.timed_out() && inner.queue.is_empty() && !inner.closing {
                    drop(inner);
                    if short && let Err(error) = self.look_for_room() {
                        self.fail(&error);
                    }
                    if idle {
                        self.mark();
                    }
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
        if self.is_full(offset) && !self.shortage.is_now() {
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
        self.hold_room();
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

    /// Whether a segment of so many bytes is to be followed by another.
    fn is_full(&self, bytes: u64) -> bool {
        bytes >= self.segment_bytes && bytes > self.begun_at
    }

    /// A log that is short: does now what there was no room for.
    fn look_for_room(&mut self) -> Result<(), Error> {
        if !self.is_full(self.end) {
            self.hold_room();
            return Ok(());
        }
        self.flush(true)?;
        self.rotate()
    }

    /// Sees to it that what is in the buffer, and the reserve behind it, has room in the current segment; or notes that it has not.
    fn hold_room(&mut self) {
        let needed = self.end + self.buffer.len() as u64 + self.reserve_bytes;
        if self.reserve_bytes == 0 || needed <= self.reserved {
            return;
        }
        let bytes = needed + self.reserve_step() - self.end;
        match self.segment.reserve(self.end, bytes) {
            Ok(()) => {
                self.reserved = self.end + bytes;
                self.shortage.set(false);
            }
            Err(Error::Full { .. }) => self.shortage.set(true),
            // Not every file system can. If the disk itself has failed, the write that follows says so.
            Err(_) => {
                self.reserve_bytes = 0;
                self.shortage.set(false);
            }
        }
    }

    fn reserve_step(&self) -> u64 {
        self.reserve_bytes / RESERVE_STEPS
    }

    /// Begins the next segment, if there is room for it. Everything in the current one is durable.
    fn rotate(&mut self) -> Result<(), Error> {
        let number = self.segment.number + 1;
        let reserve = (self.reserve_bytes > 0).then(|| self.reserve_bytes + self.reserve_step());
        let begun = Segment::begin(self.fs.as_ref(), &self.dir, number, self.held, &self.markers, reserve);
        let (segment, end) = match begun {
            Ok(begun) => begun,
            // The segment grows over its size meanwhile, by no more than the reserve.
            Err(Error::Full { .. }) if self.reserve_bytes > 0 => {
                self.shortage.set(true);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.reserved = reserve.unwrap_or(0);
        self.shortage.set(false);
        let segment = Arc::new(segment);
        // What it held beyond its end; if that fails, the space comes back when the segment is purged.
        drop(self.segment.file.release());
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

/// Takes what is queued, as much as one write should have.
fn take_batch(inner: &mut Inner) -> Option<Vec<Job>> {
    let mut weight = 0;
    let mut jobs = Vec::new();
    while weight < BATCH_BYTES
        && let Some(job) = inner.queue.pop_front()
    {
        weight += job.weight();
        jobs.push(job);
    }
    inner.queued_bytes -= weight;
    (!jobs.is_empty()).then_some(jobs)
}

/// Answers whoever still waits when the I/O thread ends, be it by a panic in a completion.
pub(super) struct End {
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

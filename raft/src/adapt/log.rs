//! openraft's log over [`storage::Log`]: entries, vote, the committed and the purged mark, each a versioned record.
//!
//! Nothing here blocks the executor: appends queue to the storage's I/O thread and call back once they are durable, and
//! a read that is not in the cache of decoded entries goes to a blocking thread. The cache spares the common case (the
//! newest entries, read once for each follower and once to apply) the decoding. What a damaged record means is decided
//! by whoever reads it: openraft stops, and so does the node.

use crate::{
    codec::{
        self,
        form::{EntryForm, LogIdForm, VoteForm},
    },
    ground::{Blocking, DiskPause},
    types::{LogEntry, LogId, TypeConfig, Vote},
};
use bytes::Bytes;
use futures::{Stream, stream};
use openraft::{
    OptionalSend, RaftLogReader,
    storage::{IOFlushed, LogState, RaftLogStorage},
};
use std::{
    collections::VecDeque,
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use storage::log::Stepper;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

/// Decoded entries kept: enough for followers that keep up.
const RECENT_ENTRIES_MAX: usize = 1024;

/// Encoded bytes of the entries kept decoded.
const RECENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How often a stopping node looks whether others still hold the log.
const LET_GO_LOOK: Duration = Duration::from_millis(5);

/// A log is idle when nothing was written for so long.
const IDLE: Duration = Duration::from_millis(100);

/// Bytes read at a time for a follower or to apply: bounds a message and a batch.
const READ_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The log, and every reader of it: clones are the same log.
#[derive(Clone)]
pub(crate) struct Log {
    store: storage::Log,
    recent: Arc<Mutex<Recent>>,
    appended_bytes: Arc<AtomicU64>,
    blocking: Blocking,
    /// Whom to tell that something is queued, if the store has no thread of its own.
    work: Option<Arc<Work>>,
}

/// There is something to write; and when this is dropped, nothing more will come.
#[derive(Default)]
struct Work(Arc<Notify>);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// The newest entries, decoded; consecutive, ending with the last of the log.
#[derive(Default)]
struct Recent {
    entries: VecDeque<(LogEntry, usize)>,
    bytes: usize,
}

impl Recent {
    fn first(&self) -> Option<u64> {
        self.entries.front().map(|(entry, _)| entry.log_id.index())
    }

    fn push(&mut self, entry: LogEntry, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.entries.push_back((entry, bytes));
        while self.entries.len() > RECENT_ENTRIES_MAX || (self.bytes > RECENT_BYTES_MAX && self.entries.len() > 1) {
            if let Some((_, bytes)) = self.entries.pop_front() {
                self.bytes = self.bytes.saturating_sub(bytes);
            }
        }
    }

    fn truncate_from(&mut self, index: u64) {
        while self.entries.back().is_some_and(|(entry, _)| entry.log_id.index() >= index) {
            if let Some((_, bytes)) = self.entries.pop_back() {
                self.bytes = self.bytes.saturating_sub(bytes);
            }
        }
    }

    fn purge_to(&mut self, index: u64) {
        while self.first().is_some_and(|first| first <= index) {
            if let Some((_, bytes)) = self.entries.pop_front() {
                self.bytes = self.bytes.saturating_sub(bytes);
            }
        }
    }

    /// The entries from `start` up to `end`, at most about so many bytes, if the first of them is here.
    fn read(&self, start: u64, end: u64, bytes_max: usize) -> Option<Vec<LogEntry>> {
        let skip = usize::try_from(start.checked_sub(self.first()?)?).ok()?;
        let mut bytes = 0_usize;
        let entries: Vec<LogEntry> = self
            .entries
            .iter()
            .skip(skip)
            .take_while(|(entry, _)| entry.log_id.index() < end)
            .take_while(|(_, more)| {
                let fits = bytes == 0 || bytes.saturating_add(*more) <= bytes_max;
                bytes = bytes.saturating_add(*more);
                fits
            })
            .map(|(entry, _)| entry.clone())
            .collect();
        (!entries.is_empty()).then_some(entries)
    }
}

impl Log {
    pub(crate) fn new(store: storage::Log) -> Self {
        let blocking = Blocking::Threads;
        Self { store, recent: Arc::default(), appended_bytes: Arc::default(), blocking, work: None }
    }

    /// A log whose store has no thread: the future writes what is queued, as slowly as the disk is, and ends with the log.
    pub(crate) fn stepped(
        store: storage::Log,
        mut stepper: Stepper,
        pause: DiskPause,
    ) -> (Self, impl Future<Output = ()>) {
        let work = Arc::new(Work::default());
        let (news, held) = (Arc::clone(&work.0), Arc::downgrade(&work));
        let step = async move {
            while held.strong_count() > 0 {
                if tokio::time::timeout(IDLE, news.notified()).await.is_err() {
                    stepper.rest();
                    news.notified().await;
                }
                tokio::time::sleep(pause()).await;
                while stepper.step() {}
            }
            stepper.rest();
        };
        (Self { blocking: Blocking::Here, work: Some(work), ..Self::new(store) }, step)
    }

    fn wake(&self) {
        if let Some(work) = &self.work {
            work.0.notify_one();
        }
    }

    /// Bytes appended since the log was opened.
    pub(crate) fn appended_bytes(&self) -> u64 {
        self.appended_bytes.load(Ordering::Relaxed)
    }

    /// Waits until openraft's tasks hold this log no more, and lets go of it: then its files may be opened again.
    pub(crate) async fn let_go(self, patience: Instant) -> bool {
        while Arc::strong_count(&self.recent) > 1 && Instant::now() < patience {
            tokio::time::sleep(LET_GO_LOOK).await;
        }
        let alone = Arc::strong_count(&self.recent) == 1;
        // Ends the storage's thread, which finishes its queue.
        let dropped = self.blocking.run(move || drop(self)).await;
        alone && dropped.is_ok()
    }

    /// Tells whether the log lives on its reserve.
    pub(crate) fn shortage(&self) -> storage::log::Shortage {
        self.store.shortage()
    }

    /// Why nothing is written any more.
    pub(crate) fn failure(&self) -> Option<storage::Error> {
        self.store.failure()
    }

    /// Whether a vote was ever saved: a node without one has never taken part.
    pub(crate) fn has_vote(&self) -> bool {
        self.store.vote().is_some()
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<LogEntry>> {
        if start >= end {
            return Ok(Vec::new());
        }
        if let Some(entries) = self.recent().read(start, end, bytes_max) {
            return Ok(entries);
        }
        let store = self.store.clone();
        let records = self.blocking.run(move || {
            store
                .read(start..end, bytes_max)
                .map_err(disk)?
                .into_iter()
                .map(|record| decode_entry(record.index, &record.bytes))
                .collect::<io::Result<Vec<_>>>()
        });
        records.await?
    }

    async fn read_all(&self, mut start: u64, end: u64) -> io::Result<Vec<LogEntry>> {
        let mut entries = Vec::new();
        while start < end {
            let mut more = self.read(start, end, usize::MAX).await?;
            let Some(last) = more.last() else { break };
            start = last.log_id.index().saturating_add(1);
            entries.append(&mut more);
        }
        Ok(entries)
    }

    /// The range cut to what the log holds.
    fn range(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        match (self.store.first_index(), self.store.last_index()) {
            (Some(first), Some(last)) => (start.max(first), end.min(last.saturating_add(1))),
            _ => (0, 0),
        }
    }

    fn purged(&self) -> io::Result<Option<LogId>> {
        self.store.purged().map(|(_, marker)| Ok(codec::decode::<LogIdForm>(&marker)?.into())).transpose()
    }
}

/// Damage and full disks keep their text, which names the file and the offset.
pub(crate) fn disk(error: storage::Error) -> io::Error {
    let kind = match &error {
        storage::Error::Corrupt { .. } | storage::Error::Newer { .. } => io::ErrorKind::InvalidData,
        error if error.is_full() => io::ErrorKind::StorageFull,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

fn decode_entry(index: u64, record: &Bytes) -> io::Result<LogEntry> {
    let form: EntryForm = codec::decode(record)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("log entry {index}: {error}")))?;
    if form.id.index != index {
        let what = format!("log entry {index} calls itself {}", form.id.index);
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    form.try_into()
}

/// A completion to give to the storage, and the future that it resolves.
fn completion() -> (impl FnOnce(Result<(), storage::Error>) + Send + 'static, impl Future<Output = io::Result<()>>) {
    let (done, wait) = oneshot::channel();
    let complete = move |result: Result<(), storage::Error>| {
        // Nobody waits any more when openraft is stopping.
        let _: Result<_, _> = done.send(result);
    };
    let wait = async move {
        match wait.await {
            Ok(result) => result.map_err(disk),
            Err(_) => Err(io::Error::other("the log is closed")),
        }
    };
    (complete, wait)
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<LogEntry>> {
        let (start, end) = self.range(&range);
        self.read_all(start, end).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<LogEntry>> {
        let (start, end) = self.range(&(start..end));
        self.read(start, end, READ_BYTES_MAX).await
    }

    /// In pieces, so that applying a long log does not hold all of it in memory.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<LogEntry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = self.range(&range);
        let pieces = stream::try_unfold((self.clone(), start), move |(log, start)| async move {
            let entries = log.read(start, end, READ_BYTES_MAX).await?;
            let Some(last) = entries.last() else { return Ok(None) };
            let next = last.log_id.index().saturating_add(1);
            Ok::<_, io::Error>(Some((stream::iter(entries.into_iter().map(Ok)), (log, next))))
        });
        futures::TryStreamExt::try_flatten(pieces)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.store.vote().map(|vote| Ok(codec::decode::<VoteForm>(&vote)?.into())).transpose()
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let last_purged_log_id = self.purged()?;
        let store = self.store.clone();
        let last = self.blocking.run(move || store.last()).await?.map_err(disk)?;
        let last_log_id = match last {
            Some(record) => Some(decode_entry(record.index, &record.bytes)?.log_id),
            None => last_purged_log_id,
        };
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let vote = codec::encode(&VoteForm::from(vote))?;
        let (done, wait) = completion();
        self.store.save_vote(vote, done);
        self.wake();
        wait.await
    }

    /// Not synced: after a power cut an older mark only means that the newest entries are applied a moment later.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.store.save_committed(codec::encode(&committed.as_ref().map(LogIdForm::from))?);
        self.wake();
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let Some(committed) = self.store.committed() else { return Ok(None) };
        Ok(codec::decode::<Option<LogIdForm>>(&committed)?.map(Into::into))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter();
        let mut records = Vec::with_capacity(entries.size_hint().0);
        let mut decoded = Vec::with_capacity(entries.size_hint().0);
        let mut total = 0_u64;
        for entry in entries {
            let bytes = codec::encode(&EntryForm::from(&entry))?;
            total = total.saturating_add(bytes.len() as u64);
            decoded.push((entry.clone(), bytes.len()));
            records.push(storage::Record { index: entry.log_id.index(), bytes });
        }
        {
            let mut recent = self.recent();
            for (entry, bytes) in decoded {
                recent.push(entry, bytes);
            }
        }
        self.appended_bytes.fetch_add(total, Ordering::Relaxed);
        self.store.append(records, move |result| callback.io_completed(result.map_err(disk)));
        self.wake();
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index().saturating_add(1));
        self.recent().truncate_from(from);
        let (done, wait) = completion();
        self.store.truncate_from(from, done);
        self.wake();
        wait.await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.recent().purge_to(upto.index());
        let marker = codec::encode(&LogIdForm::from(&upto))?;
        let (done, wait) = completion();
        self.store.purge_to(upto.index(), marker, done);
        self.wake();
        wait.await
    }
}

//! The leader's batcher: proposals that arrive together share one log entry, one sync and one round of replication.
//!
//! At most two entries are on the way: while they are, what arrives waits here and travels together, so the batch grows
//! with the load by itself. Queue, entry and waiting are bounded. Until a proposal is taken into an entry its caller
//! can take it back, and then knows that it was not done; afterwards only the log knows.
//!
//! What nodes ask of the limits travels in the same entries, at most one of which has any of it on the way.

mod asked;

pub(crate) use asked::ACQUIRE_BYTES_MAX;

use crate::{
    adapt::engine::{Engine, Standing, WriteError, Wrote},
    disk::Disk,
    session::tenure::Tenure,
};
use asked::{Asked, Asking};
use futures::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use machine::{
    Entry, Outcome, Proposal,
    allowance::{Acquire, Answer},
    bucket::Terms,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

/// Proposals that wait for an entry; more are refused, so that a slow disk fills no memory.
pub(crate) const QUEUE_MAX: usize = 4096;

/// Entries on the way.
const ENTRIES_MAX: usize = 2;

/// Proposals in one entry: bounds the time that one apply takes.
const PROPOSALS_MAX: usize = 1024;

/// Bytes of proposals after which an entry is full.
const ENTRY_BYTES: usize = 1024 * 1024;

/// The largest proposal, which then has an entry to itself: over what the state's own caps allow.
pub(crate) const PROPOSAL_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The least time between two entries with acquires: where a commit takes less, the requests of many nodes, each with a
/// rhythm of its own, would make an entry each.
const ACQUIRES_PAUSE: Duration = Duration::from_micros(2_500);

/// How often a new leader that does not know the time looks whether it does now.
const TIME_LOOK: Duration = Duration::from_millis(10);

/// Why a leader has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Declined {
    /// This node does not lead. Not done.
    NotLeader,
    /// Too many proposals wait. Not done.
    Overloaded,
    /// This node's disk has less room than the watermark. Not done.
    DiskFull,
    /// Perhaps done.
    Unknown,
    /// Raft has stopped here. Not done.
    Stopped,
}

impl From<WriteError> for Declined {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::NotLeader => Self::NotLeader,
            WriteError::Unknown => Self::Unknown,
            WriteError::Stopped => Self::Stopped,
        }
    }
}

/// A proposal that waits.
pub(crate) struct Pending {
    proposal: Proposal,
    bytes: usize,
    /// Set once, by whoever is first: the batcher that takes it, or the caller that takes it back.
    decided: Arc<AtomicBool>,
    answer: oneshot::Sender<Result<(Outcome, u64), Declined>>,
}

/// Where proposals and acquires go in.
#[derive(Clone)]
pub(crate) struct Batcher {
    queue: mpsc::Sender<Pending>,
    asked: Arc<Asked>,
}

/// What [`run`] takes from.
pub(crate) struct Intake {
    queue: mpsc::Receiver<Pending>,
    asked: Arc<Asked>,
}

impl Batcher {
    /// The way in, and what [`run`] takes from.
    pub(crate) fn new() -> (Self, Intake) {
        let (queue, receive) = mpsc::channel(QUEUE_MAX);
        let asked = Arc::<Asked>::default();
        (Self { queue, asked: Arc::clone(&asked) }, Intake { queue: receive, asked })
    }

    /// Has a node's request served by this node as the leader. One that is not answered may have been served all the
    /// same: asked again, it gets the same.
    pub(crate) async fn acquire(&self, acquire: Acquire, bytes: usize) -> Result<Answer, Declined> {
        self.asked.put(acquire, bytes).await.unwrap_or(Err(Declined::Stopped))
    }

    /// Has a proposal done by this node as the leader, or takes it back after so long.
    pub(crate) async fn propose(
        &self,
        proposal: Proposal,
        bytes: usize,
        within: Duration,
    ) -> Result<(Outcome, u64), Declined> {
        let decided = Arc::new(AtomicBool::new(false));
        let (answer, wait) = oneshot::channel();
        let pending = Pending { proposal, bytes, decided: Arc::clone(&decided), answer };
        self.queue.try_send(pending).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Declined::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Declined::Stopped,
        })?;
        match tokio::time::timeout(within, wait).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) if decided.swap(true, Ordering::AcqRel) => Err(Declined::Unknown),
            Ok(Err(_)) => Err(Declined::Stopped),
            Err(_) => Err(Declined::NotLeader),
        }
    }
}

type Answers = Vec<oneshot::Sender<Result<(Outcome, u64), Declined>>>;

/// Gathers and appends until the queue is closed or raft stops.
pub(crate) async fn run(
    engine: Engine,
    Intake { mut queue, asked }: Intake,
    tenure: watch::Receiver<Option<Arc<Tenure>>>,
    standing: watch::Receiver<Arc<Standing>>,
    terms: Terms,
    disk: Arc<Disk>,
) {
    // Of each entry on the way: whether acquires are in it.
    let mut on_the_way: FuturesOrdered<BoxFuture<'static, bool>> = FuturesOrdered::new();
    let mut left_over = None;
    // While acquires are on the way, what nodes ask meanwhile gathers: so the number of entries follows the time that a
    // commit takes, not the number of requests.
    let mut serves = true;
    let mut serves_from = Instant::now();
    loop {
        let room = on_the_way.len() < ENTRIES_MAX;
        let asks = async {
            asked.arrived().await;
            tokio::time::sleep_until(serves_from).await;
        };
        let first = tokio::select! {
            biased;
            Some(acquires) = on_the_way.next(), if !on_the_way.is_empty() => {
                serves |= acquires;
                continue;
            }
            () = std::future::ready(()), if room && left_over.is_some() => left_over.take(),
            pending = queue.recv(), if room => match pending {
                Some(pending) => Some(pending),
                None => break,
            },
            () = asks, if room && serves => None,
        };
        let gathered = first.map(|first| gather(first, &mut queue, &mut left_over)).unwrap_or_default();
        let leads = tenure.borrow().clone();
        let Some(leads) = leads else {
            decline(gathered.into_iter().map(|pending| pending.answer), Declined::NotLeader);
            decline(asked.take().into_iter().map(|asking| asking.answer), Declined::NotLeader);
            continue;
        };
        // Asked for every entry: a disk can run full between two of them. What traffic needs goes on until there is no room at
        // all.
        let low = disk.look();
        let gathered = if low {
            decline(gathered.into_iter().map(|pending| pending.answer), Declined::DiskFull);
            Vec::new()
        } else {
            gathered
        };
        if low && disk.is_short() {
            decline(asked.take().into_iter().map(|asking| asking.answer), Declined::DiskFull);
            continue;
        }
        knows_time(&leads, &standing).await;
        // As late as can be: what has arrived since travels along.
        let asking = if serves { asked.take() } else { Vec::new() };
        let acquires = !asking.is_empty();
        let began = Instant::now();
        if let Some(written) = append(&engine, &leads, &standing, terms, gathered, asking).await {
            if acquires {
                (serves, serves_from) = (false, began + ACQUIRES_PAUSE);
            }
            on_the_way.push_back(written);
        }
    }
    while on_the_way.next().await.is_some() {}
}

fn gather(first: Pending, queue: &mut mpsc::Receiver<Pending>, left_over: &mut Option<Pending>) -> Vec<Pending> {
    let mut bytes = first.bytes;
    let mut gathered = vec![first];
    while gathered.len() < PROPOSALS_MAX {
        let Ok(next) = queue.try_recv() else { break };
        if bytes.saturating_add(next.bytes) > ENTRY_BYTES {
            *left_over = Some(next);
            break;
        }
        bytes = bytes.saturating_add(next.bytes);
        gathered.push(next);
    }
    gathered
}

/// Waits until a new leader may stamp.
async fn knows_time(leads: &Tenure, standing: &watch::Receiver<Arc<Standing>>) {
    let voters = standing.borrow().voters.clone();
    while !leads.knows_time(&voters) {
        tokio::time::sleep(TIME_LOOK).await;
    }
}

/// Stamps what is still wanted and appends it as one entry.
async fn append(
    engine: &Engine,
    leads: &Tenure,
    standing: &watch::Receiver<Arc<Standing>>,
    terms: Terms,
    gathered: Vec<Pending>,
    asking: Vec<Asking>,
) -> Option<BoxFuture<'static, bool>> {
    let mut proposals = Vec::with_capacity(gathered.len());
    let mut answers: Answers = Vec::with_capacity(gathered.len());
    for pending in gathered {
        if !pending.answer.is_closed() && !pending.decided.swap(true, Ordering::AcqRel) {
            proposals.push(pending.proposal);
            answers.push(pending.answer);
        }
    }
    let (acquires, askers): (Vec<_>, Vec<_>) = asking.into_iter().map(|asking| (asking.acquire, asking.answer)).unzip();
    if proposals.is_empty() && acquires.is_empty() {
        return None;
    }
    if !proposals.is_empty() {
        metrics::histogram!("quorate_raft_entry_proposals").record(count(proposals.len()));
    }
    if !acquires.is_empty() {
        metrics::histogram!("quorate_raft_entry_acquires").record(count(acquires.len()));
    }
    // Stamped after the last proposal and the last report have arrived; entries are appended in the order of their
    // stamps.
    let voters = standing.borrow().voters.clone();
    let entry = Entry { at: leads.time(&voters), terms, proposals, acquires };
    let began = Instant::now();
    let written = engine.write(leads.reign, entry).await;
    Some(Box::pin(async move {
        let served = !askers.is_empty();
        answer(answers, askers, written.await);
        metrics::histogram!("quorate_raft_commit_seconds").record(began.elapsed().as_secs_f64());
        served
    }))
}

fn answer(answers: Answers, askers: Vec<oneshot::Sender<Result<Answer, Declined>>>, written: Wrote) {
    match written {
        Ok(done) => {
            // A caller that has gone asks again with the same request id, if it still wants to know.
            for (answer, outcome) in answers.into_iter().zip(done.outcomes) {
                let _: Result<_, _> = answer.send(Ok(outcome));
            }
            for (asker, answer) in askers.into_iter().zip(done.answers) {
                let _: Result<_, _> = asker.send(Ok(answer));
            }
        }
        Err(error) => {
            decline(answers, error.into());
            decline(askers, error.into());
        }
    }
}

fn decline<T>(answers: impl IntoIterator<Item = oneshot::Sender<Result<T, Declined>>>, declined: Declined) {
    for answer in answers {
        let _: Result<_, _> = answer.send(Err(declined));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a small count for a histogram")]
fn count(count: usize) -> f64 {
    count as f64
}

//! The leader's batcher: proposals that arrive together share one log entry, one sync and one round of replication.
//!
//! At most two entries are on the way: while they are, what arrives waits here and travels together, so the batch grows
//! with the load by itself. Queue, entry and waiting are bounded. Until a proposal is taken into an entry its caller
//! can take it back, and then knows that it was not done; afterwards only the log knows.

use crate::{
    adapt::engine::{Engine, Standing, WriteError, Wrote},
    session::tenure::Tenure,
};
use futures::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use machine::{Entry, Outcome, Proposal, bucket::Terms};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot, watch};

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

/// How often a new leader that does not know the time looks whether it does now.
const TIME_LOOK: Duration = Duration::from_millis(10);

/// Why a leader has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Declined {
    /// This node does not lead. Not done.
    NotLeader,
    /// Too many proposals wait. Not done.
    Overloaded,
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

/// Where proposals go in.
#[derive(Clone)]
pub(crate) struct Batcher {
    queue: mpsc::Sender<Pending>,
}

impl Batcher {
    /// The way in, and what [`run`] takes from.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Pending>) {
        let (queue, receive) = mpsc::channel(QUEUE_MAX);
        (Self { queue }, receive)
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
    mut queue: mpsc::Receiver<Pending>,
    tenure: watch::Receiver<Option<Arc<Tenure>>>,
    standing: watch::Receiver<Arc<Standing>>,
    terms: Terms,
) {
    let mut on_the_way: FuturesOrdered<BoxFuture<'static, ()>> = FuturesOrdered::new();
    let mut left_over = None;
    loop {
        let room = on_the_way.len() < ENTRIES_MAX;
        let first = match left_over.take() {
            Some(pending) if room => Some(pending),
            left => {
                left_over = left;
                tokio::select! {
                    biased;
                    Some(()) = on_the_way.next(), if !on_the_way.is_empty() => continue,
                    pending = queue.recv(), if room => pending,
                    else => None,
                }
            }
        };
        let Some(first) = first else { break };
        let gathered = gather(first, &mut queue, &mut left_over);
        let leads = tenure.borrow().clone();
        match leads {
            Some(leads) => {
                if let Some(written) = append(&engine, &leads, &standing, terms, gathered).await {
                    on_the_way.push_back(written);
                }
            }
            None => decline(gathered.into_iter().map(|pending| pending.answer).collect(), Declined::NotLeader),
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

/// Stamps what is still wanted and appends it as one entry.
async fn append(
    engine: &Engine,
    leads: &Tenure,
    standing: &watch::Receiver<Arc<Standing>>,
    terms: Terms,
    gathered: Vec<Pending>,
) -> Option<BoxFuture<'static, ()>> {
    let voters = standing.borrow().voters.clone();
    while !leads.knows_time(&voters) {
        tokio::time::sleep(TIME_LOOK).await;
    }
    let mut proposals = Vec::with_capacity(gathered.len());
    let mut answers = Vec::with_capacity(gathered.len());
    for pending in gathered {
        if !pending.answer.is_closed() && !pending.decided.swap(true, Ordering::AcqRel) {
            proposals.push(pending.proposal);
            answers.push(pending.answer);
        }
    }
    if proposals.is_empty() {
        return None;
    }
    metrics::histogram!("quorate_raft_entry_proposals").record(count(proposals.len()));
    // Stamped after the last proposal has arrived; entries are appended in the order of their stamps.
    let entry = Entry { at: leads.time(&voters), terms, proposals, acquires: Vec::new() };
    let began = Instant::now();
    let written = engine.write(leads.reign, entry).await;
    Some(Box::pin(async move {
        answer(answers, written.await);
        metrics::histogram!("quorate_raft_commit_seconds").record(began.elapsed().as_secs_f64());
    }))
}

fn answer(answers: Answers, written: Wrote) {
    match written {
        Ok(outcomes) => {
            for (answer, outcome) in answers.into_iter().zip(outcomes) {
                // A caller that has gone asks again with the same request id, if it still wants to know.
                let _: Result<_, _> = answer.send(Ok(outcome));
            }
        }
        Err(error) => decline(answers, error.into()),
    }
}

fn decline(answers: Answers, declined: Declined) {
    for answer in answers {
        let _: Result<_, _> = answer.send(Err(declined));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a small count for a histogram")]
fn count(count: usize) -> f64 {
    count as f64
}

//! What outlives a process: the seat of a node with its disk and its clocks, and the cluster as the harness sees it.

use super::{Mutation, clock::NodeClock, disk::Disk, record::Record};
use chaos::{history::Operation, sim::random::Random};
use machine::{Command, RequestId, key::KeyId, member::Standing};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync::{Notify, watch};

/// Locks, whatever happened to others who held it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is going on in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// The cluster is being made.
    Making,
    /// Work and faults.
    Work,
    /// The faults are over: every node is to show that it serves.
    Recover,
    /// Nothing is written by anybody but nodes.
    Quiet,
    /// Full demand.
    Demand,
}

/// Something that a node is told to do.
#[derive(Clone)]
pub(super) enum Order {
    /// Hands leadership to this node.
    Transfer(u64),
    /// Changes what is wanted of a member.
    Stand(u64, Standing),
    /// Lets this seat's node in.
    Admit(Arc<Seat>, bool),
    /// Stops cleanly.
    Stop,
}

/// A key that was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) id: KeyId,
    /// Surely there.
    pub(super) made: bool,
    /// Somebody has been told to revoke it.
    pub(super) ending: bool,
    /// Surely revoked.
    pub(super) revoked: bool,
}

/// A write of which nobody knows whether it was done.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) request: RequestId,
    pub(super) command: Command,
    pub(super) operation: Operation,
    pub(super) key: Option<usize>,
    /// There was an attempt before.
    pub(super) tried: bool,
}

/// The cluster, as the harness sees it.
pub(super) struct Cluster {
    pub(super) seed: u64,
    pub(super) mutation: Option<Mutation>,
    pub(super) record: Record,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) keys: Mutex<Vec<Key>>,
    pub(super) unknown: Mutex<Vec<Pending>>,
    pub(super) requests: AtomicU64,
    /// Those that make the cluster, without the first.
    pub(super) founders: Mutex<Vec<Arc<Seat>>>,
    /// All of them.
    pub(super) seats: Mutex<Vec<Arc<Seat>>>,
    /// How many shall vote.
    pub(super) voters: u8,
    /// The longest that a worker is late with a View.
    pub(super) publish_us: u64,
    /// The longest between two requests of a worker.
    pub(super) idle_us: u64,
}

impl Cluster {
    pub(super) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub(super) fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// A request's number, and a random part that nothing else has.
    pub(super) fn number(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }
}

/// A node's seat.
pub(super) struct Seat {
    pub(super) id: u64,
    pub(super) cluster: Arc<Cluster>,
    pub(super) clock: Arc<NodeClock>,
    pub(super) disk: Disk,
    /// Whether it is a member, so that it may start.
    pub(super) admitted: watch::Sender<bool>,
    /// It was removed, or never came.
    pub(super) gone: AtomicBool,
    /// It may end: something was done to its disk, or it was told to.
    pub(super) may_end: AtomicBool,
    pub(super) incarnation: AtomicU64,
    /// Shown to serve in this phase.
    pub(super) served: AtomicBool,
    /// What it has applied, as it last said.
    pub(super) applied: AtomicU64,
    pub(super) leads: AtomicBool,
    pub(super) orders: Mutex<VecDeque<Order>>,
    pub(super) ordered: Notify,
    pub(super) random: Mutex<Random>,
    /// For a bug: allowances as they were granted, by bucket, until when.
    pub(super) remembered: Mutex<Vec<(&'static str, machine::bucket::AllowanceId, u64, u64)>>,
}

impl Seat {
    pub(super) fn name(&self) -> String {
        format!("n{}", self.id)
    }

    pub(super) fn order(&self, order: Order) {
        lock(&self.orders).push_back(order);
        self.ordered.notify_one();
    }

    pub(super) fn is_admitted(&self) -> bool {
        *self.admitted.borrow()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    pub(super) fn between(&self, low: u64, high: u64) -> u64 {
        lock(&self.random).between(low, high)
    }

    pub(super) fn chance(&self, per_mille: u64) -> bool {
        lock(&self.random).chance(per_mille)
    }
}

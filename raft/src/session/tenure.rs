//! One leader's time, from the moment at which the first entry of its own reign is applied: then everything that earlier
//! leaders committed is applied too, and it may answer. Its table of members, its lease book and its clocks begin and end
//! with it.

use crate::{
    adapt::engine::{Reign, Standing},
    applied::Applied,
    clock::Clock,
    session::table::{Heard, Said, Table},
    status::FenceState,
    timing::Timing,
    types::lock,
};
use ::session::{
    book::{Book, Fenced},
    clock::ClusterClock,
};
use machine::{
    At, RequestId, Wall,
    member::{MemberSpec, NodeId},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// A leader that no other told the time waits at most so long for a majority to report its UTC before it stamps: after
/// all nodes were down, the time in the log is as old as the last write.
const UNLED_US_MAX: u64 = 1_000_000;

/// A fence looks again after this at the latest: timers do not count the time that the machine was suspended, leases do.
const FENCE_LOOK: Duration = Duration::from_millis(100);

/// One of the sessions of a tenure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionId(u64);

/// One leader's time.
pub(crate) struct Tenure {
    pub(crate) reign: Reign,
    /// The first entry of the reign: everything that was committed before is at or before it.
    pub(crate) began_at: u64,
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
    news: watch::Sender<()>,
    requests: AtomicU64,
    sessions: AtomicU64,
}

struct Inner {
    table: Table,
    book: Book,
    /// The session in which each member was granted authority last.
    granted_in: BTreeMap<NodeId, SessionId>,
    clock: ClusterClock,
    /// Whether the wall clock comes from somebody who knew.
    led: bool,
    specs: BTreeMap<NodeId, MemberSpec>,
}

impl Tenure {
    /// Begins, on this state; `heard` is what the leader before said, carried on to now.
    fn begin(reign: Reign, applied: &Applied, heard: Option<Wall>, timing: &Timing, clock: Arc<dyn Clock>) -> Self {
        let last = applied.state.at;
        // After the election, so it bounds whatever earlier leaders granted: a leader answers no report after a majority
        // has voted for another.
        let now_us = clock.boot_us();
        let members = applied.state.registry.members.keys().copied();
        // Only the wall: a tick that jumped forward would expire what is still being spent.
        let wall = heard.map_or(last.wall, |heard| heard.max(last.wall));
        let inner = Inner {
            table: Table::open(now_us, timing.silence),
            book: Book::elected(timing.lease_us(), now_us, members),
            granted_in: BTreeMap::new(),
            clock: ClusterClock::anchor(At { tick: last.tick, wall }, now_us),
            led: heard.is_some(),
            specs: BTreeMap::new(),
        };
        let began_at = applied.index();
        Self {
            reign,
            began_at,
            clock,
            inner: Mutex::new(inner),
            news: watch::Sender::new(()),
            requests: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
        }
    }

    /// Begins a session with a member.
    pub(crate) fn session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes a member's report.
    pub(crate) fn report(&self, session: SessionId, node: NodeId, said: Said, spec: Option<MemberSpec>) {
        let now_us = self.clock.boot_us();
        let mut inner = lock(&self.inner);
        inner.book.report(node, said.enforced);
        // A goodbye that comes late must not free what the same node was granted after a restart.
        if said.leaving && inner.granted_in.get(&node) == Some(&session) {
            inner.book.gave_up(node);
        }
        if let Some(spec) = spec {
            inner.specs.insert(node, spec);
        }
        let news = inner.table.report(node, now_us, said);
        drop(inner);
        if news {
            self.news.send_replace(());
        }
    }

    /// The cluster's time now, steered by what these voters report.
    pub(crate) fn time(&self, voters: &BTreeSet<NodeId>) -> At {
        let now_us = self.clock.boot_us();
        let mut inner = lock(&self.inner);
        let reported = inner.table.utc_ms(voters.iter().copied(), now_us);
        inner.led |= reported.len() > voters.len() / 2;
        inner.clock.steer(now_us, voters.len(), &reported);
        inner.clock.now(now_us)
    }

    /// By how many milliseconds a member's UTC is ahead of what a majority of these voters has; `None` if not enough is
    /// known.
    pub(crate) fn off_by_ms(&self, node: NodeId, voters: &BTreeSet<NodeId>) -> Option<i64> {
        let now_us = self.clock.boot_us();
        let inner = lock(&self.inner);
        let mut reported = inner.table.utc_ms(voters.iter().copied(), now_us);
        let own = inner.table.utc_ms(std::iter::once(node), now_us).first().copied()?;
        drop(inner);
        if reported.len() <= voters.len() / 2 {
            return None;
        }
        reported.sort_unstable();
        let median = reported.get((reported.len() - 1) / 2).copied()?;
        i64::try_from(i128::from(own) - i128::from(median)).ok()
    }

    /// Whether proposals may be stamped with [`Tenure::time`].
    pub(crate) fn knows_time(&self, voters: &BTreeSet<NodeId>) -> bool {
        self.time(voters);
        let inner = lock(&self.inner);
        inner.led || inner.table.open_us(self.clock.boot_us()) > UNLED_US_MAX
    }

    /// Looks into the table.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Table, u64) -> T) -> T {
        let now_us = self.clock.boot_us();
        look(&lock(&self.inner).table, now_us)
    }

    /// What was last heard of a member.
    pub(crate) fn heard(&self, node: NodeId) -> Option<Heard> {
        lock(&self.inner).table.heard(node).cloned()
    }

    /// What a member says that it is.
    pub(crate) fn spec(&self, node: NodeId) -> Option<MemberSpec> {
        lock(&self.inner).specs.get(&node).cloned()
    }

    /// Forgets what a member says that it is, until it says so again.
    pub(crate) fn forget_spec(&self, node: NodeId) {
        lock(&self.inner).specs.remove(&node);
    }

    /// Books a grant of authority. The report that asks for it has arrived, and `read_index` is taken afterwards.
    pub(crate) fn grant(&self, session: SessionId, node: NodeId) {
        // Under the lock: a fence that is begun later finds it.
        let mut inner = lock(&self.inner);
        let now_us = self.clock.boot_us();
        inner.book.grant(node, now_us);
        inner.granted_in.insert(node, session);
    }

    /// How long a lease lasts.
    pub(crate) fn lease_us(&self) -> u64 {
        lock(&self.inner).book.ttl_us()
    }

    /// How long a member may hold authority yet, at most; `None` if it surely holds none.
    pub(crate) fn authority_us(&self, node: NodeId) -> Option<u64> {
        let inner = lock(&self.inner);
        inner.book.remaining_us(node, self.clock.boot_us())
    }

    /// Whether no authority of this member can be left, by this leader's clock.
    pub(crate) fn is_over(&self, node: NodeId) -> bool {
        let inner = lock(&self.inner);
        inner.book.over_us(node).is_none_or(|over_us| self.clock.boot_us() >= over_us)
    }

    /// Forgets a member that the state has forgotten, and to which therefore nothing is granted any more.
    pub(crate) fn forget(&self, node: NodeId) {
        let mut inner = lock(&self.inner);
        inner.book.forget(node);
        inner.granted_in.remove(&node);
    }

    /// Forgets what everybody else said.
    pub(crate) fn retain(&self, keep: impl Fn(NodeId) -> bool) {
        let mut inner = lock(&self.inner);
        inner.table.retain(&keep);
        inner.specs.retain(|node, _| keep(*node));
    }

    /// An id for what this leader itself proposes, never used again: no two leaders have the same reign.
    pub(crate) fn request(&self, issued: Wall) -> RequestId {
        let count = self.requests.fetch_add(1, Ordering::Relaxed);
        let random = u128::from(self.reign.term) << 64 | u128::from(self.reign.node) << 40 | u128::from(count);
        RequestId { issued, random }
    }

    /// Waits until each of these members enforces the entry with this number or can hold no authority from before it, at
    /// most so long. The entry has been committed, and this is a tenure that had not ended then.
    pub(crate) async fn fence(&self, index: u64, members: &[NodeId], within: Duration) -> Vec<(NodeId, FenceState)> {
        let deadline = Instant::now() + within;
        let mut news = self.news.subscribe();
        let mut fence = lock(&self.inner).book.fence(index, members.iter().copied());
        loop {
            news.mark_unchanged();
            let (settled, now_us) = {
                let inner = lock(&self.inner);
                let now_us = self.clock.boot_us();
                (fence.poll(&inner.book, now_us), now_us)
            };
            if settled || Instant::now() >= deadline {
                return fence.states().map(|(node, state)| (node, state.into())).collect();
            }
            let over_us = fence.next_us().map_or(u64::MAX, |over_us| over_us.saturating_sub(now_us));
            let look = FENCE_LOOK.min(Duration::from_micros(over_us.saturating_add(1)));
            let look_again = deadline.min(Instant::now() + look);
            // The other end is `self`, so a change or the time ends the wait.
            let _: Result<_, _> = tokio::time::timeout_at(look_again, news.changed()).await;
        }
    }
}

impl From<Option<Fenced>> for FenceState {
    fn from(fenced: Option<Fenced>) -> Self {
        match fenced {
            Some(Fenced::Applied) => Self::Applied,
            Some(Fenced::Expired) => Self::Expired,
            None => Self::Pending,
        }
    }
}

/// Begins and ends tenures as raft makes this node leader. Ends with raft.
pub(crate) async fn keep(
    tenure: watch::Sender<Option<Arc<Tenure>>>,
    mut standing: watch::Receiver<Arc<Standing>>,
    mut applied: watch::Receiver<Arc<Applied>>,
    heard: impl Fn() -> Option<Wall>,
    timing: Timing,
    clock: Arc<dyn Clock>,
) {
    loop {
        let reign = standing.borrow_and_update().reign;
        let last = Arc::clone(&applied.borrow_and_update());
        let held = tenure.borrow().as_ref().map(|tenure| tenure.reign);
        if held != reign {
            let begins = reign.filter(|reign| last.last.is_some_and(|last| reign.made(last)));
            if held.is_some() || begins.is_some() {
                let next = begins.map(|reign| {
                    tracing::info!(term = reign.term, "this node leads");
                    Arc::new(Tenure::begin(reign, &last, heard(), &timing, Arc::clone(&clock)))
                });
                if next.is_none() {
                    tracing::info!("this node leads no more");
                }
                tenure.send_replace(next);
            }
        }
        let ended = tokio::select! {
            changed = standing.changed() => changed.is_err(),
            changed = applied.changed() => changed.is_err(),
        };
        if ended {
            tenure.send_replace(None);
            return;
        }
    }
}

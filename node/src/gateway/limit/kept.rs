//! What is kept of limits between requests: by the node for all of its workers, by each worker, and by each worker for
//! each route. What becomes of a request is decided in [`super`].

use super::{
    fields::Fields,
    local::Now,
    locals::LocalBuckets,
    slots::{Entries, Part, Slots},
    subjects::Subjects,
};
use crate::{
    gateway::{record::LimitMeter, worker::Worker},
    resource::{
        compile::{CompiledLimit, CompiledRoute},
        document::Scope,
        subject::OVERFLOW,
    },
};
use machine::{Name, Wall, allowance::BucketId, limit::Rule};
use raft::{Slot, Verdict};
use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Subjects of a limit with `scope: node` that have a bucket of their own, where the limit does not say: some ten
/// megabytes.
const LOCAL_SUBJECTS_MAX: u32 = 100_000;
/// Requests of one worker whose shadow limits are still to be counted. They are in nobody's way, so they are few: the
/// places to wait are for requests.
const SHADOWS_MAX: usize = 256;

/// What all workers of a node share of a limit.
pub(crate) struct NodeLimit {
    pub(super) compiled: Arc<CompiledLimit>,
    /// With `scope: node`.
    pub(super) locals: Option<Arc<LocalBuckets>>,
    /// Of a limit of the cluster whose subjects are chosen by clients.
    subjects: Option<Arc<Subjects>>,
    pub(super) meter: LimitMeter,
}

/// All limits of a node, by name.
#[derive(Default)]
pub(crate) struct NodeLimits(HashMap<Name, Arc<NodeLimit>>);

/// A limit, and what one worker keeps for it.
pub(crate) struct WorkerLimit {
    pub(super) node: Arc<NodeLimit>,
    /// Of a limit of the cluster.
    pub(super) slots: Slots,
}

/// The limits of one worker, by name.
#[derive(Default)]
pub(crate) struct WorkerLimits(HashMap<Name, Arc<WorkerLimit>>);

/// The limits of a route, for one worker.
#[derive(Default)]
pub(crate) struct RouteLimits {
    /// Those that refuse, in the order in which the route names them.
    pub(super) enforced: Vec<Arc<WorkerLimit>>,
    /// Of those, by their places, what this node counts alone.
    pub(super) locals: Vec<usize>,
    /// Of those, by their places, what the cluster counts.
    pub(super) shared: Vec<usize>,
    /// Those that only count.
    pub(super) shadow: Vec<Arc<WorkerLimit>>,
    fields: Fields,
    pub(super) cost: u64,
    pub(super) wait: Duration,
}

impl WorkerLimit {
    /// The slot of a subject that this worker does not know; `None` if the node has as many as it may.
    #[cold]
    pub(super) fn fetch(&self, worker: &Worker, subject: &[u8]) -> Option<Arc<Slot>> {
        let limit = &self.node.compiled;
        let mut subject: Arc<[u8]> = subject.into();
        let mut seat = None;
        if let Some(subjects) = &self.node.subjects {
            seat = subjects.seat(&subject);
            if seat.is_none() {
                self.node.meter.overflowed.increment(1);
                if let Some(slot) = self.slots.find(OVERFLOW) {
                    return Some(slot);
                }
                subject = OVERFLOW.into();
            }
        }
        let id = BucketId { limit: limit.name.clone(), subject: Arc::clone(&subject) };
        let slot = worker.shared.settings.allowances.slot(&id, limit.rule.burst())?;
        self.slots.keep(subject, Arc::clone(&slot), seat);
        Some(slot)
    }

    /// Counts a request; whether it would have been refused.
    pub(super) fn would_refuse(self: &Arc<Self>, worker: &Worker, limits: &RouteLimits, subject: &[u8]) -> bool {
        if let Some(locals) = &self.node.locals {
            let rule = self.node.compiled.rule;
            return locals.reserve(rule, subject, limits.cost, now(worker, Some(rule)), true).is_err();
        }
        let Some(slot) = self.slots.find(subject).or_else(|| self.fetch(worker, subject)) else {
            self.node.meter.unavailable.increment(1);
            return false;
        };
        let parts = [(slot, limits.cost)];
        match raft::admit(&parts, worker.shared.clock.boot_us()) {
            Verdict::Admitted { .. } => {}
            Verdict::Refused { .. } => return true,
            Verdict::Dry => self.count_later(worker, parts, limits.wait),
        }
        false
    }

    /// The request goes on; what it costs is spent when the cluster has answered.
    fn count_later(self: &Arc<Self>, worker: &Worker, parts: [Part; 1], wait: Duration) {
        let under_way = Arc::clone(&worker.shadows);
        if under_way.fetch_add(1, Ordering::Relaxed) >= SHADOWS_MAX {
            under_way.fetch_sub(1, Ordering::Relaxed);
            self.node.meter.unavailable.increment(1);
            return;
        }
        let (limit, allowances) = (Arc::clone(&self.node), Arc::clone(&worker.shared.settings.allowances));
        // It ends with its waiting, or with the worker's runtime.
        tokio::spawn(async move {
            match allowances.wait(&parts, wait).await {
                Verdict::Admitted { .. } => {}
                Verdict::Refused { .. } => limit.meter.refused.increment(1),
                Verdict::Dry => limit.meter.unavailable.increment(1),
            }
            under_way.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

impl NodeLimits {
    /// What the workers share of these limits; what has not changed is taken over, and so is what was counted.
    pub(crate) fn of(limits: &[Arc<CompiledLimit>], before: &Self) -> Self {
        let share = |limit: &Arc<CompiledLimit>| {
            let known = before.0.get(&limit.name);
            if let Some(known) = known.filter(|known| Arc::ptr_eq(&known.compiled, limit)) {
                return Arc::clone(known);
            }
            let counts_the_same = |of: &CompiledLimit| {
                (&of.per, of.scope, of.subjects_max) == (&limit.per, limit.scope, limit.subjects_max)
            };
            let known = known.filter(|known| counts_the_same(&known.compiled));
            let (locals, subjects) = match known {
                Some(known) => (known.locals.clone(), known.subjects.clone()),
                None if limit.scope == Scope::Node => {
                    (Some(Arc::new(LocalBuckets::new(limit.subjects_max.unwrap_or(LOCAL_SUBJECTS_MAX)))), None)
                }
                None => (None, limit.subjects_max.map(|most| Arc::new(Subjects::new(most)))),
            };
            let meter = LimitMeter::new(limit.name.as_str(), limit.is_enforced);
            Arc::new(NodeLimit { compiled: Arc::clone(limit), locals, subjects, meter })
        };
        Self(limits.iter().map(|limit| (limit.name.clone(), share(limit))).collect())
    }

    /// Forgets some of what this node counts alone and what is full again.
    pub(crate) fn sweep(&self, worker: &Worker) {
        let now = now(worker, None);
        self.0.values().filter_map(|limit| limit.locals.as_ref()).for_each(|locals| locals.sweep(now));
    }
}

impl WorkerLimits {
    /// What a worker keeps of these limits; what has not changed is taken over.
    pub(crate) fn of(limits: &NodeLimits, before: Option<&Self>) -> Self {
        let keep = |(name, node): (&Name, &Arc<NodeLimit>)| {
            let known = before.and_then(|before| before.0.get(name)).filter(|known| Arc::ptr_eq(&known.node, node));
            let new = || Arc::new(WorkerLimit { node: Arc::clone(node), slots: Slots::default() });
            (name.clone(), known.cloned().unwrap_or_else(new))
        };
        let kept: HashMap<_, _> = limits.0.iter().map(keep).collect();
        // A request that takes long keeps the plan it began with, but not the slots and seats of that time.
        for (name, limit) in before.iter().flat_map(|before| &before.0) {
            if !kept.get(name).is_some_and(|kept| Arc::ptr_eq(kept, limit)) {
                limit.slots.clear();
            }
        }
        Self(kept)
    }

    /// Lets go of slots that were not used since the last time, and hands them out to be dropped.
    pub(crate) fn age(&self) -> Vec<Entries> {
        self.0.values().map(|limit| limit.slots.age()).filter(|entries| !entries.is_empty()).collect()
    }
}

impl RouteLimits {
    pub(crate) fn of(route: &CompiledRoute, limits: &WorkerLimits) -> Self {
        let (enforced, shadow): (Vec<_>, Vec<_>) = route
            .limits
            .iter()
            .filter_map(|limit| limits.0.get(&limit.name).cloned())
            .partition(|limit| limit.node.compiled.is_enforced);
        let (locals, shared) = (0..enforced.len())
            .partition(|place| enforced.get(*place).is_some_and(|limit| limit.node.locals.is_some()));
        let fields = Fields::of(enforced.iter().map(|limit| &*limit.node.compiled));
        Self { enforced, locals, shared, shadow, fields, cost: route.cost, wait: route.allowance_wait }
    }

    /// What the client is told.
    pub(crate) const fn fields(&self) -> &Fields {
        &self.fields
    }

    pub(super) fn local(&self, place: usize) -> Option<(&NodeLimit, &LocalBuckets)> {
        let limit = &self.enforced.get(place)?.node;
        Some((limit, limit.locals.as_deref()?))
    }

    pub(super) fn meter(&self, place: usize, which: impl Fn(&LimitMeter) -> &metrics::Counter) {
        if let Some(limit) = self.enforced.get(place) {
            which(&limit.node.meter).increment(1);
        }
    }

    /// The place of the limit of which too little is held.
    pub(super) fn dry(&self, parts: &[Part], now_us: u64) -> usize {
        let is_dry = |(slot, cost): &Part| slot.remaining(now_us) < *cost;
        let part = parts.iter().position(is_dry).unwrap_or(0);
        self.shared.get(part).copied().unwrap_or(0)
    }
}

/// The calendar is read for limits that go by it alone: it is the cluster's, and dearer than this machine's clock.
pub(super) fn now(worker: &Worker, rule: Option<Rule>) -> Now {
    let wall = if matches!(rule, Some(Rule::Rate(_))) { Wall::default() } else { worker.shared.clock.time().wall };
    Now { us: worker.shared.clock.boot_us(), wall }
}

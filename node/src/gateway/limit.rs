//! Whether there is room for a request: the stage that spends limits, after it is known who calls and that they may,
//! and before anything is sent.
//!
//! All enforced limits of a route admit a request, or none of them is spent. Limits with `scope: node` are taken first,
//! from buckets of this node ([`locals`]), and put back if a limit of the cluster refuses; those of the cluster are spent
//! together, from allowances that the node holds, by [`raft::admit`]. A warm request asks nobody, waits for nobody and
//! shares no lock with another thread: its slots are in a map of its worker ([`slots`]). One that finds nothing held
//! waits for an allowance, for as long as the route says. Limits in shadow are counted after that, and never refuse.
//!
//! What a route's limits are is compiled in [`crate::resource::compile`], whom they count is said by
//! [`crate::resource::subject`], and how tokens come to a node is the business of [`raft::Allowances`].

mod fields;
mod kept;
mod local;
mod locals;
mod slots;
mod subjects;

pub(crate) use fields::Standing;
pub(crate) use kept::{NodeLimits, RouteLimits, WorkerLimits};

use super::{
    exchange::{Exchange, Stage},
    in_flight::{Tie, unless_cut},
    problem::{Problem, Refusal},
    worker::{Worker, lock},
};
use crate::resource::subject::{self, Traits};
use kept::now;
use machine::Name;
use raft::Verdict;
use slots::Part;
use smallvec::SmallVec;
use std::{cell::Cell, slice};

/// What an exchange knows of its limits.
#[derive(Default)]
pub(crate) struct Limited {
    /// Where it stands with each enforced limit of the route, once they were looked at.
    standings: Standings,
    /// Which of them did not let it pass.
    stopped_by: Option<usize>,
    /// Which limits in shadow would not have: a bit each.
    shadowed: u64,
    /// How long it waited for tokens, in microseconds; only who finds nothing held does.
    pub(crate) waited_us: u64,
    /// Local time of the reading by which it was admitted; 0 if no limit of the cluster did that at once.
    pub(crate) admitted_us: u64,
}

type Standings = SmallVec<[Standing; 2]>;
type Parts = SmallVec<[Part; 4]>;

/// What became of an attempt.
enum Spent {
    Admitted,
    /// This limit is used up, for so many microseconds.
    UsedUp {
        place: usize,
        retry_us: u64,
    },
    /// Nothing is held of some limit.
    Dry(Parts),
    /// The node keeps as many buckets as it may.
    Crowded {
        place: usize,
    },
}

/// Spends a request's limits, or refuses it. `tie` ends its waiting if its credential does.
pub(crate) async fn limit(
    exchange: &mut Exchange,
    worker: &Worker,
    limits: &RouteLimits,
    traits: &Traits<'_>,
    tie: Option<&Tie>,
) -> Result<(), Refusal> {
    if limits.enforced.is_empty() && limits.shadow.is_empty() {
        return Ok(());
    }
    exchange.stage = Stage::Limit;
    let limited = &mut exchange.limited;
    let mut attempt = Attempt { worker, limits, traits, held: SmallVec::new(), admitted_us: Cell::new(0) };
    let spent = match attempt.spend(&mut limited.standings) {
        Spent::Dry(parts) => {
            let began_us = worker.shared.clock.boot_us();
            // Boxed for those who need not wait.
            let mut waiting = Box::pin(worker.shared.settings.allowances.wait(&parts, limits.wait));
            let verdict = unless_cut(tie, waiting.as_mut()).await?;
            limited.waited_us = worker.shared.clock.boot_us().saturating_sub(began_us).max(1);
            attempt.judge(verdict, &parts, &mut limited.standings)
        }
        spent => spent,
    };
    let (place, refusal) = match spent {
        Spent::Admitted => {
            attempt.settle(true);
            limited.admitted_us = attempt.admitted_us.get();
            limited.shadowed = attempt.count_shadows();
            return Ok(());
        }
        Spent::UsedUp { place, retry_us } => {
            limits.meter(place, |meter| &meter.refused);
            (place, Refusal::new(Problem::RateLimited, "used-up").retrying_after(fields::seconds(retry_us)))
        }
        Spent::Dry(parts) => {
            let place = limits.dry(&parts, worker.shared.clock.boot_us());
            limits.meter(place, |meter| &meter.unavailable);
            (place, Refusal::new(Problem::LimitUnavailable, "no-allowance"))
        }
        Spent::Crowded { place } => {
            limits.meter(place, |meter| &meter.unavailable);
            (place, Refusal::new(Problem::LimitUnavailable, "too-many-buckets"))
        }
    };
    attempt.settle(false);
    attempt.complete(place, &mut limited.standings);
    limited.stopped_by = Some(place);
    Err(refusal)
}

/// One request at its limits. What is only reserved when it is dropped goes back.
struct Attempt<'a> {
    worker: &'a Worker,
    limits: &'a RouteLimits,
    traits: &'a Traits<'a>,
    /// See [`Limited::admitted_us`].
    admitted_us: Cell<u64>,
    /// Limits of this node, by their places, of which tokens are reserved, and whether in the bucket for all others.
    held: SmallVec<[(usize, bool); 2]>,
}

impl Attempt<'_> {
    fn spend(&mut self, standings: &mut Standings) -> Spent {
        let limits = self.limits;
        standings.resize(limits.enforced.len(), Standing::default());
        let mut subject = lock(&self.worker.scratch);
        if !limits.locals.is_empty()
            && let Err(used_up) = self.reserve(&mut subject, standings)
        {
            return used_up;
        }
        let mut parts = Parts::new();
        for place in &limits.shared {
            let Some(limit) = limits.enforced.get(*place) else { continue };
            subject::encode(&limit.node.compiled.per, self.traits, &mut subject);
            if limits.shared.len() == 1
                && let Some(verdict) = limit.slots.with(&subject, |part| self.admit_alone(*place, part, standings))
            {
                return verdict;
            }
            match limit.slots.find(&subject).or_else(|| limit.fetch(self.worker, &subject)) {
                Some(slot) => parts.push((slot, limits.cost)),
                None => return Spent::Crowded { place: *place },
            }
        }
        drop(subject);
        if parts.is_empty() {
            return Spent::Admitted;
        }
        // Read now and not before: by an older reading, what has expired since could be spent.
        let now_us = self.worker.shared.clock.boot_us();
        let verdict = raft::admit(&parts, now_us);
        if matches!(verdict, Verdict::Admitted { .. }) {
            self.admitted_us.set(now_us);
        }
        self.judge(verdict, &parts, standings)
    }

    /// The way of nearly all requests: one limit of the cluster, whose slot is known. It counts no reference, because
    /// workers would fight over where that is counted.
    fn admit_alone(&self, place: usize, part: &mut Part, standings: &mut Standings) -> Spent {
        part.1 = self.limits.cost;
        let now_us = self.worker.shared.clock.boot_us();
        match raft::admit(slice::from_ref(part), now_us) {
            Verdict::Admitted { .. } => {
                self.admitted_us.set(now_us);
                if let Some(standing) = standings.get_mut(place) {
                    *standing = Standing::of_cluster(part.0.outlook(now_us));
                }
                Spent::Admitted
            }
            verdict => self.judge(verdict, slice::from_ref(part), standings),
        }
    }

    /// Says what a verdict means, and where the request stands with the limits of the cluster.
    fn judge(&self, verdict: Verdict, parts: &[Part], standings: &mut Standings) -> Spent {
        let now_us = self.worker.shared.clock.boot_us();
        for (place, (slot, _)) in self.limits.shared.iter().zip(parts) {
            if let Some(standing) = standings.get_mut(*place) {
                *standing = Standing::of_cluster(slot.outlook(now_us));
            }
        }
        match verdict {
            Verdict::Admitted { .. } => Spent::Admitted,
            Verdict::Refused { retry_us } => {
                let place = self.limits.dry(parts, now_us);
                if let Some(standing) = standings.get_mut(place) {
                    standing.seconds = fields::seconds(retry_us).max(1);
                }
                Spent::UsedUp { place, retry_us }
            }
            Verdict::Dry => Spent::Dry(parts.into()),
        }
    }

    /// Takes tokens of the limits of this node: of all of them, or of none that stay taken.
    fn reserve(&mut self, subject: &mut Vec<u8>, standings: &mut Standings) -> Result<(), Spent> {
        let limits = self.limits;
        // Nothing else can refuse it: no need to come back.
        let for_good = limits.enforced.len() == 1;
        for place in &limits.locals {
            let Some((limit, locals)) = limits.local(*place) else { continue };
            subject::encode(&limit.compiled.per, self.traits, subject);
            let (rule, now) = (limit.compiled.rule, now(self.worker, Some(limit.compiled.rule)));
            let taken = locals.reserve(rule, subject, limits.cost, now, for_good);
            let (left, seconds) = match &taken {
                Ok(reserved) => (reserved.left.tokens, reserved.left.more_us),
                Err(used_up) => (used_up.left.tokens, used_up.retry_us),
            };
            if let Some(standing) = standings.get_mut(*place) {
                *standing = Standing { left, seconds: fields::seconds(seconds).max(1) };
            }
            match taken {
                Ok(reserved) => {
                    if reserved.is_overflow {
                        limit.meter.overflowed.increment(1);
                    }
                    if !for_good {
                        self.held.push((*place, reserved.is_overflow));
                    }
                }
                Err(used_up) => return Err(Spent::UsedUp { place: *place, retry_us: used_up.retry_us }),
            }
        }
        Ok(())
    }

    /// Ends the reservations.
    fn settle(&mut self, admitted: bool) {
        if self.held.is_empty() {
            return;
        }
        let mut subject = lock(&self.worker.scratch);
        for (place, is_overflow) in self.held.drain(..) {
            if let Some((limit, locals)) = self.limits.local(place) {
                let now = now(self.worker, Some(limit.compiled.rule));
                subject::encode(&limit.compiled.per, self.traits, &mut subject);
                locals.settle(&subject, is_overflow, self.limits.cost, admitted, now);
            }
        }
    }

    /// Where a refused request stands with the limits that were not asked, or not in the end.
    #[cold]
    fn complete(&self, stopped_by: usize, standings: &mut Standings) {
        let now = now(self.worker, None);
        let mut subject = lock(&self.worker.scratch);
        for (place, (limit, standing)) in self.limits.enforced.iter().zip(standings.iter_mut()).enumerate() {
            if place == stopped_by {
                standing.seconds = standing.seconds.max(1);
                continue;
            }
            subject::encode(&limit.node.compiled.per, self.traits, &mut subject);
            *standing = match &limit.node.locals {
                Some(locals) => {
                    let left = locals.left(limit.node.compiled.rule, &subject, now);
                    Standing { left: left.tokens, seconds: fields::seconds(left.more_us).max(1) }
                }
                None => Standing::of_cluster(limit.slots.find(&subject).map_or(0, |slot| slot.outlook(now.us))),
            };
        }
    }

    /// Counts an admitted request in the limits that are in shadow; says which of them would have refused it.
    fn count_shadows(&self) -> u64 {
        let mut shadowed = 0;
        if self.limits.shadow.is_empty() {
            return shadowed;
        }
        let mut subject = lock(&self.worker.scratch);
        for (place, limit) in self.limits.shadow.iter().enumerate() {
            subject::encode(&limit.node.compiled.per, self.traits, &mut subject);
            if limit.would_refuse(self.worker, self.limits, &subject) {
                limit.node.meter.refused.increment(1);
                shadowed |= 1 << place.min(63);
            }
        }
        shadowed
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.settle(false);
    }
}

impl Limited {
    /// Where the exchange stands with the enforced limits of its route; nothing if they were not looked at.
    pub(crate) fn standings(&self) -> &[Standing] {
        &self.standings
    }

    /// The limit that decided, or came nearest to it, and what was left of it.
    pub(crate) fn decided_by<'l>(&self, limits: &'l RouteLimits) -> Option<(&'l Name, u64)> {
        let nearest = || self.standings.iter().enumerate().min_by_key(|(_, standing)| standing.left);
        let place = self.stopped_by.or_else(|| nearest().map(|(place, _)| place))?;
        let limit = limits.enforced.get(place)?;
        Some((&limit.node.compiled.name, self.standings.get(place)?.left))
    }

    /// Whether a limit in shadow would have refused it.
    pub(crate) const fn is_shadowed(&self) -> bool {
        self.shadowed != 0
    }

    /// The limits in shadow that would have refused it.
    pub(crate) fn shadowed_by<'l>(&self, limits: &'l RouteLimits) -> impl Iterator<Item = &'l Name> {
        let shadowed = self.shadowed;
        let is_among = move |place: usize| shadowed >> place.min(63) & 1 == 1;
        let limits = limits.shadow.iter().enumerate().filter(move |(place, _)| is_among(*place));
        limits.map(|(_, limit)| &limit.node.compiled.name)
    }
}

impl Standing {
    /// Of a limit of the cluster, by what the node knows: see [`fields`].
    const fn of_cluster(tokens: u64) -> Self {
        Self { left: tokens, seconds: if tokens > 0 { 1 } else { 0 } }
    }
}

//! One bucket: what is available of it, and what nodes hold of it as allowances.
//!
//! Integers only. A bucket never knows why somebody wants tokens; who gets how many is decided in
//! [`crate::allowance`], which calls the steps here in the one order that is safe: [`Bucket::refill`],
//! [`Bucket::expire`], [`Bucket::book`], [`Bucket::grant`].
//!
//! INVARIANT: `available + outstanding <= burst` after every step (watched by `tests/bucket.rs`,
//! [`crate::invariant::check`] and the simulation); while a lowered limit settles, more may be outstanding, and then
//! nothing is available.

mod allowances;
mod meter;

pub use allowances::Allowances;

use crate::{
    cap::{ALLOWANCES_PER_BUCKET_MAX, EXPIRED_ALLOWANCES_MAX, LIMIT_TOKENS_MAX, TERMS_MAX_US},
    limit::Rule,
    member::NodeId,
    time::{At, Tick, Wall},
};
use meter::Meter;
use serde::{Deserialize, Serialize};

/// The number of an allowance, never used again in the life of a cluster.
pub type AllowanceId = u64;

/// One process of a node: a restarted node holds nothing and begins a new one. Random.
pub type Incarnation = u64;

/// The live state of one limit for one subject. A bucket that is full and has nothing outstanding is not stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    meter: Meter,
    /// Of the limit's definition that the meter is of.
    generation: u64,
    allowances: Allowances,
    /// What each node was granted lately, halved as time goes by: the lowest is served first when tokens are scarce.
    /// A sorted list, because there are few and buckets are many.
    served: Vec<(NodeId, u64)>,
    served_at: Tick,
}

/// Tokens that a node may spend by itself until it expires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// Who holds it.
    pub node: NodeId,
    /// Which process of the node.
    pub incarnation: Incarnation,
    /// The request of that process which it answers.
    pub request: u64,
    /// How many tokens it had.
    pub granted: u64,
    /// How many of them are known to be spent.
    pub spent: u64,
    /// How long the holder may spend it, in microseconds from when it sent its request.
    pub ttl_us: u64,
    /// When the holder has surely stopped spending: the drift margin is in it, so that nobody who applies a later entry
    /// needs to know by which margin it was granted.
    pub expires: Tick,
    /// Of a quota, after expiry: what was left counts as spent unless a close within the window says otherwise.
    pub expired: bool,
}

/// How long allowances last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// How long a holder may spend an allowance, in microseconds.
    pub ttl_us: u64,
    /// How much longer the cluster counts it as outstanding, in microseconds of cluster time.
    pub margin_us: u64,
}

/// A limit as it stands now, and what is needed to bring a bucket up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// How much may be admitted.
    pub rule: Rule,
    /// Grows by one with each change of the rule.
    pub generation: u64,
    /// When the rule was last changed.
    pub changed: Tick,
}

/// What a node says it has spent of an allowance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Which allowance.
    pub allowance: AllowanceId,
    /// Tokens spent since it was granted: cumulative, so that duplicates, losses and reorder change nothing.
    pub spent: u64,
    /// The holder spends it no more; what is left goes back. Final.
    pub close: bool,
}

/// How often recent grants are halved.
const SERVED_HALF_LIFE_US: u64 = 1_000_000;

/// When to ask again for something that is held by others: about as long as they keep what they do not use.
const ASK_AGAIN_US: u64 = 500_000;

/// When to ask again for what expired, but may still be given back by a node that had only been paused.
const ASK_LATE_US: u64 = 10_000_000;

impl Bucket {
    /// A full one: what an absent bucket is.
    #[must_use]
    pub fn full(limit: &Limit, at: At) -> Self {
        Self {
            meter: Meter::full(limit.rule, at),
            generation: limit.generation,
            allowances: Allowances::default(),
            served: Vec::new(),
            served_at: at.tick,
        }
    }

    /// Whole tokens that are there.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.meter.available()
    }

    /// Tokens that can be granted now. None when what is granted would be over before it arrives, at the end of a
    /// window, or when there are too many allowances already.
    #[must_use]
    pub fn grantable(&self, at: At, terms: Terms) -> u64 {
        let has_room = self.allowances.len() < ALLOWANCES_PER_BUCKET_MAX;
        if has_room && self.ttl_us(at, terms) > 0 { self.available() } else { 0 }
    }

    /// Tokens that nodes may still spend.
    #[must_use]
    pub fn outstanding(&self) -> u64 {
        self.allowances
            .values()
            .filter(|allowance| !allowance.expired)
            .fold(0_u64, |sum, allowance| sum.saturating_add(allowance.left()))
    }

    /// The allowances of the bucket by number.
    #[must_use]
    pub const fn allowances(&self) -> &Allowances {
        &self.allowances
    }

    /// The rule that the bucket was last brought up to.
    #[must_use]
    pub const fn rule(&self) -> Rule {
        self.meter.rule()
    }

    /// Which definition of its limit that rule is.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Of a quota: where its present window ends; of a rate, the end of time.
    #[must_use]
    pub const fn window_end(&self) -> Wall {
        self.meter.window_end()
    }

    /// What a node was granted lately.
    #[must_use]
    pub fn served(&self, node: NodeId) -> u64 {
        let found = self.served.iter().find(|(of, _)| *of == node);
        found.map_or(0, |(_, granted)| *granted)
    }

    /// Whether it says no more than its absence would: full, nothing outstanding and nothing to remember.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.allowances.is_empty() && self.meter.is_full()
    }

    /// Whether it can be what a history has made; what was read from a file or came from another node may not be.
    /// `next` is the number that the next allowance gets, and `at` the cluster's time.
    #[must_use]
    pub fn check(&self, next: AllowanceId, at: At) -> bool {
        let is_quota = matches!(self.rule(), Rule::Quota(_));
        let sum = |keep: fn(&Allowance) -> bool| {
            let kept = self.allowances.values().filter(|allowance| keep(allowance));
            kept.fold(0_u128, |sum, allowance| sum + u128::from(allowance.left()))
        };
        let outstanding = sum(|allowance| !allowance.expired);
        let latest = Tick(at.tick.0.saturating_add(2 * TERMS_MAX_US));
        let each = |allowance: &Allowance| {
            let is_counted = allowance.spent <= allowance.granted && allowance.granted <= LIMIT_TOKENS_MAX;
            is_counted && (is_quota || !allowance.expired) && allowance.expires <= latest
        };
        self.allowances.are_in_order(next)
            && self.allowances.len() <= ALLOWANCES_PER_BUCKET_MAX
            && self.allowances.values().filter(|allowance| allowance.expired).count() <= EXPIRED_ALLOWANCES_MAX
            && self.allowances.values().all(each)
            && outstanding <= u128::from(LIMIT_TOKENS_MAX)
            && self.meter.check(outstanding, sum(|_| true), at)
            && self.served.is_sorted_by(|(one, _), (next, _)| one < next)
            && self.served_at <= at.tick
    }

    /// Step 1. Credits the time that has passed, and takes over a changed limit.
    ///
    /// `outstanding` is what it was before this entry: room that is only now found to be free, by a report or by an
    /// expiry, may have been full until a moment ago. Crediting it for the whole elapsed time would let
    /// `burst + rate·d` be exceeded, by up to a whole burst in the case of expiry.
    pub fn refill(&mut self, limit: &Limit, at: At) {
        let outstanding = self.outstanding();
        if limit.generation != self.generation {
            let changed = limit.changed.min(at.tick);
            // At the old rate up to the change. A bucket that slept through several changes no longer knows the rates
            // in between: it gets nothing for that time, and fills up at the new rate.
            if limit.generation == self.generation.saturating_add(1) {
                self.meter.credit(changed, outstanding);
            }
            if self.meter.take_over(limit.rule, changed, at, outstanding) {
                // Another kind of window: what came back from the one before would come back into this one.
                self.allowances.retain(|allowance| !allowance.expired);
            }
            self.generation = limit.generation;
        }
        self.meter.credit(at.tick, outstanding);
        let halvings = at.tick.0.saturating_sub(self.served_at.0) / SERVED_HALF_LIFE_US;
        if halvings > 0 {
            self.served_at = Tick(self.served_at.0.saturating_add(halvings.saturating_mul(SERVED_HALF_LIFE_US)));
            let shift = u32::try_from(halvings).unwrap_or(u32::MAX);
            self.served.retain_mut(|(_, granted)| {
                *granted = granted.checked_shr(shift).unwrap_or(0);
                *granted > 0
            });
        }
    }

    /// Step 2. Ends allowances whose holder has surely stopped: what was left in them counts as spent, for the holder
    /// may have spent it. A quota then begins a new window if the calendar says so.
    pub fn expire(&mut self, at: At) {
        let has_ended = |allowance: &Allowance| allowance.expires <= at.tick;
        if matches!(self.rule(), Rule::Rate(_)) {
            self.allowances.retain(|allowance| !has_ended(allowance));
            return;
        }
        for allowance in self.allowances.values_mut() {
            allowance.expired |= has_ended(allowance);
        }
        self.allowances.forget_expired(EXPIRED_ALLOWANCES_MAX);
        // Holders stop before the window does (see `ttl_us`), so nothing is outstanding here but after a jump of the
        // calendar; then the new window waits for them, at most as long as an allowance lasts.
        if at.wall >= self.window_end() && self.allowances.values().all(|allowance| allowance.expired) {
            self.meter.begin_window(at);
            self.allowances = Allowances::default();
        }
    }

    /// Step 3. Books what a node says it has spent, and says whether that was news. Of another node's or process's
    /// allowance, or one that is gone, it says nothing: a token bucket may have refilled meanwhile, and a quota's next
    /// window owes it nothing.
    pub fn book(&mut self, node: NodeId, incarnation: Incarnation, report: Spent) -> bool {
        let Some(allowance) = self.allowances.get_mut(report.allowance) else { return false };
        if allowance.node != node || allowance.incarnation != incarnation {
            return false;
        }
        let before = allowance.spent;
        allowance.spent = before.max(report.spent.min(allowance.granted));
        let (is_news, unspent) = (allowance.spent > before || report.close, allowance.left());
        if report.close {
            self.allowances.remove(report.allowance);
            self.meter.give_back(unspent, self.outstanding());
        }
        is_news
    }

    /// Step 4. Grants tokens, as many as the caller has asked [`Bucket::grantable`] for; never more than there are.
    pub fn grant(&mut self, id: AllowanceId, allowance: Allowance) {
        let granted = allowance.granted.min(self.available());
        let allowance = Allowance { granted, ..allowance };
        self.meter.take(granted);
        match self.served.binary_search_by_key(&allowance.node, |(node, _)| *node) {
            Ok(place) => {
                if let Some((_, served)) = self.served.get_mut(place) {
                    *served = served.saturating_add(granted);
                }
            }
            Err(place) => {
                self.served.reserve_exact(1);
                self.served.insert(place, (allowance.node, granted));
            }
        }
        self.allowances.insert(id, allowance);
    }

    /// How long an allowance granted now may last for its holder, in microseconds: never beyond the window of a quota,
    /// by any clock that is within the assumed error of the leader's.
    #[must_use]
    pub fn ttl_us(&self, at: At, terms: Terms) -> u64 {
        match self.rule() {
            Rule::Rate(_) => terms.ttl_us,
            // Two clocks, each wrong by the assumed 1 %.
            Rule::Quota(_) => terms.ttl_us.min(self.until_window_end_us(at) / 100 * 98),
        }
    }

    fn until_window_end_us(&self, at: At) -> u64 {
        self.window_end().0.saturating_sub(at.wall.0).saturating_mul(1_000)
    }

    /// When to ask again for `tokens` that could not be had, in microseconds: what a refused caller is told, and how
    /// long the node refuses from memory.
    ///
    /// Of a rate, when they will be there if nothing is given back. Of a quota that is used up for good, the end of the
    /// window; but while others hold some of it they may give it back, and it would be lost on those who do not ask.
    #[must_use]
    pub fn due_us(&self, tokens: u64, at: At) -> u64 {
        if tokens > self.rule().burst() || self.allowances.len() >= ALLOWANCES_PER_BUCKET_MAX {
            return ASK_AGAIN_US;
        }
        match self.meter.missing_us(tokens) {
            // At least a little: what others hold comes back as they spend it, and refills from then on.
            Some(due_us) => due_us.max(1),
            None if self.outstanding() > 0 => self.until_window_end_us(at).clamp(1_000, ASK_AGAIN_US),
            None if !self.allowances.is_empty() => self.until_window_end_us(at).clamp(1_000, ASK_LATE_US),
            None => self.until_window_end_us(at).max(1_000),
        }
    }
}

impl Allowance {
    /// Tokens that are not known to be spent.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.granted.saturating_sub(self.spent)
    }
}

impl Terms {
    /// The same, within what the arithmetic and the invariants allow.
    pub(crate) fn clamped(self) -> Self {
        Self { ttl_us: self.ttl_us.min(TERMS_MAX_US), margin_us: self.margin_us.min(TERMS_MAX_US) }
    }

    /// When an allowance that lasts so long for its holder, counted from before `at`, is over for the cluster.
    pub(crate) const fn end(self, at: At, ttl_us: u64) -> Tick {
        Tick(at.tick.0.saturating_add(ttl_us).saturating_add(self.margin_us))
    }
}

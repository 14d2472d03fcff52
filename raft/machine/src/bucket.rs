//! The arithmetic of one bucket: what is available, and what nodes hold of it as allowances.
//!
//! Integers only. A bucket never knows why somebody wants tokens; who gets how many is decided in
//! [`crate::allowance`], which calls the steps here in the one order that is safe: [`Bucket::refill`],
//! [`Bucket::expire`], [`Bucket::book`], [`Bucket::grant`].
//!
//! INVARIANT: `available + outstanding <= burst` after every step (watched by `tests/bucket.rs` and the simulation).

use crate::{
    cap::LIMIT_TOKENS_MAX,
    limit::{Quota, Rate, Rule},
    member::NodeId,
    time::{At, Tick, Wall},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The number of an allowance, never used again in the life of a cluster.
pub type AllowanceId = u64;

/// One process of a node: a restarted node holds nothing and begins a new one. Random.
pub type Incarnation = u64;

/// The live state of one limit for one subject. A bucket that is full and has nothing outstanding is not stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    rule: Rule,
    /// Of the limit's definition that `rule` is.
    generation: u64,
    /// In parts: a token is [`Rate::period_us`] parts of a rate and one part of a quota, so that a refill is exact.
    level: u128,
    updated: Tick,
    /// Of a quota: where its window ends.
    window_end: Wall,
    allowances: BTreeMap<AllowanceId, Allowance>,
    /// What each node was granted lately, halved as time goes by: the lowest is served first when tokens are scarce.
    served: BTreeMap<NodeId, u64>,
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
    /// When the cluster knows, but for the drift margin, that the holder has stopped spending.
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

/// Expired allowances of a quota that are remembered until the window ends: their holders have crashed, or will close
/// them soon. Of the oldest beyond it, what was left stays spent.
const EXPIRED_MAX: usize = 64;

/// How often recent grants are halved.
const SERVED_HALF_LIFE_US: u64 = 1_000_000;

impl Rule {
    /// The most tokens there can be at a time.
    #[must_use]
    pub const fn burst(&self) -> u64 {
        match self {
            Self::Rate(Rate { burst, .. }) => *burst,
            Self::Quota(Quota { amount, .. }) => *amount,
        }
    }

    /// Parts of a token.
    const fn parts(&self) -> u128 {
        match self {
            Self::Rate(rate) => rate.period_us as u128,
            Self::Quota(_) => 1,
        }
    }
}

impl Bucket {
    /// A full one: what an absent bucket is.
    #[must_use]
    pub fn full(limit: &Limit, at: At) -> Self {
        let window_end = match limit.rule {
            Rule::Rate(_) => Wall(u64::MAX),
            Rule::Quota(Quota { window, .. }) => window.end(at.wall),
        };
        Self {
            rule: limit.rule,
            generation: limit.generation,
            level: u128::from(limit.rule.burst()) * limit.rule.parts(),
            updated: at.tick,
            window_end,
            allowances: BTreeMap::new(),
            served: BTreeMap::new(),
            served_at: at.tick,
        }
    }

    /// Whole tokens that can be granted.
    #[must_use]
    pub fn available(&self) -> u64 {
        u64::try_from(self.level / self.rule.parts()).unwrap_or(u64::MAX)
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
    pub const fn allowances(&self) -> &BTreeMap<AllowanceId, Allowance> {
        &self.allowances
    }

    /// The rule that the bucket was last brought up to.
    #[must_use]
    pub const fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Which definition of its limit that rule is.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Of a quota: where its present window ends.
    #[must_use]
    pub const fn window_end(&self) -> Wall {
        self.window_end
    }

    /// What a node was granted lately.
    #[must_use]
    pub fn served(&self, node: NodeId) -> u64 {
        self.served.get(&node).copied().unwrap_or(0)
    }

    /// Whether it says no more than its absence would: full, nothing outstanding and nothing to remember.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.allowances.is_empty() && self.level == u128::from(self.rule.burst()) * self.rule.parts()
    }

    /// Whether it could have become what it is; what was read from a file or came from another node may not. `next` is
    /// the number that the next allowance gets.
    #[must_use]
    pub fn check(&self, next: AllowanceId) -> bool {
        let granted = self.allowances.values().fold(0_u128, |sum, allowance| sum + u128::from(allowance.granted));
        let held_right = self.allowances.iter().all(|(id, allowance)| {
            let is_quota = matches!(self.rule, Rule::Quota(_));
            *id < next && allowance.spent <= allowance.granted && (is_quota || !allowance.expired)
        });
        // A limit that was lowered has less than is out until that has come back.
        let room = u128::from(self.rule.burst().saturating_sub(self.outstanding())) * self.rule.parts();
        self.rule.check().is_ok()
            && held_right
            && granted <= u128::from(LIMIT_TOKENS_MAX) * 2
            && self.level <= room
            && self.allowances.values().filter(|allowance| allowance.expired).count() <= EXPIRED_MAX
    }

    /// Step 1. Credits the time that has passed, and takes over a changed limit.
    ///
    /// `outstanding` is what it was before this entry: room that is only now found to be free, by a report or by an
    /// expiry, may have been full until a moment ago. Crediting it for the whole elapsed time would let
    /// `burst + rate·d` be exceeded, by up to a whole burst in the case of expiry.
    pub fn refill(&mut self, limit: &Limit, at: At) {
        if limit.generation != self.generation {
            // At the old rate up to the change. A bucket that slept through several changes no longer knows the rates
            // in between: it gets nothing for that time, and fills up at the new rate.
            if limit.generation == self.generation.saturating_add(1) {
                self.credit(limit.changed.min(at.tick));
            }
            self.take_over(limit, at);
        }
        self.credit(at.tick);
        let halvings = at.tick.0.saturating_sub(self.served_at.0) / SERVED_HALF_LIFE_US;
        if halvings > 0 {
            self.served_at = Tick(self.served_at.0.saturating_add(halvings.saturating_mul(SERVED_HALF_LIFE_US)));
            let shift = u32::try_from(halvings).unwrap_or(u32::MAX);
            self.served.retain(|_, granted| {
                *granted = granted.checked_shr(shift).unwrap_or(0);
                *granted > 0
            });
        }
    }

    fn credit(&mut self, until: Tick) {
        let elapsed_us = until.0.saturating_sub(self.updated.0);
        self.updated = self.updated.max(until);
        if let Rule::Rate(rate) = self.rule {
            let room = u128::from(rate.burst.saturating_sub(self.outstanding())) * self.rule.parts();
            self.level = self.level.saturating_add(u128::from(elapsed_us) * u128::from(rate.tokens)).min(room);
        }
    }

    /// Carries the level over to a new definition, never below zero and never above what it has room for.
    fn take_over(&mut self, limit: &Limit, at: At) {
        let room = u128::from(limit.rule.burst().saturating_sub(self.outstanding()));
        let tokens = match (&self.rule, &limit.rule) {
            (Rule::Rate(_), Rule::Rate(_)) => {
                // Exact in parts: a fraction of a token is a fraction of a token at any period.
                self.level = (self.level / self.rule.parts() * limit.rule.parts()).min(room * limit.rule.parts());
                None
            }
            (Rule::Quota(old), Rule::Quota(new)) if old.window == new.window => {
                let gone = u128::from(old.amount).saturating_sub(self.level);
                let held = u128::from(self.outstanding());
                let spent = gone.saturating_sub(held);
                Some(u128::from(new.amount).saturating_sub(spent).min(room))
            }
            // Another kind of limit: what the old one counted says nothing about the new one.
            _ => Some(room),
        };
        if let Some(tokens) = tokens {
            self.level = tokens * limit.rule.parts();
        }
        let same_window = matches!((&self.rule, &limit.rule),
            (Rule::Quota(old), Rule::Quota(new)) if old.window == new.window);
        if !same_window {
            self.window_end = Self::full(limit, at).window_end;
            self.allowances.retain(|_, allowance| !allowance.expired);
        }
        self.rule = limit.rule;
        self.generation = limit.generation;
        self.updated = self.updated.max(limit.changed.min(at.tick));
    }

    /// Step 2. Ends allowances whose holder has surely stopped: what was left in them counts as spent, for the holder
    /// may have spent it. A quota then begins a new window if the calendar says so.
    pub fn expire(&mut self, at: At, terms: Terms) {
        let has_ended = |allowance: &Allowance| allowance.expires.0.saturating_add(terms.margin_us) <= at.tick.0;
        match self.rule {
            Rule::Rate(_) => self.allowances.retain(|_, allowance| !has_ended(allowance)),
            Rule::Quota(Quota { amount, window }) => {
                for allowance in self.allowances.values_mut() {
                    allowance.expired |= has_ended(allowance);
                }
                let expired = self.allowances.iter().filter(|(_, allowance)| allowance.expired);
                let too_many = expired.clone().count().saturating_sub(EXPIRED_MAX);
                let oldest: Vec<AllowanceId> = expired.take(too_many).map(|(id, _)| *id).collect();
                for id in oldest {
                    self.allowances.remove(&id);
                }
                // Holders stop before the window does (see `ttl_us`), so nothing is outstanding here but after a jump
                // of the calendar; then the new window waits for them, at most as long as an allowance lasts.
                if at.wall >= self.window_end && self.allowances.values().all(|allowance| allowance.expired) {
                    self.level = u128::from(amount);
                    self.window_end = window.end(at.wall);
                    self.allowances.clear();
                }
            }
        }
    }

    /// Step 3. Books what a node says it has spent. Of another node's or process's allowance, or one that is gone, it
    /// says nothing: a token bucket may have refilled meanwhile, and a quota's next window owes it nothing.
    pub fn book(&mut self, node: NodeId, incarnation: Incarnation, report: Spent) {
        let Some(allowance) = self.allowances.get_mut(&report.allowance) else { return };
        if allowance.node != node || allowance.incarnation != incarnation {
            return;
        }
        allowance.spent = allowance.spent.max(report.spent.min(allowance.granted));
        if report.close {
            let unspent = allowance.left();
            self.allowances.remove(&report.allowance);
            self.level = self.level.saturating_add(u128::from(unspent) * self.rule.parts());
        }
    }

    /// Step 4. Grants tokens; the caller has asked [`Bucket::available`].
    pub fn grant(&mut self, id: AllowanceId, allowance: Allowance) {
        self.level = self.level.saturating_sub(u128::from(allowance.granted) * self.rule.parts());
        let served = self.served.entry(allowance.node).or_default();
        *served = served.saturating_add(allowance.granted);
        self.allowances.insert(id, allowance);
    }

    /// How long an allowance granted now may last for its holder, in microseconds: never beyond the window of a quota,
    /// by any clock that is within the assumed error of the leader's.
    #[must_use]
    pub fn ttl_us(&self, at: At, terms: Terms) -> u64 {
        match self.rule {
            Rule::Rate(_) => terms.ttl_us,
            Rule::Quota(_) => {
                let left_us = self.window_end.0.saturating_sub(at.wall.0).saturating_mul(1_000);
                // Two clocks, each wrong by the assumed 1 %.
                terms.ttl_us.min(left_us / 100 * 98)
            }
        }
    }

    /// How long until `tokens` more could be available if nothing were returned, in microseconds: what a refused
    /// caller is told, and how long the node refuses from memory.
    #[must_use]
    pub fn due_us(&self, tokens: u64, at: At) -> u64 {
        match self.rule {
            Rule::Rate(rate) => {
                let missing = (u128::from(tokens.min(rate.burst)) * self.rule.parts()).saturating_sub(self.level);
                // At least one token's time: what others hold comes back as they spend it, and refills from then on.
                let due = missing.max(1).div_ceil(u128::from(rate.tokens.max(1)));
                u64::try_from(due).unwrap_or(u64::MAX)
            }
            Rule::Quota(_) => self.window_end.0.saturating_sub(at.wall.0).saturating_mul(1_000).max(1_000),
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

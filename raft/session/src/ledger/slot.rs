//! One bucket of a node as workers see it: spent with loads and atomic decrements alone. What is asked for and reported
//! is the steward's side, in [`super::Ledger`].

use arc_swap::{ArcSwap, Guard};
use machine::{allowance::BucketId, bucket::AllowanceId};
use smallvec::SmallVec;
use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, Ordering},
};

/// One bucket, as workers see it.
#[derive(Debug)]
pub struct Slot {
    /// Of its account in the ledger that made it.
    pub(super) number: u64,
    id: BucketId,
    /// The most that the bucket can hold: how often spending is reported follows from it.
    pub(super) burst: AtomicU64,
    /// What ends first comes first. Changed by the steward alone.
    pub(super) holdings: ArcSwap<Vec<Arc<Holding>>>,
    /// Until then the answer is no, from memory.
    pub(super) refused_until_us: AtomicU64,
    /// What nobody held of the bucket when the cluster last answered.
    pub(super) left: AtomicU64,
}

/// An allowance, as its holder spends it.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) allowance: AllowanceId,
    pub(super) granted: u64,
    /// Below zero once it is closed.
    remaining: AtomicI64,
    /// Tokens of admitted requests.
    spent: AtomicU64,
    /// What the cluster is known to know of that. The steward's alone.
    pub(super) reported: AtomicU64,
    /// Local time: when it arrived.
    received_us: u64,
    /// Local time: never spent at or after it.
    pub(super) deadline_us: u64,
}

/// An allowance that a node holds, for people and checkers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its number.
    pub allowance: AllowanceId,
    /// Tokens that can still be spent.
    pub remaining: u64,
    /// Tokens of admitted requests.
    pub spent: u64,
    /// Local time at which it ends.
    pub deadline_us: u64,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Tokens of every limit were spent.
    Admitted {
        /// The instant that counts: when the clock was read, or when the tokens arrived, if that was later.
        at_us: u64,
    },
    /// At least one limit is used up: try again in so many microseconds. Nothing was spent.
    Refused {
        /// From now.
        retry_us: u64,
    },
    /// The node holds nothing here: wait for an allowance. Nothing was spent.
    Dry,
}

/// Far below anything that takers can add or subtract.
const CLOSED: i64 = i64::MIN / 4;

/// Limits of one request that need no allocation: as many as a request can have.
const PARTS_INLINE: usize = machine::cap::PARTS_PER_WANT_MAX;

/// Tokens in a worker's hands: spent or put back before it goes on.
struct Taken {
    /// Keeps the holding alive without counting references, which workers would fight over.
    holdings: Guard<Arc<Vec<Arc<Holding>>>>,
    place: usize,
    cost: u64,
}

/// Spends one request's cost of each of its limits: of all of them, or of none. No lock; no allocation for up to eight
/// limits.
///
/// `now_us` is read from CLOCK_BOOTTIME after the request has started, never from a cache: after a pause, a worker can
/// run before whatever refreshes a cache, and would spend what has expired.
pub fn admit(parts: &[(Arc<Slot>, u64)], now_us: u64) -> Verdict {
    let mut taken: SmallVec<[Taken; PARTS_INLINE]> = SmallVec::new();
    for (slot, cost) in parts {
        if let Some(tokens) = slot.take(*cost, now_us) {
            taken.push(tokens);
            continue;
        }
        for tokens in &taken {
            tokens.put_back();
        }
        return verdict_without_tokens(parts, now_us);
    }
    let at_us = taken.iter().fold(now_us, |at_us, tokens| at_us.max(tokens.spend()));
    Verdict::Admitted { at_us }
}

/// One limit that is known to be used up refuses the request, whichever of them was found dry first: waiting for the
/// others would be in vain.
#[cold]
fn verdict_without_tokens(parts: &[(Arc<Slot>, u64)], now_us: u64) -> Verdict {
    let retry_us = parts.iter().filter_map(|(slot, cost)| slot.refused_us(*cost, now_us)).max();
    retry_us.map_or(Verdict::Dry, |retry_us| Verdict::Refused { retry_us })
}

impl Slot {
    pub(super) fn new(number: u64, id: BucketId, burst: u64) -> Self {
        Self {
            number,
            id,
            burst: AtomicU64::new(burst),
            holdings: ArcSwap::from_pointee(Vec::new()),
            refused_until_us: AtomicU64::new(0),
            left: AtomicU64::new(0),
        }
    }

    /// Which bucket.
    #[must_use]
    pub const fn id(&self) -> &BucketId {
        &self.id
    }

    /// Tokens that are left as far as this node can tell, for the `RateLimit` header: what it holds, and what nobody held
    /// when the cluster last answered. Others may have taken of that since, and time may have added to it.
    #[must_use]
    pub fn outlook(&self, now_us: u64) -> u64 {
        let known = self.remaining(now_us).saturating_add(self.left.load(Ordering::Relaxed));
        known.min(self.burst.load(Ordering::Relaxed))
    }

    /// Tokens that could be spent here at this instant.
    #[must_use]
    pub fn remaining(&self, now_us: u64) -> u64 {
        self.holdings.load().iter().filter(|holding| now_us < holding.deadline_us).map(|holding| holding.left()).sum()
    }

    /// What the node holds of the bucket, the first to end first.
    #[must_use]
    pub fn held(&self) -> Vec<Held> {
        let held = |holding: &Arc<Holding>| Held {
            allowance: holding.allowance,
            remaining: u64::try_from(holding.remaining.load(Ordering::Acquire)).unwrap_or(0),
            spent: holding.spent(),
            deadline_us: holding.deadline_us,
        };
        self.holdings.load().iter().map(held).collect()
    }

    /// How long a request of this cost is refused from memory; `None` if it is not.
    pub(super) fn refused_us(&self, cost: u64, now_us: u64) -> Option<u64> {
        let refused_us = self.refused_until_us.load(Ordering::Acquire).saturating_sub(now_us);
        (refused_us > 0 && self.remaining(now_us) < cost).then_some(refused_us)
    }

    fn take(&self, cost: u64, now_us: u64) -> Option<Taken> {
        let holdings = self.holdings.load();
        let place = holdings.iter().position(|holding| now_us < holding.deadline_us && holding.take(cost))?;
        Some(Taken { holdings, place, cost })
    }
}

impl Taken {
    /// The tokens are an admitted request's. Returns when they arrived.
    fn spend(&self) -> u64 {
        let Some(holding) = self.holdings.get(self.place) else { return 0 };
        holding.spent.fetch_add(self.cost, Ordering::AcqRel);
        holding.received_us
    }

    fn put_back(&self) {
        if let Some(holding) = self.holdings.get(self.place) {
            holding.remaining.fetch_add(i64::try_from(self.cost).unwrap_or(0), Ordering::AcqRel);
        }
    }
}

impl Holding {
    pub(super) fn new(allowance: AllowanceId, granted: u64, received_us: u64, deadline_us: u64) -> Self {
        Self {
            allowance,
            granted,
            remaining: AtomicI64::new(i64::try_from(granted).unwrap_or(i64::MAX)),
            spent: AtomicU64::new(0),
            reported: AtomicU64::new(0),
            received_us,
            deadline_us,
        }
    }

    /// Tokens of admitted requests.
    pub(super) fn spent(&self) -> u64 {
        self.spent.load(Ordering::Acquire)
    }

    /// Tokens that can still be spent.
    pub(super) fn left(&self) -> u64 {
        u64::try_from(self.remaining.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Of those, what the cluster has not been told.
    pub(super) fn unreported(&self) -> u64 {
        self.spent().saturating_sub(self.reported.load(Ordering::Relaxed))
    }

    fn take(&self, cost: u64) -> bool {
        let Ok(cost) = i64::try_from(cost) else { return false };
        if self.remaining.load(Ordering::Relaxed) < cost {
            return false;
        }
        if self.remaining.fetch_sub(cost, Ordering::AcqRel) >= cost {
            return true;
        }
        // Somebody was faster. Put back to what may have been closed meanwhile: then it stays below zero.
        self.remaining.fetch_add(cost, Ordering::AcqRel);
        false
    }

    /// Ends spending for good and says how much was spent at the most: tokens that a worker has in its hands count as
    /// spent, whether it puts them back or not.
    ///
    /// INVARIANT: never less than what is admitted of it, before or after (watched by `workers_and_steward_at_once`).
    pub(super) fn close(&self) -> u64 {
        let left = self.remaining.swap(CLOSED, Ordering::AcqRel);
        self.granted.saturating_sub(u64::try_from(left).unwrap_or(0))
    }
}

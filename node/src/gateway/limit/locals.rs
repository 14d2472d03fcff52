//! The buckets of one limit with `scope: node`, by subject: shared by the workers of this node, never asked of the
//! cluster. How many there may be is bounded; what finds no room shares one bucket. One that is full again is forgotten,
//! because an absent bucket is a full one.

use super::local::{Left, LocalBucket, Now};
use crate::gateway::worker::lock;
use machine::limit::Rule;
use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Parts with a lock each: workers seldom meet at one.
const SHARDS: usize = 16;

/// The buckets of one limit on this node.
pub(crate) struct LocalBuckets {
    subjects_max: usize,
    subjects: AtomicUsize,
    hasher: RandomState,
    shards: [Mutex<HashMap<Box<[u8]>, LocalBucket>>; SHARDS],
    /// For subjects that found no room.
    overflow: Mutex<Option<LocalBucket>>,
    next_sweep: AtomicUsize,
}

/// What was taken, and of what there is how much left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reserved {
    /// Of the bucket that is shared by those who found no room.
    pub(crate) is_overflow: bool,
    pub(crate) left: Left,
}

/// A request that this node cannot admit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UsedUp {
    pub(crate) retry_us: u64,
    pub(crate) left: Left,
}

impl LocalBuckets {
    pub(crate) fn new(subjects_max: u32) -> Self {
        Self {
            subjects_max: usize::try_from(subjects_max).unwrap_or(usize::MAX),
            subjects: AtomicUsize::new(0),
            hasher: RandomState::new(),
            shards: Default::default(),
            overflow: Mutex::default(),
            next_sweep: AtomicUsize::new(0),
        }
    }

    /// Takes tokens: for good if `for_good`, else until [`Self::settle`].
    pub(crate) fn reserve(
        &self,
        rule: Rule,
        subject: &[u8],
        cost: u64,
        now: Now,
        for_good: bool,
    ) -> Result<Reserved, UsedUp> {
        let take = |bucket: &mut LocalBucket, is_overflow| {
            let reserved = bucket.reserve(rule, cost, now);
            if reserved.is_ok() && for_good {
                bucket.settle(cost, true, now);
            }
            let left = bucket.left(now);
            reserved.map(|()| Reserved { is_overflow, left }).map_err(|retry_us| UsedUp { retry_us, left })
        };
        let mut shard = lock(self.shard(subject));
        if let Some(bucket) = shard.get_mut(subject) {
            return take(bucket, false);
        }
        if self.subjects.load(Ordering::Relaxed) >= self.subjects_max {
            self.sweep_shard(&mut shard, now);
        }
        if self.subjects.load(Ordering::Relaxed) >= self.subjects_max {
            drop(shard);
            let mut overflow = lock(&self.overflow);
            return take(overflow.get_or_insert_with(|| LocalBucket::full(rule, now)), true);
        }
        self.subjects.fetch_add(1, Ordering::Relaxed);
        take(shard.entry(subject.into()).or_insert_with(|| LocalBucket::full(rule, now)), false)
    }

    /// Ends a reservation: the tokens are spent, or go back.
    pub(crate) fn settle(&self, subject: &[u8], is_overflow: bool, cost: u64, admitted: bool, now: Now) {
        if is_overflow {
            if let Some(bucket) = lock(&self.overflow).as_mut() {
                bucket.settle(cost, admitted, now);
            }
        } else if let Some(bucket) = lock(self.shard(subject)).get_mut(subject) {
            bucket.settle(cost, admitted, now);
        }
    }

    /// What is left for a subject.
    pub(crate) fn left(&self, rule: Rule, subject: &[u8], now: Now) -> Left {
        let mut shard = lock(self.shard(subject));
        shard.get_mut(subject).map_or_else(|| LocalBucket::full(rule, now).left(now), |bucket| bucket.left(now))
    }

    /// Forgets what is full again, of the part whose turn it is. All of them have had their turn after 16 calls.
    pub(crate) fn sweep(&self, now: Now) {
        let turn = self.next_sweep.fetch_add(1, Ordering::Relaxed) % SHARDS;
        if let Some(shard) = self.shards.get(turn) {
            self.sweep_shard(&mut lock(shard), now);
        }
    }

    fn sweep_shard(&self, shard: &mut HashMap<Box<[u8]>, LocalBucket>, now: Now) {
        let before = shard.len();
        shard.retain(|_, bucket| !bucket.is_absent(now));
        self.subjects.fetch_sub(before - shard.len(), Ordering::Relaxed);
        if shard.capacity() / 4 > shard.len() {
            shard.shrink_to(shard.len() * 2);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "which of the bits are taken does not matter")]
    #[expect(clippy::indexing_slicing, reason = "a remainder is below what it was divided by")]
    fn shard(&self, subject: &[u8]) -> &Mutex<HashMap<Box<[u8]>, LocalBucket>> {
        &self.shards[self.hasher.hash_one(subject) as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::limit::Rate;

    const RULE: Rule = Rule::Rate(Rate { tokens: 1, period_us: 1_000_000, burst: 2 });

    fn at(us: u64) -> Now {
        Now { us, ..Now::default() }
    }

    fn take(buckets: &LocalBuckets, subject: &str, us: u64) -> Result<Reserved, UsedUp> {
        buckets.reserve(RULE, subject.as_bytes(), 1, at(us), true)
    }

    #[test]
    fn subjects_have_their_own_until_there_are_too_many() {
        let buckets = LocalBuckets::new(2);
        for subject in ["a", "b"] {
            assert!(!take(&buckets, subject, 0).unwrap().is_overflow);
            assert_eq!(take(&buckets, subject, 0).unwrap().left.tokens, 0);
            assert!(take(&buckets, subject, 0).is_err());
        }
        assert!(take(&buckets, "c", 0).unwrap().is_overflow);
        assert!(take(&buckets, "d", 0).unwrap().is_overflow);
        assert!(take(&buckets, "e", 0).is_err(), "they share one");
        // What is full again makes room: at the latest when its part has been swept.
        for _ in 0..SHARDS {
            buckets.sweep(at(2_000_000));
        }
        assert!(!take(&buckets, "e", 2_000_000).unwrap().is_overflow);
        assert_eq!(buckets.subjects.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_is_put_back_goes_where_it_came_from() {
        let buckets = LocalBuckets::new(1);
        for (subject, is_overflow) in [("a", false), ("b", true)] {
            let reserved = buckets.reserve(RULE, subject.as_bytes(), 2, at(0), false).unwrap();
            assert_eq!(reserved.is_overflow, is_overflow);
            assert!(take(&buckets, subject, 0).is_err());
            for _ in 0..SHARDS {
                buckets.sweep(at(60_000_000));
            }
            buckets.settle(subject.as_bytes(), is_overflow, 2, false, at(0));
            assert!(take(&buckets, subject, 0).is_ok());
        }
        assert_eq!(buckets.left(RULE, b"a", at(0)).tokens, 1);
        assert_eq!(buckets.left(RULE, b"a", at(120_000_000)).tokens, 2, "as it is by now");
        assert_eq!(buckets.left(RULE, b"unknown", at(0)).tokens, 2);
    }

    #[test]
    fn workers_together_admit_no_more_than_there_is() {
        let buckets = LocalBuckets::new(10);
        let rule = Rule::Rate(Rate { tokens: 1, period_us: 60_000_000, burst: 1_000 });
        let admitted = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        if buckets.reserve(rule, b"a", 1, at(0), true).is_ok() {
                            admitted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(admitted.load(Ordering::Relaxed), 1_000);
    }
}

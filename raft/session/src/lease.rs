//! A node's authority to admit requests: until when, and by which state.
//!
//! A lease counts from *before* its request was sent, and only once the state that it asks for is enforced by every
//! worker. A request reads the real clock after it has started, then [`Authority::is_valid`], then the View: a View
//! taken before the check can be older than a lease that was renewed in between.

use std::sync::atomic::{AtomicU64, Ordering};

/// What workers read: the local time at which authority ends. Shared.
#[derive(Debug, Default)]
pub struct Authority {
    until_us: AtomicU64,
}

impl Authority {
    /// Authority until this local time that nobody keeps: for tests of what reads it.
    #[must_use]
    pub const fn until(until_us: u64) -> Self {
        Self { until_us: AtomicU64::new(until_us) }
    }

    /// Whether the node may admit a request at this instant of its CLOCK_BOOTTIME, read after the request had started.
    #[must_use]
    pub fn is_valid(&self, now_us: u64) -> bool {
        now_us < self.until_us.load(Ordering::Acquire)
    }

    /// What is left of it, in microseconds.
    #[must_use]
    pub fn remaining_us(&self, now_us: u64) -> u64 {
        self.until_us.load(Ordering::Acquire).saturating_sub(now_us)
    }
}

/// The keeper of a node's authority: takes leases as they come, and puts each in force when its state is enforced.
#[derive(Debug, Default)]
pub struct Lease {
    enforced: u64,
    until_us: u64,
    /// Leases whose state is not enforced yet: read index and end.
    pending: Vec<(u64, u64)>,
    given_up: bool,
}

/// Leases that may wait for their state at a time; the leader answers a few a second.
const PENDING_MAX: usize = 64;

impl Lease {
    /// A lease has arrived. `sent_us` is the local time from before its request was sent.
    pub fn granted(&mut self, authority: &Authority, sent_us: u64, ttl_us: u64, read_index: u64) {
        if self.given_up {
            return;
        }
        let until_us = sent_us.saturating_add(ttl_us);
        if self.pending.len() >= PENDING_MAX {
            self.pending.remove(0);
        }
        self.pending.push((read_index, until_us));
        self.settle(authority);
    }

    /// All workers of the node enforce the state of this log index: their View is published, not only applied.
    pub fn enforced(&mut self, authority: &Authority, index: u64) {
        self.enforced = self.enforced.max(index);
        self.settle(authority);
    }

    /// Gives all authority up for good, as a node that stops does: answers that are still on the way are not used.
    pub fn give_up(&mut self, authority: &Authority) {
        self.given_up = true;
        self.until_us = 0;
        self.pending.clear();
        authority.until_us.store(0, Ordering::Release);
    }

    fn settle(&mut self, authority: &Authority) {
        let enforced = self.enforced;
        let in_force = self.pending.extract_if(.., |(read_index, _)| *read_index <= enforced).map(|(_, until)| until);
        self.until_us = in_force.max().unwrap_or(0).max(self.until_us);
        authority.until_us.store(self.until_us, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_once_its_state_is_enforced() {
        let (authority, mut lease) = (Authority::default(), Lease::default());
        lease.granted(&authority, 100, 1_000, 7);
        assert!(!authority.is_valid(200));
        lease.enforced(&authority, 6);
        assert!(!authority.is_valid(200));
        lease.enforced(&authority, 7);
        assert!(authority.is_valid(200) && authority.is_valid(1_099) && !authority.is_valid(1_100));
    }

    #[test]
    fn what_was_given_up_does_not_come_back() {
        let (authority, mut lease) = (Authority::default(), Lease::default());
        lease.granted(&authority, 0, 1_000, 0);
        lease.granted(&authority, 0, 2_000, 5);
        lease.give_up(&authority);
        lease.granted(&authority, 0, 3_000, 0);
        lease.enforced(&authority, 5);
        assert!(!authority.is_valid(1));
    }

    #[test]
    fn a_renewal_that_waits_for_its_state_leaves_the_one_before_in_force() {
        let (authority, mut lease) = (Authority::default(), Lease::default());
        lease.enforced(&authority, 5);
        lease.granted(&authority, 0, 1_000, 5);
        lease.granted(&authority, 500, 1_000, 9);
        assert_eq!(authority.remaining_us(600), 400);
        lease.enforced(&authority, 9);
        assert_eq!(authority.remaining_us(600), 900);
        lease.granted(&authority, 100, 1_000, 9);
        assert_eq!(authority.remaining_us(600), 900, "a late answer shortens nothing");
    }
}

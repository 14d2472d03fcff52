//! The slots that one worker knows of one limit of the cluster, by subject: what a warm request needs, found without
//! asking anybody. What was not used for some seconds is let go, so that the ledger can forget it too.
//!
//! Entries live in two generations. What is used is in the young one, or moves there; every few seconds the old one is
//! dropped and the young one takes its place. That needs no time in an entry, and no walk over all of them.

use super::subjects::Seat;
use crate::gateway::worker::lock;
use raft::Slot;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

/// What one limit takes of a request: the form in which [`raft::admit`] wants it.
pub(crate) type Part = (Arc<Slot>, u64);

/// The slots of one limit, for one worker.
#[derive(Default)]
pub(crate) struct Slots {
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: Entries,
    old: Entries,
}

/// Entries by subject.
pub(crate) type Entries = HashMap<Arc<[u8]>, Entry>;

/// A slot that was used lately.
pub(crate) struct Entry {
    part: Part,
    /// Its place among the subjects of this node, where those are counted.
    _seat: Option<Seat>,
}

impl Slots {
    /// Does something with the slot of a subject, if it is known. The part is this worker's own, and nobody else's
    /// meanwhile: its cost is whatever it was last set to.
    pub(crate) fn with<R>(&self, subject: &[u8], act: impl FnOnce(&mut Part) -> R) -> Option<R> {
        let mut generations = lock(&self.generations);
        if let Some(entry) = generations.young.get_mut(subject) {
            return Some(act(&mut entry.part));
        }
        let (subject, mut entry) = generations.old.remove_entry(subject)?;
        let done = act(&mut entry.part);
        generations.young.insert(subject, entry);
        Some(done)
    }

    /// The slot of a subject, if it is known.
    pub(crate) fn find(&self, subject: &[u8]) -> Option<Arc<Slot>> {
        self.with(subject, |(slot, _)| Arc::clone(slot))
    }

    /// Remembers a slot.
    pub(crate) fn keep(&self, subject: Arc<[u8]>, slot: Arc<Slot>, seat: Option<Seat>) {
        lock(&self.generations).young.insert(subject, Entry { part: (slot, 1), _seat: seat });
    }

    /// Lets go of what was not used since the last time, and hands it out to be dropped.
    pub(crate) fn age(&self) -> Entries {
        let mut generations = lock(&self.generations);
        let young = std::mem::take(&mut generations.young);
        std::mem::replace(&mut generations.old, young)
    }

    /// Lets go of all of them.
    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *lock(&self.generations));
        drop(all);
    }
}

#[cfg(test)]
mod tests {
    use super::super::subjects::Subjects;
    use super::*;
    use machine::{Name, allowance::BucketId};
    use raft::{AllowanceCaps, Allowances};

    struct NoClock;

    impl raft::Clock for NoClock {
        fn boot_us(&self) -> u64 {
            0
        }
        fn utc_ms(&self) -> u64 {
            0
        }
    }

    fn slot(subject: &[u8]) -> Arc<Slot> {
        let pace = raft::Pace { cycle_us: 1, renew_us: 1, election_us: 1, idle_us: 1, patience_us: 1, return_us: 1 };
        let allowances = Allowances::new(1, 1, pace, AllowanceCaps::default(), Arc::new(NoClock));
        let id = BucketId { limit: Name::new("l").unwrap(), subject: subject.into() };
        allowances.slot(&id, 1).unwrap()
    }

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let slots = Slots::default();
        let subjects = Arc::new(Subjects::new(2));
        for subject in [b"a", b"b"] {
            let name: Arc<[u8]> = Arc::from(subject.as_slice());
            let seat = subjects.seat(&name);
            assert!(seat.is_some());
            slots.keep(name, slot(subject), seat);
        }
        assert!(subjects.seat(&Arc::from(b"c".as_slice())).is_none());
        for _ in 0..5 {
            slots.age();
            assert!(slots.find(b"a").is_some());
        }
        assert!(slots.find(b"b").is_none());
        assert!(subjects.seat(&Arc::from(b"c".as_slice())).is_some(), "its seat is free again");
        assert_eq!(slots.with(b"a", |part| part.1), Some(1));
        slots.age();
        slots.age();
        assert!(slots.find(b"a").is_none());
        let name: Arc<[u8]> = Arc::from(b"d".as_slice());
        slots.keep(Arc::clone(&name), slot(b"d"), subjects.seat(&name));
        slots.clear();
        assert!(slots.find(b"d").is_none() && Arc::strong_count(&subjects) == 1, "no seat is left");
    }
}

//! How many subjects of a limit are in use on this node, where clients choose who they are (`per: ip`, `per: header:…`):
//! what is counted by the cluster must not grow with what somebody sends. Who finds no seat shares a bucket with all
//! others who find none.

use crate::gateway::worker::lock;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

/// The subjects of one limit that are in use on this node.
pub(crate) struct Subjects {
    most: usize,
    /// With how many workers know each.
    seats: Mutex<HashMap<Arc<[u8]>, usize>>,
}

/// A place among the subjects. It is free again when the last worker drops it.
pub(crate) struct Seat {
    subjects: Arc<Subjects>,
    subject: Arc<[u8]>,
}

impl Subjects {
    pub(crate) fn new(most: u32) -> Self {
        Self { most: usize::try_from(most).unwrap_or(usize::MAX), seats: Mutex::default() }
    }

    /// A seat for a subject; `None` if all are taken by others.
    pub(crate) fn seat(self: &Arc<Self>, subject: &Arc<[u8]>) -> Option<Seat> {
        let mut seats = lock(&self.seats);
        if let Some(workers) = seats.get_mut(subject) {
            *workers += 1;
        } else if seats.len() < self.most {
            seats.insert(Arc::clone(subject), 1);
        } else {
            return None;
        }
        Some(Seat { subjects: Arc::clone(self), subject: Arc::clone(subject) })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = lock(&self.subjects.seats);
        if let Some(workers) = seats.get_mut(&self.subject) {
            *workers -= 1;
            if *workers == 0 {
                seats.remove(&self.subject);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_takes_one_seat_however_many_workers_know_it() {
        let subjects = Arc::new(Subjects::new(2));
        let [a, b, c] = [b"a", b"b", b"c"].map(|text| Arc::<[u8]>::from(text.as_slice()));
        let (first, second) = (subjects.seat(&a).unwrap(), subjects.seat(&a).unwrap());
        let other = subjects.seat(&b).unwrap();
        assert!(subjects.seat(&c).is_none());
        drop(first);
        assert!(subjects.seat(&c).is_none());
        drop(second);
        let _third = subjects.seat(&c).unwrap();
        drop(other);
        assert!(subjects.seat(&a).is_some());
    }
}

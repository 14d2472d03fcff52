//! Log records: whatever a record of the log or a leader's append holds, it is read as one thing or not at all, and what
//! is read can be applied: on every node alike, to a state that is sound and is what its records say.

use crate::{
    base,
    pieces::{choice, pieces},
};
use machine::{Effects, Entry, State, invariant};
use std::sync::Arc;

/// Entries of one input: the time of a run is bounded.
const ENTRIES_MAX: usize = 32;

/// Entries, one after the other, to an empty cluster or one that has a past.
pub fn run(bytes: &[u8]) {
    let (begins, rest) = choice(bytes);
    let before = if begins & 1 == 0 { base::state().clone() } else { State::default() };
    let entries: Vec<Arc<Entry>> = pieces(rest).take(ENTRIES_MAX).filter_map(raft::fuzzing::log_entry).collect();
    let (mut state, mut other) = (before.clone(), before.clone());
    for (index, entry) in (100..).zip(&entries) {
        let effects = state.apply_entry(index, entry);
        assert_eq!(effects, other.apply_entry(index, entry), "two nodes answer differently");
        assert_eq!((effects.applied.len(), effects.answers.len()), (entry.proposals.len(), entry.acquires.len()));
        assert_eq!(invariant::check(&state), Ok(()), "after {entry:?}");
        read_back(&effects);
    }
    assert_eq!(state, other, "two nodes hold different states");
    assert_eq!(State::from_records(state.records()).as_ref(), Ok(&state), "the records are not the state");
    follow(&before, &state);
}

/// The answers go over the wire to whoever asked.
fn read_back(effects: &Effects) {
    for applied in &effects.applied {
        let written = raft::codec::encode(&applied.outcome).expect("an outcome can be written");
        assert_eq!(raft::codec::decode(&written).as_ref(), Ok(&applied.outcome));
    }
    for answer in &effects.answers {
        let written = raft::codec::encode(answer).expect("an answer can be written");
        assert_eq!(raft::codec::decode(&written).as_ref(), Ok(answer));
    }
}

/// A checkpoint holds what has changed: it must lead from the state before to the one after.
fn follow(before: &State, after: &State) {
    let mut records: std::collections::BTreeMap<_, _> = before.records().collect();
    for (key, record) in after.changes_since(before) {
        match record {
            Some(record) => drop(records.insert(key, record)),
            None => assert!(records.remove(&key).is_some(), "{key:?} is gone and was not there"),
        }
    }
    assert!(after.records().eq(records), "the changes do not lead to the state");
}

//! Snapshots, by their records: a file whose checksums are right and whose records are anything. It is the snapshot of a
//! sound state that goes on working, or it is refused.

use crate::{base, pieces::pieces};
use bytes::Bytes;
use machine::{State, invariant};
use std::{path::Path, sync::Arc};
use storage::{fs::Simulated, snapshot::Snapshots};

/// The head, then keys and values in turn; heads and values get their checksums here.
pub fn run(bytes: &[u8]) {
    let mut pieces = pieces(bytes);
    let head = raft::fuzzing::record(pieces.next().unwrap_or_default());
    let snapshots = Snapshots::open_on(Arc::new(Simulated::new()), Path::new("/snapshots")).expect("a folder");
    let mut writer = snapshots.write(7, Bytes::from(head)).expect("a snapshot is begun");
    while let (Some(key), Some(value)) = (pieces.next(), pieces.next()) {
        writer.put(key, &raft::fuzzing::record(value)).expect("a record is written");
    }
    let stored = writer.finish().expect("a snapshot is whole");
    let Some(mut state) = raft::fuzzing::snapshot(snapshots.read(&stored).expect("it was just written")) else {
        return;
    };
    assert_eq!(invariant::check(&state), Ok(()), "a state was taken in that is not sound");
    assert_eq!(State::from_records(state.records()).as_ref(), Ok(&state), "the records are not the state");
    for (index, entry) in (8..).zip(base::entries()) {
        state.apply_entry(index, entry);
        assert_eq!(invariant::check(&state), Ok(()), "after {entry:?}");
    }
}

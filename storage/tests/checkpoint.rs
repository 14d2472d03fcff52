//! The checkpoint against a model, and under damage: it gives back exactly what was committed, or nothing and says why.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use storage::checkpoint::Loading;
use storage::{Checkpoint, Error, KeyValue};

type State = BTreeMap<Vec<u8>, Vec<u8>>;

fn marker(number: u64) -> Bytes {
    Bytes::from(number.to_le_bytes().to_vec())
}

fn loaded(checkpoint: &mut Checkpoint) -> Option<(Bytes, State)> {
    let read = |loading: &mut Loading| {
        let records: Vec<KeyValue> = loading.records.by_ref().collect();
        (loading.marker.clone(), loading.count, records)
    };
    let (marker, count, records) = checkpoint.load(read).unwrap()?;
    assert!(records.is_sorted_by(|one, next| one.0 < next.0), "ascending");
    assert_eq!(records.len() as u64, count);
    Some((marker, records.into_iter().collect()))
}

fn filled(dir: &Path, records: u32) -> State {
    let mut checkpoint = Checkpoint::open(dir).unwrap();
    let state: State = (0..records).map(|n| (n.to_be_bytes().to_vec(), vec![n as u8; 100])).collect();
    checkpoint.replace(state.clone(), marker(1)).unwrap();
    state
}

#[test]
fn nothing_is_loaded_before_something_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut checkpoint = Checkpoint::open(&dir.path().join("checkpoint")).unwrap();
    assert!(checkpoint.load(|_| ()).unwrap().is_none());
    assert_eq!((checkpoint.discarded(), checkpoint.size()), (None, None));
    let error = checkpoint.commit(vec![(vec![1], Some(vec![1]))], marker(1)).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "changes of an unknown state: {error}");
    checkpoint.replace([], marker(1)).unwrap();
    checkpoint.commit(vec![(vec![1], Some(vec![1]))], marker(2)).unwrap();
    assert_eq!(loaded(&mut checkpoint), Some((marker(2), State::from([(vec![1], vec![1])]))));
    assert_eq!(checkpoint.size().map(|size| (size.records, size.live_bytes)), Some((1, 2)));
}

#[test]
fn large_values_are_split_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut checkpoint = Checkpoint::open(dir.path()).unwrap();
    let mut state = State::new();
    for length in [0, 1, 4095, 4096, 4097, 32768, 65536, 1_000_000] {
        state.insert(format!("{length:07}").into_bytes(), (0..length).map(|at| (at % 251) as u8).collect());
    }
    // A key that begins like another one, and one that looks like a part of a value.
    state.insert(b"1000000\0\0\0\x01".to_vec(), vec![1]);
    checkpoint.replace(state.clone(), marker(1)).unwrap();
    assert_eq!(loaded(&mut checkpoint), Some((marker(1), state.clone())));
    let shorter: Vec<_> = state.keys().cloned().map(|key| (key, Some(vec![9; 20_000]))).collect();
    checkpoint.commit(shorter.clone(), marker(2)).unwrap();
    drop(checkpoint);
    let expected = shorter.into_iter().map(|(key, value)| (key, value.unwrap())).collect();
    let mut checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(loaded(&mut checkpoint), Some((marker(2), expected)));
    assert_eq!(std::fs::read_dir(dir.path().join("blobs")).unwrap().count(), 0, "no value has a file of its own");
}

#[test]
fn the_last_change_of_a_key_counts() {
    let dir = tempfile::tempdir().unwrap();
    let mut checkpoint = Checkpoint::open(dir.path()).unwrap();
    checkpoint.replace([(vec![1], vec![1]), (vec![2], vec![2])], marker(1)).unwrap();
    let changes =
        vec![(vec![1], None), (vec![1], Some(vec![5])), (vec![2], Some(vec![5])), (vec![2], None), (vec![3], None)];
    checkpoint.commit(changes, marker(2)).unwrap();
    assert_eq!(loaded(&mut checkpoint), Some((marker(2), State::from([(vec![1], vec![5])]))));
}

#[test]
fn a_deleted_folder_is_no_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    filled(&path, 100);
    std::fs::remove_dir_all(&path).unwrap();
    let mut checkpoint = Checkpoint::open(&path).unwrap();
    assert!(checkpoint.load(|_| ()).unwrap().is_none());
    checkpoint.replace([(vec![1], vec![1])], marker(3)).unwrap();
    assert_eq!(loaded(&mut checkpoint).unwrap().0, marker(3));
}

#[test]
fn damage_is_noticed_and_the_files_are_deleted() {
    let original = tempfile::tempdir().unwrap();
    let state = filled(original.path(), 3000);
    let names: Vec<_> = std::fs::read_dir(original.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| (entry.file_name(), entry.metadata().unwrap().len()))
        .collect();
    assert!(names.iter().any(|(name, _)| name == "db"), "{names:?}");
    let (mut whole, mut discarded) = (0, 0);
    for (name, length) in names {
        for damage in 0..14 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("checkpoint");
            std::fs::create_dir(&path).unwrap();
            for entry in std::fs::read_dir(original.path()).unwrap().map(|entry| entry.unwrap()) {
                if entry.file_type().unwrap().is_file() {
                    std::fs::copy(entry.path(), path.join(entry.file_name())).unwrap();
                }
            }
            let file = path.join(&name);
            let mut bytes = std::fs::read(&file).unwrap();
            match damage {
                0 => bytes.clear(),
                1 => bytes.truncate(bytes.len() / 2),
                2 => bytes.iter_mut().for_each(|byte| *byte = 0),
                place => {
                    let at = (length as usize * (place - 3) / 11).min(bytes.len().saturating_sub(1));
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 0x55;
                    }
                }
            }
            std::fs::write(&file, bytes).unwrap();
            let mut checkpoint = Checkpoint::open(&path).unwrap();
            match loaded(&mut checkpoint) {
                // Not every byte of sled's files is in use.
                Some(found) => {
                    assert_eq!(found, (marker(1), state.clone()), "{name:?} {damage}");
                    whole += 1;
                }
                None => {
                    assert!(checkpoint.discarded().is_some_and(|why| !why.is_empty()));
                    discarded += 1;
                    checkpoint.replace([(vec![1], vec![1])], marker(2)).unwrap();
                    assert_eq!(loaded(&mut checkpoint).unwrap().0, marker(2));
                }
            }
        }
    }
    assert!(discarded > 3, "{whole} whole, {discarded} discarded");
}

#[test]
fn an_unfinished_index_of_sled_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let state = filled(dir.path(), 10);
    let leftover = dir.path().join("snap.0000000000000400.generating");
    std::fs::write(&leftover, b"half").unwrap();
    assert_eq!(loaded(&mut Checkpoint::open(dir.path()).unwrap()).unwrap().1, state);
    assert!(!leftover.exists());
}

#[test]
fn what_was_left_by_an_interrupted_replacement_is_no_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 10);
    let mut checkpoint = Checkpoint::open(dir.path()).unwrap();
    let interrupted = (0..40_000u32).map(|n| {
        assert!(n < 30_000, "interrupted");
        (n.to_be_bytes().to_vec(), vec![0; 100])
    });
    let replacing = std::panic::AssertUnwindSafe(|| checkpoint.replace(interrupted, marker(2)));
    std::panic::catch_unwind(replacing).unwrap_err();
    drop(checkpoint);
    let mut checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert!(checkpoint.load(|_| ()).unwrap().is_none());
    assert!(checkpoint.discarded().is_some());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn holds_what_was_committed(
        commits in proptest::collection::vec(
            (proptest::collection::vec((0u8..40, proptest::option::weighted(0.7, 0usize..40_000)), 0..12), any::<bool>()),
            1..12,
        )
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut checkpoint = Checkpoint::open(dir.path()).unwrap();
        let mut state = State::new();
        checkpoint.replace([], marker(0)).unwrap();
        for (number, (changes, reopen)) in (1u64..).zip(commits) {
            let changes: Vec<_> = changes
                .into_iter()
                .map(|(key, length)| (vec![key; usize::from(key)], length.map(|length| vec![number as u8; length])))
                .collect();
            for (key, value) in changes.clone() {
                match value {
                    Some(value) => state.insert(key, value),
                    None => state.remove(&key),
                };
            }
            checkpoint.commit(changes, marker(number)).unwrap();
            if reopen {
                drop(checkpoint);
                checkpoint = Checkpoint::open(dir.path()).unwrap();
                prop_assert_eq!(loaded(&mut checkpoint), Some((marker(number), state.clone())));
            }
        }
        prop_assert_eq!(loaded(&mut checkpoint).unwrap().1, state);
    }
}

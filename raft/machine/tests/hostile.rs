//! Hostile bytes: whatever is decoded from a peer, a file or a log, nothing panics, and a state that was accepted is sound.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "property/first.rs"]
mod first;
#[path = "property/generate.rs"]
mod generate;

use bincode::config::standard;
use generate::histories;
use machine::{Entry, Record, RecordKey, State, invariant};
use proptest::{collection::vec, prelude::*, sample::Index};

/// As the codec of the log has it: a length in hostile bytes must not allocate what it likes.
const LIMIT: usize = 64 * 1024;

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    bincode::serde::decode_from_slice(bytes, standard().with_limit::<LIMIT>()).ok().map(|(value, _)| value)
}

fn encode<T: serde::Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, standard()).unwrap()
}

fn run(entries: &[Entry]) -> State {
    let mut state = State::default();
    for (index, entry) in entries.iter().enumerate() {
        state.apply_entry(index as u64, entry);
    }
    state
}

/// Overwrites some bytes.
fn spoil(bytes: &mut [u8], with: &[(Index, u8)]) {
    for (place, byte) in with {
        if !bytes.is_empty() {
            let place = place.index(bytes.len());
            bytes[place] = *byte;
        }
    }
}

/// Few cases, so that the tests are quick; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { ProptestConfig::default().cases } else { 128 };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_bytes_are_decoded_or_refused(bytes in vec(any::<u8>(), 0..300)) {
        let _ = decode::<Entry>(&bytes);
        if let (Some(key), Some(record)) = (decode::<RecordKey>(&bytes), decode::<Record>(&bytes)) {
            let _ = State::from_records([(key, record)]);
        }
    }

    /// Every entry that can be decoded can be applied, and leaves a sound state.
    #[test]
    fn spoilt_entries_are_applied_soundly(
        entries in histories(),
        spoilt in any::<Index>(),
        with in vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        prop_assume!(!entries.is_empty());
        let mut state = State::default();
        let spoilt = spoilt.index(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let mut bytes = encode(entry);
            if index == spoilt {
                spoil(&mut bytes, &with);
            }
            if let Some(entry) = decode::<Entry>(&bytes) {
                state.apply_entry(index as u64, &entry);
                prop_assert_eq!(invariant::check(&state), Ok(()));
            }
        }
    }

    /// Records that were spoilt, lost, doubled or swapped make no state, or a sound one that goes on working.
    #[test]
    fn spoilt_records_make_a_sound_state_or_none(
        entries in histories(),
        with in vec((any::<Index>(), any::<u8>()), 0..3),
        lost in prop::option::of(any::<Index>()),
        doubled in prop::option::weighted(0.2, any::<Index>()),
        swapped in prop::option::weighted(0.2, (any::<Index>(), any::<Index>())),
    ) {
        let middle = entries.len() / 2;
        let mut records: Vec<Vec<u8>> = run(&entries[..middle]).records().map(|pair| encode(&pair)).collect();
        if let Some(lost) = lost {
            records.remove(lost.index(records.len()));
        }
        if let (Some(doubled), false) = (doubled, records.is_empty()) {
            records.push(records[doubled.index(records.len())].clone());
        }
        if !records.is_empty() {
            for (place, byte) in &with {
                let record = place.index(records.len());
                spoil(&mut records[record], &[(*place, *byte)]);
            }
        }
        let mut pairs: Vec<(RecordKey, Record)> = records.iter().filter_map(|record| decode(record)).collect();
        if let (Some((one, other)), false) = (swapped, pairs.is_empty()) {
            let (one, other) = (one.index(pairs.len()), other.index(pairs.len()));
            let record = pairs[one].1.clone();
            pairs[other].1 = record;
        }
        if let Ok(mut state) = State::from_records(pairs) {
            prop_assert_eq!(invariant::check(&state), Ok(()));
            prop_assert_eq!(State::from_records(state.records()), Ok(state.clone()));
            for (index, entry) in entries.iter().enumerate().skip(middle) {
                state.apply_entry(index as u64, entry);
                prop_assert_eq!(invariant::check(&state), Ok(()));
            }
        }
    }
}

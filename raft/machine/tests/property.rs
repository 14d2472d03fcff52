//! Properties of `apply` over random histories: it is a function of the log alone, its state is what its records say,
//! and each request is done once.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "property/first.rs"]
mod first;
#[path = "property/generate.rs"]
mod generate;

use first::START;
use generate::histories;
use machine::{
    Actor, Applied, Command, Entry, Name, Outcome, Proposal, Record, RecordKey, RequestId, State,
    cap::REQUEST_AGE_MAX_MS,
    command::Precondition,
    consumer::ConsumerSpec,
    invariant,
    key::{ImportedKey, KeyId, SecretHash},
    resource::Change,
    time::{At, Tick, Wall},
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn run(entries: &[Entry]) -> State {
    let mut state = State::default();
    for (index, entry) in entries.iter().enumerate() {
        state.apply_entry(index as u64, entry);
    }
    state
}

/// What nodes compare: the bytes of all records in order.
fn digest(state: &State) -> Vec<u8> {
    let encode = |pair: (RecordKey, Record)| bincode::serde::encode_to_vec(pair, bincode::config::standard()).unwrap();
    state.records().flat_map(encode).collect()
}

/// The records of `earlier`, changed by what changed since.
fn follow(earlier: &State, later: &State) -> Vec<(RecordKey, Record)> {
    let mut records: BTreeMap<_, _> = earlier.records().collect();
    for (key, record) in later.changes_since(earlier) {
        match record {
            Some(record) => assert_ne!(records.insert(key, record.clone()), Some(record), "not a change"),
            None => assert!(records.remove(&key).is_some(), "gone already"),
        }
    }
    records.into_iter().collect()
}

/// Few cases, so that the tests are quick; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { ProptestConfig::default().cases } else { 128 };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// Invariants hold after every entry, every change has one revision and one audit entry, and what was refused has
    /// changed nothing.
    #[test]
    fn every_entry_leaves_a_sound_state(entries in histories()) {
        let mut state = State::default();
        for (index, entry) in entries.iter().enumerate() {
            for proposal in &entry.proposals {
                let before = state.clone();
                let Applied { outcome, .. } = state.apply(index as u64, entry.at, proposal);
                prop_assert_eq!(invariant::check(&state), Ok(()));
                let made = state.registry.revision - before.registry.revision;
                prop_assert_eq!(state.next_audit - before.next_audit, made);
                prop_assert!(made <= 1);
                if made == 0 {
                    prop_assert_eq!(&state.registry, &before.registry);
                } else {
                    prop_assert!(!matches!(outcome, Outcome::Refused(_)));
                }
            }
            let effects = state.apply_entry(index as u64, &Entry { proposals: Vec::new(), ..entry.clone() });
            prop_assert_eq!(invariant::check(&state), Ok(()));
            prop_assert_eq!(effects.answers.len(), entry.acquires.len());
        }
    }

    #[test]
    fn the_same_log_makes_the_same_state(entries in histories()) {
        let (one, other) = (run(&entries), run(&entries));
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(digest(&one), digest(&other));
    }

    /// A node that starts from a snapshot ends where the others do.
    #[test]
    fn a_snapshot_in_the_middle_makes_no_difference(entries in histories(), at in any::<prop::sample::Index>()) {
        let middle = at.index(entries.len() + 1);
        let snapshot: Vec<_> = run(&entries[..middle]).records().collect();
        let mut state = State::from_records(snapshot.into_iter().rev()).unwrap();
        let mut straight = run(&entries[..middle]);
        prop_assert_eq!(&state, &straight);
        for (index, entry) in entries.iter().enumerate().skip(middle) {
            let index = index as u64;
            prop_assert_eq!(state.apply_entry(index, entry), straight.apply_entry(index, entry));
        }
        prop_assert_eq!(digest(&state), digest(&straight));
    }

    #[test]
    fn differences_lead_from_any_state_to_a_later_one(
        entries in histories(),
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
    ) {
        let (from, to) = (from.index(entries.len() + 1), to.index(entries.len() + 1));
        let earlier = run(&entries[..from.min(to)]);
        let mut later = earlier.clone();
        for (index, entry) in entries.iter().enumerate().take(from.max(to)).skip(from.min(to)) {
            later.apply_entry(index as u64, entry);
        }
        prop_assert_eq!(follow(&earlier, &later), later.records().collect::<Vec<_>>());
        prop_assert_eq!(follow(&later, &earlier), earlier.records().collect::<Vec<_>>());
        prop_assert!(later.changes_since(&later).is_empty());
    }

    /// A copy of any request, however late, gives the first answer or is refused, and changes nothing.
    #[test]
    fn a_request_is_done_once(entries in histories(), after_ms in 0..2 * REQUEST_AGE_MAX_MS) {
        let mut state = State::default();
        let mut first = BTreeMap::new();
        for (index, entry) in entries.iter().enumerate() {
            let applied = state.apply_entry(index as u64, entry).applied;
            for (proposal, applied) in entry.proposals.iter().zip(applied) {
                let changed = !matches!(applied.outcome, Outcome::Refused(_)) && proposal.command != Command::Nothing;
                if changed && applied.index == index as u64 {
                    // A copy in the same entry gets the same answer.
                    let (_, answer) =
                        first.entry(proposal.request).or_insert_with(|| (proposal.clone(), applied.clone()));
                    prop_assert_eq!(&*answer, &applied);
                }
            }
        }
        let at = At { wall: state.at.wall.plus_ms(after_ms), ..state.at };
        for (proposal, applied) in first.values() {
            let before = state.registry.clone();
            let again = state.apply(999, at, proposal);
            prop_assert!(again == *applied || matches!(again.outcome, Outcome::Refused(_)), "{:?}", again);
            prop_assert_eq!(&state.registry, &before);
        }
    }
}

/// Maps of many nodes, where shared parts are skipped.
#[test]
fn differences_of_a_large_state() {
    let root = Actor::Operator(Name::new("root").unwrap());
    let acme = Name::new("acme").unwrap();
    let mut at = At { tick: Tick(0), wall: Wall(START) };
    let mut random = 0;
    let mut propose = |state: &mut State, actor: &Actor, command: Command| {
        random += 1;
        at.wall = at.wall.plus_ms(1);
        let request = RequestId { issued: at.wall, random };
        let proposal = Proposal { request, actor: actor.clone(), command };
        let applied = state.apply(1, at, &proposal);
        assert!(!matches!(applied.outcome, Outcome::Refused(_)), "{applied:?}");
    };
    let mut state = State::default();
    propose(&mut state, &Actor::Bootstrap, Command::Initialize(Box::new(first::first())));
    let spec = ConsumerSpec { roles: BTreeSet::new(), attributes: BTreeMap::new() };
    let changes = vec![Change::PutConsumer { name: acme.clone(), spec }];
    propose(&mut state, &root, Command::ApplyResources { validated_against: 0, changes });
    let id = |number: u32| {
        let mut id = [0; 10];
        id[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
        KeyId(id)
    };
    let imported = |number: u32| ImportedKey {
        id: id(number),
        consumer: acme.clone(),
        label: None,
        scopes: BTreeSet::new(),
        hash: SecretHash([number.to_be_bytes(); 8].concat().try_into().unwrap()),
        not_after: None,
    };
    propose(&mut state, &root, Command::ImportKeys((0..10_000).map(imported).collect()));
    let mut earlier = state.clone();
    for round in 0..200_u32 {
        propose(&mut state, &root, Command::RevokeKey { id: id(round * 37), precondition: Precondition::Any });
        propose(&mut state, &root, Command::ImportKeys(vec![imported(10_000 + round)]));
        if round % 20 == 0 {
            assert_eq!(follow(&earlier, &state), state.records().collect::<Vec<_>>());
            earlier = state.clone();
        }
    }
    assert_eq!(State::from_records(state.records()), Ok(state.clone()));
    // A change costs a few records, not the ten thousand that did not change.
    let before = state.clone();
    propose(&mut state, &root, Command::RevokeKey { id: id(1), precondition: Precondition::Any });
    assert!(state.changes_since(&before).len() < 10);
}

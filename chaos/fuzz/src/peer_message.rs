//! Messages between nodes: raft's own, and what nodes ask of their leader. Read as one thing or refused; what is read
//! means the same on its way back; and what the leader and the stewards do with it is sound.

use crate::{base, pieces::choice, pieces::pieces};
use machine::{
    Entry, Outcome, Proposal,
    allowance::{Acquire, Answer},
    bucket::Terms,
    invariant,
    member::MemberSpec,
};
use prost::Message;
use proto::peer;
use raft::fuzzing::{RAFT_MESSAGES, value};
use session::ledger::{Ledger, Pace};
use std::fmt::Debug;

/// Acquires and answers of one input: the time of a run is bounded.
const MESSAGES_MAX: usize = 32;

/// One message, or several that follow each other; the first byte says of which kind.
pub fn run(bytes: &[u8]) {
    let (kind, rest) = choice(bytes);
    let Some(kind) = kind.checked_sub(RAFT_MESSAGES) else { return raft::fuzzing::raft_message(kind, rest) };
    match kind % 12 {
        0 => drop(value::<Proposal>(rest)),
        1 => acquires(rest),
        2 => answers(rest),
        3 => drop(value::<Outcome>(rest)),
        4 => drop(value::<MemberSpec>(rest)),
        5 => {
            protobuf::<peer::Message>(rest);
            protobuf::<peer::SnapshotPiece>(rest);
        }
        6 => {
            protobuf::<peer::ProposeRequest>(rest);
            protobuf::<peer::ReadIndexReply>(rest);
        }
        7 => drop(protobuf::<peer::ProposeReply>(rest).map(|reply| raft::fuzzing::proposed(&reply))),
        8 => raft::fuzzing::reports(pieces(rest).take(MESSAGES_MAX).filter_map(protobuf).collect()),
        9 => drop(protobuf::<peer::Advice>(rest)),
        10 => {
            let observed = protobuf::<peer::ObserveReply>(rest);
            observed.into_iter().flat_map(|reply| reply.members).for_each(raft::fuzzing::observed);
        }
        _ => {
            protobuf::<peer::JoinReply>(rest);
            protobuf::<peer::TransferToReply>(rest);
        }
    }
}

fn protobuf<T: Message + Default + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let message = T::decode(bytes).ok()?;
    let again = T::decode(message.encode_to_vec().as_slice());
    assert_eq!(again.as_ref(), Ok(&message), "a message changes on its way");
    Some(message)
}

/// What nodes ask of the limits, all in one entry.
fn acquires(bytes: &[u8]) {
    let acquires: Vec<Acquire> = pieces(bytes).take(MESSAGES_MAX).filter_map(value).collect();
    let mut state = base::state().clone();
    let terms = Terms { ttl_us: 2_000_000, margin_us: 1_000 };
    let count = acquires.len();
    for ms in [1, 5_000] {
        let mut at = state.at;
        (at.tick.0, at.wall) = (at.tick.0 + ms * 1000, at.wall.plus_ms(ms));
        let entry = Entry { at, terms, proposals: Vec::new(), acquires: acquires.clone() };
        assert_eq!(state.apply_entry(ms, &entry).answers.len(), count);
        assert_eq!(invariant::check(&state), Ok(()), "after {entry:?}");
    }
}

/// What a leader answers, as a node's ledger takes it.
fn answers(bytes: &[u8]) {
    let pace = Pace {
        cycle_us: 10_000,
        renew_us: 100_000,
        election_us: 1_000_000,
        idle_us: 5_000_000,
        patience_us: 3_000_000,
        return_us: 500_000,
    };
    let mut ledger = Ledger::new(1, 9, pace);
    let mut now_us = 1_000_000;
    let [each, daily] = ["each", "daily"].map(|limit| ledger.slot(&base::bucket(limit, &[1; 10]), 10, now_us));
    for piece in pieces(bytes).take(MESSAGES_MAX) {
        let parts = [(each.clone(), 1), (daily.clone(), 2)];
        ledger.wait(&parts);
        now_us += 50_000;
        let asked = ledger.collect(now_us).map_or(1, |acquire| acquire.request);
        if let Some(answer) = value::<Answer>(piece) {
            ledger.accept(asked, &answer, now_us);
            // A second time it is ignored, or gives back what it grants.
            ledger.accept(asked, &answer, now_us);
        }
        for slot in [&each, &daily] {
            session::ledger::admit(&[(slot.clone(), 1)], now_us);
        }
        ledger.done_waiting(&parts);
        assert!(ledger.next_us().is_some(), "slots are in use, and nobody looks at them again");
    }
    ledger.close_all(now_us);
}

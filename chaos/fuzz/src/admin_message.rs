//! Requests of operators and newcomers: refused, or turned into a command that the core takes on a sound state.

use crate::{base, pieces::choice};
use machine::{Actor, Name, Proposal, invariant};
use quorate::fuzzing::admin_command;

/// One request; the first byte says which.
pub fn run(bytes: &[u8]) {
    let (verb, message) = choice(bytes);
    let Some((request, command)) = admin_command(verb, message, &base::view()) else { return };
    let mut state = base::state().clone();
    let mut at = state.at;
    at.wall = at.wall.plus_ms(1);
    for actor in [Actor::Operator(Name::new("root").expect("a name")), Actor::Node(1)] {
        // As it came, and as it would be if its time were right.
        for request in [request, machine::RequestId { issued: at.wall, ..request }] {
            let proposal = Proposal { request, actor: actor.clone(), command: command.clone() };
            let written = raft::codec::encode(&proposal).expect("a request of bounded length");
            assert_eq!(raft::codec::decode(&written).as_ref(), Ok(&proposal));
            let outcome = state.apply(1_000, at, &proposal).outcome;
            assert_eq!(invariant::check(&state), Ok(()), "after {proposal:?}: {outcome:?}");
        }
    }
}

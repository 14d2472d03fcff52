//! One match, one line a command.

use crate::{
    command::Proposal,
    outcome::{Outcome, Refusal},
    state::State,
    time::At,
};

pub(crate) fn apply(state: &mut State, index: u64, at: At, proposal: &Proposal) -> Outcome {
    let _ = (state, index, at, proposal);
    Outcome::Refused(Refusal::NotInitialized)
}

impl State {
    pub(crate) fn sweep(&mut self) {}
}

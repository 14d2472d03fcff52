//! Request ids: a retry after an unknown outcome is applied once.

use crate::{
    cap::{PUSHED_OUT_MAX, REQUEST_AGE_MAX_MS, REQUEST_AHEAD_MAX_MS, REQUESTS_MAX, REQUESTS_RESERVED},
    command::{Actor, Command, Proposal},
    outcome::{Noun, Outcome, Refusal},
    state::State,
    time::Wall,
};
use serde::{Deserialize, Serialize};

/// Made by the client, once for each thing it wants done, and kept over its retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// When the client made the request, by its clock. Older than [`crate::cap::REQUEST_AGE_MAX_MS`] is refused, so
    /// that forgetting a request can never apply it twice; a client whose clock is wrong learns the cluster's time from
    /// that refusal and asks again.
    pub issued: Wall,
    /// Random.
    pub random: u128,
}

/// What is remembered of a request that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The answer it got, given again to a retry.
    pub outcome: Outcome,
    /// The log index at which it was applied: what a retry's fence waits for.
    pub index: u64,
}

impl State {
    /// Refuses a request id that may have been forgotten already or that would be remembered for too long, and a request
    /// for which there is no room.
    pub(crate) fn check_request(&mut self, proposal: &Proposal) -> Result<(), Refusal> {
        let (issued, now) = (proposal.request.issued, self.at.wall);
        if issued.plus_ms(REQUEST_AGE_MAX_MS) < now || issued > now.plus_ms(REQUEST_AHEAD_MAX_MS) {
            return Err(Refusal::RequestOutdated);
        }
        self.forget_requests(PUSHED_OUT_MAX);
        let cap = match proposal.actor {
            Actor::Node(_) => REQUESTS_MAX,
            Actor::Operator(_) | Actor::Bootstrap => REQUESTS_MAX - REQUESTS_RESERVED,
        };
        // A revocation must always get through, and is the same whether it is done once or twice.
        if proposal.command.is_final() { Ok(()) } else { Refusal::if_full(Noun::Request, self.requests.len(), cap) }
    }

    /// Remembers what became of a request, also if there was nothing to change or it was refused: a copy of it that was
    /// delayed on the way must not undo what others did after its answer.
    pub(crate) fn remember(&mut self, index: u64, proposal: &Proposal, outcome: &Outcome) {
        let is_worth_it = match (&proposal.command, outcome) {
            (Command::Nothing, _) => false,
            // Whoever reaches the cluster port may show tokens, and must not be able to fill the memory. A token that is
            // unknown, used or ended stays so, and the other reasons leave it unused.
            (Command::AdmitMember { .. }, Outcome::Refused(_)) => false,
            // Before there is a cluster, only a first entry is looked at, and it can be looked at again.
            _ => self.registry.is_initialized() && self.requests.len() < REQUESTS_MAX,
        };
        if is_worth_it {
            self.requests.insert(proposal.request, Remembered { outcome: outcome.clone(), index });
        }
    }

    /// Forgets at most `most` requests, oldest first, and only those whose id is refused from now on.
    pub(crate) fn forget_requests(&mut self, most: usize) {
        for _ in 0..most {
            let Some(oldest) = self.requests.get_min().map(|(request, _)| *request) else { return };
            if oldest.issued.plus_ms(REQUEST_AGE_MAX_MS) >= self.at.wall {
                return;
            }
            self.requests.remove(&oldest);
        }
    }
}

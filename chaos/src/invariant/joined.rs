//! Requests joined with what the upstream saw of them, and the marks of a run. What cannot be joined is unknown, and left
//! out.

use crate::history::{Event, History, Request, RequestOutcome, What};
use std::collections::HashMap;

/// A request that somebody sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joined<'a> {
    /// What its client says.
    pub request: &'a Request,
    /// When it ended for the client.
    pub ended_us: u64,
    /// When the upstream saw it first.
    pub arrived_us: Option<u64>,
}

impl Joined<'_> {
    /// Whether it was surely admitted.
    pub(super) fn is_admitted(&self) -> bool {
        self.arrived_us.is_some() || self.is_served()
    }

    /// Whether its client got what it asked for.
    pub(super) fn is_served(&self) -> bool {
        matches!(self.request.outcome, RequestOutcome::Answered { status: 200..=299, .. })
    }
}

/// All requests, in the order in which they were recorded.
pub(super) fn requests(history: &History) -> Vec<Joined<'_>> {
    let mut arrived: HashMap<u64, u64> = HashMap::new();
    for Event { at_us, what } in &history.events {
        if let What::Arrival(arrival) = what {
            // Sent to the upstream twice, it was admitted once.
            arrived.entry(arrival.request).and_modify(|first| *first = (*first).min(*at_us)).or_insert(*at_us);
        }
    }
    let joined = history.events.iter().filter_map(|event| match &event.what {
        What::Request(request) => {
            Some(Joined { request, ended_us: event.at_us, arrived_us: arrived.get(&request.request).copied() })
        }
        _ => None,
    });
    joined.collect()
}

/// When the final state begins and who its members are, if the run came so far.
pub(super) fn settled(history: &History) -> Option<(u64, &[u64])> {
    history.events.iter().rev().find_map(|event| match &event.what {
        What::Settled { nodes } => Some((event.at_us, nodes.as_slice())),
        _ => None,
    })
}

//! A node that holds authority decides by everything that was acknowledged before: no node says that it has a lease, and
//! at the same time enforces less than a fence whose acknowledgement came before it was asked.
//!
//! An acknowledgement that says of a node that it is not known (`pending`) binds that node to nothing.

use super::{Invariant, Verdict};
use crate::history::{AdminOutcome, Event, Fenced, History, What};
use std::collections::{BTreeMap, BTreeSet};

/// See above.
#[derive(Clone, Copy, Debug)]
pub struct AuthorityIsExclusiveOfStale;

/// The acknowledged writes that bind a node, by the time of their acknowledgement: each with the largest revision so far.
#[derive(Default)]
struct Bound(Vec<(u64, u64)>);

impl Bound {
    /// The revision that the node enforces at least, if it has authority.
    fn least_at(&self, at_us: u64) -> u64 {
        let count = self.0.partition_point(|(acknowledged_us, _)| *acknowledged_us <= at_us);
        count.checked_sub(1).and_then(|last| self.0.get(last)).map_or(0, |(_, revision)| *revision)
    }
}

impl Invariant for AuthorityIsExclusiveOfStale {
    fn name(&self) -> &'static str {
        "authority_is_exclusive_of_stale"
    }

    fn check(&self, history: &History) -> Verdict {
        let bounds = bounds(history);
        let mut checked = 0;
        for Event { at_us, what } in &history.events {
            let What::Observed(observed) = what else { continue };
            let least = bounds.get(&observed.node).map_or(0, |bound| bound.least_at(observed.began_us));
            if !observed.authority || least == 0 {
                continue;
            }
            checked += 1;
            let enforced = observed.enforced_revision.unwrap_or(observed.revision);
            if enforced < least {
                let why = format!(
                    "node {} says that it has authority and enforces revision {enforced}; revision {least} was \
                     acknowledged before it was asked at {} us",
                    observed.node, observed.began_us
                );
                return Verdict::Violated { at_us: *at_us, why };
            }
        }
        match checked {
            0 => Verdict::Vacuous { why: "no node said that it has authority after a fence".to_owned() },
            checked => Verdict::Held { checked },
        }
    }
}

/// What binds each node that was asked.
fn bounds(history: &History) -> BTreeMap<u64, Bound> {
    let mut fences: Vec<(u64, u64, BTreeSet<u64>)> = Vec::new();
    let mut nodes = BTreeSet::new();
    for Event { at_us, what } in &history.events {
        match what {
            What::Admin(admin) => {
                if let AdminOutcome::Done { revision, fence } = &admin.outcome
                    && !fence.is_empty()
                {
                    let pending = fence.iter().filter(|(_, state)| *state == Fenced::Pending);
                    fences.push((*at_us, *revision, pending.map(|(node, _)| *node).collect()));
                }
            }
            What::Observed(observed) => drop(nodes.insert(observed.node)),
            _ => {}
        }
    }
    fences.sort_by_key(|(at_us, ..)| *at_us);
    let bound_of = |node: u64| {
        let mut most = 0;
        let binding = fences.iter().filter(|(.., pending)| !pending.contains(&node)).map(|(at_us, revision, _)| {
            most = most.max(*revision);
            (*at_us, most)
        });
        (node, Bound(binding.collect()))
    };
    nodes.into_iter().map(bound_of).collect()
}

//! What a process has applied never goes back, and what any process has ever applied is there at the end: an entry is
//! applied once it is committed, and what is committed is never lost. And nobody enforces what they have not applied.
//!
//! Over a restart a node may begin with less, as long as it has no authority (see
//! [`super::authority_is_exclusive_of_stale`]): it reads its log again.

use super::{Invariant, Verdict, joined};
use crate::history::{Event, History, Observed, What};
use std::collections::BTreeMap;

/// See above.
#[derive(Clone, Copy, Debug)]
pub struct AppliedMonotonic;

/// The largest of each number that a process has said so far.
#[derive(Clone, Copy, Default)]
struct Most {
    at_us: u64,
    applied: u64,
    revision: u64,
    enforced: u64,
}

impl Invariant for AppliedMonotonic {
    fn name(&self) -> &'static str {
        "applied_monotonic"
    }

    fn check(&self, history: &History) -> Verdict {
        let mut processes: BTreeMap<(u64, u64), Vec<Most>> = BTreeMap::new();
        let mut checked = 0_u64;
        for Event { at_us, what } in &history.events {
            let What::Observed(observed) = what else { continue };
            let said = processes.entry((observed.node, observed.incarnation)).or_default();
            // Two answers may cross: only one that was over before the other was asked for is earlier.
            let earlier = said.iter().rev().find(|most| most.at_us <= observed.began_us).copied();
            if let Some(why) = went_back(earlier.unwrap_or_default(), observed) {
                return Verdict::Violated { at_us: *at_us, why };
            }
            checked += u64::from(earlier.is_some());
            let last = said.last().copied().unwrap_or_default();
            said.push(Most {
                at_us: last.at_us.max(*at_us),
                applied: last.applied.max(observed.applied),
                revision: last.revision.max(observed.revision),
                enforced: last.enforced.max(observed.enforced),
            });
        }
        if let Some(verdict) = lost_at_the_end(history, &mut checked) {
            return verdict;
        }
        match checked {
            0 => Verdict::Vacuous { why: "no process was asked twice".to_owned() },
            checked => Verdict::Held { checked },
        }
    }
}

fn went_back(earlier: Most, now: &Observed) -> Option<String> {
    let (process, node) = (now.incarnation, now.node);
    if now.enforced > now.applied {
        return Some(format!(
            "node {node} says that it enforces index {} and has applied {}",
            now.enforced, now.applied
        ));
    }
    let pairs = [
        ("has applied index", earlier.applied, now.applied),
        ("is at revision", earlier.revision, now.revision),
        ("enforces index", earlier.enforced, now.enforced),
    ];
    let (what, before, after) = pairs.into_iter().find(|(_, before, after)| after < before)?;
    Some(format!("process {process} of node {node} {what} {after}, after it had said {before}"))
}

/// Every member must have at the end what any process had applied before.
fn lost_at_the_end(history: &History, checked: &mut u64) -> Option<Verdict> {
    let (settled_us, members) = joined::settled(history)?;
    let mut most = (0, 0);
    let mut last: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for Event { at_us, what } in &history.events {
        let What::Observed(observed) = what else { continue };
        if *at_us <= settled_us {
            most = most.max((observed.applied, observed.node));
        }
        if observed.began_us >= settled_us && members.contains(&observed.node) {
            last.insert(observed.node, (*at_us, observed.applied));
        }
    }
    *checked += last.len() as u64;
    let (node, (at_us, applied)) = last.into_iter().find(|(_, (_, applied))| *applied < most.0)?;
    let why =
        format!("node {node} has applied {applied} at the end, and node {} had applied {} before", most.1, most.0);
    Some(Verdict::Violated { at_us, why })
}

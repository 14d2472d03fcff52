//! The faults of a run, each with its whole life.

use crate::history::{Event, Fault, History, Phase, What};
use std::collections::{BTreeMap, BTreeSet};

/// A fault that took hold, or may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub kind: String,
    pub nodes: BTreeSet<u64>,
    pub spares_others: bool,
    /// From when it may have been there.
    pub from_us: u64,
    /// Until when: the end of time for one that was never healed.
    pub until_us: u64,
}

/// All of them, in the order in which they began.
pub(super) fn lives(history: &History) -> Vec<Life> {
    let mut lives: BTreeMap<u64, Life> = BTreeMap::new();
    let mut skipped = BTreeSet::new();
    for Event { at_us, what } in &history.events {
        let What::Fault(Fault { number, kind, nodes, spares_others, phase, .. }) = what else { continue };
        let life = lives.entry(*number).or_insert_with(|| Life {
            kind: kind.clone(),
            nodes: BTreeSet::new(),
            spares_others: true,
            from_us: *at_us,
            until_us: u64::MAX,
        });
        // Which nodes it touches may be known only once it is there.
        life.nodes.extend(nodes);
        life.spares_others &= spares_others;
        match phase {
            Phase::Healed => life.until_us = *at_us,
            Phase::Skipped { .. } => drop(skipped.insert(*number)),
            Phase::Planned | Phase::Installed | Phase::Unknown { .. } => {}
        }
    }
    lives.retain(|number, _| !skipped.contains(number));
    let mut lives: Vec<Life> = lives.into_values().collect();
    lives.sort_by_key(|life| life.from_us);
    lives
}

/// Whether so many nodes had a wrong clock at once that the cluster's calendar may have followed them.
pub(super) fn may_have_moved_the_calendar(history: &History) -> bool {
    let lives = lives(history);
    let wrong: Vec<&Life> = lives.iter().filter(|life| life.kind.contains("calendar")).collect();
    let members = history.run().map_or(3, |run| run.nodes.len());
    wrong.iter().any(|life| {
        let there = wrong.iter().filter(|other| (other.from_us..=other.until_us).contains(&life.from_us));
        there.flat_map(|life| &life.nodes).collect::<BTreeSet<_>>().len() * 2 > members
    })
}

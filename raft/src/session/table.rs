//! The leader's table of members: when each was last heard of, and what it said. A plain value: time comes in as an
//! argument, and nothing here sends or waits.
//!
//! A table is opened when a leader begins to lead and dropped when it ends: what an earlier leader knew does not count.
//! Therefore silence is measured from the later of the last report and the opening, or a new leader would call everybody
//! unreachable before they could find it.

use machine::member::NodeId;
use std::{collections::BTreeMap, time::Duration};

/// What a member says of itself, each time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// The number of the last entry whose View all its workers enforce.
    pub(crate) enforced: u64,
    /// Its UTC when it said so, in milliseconds since the Unix epoch.
    pub(crate) utc_ms: u64,
    /// SHA-256 of the authority that signed its certificate.
    pub(crate) authority_sha256: Vec<u8>,
    /// When its certificate ends.
    pub(crate) not_after_ms: u64,
    /// Its disk has less room than its low watermark.
    pub(crate) disk_low: bool,
    /// It is stopping, and has given its authority up: do not wait for it.
    pub(crate) leaving: bool,
}

/// What was last heard of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    /// When, by this machine's boot clock.
    pub(crate) at_us: u64,
    /// What.
    pub(crate) said: Said,
}

/// The leader's table of members.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    opened_us: u64,
    silence_us: u64,
    members: BTreeMap<NodeId, Heard>,
}

impl Table {
    /// An empty table, opened now. Who is silent for longer than `silence` is unreachable.
    pub(crate) fn open(now_us: u64, silence: Duration) -> Self {
        let silence_us = u64::try_from(silence.as_micros()).unwrap_or(u64::MAX);
        Self { opened_us: now_us, silence_us, members: BTreeMap::new() }
    }

    /// Takes a report. Returns whether it could settle a fence.
    pub(crate) fn report(&mut self, node: NodeId, now_us: u64, said: Said) -> bool {
        let news = self
            .members
            .get(&node)
            .is_none_or(|heard| heard.said.enforced != said.enforced || heard.said.leaving != said.leaving);
        self.members.insert(node, Heard { at_us: now_us, said });
        news
    }

    /// What was last heard of a member.
    pub(crate) fn heard(&self, node: NodeId) -> Option<&Heard> {
        self.members.get(&node)
    }

    /// Forgets members that are no longer any.
    pub(crate) fn retain(&mut self, keep: impl Fn(NodeId) -> bool) {
        self.members.retain(|node, _| keep(*node));
    }

    /// How long this leader has not heard of a member, at most since it leads.
    pub(crate) fn silent_us(&self, node: NodeId, now_us: u64) -> u64 {
        let since = self.members.get(&node).map_or(self.opened_us, |heard| heard.at_us.max(self.opened_us));
        now_us.saturating_sub(since)
    }

    /// How long this leader leads.
    pub(crate) fn open_us(&self, now_us: u64) -> u64 {
        now_us.saturating_sub(self.opened_us)
    }

    /// Whether a member was heard of lately and is not on its way out of the process.
    pub(crate) fn reachable(&self, node: NodeId, now_us: u64) -> bool {
        self.members
            .get(&node)
            .is_some_and(|heard| !heard.said.leaving && now_us.saturating_sub(heard.at_us) <= self.silence_us)
    }

    /// The UTC of each of these members now, by what it last said plus what has passed since, if it is reachable.
    pub(crate) fn utc_ms(&self, members: impl Iterator<Item = NodeId>, now_us: u64) -> Vec<u64> {
        members
            .filter(|node| self.reachable(*node, now_us))
            .filter_map(|node| {
                let heard = self.members.get(&node)?;
                Some(heard.said.utc_ms.saturating_add(now_us.saturating_sub(heard.at_us) / 1000))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn said(enforced: u64) -> Said {
        Said { enforced, utc_ms: 1_000_000, ..Said::default() }
    }

    fn open() -> Table {
        Table::open(100 * SECOND, Duration::from_secs(2))
    }

    #[test]
    fn who_falls_silent_or_says_goodbye_is_not_reachable() {
        let mut table = open();
        assert!(!table.reachable(2, 100 * SECOND), "not heard of yet");
        assert!(table.report(2, 100 * SECOND, said(3)));
        assert!(!table.report(2, 101 * SECOND, said(3)), "nothing that a fence waits for");
        assert!(table.reachable(2, 103 * SECOND));
        assert!(!table.reachable(2, 104 * SECOND));
        assert!(table.report(2, 104 * SECOND, Said { leaving: true, ..said(3) }));
        assert!(!table.reachable(2, 104 * SECOND));
        assert_eq!(table.silent_us(3, 104 * SECOND), 4 * SECOND, "at most since this leader leads");
    }

    #[test]
    fn clocks_advance_with_the_time_since_the_report() {
        let mut table = open();
        table.report(1, 100 * SECOND, said(0));
        assert_eq!(table.utc_ms(1..=3, 101 * SECOND), [1_001_000]);
        assert!(table.utc_ms(1..=3, 110 * SECOND).is_empty());
    }
}

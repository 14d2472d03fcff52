//! What happened in a run, seen from outside, and whether it was allowed.

use super::replica::{Change, Payload};
use machine::{
    Name,
    allowance::{BucketId, Grant},
    bucket::AllowanceId,
    limit::Rule,
    member::NodeId,
    time::Wall,
};
use std::collections::BTreeMap;

/// A request that was admitted.
#[derive(Clone, Debug)]
pub struct Admit {
    /// When, in real time.
    pub real_us: u64,
    /// When it started.
    pub started_us: u64,
    /// Who admitted it.
    pub node: NodeId,
    /// The index of the View that decided.
    pub view: u64,
    /// Whether it needed authority: a route that serves without has opted out of G2.
    pub leased: bool,
    /// The allowances it spent a token of.
    pub spent: Vec<(BucketId, AllowanceId)>,
}

/// What happened in a run.
#[derive(Debug, Default)]
pub struct Trace {
    /// In the order of decision.
    pub admits: Vec<Admit>,
    /// Requests refused by a limit.
    pub refused: u64,
    /// Requests that found no authority.
    pub isolated: u64,
    /// Requests that waited in vain for an allowance.
    pub unavailable: u64,
    /// Requests of nodes for allowances.
    pub asked: u64,
    /// Acknowledged writes: index and real time.
    pub acknowledged: Vec<(u64, u64)>,
    /// Log entries that some node applied.
    pub entries: usize,
    allowances: BTreeMap<AllowanceId, (BucketId, u64, Wall)>,
    rules: BTreeMap<Name, Vec<Rule>>,
}

impl Trace {
    /// A trace that knows the first rules.
    pub fn new(limits: &[(Name, Rule)]) -> Self {
        let rules = limits.iter().map(|(name, rule)| (name.clone(), vec![*rule])).collect();
        Self { rules, ..Self::default() }
    }

    /// An allowance was granted.
    pub fn granted(&mut self, grant: &Grant, window: Wall) {
        self.allowances.entry(grant.allowance).or_insert((grant.bucket.clone(), grant.amount, window));
    }

    /// An entry was applied, by this node first or again.
    pub fn entry(&mut self, number: usize, payload: &Payload) {
        if number > self.entries {
            self.entries = number;
            if let Payload::Write { change: Change::SetLimit(name, rule), .. } = payload {
                self.rules.entry(name.clone()).or_default().push(*rule);
            }
        }
    }

    /// A write was acknowledged.
    pub fn acknowledged(&mut self, write: u64, index: u64, real_us: u64) {
        if write != u64::MAX {
            self.acknowledged.push((index, real_us));
        }
    }

    /// Checks all that must hold.
    ///
    /// # Errors
    /// The first thing that does not, in words.
    pub fn check(&self) -> Result<(), String> {
        self.no_limit_is_exceeded()?;
        self.no_window_is_exceeded()?;
        self.no_allowance_is_exceeded()?;
        self.acknowledged_is_enforced()
    }

    /// G1 for token buckets: in every interval at most `burst + rate·d`. Driving the admits through a bucket that leaks
    /// at the rate and must not rise above the burst says the same of all intervals at once. Where a limit was changed,
    /// the largest of its rules holds.
    fn no_limit_is_exceeded(&self) -> Result<(), String> {
        let mut by_bucket: BTreeMap<&BucketId, Vec<(u64, NodeId)>> = BTreeMap::new();
        for admit in &self.admits {
            for (id, _) in &admit.spent {
                by_bucket.entry(id).or_default().push((admit.real_us, admit.node));
            }
        }
        for (id, mut admits) in by_bucket {
            let rules = self.rules.get(&id.limit).map(Vec::as_slice).unwrap_or_default();
            let rates: Vec<_> = rules
                .iter()
                .filter_map(|rule| match rule {
                    Rule::Rate(rate) => Some(*rate),
                    Rule::Quota(_) => None,
                })
                .collect();
            let Some(period_us) = rates.first().map(|rate| rate.period_us) else { continue };
            let tokens = rates.iter().map(|rate| rate.tokens).max().unwrap_or(0);
            let burst = u128::from(rates.iter().map(|rate| rate.burst).max().unwrap_or(0)) * u128::from(period_us);
            admits.sort_unstable();
            let (mut level, mut last_us) = (0_u128, 0_u64);
            for (at_us, node) in admits {
                level = level.saturating_sub(u128::from(at_us - last_us) * u128::from(tokens)) + u128::from(period_us);
                last_us = at_us;
                if level > burst {
                    let over = (level - burst).div_ceil(u128::from(period_us));
                    return Err(format!(
                        "G1: {} over {tokens}/s, burst {}: node {node} admitted at {at_us} µs what is {over} too many",
                        id.limit,
                        burst / u128::from(period_us),
                    ));
                }
            }
        }
        Ok(())
    }

    /// G1 for quotas: at most the amount in each window of the cluster's calendar.
    fn no_window_is_exceeded(&self) -> Result<(), String> {
        let mut by_window: BTreeMap<(&BucketId, Wall), u64> = BTreeMap::new();
        for (id, allowance) in self.admits.iter().flat_map(|admit| &admit.spent) {
            if let Some((_, _, window)) = self.allowances.get(allowance) {
                *by_window.entry((id, *window)).or_default() += 1;
            }
        }
        for ((id, window), admitted) in by_window {
            let rules = self.rules.get(&id.limit).map(Vec::as_slice).unwrap_or_default();
            let amount = rules
                .iter()
                .filter_map(|rule| match rule {
                    Rule::Quota(quota) => Some(quota.amount),
                    Rule::Rate(_) => None,
                })
                .max();
            if amount.is_some_and(|amount| admitted > amount) {
                return Err(format!("G1: {} admitted {admitted} in the window that ends at {window:?}", id.limit));
            }
        }
        Ok(())
    }

    /// Conservation: nobody spends more of an allowance than it had.
    fn no_allowance_is_exceeded(&self) -> Result<(), String> {
        let mut spent: BTreeMap<AllowanceId, u64> = BTreeMap::new();
        for (_, allowance) in self.admits.iter().flat_map(|admit| &admit.spent) {
            *spent.entry(*allowance).or_default() += 1;
        }
        for (allowance, spent) in spent {
            let granted = self.allowances.get(&allowance).map_or(0, |(_, granted, _)| *granted);
            if spent > granted {
                return Err(format!("conservation: {spent} were spent of allowance {allowance}, which had {granted}"));
            }
        }
        Ok(())
    }

    /// G2: no request that started after a write was acknowledged was decided by the state before it.
    fn acknowledged_is_enforced(&self) -> Result<(), String> {
        let mut admits: Vec<&Admit> = self.admits.iter().filter(|admit| admit.leased).collect();
        admits.sort_unstable_by_key(|admit| admit.started_us);
        let mut acknowledged = self.acknowledged.clone();
        acknowledged.sort_unstable_by_key(|(_, real_us)| *real_us);
        let mut acknowledged = acknowledged.into_iter().peekable();
        let mut newest = 0;
        for admit in admits {
            while let Some((index, _)) = acknowledged.next_if(|(_, real_us)| *real_us < admit.started_us) {
                newest = newest.max(index);
            }
            if admit.view < newest {
                return Err(format!(
                    "G2: node {} decided a request that started at {} µs by state {}, after write {newest} was acknowledged",
                    admit.node, admit.started_us, admit.view
                ));
            }
        }
        Ok(())
    }
}

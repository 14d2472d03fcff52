//! What must hold of a run, by the true times that only a simulation has. The history's own invariants are checked beside these.

use super::{
    record::{Admit, Known},
    seat::Key,
};
use chaos::{
    history::History,
    invariant::{
        AckedSurvives, AppliedMonotonic, AuthorityIsExclusiveOfStale, ExactlyOnce, Invariant, LinearizableAdmin,
        RevokedStaysRevoked, SameIndexSameState, Verdict,
    },
};
use machine::{View, limit::Rule};

/// What cannot be told apart: a clock's last microseconds, as tokens.
const ROUNDING_US: u128 = 10;

/// Checks all that can be checked at the end.
pub(super) fn all(known: &Known) -> Vec<String> {
    let checks = [no_rate_is_exceeded, no_quota_is_exceeded, acknowledged_is_enforced, reads_are_fresh, the_history];
    checks.iter().filter_map(|check| check(known).err()).collect()
}

fn admits_under<'a>(known: &'a Known, limit: &'a str) -> impl Iterator<Item = &'a Admit> {
    known.admits.iter().filter(move |admit| admit.limits.contains(&limit))
}

/// G1 for rates: in every interval at most `burst + rate·d`. Where a limit was changed, the largest of its rules holds.
fn no_rate_is_exceeded(known: &Known) -> Result<(), String> {
    for (limit, rules) in &known.rules {
        let rates: Vec<_> = rules
            .iter()
            .filter_map(|rule| match rule {
                Rule::Rate(rate) => Some(rate),
                Rule::Quota(_) => None,
            })
            .collect();
        let Some(period_us) = rates.first().map(|rate| u128::from(rate.period_us)) else { continue };
        let tokens = rates.iter().map(|rate| rate.tokens).max().map_or(0, u128::from);
        let most = rates.iter().map(|rate| rate.burst).max().map_or(0, u128::from);
        let burst = most * period_us + ROUNDING_US * tokens;
        let mut admits: Vec<_> = admits_under(known, limit).map(|admit| (admit.real_us, admit.node)).collect();
        admits.sort_unstable();
        let (mut level, mut last_us) = (0_u128, 0_u64);
        for (at_us, node) in admits {
            level = level.saturating_sub(u128::from(at_us - last_us) * tokens) + period_us;
            last_us = at_us;
            if level > burst {
                let over = (level - burst).div_ceil(period_us);
                return Err(format!("G1: {limit}, node {node}: {over} more than {most} + {tokens}/s by {at_us} µs"));
            }
        }
    }
    Ok(())
}

/// G1 for quotas. All of a run lies in one window.
fn no_quota_is_exceeded(known: &Known) -> Result<(), String> {
    for (limit, rules) in &known.rules {
        let quotas = rules.iter().filter_map(|rule| match rule {
            Rule::Quota(quota) => Some(quota.amount),
            Rule::Rate(_) => None,
        });
        let Some(most) = quotas.max() else { continue };
        let admitted = admits_under(known, limit).count() as u64;
        if admitted > most {
            return Err(format!("G1: {limit}: {admitted} admitted of {most}"));
        }
    }
    Ok(())
}

/// G2: no request that started after a write was acknowledged was decided by the state before it.
fn acknowledged_is_enforced(known: &Known) -> Result<(), String> {
    let mut fenced: Vec<_> = known.acknowledged.iter().filter(|write| write.fenced).collect();
    fenced.sort_unstable_by_key(|write| write.at_us);
    let mut admits: Vec<&Admit> = known.admits.iter().collect();
    admits.sort_unstable_by_key(|admit| admit.started_us);
    let (mut fenced, mut newest) = (fenced.into_iter().peekable(), 0);
    for admit in admits {
        while let Some(write) = fenced.next_if(|write| write.at_us < admit.started_us) {
            newest = newest.max(write.index);
        }
        if admit.view < newest {
            return Err(format!(
                "G2: node {} decided a request with key {} that started at {} µs by state {}, after write {newest} was \
                 acknowledged",
                admit.node, admit.key, admit.started_us, admit.view
            ));
        }
    }
    Ok(())
}

/// G3: a read sees everything that was acknowledged before it began.
fn reads_are_fresh(known: &Known) -> Result<(), String> {
    let mut writes: Vec<_> = known.acknowledged.iter().map(|write| (write.at_us, write.index)).collect();
    writes.sort_unstable();
    let mut reads: Vec<_> = known.reads.iter().map(|read| (read.began_us, read.index)).collect();
    reads.sort_unstable();
    let (mut writes, mut newest) = (writes.into_iter().peekable(), 0);
    for (began_us, index) in reads {
        while let Some((_, write)) = writes.next_if(|(at_us, _)| *at_us < began_us) {
            newest = newest.max(write);
        }
        if index < newest {
            return Err(format!("G3: a read that began at {began_us} µs saw {index}, not {newest}"));
        }
    }
    Ok(())
}

/// G4: what was acknowledged is in the last state.
pub(super) fn acknowledged_survives(view: &View, keys: &[Key]) -> Result<(), String> {
    for (number, key) in keys.iter().enumerate().filter(|(_, key)| key.made) {
        match view.registry.keys.get(&key.id) {
            None => return Err(format!("G4: key {number} was made, and is gone")),
            Some(held) if key.revoked && held.revoked_at().is_none() => {
                return Err(format!("G4: key {number} was revoked, and is good again"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// What holds of every history.
fn the_history(known: &Known) -> Result<(), String> {
    let history = History::of(known.events.clone());
    // The others want what a run on real processes alone has: faults one by one, access logs, an upstream that counts.
    let judges: [&dyn Invariant; 7] = [
        &RevokedStaysRevoked,
        &AckedSurvives,
        &LinearizableAdmin,
        &ExactlyOnce,
        &SameIndexSameState,
        &AppliedMonotonic,
        &AuthorityIsExclusiveOfStale,
    ];
    for invariant in judges {
        if let verdict @ Verdict::Violated { .. } = invariant.check(&history) {
            return Err(format!("{}: {verdict}", invariant.name()));
        }
    }
    Ok(())
}

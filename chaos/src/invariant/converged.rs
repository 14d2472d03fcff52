//! After everything healed, the cluster is one again: every member says the same of itself, serves every key that lives,
//! refuses every one that was revoked, and the limits let their full rate through.
//!
//! A key is judged by the last answer that each node gave for it. One that may have been ended, and one that was shown to
//! a node in vain for the client's own reasons (`rate-limited`), says nothing.

use super::{Invariant, Verdict, joined};
use crate::history::{AdminOutcome, Credential, Event, History, Observed, RequestOutcome, Text, What};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// See above.
#[derive(Clone, Copy, Debug)]
pub struct Converged;

/// How a credential ought to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ought {
    Serve,
    Refuse,
    /// What ended it may not have been done.
    Either,
}

impl Invariant for Converged {
    fn name(&self) -> &'static str {
        "converged"
    }

    fn check(&self, history: &History) -> Verdict {
        let Some((settled_us, members)) = joined::settled(history) else {
            return Verdict::Vacuous { why: "the run did not come to a final state".to_owned() };
        };
        let mut checked = 0;
        let violation = states(history, settled_us, members, &mut checked)
            .or_else(|| keys(history, settled_us, members, &mut checked))
            .or_else(|| rates(history, settled_us, &mut checked));
        match (violation, checked) {
            (Some((at_us, why)), _) => Verdict::Violated { at_us, why },
            (None, 0) => Verdict::Vacuous { why: "the final state was not looked at".to_owned() },
            (None, checked) => Verdict::Held { checked },
        }
    }
}

/// Every member has authority, one revision, and one digest of one index that none of them had when the run settled.
fn states(history: &History, settled_us: u64, members: &[u64], checked: &mut u64) -> Option<(u64, String)> {
    let mut last: BTreeMap<u64, &Observed> = BTreeMap::new();
    let mut digests: BTreeMap<u64, BTreeMap<u64, &str>> = BTreeMap::new();
    let mut applied_before = 0;
    for Event { at_us, what } in &history.events {
        let What::Observed(observed) = what else { continue };
        if observed.began_us < settled_us {
            applied_before = if *at_us <= settled_us { observed.applied.max(applied_before) } else { applied_before };
            continue;
        }
        last.insert(observed.node, observed);
        for (index, digest) in &observed.digests {
            digests.entry(*index).or_default().insert(observed.node, digest);
        }
    }
    for member in members {
        *checked += 1;
        let Some(observed) = last.get(member) else {
            return Some((settled_us, format!("node {member} says nothing after all was healed")));
        };
        if !observed.authority {
            return Some((observed.began_us, format!("node {member} has no authority after all was healed")));
        }
    }
    let revisions: BTreeMap<u64, u64> =
        members.iter().filter_map(|member| Some((*member, last.get(member)?.revision))).collect();
    if revisions.values().collect::<BTreeSet<_>>().len() > 1 {
        return Some((settled_us, format!("the members end at different revisions: {revisions:?}")));
    }
    // Nodes that say no digests at all were not asked for them.
    if last.values().all(|observed| observed.digests.is_empty()) {
        return None;
    }
    let common = digests
        .iter()
        .rev()
        .find(|(index, said)| **index >= applied_before && members.iter().all(|member| said.contains_key(member)));
    let Some((index, said)) = common else {
        let why = format!("there is no index from {applied_before} on that all members have applied");
        return Some((settled_us, why));
    };
    let states: BTreeSet<&&str> = said.values().collect();
    (states.len() > 1).then(|| (settled_us, format!("the members end in different states at index {index}: {said:?}")))
}

/// Every node serves what lives and refuses what was revoked.
fn keys(history: &History, settled_us: u64, members: &[u64], checked: &mut u64) -> Option<(u64, String)> {
    let ought = ought(history);
    let mut last: BTreeMap<(&Text, u64), (u64, &RequestOutcome)> = BTreeMap::new();
    for Event { at_us, what } in &history.events {
        if let What::Request(request) = what
            && request.began_us >= settled_us
            && members.contains(&request.node)
        {
            last.insert((&request.credential, request.node), (*at_us, &request.outcome));
        }
    }
    for ((credential, node), (at_us, outcome)) in last {
        let said = match outcome {
            RequestOutcome::Answered { status: 200..=299, .. } => Ok(Ought::Serve),
            RequestOutcome::Answered { status: 401 | 403, .. } => Ok(Ought::Refuse),
            RequestOutcome::Answered { problem: Some(problem), .. } if &**problem == "rate-limited" => continue,
            RequestOutcome::Answered { status, problem } => {
                Err(format!("{status} {}", problem.as_deref().unwrap_or("")))
            }
            RequestOutcome::Lost { why, .. } => Err(format!("no answer ({why})")),
        };
        let expected = ought.get(credential).copied().unwrap_or(Ought::Either);
        *checked += 1;
        match (said, expected) {
            (Ok(_), Ought::Either) => {}
            (Ok(said), expected) if said == expected => {}
            (Ok(said), expected) => {
                return Some((at_us, format!("node {node} should {expected:?} {credential} at the end: {said:?}")));
            }
            (Err(said), _) => return Some((at_us, format!("node {node} says {said} to {credential} at the end"))),
        }
    }
    None
}

fn ought(history: &History) -> HashMap<&Text, Ought> {
    let mut ought: HashMap<&Text, Ought> = HashMap::new();
    for Event { what, .. } in &history.events {
        match what {
            What::Credential(Credential { name, .. }) => drop(ought.entry(name).or_insert(Ought::Serve)),
            What::Admin(admin) => {
                let ends = match admin.outcome {
                    AdminOutcome::Done { .. } => Ought::Refuse,
                    AdminOutcome::Unknown { .. } => Ought::Either,
                    AdminOutcome::Refused(_) | AdminOutcome::Failed { .. } | AdminOutcome::Found(_) => continue,
                };
                for credential in &admin.ends {
                    let now = ought.entry(credential).or_insert(ends);
                    *now = if *now == Ought::Refuse { Ought::Refuse } else { ends };
                }
            }
            _ => {}
        }
    }
    ought
}

fn rates(history: &History, settled_us: u64, checked: &mut u64) -> Option<(u64, String)> {
    for Event { at_us, what } in &history.events {
        let What::FullRate(rate) = what else { continue };
        if *at_us < settled_us {
            continue;
        }
        *checked += 1;
        if rate.admitted < rate.least {
            let why = format!(
                "the limit {} admitted {} in {} ms under more demand than that, where its full rate is at least {}",
                rate.limit,
                rate.admitted,
                rate.measured_us / 1000,
                rate.least
            );
            return Some((*at_us, why));
        }
    }
    None
}

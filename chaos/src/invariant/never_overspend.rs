//! No limit is ever exceeded: in every interval of every bucket at most `burst + rate × length` requests were admitted,
//! and of a quota at most its number in each window.
//!
//! Only what was surely admitted within an interval counts: what its client began to send in it, and the upstream saw in
//! it. Windows of a quota are those of the cluster's calendar, as the access log says it of each decision; what has no
//! line there is counted by the harness's clock alone, of which any interval of a window's length touches two windows.
//!
//! Where a limit was edited, every edit may give a bucket its whole new burst once more (guarantees.md says so of lowering
//! and raising); while it settles, the larger of old and new holds; of an edit whose outcome is unknown both hold from then
//! on. Left out are limits that change whom they count or what they are, and routes that change their limits meanwhile.

mod allowed;
mod busiest;

use super::{Invariant, Verdict, faults, joined};
use crate::history::{Credential, Event, History, Limit, Per, Route, Rule, Text, What};
use allowed::Allowed;
use busiest::{Admit, Excess};
use std::collections::{BTreeMap, HashMap};

/// See above.
#[derive(Clone, Copy, Debug)]
pub struct NeverOverspend;

/// What the calendar of a node may be behind the leader's by, beside a lease: what a grant takes on its way.
const CALENDAR_SLACK_US: u64 = 1_000_000;

/// The bucket that a request counts in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Bucket {
    limit: Text,
    subject: Text,
}

impl Invariant for NeverOverspend {
    fn name(&self) -> &'static str {
        "never_overspend"
    }

    fn check(&self, history: &History) -> Verdict {
        let lease_us = history.run().map_or(2_000_000, |run| run.lease_us);
        let mut limits: BTreeMap<&Text, Vec<(u64, &Limit)>> = BTreeMap::new();
        for Event { at_us, what } in &history.events {
            if let What::Limit(limit) = what {
                limits.entry(&limit.name).or_default().push((*at_us, limit));
            }
        }
        let calendar_is_steady = !faults::may_have_moved_the_calendar(history);
        let (mut checked, mut left_out) = (0, 0);
        for (bucket, mut admits) in buckets(history, &limits) {
            let Some(edits) = limits.get(&bucket.limit) else { continue };
            let Some(allowed) = Allowed::of(edits, lease_us) else {
                left_out += 1;
                continue;
            };
            checked += admits.len() as u64;
            admits.sort_by_key(|admit| admit.arrived_us);
            let excess = match allowed.window_us {
                None => busiest::interval(&admits, &allowed),
                Some(window_us) => {
                    let by_the_clock = || busiest::interval_of_a_window(&admits, &allowed, window_us);
                    busiest::window(&admits, &allowed, window_us, lease_us + CALENDAR_SLACK_US)
                        .or_else(|| calendar_is_steady.then(by_the_clock).flatten())
                }
            };
            if let Some(Excess { from_us, to_us, count, most, example }) = excess {
                let why = format!(
                    "{count} were admitted between {from_us} and {to_us} us ({} ms) for {} of the limit {}, where at most \
                     {most:.1} may be (the last of them: request {example})",
                    to_us.saturating_sub(from_us) / 1000,
                    bucket.subject,
                    bucket.limit
                );
                return Verdict::Violated { at_us: to_us, why };
            }
        }
        match (checked, left_out) {
            (0, 0) => Verdict::Vacuous { why: "nothing was admitted under a limit that is known".to_owned() },
            (0, left_out) => {
                Verdict::Vacuous { why: format!("the limits of all {left_out} buckets change what they are") }
            }
            (checked, _) => Verdict::Held { checked },
        }
    }
}

/// Every bucket with what was admitted in it.
fn buckets(history: &History, limits: &BTreeMap<&Text, Vec<(u64, &Limit)>>) -> BTreeMap<Bucket, Vec<Admit>> {
    let mut credentials: HashMap<&Text, &Credential> = HashMap::new();
    let mut routes: HashMap<&Text, (Vec<&Text>, u64)> = HashMap::new();
    let mut decided: HashMap<u64, u64> = HashMap::new();
    for Event { what, .. } in &history.events {
        match what {
            What::Credential(credential) => drop(credentials.insert(&credential.name, credential)),
            What::Route(route) => narrow(&mut routes, route),
            What::Logged(logged) if logged.allowed => {
                decided.insert(logged.request, logged.wall_ms.saturating_add(logged.decide_us / 1000));
            }
            _ => {}
        }
    }
    let mut buckets: BTreeMap<Bucket, Vec<Admit>> = BTreeMap::new();
    for joined in joined::requests(history) {
        let request = joined.request;
        let (Some(arrived_us), Some((counting, cost))) = (joined.arrived_us, routes.get(&request.route)) else {
            continue;
        };
        for limit in counting {
            let per = limits.get(limit).and_then(|edits| edits.first()).map(|(_, limit)| limit.per);
            let Some(subject) = per.and_then(|per| subject(per, &request.route, credentials.get(&request.credential)))
            else {
                continue;
            };
            let bucket = Bucket { limit: Text::clone(limit), subject };
            let admit = Admit {
                request: request.request,
                cost: *cost,
                began_us: request.began_us.min(arrived_us),
                arrived_us,
                wall_ms: decided.get(&request.request).copied(),
            };
            buckets.entry(bucket).or_default().push(admit);
        }
    }
    buckets
}

/// Of a route that changes, what is true of it all the time.
fn narrow<'a>(routes: &mut HashMap<&'a Text, (Vec<&'a Text>, u64)>, route: &'a Route) {
    routes
        .entry(&route.name)
        .and_modify(|(limits, cost)| {
            limits.retain(|limit| route.limits.contains(limit));
            *cost = (*cost).min(route.cost);
        })
        .or_insert_with(|| (route.limits.iter().collect(), route.cost));
}

fn subject(per: Per, route: &Text, credential: Option<&&Credential>) -> Option<Text> {
    match per {
        Per::Key => credential.map(|credential| Text::clone(&credential.key)),
        Per::Consumer => credential.map(|credential| Text::clone(&credential.consumer)),
        Per::Route => Some(Text::clone(route)),
        Per::KeyAndRoute => credential.map(|credential| format!("{}, {route}", credential.key).into()),
    }
}

impl Rule {
    /// The most that can be there at once.
    const fn burst(self) -> u64 {
        match self {
            Self::Rate { burst, .. } => burst,
            Self::Quota { amount, .. } => amount,
        }
    }

    /// Tokens a microsecond.
    fn rate(self) -> f64 {
        match self {
            Self::Rate { tokens, period_us, .. } => tokens as f64 / (period_us.max(1)) as f64,
            Self::Quota { .. } => 0.0,
        }
    }

    /// Of a quota.
    const fn window_us(self) -> Option<u64> {
        match self {
            Self::Rate { .. } => None,
            Self::Quota { window_us, .. } => Some(window_us),
        }
    }
}

#[cfg(test)]
mod tests;

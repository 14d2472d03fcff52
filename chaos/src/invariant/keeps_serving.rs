//! A warm key is served by every node that is in order itself, while a majority is: losing one other node, the leader
//! too, costs no request.
//!
//! Judged is a request on a node that no fault touches and that has served the same credential on the same route since the
//! last one did, of a credential that nobody was about to end, at a time when the nodes that no fault touches are a
//! majority, every other fault spares them, and at most one fault came or went so shortly before that its change of leader
//! may be going on. It may be refused for what the client did (`rate-limited`), for an overload, and, on a route with
//! limits, for want of an allowance (`limit-unavailable`): no more is promised. What the upstream did is not the cluster's.
//! Nor is what a machine does that has no time for anybody: while a node in order takes longer to say how it is than half
//! an election, nothing is judged.

use super::{Invariant, Verdict, faults, faults::Life, joined};
use crate::history::{AdminOutcome, Event, History, RequestOutcome, Text, What};
use std::collections::{BTreeSet, HashMap, HashSet};

/// See above.
#[derive(Clone, Copy, Debug)]
pub struct KeepsServing;

/// How long after its end a fault's nodes may still be coming back, beside the lease: a process starts and reads its log.
const COMING_BACK_US: u64 = 10_000_000;

/// What is known of the cluster over the time of a run.
struct Weather {
    lives: Vec<Life>,
    members: BTreeSet<u64>,
    window_us: u64,
    /// When a node in order was slow to answer, by beginning: the machine had no time.
    starved: Vec<(u64, u64)>,
}

impl Invariant for KeepsServing {
    fn name(&self) -> &'static str {
        "keeps_serving"
    }

    fn check(&self, history: &History) -> Verdict {
        let Some(run) = history.run() else {
            return Verdict::Vacuous { why: "the history does not say what ran".to_owned() };
        };
        let lives = faults::lives(history);
        let weather = Weather {
            starved: starved(history, &lives, run.election_us / 2),
            lives,
            members: run.nodes.iter().copied().collect(),
            window_us: run.lease_us * 2 + run.election_us * 2,
        };
        let edits = Edits::of(history);
        let mut requests = joined::requests(history);
        requests.sort_by_key(|joined| joined.ended_us);
        let mut served: HashMap<(u64, &Text, &Text), u64> = HashMap::new();
        let (mut checked, mut by_others) = (0_u64, 0_u64);
        for joined in requests {
            let (request, ended_us) = (joined.request, joined.ended_us);
            let name = (request.node, &request.credential, &request.route);
            let warm_us = served.get(&name).copied();
            if joined.is_served() {
                served.insert(name, request.began_us);
            }
            let Some(warm_us) = warm_us else { continue };
            if edits.may_end(&request.credential, &request.route, warm_us, ended_us)
                || !weather.is_fair(request.node, warm_us, request.began_us, ended_us)
            {
                continue;
            }
            checked += 1;
            by_others += u64::from(weather.is_eventful(request.began_us, ended_us));
            let limited = edits.limited.contains(&request.route);
            if let Some(what) = failure(&request.outcome, limited) {
                let why = format!(
                    "request {} by {} on {} through node {} {what}; the node had served it before, no fault touches the \
                     node, and a majority is in order",
                    request.request, request.credential, request.route, request.node
                );
                return Verdict::Violated { at_us: ended_us, why };
            }
        }
        match (checked, by_others) {
            (0, _) => Verdict::Vacuous { why: "no warm key was shown to a node in order".to_owned() },
            (_, 0) if !weather.lives.is_empty() => {
                Verdict::Vacuous { why: "no warm key was shown while a fault touched another node".to_owned() }
            }
            (checked, _) => Verdict::Held { checked },
        }
    }
}

/// When nodes that no fault touched took longer than this to say how they are.
fn starved(history: &History, lives: &[Life], patience_us: u64) -> Vec<(u64, u64)> {
    let slow = history.events.iter().filter_map(|Event { at_us, what }| match what {
        What::Observed(observed) if at_us.saturating_sub(observed.began_us) > patience_us => {
            let touches = |life: &Life| {
                life.nodes.contains(&observed.node) && life.from_us <= *at_us && life.until_us >= observed.began_us
            };
            (!lives.iter().any(touches)).then_some((observed.began_us, *at_us))
        }
        _ => None,
    });
    slow.collect()
}

/// What is wrong with an outcome, if anything.
fn failure(outcome: &RequestOutcome, limited: bool) -> Option<String> {
    match outcome {
        RequestOutcome::Lost { why, .. } => Some(format!("got no answer ({why})")),
        RequestOutcome::Answered { status, problem } => match problem.as_deref() {
            None | Some("rate-limited" | "overloaded") => None,
            Some(problem) if problem.starts_with("upstream-") => None,
            Some("limit-unavailable") if limited => None,
            Some(problem) => Some(format!("was refused with {status} {problem}")),
        },
    }
}

/// What was done to keys, consumers and routes.
struct Edits {
    /// When the first operation began that may end a credential.
    ends: HashMap<Text, u64>,
    /// When operations on a route or consumer began, and when they were over.
    touched: HashMap<String, Vec<(u64, u64)>>,
    consumers: HashMap<Text, (Text, Text)>,
    /// The routes with limits.
    limited: HashSet<Text>,
}

impl Edits {
    fn of(history: &History) -> Self {
        let mut edits =
            Self { ends: HashMap::new(), touched: HashMap::new(), consumers: HashMap::new(), limited: HashSet::new() };
        for Event { at_us, what } in &history.events {
            match what {
                What::Admin(admin) => {
                    let undone = matches!(admin.outcome, AdminOutcome::Refused(_) | AdminOutcome::Failed { .. });
                    if undone || admin.operation.is_read() {
                        continue;
                    }
                    for credential in &admin.ends {
                        let first = edits.ends.entry(Text::clone(credential)).or_insert(admin.began_us);
                        *first = (*first).min(admin.began_us);
                    }
                    let is_known = matches!(admin.outcome, AdminOutcome::Done { .. });
                    let over_us = if is_known { *at_us } else { u64::MAX };
                    let object = admin.operation.object().to_owned();
                    edits.touched.entry(object).or_default().push((admin.began_us, over_us));
                }
                What::Credential(it) => {
                    let of = (Text::clone(&it.key), Text::clone(&it.consumer));
                    edits.consumers.insert(Text::clone(&it.name), of);
                }
                What::Route(route) if !route.limits.is_empty() => drop(edits.limited.insert(Text::clone(&route.name))),
                _ => {}
            }
        }
        edits
    }

    /// Whether something was done since it was served last that may change the answer.
    fn may_end(&self, credential: &Text, route: &Text, warm_us: u64, ended_us: u64) -> bool {
        let touched = |object: String| {
            let of = self.touched.get(&object).into_iter().flatten();
            of.into_iter().any(|(began_us, over_us)| *began_us <= ended_us && *over_us >= warm_us)
        };
        self.ends.get(credential).is_some_and(|began_us| *began_us <= ended_us)
            || touched(format!("route/{route}"))
            || self
                .consumers
                .get(credential)
                .is_none_or(|(key, consumer)| touched(format!("consumer/{consumer}")) || touched(format!("key/{key}")))
    }
}

impl Weather {
    /// Whether a request must be served by a node that served one like it at `warm_us`.
    fn is_fair(&self, node: u64, warm_us: u64, began_us: u64, ended_us: u64) -> bool {
        if !self.members.contains(&node) {
            return false;
        }
        let since_us = began_us.saturating_sub(self.window_us);
        if self.starved.iter().any(|(from_us, until_us)| *from_us <= ended_us && *until_us >= since_us) {
            return false;
        }
        let mut touched = BTreeSet::new();
        let mut events = 0;
        for life in self.lives.iter().filter(|life| life.from_us <= ended_us) {
            let back_us = life.until_us.saturating_add(self.window_us).saturating_add(COMING_BACK_US);
            if life.nodes.contains(&node) && life.until_us.saturating_add(self.window_us) >= warm_us {
                return false;
            }
            if life.until_us >= since_us && !life.spares_others {
                return false;
            }
            if back_us >= since_us {
                touched.extend(&life.nodes);
            }
            events += usize::from(life.from_us >= since_us);
            events += usize::from((since_us..=ended_us).contains(&life.until_us));
        }
        let in_order = self.members.difference(&touched).count();
        events <= 1 && in_order * 2 > self.members.len()
    }

    /// Whether a fault was there meanwhile, or shortly before.
    fn is_eventful(&self, began_us: u64, ended_us: u64) -> bool {
        let since_us = began_us.saturating_sub(self.window_us);
        self.lives.iter().any(|life| life.from_us <= ended_us && life.until_us >= since_us)
    }
}

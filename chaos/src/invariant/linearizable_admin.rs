//! Admin operations are linearizable: there is an order of them, in which each lies between its beginning and its answer,
//! and in which every answer is right.
//!
//! Linearizability is local (Herlihy and Wing): it holds if it holds of each object alone, so the operations are divided
//! by object. A file that changes several objects counts for each of them, which checks less than that it changed them at
//! once, never more. What is not known to have been done may have been done at any time since, or never. What was surely
//! not done for reasons of its own is left out. The search is bounded: where it gives up, it says so.

mod doubt;
mod object;
mod search;

use super::{Invariant, Verdict};
use crate::history::{Admin, AdminOutcome, Event, History, Operation, What};
use object::{Answer, Deed};
use search::{Found, Timed};
use std::collections::{BTreeMap, HashMap};

/// See above.
#[derive(Clone, Copy, Debug)]
pub struct LinearizableAdmin;

/// Steps of the search for one object.
const STEPS_MAX: u64 = 3_000_000;

impl Invariant for LinearizableAdmin {
    fn name(&self) -> &'static str {
        "linearizable_admin"
    }

    fn check(&self, history: &History) -> Verdict {
        let (mut checked, mut given_up) = (0, Vec::new());
        for (object, operations) in by_object(history) {
            let known = operations.iter().filter(|operation| operation.ended_us.is_some()).count() as u64;
            match search::search(&operations, STEPS_MAX) {
                Found::Order => checked += known,
                Found::None { stuck } => {
                    let last = stuck.iter().filter_map(|place| operations.get(*place));
                    let shown: Vec<String> = last.clone().map(|operation| operation.to_string()).collect();
                    return Verdict::Violated {
                        at_us: last.filter_map(|operation| operation.ended_us).min().unwrap_or(0),
                        why: format!(
                            "no order of the {} operations on {object} explains their answers; the longest ends before: {}",
                            operations.len(),
                            shown.join("; ")
                        ),
                    };
                }
                Found::GaveUp => given_up.push(format!("{object} ({} operations)", operations.len())),
            }
        }
        match (checked, given_up.is_empty()) {
            (checked, false) => Verdict::Undecided {
                why: format!("the search was given up for {}; {checked} others are in order", given_up.join(", ")),
            },
            (0, true) => Verdict::Vacuous { why: "no admin operation was answered".to_owned() },
            (checked, true) => Verdict::Held { checked },
        }
    }
}

/// The operations on each object, those first that began first. Two events of one request are one operation.
fn by_object(history: &History) -> BTreeMap<&str, Vec<Timed<'_>>> {
    let mut objects: BTreeMap<&str, Vec<Timed<'_>>> = BTreeMap::new();
    let mut requests: HashMap<(&str, &str), usize> = HashMap::new();
    for Event { at_us, what } in &history.events {
        let What::Admin(admin) = what else { continue };
        let Some(operation) = timed(admin, *at_us) else { continue };
        let object = admin.operation.object();
        let operations = objects.entry(object).or_default();
        let place = operations.len();
        if admin.request.is_empty() {
            operations.push(operation);
            continue;
        }
        let first = *requests.entry((object, &admin.request)).or_insert(place);
        match operations.get_mut(first) {
            Some(before) => before.merge(operation),
            None => operations.push(operation),
        }
    }
    for operations in objects.values_mut() {
        operations.sort_by_key(|operation| operation.began_us);
        doubt::loosen(operations);
        doubt::settle(operations);
        doubt::forget(operations);
    }
    objects
}

/// An operation as the search sees it; `None` if it says nothing of the object.
fn timed(admin: &Admin, at_us: u64) -> Option<Timed<'_>> {
    let deed = match &admin.operation {
        Operation::Read { .. } => Deed::Read,
        Operation::Create { value, .. } => Deed::Create { value },
        Operation::Put { value, expected, .. } => Deed::Put { value, expected: *expected },
        Operation::Change { value, expected, .. } => Deed::Change { value, expected: *expected },
        Operation::Delete { expected, .. } => Deed::Delete { expected: *expected },
    };
    let (answer, ended_us) = match &admin.outcome {
        AdminOutcome::Found(found) => (Answer::Found(found.as_ref()), Some(at_us)),
        AdminOutcome::Done { revision, .. } => (Answer::Done(*revision), Some(at_us)),
        AdminOutcome::Refused(refused) => (Answer::Refused(*refused), Some(at_us)),
        AdminOutcome::Unknown { .. } if !admin.operation.is_read() => (Answer::Unknown, None),
        AdminOutcome::Unknown { .. } | AdminOutcome::Failed { .. } => return None,
    };
    Some(Timed { began_us: admin.began_us, ended_us, deed, answer, attempts: admin.attempts, loose: false })
}

#[cfg(test)]
mod tests;

//! Every acknowledged write is seen in the final state, unless one that came later, or at the same time, took its place.
//!
//! The final state is what reads say that began after the run settled. Revisions tell which write an object holds; a
//! write that changed nothing (it put what was there) holds if its value is there.

use super::{Invariant, Verdict, joined};
use crate::history::{Admin, AdminOutcome, Event, History, Operation, Version, What};
use std::collections::BTreeMap;

/// See above.
#[derive(Clone, Copy, Debug)]
pub struct AckedSurvives;

/// A write that was done, or may have been.
#[derive(Clone, Copy)]
struct Write<'a> {
    admin: &'a Admin,
    /// The end of time for one that may have been done.
    ended_us: u64,
    /// Its revision, if it was acknowledged.
    revision: Option<u64>,
}

impl Write<'_> {
    /// What it makes of the object; `None` if it deletes it.
    fn value(&self) -> Option<&str> {
        match &self.admin.operation {
            Operation::Create { value, .. } | Operation::Put { value, .. } | Operation::Change { value, .. } => {
                Some(value)
            }
            Operation::Delete { .. } | Operation::Read { .. } => None,
        }
    }
}

impl Invariant for AckedSurvives {
    fn name(&self) -> &'static str {
        "acked_survives"
    }

    fn check(&self, history: &History) -> Verdict {
        let Some((settled_us, _)) = joined::settled(history) else {
            return Verdict::Vacuous { why: "the run did not come to a final state".to_owned() };
        };
        let mut finals: BTreeMap<&str, Option<&Version>> = BTreeMap::new();
        let mut writes: BTreeMap<&str, Vec<Write<'_>>> = BTreeMap::new();
        for Event { at_us, what } in &history.events {
            let What::Admin(admin) = what else { continue };
            let object = admin.operation.object();
            match &admin.outcome {
                AdminOutcome::Found(found) if admin.began_us >= settled_us => {
                    finals.insert(object, found.as_ref());
                }
                AdminOutcome::Done { revision, .. } => {
                    let write = Write { admin, ended_us: *at_us, revision: Some(*revision) };
                    writes.entry(object).or_default().push(write);
                }
                AdminOutcome::Unknown { .. } if !admin.operation.is_read() => {
                    writes.entry(object).or_default().push(Write { admin, ended_us: u64::MAX, revision: None });
                }
                _ => {}
            }
        }
        let mut checked = 0;
        for (object, found) in finals {
            let writes = writes.remove(object).unwrap_or_default();
            for write in writes.iter().filter(|write| write.revision.is_some()) {
                checked += 1;
                if !is_accounted_for(write, found, &writes) {
                    return Verdict::Violated { at_us: write.ended_us, why: lost(object, write, found) };
                }
            }
        }
        match checked {
            0 => Verdict::Vacuous { why: "no object that was written was read at the end".to_owned() },
            checked => Verdict::Held { checked },
        }
    }
}

/// Whether an acknowledged write is in the final version, or another one that may have come after it is.
fn is_accounted_for(write: &Write<'_>, found: Option<&Version>, writes: &[Write<'_>]) -> bool {
    let revision = write.revision.unwrap_or(0);
    match (found, write.value()) {
        (None, None) => return true,
        // Of its revision; or older, and then it changed nothing, as its value was there already.
        (Some(found), Some(value)) if found.value == value && found.revision <= revision => return true,
        (Some(found), _) if found.revision <= revision => return false,
        _ => {}
    }
    writes.iter().any(|other| {
        let may_have_come_later = other.ended_us >= write.admin.began_us;
        let is_other = other.admin.request != write.admin.request;
        let made_it = match (found, other.value()) {
            (None, None) => other.revision.is_none_or(|other| other > revision),
            (Some(found), Some(value)) => {
                found.value == value && other.revision.is_none_or(|other| other >= found.revision)
            }
            _ => false,
        };
        may_have_come_later && is_other && made_it
    })
}

fn lost(object: &str, write: &Write<'_>, found: Option<&Version>) -> String {
    let found = found.map_or_else(
        || "there is none".to_owned(),
        |found| format!("it holds {:?} of revision {}", found.value, found.revision),
    );
    format!(
        "{:?} of {object} was acknowledged with revision {} and is lost: at the end {found}, which no later write made",
        write.admin.operation,
        write.revision.unwrap_or(0),
    )
}

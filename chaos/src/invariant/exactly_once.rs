//! An operation that was sent again with the same request id took effect once: every answer to it says the same, and the
//! audit log has no more changes of a subject than there were operations that may have made them.
//!
//! A retry of the creation of a key whose answer was lost may rotate the key's secret: that is what it promises.

use super::{Invariant, Verdict};
use crate::history::{Admin, AdminOutcome, Event, History, Operation, What};
use std::collections::{BTreeMap, BTreeSet};

/// See above.
#[derive(Clone, Copy, Debug)]
pub struct ExactlyOnce;

/// What may have changed a subject in one way.
#[derive(Default)]
struct Tried<'a> {
    /// Request ids that were acknowledged, with their revisions.
    done: BTreeMap<&'a str, u64>,
    /// Request ids whose outcome is not known.
    unknown: BTreeSet<&'a str>,
    /// Changes that retries may have made beside.
    beside: u64,
}

/// An action and its subject, as the audit log names them.
type Named<'a> = (&'a str, &'a str);

impl Invariant for ExactlyOnce {
    fn name(&self) -> &'static str {
        "exactly_once"
    }

    fn check(&self, history: &History) -> Verdict {
        let mut checked = 0;
        let mut answers: BTreeMap<(&str, &str), &Admin> = BTreeMap::new();
        let mut tried: BTreeMap<Named<'_>, Tried<'_>> = BTreeMap::new();
        for Event { at_us, what } in &history.events {
            let What::Admin(admin) = what else { continue };
            if admin.operation.is_read() || admin.request.is_empty() {
                continue;
            }
            if let Some((first, second)) = contradiction(&mut answers, admin, &mut checked) {
                let why = format!(
                    "the request {} for {:?} was answered with {first:?} and with {second:?}",
                    admin.request, admin.operation
                );
                return Verdict::Violated { at_us: *at_us, why };
            }
            note(&mut tried, admin);
        }
        if let Some(verdict) = twice_in_the_audit_log(history, &tried, &mut checked) {
            return verdict;
        }
        match checked {
            0 => Verdict::Vacuous { why: "nothing was asked twice, and no audit log was read".to_owned() },
            checked => Verdict::Held { checked },
        }
    }
}

/// Two known answers to one request that do not agree.
fn contradiction<'a>(
    answers: &mut BTreeMap<(&'a str, &'a str), &'a Admin>,
    admin: &'a Admin,
    checked: &mut u64,
) -> Option<(&'a AdminOutcome, &'a AdminOutcome)> {
    if !matches!(admin.outcome, AdminOutcome::Done { .. } | AdminOutcome::Refused(_)) {
        return None;
    }
    let before = answers.insert((&admin.request, admin.operation.object()), admin)?;
    *checked += 1;
    let agree = match (&before.outcome, &admin.outcome) {
        (AdminOutcome::Done { revision: first, .. }, AdminOutcome::Done { revision: second, .. }) => {
            first == second || is_key_creation(admin)
        }
        (AdminOutcome::Refused(_), AdminOutcome::Refused(_)) => true,
        _ => false,
    };
    (!agree).then_some((&before.outcome, &admin.outcome))
}

fn is_key_creation(admin: &Admin) -> bool {
    matches!(&admin.operation, Operation::Create { object, .. } if object.starts_with("key/"))
}

fn note<'a>(tried: &mut BTreeMap<Named<'a>, Tried<'a>>, admin: &'a Admin) {
    let Some((action, subject)) = &admin.audit else { return };
    let of = tried.entry((action, subject)).or_default();
    let request = admin.request.as_str();
    match &admin.outcome {
        AdminOutcome::Done { revision, .. } => {
            of.unknown.remove(request);
            of.done.insert(request, *revision);
        }
        AdminOutcome::Unknown { .. } if !of.done.contains_key(request) => drop(of.unknown.insert(request)),
        _ => {}
    }
    if is_key_creation(admin) {
        of.beside += u64::from(admin.attempts);
        tried.entry(("key.rotate", subject)).or_default().beside += u64::from(admin.attempts);
    }
}

/// More changes in the audit log than operations that may have made them.
fn twice_in_the_audit_log(
    history: &History,
    tried: &BTreeMap<Named<'_>, Tried<'_>>,
    checked: &mut u64,
) -> Option<Verdict> {
    let mut changes: BTreeMap<Named<'_>, BTreeMap<u64, u64>> = BTreeMap::new();
    for Event { what, .. } in &history.events {
        let What::Audited(audited) = what else { continue };
        let of = changes.entry((&audited.action, &audited.subject)).or_default();
        // By its number: the log may have been read more than once.
        of.insert(audited.number, audited.revision);
    }
    let at_us = history.events.last().map_or(0, |event| event.at_us);
    for (name, changes) in changes {
        let Some(of) = tried.get(&name) else { continue };
        *checked += 1;
        let acknowledged: BTreeSet<u64> = of.done.values().copied().collect();
        let others = changes.values().filter(|revision| !acknowledged.contains(revision)).count() as u64;
        // The creation of a key is answered with the revision of the rotation that a retry made.
        let may_be = of.unknown.len() as u64 + of.beside;
        let revisions: BTreeSet<u64> = changes.values().copied().collect();
        let is_once = name.0 != "key.create" || changes.len() <= 1;
        if others > may_be || revisions.len() != changes.len() || !is_once {
            let why = format!(
                "{} of {} happened at the revisions {:?}; the requests that were acknowledged made {acknowledged:?}, and \
                 at most {may_be} others may have done it",
                name.0,
                name.1,
                changes.values().collect::<Vec<_>>(),
            );
            return Some(Verdict::Violated { at_us, why });
        }
    }
    None
}

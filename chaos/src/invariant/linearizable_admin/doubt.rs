//! What need not be searched: operations in doubt of which other answers tell whether and when they were done, or which no
//! answer could tell from not done. Without this, each of them doubles the orders there are.

use super::{
    object::{Answer, Deed},
    search::Timed,
};
use crate::history::Refused;
use std::collections::{BTreeSet, HashMap};

/// Marks the operations of objects whose revisions say little: where a key's creation was tried more than once, its
/// answer may be the revision of a rotation that a retry made, and reads may see either.
pub(super) fn loosen(operations: &mut [Timed<'_>]) {
    let tried_again = |operation: &Timed<'_>| matches!(operation.deed, Deed::Create { .. }) && operation.attempts > 1;
    if operations.iter().any(tried_again) {
        operations.iter_mut().for_each(|operation| operation.loose = true);
    }
}

/// A write in doubt whose value was read, and which nobody else wrote, was done before the first such read was over; if it is known
/// that the value was not there from the beginning.
pub(super) fn settle(operations: &mut [Timed<'_>]) {
    let mut writers: HashMap<&str, u32> = HashMap::new();
    // The end and the revision of the read of a value that was over first, and when the first of them began.
    let mut seen: HashMap<&str, (u64, u64, u64)> = HashMap::new();
    // When something is known of the object: what is read later was not there from the beginning.
    let mut known_us = u64::MAX;
    for operation in operations.iter() {
        if let Some(value) = operation.deed.value() {
            *writers.entry(value).or_default() += 1;
        }
        let ended_us = operation.ended_us.unwrap_or(u64::MAX);
        if matches!(operation.answer, Answer::Done(_) | Answer::Found(_)) {
            known_us = known_us.min(ended_us);
        }
        if let Answer::Found(Some(version)) = operation.answer {
            let (ended, revision, began) = seen.entry(&version.value).or_insert((u64::MAX, 0, u64::MAX));
            if ended_us <= *ended {
                (*ended, *revision) = (ended_us, version.revision);
            }
            *began = operation.began_us.min(*began);
        }
    }
    for operation in operations.iter_mut().filter(|operation| operation.answer == Answer::Unknown) {
        let Some((value, (ended_us, revision, first_us))) =
            operation.deed.value().and_then(|value| Some((value, *seen.get(value)?)))
        else {
            continue;
        };
        let alone = writers.get(value) == Some(&1);
        let is_new = known_us < operation.began_us.min(first_us);
        if alone && is_new && ended_us >= operation.began_us && !operation.loose {
            (operation.ended_us, operation.answer) = (Some(ended_us), Answer::Done(revision));
        }
    }
}

/// Drops writes in doubt whose value nobody ever saw, if no answer needs another revision than those that are known: an
/// order with such a write is an order without it. A `Put` stays where it may have made what a later change found there, and all stay
/// where one of them may be why a later write changed anything.
pub(super) fn forget(operations: &mut Vec<Timed<'_>>) {
    let perhaps = perhaps_no_change(operations);
    let known: BTreeSet<u64> = operations
        .iter()
        .filter_map(version_of)
        .map(|(_, revision)| revision)
        .filter(|revision| !perhaps.contains(revision))
        .collect();
    let is_explained = |operation: &Timed<'_>| match (operation.answer, operation.deed) {
        (Answer::Refused(Refused::Conflict { actual: Some(actual) }), _) => known.contains(&actual),
        (Answer::Refused(_), _) => false,
        // One in doubt may have to have been done, and then it found what it expects.
        (Answer::Done(_) | Answer::Unknown, deed) => deed.expected().is_none_or(|expected| known.contains(&expected)),
        (Answer::Found(Some(version)), _) => known.contains(&version.revision),
        (Answer::Found(None), _) => true,
    };
    if !operations.iter().all(is_explained) {
        return;
    }
    let seen: BTreeSet<&str> = operations.iter().filter_map(version_of).map(|(value, _)| value).collect();
    let was_absent = operations.iter().any(|operation| match operation.deed {
        Deed::Read => operation.answer == Answer::Found(None),
        Deed::Create { .. } | Deed::Delete { .. } => true,
        Deed::Put { .. } | Deed::Change { .. } => false,
    });
    let was_there = operations.iter().any(|operation| {
        matches!((operation.deed, operation.answer), (Deed::Change { .. } | Deed::Delete { .. }, Answer::Done(_)))
    });
    let may_have_made = was_absent && was_there;
    operations.retain(|operation| {
        let replaces = match operation.deed {
            Deed::Put { .. } => !may_have_made,
            Deed::Change { .. } => true,
            _ => false,
        };
        let in_doubt = operation.answer == Answer::Unknown && replaces;
        !in_doubt || operation.deed.value().is_some_and(|value| seen.contains(value))
    });
}

/// What the object held at a revision, unless the write changed nothing.
fn version_of<'a>(operation: &Timed<'a>) -> Option<(&'a str, u64)> {
    match operation.answer {
        Answer::Found(version) => version.map(|version| (version.value.as_str(), version.revision)),
        Answer::Done(revision) => operation.deed.value().map(|value| (value, revision)),
        _ => None,
    }
}

/// The revisions of values of which some write may have changed nothing, because the value was there before it: then the object had
/// fewer of them, unless something came between.
fn perhaps_no_change(operations: &[Timed<'_>]) -> BTreeSet<u64> {
    let versions: BTreeSet<(&str, u64)> = operations.iter().filter_map(version_of).collect();
    let of = |value| versions.iter().filter(move |(held, _)| *held == value).map(|(_, revision)| *revision);
    let is_doubtful = |operation: &Timed<'_>, value| {
        let found_another = operation
            .deed
            .expected()
            .is_some_and(|expected| versions.iter().any(|(held, at)| *at == expected && *held != value));
        let writers = operations.iter().filter(|other| other.deed.value() == Some(value)).count();
        !found_another && (writers > 1 || of(value).count() > 1)
    };
    operations
        .iter()
        .filter_map(|operation| match (operation.answer, operation.deed) {
            (Answer::Done(_) | Answer::Unknown, Deed::Put { value, .. } | Deed::Change { value, .. }) => {
                is_doubtful(operation, value).then_some(value)
            }
            _ => None,
        })
        .flat_map(of)
        .collect()
}

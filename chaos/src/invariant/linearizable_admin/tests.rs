//! Histories that are linearizable and that are not, and the search against one that tries every order.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use super::{
    LinearizableAdmin, STEPS_MAX, doubt,
    object::{Answer, Deed, Object},
    search::{Found, Timed, search},
};
use crate::{
    history::{AdminOutcome, Operation, REVOKED, Refused, Version, What},
    invariant::{
        Verdict,
        script::{Script, change, create, delete, done, found, put, read, refused, unknown},
    },
};
use proptest::prelude::*;

fn none() -> AdminOutcome {
    AdminOutcome::Found(None)
}

fn conflict(actual: u64) -> AdminOutcome {
    refused(Refused::Conflict { actual: Some(actual) })
}

fn script(rows: &[(u64, u64, Operation, AdminOutcome)]) -> Script {
    let mut script = Script::new();
    for (began, ended, operation, outcome) in rows {
        script.admin((*began, *ended), operation.clone(), outcome.clone());
    }
    script
}

#[track_caller]
fn holds(rows: &[(u64, u64, Operation, AdminOutcome)]) {
    script(rows).holds(&LinearizableAdmin);
}

#[track_caller]
fn is_violated(rows: &[(u64, u64, Operation, AdminOutcome)]) {
    script(rows).is_violated(&LinearizableAdmin);
}

#[test]
fn a_read_sees_what_was_acknowledged_before_it() {
    holds(&[(0, 1, put("a", "1"), done(5)), (2, 3, read("a"), found("1", 5))]);
    is_violated(&[(0, 1, put("a", "1"), done(5)), (2, 3, read("a"), none())]);
    let both = [(0, 1, put("a", "1"), done(5)), (2, 3, put("a", "2"), done(6))];
    let with = |row| [both[0].clone(), both[1].clone(), row];
    holds(&with((4, 5, read("a"), found("2", 6))));
    is_violated(&with((4, 5, read("a"), found("1", 5))));
    // The read and the second write cross.
    holds(&with((1, 5, read("a"), found("1", 5))));
    // Another object is another matter.
    holds(&with((4, 5, read("b"), none())));
}

#[test]
fn reads_do_not_go_back() {
    let write = (0, 9, put("a", "2"), done(6));
    let before = (0, 1, read("a"), found("1", 5));
    holds(&[write.clone(), before.clone(), (2, 3, read("a"), found("2", 6)), (4, 5, read("a"), found("2", 6))]);
    is_violated(&[write, (0, 1, read("a"), found("2", 6)), (2, 3, read("a"), found("1", 5)), before]);
}

#[test]
fn what_is_not_known_may_be_done_late_or_never() {
    let lost = (0, 1, put("a", "2"), unknown());
    let old = |at| (at, at + 1, read("a"), found("1", 5));
    let new = |at| (at, at + 1, read("a"), found("2", 8));
    holds(&[lost.clone(), old(2), old(4)]);
    holds(&[lost.clone(), old(2), new(4), new(6)]);
    is_violated(&[lost.clone(), old(2), new(4), old(6)]);
    // It cannot be done before it was asked for.
    is_violated(&[new(0), (4, 5, put("a", "2"), unknown()), old(6), new(8)]);
    // Once only.
    let over = (6, 7, put("a", "3"), done(9));
    is_violated(&[lost.clone(), old(2), new(4), over, (8, 9, read("a"), found("2", 10))]);
}

#[test]
fn an_edit_that_expects_a_revision_is_done_at_that_revision() {
    let first = (0, 1, create("a", "1"), done(5));
    let edit = |began, ended, value, outcome| (began, ended, change("a", value, Some(5)), outcome);
    holds(&[first.clone(), edit(2, 9, "2", done(6)), edit(3, 9, "3", conflict(6))]);
    is_violated(&[first.clone(), edit(2, 9, "2", done(6)), edit(3, 9, "3", done(7))]);
    is_violated(&[first.clone(), edit(2, 3, "2", conflict(5))]);
    is_violated(&[first.clone(), edit(2, 3, "2", conflict(4))]);
    is_violated(&[first, (2, 3, change("a", "2", Some(4)), done(6))]);
}

#[test]
fn things_are_made_once_and_gone_when_deleted() {
    let made = (0, 1, create("a", "1"), done(5));
    let again = |outcome| (2, 3, create("a", "1"), outcome);
    holds(&[made.clone(), again(refused(Refused::AlreadyExists))]);
    is_violated(&[made.clone(), again(done(6))]);
    let gone = (4, 5, delete("a"), done(7));
    holds(&[made.clone(), gone.clone(), (6, 7, read("a"), none()), (8, 9, create("a", "2"), done(8))]);
    is_violated(&[made.clone(), gone.clone(), (6, 7, read("a"), found("1", 5))]);
    is_violated(&[made.clone(), gone.clone(), (6, 7, delete("a"), done(8))]);
    holds(&[made.clone(), gone, (6, 7, delete("a"), refused(Refused::NotFound))]);
    is_violated(&[made, (6, 7, delete("a"), refused(Refused::NotFound))]);
}

#[test]
fn revisions_grow() {
    is_violated(&[(0, 1, put("a", "1"), done(5)), (2, 3, put("a", "2"), done(4))]);
    is_violated(&[(0, 1, delete("a"), done(5)), (2, 3, create("a", "2"), done(4))]);
    // What is there already is not changed, and the cluster's revision is another's.
    holds(&[(0, 1, put("a", "1"), done(5)), (2, 3, put("a", "1"), done(9)), (4, 5, read("a"), found("1", 5))]);
    is_violated(&[(0, 1, put("a", "1"), done(5)), (2, 3, put("a", "1"), done(9)), (4, 5, read("a"), found("1", 9))]);
}

#[test]
fn revoked_is_for_good() {
    let revoke = (0, 1, change("key/k1", REVOKED, None), done(5));
    holds(&[revoke.clone(), (2, 3, change("key/k1", "live 2", None), refused(Refused::Revoked))]);
    is_violated(&[revoke.clone(), (2, 3, change("key/k1", "live 2", None), done(6))]);
    is_violated(&[revoke.clone(), (2, 3, read("key/k1"), found("live 1", 3))]);
    holds(&[revoke.clone(), (2, 3, change("key/k1", REVOKED, None), done(5))]);
    is_violated(&[
        (0, 1, read("key/k1"), found("live 1", 3)),
        (2, 3, change("key/k1", "live 2", None), refused(Refused::Revoked)),
    ]);
}

#[test]
fn a_request_that_was_answered_twice_is_one() {
    let mut twice = script(&[
        (0, 1, put("a", "1"), done(5)),
        (2, 3, put("a", "2"), done(6)),
        (4, 5, put("a", "1"), done(5)),
        (6, 7, read("a"), found("2", 6)),
    ]);
    twice.is_violated(&LinearizableAdmin);
    for event in &mut twice.events {
        if let What::Admin(admin) = &mut event.what
            && admin.operation == put("a", "1")
        {
            admin.request = "77".to_owned();
        }
    }
    twice.holds(&LinearizableAdmin);
}

#[test]
fn what_takes_too_long_is_not_held() {
    // Twenty writes that may have been done, and a read of something that nobody wrote.
    let values: Vec<String> = (0..20).map(|value| value.to_string()).collect();
    let mut rows: Vec<_> = values.iter().map(|value| (0, 1, put("a", value), unknown())).collect();
    // An edit says that there was a revision of which nobody knows.
    rows.push((0, 1, read("a"), found("0", 7)));
    rows.push((2, 3, change("a", "20", Some(50)), done(60)));
    rows.push((4, 5, read("a"), found("nobody's", 90)));
    match script(&rows).check(&LinearizableAdmin) {
        Verdict::Undecided { why } => {
            assert!(why.contains("23 operations"), "{why}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_long_history_is_judged() {
    // Four clients for a long time, each write in doubt now and then.
    let mut rows = Vec::new();
    let mut revision = 1;
    for round in 0..500_u64 {
        let at = round * 10;
        let value = round.to_string();
        if round % 50 == 7 {
            rows.push((at, at + 5, put("a", &value), unknown()));
        } else if round % 50 == 9 {
            // It was done all the same, and a read shows it.
            revision += 2;
            rows.push((at, at + 5, put("a", &value), unknown()));
            rows.push((at + 6, at + 8, read("a"), found(&value, revision)));
        } else {
            revision += 2;
            rows.push((at, at + 8, put("a", &value), done(revision)));
            rows.push((at + 1, at + 12, read("a"), found(&value, revision)));
            rows.push((at + 9, at + 9, read("a"), found(&value, revision)));
        }
    }
    holds(&rows);
    rows.push((rows.len() as u64 * 10, u64::MAX, read("a"), found("7", revision)));
    // The write of 7 is in doubt, and may have been done at last, but not at a revision that was another's.
    is_violated(&rows);
}

/// What an operation of a random history is.
#[derive(Clone, Debug)]
struct Row {
    began: u64,
    length: u64,
    deed: u8,
    value: u8,
    expected: u8,
    answer: u8,
    revision: u64,
}

const VALUES: [&str; 3] = ["x", "y", REVOKED];

fn row() -> impl Strategy<Value = Row> {
    (0..12_u64, 0..8_u64, 0..5_u8, 0..3_u8, 0..4_u8, 0..8_u8, 1..5_u64).prop_map(
        |(began, length, deed, value, expected, answer, revision)| Row {
            began,
            length,
            deed,
            value,
            expected,
            answer,
            revision,
        },
    )
}

/// Rows of few values, without preconditions, that are written and read alone: what one of them did shows in another.
fn plain_row() -> impl Strategy<Value = Row> {
    row().prop_map(|row| Row { deed: if row.deed % 2 == 0 { 0 } else { 2 }, value: row.value % 2, expected: 0, ..row })
}

fn operation<'a>(row: &Row, versions: &'a [Version]) -> Timed<'a> {
    let value = VALUES[usize::from(row.value)];
    let expected = (row.expected > 1).then_some(u64::from(row.expected));
    let deed = match row.deed {
        0 => Deed::Read,
        1 => Deed::Create { value },
        2 => Deed::Put { value, expected },
        3 => Deed::Change { value, expected },
        _ => Deed::Delete { expected },
    };
    let version = versions.iter().find(|version| version.revision == row.revision && version.value == value).unwrap();
    let answer = match (deed, row.answer) {
        (Deed::Read, 0..=1) => Answer::Found(None),
        (Deed::Read, _) => Answer::Found(Some(version)),
        (_, 0..=3) => Answer::Done(row.revision),
        (_, 4) => Answer::Unknown,
        (Deed::Create { .. }, _) => Answer::Refused(Refused::AlreadyExists),
        (_, 5) => Answer::Refused(Refused::NotFound),
        (_, 6) => Answer::Refused(Refused::Conflict { actual: Some(row.revision) }),
        (_, _) => Answer::Refused(Refused::Conflict { actual: None }),
    };
    let ended_us = (answer != Answer::Unknown).then_some(row.began + row.length);
    Timed { began_us: row.began, ended_us, deed, answer, attempts: 1, loose: false }
}

/// Tries every order.
fn by_hand(operations: &[Timed<'_>], placed: &mut Vec<usize>, object: Object<'_>) -> bool {
    let rest: Vec<usize> = (0..operations.len()).filter(|place| !placed.contains(place)).collect();
    if rest.iter().all(|place| operations[*place].ended_us.is_none()) {
        return true;
    }
    rest.iter().any(|place| {
        let next = &operations[*place];
        let waits = |other: &usize| operations[*other].ended_us.is_some_and(|ended| ended < next.began_us);
        if rest.iter().any(waits) {
            return false;
        }
        let Some(object) = object.after(next.deed, next.answer, false) else { return false };
        placed.push(*place);
        let found = by_hand(operations, placed, object);
        placed.pop();
        found
    })
}

/// Found by the property below.
#[test]
fn what_need_not_be_searched_makes_no_difference() {
    let of = |(began, length, deed, value), (expected, answer, revision)| Row {
        began,
        length,
        deed,
        value,
        expected,
        answer,
        revision,
    };
    let versions: Vec<Version> =
        (1..5).flat_map(|revision| VALUES.map(|value| Version { revision, value: value.to_owned() })).collect();
    let histories = [
        // The put in doubt made what the change found.
        vec![of((0, 0, 0, 0), (0, 0, 1)), of((0, 0, 2, 0), (0, 4, 1)), of((6, 0, 3, 0), (2, 0, 2))],
        // What the read found may have been there from the beginning, before it was deleted: it says nothing of the creation in doubt.
        vec![of((0, 0, 4, 0), (0, 0, 2)), of((0, 7, 0, 2), (0, 2, 1)), of((1, 0, 1, 2), (0, 4, 1))],
        // The creation needs the deletion in doubt, which needs the put in doubt.
        vec![
            of((0, 0, 0, 0), (0, 2, 1)),
            of((0, 0, 2, 1), (0, 4, 1)),
            of((0, 0, 4, 0), (2, 4, 1)),
            of((0, 0, 1, 0), (0, 0, 4)),
        ],
        // The second put changed something because of the one in doubt, whose value nobody saw.
        vec![
            of((0, 0, 2, 0), (0, 0, 1)),
            of((1, 0, 2, 1), (0, 4, 1)),
            of((2, 0, 2, 0), (0, 0, 3)),
            of((3, 0, 0, 0), (0, 2, 3)),
        ],
    ];
    for rows in histories {
        let mut operations: Vec<Timed<'_>> = rows.iter().map(|row| operation(row, &versions)).collect();
        assert_eq!(search(&operations, STEPS_MAX), Found::Order);
        doubt::settle(&mut operations);
        doubt::forget(&mut operations);
        assert_eq!(search(&operations, STEPS_MAX), Found::Order, "{rows:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]
    #[test]
    fn the_search_finds_an_order_if_there_is_one(
        rows in prop_oneof![prop::collection::vec(row(), 1..7), prop::collection::vec(plain_row(), 3..6)],
    ) {
        let versions: Vec<Version> = (1..5)
            .flat_map(|revision| VALUES.map(|value| Version { revision, value: value.to_owned() }))
            .collect();
        let mut operations: Vec<Timed<'_>> = rows.iter().map(|row| operation(row, &versions)).collect();
        operations.sort_by_key(|operation| operation.began_us);
        let found = search(&operations, STEPS_MAX) == Found::Order;
        // What need not be searched makes no difference.
        let mut fewer = operations.clone();
        doubt::settle(&mut fewer);
        doubt::forget(&mut fewer);
        prop_assert_eq!(search(&fewer, STEPS_MAX) == Found::Order, found);
        prop_assert_eq!(found, by_hand(&operations, &mut Vec::new(), Object::UNSEEN));
    }

    /// A register that exists: whatever it answers is in order, and stays so when the ends of the intervals are moved apart
    /// and some answers are lost. One answer of another time is not.
    #[test]
    fn what_a_real_register_says_is_in_order(
        rows in prop::collection::vec(row(), 1..60),
        lost in prop::collection::vec(any::<bool>(), 60),
        stretch in prop::collection::vec((0..30_u64, 0..30_u64), 60),
    ) {
        let mut script = Script::new();
        let (mut object, mut revision): (Option<(String, u64)>, u64) = (None, 0);
        for (place, row) in rows.iter().enumerate() {
            let at = place as u64 * 10 + 100;
            // Every value is another, but for what is put twice.
            let value = format!("{} {}", row.value, row.revision);
            let expected = (row.expected > 2).then(|| revision.saturating_sub(u64::from(row.expected - 3)));
            let stale = |object: &Option<(String, u64)>| match (object, expected) {
                (Some((_, actual)), Some(expected)) => *actual != expected,
                _ => false,
            };
            let (operation, outcome) = match (row.deed, &object) {
                (0, None) => (read("a"), none()),
                (0, Some((value, at))) => (read("a"), found(value, *at)),
                (1, None) => {
                    revision += 1;
                    object = Some((value.clone(), revision));
                    (create("a", &value), done(revision))
                }
                (1, Some(_)) => (create("a", &value), refused(Refused::AlreadyExists)),
                (2 | 3, Some((_, actual))) if stale(&object) => {
                    (change("a", &value, expected), conflict(*actual))
                }
                (2 | 3, Some((before, _))) => {
                    if *before != value {
                        revision += 1;
                        object = Some((value.clone(), revision));
                    }
                    (change("a", &value, expected), done(revision))
                }
                (_, None) => (delete("a"), refused(Refused::NotFound)),
                (_, Some(_)) => {
                    revision += 1;
                    object = None;
                    (delete("a"), done(revision))
                }
            };
            let outcome = if lost[place] && !operation.is_read() && row.length == 0 { unknown() } else { outcome };
            script.admin((at - stretch[place].0, at + stretch[place].1), operation, outcome);
        }
        let verdict = script.check(&LinearizableAdmin);
        prop_assert!(matches!(verdict, Verdict::Held { .. } | Verdict::Vacuous { .. }), "{}", verdict);
        // Something that nobody wrote.
        let told = |outcome: &AdminOutcome| matches!(outcome, AdminOutcome::Done { .. } | AdminOutcome::Found(_));
        let is_told = |what: &What| matches!(what, What::Admin(admin) if told(&admin.outcome));
        if script.events.iter().any(|event| is_told(&event.what)) {
            script.admin((10_000, 10_001), read("a"), found("nobody's", 1_000));
            let is_held = matches!(script.check(&LinearizableAdmin), Verdict::Held { .. });
            prop_assert!(!is_held);
        }
    }
}

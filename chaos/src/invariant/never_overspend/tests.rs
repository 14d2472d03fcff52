//! Limits that are exceeded, or just not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use super::{NeverOverspend, allowed::Allowed, busiest};
use crate::{
    history::{Limit, Per, Rule},
    invariant::script::{S, Script},
};
use busiest::{Admit, Excess};
use proptest::prelude::*;

const fn rate(tokens: u64, burst: u64) -> Rule {
    Rule::Rate { tokens, period_us: S, burst }
}

const fn quota(amount: u64) -> Rule {
    Rule::Quota { amount, window_us: 60 * S }
}

/// A run with one limit on one route.
fn limited(rule: Rule) -> Script {
    let mut script = Script::new();
    script.limit("burst", rule, 0, 0, true).route("limited", &["burst"], false);
    script
}

/// So many requests, one after the other over all nodes, evenly over this time.
fn spend(script: &mut Script, count: u64, from_us: u64, over_us: u64) {
    for place in 0..count {
        let began_us = from_us + over_us * place / count;
        script.served(place % 3 + 1, "k1#1", "limited", began_us, began_us + 1_000);
    }
}

#[test]
fn a_rate_is_not_exceeded_in_any_interval() {
    let mut script = limited(rate(10, 20));
    script.is_vacuous(&NeverOverspend);
    spend(&mut script, 20, 5 * S, 1_000);
    spend(&mut script, 100, 6 * S, 10 * S);
    assert_eq!(script.holds(&NeverOverspend), 120);
    // More than came since: only an interval over both bursts shows it.
    spend(&mut script, 17, 16 * S + 500_000, 1_000);
    let why = script.is_violated(&NeverOverspend);
    assert!(why.contains("k1") && why.contains("burst"), "{why}");
}

#[test]
fn one_token_too_many_is_seen() {
    let mut script = limited(rate(1, 20));
    spend(&mut script, 21, 5 * S, 1_000);
    script.is_violated(&NeverOverspend);
    let mut script = limited(quota(10));
    for _ in 0..10 {
        script.served(1, "k1#1", "limited", 5 * S, 5 * S + 10).logged(1, 1_000_000_005_000);
    }
    script.holds(&NeverOverspend);
    script.served(2, "k1#1", "limited", 6 * S, 6 * S + 10).logged(2, 1_000_000_006_000);
    script.is_violated(&NeverOverspend);
}

#[test]
fn each_bucket_counts_for_itself() {
    let mut script = limited(rate(1, 5));
    script.credential("k1#2", "k1", "acme").credential("k2#1", "k2", "acme");
    for place in 0..5 {
        script.served(1, "k1#1", "limited", S + place, S + place + 5);
        script.served(1, "k2#1", "limited", S + place, S + place + 5);
    }
    script.holds(&NeverOverspend);
    // Two secrets of one key are one key.
    script.served(2, "k1#2", "limited", S, S + 10);
    assert!(script.is_violated(&NeverOverspend).contains("k1 of the limit"));
}

#[test]
fn a_request_that_hung_counts_where_it_surely_was() {
    let mut script = limited(rate(1, 5));
    for place in 0..5 {
        // Sent early, admitted at some time, forwarded late: it may have been admitted at any time in between.
        script.served(1, "k1#1", "limited", place, 100 * S);
        script.served(1, "k1#1", "limited", 99 * S, 100 * S);
    }
    script.holds(&NeverOverspend);
}

#[test]
fn windows_are_those_of_the_calendar() {
    // Four in the last seconds of a window, and ten in the next.
    let end_ms = 60_000 * 17_000_000;
    let mut script = limited(quota(10));
    for place in 0..4 {
        script.served(1, "k1#1", "limited", (50 + place) * S, (50 + place) * S + 10);
        script.logged(1, end_ms - 10_000 + place * 1_000);
    }
    for place in 0..10 {
        script.served(2, "k1#1", "limited", (61 + place) * S, (61 + place) * S + 10);
        script.logged(2, end_ms + 1_000 + place * 1_000);
    }
    script.holds(&NeverOverspend);
    // Without lines in the log, two windows' worth may be in any 60 s, and no more.
    let mut unlogged = limited(quota(10));
    spend(&mut unlogged, 20, 5 * S, 30 * S);
    unlogged.holds(&NeverOverspend);
    spend(&mut unlogged, 1, 36 * S, S);
    unlogged.is_violated(&NeverOverspend);
}

#[test]
fn while_an_edit_settles_both_rules_count() {
    // Lowered at 10 s from 100 to 10; what was granted before may be spent a lease longer.
    let lowered = || {
        let mut script = limited(rate(1, 100));
        script.limit("burst", rate(1, 10), 10 * S, 11 * S, true);
        script
    };
    let mut script = lowered();
    spend(&mut script, 90, 11 * S + 500_000, 1_000);
    script.holds(&NeverOverspend);
    let mut late = lowered();
    spend(&mut late, 12, 20 * S, 1_000);
    late.is_violated(&NeverOverspend);
    // Whether it was lowered is not known.
    let mut unknown = limited(rate(1, 100));
    unknown.limit("burst", rate(1, 10), 10 * S, 11 * S, false);
    spend(&mut unknown, 90, 20 * S, 1_000);
    unknown.holds(&NeverOverspend);
}

/// Seen in a run: a node whose calendar was 130 ms ahead of the two others' spent the last of a window.
#[test]
fn a_node_that_is_ahead_spends_the_window_before() {
    let end_ms = 60_000 * 17_000_000;
    let of_window = |spent_late: u64| {
        let mut script = limited(quota(10));
        script.served(1, "k1#1", "limited", 60 * S - 70_000, 60 * S - 69_000);
        script.logged(1, end_ms + 60);
        for place in 0..10 + spent_late {
            script.served(2, "k1#1", "limited", (61 + place) * S, (61 + place) * S + 1_000);
            script.logged(2, end_ms + 1_000 + place * 1_000);
        }
        script
    };
    of_window(0).holds(&NeverOverspend);
    of_window(1).is_violated(&NeverOverspend);
}

fn allowed(rule: Rule) -> Allowed {
    let limit = Limit { name: "a".into(), rule, per: Per::Key, began_us: 0, known: true };
    Allowed::of(&[(0, &limit)], 2 * S).unwrap()
}

/// Every interval, one by one.
fn by_hand(admits: &[Admit], tokens: u64, burst: u64) -> bool {
    let begins = admits.iter().map(|admit| admit.began_us);
    begins.into_iter().any(|from_us| {
        admits.iter().filter(|last| last.arrived_us >= from_us).any(|last| {
            let within = |admit: &&Admit| admit.began_us >= from_us && admit.arrived_us <= last.arrived_us;
            let count: u64 = admits.iter().filter(within).map(|admit| admit.cost).sum();
            (count - count.min(burst)) * S > tokens * (last.arrived_us - from_us) + S / 2
        })
    })
}

proptest! {
    #[test]
    fn no_interval_is_missed(
        spans in prop::collection::vec((0..40_u64, 0..10_u64, 1..3_u64), 1..40),
        tokens in 1..8_u64,
        burst in 1..12_u64,
    ) {
        let mut admits: Vec<Admit> = spans
            .iter()
            .enumerate()
            .map(|(place, (began, length, cost))| Admit {
                request: place as u64,
                cost: *cost,
                began_us: began * 100_000,
                arrived_us: (began + length) * 100_000,
                wall_ms: None,
            })
            .collect();
        admits.sort_by_key(|admit| admit.arrived_us);
        let excess = busiest::interval(&admits, &allowed(rate(tokens, burst)));
        prop_assert_eq!(excess.is_some(), by_hand(&admits, tokens, burst), "{:?}", excess);
        if let Some(Excess { from_us, to_us, count, most, .. }) = excess {
            let length = (to_us - from_us) as f64 / S as f64;
            prop_assert!((burst as f64 + tokens as f64 * length - most).abs() < 1e-6);
            prop_assert!(count as f64 > most);
        }
    }
}

#[test]
fn a_long_history_is_judged_in_reasonable_time() {
    let mut admits: Vec<Admit> = (0..200_000_u64)
        .map(|place| Admit {
            request: place,
            cost: 1,
            began_us: place * 1_000,
            arrived_us: place * 1_000 + 700 + place % 7 * 400,
            wall_ms: None,
        })
        .collect();
    admits.sort_by_key(|admit| admit.arrived_us);
    assert_eq!(busiest::interval(&admits, &allowed(rate(1_000, 5))), None);
    admits[150_000].cost = 9;
    assert!(busiest::interval(&admits, &allowed(rate(1_000, 5))).is_some());
}

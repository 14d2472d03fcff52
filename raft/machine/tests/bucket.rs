//! What a bucket promises: never more than `burst + rate·d`, nothing lost, nothing made.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use imbl::OrdMap;
use machine::{
    At, Name, Tick, Wall,
    allowance::{Acquire, Answer, BucketId, Buckets, Part, Want},
    bucket::{Limit, Spent, Terms},
    cap,
    limit::{Quota, Rate, Rule, Window},
};
use proptest::prelude::*;

const TERMS: Terms = Terms { ttl_us: 2_000_000, margin_us: 1_000 };
/// Noon of a day.
const NOON: Wall = Wall(1_795_348_800_000);

fn limits(rules: &[(&str, Rule)]) -> OrdMap<Name, Limit> {
    rules
        .iter()
        .map(|(name, rule)| (Name::new(name).unwrap(), Limit { rule: *rule, generation: 1, changed: Tick(0) }))
        .collect()
}

fn rate(tokens: u64, burst: u64) -> Rule {
    Rule::Rate(Rate { tokens, period_us: 1_000_000, burst })
}

fn at(us: u64) -> At {
    At { tick: Tick(us), wall: NOON.plus_ms(us / 1_000) }
}

fn id(limit: &str) -> BucketId {
    BucketId { limit: Name::new(limit).unwrap(), subject: b"anna".as_slice().into() }
}

fn want(limits: &[&str], waiting: u64, ahead: u64) -> Want {
    Want { parts: limits.iter().map(|limit| Part { bucket: id(limit), cost: 1 }).collect(), waiting, ahead }
}

fn ask(node: u64, request: u64, wants: Vec<Want>) -> Acquire {
    Acquire { node, incarnation: node * 100, request, reports: Vec::new(), wants }
}

fn report(acquire: Acquire, limit: &str, allowance: u64, spent: u64, close: bool) -> Acquire {
    let mut acquire = acquire;
    acquire.reports.push((id(limit), Spent { allowance, spent, close }));
    acquire
}

fn granted(answer: &Answer) -> u64 {
    answer.grants.iter().map(|grant| grant.amount).sum()
}

#[test]
fn scarce_tokens_go_to_those_who_wait_and_evenly() {
    let limits = limits(&[("l", rate(1, 90))]);
    let mut buckets = Buckets::default();
    let asks: Vec<Acquire> = (1..=3).map(|node| ask(node, 1, vec![want(&["l"], 1_000, 500)])).collect();
    let answers = buckets.acquire(&limits, at(0), TERMS, &asks);
    assert_eq!(answers.iter().map(granted).collect::<Vec<_>>(), [30, 30, 30]);
    assert!(answers.iter().all(|answer| answer.scarce[0].due_us == 1_000_000));
}

#[test]
fn a_node_that_was_served_least_is_served_first() {
    let limits = limits(&[("l", rate(10, 10))]);
    let mut buckets = Buckets::default();
    buckets.acquire(&limits, at(0), TERMS, &[ask(1, 1, vec![want(&["l"], 8, 0)])]);
    let asks = [ask(1, 2, vec![want(&["l"], 5, 0)]), ask(2, 1, vec![want(&["l"], 5, 0)])];
    let answers = buckets.acquire(&limits, at(0), TERMS, &asks);
    assert_eq!(answers.iter().map(granted).collect::<Vec<_>>(), [0, 2]);
}

#[test]
fn a_combination_gets_all_of_its_limits_or_none() {
    let limits = limits(&[("wide", rate(100, 100)), ("narrow", rate(1, 3))]);
    let mut buckets = Buckets::default();
    let answers = buckets.acquire(&limits, at(0), TERMS, &[ask(1, 1, vec![want(&["wide", "narrow"], 10, 10)])]);
    let amounts: Vec<u64> = answers[0].grants.iter().map(|grant| grant.amount).collect();
    assert_eq!(amounts, [3, 3]);
    assert_eq!(answers[0].scarce.len(), 1);
}

#[test]
fn a_limit_that_does_not_exist_is_scarce() {
    let (limits, mut buckets) = (limits(&[("a", rate(10, 10))]), Buckets::default());
    let answers = buckets.acquire(&limits, at(0), TERMS, &[ask(1, 1, vec![want(&["a", "gone"], 3, 0)])]);
    assert_eq!(granted(&answers[0]), 0);
    assert_eq!(answers[0].scarce.len(), 1);
    let scarce = &answers[0].scarce[0];
    assert_eq!((scarce.bucket.limit.as_str(), scarce.due_us), ("gone", cap::NO_ROOM_DUE_US));
    assert!(buckets.buckets.is_empty());
}

#[test]
fn plenty_is_given_ahead_but_never_more_than_half_of_what_is_left() {
    let limits = limits(&[("l", rate(1_000, 1_000))]);
    let mut buckets = Buckets::default();
    let asks = [ask(1, 1, vec![want(&["l"], 1, 5_000)]), ask(2, 1, vec![want(&["l"], 1, 100)])];
    let answers = buckets.acquire(&limits, at(0), TERMS, &asks);
    let sum: u64 = answers.iter().map(granted).sum();
    assert!(granted(&answers[1]) >= 10 && sum <= 2 + 499, "{answers:?}");
}

#[test]
fn a_repeated_request_is_answered_again_and_grants_nothing_new() {
    let limits = limits(&[("l", rate(1, 10))]);
    let mut buckets = Buckets::default();
    let asked = [ask(1, 1, vec![want(&["l"], 4, 0)])];
    let first = buckets.acquire(&limits, at(0), TERMS, &asked);
    let again = buckets.acquire(&limits, at(5), TERMS, &asked);
    assert_eq!(first, again);
    assert_eq!(buckets.buckets[&id("l")].outstanding(), 4);
}

#[test]
fn time_counts_only_for_room_that_was_there() {
    // All ten are out at the start; two seconds later the holder says that it spent them. Had the report been booked
    // before the refill, ten more would be there at once: twenty within an instant after them, over burst + rate·0.
    let limits = limits(&[("l", rate(10, 10))]);
    let mut buckets = Buckets::default();
    let first = buckets.acquire(&limits, at(0), TERMS, &[ask(1, 1, vec![want(&["l"], 10, 0)])]);
    let allowance = first[0].grants[0].allowance;
    let asked = report(ask(1, 2, vec![want(&["l"], 10, 0)]), "l", allowance, 10, false);
    let second = buckets.acquire(&limits, at(1_900_000), TERMS, &[asked]);
    assert_eq!(granted(&second[0]), 0);
    let third = buckets.acquire(&limits, at(2_000_000), TERMS, &[ask(1, 3, vec![want(&["l"], 10, 0)])]);
    assert_eq!(granted(&third[0]), 1);
}

#[test]
fn what_expires_counts_as_spent() {
    let limits = limits(&[("l", rate(10, 10))]);
    let mut buckets = Buckets::default();
    buckets.acquire(&limits, at(0), TERMS, &[ask(1, 1, vec![want(&["l"], 10, 0)])]);
    let end = TERMS.ttl_us + TERMS.margin_us;
    let before = buckets.acquire(&limits, at(end - 1), TERMS, &[ask(2, 1, vec![want(&["l"], 1, 0)])]);
    let at_end = buckets.acquire(&limits, at(end), TERMS, &[ask(2, 2, vec![want(&["l"], 1, 0)])]);
    let after = buckets.acquire(&limits, at(end + 100_000), TERMS, &[ask(2, 3, vec![want(&["l"], 5, 0)])]);
    assert_eq!((granted(&before[0]), granted(&at_end[0]), granted(&after[0])), (0, 0, 1));
}

#[test]
fn a_close_returns_what_is_left_once() {
    let limits = limits(&[("l", rate(1, 10))]);
    let mut buckets = Buckets::default();
    let first = buckets.acquire(&limits, at(0), TERMS, &[ask(1, 1, vec![want(&["l"], 10, 0)])]);
    let allowance = first[0].grants[0].allowance;
    for request in 2..5 {
        let close = report(ask(1, request, Vec::new()), "l", allowance, 4, true);
        buckets.acquire(&limits, at(0), TERMS, &[close]);
        assert_eq!(buckets.buckets[&id("l")].available(), 6);
    }
}

#[test]
fn a_late_close_returns_to_a_quota_in_its_window_and_to_nothing_else() {
    let quota = Rule::Quota(Quota { amount: 10, window: Window::Hour });
    let limits = limits(&[("q", quota), ("l", rate(1, 10))]);
    let mut buckets = Buckets::default();
    let wants = vec![want(&["q"], 10, 0), want(&["l"], 10, 0)];
    let first = buckets.acquire(&limits, at(0), TERMS, &[ask(1, 1, wants)]);
    let [quota, rate] = [0, 1].map(|place: usize| {
        first[0].grants.iter().find(|grant| grant.bucket == id(["q", "l"][place])).unwrap().allowance
    });
    let close = |request| report(report(ask(1, request, Vec::new()), "q", quota, 4, true), "l", rate, 4, true);
    buckets.acquire(&limits, at(3_000_000), TERMS, &[close(2)]);
    assert_eq!(buckets.buckets[&id("q")].available(), 6);
    assert!(buckets.buckets.get(&id("l")).is_none_or(|bucket| bucket.outstanding() == 0 && bucket.available() <= 3));
    let next_hour = At { tick: Tick(3_600_000_000), wall: NOON.plus_ms(3_600_000) };
    let fresh = buckets.acquire(&limits, next_hour, TERMS, &[ask(1, 3, vec![want(&["q"], 4, 0)])]);
    assert_eq!(granted(&fresh[0]), 4);
    buckets.acquire(&limits, next_hour, TERMS, &[close(4)]);
    assert_eq!(buckets.buckets[&id("q")].available(), 6);
}

#[test]
fn an_allowance_of_a_quota_ends_before_its_window_by_any_clock() {
    let limits = limits(&[("q", Rule::Quota(Quota { amount: 10, window: Window::Minute }))]);
    let mut buckets = Buckets::default();
    let late = At { tick: Tick(0), wall: NOON.plus_ms(59_000) };
    let answer = buckets.acquire(&limits, late, TERMS, &[ask(1, 1, vec![want(&["q"], 1, 0)])]);
    assert_eq!(answer[0].grants[0].ttl_us, 980_000);
}

#[test]
fn a_lowered_limit_never_grants_more_than_the_larger_of_old_and_new() {
    let mut limits = limits(&[("l", rate(100, 100))]);
    let mut buckets = Buckets::default();
    let first = buckets.acquire(&limits, at(0), TERMS, &[ask(1, 1, vec![want(&["l"], 60, 0)])]);
    let changed = Limit { rule: rate(10, 50), generation: 2, changed: Tick(100_000) };
    limits.insert(Name::new("l").unwrap(), changed);
    let second = buckets.acquire(&limits, at(100_000), TERMS, &[ask(2, 1, vec![want(&["l"], 60, 0)])]);
    assert_eq!(granted(&second[0]), 0, "60 are out of 50");
    let close = report(ask(1, 2, Vec::new()), "l", first[0].grants[0].allowance, 60, true);
    buckets.acquire(&limits, at(100_000), TERMS, &[close]);
    let third = buckets.acquire(&limits, at(600_000), TERMS, &[ask(2, 2, vec![want(&["l"], 60, 0)])]);
    assert_eq!(granted(&third[0]), 5);
}

#[test]
fn a_bucket_that_is_full_again_is_dropped() {
    let limits = limits(&[("l", rate(10, 10))]);
    let mut buckets = Buckets::default();
    buckets.acquire(&limits, at(0), TERMS, &[ask(1, 1, vec![want(&["l"], 10, 0)])]);
    assert_eq!(buckets.sweep(&limits, at(2_500_000), None, 10), None);
    assert_eq!(buckets.buckets.len(), 1);
    buckets.sweep(&limits, at(4_000_000), None, 10);
    assert!(buckets.buckets.is_empty());
}

/// What a random client does next.
#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Ask {
        node: u64,
        waiting: u64,
        ahead: u64,
    },
    /// Spends of what it holds.
    Spend {
        node: u64,
        tokens: u64,
    },
    Report {
        node: u64,
        close: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..700_000_u64).prop_map(Step::Wait),
        (1..4_u64, 0..60_u64, 0..60_u64).prop_map(|(node, waiting, ahead)| Step::Ask { node, waiting, ahead }),
        (1..4_u64, 0..60_u64).prop_map(|(node, tokens)| Step::Spend { node, tokens }),
        (1..4_u64, any::<bool>()).prop_map(|(node, close)| Step::Report { node, close }),
    ]
}

proptest! {
    /// A bucket as a whole, with holders that spend when they like within their time: the admitted requests, driven
    /// through an exact leaky bucket, never rise above the burst.
    #[test]
    fn never_more_than_burst_and_rate(steps in prop::collection::vec(step(), 1..120), per_second in 1..80_u64, burst in 1..80_u64) {
        let limits = limits(&[("l", rate(per_second, burst))]);
        let mut buckets = Buckets::default();
        let mut now = 0_u64;
        let mut requests = [0_u64; 4];
        // allowance, node, amount, spent, deadline
        let mut held: Vec<(u64, u64, u64, u64, u64)> = Vec::new();
        let (mut leaked, mut leaked_at) = (0_u128, 0_u64);
        for step in steps {
            match step {
                Step::Wait(us) => now += us,
                Step::Ask { node, waiting, ahead } => {
                    requests[node as usize] += 1;
                    let asked = ask(node, requests[node as usize], vec![want(&["l"], waiting, ahead)]);
                    let answers = buckets.acquire(&limits, at(now), TERMS, &[asked]);
                    for grant in &answers[0].grants {
                        held.push((grant.allowance, node, grant.amount, 0, now + grant.ttl_us));
                    }
                }
                Step::Spend { node, tokens } => {
                    let mut tokens = tokens;
                    for holding in held.iter_mut().filter(|holding| holding.1 == node && now < holding.4) {
                        let spend = tokens.min(holding.2 - holding.3);
                        holding.3 += spend;
                        tokens -= spend;
                        let drained = u128::from(now - leaked_at) * u128::from(per_second);
                        leaked = leaked.saturating_sub(drained) + u128::from(spend) * 1_000_000;
                        leaked_at = now;
                        prop_assert!(leaked <= u128::from(burst) * 1_000_000);
                    }
                }
                Step::Report { node, close } => {
                    requests[node as usize] += 1;
                    let mut asked = ask(node, requests[node as usize], Vec::new());
                    for holding in held.iter().filter(|holding| holding.1 == node) {
                        asked = report(asked, "l", holding.0, holding.3, close);
                    }
                    if close {
                        held.retain(|holding| holding.1 != node);
                    }
                    buckets.acquire(&limits, at(now), TERMS, &[asked]);
                }
            }
            if let Some(bucket) = buckets.buckets.get(&id("l")) {
                prop_assert!(bucket.available() + bucket.outstanding() <= burst);
            }
        }
    }
}

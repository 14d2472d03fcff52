//! Caps of buckets and of what nodes ask of them: what goes over is not looked at or not remembered, and never too much.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use imbl::OrdMap;
use machine::{
    At, Name, Tick, Wall,
    allowance::{Acquire, Answer, BucketId, Buckets, Part, Want},
    bucket::{Bucket, Limit, Spent, Terms},
    cap,
    limit::{Quota, Rate, Rule, Window},
};
use std::sync::Arc;

const TERMS: Terms = Terms { ttl_us: 2_000_000, margin_us: 1_000 };
const NOON: Wall = Wall(1_795_348_800_000);

fn limits() -> OrdMap<Name, Limit> {
    let rate = Rule::Rate(Rate { tokens: 1_000, period_us: 1_000_000, burst: 10_000_000 });
    let quota = Rule::Quota(Quota { amount: 1_000_000, window: Window::Day });
    [("rate", rate), ("quota", quota)]
        .into_iter()
        .map(|(name, rule)| (Name::new(name).unwrap(), Limit { rule, generation: 1, changed: Tick(0) }))
        .collect()
}

fn at(us: u64) -> At {
    At { tick: Tick(us), wall: NOON.plus_ms(us / 1_000) }
}

fn id(limit: &str, subject: usize) -> BucketId {
    BucketId { limit: Name::new(limit).unwrap(), subject: subject.to_be_bytes().as_slice().into() }
}

fn want(bucket: BucketId, waiting: u64) -> Want {
    Want { parts: vec![Part { bucket, cost: 1 }], waiting, ahead: 0 }
}

fn ask(node: u64, request: u64, wants: Vec<Want>) -> Acquire {
    Acquire { node, incarnation: node, request, reports: Vec::new(), wants }
}

fn tokens(answers: &[Answer]) -> u64 {
    answers.iter().flat_map(|answer| &answer.grants).map(|grant| grant.amount).sum()
}

#[test]
fn wants_of_a_request() {
    let mut buckets = Buckets::default();
    let wants = (0..cap::WANTS_PER_ACQUIRE_MAX + 1).map(|subject| want(id("rate", subject), 1)).collect();
    let answers = buckets.acquire(&limits(), at(0), TERMS, &[ask(1, 1, wants)]);
    assert_eq!(answers[0].grants.len(), cap::WANTS_PER_ACQUIRE_MAX);
}

#[test]
fn reports_of_a_request() {
    let mut buckets = Buckets::default();
    buckets.acquire(&limits(), at(0), TERMS, &[ask(1, 1, vec![want(id("rate", 0), 10)])]);
    let report = |spent| (id("rate", 0), Spent { allowance: 0, spent, close: false });
    let mut reports = vec![report(1); cap::REPORTS_PER_ACQUIRE_MAX];
    reports.push(report(9));
    buckets.acquire(&limits(), at(1), TERMS, &[Acquire { reports, ..ask(1, 2, Vec::new()) }]);
    assert_eq!(buckets.buckets[&id("rate", 0)].allowances().get(0).unwrap().spent, 1);
}

#[test]
fn requests_of_an_entry() {
    let mut buckets = Buckets::default();
    let count = cap::ACQUIRES_PER_ENTRY_MAX + 1;
    let acquires: Vec<_> = (0..count).map(|node| ask(node as u64, 1, vec![want(id("rate", node), 1)])).collect();
    let answers = buckets.acquire(&limits(), at(0), TERMS, &acquires);
    assert_eq!(answers.len(), count, "each is answered");
    assert_eq!(tokens(&answers), cap::ACQUIRES_PER_ENTRY_MAX as u64);
    assert_eq!(answers[count - 1], Answer::default());
    // It was not looked at: sent again, it is served.
    assert_eq!(tokens(&buckets.acquire(&limits(), at(1), TERMS, &acquires[count - 1..])), 1);
}

#[test]
fn limits_of_a_want() {
    let mut buckets = Buckets::default();
    let parts = |count| (0..count).map(|subject| Part { bucket: id("rate", subject), cost: 1 }).collect();
    let with = |count| Want { parts: parts(count), waiting: 1, ahead: 0 };
    let answers = buckets.acquire(&limits(), at(0), TERMS, &[ask(1, 1, vec![with(cap::PARTS_PER_WANT_MAX + 1)])]);
    assert_eq!(answers[0], Answer::default());
    assert_eq!(buckets.acquire(&limits(), at(0), TERMS, &[ask(1, 2, vec![with(0)])])[0], Answer::default());
    let answers = buckets.acquire(&limits(), at(0), TERMS, &[ask(1, 3, vec![with(cap::PARTS_PER_WANT_MAX)])]);
    assert_eq!(answers[0].grants.len(), cap::PARTS_PER_WANT_MAX);
}

#[test]
fn bytes_of_a_subject() {
    let mut buckets = Buckets::default();
    let long = |length| BucketId { subject: vec![b'x'; length].into(), ..id("rate", 0) };
    let wants = vec![want(long(cap::SUBJECT_BYTES_MAX + 1), 1), want(long(cap::SUBJECT_BYTES_MAX), 1)];
    buckets.acquire(&limits(), at(0), TERMS, &[ask(1, 1, wants)]);
    assert_eq!(buckets.buckets.keys().map(|id| id.subject.len()).collect::<Vec<_>>(), [cap::SUBJECT_BYTES_MAX]);
}

#[test]
fn requests_that_wait() {
    let mut buckets = Buckets::default();
    let answers = buckets.acquire(&limits(), at(0), TERMS, &[ask(1, 1, vec![want(id("rate", 0), u64::MAX)])]);
    assert_eq!(tokens(&answers), cap::WAITING_MAX);
}

#[test]
fn how_long_an_allowance_lasts() {
    let mut buckets = Buckets::default();
    let terms = Terms { ttl_us: u64::MAX, margin_us: u64::MAX };
    let answers = buckets.acquire(&limits(), at(0), terms, &[ask(1, 1, vec![want(id("rate", 0), 1)])]);
    assert_eq!(answers[0].grants[0].ttl_us, cap::TERMS_MAX_US);
    let ends = buckets.buckets[&id("rate", 0)].allowances().get(0).unwrap().expires;
    assert_eq!(ends, Tick(2 * cap::TERMS_MAX_US));
}

#[test]
fn allowances_of_a_bucket() {
    let mut buckets = Buckets::default();
    let bucket = id("rate", 0);
    for request in 1..=cap::ALLOWANCES_PER_BUCKET_MAX as u64 {
        let answers = buckets.acquire(&limits(), at(0), TERMS, &[ask(1, request, vec![want(bucket.clone(), 1)])]);
        assert_eq!(tokens(&answers), 1);
    }
    let one_more = |buckets: &mut Buckets, us, request| {
        buckets.acquire(&limits(), at(us), TERMS, &[ask(1, request, vec![want(bucket.clone(), 1)])])
    };
    let answers = one_more(&mut buckets, 1, 5_000);
    assert_eq!((tokens(&answers), answers[0].scarce.len()), (0, 1), "there are tokens, but too many allowances");
    let answers = one_more(&mut buckets, 3_000_000, 5_001);
    assert_eq!(tokens(&answers), 1, "they have ended");
}

#[test]
fn expired_allowances_of_a_quota() {
    let mut buckets = Buckets::default();
    let bucket = id("quota", 0);
    let count = cap::EXPIRED_ALLOWANCES_MAX as u64 + 3;
    for request in 1..=count {
        buckets.acquire(&limits(), at(0), TERMS, &[ask(1, request, vec![want(bucket.clone(), 10)])]);
    }
    let close = |allowance| (bucket.clone(), Spent { allowance, spent: 0, close: true });
    let closing = Acquire { reports: (0..count).map(close).collect(), ..ask(1, count + 1, Vec::new()) };
    buckets.acquire(&limits(), at(5_000_000), TERMS, &[closing]);
    let left = buckets.look(&limits(), at(5_000_000), &bucket).unwrap().available();
    assert_eq!(left, 1_000_000 - 3 * 10, "of the oldest three, what was left stays spent");
}

/// Fills a state with as many buckets as there may be: some seconds and 2 GB.
#[test]
#[ignore = "takes memory: run with --ignored"]
fn buckets() {
    let (limits, mut buckets) = (limits(), Buckets::default());
    let mut bucket = Bucket::full(&limits[&Name::new("quota").unwrap()], at(0));
    let answers = Buckets::default().acquire(&limits, at(0), TERMS, &[ask(1, 1, vec![want(id("quota", 0), 1)])]);
    assert_eq!(tokens(&answers), 1);
    let mut one = Buckets::default();
    one.acquire(&limits, at(0), TERMS, &[ask(1, 1, vec![want(id("quota", 0), 1)])]);
    bucket.clone_from(&one.buckets[&id("quota", 0)]);
    let bucket = Arc::new(bucket);
    buckets.buckets = (0..cap::BUCKETS_MAX - 1).map(|subject| (id("quota", subject), Arc::clone(&bucket))).collect();
    buckets.next_allowance = 1;
    let wants = (0..2).map(|more| want(id("rate", more), 1)).collect();
    let answers = buckets.acquire(&limits, at(1), TERMS, &[ask(2, 1, wants)]);
    assert_eq!(tokens(&answers), 1, "the last that there is room for");
    assert_eq!(answers[0].scarce.len(), 1);
    assert_eq!(answers[0].scarce[0].due_us, cap::NO_ROOM_DUE_US);
    assert_eq!(buckets.buckets.len(), cap::BUCKETS_MAX);
    let there = buckets.acquire(&limits, at(2), TERMS, &[ask(3, 1, vec![want(id("quota", 7), 1)])]);
    assert_eq!(tokens(&there), 1, "what is there goes on");
}

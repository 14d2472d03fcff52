//! What the ledger promises, one scene each.

use super::*;
use machine::{
    Name,
    allowance::{Grant, Scarce},
};

const PACE: Pace =
    Pace { cycle_us: 5_000, renew_us: 1_000_000, election_us: 500_000, idle_us: 500_000, patience_us: 2_000_000 };

fn id(limit: &str) -> BucketId {
    BucketId { limit: Name::new(limit).unwrap(), subject: b"anna".as_slice().into() }
}

fn grant(limit: &str, allowance: u64, amount: u64) -> Grant {
    Grant { bucket: id(limit), allowance, amount, ttl_us: 2_000_000 }
}

fn slots(ledger: &mut Ledger, limits: &[&str]) -> Vec<(Arc<Slot>, u64)> {
    limits.iter().map(|limit| (ledger.slot(&id(limit), 100, 0), 1)).collect()
}

fn answer(grants: Vec<Grant>) -> Answer {
    Answer { grants, scarce: Vec::new() }
}

#[test]
fn a_cold_bucket_asks_at_once_and_spends_until_the_deadline_from_before_the_request() {
    let mut ledger = Ledger::new(1, 77, PACE);
    let parts = slots(&mut ledger, &["l"]);
    assert_eq!(admit(&parts, 1_000), Verdict::Dry);
    ledger.wait(&parts);
    let asked = ledger.collect(1_000).unwrap();
    assert_eq!((asked.request, asked.wants[0].waiting), (1, 1));
    assert!(ledger.accept(1, &answer(vec![grant("l", 5, 2)]), 900_000));
    assert_eq!(admit(&parts, 2_000_999), Verdict::Admitted { at_us: 2_000_999 });
    assert_eq!(admit(&parts, 2_001_000), Verdict::Dry, "counted from the request, not from the answer");
}

#[test]
fn an_answer_is_taken_once() {
    let mut ledger = Ledger::new(1, 77, PACE);
    let parts = slots(&mut ledger, &["l"]);
    ledger.wait(&parts);
    ledger.collect(0).unwrap();
    let granted = answer(vec![grant("l", 5, 1)]);
    assert!(ledger.accept(1, &granted, 10));
    assert!(!ledger.accept(1, &granted, 20));
    assert_eq!(admit(&parts, 30), Verdict::Admitted { at_us: 30 });
    assert_eq!(admit(&parts, 30), Verdict::Dry);
}

#[test]
fn a_refused_request_spends_from_none_of_its_limits() {
    let mut ledger = Ledger::new(1, 77, PACE);
    let parts = slots(&mut ledger, &["a", "b"]);
    ledger.wait(&parts);
    ledger.collect(0).unwrap();
    let scarce = Scarce { bucket: id("b"), due_us: 700 };
    ledger.accept(1, &Answer { grants: vec![grant("a", 5, 3)], scarce: vec![scarce] }, 10);
    assert_eq!(admit(&parts, 100), Verdict::Refused { retry_us: 610 });
    assert_eq!(parts[0].0.remaining(100), 3);
    ledger.done_waiting(&parts);
    let reported = ledger.collect(600_000).unwrap();
    assert_eq!(reported.reports, [(id("a"), Spent { allowance: 5, spent: 0, close: true })]);
}

#[test]
fn reports_are_cumulative_and_repeated_until_they_are_answered() {
    let mut ledger = Ledger::new(1, 77, PACE);
    let parts = slots(&mut ledger, &["l"]);
    ledger.wait(&parts);
    ledger.collect(0).unwrap();
    ledger.accept(1, &answer(vec![grant("l", 5, 50)]), 10);
    ledger.done_waiting(&parts);
    for _ in 0..10 {
        assert_eq!(admit(&parts, 100), Verdict::Admitted { at_us: 100 });
    }
    let spent = |acquire: &Acquire| acquire.reports[0].1.spent;
    let first = ledger.collect(60_000).unwrap();
    assert_eq!(spent(&first), 10);
    assert_eq!(ledger.collect(70_000), None, "one at a time");
    assert_eq!(ledger.under_way(), Some(&first));
    assert_eq!(admit(&parts, 70_000), Verdict::Admitted { at_us: 70_000 });
    let second = ledger.collect(60_000 + PACE.patience_us - 1).or_else(|| ledger.collect(1_900_000));
    assert_eq!(second, None);
}

#[test]
fn an_idle_slot_gives_back_what_it_holds_and_goes_away() {
    let mut ledger = Ledger::new(1, 77, PACE);
    let parts = slots(&mut ledger, &["l"]);
    ledger.wait(&parts);
    ledger.collect(0).unwrap();
    ledger.accept(1, &answer(vec![grant("l", 5, 9)]), 10);
    ledger.done_waiting(&parts);
    assert_eq!(admit(&parts, 5), Verdict::Admitted { at_us: 10 }, "the tokens arrived after the clock was read");
    let renewal = ledger.collect(60_000).unwrap();
    ledger.accept(renewal.request, &Answer::default(), 60_000);
    let closing = ledger.collect(700_000).unwrap();
    assert_eq!(closing.reports, [(id("l"), Spent { allowance: 5, spent: 1, close: true })]);
    assert_eq!(admit(&parts, 700_000), Verdict::Dry);
    ledger.accept(closing.request, &Answer::default(), 701_000);
    drop(parts);
    assert_eq!(ledger.collect(3_000_000), None);
    assert!(ledger.is_empty());
}

#[test]
fn a_warm_slot_asks_ahead_before_it_runs_dry_and_about_once_a_second() {
    let mut ledger = Ledger::new(1, 77, PACE);
    let parts = vec![(ledger.slot(&id("l"), 100_000, 0), 1)];
    ledger.wait(&parts);
    let first = ledger.collect(0).unwrap();
    ledger.accept(first.request, &answer(vec![grant("l", 1, 1)]), 0);
    ledger.done_waiting(&parts);
    let (mut asked, mut dry) = (0, 0);
    for step in 1..10_000_u64 {
        let now = step * 1_000;
        if !matches!(admit(&parts, now), Verdict::Admitted { .. }) {
            dry += 1;
            ledger.wait(&parts);
        }
        if let Some(acquire) = ledger.collect(now) {
            asked += 1;
            let amount = acquire.wants.iter().map(|want| want.waiting + want.ahead).sum();
            if amount > 0 {
                ledger.accept(acquire.request, &answer(vec![grant("l", step, amount)]), now);
            } else {
                ledger.accept(acquire.request, &Answer::default(), now);
            }
            if ledger.waiting.len() == 1 {
                ledger.done_waiting(&parts);
            }
        }
    }
    assert!(asked < 40, "{asked} requests in ten seconds");
    assert!(dry < 60, "{dry} requests of ten thousand found nothing");
}

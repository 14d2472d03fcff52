//! What waiting promises, one scene each.

use super::*;
use futures::FutureExt;
use machine::{
    allowance::{Grant, Scarce},
    limit::{Rate, Rule},
};
use std::sync::atomic::{AtomicU64, Ordering};

const PACE: Pace = Pace {
    cycle_us: 5_000,
    renew_us: 1_000_000,
    election_us: 500_000,
    idle_us: 500_000,
    patience_us: 2_000_000,
    return_us: 200_000,
};

const LONG: Duration = Duration::from_secs(60);

/// A clock that the test sets.
#[derive(Default)]
struct Hand(AtomicU64);

impl Clock for Hand {
    fn boot_us(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn utc_ms(&self) -> u64 {
        0
    }
}

fn id(limit: &str) -> BucketId {
    BucketId { limit: Name::new(limit).unwrap(), subject: b"anna".as_slice().into() }
}

fn with(caps: AllowanceCaps) -> (Arc<Allowances>, Arc<Hand>) {
    let clock = Arc::new(Hand::default());
    (Arc::new(Allowances::new(1, 77, PACE, caps, clock.clone())), clock)
}

fn one(allowances: &Allowances, limit: &str) -> Vec<(Arc<Slot>, u64)> {
    vec![(allowances.slot(&id(limit), 100).unwrap(), 1)]
}

fn granted(limit: &str, allowance: u64, amount: u64) -> Answer {
    let grant = Grant { bucket: id(limit), allowance, amount, ttl_us: 2_000_000, left: 0 };
    Answer { grants: vec![grant], scarce: Vec::new() }
}

fn scarce(limit: &str, due_us: u64) -> Answer {
    Answer { grants: Vec::new(), scarce: vec![Scarce { bucket: id(limit), due_us }] }
}

fn waiting(acquire: &Acquire) -> u64 {
    acquire.wants.iter().map(|want| want.waiting).sum()
}

#[tokio::test]
async fn who_came_first_is_served_first_and_the_rest_is_refused_at_once() {
    let (allowances, clock) = with(AllowanceCaps::default());
    let parts = one(&allowances, "l");
    assert!(allowances.wanted().now_or_never().is_some(), "a new bucket is looked after");
    assert!(allowances.wanted().now_or_never().is_none());
    let mut waits: Vec<_> = (0..4).map(|_| allowances.wait(&parts, LONG).boxed()).collect();
    for wait in &mut waits {
        assert!(wait.now_or_never().is_none());
    }
    assert!(allowances.wanted().now_or_never().is_some(), "asked at once");
    let asked = allowances.collect(1_000).unwrap();
    assert_eq!((waiting(&asked), allowances.holds().waiting), (4, 4));
    clock.0.store(3_000, Ordering::Relaxed);
    let mut answer = granted("l", 5, 2);
    answer.scarce = scarce("l", 700).scarce;
    assert!(allowances.accept(asked.request, &answer, 3_000));
    assert!(!allowances.accept(asked.request, &answer, 3_000), "once");
    let verdicts: Vec<_> = waits.iter_mut().map(|wait| wait.now_or_never().unwrap()).collect();
    let (yes, no) = (Verdict::Admitted { at_us: 3_000 }, Verdict::Refused { retry_us: 700 });
    assert_eq!(verdicts, [yes, yes, no, no]);
    assert_eq!(allowances.holds(), Holds { slots: 1, waiting: 0, tokens: 0 });
    assert_eq!(allowances.wait(&parts, LONG).now_or_never(), Some(no), "from memory");
}

#[tokio::test]
async fn a_wait_ends_with_its_time_or_its_client_and_is_counted_no_more() {
    let (allowances, _) = with(AllowanceCaps::default());
    let parts = one(&allowances, "l");
    let mut gone = allowances.wait(&parts, LONG).boxed();
    assert!((&mut gone).now_or_never().is_none());
    let mut stays = allowances.wait(&parts, LONG).boxed();
    assert!((&mut stays).now_or_never().is_none());
    assert_eq!(allowances.wait(&parts, Duration::from_millis(1)).await, Verdict::Dry);
    assert_eq!(allowances.holds().waiting, 2);
    drop(gone);
    assert_eq!(waiting(&allowances.collect(0).unwrap()), 1);
    assert!(allowances.accept(1, &granted("l", 5, 1), 10));
    assert_eq!(stays.await, Verdict::Admitted { at_us: 10 });
}

#[tokio::test]
async fn too_many_do_not_wait_and_too_many_buckets_have_no_slot() {
    let (allowances, _) = with(AllowanceCaps { slots: 2, waiting: 1 });
    let parts = one(&allowances, "a");
    one(&allowances, "b");
    assert!(allowances.slot(&id("c"), 100).is_none());
    assert!(allowances.slot(&id("b"), 100).is_some(), "it has one");
    let mut first = allowances.wait(&parts, LONG).boxed();
    assert!((&mut first).now_or_never().is_none());
    assert_eq!(allowances.wait(&parts, LONG).now_or_never(), Some(Verdict::Dry));
    drop(first);
    assert!(allowances.wait(&parts, LONG).now_or_never().is_none(), "there is room again");
}

#[tokio::test]
async fn what_expired_in_a_pause_is_not_spent_for_who_waits() {
    let (allowances, clock) = with(AllowanceCaps::default());
    let parts = one(&allowances, "l");
    let mut wait = allowances.wait(&parts, LONG).boxed();
    assert!((&mut wait).now_or_never().is_none());
    allowances.collect(1_000).unwrap();
    // The steward has read the clock, and then the machine has slept.
    clock.0.store(2_001_000, Ordering::Relaxed);
    assert!(allowances.accept(1, &granted("l", 5, 1), 2_000));
    assert!((&mut wait).now_or_never().is_none());
}

#[tokio::test]
async fn a_changed_limit_is_asked_anew() {
    let (allowances, _) = with(AllowanceCaps::default());
    let rate = |burst| Limit {
        rule: Rule::Rate(Rate { tokens: 1, period_us: 1_000_000, burst }),
        generation: burst,
        changed: machine::Tick(0),
    };
    let limits = |burst| OrdMap::unit(Name::new("l").unwrap(), rate(burst));
    let (parts, other) = (one(&allowances, "l"), one(&allowances, "other"));
    let mut waits = [allowances.wait(&parts, LONG).boxed(), allowances.wait(&other, LONG).boxed()];
    for wait in &mut waits {
        assert!(wait.now_or_never().is_none());
    }
    let refuses = |due_us| {
        let scarce = [scarce("l", due_us).scarce, scarce("other", due_us).scarce].concat();
        Answer { grants: Vec::new(), scarce }
    };
    let asked = allowances.collect(0).unwrap();
    assert!(allowances.accept(asked.request, &refuses(9_000_000), 10));
    drop(waits);
    allowances.limits_changed(&limits(1), &limits(2));
    assert_eq!(admit(&parts, 10), Verdict::Dry, "the refusal is forgotten");
    assert!(matches!(admit(&other, 10), Verdict::Refused { .. }), "of this limit alone");

    // An answer that was made before the change says nothing of what is now.
    let mut wait = allowances.wait(&parts, LONG).boxed();
    assert!((&mut wait).now_or_never().is_none());
    let asked = allowances.collect(10_000).unwrap();
    allowances.limits_changed(&limits(2), &OrdMap::new());
    assert!(allowances.accept(asked.request, &refuses(9_000_000), 10_010));
    assert_eq!(admit(&parts, 10_010), Verdict::Dry);
    drop(wait);
}

#[tokio::test]
async fn closing_gives_everything_back_and_turns_the_waiting_away() {
    let (allowances, _) = with(AllowanceCaps::default());
    let (parts, other) = (one(&allowances, "l"), one(&allowances, "other"));
    let mut wait = allowances.wait(&parts, LONG).boxed();
    assert!((&mut wait).now_or_never().is_none());
    let asked = allowances.collect(0).unwrap();
    allowances.accept(asked.request, &granted("l", 5, 9), 10);
    assert!(matches!(wait.await, Verdict::Admitted { .. }));
    let mut waits = allowances.wait(&other, LONG).boxed();
    assert!((&mut waits).now_or_never().is_none());
    let closing = allowances.close_all(20).unwrap();
    let [(bucket, spent)] = &closing.reports[..] else { panic!("{closing:?}") };
    assert_eq!((bucket, spent.spent, spent.close), (&id("l"), 1, true));
    assert_eq!(waits.await, Verdict::Dry);
    assert!(allowances.is_asking());
    assert_eq!(allowances.wait(&parts, LONG).await, Verdict::Dry);
    assert_eq!(allowances.collect(9_000_000), None);
}

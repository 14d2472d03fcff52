//! What the ledger promises, one scene each.

use super::*;
use machine::{
    Name,
    allowance::{Grant, Scarce},
};
use std::sync::atomic::AtomicU64;

const PACE: Pace = Pace {
    cycle_us: 5_000,
    renew_us: 1_000_000,
    election_us: 500_000,
    idle_us: 500_000,
    patience_us: 2_000_000,
    return_us: 200_000,
};

fn id(limit: &str) -> BucketId {
    BucketId { limit: Name::new(limit).unwrap(), subject: b"anna".as_slice().into() }
}

fn grant(limit: &str, allowance: u64, amount: u64) -> Grant {
    Grant { bucket: id(limit), allowance, amount, ttl_us: 2_000_000, left: 0 }
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

/// A request can cost more than any piece of what is held.
#[test]
fn pieces_that_are_too_small_go_back_with_the_request_that_asks_again() {
    let mut ledger = Ledger::new(1, 77, PACE);
    let small = slots(&mut ledger, &["l"]);
    let large = [(Arc::clone(&small[0].0), 3)];
    let scarce = Scarce { bucket: id("l"), due_us: 1_000_000_000 };
    for (request, allowance, scarce) in [(1, 5, Vec::new()), (2, 6, vec![scarce])] {
        ledger.wait(&small);
        ledger.collect(request * 10_000).unwrap();
        ledger.done_waiting(&small);
        let granted = Answer { grants: vec![grant("l", allowance, 2)], scarce };
        assert!(ledger.accept(request, &granted, request * 10_000));
    }
    assert_eq!(admit(&large, 30_000), Verdict::Dry, "two and two");
    ledger.wait(&large);
    let asked = ledger.collect(30_000).unwrap();
    assert!(asked.reports.iter().all(|(_, spent)| spent.close) && asked.reports.len() == 2, "{asked:?}");
    assert_eq!((asked.wants[0].parts[0].cost, asked.wants[0].waiting), (3, 1));
    ledger.done_waiting(&large);
    ledger.accept(asked.request, &answer(vec![grant("l", 7, 4)]), 30_000);
    assert_eq!(admit(&large, 30_000), Verdict::Admitted { at_us: 30_000 });
    // What no bucket ever holds is no reason to give anything up.
    let too_large = [(Arc::clone(&small[0].0), 101)];
    ledger.wait(&too_large);
    ledger.collect(40_000);
    assert_eq!(small[0].0.remaining(40_000), 1);
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
    assert_eq!(ledger.collect(60_000), None, "one request says nothing of those to come");
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

fn id_of(number: usize) -> BucketId {
    BucketId { limit: Name::new("l").unwrap(), subject: number.to_be_bytes().as_slice().into() }
}

/// Grants all that is wanted.
fn grant_all(asked: &Acquire, first: u64) -> Answer {
    let parts = asked.wants.iter().flat_map(|want| want.parts.iter().map(move |part| (part, want)));
    let grants = parts.zip(first..).map(|((part, want), allowance)| Grant {
        bucket: part.bucket.clone(),
        allowance,
        amount: part.cost * (want.waiting + want.ahead),
        ttl_us: 2_000_000,
        left: 0,
    });
    answer(grants.collect())
}

#[test]
fn a_request_keeps_within_its_bounds_and_everybody_gets_a_turn() {
    const COUNT: usize = 20_000;
    let mut ledger = Ledger::new(1, 77, PACE);
    let slots: Vec<_> = (0..COUNT).map(|number| vec![(ledger.slot(&id_of(number), 1_000, 0), 1)]).collect();
    slots.iter().for_each(|parts| ledger.wait(parts));
    let mut asked = BTreeSet::new();
    for cycle in 0..3 {
        let now = cycle * 10_000;
        let acquire = ledger.collect(now).unwrap();
        assert!(acquire.wants.len() <= WANTS_PER_ACQUIRE_MAX);
        asked.extend(acquire.wants.iter().map(|want| want.parts[0].bucket.clone()));
        assert!(ledger.accept(acquire.request, &Answer::default(), now + 1));
    }
    assert_eq!(asked.len(), COUNT, "nobody is asked for again before everybody was");
}

#[test]
fn what_was_not_sent_is_not_taken_for_reported() {
    const COUNT: usize = 40_000;
    let mut ledger = Ledger::new(1, 77, PACE);
    let slots: Vec<_> = (0..COUNT).map(|number| vec![(ledger.slot(&id_of(number), 1, 0), 1)]).collect();
    slots.iter().for_each(|parts| ledger.wait(parts));
    let (mut granted, mut now, mut closed) = (0, 0, BTreeMap::new());
    while closed.len() < COUNT {
        now += 10_000;
        assert!(now < 10_000_000, "{} of {COUNT} were reported", closed.len());
        let Some(acquire) = ledger.collect(now) else { continue };
        assert!(acquire.reports.len() <= REPORTS_PER_ACQUIRE_MAX);
        for (_, spent) in &acquire.reports {
            let known = closed.insert(spent.allowance, spent.spent);
            assert_eq!((known, spent.close, spent.spent), (None, true, 1), "each close once, for each was answered");
        }
        ledger.accept(acquire.request, &grant_all(&acquire, granted), now);
        granted += acquire.wants.len() as u64;
        for parts in &slots {
            if matches!(admit(parts, now), Verdict::Admitted { .. }) {
                ledger.done_waiting(parts);
            }
        }
    }
}

#[test]
fn closing_takes_as_many_requests_as_it_needs() {
    const COUNT: usize = 40_000;
    let mut ledger = Ledger::new(1, 77, PACE);
    let slots: Vec<_> = (0..COUNT).map(|number| vec![(ledger.slot(&id_of(number), 1, 0), 1)]).collect();
    slots.iter().for_each(|parts| ledger.wait(parts));
    let mut granted = 0;
    for cycle in 0..4 {
        let Some(acquire) = ledger.collect(cycle * 10_000) else { break };
        ledger.accept(acquire.request, &grant_all(&acquire, granted), cycle * 10_000);
        granted += acquire.wants.len() as u64;
    }
    let mut closed = BTreeSet::new();
    while let Some(acquire) = ledger.close_all(50_000) {
        assert!(acquire.wants.is_empty() && acquire.reports.len() <= REPORTS_PER_ACQUIRE_MAX);
        closed.extend(acquire.reports.iter().map(|(_, spent)| spent.allowance));
        ledger.accept(acquire.request, &Answer::default(), 50_000);
    }
    assert_eq!(closed.len() as u64, granted);
}

#[test]
fn a_limit_that_changes_is_asked_for_again() {
    let mut ledger = Ledger::new(1, 77, PACE);
    let (parts, others) = (slots(&mut ledger, &["l"]), slots(&mut ledger, &["m"]));
    let scarce = |limit| Scarce { bucket: id(limit), due_us: 1_000_000_000 };
    let no = Answer { grants: Vec::new(), scarce: vec![scarce("l"), scarce("m")] };
    ledger.wait(&parts);
    ledger.wait(&others);
    ledger.collect(0).unwrap();
    ledger.accept(1, &no, 10);
    assert!(matches!(admit(&parts, 20), Verdict::Refused { .. }));
    assert_eq!(ledger.collect(10_000), None, "who is refused from memory is not asked for");
    ledger.limit_changed(&Name::new("l").unwrap(), Some(500));
    assert_eq!(admit(&parts, 20_000), Verdict::Dry);
    assert!(matches!(admit(&others, 20_000), Verdict::Refused { .. }), "another limit has not changed");
    let asked = ledger.collect(20_000).unwrap();
    assert_eq!(asked.wants.len(), 1);
    // It changes again while this is on the way: what the answer says may be of the rule before.
    ledger.limit_changed(&Name::new("l").unwrap(), Some(600));
    ledger.accept(asked.request, &no, 20_010);
    assert_eq!(admit(&parts, 20_020), Verdict::Dry);
    let asked = ledger.collect(30_000).unwrap();
    ledger.accept(asked.request, &no, 30_010);
    assert!(matches!(admit(&parts, 30_020), Verdict::Refused { .. }), "now it counts");
}

#[test]
fn a_limit_that_is_used_up_refuses_whichever_is_found_dry_first() {
    let mut ledger = Ledger::new(1, 77, PACE);
    let parts = slots(&mut ledger, &["a", "b"]);
    ledger.wait(&parts);
    ledger.collect(0).unwrap();
    ledger.accept(1, &Answer { grants: Vec::new(), scarce: vec![Scarce { bucket: id("b"), due_us: 900 }] }, 10);
    assert_eq!(admit(&parts, 110), Verdict::Refused { retry_us: 800 });
}

#[test]
fn a_late_answer_to_a_request_that_was_given_up_goes_back_unspent() {
    let mut ledger = Ledger::new(1, 77, PACE);
    let parts = slots(&mut ledger, &["l"]);
    ledger.wait(&parts);
    let first = ledger.collect(0).unwrap();
    let second = ledger.collect(PACE.patience_us).unwrap();
    let late = answer(vec![grant("l", 5, 9)]);
    assert!(!ledger.accept(first.request, &late, PACE.patience_us + 1));
    assert!(!ledger.accept(first.request, &late, PACE.patience_us + 2));
    assert_eq!(admit(&parts, PACE.patience_us + 3), Verdict::Dry);
    ledger.accept(second.request, &Answer::default(), PACE.patience_us + 4);
    let closing = ledger.collect(PACE.patience_us + 10_000).unwrap();
    assert_eq!(closing.reports, [(id("l"), Spent { allowance: 5, spent: 0, close: true })]);
}

#[test]
fn the_steward_sleeps_while_nothing_is_in_use() {
    let mut ledger = Ledger::new(1, 77, PACE);
    assert_eq!(ledger.next_us(), None);
    let parts = slots(&mut ledger, &["l"]);
    ledger.wait(&parts);
    assert!(ledger.next_us().unwrap() <= 7, "at once");
    ledger.collect(7).unwrap();
    assert_eq!(ledger.next_us(), Some(7 + PACE.patience_us), "it waits for the answer");
    ledger.accept(1, &answer(vec![grant("l", 5, 9)]), 10);
    ledger.done_waiting(&parts);
    drop(parts);
    let mut looks = 0;
    while let Some(next) = ledger.next_us() {
        looks += 1;
        assert!(looks < 100 && next < 10_000_000, "{looks} looks until {next}");
        if let Some(acquire) = ledger.collect(next) {
            ledger.accept(acquire.request, &Answer::default(), next);
        }
    }
    assert!(ledger.is_empty());
}

#[test]
fn a_lone_request_is_no_demand() {
    let mut ledger = Ledger::new(1, 77, PACE);
    let parts = slots(&mut ledger, &["l"]);
    ledger.wait(&parts);
    let (mut asked, mut ahead) = (0, 0);
    for now in (0..3_000_000).step_by(1_000) {
        let Some(acquire) = ledger.collect(now) else { continue };
        asked += 1;
        ahead += acquire.wants.iter().map(|want| want.ahead).sum::<u64>();
        ledger.accept(acquire.request, &grant_all(&acquire, 5), now);
        if asked == 1 {
            assert!(matches!(admit(&parts, now), Verdict::Admitted { .. }));
            ledger.done_waiting(&parts);
        }
    }
    assert_eq!((asked, ahead), (2, 0), "one to ask, one to give back");
}

/// Against the replicated state itself: a limit that fills slowly must not lose what nobody has spent.
#[test]
fn what_was_not_spent_is_there_again_after_any_burst() {
    use machine::{
        At, Tick, Wall,
        allowance::Buckets,
        bucket::{Limit, Terms},
        limit::{Rate, Rule},
    };
    let pace = Pace { election_us: 900_000, idle_us: 1_500_000, ..PACE };
    let rule = Rule::Rate(Rate { tokens: 1, period_us: 3_600_000_000, burst: 40 });
    for requests in 1..=30_u64 {
        for gap_us in [100, 9_000, 70_000, 300_000] {
            let limits =
                [(Name::new("l").unwrap(), Limit { rule, generation: 1, changed: Tick(0) })].into_iter().collect();
            let mut buckets = Buckets::default();
            let mut ledger = Ledger::new(1, 77, pace);
            let parts = vec![(ledger.slot(&id("l"), 40, 0), 1)];
            let (mut admitted, mut waits, mut under_way) = (0, false, None);
            let mut now = 0;
            while now < requests * gap_us + 5_000_000 {
                now += 100;
                let at = At { tick: Tick(now), wall: Wall(1_795_347_000_000 + now / 1_000) };
                if waits || (admitted < requests && now >= admitted * gap_us) {
                    match admit(&parts, now) {
                        Verdict::Admitted { .. } => {
                            admitted += 1;
                            if std::mem::take(&mut waits) {
                                ledger.done_waiting(&parts);
                            }
                        }
                        _ if !waits => {
                            ledger.wait(&parts);
                            waits = true;
                        }
                        _ => {}
                    }
                }
                if let Some(acquire) = ledger.collect(now) {
                    under_way = Some((now + 3_000, acquire));
                }
                if let Some((_, acquire)) = under_way.take_if(|(arrives, _)| *arrives <= now) {
                    let terms = Terms { ttl_us: 2_000_000, margin_us: 1_000 };
                    let answers = buckets.acquire(&limits, at, terms, std::slice::from_ref(&acquire));
                    ledger.accept(acquire.request, &answers[0], now);
                }
            }
            assert_eq!(admitted, requests);
            let at = At { tick: Tick(now), wall: Wall(1_795_347_000_000 + now / 1_000) };
            let left = buckets.look(&limits, at, &id("l")).unwrap();
            assert_eq!((left.available(), left.outstanding()), (40 - requests, 0), "{requests} every {gap_us} us");
        }
    }
}

/// Workers spend as fast as they can while the steward closes what is idle or over and brings more: what is admitted
/// never exceeds what was granted, and never what the closes say.
#[test]
fn workers_and_steward_at_once() {
    use std::sync::atomic::AtomicBool;
    let pace =
        Pace { cycle_us: 1, renew_us: 20, election_us: 10, idle_us: 1_000, patience_us: 1_000_000, return_us: 2 };
    let mut ledger = Ledger::new(1, 77, pace);
    let names = ["a", "b", "c"];
    let slots: Vec<Arc<Slot>> = names.iter().map(|name| ledger.slot(&id(name), 100, 0)).collect();
    let (now, stop) = (AtomicU64::new(1), AtomicBool::new(false));
    let mut closed: BTreeMap<u64, (BucketId, u64)> = BTreeMap::new();
    let mut granted: BTreeMap<u64, (BucketId, u64)> = BTreeMap::new();
    let note = |acquire: &Acquire, closed: &mut BTreeMap<u64, (BucketId, u64)>| {
        for (id, spent) in acquire.reports.iter().filter(|(_, spent)| spent.close) {
            closed.insert(spent.allowance, (id.clone(), spent.spent));
        }
    };
    let admitted = std::thread::scope(|scope| {
        let worker = |seed: u64| {
            let (slots, now, stop) = (&slots, &now, &stop);
            move || {
                let (mut admitted, mut random) = ([0_u64; 3], seed);
                while !stop.load(Ordering::Relaxed) {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let mut parts = Vec::new();
                    let mut places = Vec::new();
                    for (place, slot) in slots.iter().enumerate() {
                        let cost = random >> (20 + 4 * place) & 7;
                        if cost > 0 {
                            parts.push((Arc::clone(slot), cost));
                            places.push((place, cost));
                        }
                    }
                    if matches!(admit(&parts, now.load(Ordering::Relaxed)), Verdict::Admitted { .. }) {
                        places.iter().for_each(|(place, cost)| admitted[*place] += cost);
                    }
                }
                admitted
            }
        };
        let workers: Vec<_> = (1..=3).map(|seed| scope.spawn(worker(seed))).collect();
        let parts: Vec<_> = slots.iter().map(|slot| (Arc::clone(slot), 7)).collect();
        let mut allowance = 0;
        for step in 1..500_u64 {
            let time = step * 20;
            (0..8).for_each(|_| std::thread::yield_now());
            now.store(time, Ordering::Relaxed);
            if step % 3 == 0 {
                ledger.wait(&parts);
            }
            if step % 7 == 0 {
                // The end of everything that is held, in the middle of what workers do.
                for account in ledger.accounts.values_mut() {
                    account.close(|_| true);
                }
            }
            if let Some(acquire) = ledger.collect(time) {
                note(&acquire, &mut closed);
                let mut grants = Vec::new();
                for (place, name) in names.iter().enumerate().filter(|_| !acquire.wants.is_empty()) {
                    allowance += 1;
                    let amount = 200 + (allowance * 7 + place as u64) % 500;
                    granted.insert(allowance, (id(name), amount));
                    grants.push(Grant { bucket: id(name), allowance, amount, ttl_us: 400, left: 0 });
                }
                ledger.accept(acquire.request, &answer(grants), time);
            }
            if step % 3 == 0 {
                ledger.done_waiting(&parts);
            }
        }
        while let Some(acquire) = ledger.close_all(1_000_000) {
            note(&acquire, &mut closed);
            ledger.accept(acquire.request, &Answer::default(), 1_000_000);
        }
        // Nothing can be spent any more, however long they go on.
        std::thread::yield_now();
        stop.store(true, Ordering::Relaxed);
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .fold([0; 3], |sum: [u64; 3], one| std::array::from_fn(|place| sum[place] + one[place]))
    });
    assert_eq!(closed.len(), granted.len(), "each allowance is closed once");
    for (place, name) in names.iter().enumerate() {
        let sum = |of: &BTreeMap<u64, (BucketId, u64)>| {
            of.values().filter(|(bucket, _)| *bucket == id(name)).map(|(_, amount)| amount).sum::<u64>()
        };
        let (granted, closed, admitted) = (sum(&granted), sum(&closed), admitted[place]);
        assert!(admitted > 500, "only {admitted} of {name} were put to the test");
        assert!(admitted <= closed && closed <= granted, "{name}: {admitted} admitted, {closed} closed, {granted}");
    }
}

//! What the ledger costs a node: an admit under 1 to 8 limits, and the steward's work in each cycle with few of many
//! slots in use.
//!
//! `cargo run --release -p session --example ledger_cost -- [SLOTS] [ACTIVE]`

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, reason = "an example that measures")]

use machine::{
    Name,
    allowance::{Acquire, Answer, BucketId, Grant},
};
use session::ledger::{Ledger, Pace, Slot, Verdict, admit};
use std::{hint::black_box, sync::Arc, time::Instant};

const PACE: Pace = Pace {
    cycle_us: 5_000,
    renew_us: 1_000_000,
    election_us: 500_000,
    idle_us: 500_000,
    patience_us: 2_000_000,
    return_us: 200_000,
};

fn main() {
    let number = |place: usize, otherwise: usize| std::env::args().nth(place).map_or(otherwise, |n| n.parse().unwrap());
    for limits in [1, 2, 3, 8] {
        cost_of_admit(limits);
    }
    cost_of_cycles(number(1, 100_000), number(2, 100));
}

fn cost_of_admit(limits: usize) {
    const TIMES: u32 = 1_000_000;
    let mut ledger = Ledger::new(1, 1, PACE);
    let parts: Vec<_> = (0..limits).map(|number| (ledger.slot(&id(number), u64::MAX, 0), 1)).collect();
    ledger.wait(&parts);
    let asked = ledger.collect(0).unwrap();
    ledger.accept(asked.request, &grant(&asked, 0, 1 << 40, u64::MAX / 2), 0);
    let start = Instant::now();
    for now_us in 0..TIMES {
        assert!(matches!(admit(black_box(&parts), u64::from(now_us)), Verdict::Admitted { .. }));
    }
    println!("an admit under {limits} limits: {:?}", start.elapsed() / TIMES);
}

/// All slots were used once and are held by a worker; some are in use.
fn cost_of_cycles(slots: usize, active: usize) {
    const CYCLES: u64 = 2_000;
    let mut ledger = Ledger::new(1, 1, PACE);
    let parts: Vec<[(Arc<Slot>, u64); 1]> =
        (0..slots).map(|number| [(ledger.slot(&id(number), 1_000_000, 0), 1)]).collect();
    let (mut now_us, mut allowance) = (0, 0);
    let mut cycles = |ledger: &mut Ledger, count: u64, what: &str| {
        let (mut spent_ns, mut asked, mut slowest_ns, mut dry) = (0, 0, 0, 0);
        for _ in 0..count {
            now_us += PACE.cycle_us;
            for part in parts.iter().take(active) {
                if admit(part, now_us) == Verdict::Dry {
                    dry += 1;
                    ledger.wait(part);
                    ledger.done_waiting(part);
                    ledger.wait(part);
                }
            }
            let start = Instant::now();
            let acquire = ledger.collect(now_us);
            let took_ns = start.elapsed().as_nanos();
            spent_ns += took_ns;
            slowest_ns = slowest_ns.max(took_ns);
            if let Some(acquire) = acquire {
                asked += 1;
                let answer = grant(&acquire, allowance, 0, 2_000_000);
                allowance += answer.grants.len() as u64;
                ledger.accept(acquire.request, &answer, now_us);
                parts.iter().take(active).for_each(|part| ledger.done_waiting(part));
            }
        }
        println!(
            "{what}: collect {} ns in a cycle, {slowest_ns} at the most; {asked} requests, {dry} found dry in {count} cycles",
            spent_ns / u128::from(count)
        );
    };
    cycles(&mut ledger, CYCLES, &format!("{slots} slots held, {active} in use, first 10 s"));
    cycles(&mut ledger, CYCLES, &format!("{slots} slots held, {active} in use, next 10 s"));
}

/// All that is wanted, or so much.
fn grant(asked: &Acquire, first: u64, amount: u64, ttl_us: u64) -> Answer {
    let parts = asked.wants.iter().flat_map(|want| want.parts.iter().map(move |part| (part, want)));
    let grants = parts.zip(first..).map(|((part, want), allowance)| Grant {
        bucket: part.bucket.clone(),
        allowance,
        amount: if amount > 0 { amount } else { part.cost * (want.waiting + want.ahead) },
        ttl_us,
        left: 0,
    });
    Answer { grants: grants.collect(), scarce: Vec::new() }
}

fn id(number: usize) -> BucketId {
    BucketId { limit: Name::new("l").unwrap(), subject: number.to_be_bytes().as_slice().into() }
}

//! What limits cost and lose, within bounds: `cargo run -p chaos -- figures` prints the same.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use chaos::sim::{
    Steady,
    figures::{Figures, steady},
};
use machine::limit::Rate;

fn load(tokens: u64, burst: u64, per_second: u64) -> Steady {
    Steady { rate: Rate { tokens, period_us: 1_000_000, burst }, per_second, crashes: false }
}

fn measured(load: Steady) -> Figures {
    steady(1, load).unwrap()
}

#[test]
fn a_limit_is_used_to_the_full_where_its_burst_covers_two_cycles() {
    for burst in [20, 50, 200, 1_000] {
        let figures = measured(load(1_000, burst, 3_000));
        let most = 1_000 * figures.seconds;
        assert!(figures.admitted * 100 >= most * 95, "burst {burst}: {} of {most}", figures.admitted);
    }
}

#[test]
fn a_steady_bucket_is_renewed_about_once_a_second_by_each_node() {
    let figures = measured(load(1_000, 2_000, 500));
    assert!(figures.asked * 10 <= 3 * figures.seconds * 14, "{figures:?}");
    assert_eq!(figures.unavailable, 0);
    assert!(figures.admitted * 100 >= figures.requests * 99, "{figures:?}");
}

#[test]
fn entries_do_not_grow_with_requests() {
    for (few, many) in [
        (load(1_000, 2_000, 50), load(1_000, 2_000, 500)),
        (load(1_000, 2_000, 500), load(10_000, 20_000, 5_000)),
        (load(1_000, 1_000, 2_000), load(1_000, 1_000, 20_000)),
    ] {
        let (few, many) = (measured(few), measured(many));
        assert!(many.entries * 2 <= few.entries * 3 + 20, "{few:?}, then {many:?}");
    }
}

/// A node that dies takes along what it held: at most what it would have spent until its next renewal and through an
/// election, for at most as long as an allowance lasts.
#[test]
fn a_crash_costs_at_most_what_was_held() {
    let load = Steady { crashes: true, ..load(1_000, 2_000, 3_000) };
    let figures = measured(load);
    // The cluster's clock runs a hundredth slower than any other, by design.
    let most = 990 * figures.seconds;
    assert!(figures.admitted + figures.stranded + 20 >= most, "{figures:?}");
    let load = Steady { per_second: 500, ..load };
    let figures = measured(load);
    assert!(figures.stranded > 0 && figures.stranded <= figures.held_max, "{figures:?}");
    // A third of the requests, for a second and a half; demand is measured, and errs to the safe side.
    assert!(figures.held_max <= 500 / 3 * 3 / 2 * 3, "{figures:?}");
    assert!(figures.admitted * 100 >= figures.requests * 99, "others have enough: {figures:?}");
}

//! A short run on real processes, by a seed: what lasts longer is for `cargo run -p chaos -- run`.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use chaos::run::{Conclusion, Options, run};
use std::time::Duration;

fn options(seed: u64, seconds: u64, faults: &[&str]) -> Options {
    Options {
        seed,
        length: Duration::from_secs(seconds),
        nodes: 3,
        quorate: Some(tests::programs::quorate().to_owned()),
        keep: false,
        faults: faults.iter().map(|name| (*name).to_owned()).collect(),
        loopback: false,
        folder: None,
    }
}

/// All but disks: a node that moves to one and back takes longer than such a short run has.
const KINDS: [&str; 10] = ["kill", "pause", "cut", "loss", "slow", "calendar", "clock", "leader", "member", "snapshot"];

/// Nothing follows from a run in which a fault did not take hold: a busy machine gets a second one.
fn green(options: &Options) -> Conclusion {
    match run(options).expect("the cluster starts") {
        Conclusion::Void => run(options).expect("the cluster starts"),
        other => other,
    }
}

#[test]
fn a_cluster_keeps_its_promises_while_it_is_broken() {
    assert_eq!(green(&options(4, 45, &KINDS)), Conclusion::Green);
}

#[test]
fn a_fault_that_there_is_not_is_refused() {
    let error = run(&options(1, 1, &["earthquake"])).expect_err("there is no such fault").to_string();
    assert!(error.contains("no fault \"earthquake\": there are kill,"), "{error}");
}

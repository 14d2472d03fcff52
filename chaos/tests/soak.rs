//! The soak, for some seconds and with few clients: that nothing grows in that time, and above all that the soak itself works. How
//! anything is answered is not judged here: other things run on this machine.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use chaos::soak::{
    self, Options,
    verdict::{Judged, Verdict},
};
use std::time::Duration;

#[test]
fn a_short_soak() {
    let options = Options {
        seed: 7,
        length: Duration::from_secs(15),
        connections: 150,
        keys: 1_500,
        buckets: 150,
        rate: 150,
        bad: 16,
        snapshot_entries: 100,
        samples: None,
    };
    let verdicts = soak::run(&options).unwrap();
    assert_eq!(verdicts.len(), 10, "{verdicts:#?}");
    for Verdict { name, judged, why } in &verdicts {
        match *name {
            "memory" | "files" | "log on disk" | "state on disk" => {
                assert_eq!(*judged, Judged::Held, "{name}: {why}");
            }
            // In so short a time not each kind comes to its end, and on a busy machine there may be no snapshot.
            "bad clients" | "snapshots" => assert_ne!(*judged, Judged::Violated, "{why}"),
            _ => {}
        }
    }
}

//! What a key costs: the resident memory of each of three nodes before and after keys are imported, and again after a restart, when
//! nothing but the state is left; and how long a node takes to start with them, until it is ready. A program to be run by hand, with
//! the number of keys (100,000):
//!
//!     cargo bench -p tests --bench key_memory -- 1000000
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement fails by panicking and answers on standard output"
)]

use std::{
    ffi::OsString,
    fmt::Write,
    time::{Duration, Instant},
};
use tests::{Cluster, cluster::Node, process::resident_bytes};

const KEYS_PER_FILE: u64 = 10_000;

fn main() {
    let keys: u64 = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(100_000);
    let keys = keys.next_multiple_of(KEYS_PER_FILE);
    let mut cluster = Cluster::start(3);
    cluster.ctl().apply("consumers:\n  owner: {}\n");
    let empty = restart(&mut cluster);
    let before = resident(&cluster);
    let directory = tempfile::tempdir().expect("a temporary directory");
    for file in 0..keys / KEYS_PER_FILE {
        let mut rows = "sha256,consumer,name,scopes,expires\n".to_owned();
        for key in file * KEYS_PER_FILE..(file + 1) * KEYS_PER_FILE {
            // Spread over the whole range, as digests are.
            let word = (key + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            writeln!(rows, "{word:016x}{word:016x}{word:016x}{word:016x},owner,,,").expect("a String");
        }
        let path = directory.path().join(format!("{file}.csv"));
        std::fs::write(&path, rows).expect("a file");
        let arguments: [OsString; 5] =
            ["--timeout".into(), "60s".into(), "keys".into(), "import".into(), path.into_os_string()];
        cluster.ctl().json(arguments);
    }
    let after = resident(&cluster);
    let full = restart(&mut cluster);
    let restarted = resident(&cluster);
    println!("| node | before, MiB | after {keys} keys | bytes a key | after a restart | bytes a key |");
    println!("| ---: | ---: | ---: | ---: | ---: | ---: |");
    for (place, ((before, after), restarted)) in before.iter().zip(&after).zip(&restarted).enumerate() {
        let mib = |bytes: &u64| bytes / 1024 / 1024;
        let each = |now: &u64| now.saturating_sub(*before) / keys;
        let (now, later) = (mib(after), mib(restarted));
        println!("| {} | {} | {now} | {} | {later} | {} |", place + 1, mib(before), each(after), each(restarted));
    }
    println!("ready after {empty:.2?} without keys, after {full:.2?} with them");
}

fn resident(cluster: &Cluster) -> Vec<u64> {
    cluster.nodes.iter().map(|node| resident_bytes(node.process.as_ref().expect("it runs").pid())).collect()
}

/// One after the other; how long each took to be ready.
fn restart(cluster: &mut Cluster) -> Vec<Duration> {
    let start_again = |node: &mut Node| {
        node.stop();
        let began = Instant::now();
        node.run();
        node.wait_ready();
        began.elapsed()
    };
    cluster.nodes.iter_mut().map(start_again).collect()
}

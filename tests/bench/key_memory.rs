//! What a key costs in memory: the resident memory of each of three nodes before and after 100,000 keys are imported, and again after
//! a restart, when nothing but the state is left. A program to be run by hand:
//!
//!     cargo bench -p tests --bench key_memory
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement fails by panicking and answers on standard output"
)]

use std::{ffi::OsString, fmt::Write};
use tests::{Cluster, process::resident_bytes};

const KEYS: u64 = 100_000;
const KEYS_PER_FILE: u64 = 10_000;

fn main() {
    let mut cluster = Cluster::start(3);
    cluster.ctl().apply("consumers:\n  owner: {}\n");
    restart(&mut cluster);
    let before = resident(&cluster);
    let directory = tempfile::tempdir().expect("a temporary directory");
    for file in 0..KEYS / KEYS_PER_FILE {
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
    restart(&mut cluster);
    let restarted = resident(&cluster);
    println!("| node | before, MiB | after {KEYS} keys | bytes a key | after a restart | bytes a key |");
    println!("| ---: | ---: | ---: | ---: | ---: | ---: |");
    for (place, ((before, after), restarted)) in before.iter().zip(&after).zip(&restarted).enumerate() {
        let mib = |bytes: &u64| bytes / 1024 / 1024;
        let each = |now: &u64| now.saturating_sub(*before) / KEYS;
        let (now, later) = (mib(after), mib(restarted));
        println!("| {} | {} | {now} | {} | {later} | {} |", place + 1, mib(before), each(after), each(restarted));
    }
}

fn resident(cluster: &Cluster) -> Vec<u64> {
    cluster.nodes.iter().map(|node| resident_bytes(node.process.as_ref().expect("it runs").pid())).collect()
}

fn restart(cluster: &mut Cluster) {
    for node in &mut cluster.nodes {
        node.stop();
        node.run();
        node.wait_ready();
    }
}

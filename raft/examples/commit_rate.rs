//! How many writes a second three nodes commit, and how long each takes: three nodes in one process, over loopback
//! without TLS, on real files.
//!
//! `cargo run --release -p raft --example commit_rate -- [writers] [seconds] [nodes] [directory]`

#![allow(clippy::indexing_slicing, clippy::print_stdout, clippy::unwrap_used, reason = "a measurement, run by hand")]

#[path = "cluster/nodes.rs"]
mod nodes;

use machine::{Actor, Command, Outcome};
use nodes::{cluster, request};
use raft::{Fence, Handle};
use std::time::{Duration, Instant};

async fn measure(handle: &Handle, writers: usize, time: Duration, fence: Fence) -> (usize, Duration, Vec<Duration>) {
    let began = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let handle = handle.clone();
            tokio::spawn(async move {
                let mut took = Vec::new();
                while began.elapsed() < time {
                    let start = Instant::now();
                    let command = Command::Nothing;
                    let written = handle.propose(request(), Actor::Node(1), command, fence).await.unwrap();
                    assert!(!matches!(written.outcome, Outcome::Refused(_)), "{written:?}");
                    took.push(start.elapsed());
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.unwrap());
    }
    took.sort_unstable();
    (took.len(), began.elapsed(), took)
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let writers: Option<usize> = arguments.next().and_then(|text| text.parse().ok());
    let seconds: u64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(3);
    let count: u64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(3);
    let temporary = tempfile::tempdir().unwrap();
    let dir = arguments.next().map_or(temporary.path().to_owned(), Into::into);
    let nodes = cluster(count, &dir).await;
    let through = [("leader", &nodes[0]), ("follower", nodes.last().unwrap())];
    println!(
        "{:<10} {:<7} {:>8} {:>12} {:>9} {:>9} {:>9}",
        "through", "fence", "writers", "writes/s", "p50", "p99", "max"
    );
    for writers in writers.map_or(vec![1, 16, 128, 1024], |writers| vec![writers]) {
        for (name, handle) in through {
            for (fenced, fence) in [("no", Fence::None), ("yes", Fence::Within(Duration::from_secs(10)))] {
                let (writes, time, took) = measure(handle, writers, Duration::from_secs(seconds), fence).await;
                let at = |part: usize| took.get((took.len() * part / 100).min(took.len() - 1)).copied().unwrap();
                println!(
                    "{name:<10} {fenced:<7} {writers:>8} {:>12.0} {:>9.2?} {:>9.2?} {:>9.2?}",
                    writes as f64 / time.as_secs_f64(),
                    at(50),
                    at(99),
                    at(100),
                );
            }
        }
    }
    for node in nodes {
        node.stop().await;
    }
}

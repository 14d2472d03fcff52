//! What global limits cost on three nodes in one process, over loopback without TLS, on real files: how long the first
//! request for a bucket takes, beside a warm one, and how many log entries and bytes hot buckets make.
//!
//! `cargo run --release -p raft --example limit_cost -- [keys] [buckets] [seconds] [directory]`

#![allow(
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement, run by hand"
)]

#[path = "cluster/nodes.rs"]
mod nodes;

use machine::{
    Actor, Command, Name,
    allowance::BucketId,
    limit::{Rate, Rule},
    resource::Change,
};
use nodes::{Real, cluster, request};
use raft::{Allowances, Clock, Fence, Handle, Slot, Verdict, admit};
use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

const RULE: Rule = Rule::Rate(Rate { tokens: 100_000, period_us: 1_000_000, burst: 100_000 });

/// As the gateway waits.
const WAIT: Duration = Duration::from_millis(250);

fn id(kind: &str, number: u64) -> BucketId {
    let subject = format!("{kind}-{number:012}").into_bytes().into();
    BucketId { limit: Name::new("per-key").unwrap(), subject }
}

fn slot(allowances: &Allowances, id: &BucketId) -> Vec<(Arc<Slot>, u64)> {
    vec![(allowances.slot(id, RULE.burst()).unwrap(), 1)]
}

async fn spend(allowances: &Allowances, parts: &[(Arc<Slot>, u64)]) -> Verdict {
    match admit(parts, Real.boot_us()) {
        Verdict::Dry => allowances.wait(parts, WAIT).await,
        verdict => verdict,
    }
}

fn last_index(nodes: &[Handle]) -> u64 {
    nodes.iter().map(|node| node.local().last_index).max().unwrap()
}

fn log_bytes(dir: &Path) -> u64 {
    let files = fs::read_dir(dir.join("n1/log")).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// What was written to the log of one node since.
struct Written<'a> {
    nodes: &'a [Handle],
    dir: &'a Path,
    index: u64,
    bytes: u64,
    began: Instant,
}

impl<'a> Written<'a> {
    fn since_now(nodes: &'a [Handle], dir: &'a Path) -> Self {
        Self { nodes, dir, index: last_index(nodes), bytes: log_bytes(dir), began: Instant::now() }
    }

    fn print(&self) {
        let seconds = self.began.elapsed().as_secs_f64();
        let entries = last_index(self.nodes) - self.index;
        let bytes = log_bytes(self.dir).saturating_sub(self.bytes);
        println!("{:>12.0} entries/s {:>12.0} bytes/s", entries as f64 / seconds, bytes as f64 / seconds);
    }
}

/// Each key once, so many at a time.
async fn cold(node: &Handle, kind: &'static str, keys: u64, at_once: u64) -> Vec<Duration> {
    let next = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..at_once)
        .map(|_| {
            let (allowances, next) = (node.allowances(), Arc::clone(&next));
            tokio::spawn(async move {
                let mut took = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= keys {
                        return took;
                    }
                    let began = Instant::now();
                    let parts = slot(&allowances, &id(kind, number));
                    // One that waits too long is refused; the time tells.
                    spend(&allowances, &parts).await;
                    took.push(began.elapsed());
                }
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.unwrap());
    }
    took.sort_unstable();
    took
}

/// Each bucket so often a second on each node; returns requests, and those of them that found nothing.
async fn hot(nodes: &[Handle], buckets: u64, each_s: u64, time: Duration) -> (u64, u64) {
    let tasks: Vec<_> = nodes
        .iter()
        .map(|node| {
            let allowances = node.allowances();
            tokio::spawn(async move {
                let parts: Vec<_> = (0..buckets).map(|number| slot(&allowances, &id("hot", number))).collect();
                let (mut made, mut dry) = (0, 0);
                let began = Instant::now();
                while began.elapsed() < time {
                    let due = (began.elapsed().as_secs_f64() * (buckets * each_s) as f64) as u64;
                    while made < due {
                        let parts = &parts[(made % buckets) as usize];
                        if admit(parts, Real.boot_us()) == Verdict::Dry {
                            dry += 1;
                            // Whoever waits does not hold up the others.
                            let (allowances, parts) = (Arc::clone(&allowances), parts.clone());
                            tokio::spawn(async move { allowances.wait(&parts, WAIT).await });
                        }
                        made += 1;
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                (made, dry)
            })
        })
        .collect();
    let mut sum = (0, 0);
    for task in tasks {
        let (made, dry) = task.await.unwrap();
        sum = (sum.0 + made, sum.1 + dry);
    }
    sum
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |or: u64| arguments.next().and_then(|text| text.parse().ok()).unwrap_or(or);
    let (keys, buckets, seconds) = (number(20_000), number(10_000), number(5));
    let temporary = tempfile::tempdir().unwrap();
    let dir = arguments.next().map_or(temporary.path().to_owned(), Into::into);
    let nodes = cluster(3, &dir).await;
    let name = Name::new("per-key").unwrap();
    let changes = vec![Change::PutLimit { name, bytes: b"{}".as_slice().into(), rule: RULE }];
    let command = Command::ApplyResources { validated_against: 0, changes };
    let root = Actor::Operator(Name::new("root").unwrap());
    nodes[0].propose(request(), root, command, Fence::None).await.unwrap();

    let follower = nodes.last().unwrap();
    let allowances = follower.allowances();
    let parts = slot(&allowances, &id("warm", 0));
    // In runs of a few hundred within what the node holds: no limit of this machine's speed keeps up with a loop, and a
    // request that finds nothing is not a warm one.
    let (mut warm, mut took, began) = (0_u64, Duration::ZERO, Instant::now());
    while began.elapsed() < Duration::from_secs(3) {
        let run = Instant::now();
        let admitted = (0..256).all(|_| matches!(admit(&parts, Real.boot_us()), Verdict::Admitted { .. }));
        if admitted {
            (warm, took) = (warm + 256, took + run.elapsed());
        } else {
            let _ = spend(&allowances, &parts).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("warm: {:.0} ns each, a reading of the clock included", took.as_nanos() as f64 / warm as f64);

    for (kind, through, at_once) in
        [("a", &nodes[0], 1), ("b", follower, 1), ("c", &nodes[0], 256), ("d", follower, 256)]
    {
        let written = Written::since_now(&nodes, &dir);
        let keys = if at_once == 1 { keys.min(500) } else { keys };
        let took = cold(through, kind, keys, at_once).await;
        let at = |part: usize| took[(took.len() * part / 100).min(took.len() - 1)];
        let at_leader = through.local().leader == Some(through.local().node);
        print!("first requests of {keys} keys, {at_once} at once, at the leader {at_leader}: ");
        print!("{:.2?} p50, {:.2?} p99, {:.2?} max", at(50), at(99), at(100));
        written.print();
    }

    let mut each_s = 1;
    while each_s <= 8 {
        // Until the demand is known.
        hot(&nodes, buckets, each_s, Duration::from_secs(3)).await;
        let written = Written::since_now(&nodes, &dir);
        let (made, dry) = hot(&nodes, buckets, each_s, Duration::from_secs(seconds)).await;
        print!("{buckets} hot buckets, {each_s}/s each on each node: {made} requests, {dry} found nothing");
        written.print();
        each_s *= 2;
    }
    println!("terms: {}", nodes[0].local().term);
    for node in nodes {
        node.stop().await;
    }
}

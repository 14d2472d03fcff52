//! What the stages of a request cost: the same request through a proxy that only passes on ([`bare`]) and through routes
//! that do more and more, in turns, in one program. The figure is the processor time of the one thread that serves, as the
//! kernel counts it; clients and the upstream have threads of their own.
//!
//! `cargo bench -p quorate --profile dist --bench stages [rounds]`; docs/performance.md has what it said. With `only=NAME`
//! one row alone is driven, for profilers that count instructions. Without `--bench`, as when tests are run, it makes a few
//! requests.

#![allow(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    dead_code,
    reason = "a measurement fails by panicking, prints, and shares what tests use"
)]

#[path = "../tests/gateway/bank.rs"]
mod bank;
#[path = "stages/bare.rs"]
mod bare;
#[path = "../tests/gateway/harness.rs"]
mod harness;
#[path = "stages/load.rs"]
mod load;

use bank::{Bank, Steward};
use harness::{Cluster, settings};
use load::{Load, upstream};
use quorate::gateway::AccessLog;
use std::{collections::BTreeMap, fs, net::SocketAddr, sync::Arc};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONNECTIONS: usize = 64;

/// One way through.
struct Row {
    name: &'static str,
    address: SocketAddr,
    path: &'static str,
    /// The thread that serves.
    thread: u64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_measured = arguments.iter().any(|argument| argument == "--bench");
    let rounds =
        arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(if is_measured { 15 } else { 1 });
    let requests = if is_measured { 400 } else { 2 };
    let only = arguments.iter().find_map(|argument| argument.strip_prefix("only=")).map(str::to_owned);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let to = upstream();
    let folder = tempfile::tempdir().unwrap();
    let (rows, key, _kept) = runtime.block_on(rows(to, &folder.path().join("access.log")));
    let load = Load::start(CONNECTIONS, key);
    let mut costs: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    // Allowances are asked for by a task of this thread.
    let ticking = std::thread::spawn(move || {
        for round in 0..=rounds {
            for (place, row) in rows.iter().enumerate() {
                if only.as_ref().is_some_and(|only| only != row.name) {
                    continue;
                }
                let before = processor_ns(row.thread);
                let count = load.run(row.address, row.path, requests);
                let spent = processor_ns(row.thread) - before;
                if round > 0 {
                    costs.entry(place).or_default().push(spent as f64 / count as f64 / 1e3);
                }
            }
        }
        (costs, rows)
    });
    runtime.block_on(async {
        while !ticking.is_finished() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    });
    let (costs, rows) = ticking.join().unwrap();
    println!("| way | us of processor: least | median | over the line before |");
    println!("| --- | ---: | ---: | ---: |");
    let mut before: Option<f64> = None;
    for (place, mut spent) in costs {
        spent.sort_by(f64::total_cmp);
        let (least, median) = (spent[0], spent[spent.len() / 2]);
        let more = before.map_or(String::new(), |before| format!("{:+.2}", median - before));
        println!("| {} | {least:.2} | {median:.2} | {more} |", rows[place].name);
        before = Some(median);
    }
}

/// Starts everything there is to be compared.
async fn rows(to: SocketAddr, log: &std::path::Path) -> (Vec<Row>, String, Vec<(Cluster, Steward)>) {
    let mut known = threads();
    let mut thread_of = move |name: &str| {
        let now = threads();
        let made = now.iter().find(|(id, comm)| comm.as_str() == name && !known.contains_key(*id)).map(|(id, _)| *id);
        known = now;
        made.unwrap_or_else(|| panic!("no thread {name}"))
    };
    let address = bare::start(to);
    let mut rows = vec![Row { name: "bare", address, path: "/open", thread: thread_of("bare") }];
    let text = format!(
        "upstreams: {{ u: {{ targets: ['http://{to}'], connections_max: 512 }} }}
consumers: {{ acme: {{ roles: [caller] }} }}
limits: {{ lots: {{ rate: 10000000/s, per: key }} }}
routes:
  open: {{ paths: [/open], upstream: u, authenticate: [none], policies: off }}
  key: {{ paths: [/key], upstream: u, policies: off }}
  policy: {{ paths: [/policy], upstream: u }}
  limit: {{ paths: [/limit], upstream: u, limits: [lots] }}
policies:
  callers: permit(principal in Role::\"caller\", action, resource);
"
    );
    let mut kept = Vec::new();
    let mut key = String::new();
    for (access_log, ways) in [
        (AccessLog::Off, [("open", "/open"), ("key", "/key"), ("policy", "/policy"), ("limit", "/limit")].as_slice()),
        (AccessLog::File(log.to_owned()), [("log", "/limit")].as_slice()),
    ] {
        let mut with = settings();
        with.workers = 1;
        with.access_log = access_log;
        let allowances = Arc::clone(&with.allowances);
        let mut cluster = Cluster::start_with(with, &text).await;
        let thread = thread_of("worker-0");
        let bank = Bank::default();
        bank.follow(&cluster.state);
        let steward = bank.serve(allowances);
        let address = cluster.address();
        let credential = cluster.create_key("acme", None, &[]).await;
        let text = credential.text().to_string();
        if key.is_empty() {
            key = text;
        } else {
            // The same key everywhere: what a client sends does not depend on the way.
            cluster.adopt_key(&key, "acme").await;
        }
        rows.extend(ways.iter().map(|(name, path)| Row { name, address, path, thread }));
        kept.push((cluster, steward));
    }
    (rows, key, kept)
}

/// The threads of this program, by id, and their names.
fn threads() -> BTreeMap<u64, String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap());
    tasks
        .filter_map(|task| {
            let id = task.file_name().to_str()?.parse().ok()?;
            Some((id, fs::read_to_string(task.path().join("comm")).ok()?.trim().to_owned()))
        })
        .collect()
}

/// Nanoseconds that a thread has run.
fn processor_ns(thread: u64) -> u64 {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

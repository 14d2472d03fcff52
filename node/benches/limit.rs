//! What a limit costs a warm request: pairs of the same request to the same gateway over the same connection, one with a
//! limit of the cluster and one without, in turns. A whole request is dominated by system calls, so the figure is the
//! median of the differences over many pairs, with the mean beside it.
//!
//! `cargo bench -p quorate --bench limit [pairs]`. Without `--bench`, as when tests are run, it makes a few pairs only.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    dead_code,
    reason = "a measurement fails by panicking, prints, and shares what tests use"
)]

#[path = "../tests/gateway/bank.rs"]
mod bank;
#[path = "../tests/gateway/harness.rs"]
mod harness;

use bank::Bank;
use harness::*;
use std::{sync::Arc, time::Instant};

const WARM_UP: usize = 2_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_measured = arguments.iter().any(|argument| argument == "--bench");
    let asked = arguments.iter().find_map(|argument| argument.parse().ok());
    let pairs = asked.unwrap_or(if is_measured { 100_000 } else { 200 });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (what, limits) in [
        ("one limit of the cluster, per consumer", "[one]"),
        ("one limit of the cluster, per key", "[key]"),
        ("three limits of the cluster", "[one, key, route]"),
        ("one limit of this node, per consumer", "[here]"),
    ] {
        let mut differences = runtime.block_on(measure(limits, pairs));
        differences.sort_unstable();
        let median = differences[differences.len() / 2];
        let middle = &differences[differences.len() / 10..differences.len() * 9 / 10];
        let mean = middle.iter().sum::<i64>() / i64::try_from(middle.len()).unwrap();
        println!("{what}: {median} ns more (median of {pairs} pairs), {mean} ns (mean of the middle four fifths)");
    }
}

async fn measure(limits: &str, pairs: usize) -> Vec<i64> {
    let upstream = Upstream::echo().await;
    let mut with = settings();
    with.workers = 1;
    let allowances = Arc::clone(&with.allowances);
    let text = format!(
        "defaults: {{ allowance_wait: 10s }}
upstreams: {{ u: {{ targets: ['{}'] }} }}
consumers: {{ acme: {{}} }}
limits:
  one: {{ rate: 10000000/s, per: consumer }}
  key: {{ rate: 10000000/s, per: key }}
  route: {{ rate: 10000000/s, per: [consumer, route] }}
  here: {{ rate: 10000000/s, per: consumer, scope: node }}
routes:
  free: {{ paths: [/free], upstream: u, policies: off }}
  held: {{ paths: [/held], upstream: u, policies: off, limits: {limits} }}
",
        upstream.url()
    );
    let mut cluster = Cluster::start_with(with, &text).await;
    let bank = Bank::default();
    bank.follow(&cluster.state);
    let _steward = bank.serve(allowances);
    let key = cluster.create_key("acme", None, &[]).await.text();
    let mut client = Client::connect(cluster.address()).await;
    let mut took = async |path: &str| {
        let began = Instant::now();
        assert_eq!(client.get(path, &key).await.status, 200);
        i64::try_from(began.elapsed().as_nanos()).unwrap()
    };
    for _ in 0..WARM_UP.min(pairs) {
        took("/free").await;
        took("/held").await;
    }
    let mut differences = Vec::with_capacity(pairs);
    for pair in 0..pairs {
        // Neither of the two is always the second.
        let (free, held) = if pair % 2 == 0 {
            let free = took("/free").await;
            (free, took("/held").await)
        } else {
            let held = took("/held").await;
            (took("/free").await, held)
        };
        differences.push(held - free);
    }
    differences
}

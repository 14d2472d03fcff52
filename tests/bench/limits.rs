//! What global limits and the fence cost, on three real nodes. A program to be run by hand, not a test:
//!
//!     cargo bench -p tests --bench limits               # everything, some minutes
//!     cargo bench -p tests --bench limits -- warm fence # these parts
//!
//! Everything runs on one machine, the client included: compare figures of one run with each other.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement fails by panicking and answers on standard output"
)]

use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use proto::admin::{CreateKeyRequest, WriteOptions, keys_client::KeysClient};
use rustix::process::Signal;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tests::{
    Cluster, Upstream, admin, client::get, json::text, process::cpu_seconds, runtime::runtime, upstream::Reply,
};
use tokio::net::TcpStream;

const PARTS: [(&str, fn()); 5] = [("warm", warm), ("fence", fence), ("entries", entries), ("hot", hot), ("cold", cold)];

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, part) in PARTS {
        if asked.is_empty() || asked.iter().any(|asked| asked == name) {
            println!("\n## {name}");
            part();
        }
    }
}

/// Three nodes, an upstream that says nothing, and a key.
struct Bench {
    cluster: Cluster,
    _upstream: Upstream,
    key: String,
}

impl Bench {
    fn start(limits: &str, routes: &str) -> Self {
        let upstream = Upstream::with(|_| Reply::default());
        let cluster = Cluster::start(3);
        cluster.ctl().apply(&format!(
            "upstreams: {{ u: {{ targets: ['{}'], connections_max: 512 }} }}\nconsumers: {{ acme: {{ roles: [caller] }} }}\n\
             policies:\n  callers: |\n    permit(principal in Role::\"caller\", action, resource);\n\
             limits:\n{limits}routes:\n  free: {{ paths: ['/free'], upstream: u }}\n{routes}",
            upstream.url()
        ));
        let made = cluster.ctl().json(["keys", "create", "--consumer", "acme"]);
        Self { key: text(&made, "key").to_owned(), cluster, _upstream: upstream }
    }

    /// Processor time of all nodes, in seconds.
    fn cpu(&self) -> f64 {
        self.cluster.nodes.iter().map(|node| cpu_seconds(node.process.as_ref().expect("it runs").pid())).sum()
    }

    fn addresses(&self) -> Vec<String> {
        self.cluster.nodes.iter().map(|node| node.gateway.clone()).collect()
    }

    /// The leader's log: entries so far, and bytes of everybody's log folder.
    fn log(&self) -> (u64, u64) {
        let leader = self.cluster.leader();
        let metrics = self.cluster.node(leader).ops().send(get("/metrics")).text();
        let line = metrics.lines().find(|line| line.starts_with("quorate_raft_last_index ")).expect("the metric");
        let entries = line.rsplit(' ').next().and_then(|number| number.parse::<f64>().ok()).expect("a number");
        let folder = self.cluster.node(leader).data_dir().join("log");
        let bytes = std::fs::read_dir(folder).expect("a log").map(|file| file.unwrap().metadata().unwrap().len()).sum();
        (entries as u64, bytes)
    }
}

/// What became of a run of requests.
#[derive(Debug, Default)]
struct Run {
    statuses: BTreeMap<u16, u64>,
    latencies: Vec<Duration>,
    elapsed: Duration,
}

impl Run {
    fn count(&self) -> u64 {
        self.statuses.values().sum()
    }

    fn percentile(&mut self, percent: usize) -> f64 {
        self.latencies.sort_unstable();
        let place = (self.latencies.len() * percent / 100).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(place).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    }
}

/// How long and how fast.
#[derive(Clone, Copy)]
enum Pace {
    /// As fast as the answers come, for so long.
    Closed(Duration),
    /// As fast as the answers come, so many.
    Count(u64),
    /// So many a second, for so long.
    Open { rate: u64, during: Duration },
}

/// Requests to a path over keep-alive connections to these nodes in turn; each carries the number of its user.
fn ask(addresses: &[String], connections: usize, path: &str, key: &str, users: u64, pace: Pace) -> Run {
    let next = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    runtime().block_on(async {
        let tasks: Vec<_> = (0..connections)
            .map(|place| {
                let (address, path, key) =
                    (addresses[place % addresses.len()].clone(), path.to_owned(), key.to_owned());
                let next = Arc::clone(&next);
                tokio::spawn(async move {
                    let mut run = Run::default();
                    let mut sender = open(&address).await;
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        match pace {
                            Pace::Closed(during) if began.elapsed() >= during => break,
                            Pace::Count(count) if number >= count => break,
                            Pace::Open { rate, during } => {
                                let due = Duration::from_nanos(number * 1_000_000_000 / rate);
                                if due >= during {
                                    break;
                                }
                                tokio::time::sleep_until((began + due).into()).await;
                            }
                            _ => {}
                        }
                        let request = http::Request::get(&path)
                            .header("host", "localhost")
                            .header("x-api-key", &key)
                            .header("x-user", number % users)
                            .body(Empty::<bytes::Bytes>::new())
                            .unwrap();
                        let sent = Instant::now();
                        sender.ready().await.unwrap();
                        let answer = sender.send_request(request).await.unwrap();
                        *run.statuses.entry(answer.status().as_u16()).or_default() += 1;
                        answer.into_body().collect().await.unwrap();
                        run.latencies.push(sent.elapsed());
                    }
                    run
                })
            })
            .collect();
        let mut all = Run::default();
        for task in tasks {
            let run = task.await.unwrap();
            all.latencies.extend(run.latencies);
            for (status, count) in run.statuses {
                *all.statuses.entry(status).or_default() += count;
            }
        }
        all.elapsed = began.elapsed();
        all
    })
}

async fn open(address: &str) -> SendRequest<Empty<bytes::Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Processor time of a request with a warm limit beside the same without, in interleaved pairs of blocks.
fn warm() {
    let bench = Bench::start(
        "  wide: { rate: 1000000/s, burst: 4000000, per: key }\n",
        "  limited: { paths: ['/limited'], upstream: u, limits: [wide] }\n",
    );
    let addresses = bench.addresses();
    let block = |path: &str| {
        let before = bench.cpu();
        let run = ask(&addresses[..1], 32, path, &bench.key, 1, Pace::Closed(Duration::from_secs(2)));
        assert_eq!(run.statuses.get(&200), Some(&run.count()), "{:?}", run.statuses);
        (bench.cpu() - before) * 1e6 / run.count() as f64
    };
    block("/limited");
    block("/free");
    let mut pairs: Vec<(f64, f64)> = Vec::new();
    for round in 0..16 {
        // Who comes first changes, so that what drifts hits both alike.
        if round % 2 == 0 {
            let free = block("/free");
            pairs.push((free, block("/limited")));
        } else {
            let limited = block("/limited");
            pairs.push((block("/free"), limited));
        }
    }
    let least = |pick: fn(&(f64, f64)) -> f64| pairs.iter().map(pick).fold(f64::INFINITY, f64::min);
    let median = |mut of: Vec<f64>| {
        of.sort_by(f64::total_cmp);
        of[of.len() / 2]
    };
    println!("| CPU of three nodes, µs a request | least | median |\n| --- | ---: | ---: |");
    println!(
        "| without a limit | {:.2} | {:.2} |",
        least(|pair| pair.0),
        median(pairs.iter().map(|pair| pair.0).collect())
    );
    println!(
        "| with a warm limit | {:.2} | {:.2} |",
        least(|pair| pair.1),
        median(pairs.iter().map(|pair| pair.1).collect())
    );
    println!("| difference within a pair | | {:.2} |", median(pairs.iter().map(|pair| pair.1 - pair.0).collect()));
}

/// A fence beside a commit, and with a node cut off.
fn fence() {
    let mut bench = Bench::start("  x: { rate: 1/s, burst: 1, per: key }\n", "");
    let context = bench.cluster.ctl().context().to_path_buf();
    let leader = bench.cluster.leader();
    let channel = runtime().block_on(admin::connect(&context, &bench.cluster.node(leader).cluster));
    let create = |no_wait: bool| {
        let write = WriteOptions { no_wait, ..admin::write_options() };
        let request =
            CreateKeyRequest { write: Some(write), consumer: "acme".to_owned(), ..CreateKeyRequest::default() };
        let began = Instant::now();
        let made = runtime().block_on(KeysClient::new(channel.clone()).create(request)).expect("done");
        drop(made);
        began.elapsed()
    };
    let (mut committed, mut fenced) = (Run::default(), Run::default());
    for _ in 0..500 {
        committed.latencies.push(create(true));
        fenced.latencies.push(create(false));
    }
    println!("| key creation, one after the other | p50 ms | p99 ms |\n| --- | ---: | ---: |");
    println!("| committed (`--no-wait`) | {:.2} | {:.2} |", committed.percentile(50), committed.percentile(99));
    println!("| enforced on three nodes | {:.2} | {:.2} |", fenced.percentile(50), fenced.percentile(99));
    println!("ratio of the medians: {:.2}", fenced.percentile(50) / committed.percentile(50));
    let cut = leader % 3 + 1;
    let mut waits = Run::default();
    for _ in 0..8 {
        bench.cluster.node_mut(cut).process.as_mut().unwrap().signal(Signal::STOP);
        waits.latencies.push(create(false));
        bench.cluster.node_mut(cut).process.as_mut().unwrap().signal(Signal::CONT);
        bench.cluster.node_mut(cut).wait_ready();
        create(false);
    }
    println!(
        "with a node stopped just before: p50 {:.0} ms, longest {:.0} ms",
        waits.percentile(50),
        waits.percentile(100)
    );
}

/// Log entries a second while the request rate grows on the same buckets.
fn entries() {
    let bench = Bench::start(
        "  wide: { rate: 100000/s, burst: 100000, per: 'header:x-user', max_subjects: 1000 }\n",
        "  limited: { paths: ['/limited'], upstream: u, limits: [wide] }\n",
    );
    std::thread::sleep(Duration::from_secs(12));
    let (before, _) = bench.log();
    std::thread::sleep(Duration::from_secs(5));
    println!("idle: {} entries in 5 s", bench.log().0 - before);
    println!("| requests/s over 20 buckets | admitted | entries/s | log bytes/s |\n| ---: | ---: | ---: | ---: |");
    for rate in [30, 300, 3_000] {
        let pace = |seconds| Pace::Open { rate, during: Duration::from_secs(seconds) };
        ask(&bench.addresses(), 24, "/limited", &bench.key, 20, pace(3));
        let (before, bytes) = bench.log();
        let run = ask(&bench.addresses(), 24, "/limited", &bench.key, 20, pace(10));
        let (after, bytes_after) = bench.log();
        let seconds = run.elapsed.as_secs_f64();
        println!(
            "| {rate} | {:?} | {:.1} | {:.0} |",
            run.statuses,
            (after - before) as f64 / seconds,
            bytes_after.saturating_sub(bytes) as f64 / seconds
        );
    }
}

/// Ten thousand hot buckets on three nodes.
fn hot() {
    const BUCKETS: u64 = 10_000;
    let bench = Bench::start(
        "  wide: { rate: 100/s, burst: 1000, per: 'header:x-user', max_subjects: 20000 }\n",
        "  limited: { paths: ['/limited'], upstream: u, limits: [wide] }\n",
    );
    // Every bucket is used on every node, again and again: 10,000 is no multiple of the connections.
    let pace = |seconds| Pace::Open { rate: 6_000, during: Duration::from_secs(seconds) };
    ask(&bench.addresses(), 48, "/limited", &bench.key, BUCKETS, pace(10));
    let (before, bytes) = bench.log();
    let cpu = bench.cpu();
    let mut run = ask(&bench.addresses(), 48, "/limited", &bench.key, BUCKETS, pace(30));
    let (after, bytes_after) = bench.log();
    let seconds = run.elapsed.as_secs_f64();
    println!("{BUCKETS} buckets, {} requests in {seconds:.1} s: {:?}", run.count(), run.statuses);
    println!(
        "p50 {:.2} ms, p99 {:.2} ms, longest {:.1} ms",
        run.percentile(50),
        run.percentile(99),
        run.percentile(100)
    );
    println!(
        "{:.1} entries/s, {:.0} KiB of log/s, {:.2} cores on all three nodes",
        (after - before) as f64 / seconds,
        bytes_after.saturating_sub(bytes) as f64 / 1024.0 / seconds,
        (bench.cpu() - cpu) / seconds
    );
}

/// Many keys, one request each: what the first costs, beside a warm one.
fn cold() {
    let count: u64 = std::env::var("KEYS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let bench = Bench::start(
        "  wide: { rate: 100/s, burst: 100, per: 'header:x-user', max_subjects: 1000000 }\n",
        "  limited: { paths: ['/limited'], upstream: u, limits: [wide] }\n",
    );
    let addresses = bench.addresses();
    let mut warm = Run::default();
    // As many users as keep each of them within its limit.
    for _ in 0..2 {
        warm = ask(&addresses, 48, "/limited", &bench.key, 480, Pace::Count(40_000));
    }
    println!("| | requests/s | p50 ms | p99 ms | answers |\n| --- | ---: | ---: | ---: | --- |");
    let row = |what: &str, run: &mut Run| {
        let rate = run.count() as f64 / run.elapsed.as_secs_f64();
        println!("| {what} | {rate:.0} | {:.2} | {:.2} | {:?} |", run.percentile(50), run.percentile(99), run.statuses);
    };
    row("warm", &mut warm);
    let (before, bytes) = bench.log();
    let mut first = ask(&addresses, 48, "/limited", &bench.key, u64::MAX, Pace::Count(count));
    let (after, bytes_after) = bench.log();
    row("the first of a key", &mut first);
    let mut light = ask(&addresses[..1], 1, "/limited", &bench.key, u64::MAX, Pace::Count(2_000));
    row("the first, one after the other", &mut light);
    println!(
        "{count} keys: {} entries, {:.0} bytes of log for each key (as far as the log was not purged meanwhile)",
        after - before,
        bytes_after.saturating_sub(bytes) as f64 / count as f64
    );
}

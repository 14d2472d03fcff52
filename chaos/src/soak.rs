//! The soak: three real nodes under as many clients, keys and buckets as a busy gateway has, with bad clients among them, for as long
//! as it is left alone. What must stay flat is sampled and judged by comparing the last third of the run with the first.
//!
//! This page tells the story; `soak/` has who asks ([`load`]), who misbehaves ([`bad`]), what is looked at ([`sample`]) and what
//! follows ([`verdict`]).

pub mod bad;
pub mod load;
pub mod sample;
pub mod verdict;

use crate::{run::report::say, sim::random::Random};
use anyhow::{Context as _, ensure};
use load::{Load, Targets};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sample::Sampler;
use sha2::{Digest as _, Sha256};
use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tests::{Cluster, Ctl, Upstream, upstream::Reply};
use verdict::Verdict;

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// What bad clients do, and when each client asks.
    pub seed: u64,
    /// How long samples are taken.
    pub length: Duration,
    /// Clients, each with a connection that it keeps.
    pub connections: usize,
    /// Keys that the cluster knows.
    pub keys: usize,
    /// Of these, how many are used; each has a bucket of the global limit.
    pub buckets: usize,
    /// Requests in a second, of all clients together.
    pub rate: u64,
    /// Bad clients at a time.
    pub bad: usize,
    /// A snapshot after so many log entries instead of the product's own measure, so that a short run cuts its log as well; 0 for the
    /// product's.
    pub snapshot_entries: u64,
    /// Where the samples go, as JSON lines. Without it they are only judged.
    pub samples: Option<PathBuf>,
}

/// Entries beside those of the limits: keys that come and go.
const CHURN_EVERY: Duration = Duration::from_secs(1);
/// Files that the harness needs beside its clients' connections: those of the upstream, of which a node keeps as many as it needs at once.
const FILES_BESIDE: usize = 4_000;
/// So many samples at least, however short the run is.
const SAMPLES_MIN: u32 = 30;
/// The longest time between two samples.
const SAMPLE_EVERY_MAX: Duration = Duration::from_secs(10);
/// For connections to be made and buckets to be warm, before anything counts: this and a millisecond for each connection.
const WARM_UP: Duration = Duration::from_secs(10);

/// Runs once.
///
/// # Errors
/// This machine does not permit it, or the cluster did not come up: nothing follows from that.
pub fn run(options: &Options) -> anyhow::Result<Vec<Verdict>> {
    ensure!(options.buckets <= options.keys && options.buckets > 0, "a bucket needs a key");
    ensure!(options.connections > 0 && options.rate > 0, "somebody has to ask");
    raise_file_limit(options.connections + options.bad + FILES_BESIDE)?;
    let upstream = Upstream::at([127, 0, 0, 1].into(), 0, |_| Reply { body: "fine\n".into(), ..Reply::default() });
    let period = Duration::from_secs_f64(options.connections as f64 / options.rate as f64);
    let idle_timeout = 4 * period + Duration::from_secs(10);
    let cluster = start(options, idle_timeout);
    let import = Instant::now();
    prepare(&cluster, options, &upstream.url())?;
    say(&format!("{} keys in {:.1} s", options.keys, import.elapsed().as_secs_f64()));

    let gateways: Vec<SocketAddr> =
        cluster.nodes.iter().map(|node| node.gateway.parse()).collect::<Result<_, _>>().context("an address")?;
    let targets = Targets { gateways: gateways.clone(), keys: (0..options.buckets).map(credential).collect(), period };
    let load = Load::start(&Arc::new(targets), options.connections, options.seed);
    let bad = bad::start(&gateways, options.bad, idle_timeout, options.seed);
    std::thread::sleep(WARM_UP + Duration::from_millis(options.connections as u64));

    let every = (options.length / SAMPLES_MIN).min(SAMPLE_EVERY_MAX);
    let mut sampler = Sampler::new(&cluster);
    let mut written = options.samples.as_ref().map(fs::File::create).transpose()?;
    let mut samples = Vec::new();
    drop(load.take());
    let (began, mut next) = (Instant::now(), every);
    let churn = Churn::start(cluster.ctl());
    while began.elapsed() < options.length {
        if began.elapsed() >= next {
            next += every;
            let sample = sampler.sample(began.elapsed(), &load.take(), bad.ended());
            if let Some(file) = &mut written {
                writeln!(file, "{}", serde_json::to_string(&sample)?)?;
            }
            samples.push(sample);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    load.stop();
    let churns = churn.stop();
    say(&format!(
        "{} samples in {} s, {churns} keys made and revoked meanwhile",
        samples.len(),
        began.elapsed().as_secs()
    ));
    Ok(verdict::judge(&samples, &verdict::Expected { connections: options.connections, bad: options.bad }))
}

/// Three nodes, with timeouts that short runs meet as well.
fn start(options: &Options, idle_timeout: Duration) -> Cluster {
    let seconds = |duration: Duration| format!("{}s", duration.as_secs());
    let connections = (options.connections + options.bad + 100).to_string();
    let environment = [
        ("QUORATE_GATEWAY_CONNECTIONS_MAX", connections.as_str()),
        ("QUORATE_GATEWAY_HEADER_TIMEOUT", "3s"),
        ("QUORATE_GATEWAY_IDLE_TIMEOUT", &seconds(idle_timeout)),
        // Written all the same; a file of hours of requests is not what this is about.
        ("QUORATE_ACCESS_LOG", "/dev/null"),
        // What a node holds is measured, not what the kernel rounds up to huge pages when it comes by.
        ("MIMALLOC_ALLOW_THP", "0"),
    ];
    let mut cluster = Cluster::start_with(3, &environment);
    if options.snapshot_entries > 0 {
        for node in &mut cluster.nodes {
            let faults = node.directory.join("faults.toml");
            let written = fs::write(&faults, format!("snapshot_entries = {}\n", options.snapshot_entries));
            if written.is_ok() && node.stop().is_some() {
                node.run_with(|command| {
                    command.arg("--unsafe-test-faults").arg(&faults);
                });
                node.wait_ready();
            }
        }
    }
    cluster
}

/// Routes, limits and keys.
fn prepare(cluster: &Cluster, options: &Options, upstream: &str) -> anyhow::Result<()> {
    let folder = &cluster.node(1).directory;
    let resources = format!(
        "upstreams:\n  backend: {{ targets: [\"{upstream}\"] }}\n\
         consumers:\n  soak: {{}}\n\
         limits:\n  each: {{ rate: 50/s, burst: 100, per: key }}\n\
         routes:\n  soak: {{ paths: [\"/soak/{{*rest}}\"], upstream: backend, limits: [each], policies: off }}\n"
    );
    cluster.ctl().apply(&resources);
    let mut table = "sha256,consumer,name,scopes,expires\n".to_owned();
    for number in 0..options.keys {
        let hash = Sha256::digest(credential(number).as_bytes());
        table += &format!("{},soak,,,\n", data_encoding::HEXLOWER.encode(&hash));
    }
    let file = folder.join("keys.csv");
    fs::write(&file, table)?;
    let imported =
        cluster.ctl().run_json(["keys", "import", "--timeout", "120s", file.to_str().context("a path is UTF-8")?]);
    ensure!(imported.code == 0, "{imported}");
    Ok(())
}

/// The credential of a key by its number: a foreign one, as of another gateway.
fn credential(number: usize) -> String {
    format!("soak-{number:08}-{:016x}", Random::new(number as u64).next())
}

/// Keys that come and go: the log grows, and has to be cut.
struct Churn {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Churn {
    fn start(ctl: Ctl) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut churns = 0;
            while !told.load(Ordering::Relaxed) {
                let made = ctl.run_json(["keys", "create", "--consumer", "soak"]);
                let id = if made.code == 0 {
                    made.done().get("id").and_then(|id| id.as_str()).map(str::to_owned)
                } else {
                    None
                };
                if let Some(id) = id {
                    ctl.run_json(["keys", "revoke", &id, "--yes"]);
                    churns += 1;
                }
                std::thread::sleep(CHURN_EVERY);
            }
            churns
        });
        Self { stop, thread }
    }

    /// How many came and went.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// So many files at once, for this process and the nodes that it starts.
fn raise_file_limit(files: usize) -> anyhow::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = files as u64;
    if current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let raised = Rlimit { current: Some(wanted), maximum: maximum.map(|maximum| maximum.max(wanted)) };
    setrlimit(Resource::Nofile, raised)
        .with_context(|| format!("{wanted} open files are needed, and {current:?} are permitted: ulimit -n"))
}

//! What the cluster has to do while it is broken: clients on every node with keys under several limits, and people who make, rotate and
//! revoke keys and edit resources, through any node. All of it is written down; nothing is judged here.

pub mod administrator;
pub mod attempt;
pub mod client;
pub mod credentials;
pub mod rules;

use super::{
    cluster::{Cluster, Seats},
    operator::Operator,
};
use crate::{history::Recorder, sim::random::Random};
use anyhow::{Context as _, ensure};
use attempt::{Asker, timed};
use credentials::Credentials;
use proto::admin::{ApplyRequest, ResourceFile, resources_client::ResourcesClient};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// Clients of each node.
const CLIENTS: usize = 4;
/// Administrators.
const ADMINISTRATORS: u32 = 3;
/// Keys that are there from the start.
const KEYS: usize = 16;
/// Between two requests of a client, on average.
const PACE_MS: u64 = 40;

/// A workload that runs.
#[derive(Debug)]
pub struct Workload {
    /// What its parts share.
    pub shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What clients and administrators share.
#[derive(Debug)]
pub struct Shared {
    /// The keys.
    pub credentials: Credentials,
    /// Where the nodes are.
    pub seats: Arc<Seats>,
    /// Where everything is written down.
    pub recorder: Recorder,
    counts: Mutex<BTreeMap<String, u64>>,
    stop: AtomicBool,
    next_request: AtomicU64,
    next_key: AtomicU64,
    pace_ms: u64,
}

impl Shared {
    /// One more of these.
    pub fn count(&self, what: &str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(what) {
            Some(count) => *count += 1,
            None => drop(counts.insert(what.to_owned(), 1)),
        }
    }

    /// How many of each there were.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Workload {
    /// Applies resources, makes the first keys and starts to ask.
    ///
    /// # Errors
    /// The cluster, of which nothing is broken yet, does not take them.
    pub fn start(cluster: &Cluster, upstream: &str, seed: u64) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            credentials: Credentials::default(),
            seats: Arc::clone(&cluster.seats),
            recorder: cluster.recorder.clone(),
            counts: Mutex::default(),
            stop: AtomicBool::new(false),
            next_request: AtomicU64::new(1),
            next_key: AtomicU64::new(0),
            pace_ms: PACE_MS,
        });
        let began_us = shared.recorder.now_us();
        let patience = Duration::from_secs(30);
        let applied = cluster.operator.ask(0, patience, async |channel| {
            let file = Some(ResourceFile { name: "chaos.yaml".to_owned(), text: rules::file(upstream) });
            let write = Some(tests::admin::write_options());
            let message = ApplyRequest { write, file, prune: false, dry_run: false };
            ResourcesClient::new(channel).apply(timed(message)).await
        });
        applied.map_err(|failure| anyhow::anyhow!("the resources: {failure}"))?;
        rules::record(&shared.recorder, began_us);
        let mut random = Random::new(seed ^ 0x1dad);
        let mut first = shared.asker(u32::MAX, cluster, &mut random);
        for _ in 0..KEYS {
            first.create_key();
        }
        ensure!(shared.credentials.keys().len() == KEYS, "the first keys cannot be made");

        let mut threads = Vec::new();
        for place in 0..shared.seats.0.len() {
            for _ in 0..CLIENTS {
                let (shared, random) = (Arc::clone(&shared), Random::new(random.next()));
                let work = move || client::work(&shared, place, random);
                threads
                    .push(std::thread::Builder::new().name(format!("client {place}")).spawn(work).context("a thread")?);
            }
        }
        for number in 0..ADMINISTRATORS {
            let shared = Arc::clone(&shared);
            let addresses: Vec<String> = shared.seats.0.iter().map(|seat| seat.cluster.clone()).collect();
            let (operator, random) = (cluster.operator.again(&addresses), Random::new(random.next()));
            let work = move || Asker { shared: &shared, number, operator, random }.work();
            threads.push(std::thread::Builder::new().name(format!("admin {number}")).spawn(work).context("a thread")?);
        }
        Ok(Self { shared, threads })
    }

    /// Stops asking, once what was asked is answered or lost.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A client that panicked has said so on standard error; what it recorded stands.
            let _ = thread.join();
        }
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// Somebody who asks, with connections of their own.
    #[must_use]
    pub(crate) fn asker(&self, number: u32, cluster: &Cluster, random: &mut Random) -> Asker<'_> {
        let addresses: Vec<String> = self.seats.0.iter().map(|seat| seat.cluster.clone()).collect();
        let operator: Operator = cluster.operator.again(&addresses);
        Asker { shared: self, number, operator, random: Random::new(random.next()) }
    }
}

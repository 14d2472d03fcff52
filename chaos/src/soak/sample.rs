//! What is looked at: of each node memory, files and disk, from outside; of the clients how they were answered.

use super::{bad::Ended, load::Happened};
use serde::Serialize;
use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _, path::Path, path::PathBuf, time::Duration};
use tests::{Client, Cluster, client::get, process::resident_bytes};

/// One look at everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sample {
    /// Since the first.
    pub at_ms: u64,
    /// Each node.
    pub nodes: Vec<Node>,
    /// Since the sample before: the median, and what only one in a hundred took longer than.
    pub p50_us: u32,
    /// See `p50_us`.
    pub p99_us: u32,
    /// Answers since the sample before, by status; 0 for lost ones.
    pub answers: BTreeMap<u16, u64>,
    /// Good connections that are open.
    pub open: usize,
    /// Good connections that broke since the sample before.
    pub broken: u64,
    /// Bad clients since the start.
    pub bad: BTreeMap<&'static str, Ended>,
}

/// One look at a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Memory that is its own or shared.
    pub resident_bytes: u64,
    /// Open files, connections included.
    pub files: u64,
    /// What the log takes on disk.
    pub log_bytes: u64,
    /// What checkpoint and snapshots take on disk.
    pub state_bytes: u64,
    /// The last entry in its newest snapshot: it moves when the log is cut behind one.
    pub snapshot: u64,
}

/// Where to look.
#[derive(Debug)]
pub struct Sampler {
    nodes: Vec<(u32, PathBuf, String)>,
}

impl Sampler {
    /// For the nodes as they run now.
    #[must_use]
    pub fn new(cluster: &Cluster) -> Self {
        let node =
            |node: &tests::cluster::Node| Some((node.process.as_ref()?.pid(), node.data_dir(), node.ops.clone()));
        Self { nodes: cluster.nodes.iter().filter_map(node).collect() }
    }

    /// Looks.
    pub fn sample(&mut self, at: Duration, happened: &Happened, bad: BTreeMap<&'static str, Ended>) -> Sample {
        let mut latencies = happened.latencies_us.clone();
        latencies.sort_unstable();
        let rank = |per_mille: usize| latencies.get(latencies.len() * per_mille / 1_000).copied().unwrap_or_default();
        Sample {
            at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            nodes: self.nodes.iter().map(|(process, data, ops)| look(*process, data, ops)).collect(),
            p50_us: rank(500),
            p99_us: rank(990),
            answers: happened.answers.clone(),
            open: happened.open,
            broken: happened.broken,
            bad,
        }
    }
}

fn look(process: u32, data: &Path, ops: &str) -> Node {
    let files = fs::read_dir(format!("/proc/{process}/fd")).map_or(0, |files| files.count() as u64);
    let status = Client::new(ops).patience(Duration::from_secs(5)).try_send(get("/status")).ok();
    let status = status.and_then(|answer| serde_json::from_slice::<serde_json::Value>(&answer.body).ok());
    Node {
        resident_bytes: if tests::process::is_alive(process) { resident_bytes(process) } else { 0 },
        files,
        log_bytes: disk_bytes(&data.join("log")),
        state_bytes: disk_bytes(&data.join("checkpoint")) + disk_bytes(&data.join("snapshots")),
        snapshot: status.and_then(|status| status.pointer("/raft/snapshot")?.as_u64()).unwrap_or_default(),
    }
}

/// What the files below a folder take, holes apart. They come and go meanwhile.
fn disk_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

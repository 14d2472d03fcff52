//! One run on real processes: start a cluster, load it, break it by a seed, heal it, let it come back, and judge what was written
//! down meanwhile. This page tells the story; the parts are in `run/`, what must hold is in [`crate::invariant`].
#![expect(clippy::indexing_slicing, reason = "by the name of a field, into JSON: what is not there is null")]

pub mod cluster;
pub mod fault;
pub mod finale;
pub mod network;
pub mod observer;
pub mod operator;
pub mod relay;
pub mod report;
pub mod schedule;
pub mod witness;
pub mod workload;

use crate::{
    history::{History, Recorder, Run, WRITTEN_FOLDER, What},
    invariant,
};
use anyhow::{Context as _, ensure};
use cluster::{Cluster, Wanted};
use fault::Kind;
use observer::Observers;
use report::{Report, say};
use schedule::Schedule;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use workload::Workload;

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Repeats the plan of faults and what clients do.
    pub seed: u64,
    /// How long faults go on. Coming back and judging take their time after that.
    pub length: Duration,
    /// How many nodes.
    pub nodes: usize,
    /// The program; without it the one beside this program, built by cargo first.
    pub quorate: Option<PathBuf>,
    /// Keep the run's folder also if all is well.
    pub keep: bool,
    /// Kinds of faults by name, or how the names begin; all if empty.
    pub faults: Vec<String>,
    /// No network namespaces, even if they are permitted.
    pub loopback: bool,
    /// Where the run's folder is made.
    pub folder: Option<PathBuf>,
}

/// What follows from a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// Everything that was looked at held, under all faults of the plan but those that the machine does not permit.
    Green,
    /// Something did not hold.
    Violated,
    /// Nothing follows: a fault of the plan never took hold, or the history is not whole.
    Void,
}

impl Conclusion {
    /// The exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Green => 0,
            Self::Violated => 1,
            Self::Void => 2,
        }
    }
}

impl Options {
    /// The line that repeats the run.
    #[must_use]
    pub fn repeat_line(&self) -> String {
        let mut line = format!("cargo run -p chaos -- run --seed {} --seconds {}", self.seed, self.length.as_secs());
        line += &format!(" --nodes {}", self.nodes);
        if let Some(quorate) = &self.quorate {
            line += &format!(" --quorate {}", quorate.display());
        }
        if !self.faults.is_empty() {
            line += &format!(" --faults {}", self.faults.join(","));
        }
        if self.loopback {
            line += " --loopback";
        }
        line
    }

    fn kinds(&self) -> anyhow::Result<Vec<Kind>> {
        for name in self.faults.iter().filter(|name| *name != "none") {
            ensure!(
                fault::ALL.iter().any(|kind| kind.name.starts_with(name.as_str())),
                "no fault {name:?}: there are {}",
                fault::ALL.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ")
            );
        }
        let wanted = |kind: &&Kind| {
            self.faults.is_empty() || self.faults.iter().any(|name| kind.name.starts_with(name.as_str()))
        };
        Ok(fault::ALL.iter().filter(wanted).copied().collect())
    }
}

/// Runs once.
///
/// # Errors
/// The cluster did not start, or this machine failed: nothing follows from that.
pub fn run(options: &Options) -> anyhow::Result<Conclusion> {
    let kinds = options.kinds()?;
    let folder = folder(options)?;
    let quorate = match &options.quorate {
        Some(quorate) => quorate.clone(),
        None => build()?,
    };
    let (recorder, writer) = Recorder::begin(&folder)?;
    let wanted = Wanted { nodes: options.nodes, quorate: &quorate, folder: &folder, loopback: options.loopback };
    let mut cluster = Cluster::start(&wanted, recorder.clone())?;
    let nodes = cluster.ids(&cluster.members());
    recorder.record(What::Run(Run { seed: options.seed, nodes, lease_us: LEASE_US, election_us: ELECTION_US }));
    if let Err(why) = cluster.network.bridge() {
        say(&format!("fewer faults than there could be: {why}"));
    }

    let upstream = witness::start(cluster.network.own(), recorder.clone());
    let observers = Observers::start(&cluster.seats, &recorder);
    let mut workload = Workload::start(&cluster, &upstream.url(), options.seed)?;

    let mut report = Report::default();
    let mut schedule = Schedule::plan(options.seed, options.length, &kinds);
    say(&format!(
        "seed {}: {} nodes, {} faults in {} s; {}",
        options.seed,
        options.nodes,
        schedule.len(),
        options.length.as_secs(),
        folder.display()
    ));
    report.faults = schedule.carry_out(&mut cluster, |cluster| watch(cluster, &mut report.broken));
    workload.stop();
    recorder.record(What::Healed);

    // A cluster that is not one again has nothing more to say.
    if finale::converge(&mut cluster, &mut report.broken) {
        finale::ask_everything(&cluster, &workload.shared, options.seed);
        finale::read_audit(&cluster, &mut report.void);
    }
    watch(&mut cluster, &mut report.broken);
    drop(observers);
    finale::keep_metrics(&cluster);
    finale::stop(&mut cluster, &mut report.broken);
    finale::read_access_logs(&folder.join(WRITTEN_FOLDER), &workload.shared)?;
    drop((cluster, upstream));
    report.counts = workload.shared.counts();
    drop(workload);
    let events = recorder.end(writer)?;
    report.counts.insert("events in all".to_owned(), events);
    judge(&folder, &mut report)?;
    report.print(options, &folder);
    let conclusion = report.conclusion();
    if conclusion == Conclusion::Green && !options.keep {
        let _ = fs::remove_dir_all(&folder);
    }
    Ok(conclusion)
}

/// By the timing profile `lan`.
const LEASE_US: u64 = 2_000_000;
const ELECTION_US: u64 = 600_000;

/// A node that ends although no fault ended it is a finding of its own.
fn watch(cluster: &mut Cluster, broken: &mut Vec<String>) {
    broken.append(&mut cluster.broken);
    for (node, expected, how) in cluster.ended() {
        if !expected {
            say(&format!("node {node} has ended by itself"));
            broken.push(how);
        }
    }
}

fn judge(folder: &Path, report: &mut Report) -> anyhow::Result<()> {
    let history = History::read(folder)?;
    report.verdicts = invariant::all().iter().map(|invariant| (invariant.name(), invariant.check(&history))).collect();
    Ok(())
}

fn folder(options: &Options) -> anyhow::Result<PathBuf> {
    let parent = options.folder.clone().unwrap_or_else(std::env::temp_dir);
    let folder = parent.join(format!("quorate-chaos-{}-{}", options.seed, std::process::id()));
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// The program, built in the profile of this one.
fn build() -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("QUORATE_BIN_DIR") {
        return Ok(PathBuf::from(folder).join("quorate"));
    }
    let this = std::env::current_exe()?;
    // Beside `chaos` itself, or one folder above its tests.
    let folder = this.ancestors().skip(1).find(|folder| !folder.ends_with("deps")).context("target/<profile>")?;
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--package", "quorate", "--profile", profile])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .env("CARGO_TARGET_DIR", folder.parent().context("target")?)
        .status()
        .context("cargo runs")?;
    ensure!(status.success(), "cargo could not build quorate");
    Ok(folder.join("quorate"))
}

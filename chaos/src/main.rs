//! `cargo run -p chaos -- run --seed S`: breaks a cluster of real processes on purpose. `… -- sim --seeds N`: the same with the
//! pure core alone, in simulation. `… -- soak --minutes M`: nothing is broken, for long.
#![allow(clippy::print_stdout, reason = "a command line tool")]

use anyhow::{Context as _, bail};
use chaos::{
    history::History,
    invariant::{self, Verdict},
    mutations,
    run::{self, Options},
    sim::{self, Mutation, Outcome, Scenario, Steady},
    soak,
};
use clap::{Args, Parser, Subcommand};
use machine::limit::Rate;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Breaks Quorate on purpose and checks what it promised.
#[derive(Parser)]
struct CommandLine {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Simulates the pure core: buckets, allowances, leases and fences. Every seed is one run.
    Sim {
        /// How many runs.
        #[arg(long, default_value_t = 1_000)]
        seeds: u64,
        /// The seed of the first.
        #[arg(long, default_value_t = 1)]
        first: u64,
        /// Puts this bug back: runs must then fail. `list` names all.
        #[arg(long)]
        mutation: Option<String>,
        /// What each run is about: chance, late-answers, unknown-commit or slow-clock.
        #[arg(long, default_value = "chance")]
        scenario: String,
    },
    /// Breaks a cluster of real processes, and judges what it promised. Exit code 0: all held; 1: something did not; 2: nothing
    /// follows, for a fault never took hold or the machine failed.
    Run(Box<RunOptions>),
    /// Puts known bugs back into the program, one after another, and says whether the invariant that must find each did. Exit code 1:
    /// one was not found.
    Mutations(MutationOptions),
    /// Prints what limits cost and lose under a steady load of three nodes, in the simulation.
    Figures,
    /// Three nodes under many clients, keys and buckets, with bad clients among them, for long: what must stay flat is judged by
    /// comparing the last third with the first. Exit codes as of `run`.
    Soak(SoakOptions),
    /// Judges the history of a run on real processes by every invariant.
    Check {
        /// The run's folder.
        folder: PathBuf,
        /// Only this invariant.
        #[arg(long)]
        only: Option<String>,
    },
}

#[derive(Args)]
struct MutationOptions {
    /// The program, built with `--features mutations`.
    #[arg(long)]
    quorate: PathBuf,
    /// Only these bugs, separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds are tried until a bug is found: the machine's scheduler is not repeated.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
}

#[derive(Args)]
struct SoakOptions {
    /// What bad clients do, and when each client asks.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long samples are taken, after everything is warm.
    #[arg(long, default_value_t = 60, conflicts_with = "seconds")]
    minutes: u64,
    /// The same in seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Clients, each with a connection that it keeps.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Keys that the cluster knows.
    #[arg(long, default_value_t = 100_000)]
    keys: usize,
    /// Of these, how many are used; each has a bucket of a global limit.
    #[arg(long, default_value_t = 10_000)]
    buckets: usize,
    /// Requests in a second, of all clients together.
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    /// Bad clients at a time; there are eight kinds.
    #[arg(long, default_value_t = 64)]
    bad: usize,
    /// A snapshot after so many log entries, so that a short run cuts its log as well. [default: 0, the product's own measure]
    #[arg(long, default_value_t = 0)]
    snapshot_entries: u64,
    /// Where the samples go, as JSON lines.
    #[arg(long)]
    samples: Option<PathBuf>,
}

impl SoakOptions {
    fn options(self) -> soak::Options {
        soak::Options {
            seed: self.seed,
            length: Duration::from_secs(self.seconds.unwrap_or(self.minutes.saturating_mul(60))),
            connections: self.connections,
            keys: self.keys,
            buckets: self.buckets,
            rate: self.rate,
            bad: self.bad,
            snapshot_entries: self.snapshot_entries,
            samples: self.samples,
        }
    }
}

#[derive(Args)]
struct RunOptions {
    /// What is done when, and to whom.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long faults go on.
    #[arg(long, default_value_t = 10, conflicts_with = "seconds")]
    minutes: u64,
    /// The same in seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// How many nodes: three to five.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=5))]
    nodes: u8,
    /// The program under test. [default: built by cargo in the profile of this program; or `quorate` in $QUORATE_BIN_DIR]
    #[arg(long)]
    quorate: Option<PathBuf>,
    /// Keep history and logs also if all is well.
    #[arg(long)]
    keep: bool,
    /// Kinds of faults, or how they begin, separated by commas. `none` for none. [default: all]
    #[arg(long, value_delimiter = ',')]
    faults: Vec<String>,
    /// All nodes on loopback, without namespaces: fewer faults.
    #[arg(long)]
    loopback: bool,
    /// Where the run's folder is made. [default: the folder for temporary files]
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// Loads that differ in one thing each.
const LOADS: [(&str, Steady); 9] = [
    ("burst 20 ms, twice the rate", load(1_000, 20, 2_000)),
    ("burst 40 ms, twice the rate", load(1_000, 40, 2_000)),
    ("burst 1 s, twice the rate", load(1_000, 1_000, 2_000)),
    ("burst 1 s, twenty times the rate", load(1_000, 1_000, 20_000)),
    ("burst 2 s, half the rate", load(1_000, 2_000, 500)),
    ("the same, ten times both", load(10_000, 20_000, 5_000)),
    ("burst 100 ms, half the rate", load(1_000, 100, 500)),
    ("a node crashes, twice the rate", Steady { crashes: true, ..load(1_000, 1_000, 2_000) }),
    ("a node crashes, half the rate", Steady { crashes: true, ..load(1_000, 2_000, 500) }),
];

const fn load(tokens: u64, burst: u64, per_second: u64) -> Steady {
    Steady { rate: Rate { tokens, period_us: 1_000_000, burst }, per_second, crashes: false }
}

/// Prints what limits cost under a steady load.
fn measure() -> anyhow::Result<()> {
    println!(
        "{:32} {:>8} {:>8} {:>9} {:>11} {:>6} {:>9}",
        "", "of rate", "in vain", "entries/s", "asks/node/s", "held", "stranded"
    );
    for (name, load) in LOADS {
        let figures = sim::figures::steady(1, load).map_err(anyhow::Error::msg)?;
        let most = load.rate.tokens.min(load.per_second) * figures.seconds;
        println!(
            "{name:32} {:>7.1}% {:>8} {:>9.1} {:>11.2} {:>6} {:>9}",
            figures.admitted as f64 * 100.0 / most as f64,
            figures.unavailable,
            figures.entries as f64 / figures.seconds as f64,
            figures.asked as f64 / figures.seconds as f64 / 3.0,
            figures.held_max,
            figures.stranded,
        );
    }
    Ok(())
}

/// Judges a recorded run.
fn check(folder: &Path, only: Option<&str>) -> anyhow::Result<()> {
    let history = History::read(folder)?;
    println!(
        "{} events{}",
        history.events.len(),
        if history.complete { "" } else { "; the run did not come to its end" }
    );
    let mut broken = Vec::new();
    for invariant in invariant::all().iter().filter(|invariant| only.is_none_or(|only| only == invariant.name())) {
        let verdict = invariant.check(&history);
        println!("{:32} {verdict}", invariant.name());
        if matches!(verdict, Verdict::Violated { .. }) {
            broken.push(invariant.name());
        }
    }
    if !broken.is_empty() {
        bail!("broken: {}", broken.join(", "));
    }
    Ok(())
}

fn main() -> anyhow::Result<ExitCode> {
    match CommandLine::parse().what {
        What::Figures => measure()?,
        What::Check { folder, only } => check(&folder, only.as_deref())?,
        What::Run(options) => return Ok(on_processes(*options)),
        What::Mutations(MutationOptions { quorate, only, seed, seeds }) => {
            return Ok(ExitCode::from(u8::from(!mutations::prove(&quorate, &only, seed, seeds)?)));
        }
        What::Soak(options) => {
            return Ok(ExitCode::from(soak::verdict::print(&soak::run(&options.options())?).code()));
        }
        What::Sim { seeds, first, mutation, scenario } => {
            let found = Scenario::ALL.into_iter().find(|known| known.as_str() == scenario);
            simulate(found.with_context(|| format!("no scenario {scenario:?}"))?, first, seeds, mutation.as_deref())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn on_processes(options: RunOptions) -> ExitCode {
    let options = Options {
        seed: options.seed,
        length: Duration::from_secs(options.seconds.unwrap_or(options.minutes * 60)),
        nodes: usize::from(options.nodes),
        quorate: options.quorate,
        keep: options.keep,
        faults: options.faults,
        loopback: options.loopback,
        folder: options.folder,
    };
    match run::run(&options) {
        Ok(conclusion) => ExitCode::from(conclusion.code()),
        Err(error) => {
            println!("Void: {error:#}; repeat it with\n  {}", options.repeat_line());
            ExitCode::from(run::Conclusion::Void.code())
        }
    }
}

fn simulate(scenario: Scenario, first: u64, seeds: u64, mutation: Option<&str>) -> anyhow::Result<()> {
    if mutation == Some("list") {
        for mutation in Mutation::ALL {
            println!("{}", mutation.as_str());
        }
        return Ok(());
    }
    let mutation = match mutation {
        Some(name) => {
            let known = Mutation::ALL.iter().find(|mutation| mutation.as_str() == name);
            Some(*known.with_context(|| format!("no mutation {name:?}: `--mutation list` names them"))?)
        }
        None => None,
    };
    let started = Instant::now();
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let outcomes: Vec<(u64, Outcome)> = std::thread::scope(|scope| {
        let worker = || {
            let mut outcomes = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first.saturating_add(seeds) {
                    return outcomes;
                }
                outcomes.push((seed, sim::run(scenario, seed, mutation)));
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    if outcomes.len() as u64 != seeds {
        bail!("{} of {seeds} runs ended in a panic", seeds - outcomes.len() as u64);
    }
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(|(_, outcome)| of(outcome)).sum::<u64>();
    let mut failed: Vec<_> =
        outcomes.iter().filter_map(|(seed, outcome)| Some((*seed, outcome.verdict.as_ref().err()?))).collect();
    failed.sort_unstable();
    for (seed, what) in failed.iter().take(10) {
        println!("seed {seed}: {what}\n  {}", sim::repeat_line(scenario, *seed, mutation));
    }
    println!(
        "{seeds} runs in {:.1} s: {} admitted, {} refused, {} isolated, {} without allowance, {} writes fenced, {} log entries",
        started.elapsed().as_secs_f64(),
        sum(|outcome| outcome.admits),
        sum(|outcome| outcome.refused),
        sum(|outcome| outcome.isolated),
        sum(|outcome| outcome.unavailable),
        sum(|outcome| outcome.writes),
        sum(|outcome| outcome.entries),
    );
    if !failed.is_empty() {
        bail!("{} of {seeds} runs broke a promise", failed.len());
    }
    Ok(())
}

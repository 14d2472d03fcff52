//! Simulation of whole nodes: openraft, gRPC and the sessions of three to six nodes, on simulated networks, clocks and disks, one seed a
//! process. What is real: everything in `raft`, `storage` and below, with the product's timing profile. What is not: TCP, time, disks,
//! threads (everything runs on one), TLS, and the gateway, whose workers are played by `gateway` in the product's order of steps.
//!
//!     cargo run -p whole --features simulation -- --seeds 200
//!
//! A program, and no library: it puts a seed in the place of the operating system's chance and time, for everything in the process, and
//! that cannot be taken back. After a run the exact checks of `check` and `chaos`'s invariants are applied to what happened.
#![allow(clippy::print_stdout, reason = "a command line tool")]

mod admin;
mod check;
mod clock;
mod disk;
mod gateway;
mod life;
mod log;
mod mutation;
mod network;
mod plan;
mod record;
mod run;
mod seat;
mod world;

use anyhow::{Context as _, bail};
use clap::Parser;
use mutation::Mutation;
use rand::SeedableRng as _;
use record::Figures;
use std::{
    process::{Command, ExitCode, Stdio},
    sync::atomic::{AtomicU64, Ordering},
};

/// Simulates whole nodes. Every seed is one run in one process.
#[derive(Parser)]
struct CommandLine {
    /// Runs this seed, here.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// How many seeds, each in a process of its own.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// So many processes at a time.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    jobs: usize,
    /// Puts this bug back: some seeds must then fail. `list` names all.
    #[arg(long)]
    mutation: Option<String>,
    /// Ends with the first seed that fails.
    #[arg(long)]
    until_found: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let line = CommandLine::parse();
    if line.mutation.as_deref() == Some("list") {
        for mutation in Mutation::ALL {
            println!("{}", mutation.as_str());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mutation = match &line.mutation {
        Some(name) => {
            let known = Mutation::ALL.iter().find(|mutation| mutation.as_str() == name);
            Some(*known.with_context(|| format!("no mutation {name:?}: `--mutation list` names them"))?)
        }
        None => None,
    };
    match line.seed {
        Some(seed) => Ok(one(seed, mutation)),
        None => many(&line, mutation),
    }
}

/// Runs one seed, and says what came of it: figures on the last line.
fn one(seed: u64, mutation: Option<Mutation>) -> ExitCode {
    // Before anything has asked for chance: keys of hash maps, election timeouts, which of two tasks goes first.
    mad_turmoil::rand::set_rng(rand::rngs::StdRng::seed_from_u64(seed));
    if let Some(targets) = std::env::var("RUST_LOG").ok().filter(|targets| !targets.is_empty()) {
        log::begin(&targets);
    }
    let outcome = run::run(seed, mutation);
    for violation in &outcome.violations {
        println!("seed {seed}: {violation}");
    }
    println!("{}", said(&outcome.figures, outcome.trace));
    if outcome.violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        println!("  {}", run::repeat_line(seed, mutation));
        ExitCode::FAILURE
    }
}

fn said(figures: &Figures, trace: u64) -> String {
    format!(
        "figures {} trace {trace:016x}",
        figures.numbers().map(|(name, number)| format!("{name}={number}")).join(" ")
    )
}

/// Runs many seeds, each in its process, some at a time.
fn many(line: &CommandLine, mutation: Option<Mutation>) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe().context("this program's own file")?;
    let next = AtomicU64::new(line.first);
    let end = line.first.saturating_add(line.seeds);
    let runs: Vec<anyhow::Result<Vec<(u64, bool, String)>>> = std::thread::scope(|scope| {
        let worker = || -> anyhow::Result<Vec<(u64, bool, String)>> {
            let mut runs = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= end {
                    return Ok(runs);
                }
                let mut command = Command::new(&program);
                command.args(["--seed", &seed.to_string()]).stdin(Stdio::null());
                if let Some(mutation) = mutation {
                    command.args(["--mutation", mutation.as_str()]);
                }
                let ran = command.output().context("a run could not be started")?;
                let said = String::from_utf8_lossy(&ran.stdout).into_owned();
                if !ran.status.success() {
                    print!("{said}{}", String::from_utf8_lossy(&ran.stderr));
                    if !said.contains("--seed") {
                        println!("seed {seed}: {}\n  {}", ran.status, run::repeat_line(seed, mutation));
                    }
                    if line.until_found {
                        next.store(end, Ordering::Relaxed);
                    }
                }
                runs.push((seed, ran.status.success(), said));
            }
        };
        let workers: Vec<_> = (0..line.jobs.max(1)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| bail!("a thread panicked"))).collect()
    });
    let runs: Vec<Vec<(u64, bool, String)>> = runs.into_iter().collect::<anyhow::Result<_>>()?;
    let runs: Vec<_> = runs.into_iter().flatten().collect();
    let failed = runs.iter().filter(|(_, held, _)| !held).count();
    let mut total = Figures::default();
    for (_, _, said) in &runs {
        for (name, number) in said.split_whitespace().filter_map(|word| word.split_once('=')) {
            total.add(name, number.parse().unwrap_or(0));
        }
    }
    let numbers = total.numbers().map(|(name, number)| format!("{number} {name}"));
    println!("{} runs, {failed} broke a promise: {}", runs.len(), numbers.join(", "));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

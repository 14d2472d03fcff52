//! `cargo run -p chaos -- sim --seeds N`: breaks the pure core on purpose.
#![allow(clippy::print_stdout, reason = "a command line tool")]

use anyhow::{Context as _, bail};
use chaos::sim::{self, Mutation, Outcome};
use clap::{Parser, Subcommand};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
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
    },
}

fn main() -> anyhow::Result<()> {
    match CommandLine::parse().what {
        What::Sim { seeds, first, mutation } => simulate(first, seeds, mutation.as_deref()),
    }
}

fn simulate(first: u64, seeds: u64, mutation: Option<&str>) -> anyhow::Result<()> {
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
                outcomes.push((seed, sim::run(seed, mutation)));
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
        println!("seed {seed}: {what}\n  {}", sim::repeat_line(*seed, mutation));
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

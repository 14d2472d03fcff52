//! Simulation of the pure core: the machine's buckets and the session's book, lease, ledger and clocks, driven by a
//! seeded scheduler. Messages are delayed, lost, doubled and reordered; nodes crash, stall and are cut off; leaders
//! change; clocks run at wrong rates and show wrong dates. After each run every interval of every bucket is checked,
//! every admit, every allowance, and that all recovers.
//!
//! Nothing here is real but the code under test: the network, the disks, the clocks and consensus are models. A run
//! depends on its seed alone: a seed that fails today fails tomorrow.

mod consensus;
pub mod figures;
mod leader;
pub mod mutation;
mod node;
pub mod random;
mod replica;
pub mod scenario;
mod trace;
mod world;

pub use mutation::Mutation;
pub use scenario::{Scenario, Steady};

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Requests admitted.
    pub admits: u64,
    /// Requests refused by a limit.
    pub refused: u64,
    /// Requests that found no authority.
    pub isolated: u64,
    /// Requests that waited in vain for an allowance.
    pub unavailable: u64,
    /// Writes acknowledged.
    pub writes: u64,
    /// Log entries.
    pub entries: u64,
    /// What does not hold, if anything.
    pub verdict: Result<(), String>,
}

/// Runs one seed of a scenario.
#[must_use]
pub fn run(scenario: Scenario, seed: u64, mutation: Option<Mutation>) -> Outcome {
    world::World::new(scenario, seed, mutation).run()
}

/// The line that repeats a run.
#[must_use]
pub fn repeat_line(scenario: Scenario, seed: u64, mutation: Option<Mutation>) -> String {
    let scenario = scenario.as_str();
    let mutation = mutation.map(|mutation| format!(" --mutation {}", mutation.as_str())).unwrap_or_default();
    format!("cargo run --release -p chaos -- sim --scenario {scenario} --first {seed} --seeds 1{mutation}")
}

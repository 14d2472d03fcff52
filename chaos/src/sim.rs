//! Simulation of the pure core: the machine's buckets and the session's book, lease, ledger and clocks, driven by a
//! seeded scheduler. Messages are delayed, lost, doubled and reordered; nodes crash, stall and are cut off; leaders
//! change; clocks run at wrong rates and show wrong dates. After each run every interval of every bucket is checked,
//! every admit, every allowance, and that all recovers.
//!
//! Nothing here is real but the code under test: the network, the disks, the clocks and consensus are models. A run
//! depends on its seed alone: a seed that fails today fails tomorrow.

mod consensus;
mod leader;
pub mod mutation;
mod node;
mod random;
mod replica;
mod trace;
mod world;

pub use mutation::Mutation;

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

/// Runs one seed.
#[must_use]
pub fn run(seed: u64, mutation: Option<Mutation>) -> Outcome {
    world::World::new(seed, mutation).run()
}

/// The line that repeats a run.
#[must_use]
pub fn repeat_line(seed: u64, mutation: Option<Mutation>) -> String {
    let mutation = mutation.map(|mutation| format!(" --mutation {}", mutation.as_str())).unwrap_or_default();
    format!("cargo run --release -p chaos -- sim --first {seed} --seeds 1{mutation}")
}

//! The pure half of the node–leader session: plain values, with the time passed in.
//!
//! - [`clock`]: the cluster's clocks, as the leader keeps them.
//! - [`book`]: what authority the leader has granted, and when a write is enforced everywhere.
//! - [`lease`]: a node's authority to admit requests.
//! - [`ledger`]: a node's allowances, spent with an atomic decrement.
//!
//! There is deliberately no I/O, task, system clock or randomness here: that is what lets a simulation drive thousands
//! of runs a minute through the very code that a node runs. Local times are microseconds of a node's CLOCK_BOOTTIME.

pub mod book;
pub mod clock;
pub mod lease;
pub mod ledger;

/// The clock rate error assumed between machines, in parts of a hundred: leases and cluster time allow for it.
pub const DRIFT_PERCENT: u64 = 1;

/// A span of local time, lengthened so that it has passed by every clock within [`DRIFT_PERCENT`] of this one.
#[must_use]
pub const fn with_drift(us: u64) -> u64 {
    us.saturating_add(us / 100 * DRIFT_PERCENT).saturating_add(us / 5_000 + 1)
}

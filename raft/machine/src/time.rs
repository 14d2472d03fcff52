//! Cluster time, as it travels inside commands. Nothing here reads a clock.

use serde::{Deserialize, Serialize};

/// Cluster time for rates and leases, in microseconds. It never goes back and never runs faster than real time; a new
/// leader anchors it to the last tick in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tick(pub u64);

/// UTC as the cluster agrees on it, in milliseconds since the Unix epoch. Expiry dates and audit times are of this kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Wall(pub u64);

/// The instant that the leader stamped on an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct At {
    /// Cluster time for rates and leases.
    pub tick: Tick,
    /// Cluster UTC.
    pub wall: Wall,
}

impl At {
    /// The later of the two, part by part: what `apply` uses, so that time never goes back for the state.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { tick: self.tick.max(other.tick), wall: self.wall.max(other.wall) }
    }
}

impl Wall {
    /// This instant plus a number of milliseconds, saturating.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// The minute that it lies in, counted from the epoch.
    pub(crate) const fn minute(self) -> u64 {
        self.0 / 60_000
    }
}

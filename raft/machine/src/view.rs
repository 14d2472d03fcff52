//! What readers hold: the registry as it was after one log entry. Immutable, shared, and never locked.

use crate::{registry::Registry, time::At};

/// The registry after the log entry with number `index` was applied.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The number of the last applied log entry.
    pub index: u64,
    /// The time that the leader stamped on it.
    pub at: At,
    /// What the cluster knew then.
    pub registry: Registry,
}

//! Settings of the whole cluster.

use serde::{Deserialize, Serialize};

/// Settings that hold for every node and change at run time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// How many nodes vote: 1, 3, 5 or 7. More nodes stay learners.
    pub voters: u8,
    /// A learner that was not heard of for longer is removed; in milliseconds, 0 for never.
    pub learner_expiry_ms: u64,
    /// How many audit entries are kept; at most [`crate::cap::AUDIT_ENTRIES_MAX`].
    pub audit_entries_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { voters: 3, learner_expiry_ms: 24 * 60 * 60 * 1000, audit_entries_max: 100_000 }
    }
}

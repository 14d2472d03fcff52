//! The audit log: one entry for each change. Bounded; the oldest go first, so export what must be kept.

use crate::{command::Actor, time::Wall};
use serde::{Deserialize, Serialize};

/// Who changed what, when, from which revision to which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When, by the cluster's clock.
    pub at: Wall,
    /// Who.
    pub actor: Actor,
    /// What was done, as `noun.verb`: `key.revoke`.
    pub action: String,
    /// To what: the name or id; for a resource file, what it touched, bounded.
    pub subject: String,
    /// The revision that the subject had, if it existed.
    pub from_revision: Option<u64>,
    /// The cluster revision that the change made.
    pub to_revision: u64,
}

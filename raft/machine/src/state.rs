//! The whole replicated state: the registry, and what only `apply` needs.

use crate::{
    audit::AuditEntry,
    command::{Entry, Proposal},
    outcome::Applied,
    registry::Registry,
    request::{Remembered, RequestId},
    time::At,
};
use imbl::OrdMap;
use std::sync::Arc;

/// The whole replicated state. A clone costs a few pointers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The latest time that was applied.
    pub at: At,
    /// What readers see.
    pub registry: Registry,
    /// The audit log by number, from the oldest that is kept.
    pub audit: OrdMap<u64, Arc<AuditEntry>>,
    /// The number that the next audit entry gets.
    pub next_audit: u64,
    /// Requests of the last day, oldest first.
    pub requests: OrdMap<RequestId, Remembered>,
}

impl State {
    /// Applies one log entry: each proposal in order, then a bounded sweep of what has ended.
    pub fn apply_entry(&mut self, index: u64, entry: &Entry) -> Vec<Applied> {
        let before = self.at;
        let applied = entry.proposals.iter().map(|proposal| self.apply(index, entry.at, proposal)).collect();
        self.at = self.at.max(entry.at);
        self.sweep(before);
        applied
    }

    /// Applies one proposal. Total and deterministic: it depends on nothing but the state and the arguments. Time never
    /// goes back: what counts is the later of `at` and the last one.
    pub fn apply(&mut self, index: u64, at: At, proposal: &Proposal) -> Applied {
        crate::apply::apply(self, index, at, proposal)
    }
}

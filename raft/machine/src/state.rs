//! The whole replicated state: the registry, and what only `apply` needs.

use crate::{
    allowance::{Answer, BucketId, Buckets},
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
    /// What is left of each limit, and who holds how much of it.
    pub buckets: Buckets,
    /// The bucket that was swept last; the next sweep goes on after it.
    pub swept: Option<BucketId>,
}

/// What became of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Of each proposal, in their order.
    pub applied: Vec<Applied>,
    /// To each acquire, in their order.
    pub answers: Vec<Answer>,
}

impl State {
    /// Applies one log entry: each proposal in order, then all acquires together, then a bounded sweep of what has
    /// ended.
    pub fn apply_entry(&mut self, index: u64, entry: &Entry) -> Effects {
        let (before, buckets_before) = (self.at, self.buckets.buckets.len());
        let applied = entry.proposals.iter().map(|proposal| self.apply(index, entry.at, proposal)).collect();
        self.at = self.at.max(entry.at);
        let answers = self.acquire(entry.terms, &entry.acquires);
        self.sweep(before, buckets_before);
        Effects { applied, answers }
    }

    /// Applies one proposal. Total and deterministic: it depends on nothing but the state and the arguments. Time never
    /// goes back: what counts is the later of `at` and the last one.
    pub fn apply(&mut self, index: u64, at: At, proposal: &Proposal) -> Applied {
        crate::apply::apply(self, index, at, proposal)
    }
}

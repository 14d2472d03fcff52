//! A limit, ready to count.

use crate::resource::document::{Limit, LimitMode, Per, Scope};
use machine::{Name, limit::Rule};
use std::time::Duration;

/// How long a request waits for an allowance where the defaults do not say.
pub(super) const ALLOWANCE_WAIT: Duration = Duration::from_millis(250);

/// A limit, ready to count.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CompiledLimit {
    pub(crate) name: Name,
    /// Of its document.
    pub(crate) revision: u64,
    pub(crate) rule: Rule,
    pub(crate) per: Vec<Per>,
    pub(crate) scope: Scope,
    /// Whether it refuses; one in shadow only counts.
    pub(crate) is_enforced: bool,
    /// Subjects with a bucket of their own, where clients choose who they are.
    pub(crate) subjects_max: Option<u32>,
}

impl CompiledLimit {
    pub(super) fn new(name: &Name, revision: u64, limit: Limit) -> Self {
        Self {
            name: name.clone(),
            revision,
            rule: limit.rule,
            per: limit.per,
            scope: limit.scope,
            is_enforced: limit.mode == LimitMode::Enforce,
            subjects_max: limit.max_subjects,
        }
    }
}

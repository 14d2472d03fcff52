//! What must hold of every run: one file each, each a pure function of the run's history. Nothing here runs anything.
//!
//! *Unknown is not failed*: what a history does not tell is not held against the product. And what was not checked is
//! not held: an invariant that found nothing to look at says so.

mod acked_survives;
mod applied_monotonic;
mod authority_is_exclusive_of_stale;
mod converged;
mod exactly_once;
mod faults;
mod joined;
mod keeps_serving;
mod linearizable_admin;
mod never_overspend;
mod no_secret_in_logs;
mod revoked_stays_revoked;
mod same_index_same_state;
#[cfg(test)]
mod script;
#[cfg(test)]
mod tests;

pub use acked_survives::AckedSurvives;
pub use applied_monotonic::AppliedMonotonic;
pub use authority_is_exclusive_of_stale::AuthorityIsExclusiveOfStale;
pub use converged::Converged;
pub use exactly_once::ExactlyOnce;
pub use keeps_serving::KeepsServing;
pub use linearizable_admin::LinearizableAdmin;
pub use never_overspend::NeverOverspend;
pub use no_secret_in_logs::NoSecretInLogs;
pub use revoked_stays_revoked::RevokedStaysRevoked;
pub use same_index_same_state::SameIndexSameState;

use crate::history::History;
use std::fmt;

/// What an invariant says of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It held, as often as it was looked at.
    Held {
        /// How often.
        checked: u64,
    },
    /// It did not.
    Violated {
        /// When, in the history's microseconds.
        at_us: u64,
        /// What was seen, and what should have been.
        why: String,
    },
    /// The history has nothing that it could be seen by.
    Vacuous {
        /// What is missing.
        why: String,
    },
    /// The work was given up: neither held nor violated.
    Undecided {
        /// How far it came.
        why: String,
    },
}

/// Something that must hold of every run.
pub trait Invariant {
    /// As reports name it, like its file.
    fn name(&self) -> &'static str;
    /// Judges a run.
    fn check(&self, history: &History) -> Verdict;
}

/// Every invariant.
#[must_use]
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(NeverOverspend),
        Box::new(RevokedStaysRevoked),
        Box::new(AckedSurvives),
        Box::new(LinearizableAdmin),
        Box::new(ExactlyOnce),
        Box::new(SameIndexSameState),
        Box::new(AppliedMonotonic),
        Box::new(AuthorityIsExclusiveOfStale),
        Box::new(KeepsServing),
        Box::new(Converged),
        Box::new(NoSecretInLogs),
    ]
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { checked } => write!(f, "held ({checked} checked)"),
            Self::Violated { at_us, why } => {
                write!(f, "VIOLATED at {}.{:06} s: {why}", at_us / 1_000_000, at_us % 1_000_000)
            }
            Self::Vacuous { why } => write!(f, "nothing to check: {why}"),
            Self::Undecided { why } => write!(f, "undecided: {why}"),
        }
    }
}

//! What must hold of every run: one file each, each a pure function of the run's history. Nothing here runs anything.
//!
//! *Unknown is not failed*: what a history does not tell is not held against the product. And what was not checked is
//! not held: an invariant that found nothing to look at says so.

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
    Vec::new()
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

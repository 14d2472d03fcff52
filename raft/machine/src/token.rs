//! Join tokens: single use, with an end, stored as a hash.

use crate::time::Wall;
use serde::{Deserialize, Serialize};

/// A join token, as stored. A used one is kept until its end, so that a second use is told apart from a wrong one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// SHA-256 of the secret part.
    pub hash: [u8; 32],
    /// The first instant at which it is refused.
    pub not_after: Wall,
    /// The node that used it.
    pub used_by: Option<u64>,
}

//! Request ids: a retry after an unknown outcome is applied once.

use crate::{outcome::Outcome, time::Wall};
use serde::{Deserialize, Serialize};

/// Made by the client, once for each thing it wants done, and kept over its retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// When the client made the request, by its clock. Older than [`crate::cap::REQUEST_AGE_MAX_MS`] is refused, so
    /// that forgetting a request can never apply it twice; a client whose clock is wrong learns the cluster's time from
    /// that refusal and asks again.
    pub issued: Wall,
    /// Random.
    pub random: u128,
}

/// What is remembered of a request that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The answer it got, given again to a retry.
    pub outcome: Outcome,
    /// The log index at which it was applied: what a retry's fence waits for.
    pub index: u64,
}

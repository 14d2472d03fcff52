//! How often a session renews its member's lease. A report comes with all news; a round of the quorum for each of them
//! would cost more than the lease is worth.

use std::time::Duration;
use tokio::time::Instant;

/// When a session last renewed, or tried to.
#[derive(Debug, Default)]
pub(crate) struct Renewals {
    tried: Option<Instant>,
}

impl Renewals {
    /// Whether it is time to renew, for a member that has reported just now; then it counts as done.
    pub(crate) fn is_due(&mut self, report: Duration) -> bool {
        if self.tried.is_some_and(|tried| tried.elapsed() < pause(report)) {
            return false;
        }
        self.tried = Some(Instant::now());
        true
    }
}

/// Well below the time between reports without news, each of which must renew.
fn pause(report: Duration) -> Duration {
    report / 2
}

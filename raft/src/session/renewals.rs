//! How often a session renews its member's lease. A report comes with all news; a round of the quorum for each of them
//! would cost more than the lease is worth.

use crate::{
    lead::Grant,
    node::Node,
    session::tenure::{SessionId, Tenure},
};
use machine::member::NodeId;
use std::time::Duration;
use tokio::time::Instant;

/// When a session last renewed.
#[derive(Debug, Default)]
pub(crate) struct Renewals {
    renewed: Option<Instant>,
}

impl Renewals {
    /// Renews if it is time to: the member has reported just now.
    pub(crate) async fn renew(
        &mut self,
        node: &Node,
        tenure: &Tenure,
        session: SessionId,
        member: NodeId,
    ) -> Option<Grant> {
        if self.renewed.is_some_and(|renewed| renewed.elapsed() < pause(node.timing.report)) {
            return None;
        }
        let grant = node.lead_grant(tenure, session, member).await?;
        self.renewed = Some(Instant::now());
        Some(grant)
    }
}

/// Well below the time between reports without news, each of which must renew.
fn pause(report: Duration) -> Duration {
    report / 2
}

//! What nodes ask of the leader: the serving side. Everything is answered by the node's own methods; here it becomes
//! messages.

use crate::{
    adapt::{network::MESSAGE_BYTES_MAX, server::Proved},
    codec,
    lead::{Committed, Kept, Refused},
    node::Node,
    session::{
        renewals::Renewals,
        table::Said,
        tenure::{SessionId, Tenure},
    },
    status::{FenceState, Observed},
};
use futures::stream::{self, BoxStream, StreamExt};
use machine::{Proposal, member::MemberSpec};
use proto::peer::{
    self, Advice, Fenced, ObserveReply, ObserveRequest, ProposeReply, ProposeRequest, ReadIndexReply, ReadIndexRequest,
    Report, TransferToReply, TransferToRequest, leader_server,
};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use tonic::{Request, Response, Status, Streaming};

/// The longest that a caller may have the leader wait.
const PATIENCE_MAX: Duration = Duration::from_secs(60);

/// Serves the leader's part to members. Holds the node weakly: a server that outlives it answers that it has stopped.
#[derive(Clone)]
pub struct LeaderService {
    node: Weak<Node>,
}

impl LeaderService {
    pub(crate) fn new(node: &Arc<Node>) -> Self {
        Self { node: Arc::downgrade(node) }
    }

    pub(crate) fn server(self) -> leader_server::LeaderServer<Self> {
        leader_server::LeaderServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn node(&self) -> Result<Arc<Node>, Status> {
        self.node.upgrade().ok_or_else(|| Status::unavailable("this node has stopped"))
    }
}

fn millis(ms: u32) -> Duration {
    Duration::from_millis(ms.into()).min(PATIENCE_MAX)
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Status> {
    codec::decode(bytes).map_err(|error| Status::invalid_argument(error.to_string()))
}

#[tonic::async_trait]
impl leader_server::Leader for LeaderService {
    type SessionStream = BoxStream<'static, Result<Advice, Status>>;

    async fn propose(&self, request: Request<ProposeRequest>) -> Result<Response<ProposeReply>, Status> {
        let node = self.node()?;
        Proved::of(&request, node.callers)?;
        let ProposeRequest { proposal, fence_timeout_ms, timeout_ms } = request.into_inner();
        let bytes = proposal.len();
        let proposal: Proposal = decode(&proposal)?;
        let answer = node.lead_propose(proposal, bytes, millis(timeout_ms), millis(fence_timeout_ms)).await;
        let mut reply = ProposeReply::default();
        match answer {
            Ok(Committed { outcome, index, fence, fence_lost }) => {
                let outcome = codec::encode(&outcome).map_err(|error| Status::internal(error.to_string()))?;
                let fence = fence.into_iter().map(|(node, state)| Fenced { node, state: state.into() }).collect();
                reply = ProposeReply { outcome, index, fence, fence_lost, ..reply };
            }
            Err(Refused::NotLeader) => {
                let (leader, leader_address) = node.leader_hint();
                reply = ProposeReply { not_leader: true, leader, leader_address, ..reply };
            }
            Err(Refused::Overloaded) => reply.set_declined(peer::Declined::Overloaded),
            Err(Refused::DiskFull) => reply.set_declined(peer::Declined::DiskFull),
            Err(Refused::TooLarge) => reply.set_declined(peer::Declined::TooLarge),
            Err(Refused::Unknown) => reply.set_declined(peer::Declined::Unknown),
        }
        Ok(Response::new(reply))
    }

    async fn read_index(&self, request: Request<ReadIndexRequest>) -> Result<Response<ReadIndexReply>, Status> {
        let node = self.node()?;
        Proved::of(&request, node.callers)?;
        let mut reply = ReadIndexReply::default();
        if let Some(index) = node.lead_read_index().await {
            reply.index = index;
        } else {
            let (leader, leader_address) = node.leader_hint();
            reply = ReadIndexReply { not_leader: true, leader, leader_address, ..reply };
        }
        Ok(Response::new(reply))
    }

    async fn session(&self, request: Request<Streaming<Report>>) -> Result<Response<Self::SessionStream>, Status> {
        let node = self.node()?;
        let proved = Proved::of(&request, node.callers)?;
        let tenure = node.tenure().ok_or_else(|| Status::failed_precondition("this node does not lead"))?;
        let id = tenure.session();
        let session = Session { node: Arc::downgrade(&node), tenure, proved, id, renewals: Renewals::default() };
        let advice = stream::try_unfold((request.into_inner(), session), async |(mut reports, mut session)| {
            let Some(report) = session.next(&mut reports).await? else { return Ok(None) };
            let advice = session.take(report).await?;
            Ok(Some((advice, (reports, session))))
        });
        Ok(Response::new(advice.boxed()))
    }

    async fn observe(&self, request: Request<ObserveRequest>) -> Result<Response<ObserveReply>, Status> {
        let node = self.node()?;
        Proved::of(&request, node.callers)?;
        let Some(observation) = node.lead_observe() else {
            let (leader, leader_address) = node.leader_hint();
            return Ok(Response::new(ObserveReply { not_leader: true, leader, leader_address, ..Default::default() }));
        };
        Ok(Response::new(ObserveReply {
            leader: observation.leader,
            term: observation.term,
            last_index: observation.last_index,
            tick_us: observation.at.tick.0,
            wall_ms: observation.at.wall.0,
            settled: observation.settled,
            held: observation.held,
            members: observation.members.into_iter().map(Into::into).collect(),
            ..Default::default()
        }))
    }

    async fn transfer_to(&self, request: Request<TransferToRequest>) -> Result<Response<TransferToReply>, Status> {
        let node = self.node()?;
        Proved::of(&request, node.callers)?;
        let to = Some(request.into_inner().to).filter(|to| *to != 0);
        let mut reply = TransferToReply::default();
        match node.lead_transfer(to).await {
            Ok(to) => reply.leader = to,
            Err(Kept::NotLeader) => {
                let (leader, leader_address) = node.leader_hint();
                reply = TransferToReply { not_leader: true, leader, leader_address, ..reply };
            }
            Err(Kept::Refused(why)) => reply.refused = why,
            Err(Kept::TimedOut) => reply.timed_out = true,
        }
        Ok(Response::new(reply))
    }
}

/// One member's session, on the leader.
struct Session {
    node: Weak<Node>,
    tenure: Arc<Tenure>,
    proved: Proved,
    id: SessionId,
    renewals: Renewals,
}

impl Session {
    /// The next report, while this leader leads.
    async fn next(&self, reports: &mut Streaming<Report>) -> Result<Option<Report>, Status> {
        let Some(mut tenure) = self.node.upgrade().map(|node| node.watch_tenure()) else {
            return Err(Status::unavailable("this node has stopped"));
        };
        let reign = self.tenure.reign;
        let over = async {
            // An error means that the node is gone, which ends the tenure as well.
            let _: Result<_, _> =
                tenure.wait_for(|now| now.as_ref().is_none_or(|tenure| tenure.reign != reign)).await.map(drop);
        };
        tokio::select! {
            report = reports.message() => report,
            () = over => Err(Status::failed_precondition("this node leads no more")),
        }
    }

    async fn take(&mut self, report: Report) -> Result<Advice, Status> {
        self.proved.speaks_for(report.node)?;
        let node = self.node.upgrade().ok_or_else(|| Status::unavailable("this node has stopped"))?;
        if !node.is_member(report.node) {
            return Err(Status::not_found("not a member of this cluster, or removed from it"));
        }
        let spec: Option<MemberSpec> = (!report.spec.is_empty()).then(|| decode(&report.spec)).transpose()?;
        let said = Said {
            enforced: report.enforced,
            utc_ms: report.utc_ms,
            authority_sha256: report.certificate_authority_sha256.into(),
            not_after_ms: report.certificate_not_after_ms,
            disk_low: report.disk_low,
            leaving: report.leaving,
        };
        let leaving = said.leaving;
        self.tenure.report(self.id, report.node, said, spec);
        let grant = if leaving { None } else { self.renewals.renew(&node, &self.tenure, self.id, report.node).await };
        let standing = node.standing();
        let at = self.tenure.time(&standing.voters);
        Ok(Advice {
            leader: node.id,
            term: self.tenure.reign.term,
            committed: standing.committed,
            tick_us: at.tick.0,
            wall_ms: at.wall.0,
            lease_ttl_us: grant.map_or(0, |grant| grant.ttl_us),
            read_index: grant.map_or(0, |grant| grant.read_index),
        })
    }
}

impl From<FenceState> for i32 {
    fn from(state: FenceState) -> Self {
        Self::from(match state {
            FenceState::Applied => peer::FenceState::Applied,
            FenceState::Expired => peer::FenceState::Expired,
            FenceState::ServingIsolated => peer::FenceState::ServingIsolated,
            FenceState::Pending => peer::FenceState::Pending,
        })
    }
}

impl From<peer::FenceState> for FenceState {
    fn from(state: peer::FenceState) -> Self {
        match state {
            peer::FenceState::Applied => Self::Applied,
            peer::FenceState::Expired => Self::Expired,
            peer::FenceState::ServingIsolated => Self::ServingIsolated,
            // What a later release may say is not known to be enforced, and what a leader without leases did not hear of
            // either.
            peer::FenceState::Pending | peer::FenceState::Unreachable | peer::FenceState::Unspecified => Self::Pending,
        }
    }
}

impl From<Observed> for peer::Observed {
    fn from(observed: Observed) -> Self {
        Self {
            node: observed.node,
            reachable: observed.reachable,
            enforced: observed.enforced,
            voter: observed.voter,
            clock_offset_ms: observed.clock_offset_ms,
            certificate_authority_sha256: observed.certificate_authority_sha256.into(),
            certificate_not_after_ms: observed.certificate_not_after_ms,
            silent_ms: observed.silent_ms,
            authority_ms: observed.authority_ms,
        }
    }
}

impl From<peer::Observed> for Observed {
    fn from(observed: peer::Observed) -> Self {
        Self {
            node: observed.node,
            reachable: observed.reachable,
            enforced: observed.enforced,
            voter: observed.voter,
            clock_offset_ms: observed.clock_offset_ms,
            certificate_authority_sha256: observed.certificate_authority_sha256.into(),
            certificate_not_after_ms: observed.certificate_not_after_ms,
            silent_ms: observed.silent_ms,
            authority_ms: observed.authority_ms,
        }
    }
}

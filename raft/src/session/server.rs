//! What nodes ask of the leader: the serving side. Everything is answered by the node's own methods; here it becomes
//! messages.

use crate::{
    adapt::{network::MESSAGE_BYTES_MAX, server::Proved},
    batch::ACQUIRE_BYTES_MAX,
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
use futures::{
    future::BoxFuture,
    stream::{self, BoxStream, StreamExt},
};
use machine::{
    Proposal,
    allowance::Acquire,
    member::{MemberSpec, NodeId},
};
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
        let session = Session {
            node: Arc::downgrade(&node),
            proved,
            id: tenure.session(),
            tenure,
            renewals: Renewals::default(),
            reports: request.into_inner(),
            advice: None,
            answer: None,
        };
        let advice = stream::try_unfold(session, async |mut session| {
            let advice = session.next().await?;
            Ok(advice.map(|advice| (advice, session)))
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

/// What is said to a member once it is known.
type Saying = BoxFuture<'static, Result<Advice, Status>>;

/// One member's session, on the leader. A lease waits for a majority and an answer for an entry of the log: each goes out
/// when it is there.
struct Session {
    node: Weak<Node>,
    tenure: Arc<Tenure>,
    proved: Proved,
    id: SessionId,
    renewals: Renewals,
    reports: Streaming<Report>,
    /// What answers the last report.
    advice: Option<Saying>,
    /// What answers the last request for allowances.
    answer: Option<Saying>,
}

impl Session {
    /// What to say next, while this leader leads; `None` when the member has ended the session.
    async fn next(&mut self) -> Result<Option<Advice>, Status> {
        let Some(mut tenure) = self.node.upgrade().map(|node| node.watch_tenure()) else {
            return Err(Status::unavailable("this node has stopped"));
        };
        let reign = self.tenure.reign;
        let over = async {
            // An error means that the node is gone, which ends the tenure as well.
            let _: Result<_, _> =
                tenure.wait_for(|now| now.as_ref().is_none_or(|tenure| tenure.reign != reign)).await.map(drop);
        };
        tokio::pin!(over);
        loop {
            let report = tokio::select! {
                advice = said(&mut self.advice) => {
                    self.advice = None;
                    return advice.map(Some);
                }
                answer = said(&mut self.answer) => {
                    self.answer = None;
                    return answer.map(Some);
                }
                report = self.reports.message() => report?,
                () = &mut over => return Err(Status::failed_precondition("this node leads no more")),
            };
            let Some(report) = report else { return Ok(None) };
            self.take(report)?;
        }
    }

    /// Begins to answer. A member has one of each kind on the way at a time; if it sends another, it does not wait for
    /// the one before any more.
    fn take(&mut self, report: Report) -> Result<(), Status> {
        self.proved.speaks_for(report.node)?;
        let node = self.node.upgrade().ok_or_else(|| Status::unavailable("this node has stopped"))?;
        if !node.is_member(report.node) {
            return Err(Status::not_found("not a member of this cluster, or removed from it"));
        }
        if report.acquire.is_empty() {
            self.advice = Some(self.advise(&node, report)?);
        } else {
            self.answer = Some(serve(&node, report.node, &report.acquire)?);
        }
        Ok(())
    }

    fn advise(&mut self, node: &Arc<Node>, report: Report) -> Result<Saying, Status> {
        let (member, sequence) = (report.node, report.sequence);
        let spec: Option<MemberSpec> = (!report.spec.is_empty()).then(|| decode(&report.spec)).transpose()?;
        let said = Said {
            enforced: report.enforced,
            utc_ms: report.utc_ms,
            authority_sha256: report.certificate_authority_sha256.into(),
            not_after_ms: report.certificate_not_after_ms,
            disk_low: report.disk_low,
            leaving: report.leaving,
        };
        let renews = !said.leaving && self.renewals.is_due(node.timing.report);
        self.tenure.report(self.id, member, said, spec);
        let (node, tenure, id) = (Arc::clone(node), Arc::clone(&self.tenure), self.id);
        Ok(Box::pin(async move {
            let grant = if renews { node.lead_grant(&tenure, id, member).await } else { None };
            let standing = node.standing();
            let at = tenure.time(&standing.voters);
            Ok(Advice {
                leader: node.id,
                term: tenure.reign.term,
                committed: standing.committed,
                tick_us: at.tick.0,
                wall_ms: at.wall.0,
                lease_ttl_us: grant.map_or(0, |grant| grant.ttl_us),
                read_index: grant.map_or(0, |grant| grant.read_index),
                sequence,
                ..Advice::default()
            })
        }))
    }
}

/// Serves a member's request for allowances, which it may make for itself alone.
fn serve(node: &Arc<Node>, member: NodeId, record: &[u8]) -> Result<Saying, Status> {
    if record.len() > ACQUIRE_BYTES_MAX {
        return Err(Status::resource_exhausted(format!("a request for allowances of {} bytes", record.len())));
    }
    let acquire: Acquire = decode(record)?;
    if acquire.node != member {
        return Err(Status::permission_denied(format!("node {member} asks in the name of node {}", acquire.node)));
    }
    let (node, request, bytes) = (Arc::clone(node), acquire.request, record.len());
    Ok(Box::pin(async move {
        let answer = node.lead_acquire(acquire, bytes).await;
        // Whoever leads next is asked again.
        let answer = answer.map_err(|why| Status::failed_precondition(format!("not served: {why:?}")))?;
        let answer = codec::encode(&answer).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Advice { answer, request, ..Advice::default() })
    }))
}

async fn said(saying: &mut Option<Saying>) -> Result<Advice, Status> {
    match saying {
        Some(saying) => saying.await,
        None => std::future::pending().await,
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

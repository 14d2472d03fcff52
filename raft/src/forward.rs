//! From any node to the leader: finds it, asks it, and asks again when it changes, within the caller's time. The
//! leader may be this node. A proposal keeps its request id over all attempts, so that it is done once; as soon as one
//! attempt may have been taken, an answer that says nothing of it is not believed to mean "not done".

use crate::{
    adapt::engine::Standing,
    codec,
    handle::{Fence, ProposeError, ReadError, TransferError, Usage, Written},
    lead::{Committed, Kept, Refused},
    mutation::{self, Mutation},
    node::Node,
    status::{FenceState, Observation},
};
use bytes::Bytes;
use machine::{
    Actor, At, Command, Outcome, Proposal, RequestId, Tick, View, Wall, allowance::BucketId, limit::Rule,
    member::NodeId,
};
use proto::peer::{
    self, ObserveRequest, ProposeReply, ProposeRequest, ReadIndexRequest, TransferToRequest,
    leader_client::LeaderClient,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::{Code, Status, transport::Channel};

/// How long to wait before the same leader is asked again.
const PAUSE: Duration = Duration::from_millis(25);

/// The answer to a remote attempt may take this much longer than the work: the network's share.
const GRACE: Duration = Duration::from_millis(500);

/// What is asked of the leader.
#[derive(Clone)]
enum Question {
    /// To have a proposal done.
    Propose { proposal: Box<Proposal>, encoded: Bytes, within: Duration, fence: Duration },
    /// Up to where a read must have applied.
    ReadIndex,
    /// What it knows of the members.
    Observe,
    /// To hand over.
    Transfer(Option<NodeId>),
}

/// What the leader says.
enum Answer {
    Proposed(Result<Committed, Refused>),
    Index(u64),
    Observation(Observation),
    Transferred(Result<NodeId, Kept>),
}

/// What became of one attempt.
enum Tried {
    /// Answered.
    Done(Answer),
    /// The one who was asked does not lead, or could not be reached. Nothing happened there.
    Elsewhere,
    /// It was asked, and did not answer.
    Lost,
}

impl Node {
    /// See [`crate::Handle::propose`].
    pub(crate) async fn propose(
        &self,
        request: RequestId,
        actor: Actor,
        command: Command,
        fence: Fence,
    ) -> Result<Written, ProposeError> {
        let began = Instant::now();
        let action = command.action();
        let proposal = Proposal { request, actor, command };
        let written = self.propose_until(began, proposal, fence).await;
        let result = match &written {
            Ok(Written { outcome: Outcome::Refused(_), .. }) => "refused",
            Ok(_) => "done",
            Err(ProposeError::Unknown) => "unknown",
            Err(_) => "failed",
        };
        metrics::counter!("quorate_raft_proposals_total", "action" => action, "result" => result).increment(1);
        written
    }

    async fn propose_until(&self, began: Instant, proposal: Proposal, fence: Fence) -> Result<Written, ProposeError> {
        let max = crate::batch::PROPOSAL_BYTES_MAX as u64;
        let encoded = codec::encode(&proposal)
            .map_err(|_| ProposeError::TooLarge { bytes: codec::RECORD_BYTES_MAX as u64, max })?;
        let bytes = encoded.len() as u64;
        if bytes > max {
            return Err(ProposeError::TooLarge { bytes, max });
        }
        let fence = match fence {
            Fence::None => Duration::ZERO,
            Fence::Within(within) => within,
        };
        let mut deadline = began + self.timing.propose;
        // Set once an attempt may have been taken; and once it is known to be done, though not fenced.
        let (mut perhaps, mut done) = (false, None);
        while Instant::now() < deadline {
            let within = deadline - Instant::now();
            let fence = if done.is_some() { within } else { fence };
            let question =
                Question::Propose { proposal: Box::new(proposal.clone()), encoded: encoded.clone(), within, fence };
            let answer = match self.ask(deadline + fence, question).await {
                Tried::Done(Answer::Proposed(answer)) => answer,
                Tried::Done(_) | Tried::Elsewhere => Err(Refused::NotLeader),
                Tried::Lost => Err(Refused::Unknown),
            };
            match answer {
                Ok(Committed { outcome, index, fence: states, fence_lost }) => {
                    let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                    let written = Written { outcome, index, fence: states, elapsed_ms };
                    if !fence_lost {
                        return Ok(written);
                    }
                    if done.is_none() {
                        deadline = Instant::now() + fence;
                    }
                    done = Some(written);
                }
                Err(Refused::NotLeader) => self.pause(deadline).await,
                Err(Refused::Unknown) => {
                    perhaps = true;
                    self.pause(deadline).await;
                }
                Err(_) if perhaps || done.is_some() => break,
                Err(Refused::Overloaded) => return Err(ProposeError::Overloaded),
                Err(Refused::DiskFull) => return Err(ProposeError::DiskFull),
                Err(Refused::TooLarge) => return Err(ProposeError::TooLarge { bytes, max }),
            }
            if self.is_stopping() {
                break;
            }
        }
        match done {
            Some(written) => Ok(written),
            None if perhaps => Err(ProposeError::Unknown),
            None if self.is_stopping() || self.standing().failed.is_some() => Err(ProposeError::Stopped),
            None => Err(ProposeError::NoLeader),
        }
    }

    /// See [`crate::Handle::read`].
    pub(crate) async fn read(&self) -> Result<Arc<View>, ReadError> {
        if mutation::is(Mutation::StaleReads) {
            return Ok(self.view());
        }
        let deadline = Instant::now() + self.timing.read;
        let Some(Answer::Index(index)) = self.ask_until(deadline, Question::ReadIndex).await else {
            return Err(self.why_no_answer());
        };
        let mut applied = self.watch_applied();
        let caught_up = applied.wait_for(|applied| applied.index() >= index);
        match tokio::time::timeout_at(deadline, caught_up).await {
            Ok(Ok(applied)) => Ok(Arc::clone(&applied.view)),
            Ok(Err(_)) => Err(ReadError::Stopped),
            Err(_) => Err(ReadError::Behind),
        }
    }

    /// See [`crate::Handle::usage`].
    pub(crate) async fn usage(&self, id: &BucketId) -> Result<Usage, ReadError> {
        self.read().await?;
        let state = &self.applied().state;
        let at = state.at.max(self.time());
        let Some(bucket) = state.buckets.look(&state.registry.limits, at, id) else { return Ok(Usage::default()) };
        let mut outstanding: BTreeMap<NodeId, u64> = BTreeMap::new();
        for allowance in bucket.allowances().values().filter(|allowance| !allowance.expired) {
            let of_node = outstanding.entry(allowance.node).or_default();
            *of_node = of_node.saturating_add(allowance.left());
        }
        Ok(Usage {
            limit_value: bucket.rule().burst(),
            available: bucket.available(),
            outstanding: outstanding.into_iter().filter(|(_, amount)| *amount > 0).collect(),
            window_end: matches!(bucket.rule(), Rule::Quota(_)).then(|| bucket.window_end()),
        })
    }

    /// See [`crate::Handle::observe`].
    pub(crate) async fn observe(&self) -> Result<Observation, ReadError> {
        let deadline = Instant::now() + self.timing.read;
        match self.ask_until(deadline, Question::Observe).await {
            Some(Answer::Observation(observation)) => Ok(observation),
            _ => Err(self.why_no_answer()),
        }
    }

    /// See [`crate::Handle::transfer_leader`].
    pub(crate) async fn transfer_leader(&self, to: Option<NodeId>) -> Result<NodeId, TransferError> {
        let deadline = Instant::now() + self.timing.propose;
        match self.ask_until(deadline, Question::Transfer(to)).await {
            Some(Answer::Transferred(Ok(leader))) => Ok(leader),
            Some(Answer::Transferred(Err(Kept::Refused(why)))) => Err(TransferError::Refused(why)),
            Some(Answer::Transferred(Err(Kept::TimedOut))) => Err(TransferError::TimedOut),
            _ if self.is_stopping() => Err(TransferError::Stopped),
            _ => Err(TransferError::NoLeader),
        }
    }

    fn why_no_answer(&self) -> ReadError {
        if self.is_stopping() || self.standing().failed.is_some() { ReadError::Stopped } else { ReadError::NoLeader }
    }

    /// Asks until there is an answer: for questions that do no harm when they are asked twice.
    async fn ask_until(&self, deadline: Instant, question: Question) -> Option<Answer> {
        while Instant::now() < deadline && !self.is_stopping() {
            if let Tried::Done(answer) = self.ask(deadline, question.clone()).await {
                return Some(answer);
            }
            self.pause(deadline).await;
        }
        None
    }

    /// Asks whoever leads now, once; gives up when somebody else leads.
    async fn ask(&self, deadline: Instant, question: Question) -> Tried {
        let mut standing = self.watch_standing();
        let Some(leader) = standing.borrow_and_update().leader else { return Tried::Elsewhere };
        if leader == self.id {
            // Ends by itself: the leader's own work is bounded, and it knows best when its time is over.
            return self.ask_here(question).await.map_or(Tried::Elsewhere, Tried::Done);
        }
        let link = match self.peers.link(leader).await {
            Ok(link) => link,
            Err(error) => {
                tracing::debug!(leader, %error, "the leader is not reachable");
                return Tried::Elsewhere;
            }
        };
        let client = LeaderClient::new(link.channel.clone())
            .max_decoding_message_size(crate::adapt::network::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(crate::adapt::network::MESSAGE_BYTES_MAX);
        let another = async {
            let moved = |now: &Arc<Standing>| now.leader.is_some_and(|now| now != leader) || now.failed.is_some();
            // An error means that raft has ended here: then nobody leads, as far as this node can know.
            let _: Result<_, _> = standing.wait_for(moved).await.map(drop);
        };
        tokio::select! {
            answer = self.ask_there(client, question) => match answer {
                Ok(Some(answer)) => Tried::Done(answer),
                Ok(None) => Tried::Elsewhere,
                Err(status) if matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated) => {
                    tracing::warn!(leader, why = status.message(), "the leader refuses this node");
                    Tried::Elsewhere
                }
                Err(status) => {
                    tracing::debug!(leader, code = ?status.code(), why = status.message(), "no answer");
                    self.peers.blame(&link, &status);
                    Tried::Lost
                }
            },
            () = another => Tried::Lost,
            () = tokio::time::sleep_until(deadline + GRACE) => Tried::Lost,
        }
    }

    /// Waits for another leader, or a moment.
    async fn pause(&self, deadline: Instant) {
        let mut standing = self.watch_standing();
        let until = deadline.min(Instant::now() + PAUSE);
        let leader = standing.borrow_and_update().leader;
        let another = async {
            let found = standing.wait_for(|now| now.leader.is_some() && now.leader != leader).await.is_ok();
            if !found {
                // Raft has ended here: nobody will ever lead, as far as this node can know.
                std::future::pending::<()>().await;
            }
        };
        // Either way there is something new to try.
        let _: Result<_, _> = tokio::time::timeout_at(until, another).await;
    }

    /// Asks this node itself; `None` if it does not lead.
    async fn ask_here(&self, question: Question) -> Option<Answer> {
        match question {
            Question::Propose { proposal, encoded, within, fence } => {
                Some(Answer::Proposed(self.lead_propose(*proposal, encoded.len(), within, fence).await))
            }
            Question::ReadIndex => self.lead_read_index().await.map(Answer::Index),
            Question::Observe => self.lead_observe().map(Answer::Observation),
            Question::Transfer(to) => match self.lead_transfer(to).await {
                Err(Kept::NotLeader) => None,
                transferred => Some(Answer::Transferred(transferred)),
            },
        }
    }

    /// Asks another node; `None` if it does not lead.
    async fn ask_there(&self, mut client: LeaderClient<Channel>, question: Question) -> Result<Option<Answer>, Status> {
        match question {
            Question::Propose { encoded, within, fence, .. } => {
                let (timeout_ms, fence_timeout_ms) = (millis(within), millis(fence));
                let request = ProposeRequest { proposal: encoded, timeout_ms, fence_timeout_ms };
                let reply = client.propose(request).await?.into_inner();
                if self.leads_not(reply.not_leader, reply.leader, &reply.leader_address) {
                    return Ok(None);
                }
                Ok(Some(Answer::Proposed(proposed(&reply)?)))
            }
            Question::ReadIndex => {
                let reply = client.read_index(ReadIndexRequest {}).await?.into_inner();
                if self.leads_not(reply.not_leader, reply.leader, &reply.leader_address) {
                    return Ok(None);
                }
                Ok(Some(Answer::Index(reply.index)))
            }
            Question::Observe => {
                let reply = client.observe(ObserveRequest {}).await?.into_inner();
                if self.leads_not(reply.not_leader, reply.leader, &reply.leader_address) {
                    return Ok(None);
                }
                Ok(Some(Answer::Observation(Observation {
                    leader: reply.leader,
                    term: reply.term,
                    last_index: reply.last_index,
                    at: At { tick: Tick(reply.tick_us), wall: Wall(reply.wall_ms) },
                    settled: reply.settled,
                    held: reply.held,
                    members: reply.members.into_iter().map(Into::into).collect(),
                })))
            }
            Question::Transfer(to) => {
                let reply = client.transfer_to(TransferToRequest { to: to.unwrap_or(0) }).await?.into_inner();
                if self.leads_not(reply.not_leader, reply.leader, &reply.leader_address) {
                    return Ok(None);
                }
                Ok(Some(Answer::Transferred(match reply.refused {
                    _ if reply.timed_out => Err(Kept::TimedOut),
                    why if why.is_empty() => Ok(reply.leader),
                    why => Err(Kept::Refused(why)),
                })))
            }
        }
    }

    /// Notes where the leader is, if one who does not lead has said so.
    fn leads_not(&self, not_leader: bool, leader: NodeId, address: &str) -> bool {
        if not_leader {
            self.peers.tell(leader, address.to_owned());
        }
        not_leader
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

pub(crate) fn proposed(reply: &ProposeReply) -> Result<Result<Committed, Refused>, Status> {
    match reply.declined() {
        peer::Declined::Unspecified => {}
        peer::Declined::Overloaded => return Ok(Err(Refused::Overloaded)),
        peer::Declined::DiskFull => return Ok(Err(Refused::DiskFull)),
        peer::Declined::TooLarge => return Ok(Err(Refused::TooLarge)),
        peer::Declined::Unknown => return Ok(Err(Refused::Unknown)),
    }
    let outcome = codec::decode(&reply.outcome).map_err(|error| Status::data_loss(error.to_string()))?;
    let fence = reply.fence.iter().map(|fenced| (fenced.node, FenceState::from(fenced.state()))).collect();
    Ok(Ok(Committed { outcome, index: reply.index, fence, fence_lost: reply.fence_lost }))
}

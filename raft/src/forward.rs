//! From any node to the leader: finds it, asks it, and asks again when it changes, within the caller's time. The
//! leader may be this node. A proposal keeps its request id over all attempts, so that it is done once; as soon as one
//! attempt may have been taken, an answer that says nothing of it is not believed to mean "not done".

use crate::{
    codec,
    handle::{Fence, ProposeError, ReadError, TransferError, Written},
    lead::{Committed, Refused},
    node::Node,
    status::{FenceState, Observation},
};
use futures::{FutureExt, future::BoxFuture};
use machine::{Actor, At, Command, Outcome, Proposal, RequestId, Tick, View, Wall, member::NodeId};
use proto::peer::{
    self, ObserveRequest, ProposeReply, ProposeRequest, ReadIndexRequest, TransferToRequest,
    leader_client::LeaderClient,
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::{Code, Status, transport::Channel};

/// How long to wait before the same leader is asked again.
const PAUSE: Duration = Duration::from_millis(25);

/// The answer to a remote attempt may take this much longer than the work: the network's share.
const GRACE: Duration = Duration::from_millis(500);

/// What became of one attempt.
enum Tried<T> {
    /// Answered.
    Done(T),
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
        if self.disk_low() {
            return Err(ProposeError::DiskFull);
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
            let here = || self.lead_propose(proposal.clone(), encoded.len(), within, fence).boxed();
            let there = |client| propose_there(client, encoded.clone(), within, fence).boxed();
            let answer = match self.ask(deadline + fence, here, there).await {
                Tried::Done(answer) => answer,
                Tried::Elsewhere => {
                    self.pause(deadline).await;
                    continue;
                }
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
        let deadline = Instant::now() + self.timing.read;
        let index = self
            .ask_until(
                deadline,
                || self.lead_read_index().boxed(),
                |mut client| {
                    Box::pin(async move {
                        let reply = client.read_index(ReadIndexRequest {}).await?.into_inner();
                        self.hint(reply.not_leader, reply.leader, &reply.leader_address);
                        Ok((!reply.not_leader).then_some(reply.index))
                    })
                },
            )
            .await
            .ok_or_else(|| self.why_no_answer())?;
        let mut applied = self.watch_applied();
        let caught_up = applied.wait_for(|applied| applied.index() >= index);
        match tokio::time::timeout_at(deadline, caught_up).await {
            Ok(Ok(applied)) => Ok(Arc::clone(&applied.view)),
            Ok(Err(_)) => Err(ReadError::Stopped),
            Err(_) => Err(ReadError::Behind),
        }
    }

    /// See [`crate::Handle::observe`].
    pub(crate) async fn observe(&self) -> Result<Observation, ReadError> {
        let deadline = Instant::now() + self.timing.read;
        self.ask_until(
            deadline,
            || Box::pin(async { self.lead_observe() }),
            |mut client| {
                Box::pin(async move {
                    let reply = client.observe(ObserveRequest {}).await?.into_inner();
                    self.hint(reply.not_leader, reply.leader, &reply.leader_address);
                    Ok((!reply.not_leader).then(|| Observation {
                        leader: reply.leader,
                        term: reply.term,
                        last_index: reply.last_index,
                        at: At { tick: Tick(reply.tick_us), wall: Wall(reply.wall_ms) },
                        members: reply.members.into_iter().map(Into::into).collect(),
                    }))
                })
            },
        )
        .await
        .ok_or_else(|| self.why_no_answer())
    }

    /// See [`crate::Handle::transfer_leader`].
    pub(crate) async fn transfer_leader(&self, to: Option<NodeId>) -> Result<NodeId, TransferError> {
        let deadline = Instant::now() + self.timing.propose;
        let asked = self
            .ask_until(
                deadline,
                || {
                    Box::pin(async move {
                        match self.lead_transfer(to).await {
                            Ok(leader) => Some(Ok(leader)),
                            Err(Some(why)) => Some(Err(why)),
                            Err(None) => None,
                        }
                    })
                },
                |mut client| {
                    Box::pin(async move {
                        let reply = client.transfer_to(TransferToRequest { to: to.unwrap_or(0) }).await?.into_inner();
                        self.hint(reply.not_leader, reply.leader, &reply.leader_address);
                        Ok(match (reply.not_leader, reply.refused) {
                            (true, _) => None,
                            (false, why) if why.is_empty() => Some(Ok(reply.leader)),
                            (false, why) => Some(Err(why)),
                        })
                    })
                },
            )
            .await;
        match asked {
            Some(Ok(leader)) => Ok(leader),
            Some(Err(why)) => Err(TransferError::Refused(why)),
            None if self.is_stopping() => Err(TransferError::Stopped),
            None => Err(TransferError::NoLeader),
        }
    }

    fn why_no_answer(&self) -> ReadError {
        if self.is_stopping() || self.standing().failed.is_some() { ReadError::Stopped } else { ReadError::NoLeader }
    }

    /// Asks until there is an answer: for questions that do no harm when they are asked twice.
    async fn ask_until<'a, T>(
        &'a self,
        deadline: Instant,
        here: impl Fn() -> BoxFuture<'a, Option<T>>,
        there: impl Fn(LeaderClient<Channel>) -> BoxFuture<'a, Result<Option<T>, Status>>,
    ) -> Option<T> {
        while Instant::now() < deadline && !self.is_stopping() {
            if let Tried::Done(Some(answer)) = self.ask(deadline, &here, &there).await {
                return Some(answer);
            }
            self.pause(deadline).await;
        }
        None
    }

    /// Asks whoever leads now, once; gives up when somebody else leads. Cannot be cancelled into doing anything twice.
    async fn ask<'a, T>(
        &'a self,
        deadline: Instant,
        here: impl FnOnce() -> BoxFuture<'a, T>,
        there: impl FnOnce(LeaderClient<Channel>) -> BoxFuture<'a, Result<T, Status>>,
    ) -> Tried<T> {
        let mut standing = self.watch_standing();
        let Some(leader) = standing.borrow_and_update().leader else { return Tried::Elsewhere };
        if leader == self.id {
            // Ends by itself: the leader's own work is bounded, and it knows best when its time is over.
            return Tried::Done(here().await);
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
        let another = standing.wait_for(|now| now.leader.is_some_and(|now| now != leader) || now.failed.is_some());
        tokio::select! {
            answer = there(client) => match answer {
                Ok(answer) => Tried::Done(answer),
                Err(status) if matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated) => {
                    tracing::warn!(leader, why = status.message(), "the leader refuses this node");
                    Tried::Elsewhere
                }
                Err(status) => {
                    tracing::debug!(leader, code = ?status.code(), why = status.message(), "no answer");
                    self.peers.complain(&link);
                    Tried::Lost
                }
            },
            _ = another => Tried::Lost,
            () = tokio::time::sleep_until(deadline + GRACE) => Tried::Lost,
        }
    }

    /// Waits for another leader, or a moment.
    async fn pause(&self, deadline: Instant) {
        let mut standing = self.watch_standing();
        let until = deadline.min(Instant::now() + PAUSE);
        let leader = standing.borrow_and_update().leader;
        let another = standing.wait_for(|now| now.leader.is_some() && now.leader != leader);
        let has_ended = matches!(tokio::time::timeout_at(until, another).await, Ok(Err(_)));
        if has_ended {
            // Raft has ended here: nobody will ever lead, as far as this node can know.
            tokio::time::sleep_until(until).await;
        }
    }

    /// Notes where the leader is, as one who does not lead has said.
    fn hint(&self, not_leader: bool, leader: NodeId, address: &str) {
        if not_leader {
            self.peers.tell(leader, address.to_owned());
        }
    }
}

async fn propose_there(
    mut client: LeaderClient<Channel>,
    proposal: bytes::Bytes,
    within: Duration,
    fence: Duration,
) -> Result<Result<Committed, Refused>, Status> {
    let ms = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    let request = ProposeRequest { proposal, timeout_ms: ms(within), fence_timeout_ms: ms(fence) };
    let reply: ProposeReply = client.propose(request).await?.into_inner();
    if reply.not_leader {
        return Ok(Err(Refused::NotLeader));
    }
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

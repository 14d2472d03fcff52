//! What the rest of the gateway holds of consensus. Every method works on any node: what only the leader can do is
//! forwarded to it.

use crate::{
    adapt::server::RaftService,
    allowances::Allowances,
    digest::Digest,
    node::Node,
    session::server::LeaderService,
    start::{Start, StartError},
    status::{FenceState, LocalStatus, Observation},
};
use bytes::Bytes;
use machine::{
    Actor, At, Command, Outcome, RequestId, View, Wall,
    allowance::BucketId,
    audit::AuditEntry,
    command::Initialize,
    member::{MemberSpec, NodeId},
};
use proto::peer::{leader_server::LeaderServer, raft_server::RaftServer};
use std::{io, sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};

/// How long a write waits, once committed, for the nodes to enforce it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Not at all.
    None,
    /// Until every reachable member enforces it, at most so long.
    Within(Duration),
}

/// A proposal that was committed and applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// What became of it: a refusal is an outcome too.
    pub outcome: Outcome,
    /// The number of the log entry that applied it (of the retry's entry, where an earlier try had applied it).
    pub index: u64,
    /// What each member said; empty without a fence, and for a refusal, which changes nothing.
    pub fence: Vec<(NodeId, FenceState)>,
    /// How long all of it took.
    pub elapsed_ms: u64,
}

/// Why there is no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// No leader took it in time. It was not done, and will not be.
    #[error("no leader could be reached: a majority of the voters must be up and connected")]
    NoLeader,
    /// A leader may have taken it, and did not answer in time. Sending the same request id again tells.
    #[error("the outcome is unknown: it may have been done; repeating the same request is safe")]
    Unknown,
    /// The leader has more proposals waiting than it takes. It was not done.
    #[error("the leader is overloaded: try again later")]
    Overloaded,
    /// A disk has less room than the low watermark. It was not done.
    #[error("a disk is nearly full: admin writes are refused until there is room")]
    DiskFull,
    /// It is larger than a log entry may be. It was not done.
    #[error("the request has {bytes} bytes, more than the {max} that a log entry may have")]
    TooLarge {
        /// What it has.
        bytes: u64,
        /// The most.
        max: u64,
    },
    /// This node is stopping, or its raft has failed. It was not done through this node.
    #[error("this node is stopping or has failed")]
    Stopped,
}

/// Why a read could not be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader confirmed in time that it leads.
    #[error("no leader could be reached: a majority of the voters must be up and connected")]
    NoLeader,
    /// This node did not apply the log in time.
    #[error("this node is behind and did not catch up in time")]
    Behind,
    /// The snapshot could not be written or read.
    #[error("snapshot: {0}")]
    Snapshot(String),
    /// This node is stopping, or its raft has failed.
    #[error("this node is stopping or has failed")]
    Stopped,
}

/// Why leadership was not handed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// No leader could be asked.
    #[error("no leader could be reached: a majority of the voters must be up and connected")]
    NoLeader,
    /// The leader would not, and says why.
    #[error("{0}")]
    Refused(String),
    /// The leader agreed, and nobody else led in time.
    #[error("the other node did not take the lead in time; the cluster goes on under its leader")]
    TimedOut,
    /// This node is stopping, or its raft has failed.
    #[error("this node is stopping or has failed")]
    Stopped,
}

/// A part of the audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditPage {
    /// Entries by number, in order.
    pub entries: Vec<(u64, Arc<AuditEntry>)>,
    /// The number of the oldest entry that is kept: what is before it is gone.
    pub oldest: u64,
    /// The number that the next entry will get.
    pub next: u64,
}

/// A snapshot of the whole state, as the bytes of a snapshot file.
#[derive(Debug)]
pub struct Backup {
    /// The number of the last log entry in it.
    pub index: u64,
    /// The cluster revision in it.
    pub revision: u64,
    /// The cluster's time in it.
    pub at: At,
    /// The size of the file.
    pub bytes: u64,
    /// Its bytes, in order. An error, or fewer bytes than announced, means that the backup is no good.
    pub pieces: mpsc::Receiver<Result<Bytes, ReadError>>,
}

/// A limit's bucket as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The most that it can hold: the burst of a rate, the amount of a quota. 0 if there is no such limit.
    pub limit_value: u64,
    /// Whole tokens that are there.
    pub available: u64,
    /// Tokens that nodes hold and are not known to have spent, by node.
    pub outstanding: Vec<(NodeId, u64)>,
    /// Of a quota: where its present window ends.
    pub window_end: Option<Wall>,
}

/// The tonic services that the node's cluster port mounts, with their message sizes set.
#[derive(Clone)]
pub struct Services {
    /// Raft between peers.
    pub raft: RaftServer<RaftService>,
    /// What nodes ask of the leader.
    pub leader: LeaderServer<LeaderService>,
}

/// A running member. Clones are the same member.
#[derive(Clone)]
pub struct Handle {
    node: Arc<Node>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("node", &self.node.id).finish_non_exhaustive()
    }
}

impl Handle {
    /// Makes a new cluster with this node as its only voter. Done again with the same values it does nothing; on the
    /// data of another cluster it is refused.
    ///
    /// # Errors
    /// [`ProposeError`]; the refusal is an outcome.
    pub async fn bootstrap(&self, initialize: Initialize) -> Result<Outcome, ProposeError> {
        self.node.bootstrap(initialize).await
    }

    /// The newest View that this node has applied.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.node.view()
    }

    /// The Views that this node applies; some are skipped when they come fast.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.node.watch()
    }

    /// This node's authority to admit requests, for its workers to read with each.
    #[must_use]
    pub fn authority(&self) -> Arc<crate::Authority> {
        self.node.authority()
    }

    /// What this node may spend of the cluster's limits, for its workers.
    #[must_use]
    pub fn allowances(&self) -> Arc<Allowances> {
        self.node.allowances()
    }

    /// A bucket with everything that was booked before this call. What nodes spend of their allowances is booked when
    /// they report it, about once a second.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn usage(&self, id: &BucketId) -> Result<Usage, ReadError> {
        self.node.usage(id).await
    }

    /// The cluster's time, as this node reckons it: what the leader said last, plus what has passed here since.
    #[must_use]
    pub fn time(&self) -> At {
        self.node.time()
    }

    /// The cluster's calendar, if a leader has told it to this node, or this node leads.
    #[must_use]
    pub fn heard_wall(&self) -> Option<machine::Wall> {
        self.node.heard_wall()
    }

    /// Has a command done: commits it through the leader, and waits for the fence. The request id makes retries safe;
    /// retries over changes of leader happen in here, within the profile's time.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn propose(
        &self,
        request: RequestId,
        actor: Actor,
        command: Command,
        fence: Fence,
    ) -> Result<Written, ProposeError> {
        self.node.propose(request, actor, command, fence).await
    }

    /// A View that has everything that was acknowledged before this call, by any node.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read(&self) -> Result<Arc<View>, ReadError> {
        self.node.read().await
    }

    /// What the leader knows of the members.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn observe(&self) -> Result<Observation, ReadError> {
        self.node.observe().await
    }

    /// What this node knows of itself.
    #[must_use]
    pub fn local(&self) -> LocalStatus {
        self.node.local()
    }

    /// Hands leadership to this member, or to the best there is, and waits until somebody else leads.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn transfer_leader(&self, to: Option<NodeId>) -> Result<NodeId, TransferError> {
        self.node.transfer_leader(to).await
    }

    /// The services for the node's cluster port.
    #[must_use]
    pub fn services(&self) -> Services {
        self.node.services()
    }

    /// The bytes of a snapshot that has everything that was acknowledged before this call.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn snapshot(&self) -> Result<Backup, ReadError> {
        self.node.snapshot().await
    }

    /// Audit entries of the state that this node has applied, from number `from` on, at most `limit`. After a
    /// [`Handle::read`] it has everything acknowledged.
    #[must_use]
    pub fn audit(&self, from: u64, limit: usize) -> AuditPage {
        self.node.audit(from, limit)
    }

    /// Digests of the replicated state at the last indexes at which it was set aside, and of the one applied last if that
    /// was the last when it was asked for before; `None` if [`crate::Upkeep::digest_entries`] asks for none. Blocks for as
    /// long as it takes to read whole states.
    ///
    /// # Errors
    /// A record that cannot be written down: there is none.
    pub fn digests(&self) -> io::Result<Option<Vec<(u64, Digest)>>> {
        self.node.digests()
    }

    /// Resolves when raft has failed on this node, with the reason: the process must end, so that it is started anew.
    pub async fn failed(&self) -> String {
        self.node.failed().await
    }

    /// Tells the cluster that what this node is has changed (a new address, a new release).
    pub fn set_spec(&self, spec: MemberSpec) {
        self.node.set_spec(spec);
    }

    /// Hands over leadership, gives this node's authority up, writes a checkpoint, and ends everything that runs. Workers
    /// must have been drained before. Within seconds; never fails.
    pub async fn stop(&self) {
        self.node.stop().await;
    }

    pub(crate) async fn start(start: Start) -> Result<Self, StartError> {
        Ok(Self { node: Node::start(start).await? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Callers spawn these.
    #[test]
    fn futures_can_move_between_threads() {
        fn is_send<T: Send>(_: impl FnOnce(Handle) -> T) {}
        is_send(|handle| async move { handle.read().await });
        is_send(|handle| async move { handle.observe().await });
        is_send(|handle| async move { handle.snapshot().await });
        is_send(|handle| async move {
            let id = BucketId { limit: machine::Name::new("l").unwrap(), subject: [].into() };
            handle.usage(&id).await
        });
        is_send(|handle| async move { handle.allowances().wait(&[], Duration::ZERO).await });
        is_send(|handle| async move { handle.transfer_leader(None).await });
        is_send(|handle| async move { handle.failed().await });
        is_send(|handle| async move { handle.stop().await });
        is_send(|handle| async move {
            let request = RequestId { issued: machine::Wall(0), random: 0 };
            handle.propose(request, Actor::Bootstrap, Command::Nothing, Fence::None).await
        });
    }
}

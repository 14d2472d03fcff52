//! What the rest of the crate asks of openraft, in this cluster's words: who leads, propose, confirm, change members.

use crate::{
    adapt::{log::Log, machine::Machine, network::Network},
    codec::form::LogIdForm,
    start::StartError,
    status::Role,
    timing::{Timing, Upkeep},
    types::{Done, Gathered, LeaderId, LogId, Peer, Raft, TypeConfig},
};
use futures::future::BoxFuture;
use machine::member::NodeId;
use openraft::{
    ChangeMembers, Config, Instant, ReadPolicy, ServerState, SnapshotPolicy, StepDownPolicy,
    async_runtime::watch::WatchReceiver,
    errors::{ClientWriteError, Fatal, InitializeError, RaftError},
    impls::ProgressResponder,
    metrics::RaftMetrics,
    vote::RaftLeaderId,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// Log entries sent at once; their bytes are bounded where they are read.
const ENTRIES_PER_APPEND_MAX: u64 = 512;

/// A removed leader hands over and becomes nobody after this.
const STEP_DOWN_MS: u64 = 150;

/// One leader's time: its term and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reign {
    pub(crate) term: u64,
    pub(crate) node: NodeId,
}

impl Reign {
    /// Whether this leader made that entry.
    pub(crate) fn made(self, entry: LogIdForm) -> bool {
        self.term == entry.term && self.node == entry.node
    }
}

/// How this node stands in raft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) role: Role,
    pub(crate) term: u64,
    /// Who leads, as far as this node knows.
    pub(crate) leader: Option<NodeId>,
    /// This node leads.
    pub(crate) reign: Option<Reign>,
    pub(crate) last_index: u64,
    pub(crate) committed: u64,
    pub(crate) snapshot: u64,
    /// All voters, of both sets while one replaces the other.
    pub(crate) voters: BTreeSet<NodeId>,
    /// Everybody in raft's membership, and where.
    pub(crate) peers: BTreeMap<NodeId, String>,
    /// Two sets of voters, one about to replace the other.
    pub(crate) joint: bool,
    /// The membership is committed.
    pub(crate) settled: bool,
    /// On a leader: up to where each peer's log is known to be the leader's.
    pub(crate) matched: BTreeMap<NodeId, u64>,
    /// Why raft has stopped here.
    pub(crate) failed: Option<String>,
}

impl Standing {
    fn of(metrics: &RaftMetrics<TypeConfig>) -> Self {
        let leads = metrics.state == ServerState::Leader && metrics.vote.is_committed();
        let leader = metrics.vote.leader_id();
        let membership = metrics.membership_config.membership();
        let index = |id: &Option<LogId>| id.as_ref().map_or(0, |id| id.index());
        Self {
            role: match metrics.state {
                ServerState::Leader => Role::Leader,
                ServerState::Follower => Role::Follower,
                ServerState::Candidate => Role::Candidate,
                ServerState::Learner | ServerState::Shutdown => Role::Learner,
            },
            term: metrics.current_term,
            leader: metrics.current_leader,
            reign: leads.then_some(Reign { term: leader.term, node: leader.node_id }),
            last_index: metrics.last_log_index.unwrap_or(0),
            committed: index(&metrics.local_committed),
            snapshot: index(&metrics.snapshot),
            voters: membership.voter_ids().collect(),
            peers: membership.nodes().map(|(id, peer)| (*id, peer.address.clone())).collect(),
            joint: membership.get_joint_config().len() > 1,
            settled: metrics.membership_config.log_id() == metrics.committed_membership_config.log_id(),
            matched: metrics
                .replication
                .iter()
                .flatten()
                .filter_map(|(node, matched)| Some((*node, matched.as_ref()?.index())))
                .collect(),
            failed: metrics.running_state.as_ref().err().map(ToString::to_string),
        }
    }
}

/// Why an entry was not applied by this node as a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteError {
    /// This node does not lead; nothing was appended.
    NotLeader,
    /// It was appended, and may be committed yet.
    Unknown,
    /// Raft has stopped here; nothing was appended.
    Stopped,
}

/// What became of an entry.
pub(crate) type Wrote = Result<Done, WriteError>;

/// Why a change of members did not happen, for the log.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ChangeError(pub(crate) String);

/// openraft on this node.
#[derive(Clone)]
pub(crate) struct Engine {
    raft: Raft,
    standing: watch::Receiver<Arc<Standing>>,
    leader: watch::Receiver<Option<NodeId>>,
}

impl Engine {
    /// Opens it on what the disk holds, and takes part.
    pub(crate) async fn open(
        node: NodeId,
        timing: &Timing,
        upkeep: &Upkeep,
        network: Network,
        log: Log,
        machine: Machine,
    ) -> Result<Self, StartError> {
        let config = config(timing, upkeep)?;
        let raft = Raft::new(node, Arc::new(config), network, log, machine).await.map_err(|fatal| match fatal {
            Fatal::StorageError(error) => StartError::Damaged(error.to_string()),
            other => StartError::Disk(other.to_string()),
        })?;
        let (standing, leader) = watch_standing(&raft);
        Ok(Self { raft, standing, leader })
    }

    /// For the serving side, which speaks openraft too.
    pub(crate) fn raft(&self) -> Raft {
        self.raft.clone()
    }

    /// How this node stands, as it changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Standing>> {
        self.standing.clone()
    }

    /// Who leads, as it changes: a standing changes with every entry, this does not.
    pub(crate) fn watch_leader(&self) -> watch::Receiver<Option<NodeId>> {
        self.leader.clone()
    }

    /// How this node stands.
    pub(crate) fn standing(&self) -> Arc<Standing> {
        Arc::clone(&self.standing.borrow())
    }

    /// Makes this node the only voter of a new cluster. Nothing happens where there is one.
    pub(crate) async fn initialize(&self, node: NodeId, address: String) -> Result<(), WriteError> {
        match self.raft.initialize(BTreeMap::from([(node, Peer { address })])).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotInMembers(_)) | RaftError::Fatal(_)) => {
                Err(WriteError::Stopped)
            }
        }
    }

    /// Appends an entry, if this reign still lasts. Returns once openraft has it in order; the outcome comes later.
    pub(crate) async fn write(&self, reign: Reign, entry: machine::Entry) -> BoxFuture<'static, Wrote> {
        let (responder, answer) = ProgressResponder::complete_only();
        let leader = LeaderId { term: reign.term, node_id: reign.node };
        let request = self.raft.write(Gathered(Arc::new(entry))).with_leader(leader.to_committed());
        if request.responder(responder).await.is_err() {
            return Box::pin(async { Err(WriteError::Stopped) });
        }
        Box::pin(async move {
            match answer.await {
                Ok(Ok(written)) => Ok(written.data),
                Ok(Err(ClientWriteError::ForwardToLeader(forward))) => {
                    tracing::debug!(reason = ?forward.reason, leader = forward.leader_id, "not appended");
                    Err(WriteError::NotLeader)
                }
                // Discarded from this log, and perhaps committed by the leader that came after.
                _ => Err(WriteError::Unknown),
            }
        })
    }

    /// The index that a read must have applied to see everything acknowledged before. Asks a majority each time: a
    /// lease is not safe across a follower's restart.
    pub(crate) async fn read_index(&self) -> Result<u64, WriteError> {
        match self.raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((read, _)) => Ok(read.index()),
            Err(RaftError::APIError(_)) => Err(WriteError::NotLeader),
            Err(RaftError::Fatal(_)) => Err(WriteError::Stopped),
        }
    }

    /// Adds a node that follows without a vote.
    pub(crate) async fn add_learner(&self, node: NodeId, address: String) -> Result<(), ChangeError> {
        changed(self.raft.add_learner(node, Peer { address }, false).await)
    }

    /// Makes these the voters. Who was one stays a learner.
    pub(crate) async fn set_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), ChangeError> {
        changed(self.raft.change_membership(ChangeMembers::ReplaceAllVoters(voters), true).await)
    }

    /// Lets go of learners altogether.
    pub(crate) async fn let_go(&self, learners: BTreeSet<NodeId>) -> Result<(), ChangeError> {
        changed(self.raft.change_membership(ChangeMembers::RemoveNodes(learners), true).await)
    }

    /// Ends a change of voters that is half done.
    pub(crate) async fn settle(&self) -> Result<(), ChangeError> {
        changed(self.raft.change_membership(ChangeMembers::AddVoterIds(BTreeSet::new()), true).await)
    }

    /// Hands leadership to this voter, as soon as it has the whole log. Until somebody leads, nobody takes proposals.
    pub(crate) async fn transfer(&self, to: NodeId) -> Result<(), WriteError> {
        self.raft.trigger().transfer_leader(to).await.map_err(|_| WriteError::Stopped)
    }

    /// Writes a snapshot file, and cuts the log behind it.
    pub(crate) async fn snapshot(&self) -> Result<(), WriteError> {
        self.raft.trigger().snapshot().await.map_err(|_| WriteError::Stopped)
    }

    /// Since a majority last answered this leader; `None` if none ever did.
    pub(crate) fn quorum_heard_ms(&self) -> Option<u64> {
        if self.standing.borrow().voters.len() <= 1 {
            return Some(0);
        }
        let acked = self.raft.metrics().borrow_watched().last_quorum_acked?;
        u64::try_from(acked.elapsed().as_millis()).ok()
    }

    /// Ends raft on this node.
    pub(crate) async fn stop(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "raft has ended badly");
        }
    }
}

fn changed<T>(result: Result<T, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>) -> Result<(), ChangeError> {
    result.map(|_| ()).map_err(|error| ChangeError(error.to_string()))
}

/// The standing and the leader, as openraft's own metrics change.
fn watch_standing(raft: &Raft) -> (watch::Receiver<Arc<Standing>>, watch::Receiver<Option<NodeId>>) {
    let mut metrics = raft.metrics();
    let first = Standing::of(&metrics.borrow_watched());
    let (leaders, leader) = watch::channel(first.leader);
    let (standings, standing) = watch::channel(Arc::new(first));
    // Ends with raft, which drops the other end.
    tokio::spawn(async move {
        while metrics.changed().await.is_ok() {
            let next = Standing::of(&metrics.borrow_and_update());
            leaders.send_if_modified(|leader| std::mem::replace(leader, next.leader) != next.leader);
            standings.send_if_modified(|standing| {
                let news = **standing != next;
                if news {
                    *standing = Arc::new(next);
                }
                news
            });
        }
        standings.send_modify(|standing| {
            let mut last = (**standing).clone();
            last.failed.get_or_insert_with(|| "raft has stopped".to_owned());
            last.reign = None;
            last.leader = None;
            *standing = Arc::new(last);
        });
    });
    (standing, leader)
}

fn config(timing: &Timing, upkeep: &Upkeep) -> Result<Config, StartError> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: "quorate".to_owned(),
        heartbeat_interval: ms(timing.heartbeat),
        election_timeout_min: ms(timing.election_min),
        election_timeout_max: ms(timing.election_max),
        max_payload_entries: ENTRIES_PER_APPEND_MAX,
        // When to write one is decided in `upkeep`, by bytes.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: upkeep.keep_entries,
        purge_batch_size: 1,
        removed_leader_step_down: StepDownPolicy::After(STEP_DOWN_MS),
        // A node that was cut off must not depose a leader that a majority follows.
        enable_pre_vote: Some(true),
        // Leadership ends with the process: the table of members and the clocks belong to one reign.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    config.validate().map_err(|error| StartError::Settings(format!("the timing profile: {error}")))
}

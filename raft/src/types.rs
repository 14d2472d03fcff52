//! openraft's types, spelled for this cluster. With `adapt`, the only file that names them.

use machine::{Outcome, allowance::Answer, member::NodeId};
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

openraft::declare_raft_types!(
    /// How openraft is parameterised here: its default leader ids (term and node), which are the ones that its authors
    /// test most.
    pub(crate) TypeConfig:
        D = Gathered,
        R = Done,
        NodeId = NodeId,
        Node = Peer,
);

/// What one log entry carries: the proposals and the acquires that a leader gathered. Shared, because the log's cache, replication and
/// apply all hold it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gathered(pub(crate) Arc<machine::Entry>);

/// What became of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Of each proposal, and where in the log it was done: for a retry, the first time.
    pub(crate) outcomes: Vec<(Outcome, u64)>,
    /// To each node that asked for allowances.
    pub(crate) answers: Vec<Answer>,
}

impl fmt::Display for Gathered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} proposals, {} acquires", self.0.proposals.len(), self.0.acquires.len())
    }
}

impl fmt::Debug for Gathered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What raft's own membership says of a node: where it was when it joined. The registry knows where it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// `host:port` of the cluster listener.
    pub(crate) address: String,
}

pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, NodeId>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type Payload = openraft::EntryPayload<Gathered, NodeId, Peer>;
pub(crate) type LogEntry = openraft::Entry<LeaderId, Payload>;
pub(crate) type Membership = openraft::Membership<NodeId, Peer>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Raft = openraft::Raft<TypeConfig, crate::adapt::machine::Machine>;

/// Locks, whatever happened to others who held it: every value behind a lock here is replaced whole.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

//! Members: the nodes of the cluster, with addresses and versions. Who votes is raft's own membership; this is what
//! else the cluster must know of a node, and it outlives removal until the node can hold no authority.

use crate::{name::Name, time::Wall};
use serde::{Deserialize, Serialize};

/// The number of a node, never used again in the life of a cluster.
pub type NodeId = u64;

/// A node, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Never used again.
    pub id: NodeId,
    /// Unique among the members.
    pub name: Name,
    /// `host:port` of the cluster listener, as the other nodes reach it.
    pub address: String,
    /// `host:port` of the other listeners, for status pages; empty where there is none.
    pub gateway_address: String,
    /// See `gateway_address`.
    pub gateway_tls_address: String,
    /// See `gateway_address`.
    pub ops_address: String,
    /// Failure domain, free text.
    pub zone: Option<String>,
    /// The release that the node runs.
    pub version: String,
    /// The newest behaviour of `apply` that the node's release knows.
    pub feature_level_max: u32,
    /// What the operator wants of it.
    pub standing: Standing,
    /// When it joined.
    pub joined_at: Wall,
    /// The cluster revision of the last change.
    pub revision: u64,
}

/// What the operator wants of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Becomes a voter by itself while there are fewer than the cluster wants.
    Eligible,
    /// Never votes unless promoted.
    Learner,
    /// On its way out: refused by the others, but counted by fences until it is forgotten.
    Leaving,
}

/// What a node tells of itself when it joins or starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberSpec {
    /// See [`Member::name`].
    pub name: Name,
    /// See [`Member::address`].
    pub address: String,
    /// See [`Member::gateway_address`].
    pub gateway_address: String,
    /// See [`Member::gateway_address`].
    pub gateway_tls_address: String,
    /// See [`Member::gateway_address`].
    pub ops_address: String,
    /// See [`Member::zone`].
    pub zone: Option<String>,
    /// See [`Member::version`].
    pub version: String,
    /// See [`Member::feature_level_max`].
    pub feature_level_max: u32,
}

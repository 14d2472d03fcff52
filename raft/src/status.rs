//! What is said about nodes: by a node of itself, and by the leader of every member.

use machine::{At, member::NodeId};

/// What a node does in raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Leads.
    Leader,
    /// Votes, and follows.
    Follower,
    /// Seeks election.
    Candidate,
    /// Follows without a vote.
    Learner,
}

/// How a node stands with its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// No leader is known, or it does not answer.
    Seeking,
    /// Reports go up and advice comes down.
    Open,
    /// The cluster has removed this node. It will not come back under this number.
    Removed,
}

/// What a node knows of itself, without asking anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalStatus {
    /// Its number.
    pub node: NodeId,
    /// What it does in raft.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// Whether it has a vote.
    pub voter: bool,
    /// The number of the last entry in its log.
    pub last_index: u64,
    /// The number of the last entry that it knows to be committed.
    pub committed: u64,
    /// The number of the last entry that it has applied.
    pub applied: u64,
    /// The number of the last entry whose View all its workers enforce.
    pub enforced: u64,
    /// The number of the last entry in its newest snapshot file; 0 for none.
    pub snapshot: u64,
    /// How it stands with the leader.
    pub session: Session,
    /// Since the leader last answered it; `None` if it never did. On a leader: since a majority last answered.
    pub leader_heard_ms: Option<u64>,
    /// What is left of its authority to admit requests; 0 while it is isolated.
    pub authority_ms: u64,
    /// Whether its workers enforce everything that was committed when its present session began. A node that has just
    /// come up is not ready before: it may still decide by what it knew when it went down.
    pub caught_up: bool,
    /// The cluster's time, as this node reckons it.
    pub at: At,
    /// Its disk has less room than the low watermark.
    pub disk_low: bool,
    /// Why raft has stopped on this node, if it has: a disk error, for instance. Only a restart helps.
    pub failed: Option<String>,
}

/// What the leader knows of the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Who says so.
    pub leader: NodeId,
    /// In which term.
    pub term: u64,
    /// The number of the last entry in the leader's log.
    pub last_index: u64,
    /// The cluster's time.
    pub at: At,
    /// Whether no change of voters is under way: while one is, a majority of the old voters and one of the new are needed.
    pub settled: bool,
    /// Why a change of members that is wanted waits; empty if none does.
    pub held: String,
    /// Members and raft's own members, by number.
    pub members: Vec<Observed>,
}

/// What the leader knows of one member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Its number.
    pub node: NodeId,
    /// Heard of lately.
    pub reachable: bool,
    /// The number of the last entry whose View all its workers enforce.
    pub enforced: u64,
    /// Whether it has a vote.
    pub voter: bool,
    /// Its UTC minus the cluster's, if it has reported since this leader leads.
    pub clock_offset_ms: Option<i64>,
    /// SHA-256 of the authority that signed its certificate; empty if it has not reported.
    pub certificate_authority_sha256: Vec<u8>,
    /// When its certificate ends; 0 if it has not reported.
    pub certificate_not_after_ms: u64,
    /// Since it was last heard of; `None` if this leader never did.
    pub silent_ms: Option<u64>,
    /// How long it may hold authority yet, at most; `None` if it surely holds none.
    pub authority_ms: Option<u64>,
}

/// Whether a node enforces a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceState {
    /// All its workers enforce it.
    Applied,
    /// It can hold no authority from before the write: its lease is over, or it gave it up when it stopped.
    Expired,
    /// It can hold no authority, but routes that opted out of it may still be served there by the old state.
    ServingIsolated,
    /// It did not enforce the write in time, and may still hold authority from before it.
    Pending,
}

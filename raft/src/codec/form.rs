//! Our own shapes of what openraft hands us, for disk and wire: its types may change with any of its releases, these do
//! not. Each shape converts both ways.

use crate::types::{
    Gathered, LeaderId, LogEntry, LogId, Membership, Payload, Peer, SnapshotMeta, StoredMembership, TypeConfig, Vote,
};
use machine::{At, member::NodeId};
pub(crate) use openraft::raft::{
    AppendEntriesRequest, StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{
    EntryPayload,
    raft::{StreamAppendError, TransferLeaderError},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Which entry: the leader that made it, and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogIdForm {
    pub(crate) term: u64,
    pub(crate) node: NodeId,
    pub(crate) index: u64,
}

impl From<&LogId> for LogIdForm {
    fn from(id: &LogId) -> Self {
        let leader = id.committed_leader_id();
        Self { term: leader.term, node: leader.node_id, index: id.index() }
    }
}

impl From<LogIdForm> for LogId {
    fn from(form: LogIdForm) -> Self {
        Self::new(LeaderId { term: form.term, node_id: form.node }, form.index)
    }
}

fn id_form(id: &Option<LogId>) -> Option<LogIdForm> {
    id.as_ref().map(Into::into)
}

/// For whom a node has voted, or whom it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteForm {
    pub(crate) term: u64,
    pub(crate) node: NodeId,
    pub(crate) committed: bool,
}

impl From<&Vote> for VoteForm {
    fn from(vote: &Vote) -> Self {
        let leader = vote.leader_id();
        Self { term: leader.term, node: leader.node_id, committed: vote.is_committed() }
    }
}

impl From<VoteForm> for Vote {
    fn from(form: VoteForm) -> Self {
        if form.committed { Self::new_committed(form.term, form.node) } else { Self::new(form.term, form.node) }
    }
}

/// Who votes (two sets while one replaces the other), and who is there at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MembershipForm {
    pub(crate) voters: Vec<BTreeSet<NodeId>>,
    pub(crate) addresses: BTreeMap<NodeId, String>,
}

impl From<&Membership> for MembershipForm {
    fn from(membership: &Membership) -> Self {
        Self {
            voters: membership.get_joint_config().clone(),
            addresses: membership.nodes().map(|(id, peer)| (*id, peer.address.clone())).collect(),
        }
    }
}

impl TryFrom<MembershipForm> for Membership {
    type Error = std::io::Error;

    fn try_from(form: MembershipForm) -> Result<Self, Self::Error> {
        let peers: BTreeMap<NodeId, Peer> =
            form.addresses.into_iter().map(|(id, address)| (id, Peer { address })).collect();
        Self::new(form.voters, peers)
            .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, format!("membership: {error}")))
    }
}

/// A membership, and the entry that set it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredMembershipForm {
    pub(crate) set_by: Option<LogIdForm>,
    pub(crate) membership: MembershipForm,
}

impl From<&StoredMembership> for StoredMembershipForm {
    fn from(stored: &StoredMembership) -> Self {
        Self { set_by: id_form(stored.log_id()), membership: stored.membership().into() }
    }
}

impl TryFrom<StoredMembershipForm> for StoredMembership {
    type Error = std::io::Error;

    fn try_from(form: StoredMembershipForm) -> Result<Self, Self::Error> {
        Ok(Self::new(form.set_by.map(Into::into), form.membership.try_into()?))
    }
}

/// One log entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntryForm {
    pub(crate) id: LogIdForm,
    pub(crate) payload: PayloadForm,
}

/// What a log entry carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PayloadForm {
    /// Nothing: a leader's first.
    Blank,
    /// Proposals.
    Proposals(Arc<machine::Entry>),
    /// A change of raft's membership.
    Membership(MembershipForm),
}

impl From<&LogEntry> for EntryForm {
    fn from(entry: &LogEntry) -> Self {
        let payload = match &entry.payload {
            EntryPayload::Blank => PayloadForm::Blank,
            EntryPayload::Normal(gathered) => PayloadForm::Proposals(Arc::clone(&gathered.0)),
            EntryPayload::Membership(membership) => PayloadForm::Membership(membership.into()),
        };
        Self { id: (&entry.log_id).into(), payload }
    }
}

impl TryFrom<EntryForm> for LogEntry {
    type Error = std::io::Error;

    fn try_from(form: EntryForm) -> Result<Self, Self::Error> {
        let payload: Payload = match form.payload {
            PayloadForm::Blank => EntryPayload::Blank,
            PayloadForm::Proposals(entry) => EntryPayload::Normal(Gathered(entry)),
            PayloadForm::Membership(membership) => EntryPayload::Membership(membership.try_into()?),
        };
        Ok(Self { log_id: form.id.into(), payload })
    }
}

/// Where a state stands: the marker of a checkpoint and the head of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlaceForm {
    /// The last entry in it.
    pub(crate) last: Option<LogIdForm>,
    /// Raft's membership as of then.
    pub(crate) membership: StoredMembershipForm,
    /// For people and for `snapshot inspect`: which cluster, at what revision, when.
    pub(crate) cluster: [u8; 16],
    /// See `cluster`.
    pub(crate) revision: u64,
    /// See `cluster`.
    pub(crate) at: At,
}

impl TryFrom<PlaceForm> for SnapshotMeta {
    type Error = std::io::Error;

    fn try_from(form: PlaceForm) -> Result<Self, Self::Error> {
        Ok(Self { last_log_id: form.last.map(Into::into), last_membership: form.membership.try_into()? })
    }
}

/// A leader's entries for a follower, or none as a sign of life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppendForm {
    pub(crate) vote: VoteForm,
    pub(crate) previous: Option<LogIdForm>,
    pub(crate) committed: Option<LogIdForm>,
    pub(crate) entries: Vec<EntryForm>,
}

impl From<&AppendEntriesRequest<TypeConfig>> for AppendForm {
    fn from(request: &AppendEntriesRequest<TypeConfig>) -> Self {
        Self {
            vote: (&request.vote).into(),
            previous: id_form(&request.prev_log_id),
            committed: id_form(&request.leader_commit),
            entries: request.entries.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<AppendForm> for AppendEntriesRequest<TypeConfig> {
    type Error = std::io::Error;

    fn try_from(form: AppendForm) -> Result<Self, Self::Error> {
        Ok(Self {
            vote: form.vote.into(),
            prev_log_id: form.previous.map(Into::into),
            leader_commit: form.committed.map(Into::into),
            entries: form.entries.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

/// A follower's answer to an [`AppendForm`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AppendedForm {
    /// Its log is the leader's up to here.
    Matched(Option<LogIdForm>),
    /// Its log differs here.
    Conflict(LogIdForm),
    /// It knows a later leader or candidate.
    HigherVote(VoteForm),
}

impl From<&StreamAppendResult<TypeConfig>> for AppendedForm {
    fn from(result: &StreamAppendResult<TypeConfig>) -> Self {
        match result {
            Ok(matched) => Self::Matched(id_form(matched)),
            Err(StreamAppendError::Conflict(at)) => Self::Conflict(at.into()),
            Err(StreamAppendError::HigherVote(vote)) => Self::HigherVote(vote.into()),
        }
    }
}

impl From<AppendedForm> for StreamAppendResult<TypeConfig> {
    fn from(form: AppendedForm) -> Self {
        match form {
            AppendedForm::Matched(matched) => Ok(matched.map(Into::into)),
            AppendedForm::Conflict(at) => Err(StreamAppendError::Conflict(at.into())),
            AppendedForm::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote.into())),
        }
    }
}

/// A candidate's request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteRequestForm {
    /// Only asks whether it would be granted.
    pub(crate) preliminary: bool,
    pub(crate) vote: VoteForm,
    pub(crate) last: Option<LogIdForm>,
    /// The leader itself asked for this election.
    pub(crate) transfer: bool,
}

impl VoteRequestForm {
    pub(crate) fn new(request: &VoteRequest<TypeConfig>, preliminary: bool) -> Self {
        Self {
            preliminary,
            vote: (&request.vote).into(),
            last: id_form(&request.last_log_id),
            transfer: request.leadership_transfer,
        }
    }
}

impl From<VoteRequestForm> for VoteRequest<TypeConfig> {
    fn from(form: VoteRequestForm) -> Self {
        let mut request = Self::new(form.vote.into(), form.last.map(Into::into));
        request.leadership_transfer = form.transfer;
        request
    }
}

/// The answer to a [`VoteRequestForm`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteReplyForm {
    pub(crate) vote: VoteForm,
    pub(crate) granted: bool,
    pub(crate) last: Option<LogIdForm>,
}

impl From<&VoteResponse<TypeConfig>> for VoteReplyForm {
    fn from(response: &VoteResponse<TypeConfig>) -> Self {
        Self { vote: (&response.vote).into(), granted: response.vote_granted, last: id_form(&response.last_log_id) }
    }
}

impl From<VoteReplyForm> for VoteResponse<TypeConfig> {
    fn from(form: VoteReplyForm) -> Self {
        Self::new(Vote::from(form.vote), form.last.map(Into::into), form.granted)
    }
}

/// A leader's wish that another leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TransferForm {
    pub(crate) from: VoteForm,
    pub(crate) to: NodeId,
    pub(crate) last: Option<LogIdForm>,
}

impl From<&TransferLeaderRequest<TypeConfig>> for TransferForm {
    fn from(request: &TransferLeaderRequest<TypeConfig>) -> Self {
        Self {
            from: request.from_leader().into(),
            to: *request.to_node_id(),
            last: request.last_log_id().map(Into::into),
        }
    }
}

impl From<TransferForm> for TransferLeaderRequest<TypeConfig> {
    fn from(form: TransferForm) -> Self {
        Self::new(form.from.into(), form.to, form.last.map(Into::into))
    }
}

/// The answer to a [`TransferForm`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TransferredForm {
    /// It will seek election.
    Accepted,
    /// It knows of another leader or candidate.
    VoteChanged { expected: VoteForm, actual: VoteForm },
    /// It does not hold the whole log yet.
    Behind { expected: Option<LogIdForm>, actual: Option<LogIdForm> },
}

impl From<&TransferLeaderResponse<TypeConfig>> for TransferredForm {
    fn from(response: &TransferLeaderResponse<TypeConfig>) -> Self {
        match response {
            Ok(()) => Self::Accepted,
            Err(TransferLeaderError::VoteChanged { expected, actual }) => {
                Self::VoteChanged { expected: expected.into(), actual: actual.into() }
            }
            Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
                Self::Behind { expected: id_form(expected), actual: id_form(actual) }
            }
        }
    }
}

impl From<TransferredForm> for TransferLeaderResponse<TypeConfig> {
    fn from(form: TransferredForm) -> Self {
        match form {
            TransferredForm::Accepted => Ok(()),
            TransferredForm::VoteChanged { expected, actual } => {
                Err(TransferLeaderError::VoteChanged { expected: expected.into(), actual: actual.into() })
            }
            TransferredForm::Behind { expected, actual } => Err(TransferLeaderError::LogNotFlushed {
                expected: expected.map(Into::into),
                actual: actual.map(Into::into),
            }),
        }
    }
}

/// What goes before the bytes of a snapshot file on its way to a newcomer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotHeadForm {
    pub(crate) vote: VoteForm,
    pub(crate) place: PlaceForm,
    /// How many bytes follow: a stream that ends early is not a snapshot.
    pub(crate) bytes: u64,
}

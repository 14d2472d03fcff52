//! What became of a proposal. A refusal says which situation it was, so that a caller can treat it; it changes nothing.

use crate::{member::NodeId, name::Name, operator::Role};
use serde::{Deserialize, Serialize};

/// What became of a proposal. Small: it is remembered for a day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done; the cluster is at this revision.
    Done {
        /// The revision that the change made, or the present one if there was nothing to change.
        revision: u64,
    },
    /// Done, and a member has a number.
    Admitted {
        /// The revision that the change made.
        revision: u64,
        /// The member's number.
        id: NodeId,
    },
    /// Refused; nothing has changed.
    Refused(Refusal),
}

/// An outcome, and where in the log it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What became of the proposal.
    pub outcome: Outcome,
    /// The log index that did it: for a retry the index of the first time, which is what its fence waits for.
    pub index: u64,
}

/// Why a proposal was refused. A variant, once released, never changes its shape; new ones are added at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The thing does not exist.
    #[error("there is no {noun} {name:?}")]
    NotFound {
        /// `consumer`, `key`, …
        noun: Noun,
        /// As it was asked for.
        name: String,
    },
    /// The name or id is taken.
    #[error("the {noun} {name:?} already exists")]
    AlreadyExists {
        /// `consumer`, `key`, …
        noun: Noun,
        /// As it was asked for.
        name: String,
    },
    /// The precondition does not hold.
    #[error("the revision of the {noun} is {actual}, not {expected}: somebody changed it in between")]
    Conflict {
        /// What was edited.
        noun: Noun,
        /// What the client expected.
        expected: u64,
        /// What was found.
        actual: u64,
    },
    /// A collection is full.
    #[error("no room for another {noun}: there are already {cap}, which is the most a cluster holds")]
    CapReached {
        /// What is full.
        noun: Noun,
        /// Its cap.
        cap: u64,
    },
    /// A text or list is too long, or a value is out of range.
    #[error("{what} is out of bounds: the most is {max}")]
    OutOfBounds {
        /// Which field.
        what: Field,
        /// The most it may be.
        max: u64,
    },
    /// The key is revoked or has ended and cannot be used for this.
    #[error("the key is revoked or has expired: create a new one")]
    KeyRevoked,
    /// No such join token.
    #[error("the join token is not known to this cluster: it was mistyped, or is of another cluster")]
    TokenUnknown,
    /// The join token was used before.
    #[error("the join token was already used by node {by}: make a new one with `quoratectl cluster join-token`")]
    TokenUsed {
        /// By which node.
        by: NodeId,
    },
    /// The join token has ended.
    #[error("the join token has expired: make a new one with `quoratectl cluster join-token`")]
    TokenExpired,
    /// The operator's role does not reach, or the operator is revoked.
    #[error("this needs the role {needed:?}")]
    NotPermitted {
        /// The least role that may.
        needed: Role,
    },
    /// The last admin would be gone.
    #[error("{name} is the last admin: create another one first")]
    LastAdmin {
        /// Whose access it is.
        name: Name,
    },
    /// The member is on its way out.
    #[error("node {id} has been removed")]
    MemberLeaving {
        /// Which.
        id: NodeId,
    },
    /// The request id is older than the cluster remembers, or ahead of its clock.
    #[error("the request id is too old or from the future: send the request again with a new one")]
    RequestOutdated,
    /// There is no cluster yet, or there is one already.
    #[error("the cluster is already initialized")]
    AlreadyInitialized,
    /// A command before the first entry.
    #[error("the cluster is not initialized")]
    NotInitialized,
    /// A member does not support the level, or it is not above the present one.
    #[error(
        "feature level {level} is not possible: node {node} supports at most {supported}, and a level never goes back"
    )]
    FeatureLevel {
        /// What was asked for.
        level: u32,
        /// The member that holds it up.
        node: NodeId,
        /// What that member supports.
        supported: u32,
    },
    /// The command needs behaviour that the cluster has not been raised to.
    #[error("this needs feature level {needed}: finish the upgrade with `quoratectl cluster finalize-upgrade`")]
    NeedsFeatureLevel {
        /// The level.
        needed: u32,
    },
    /// A step of a rotation that does not follow from where the authority stands.
    #[error("the certificate authority is not in the phase that this step needs")]
    AuthorityPhase,
    /// A member that is not on its way out cannot be forgotten.
    #[error("node {id} is a member: remove it first")]
    MemberNotLeaving {
        /// Which.
        id: NodeId,
    },
    /// Nobody would be left who may vote.
    #[error("node {id} is the last member that may vote: add or promote another one first")]
    LastEligible {
        /// Which.
        id: NodeId,
    },
    /// A limit is more than its document: its rule must come with it.
    #[error("the limit {name} says neither a rate nor a quota")]
    LimitWithoutRule {
        /// Which.
        name: Name,
    },
}

impl Refusal {
    pub(crate) fn not_found(noun: Noun, name: &impl ToString) -> Self {
        Self::NotFound { noun, name: name.to_string() }
    }

    pub(crate) fn already_exists(noun: Noun, name: &impl ToString) -> Self {
        Self::AlreadyExists { noun, name: name.to_string() }
    }

    /// Refuses one more of something of which there are `count`.
    pub(crate) fn if_full(noun: Noun, count: usize, cap: usize) -> Result<(), Self> {
        if count < cap { Ok(()) } else { Err(Self::CapReached { noun, cap: cap as u64 }) }
    }

    /// Refuses a value beyond its most.
    pub(crate) fn if_beyond(what: Field, value: usize, max: usize) -> Result<(), Self> {
        if value <= max { Ok(()) } else { Err(Self::OutOfBounds { what, max: max as u64 }) }
    }
}

/// What a refusal speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Noun {
    /// A consumer.
    Consumer,
    /// An API key.
    Key,
    /// A document of this kind.
    Document(crate::resource::Kind),
    /// The resources as a whole.
    Resources,
    /// An operator.
    Operator,
    /// A member.
    Member,
    /// A join token.
    JoinToken,
    /// A certificate authority.
    Authority,
    /// The cluster settings.
    Settings,
    /// A remembered request.
    Request,
}

/// A field that can be out of bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Field {
    /// Bytes of one document.
    DocumentBytes,
    /// Bytes of all documents of one apply.
    ApplyBytes,
    /// Changes in one apply.
    Changes,
    /// Keys in one import.
    ImportedKeys,
    /// How many roles, scopes or attributes.
    Labels,
    /// Bytes of a role, scope, attribute or label.
    LabelBytes,
    /// Bytes of an address, zone or version.
    MemberText,
    /// Bytes of a certificate.
    CertificateBytes,
    /// The number of voters: 1, 3, 5 or 7.
    Voters,
    /// The number of audit entries.
    AuditEntries,
    /// The feature level.
    FeatureLevel,
    /// How many tokens come in a period.
    LimitTokens,
    /// The period of a rate, in microseconds.
    LimitPeriod,
    /// The most that a rate saves up.
    LimitBurst,
    /// How many a quota allows in a window.
    LimitAmount,
}

impl std::fmt::Display for Noun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Consumer => "consumer",
            Self::Key => "key",
            Self::Document(kind) => kind.as_str(),
            Self::Resources => "resources",
            Self::Operator => "operator",
            Self::Member => "member",
            Self::JoinToken => "join token",
            Self::Authority => "certificate authority",
            Self::Settings => "settings",
            Self::Request => "remembered request",
        })
    }
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::DocumentBytes => "the size of a document in bytes",
            Self::ApplyBytes => "the size of all documents in bytes",
            Self::Changes => "the number of changes in one apply",
            Self::ImportedKeys => "the number of keys in one import",
            Self::Labels => "the number of roles, scopes or attributes",
            Self::LabelBytes => "the length of a role, scope, attribute or label in bytes",
            Self::MemberText => "the length of an address, zone or version in bytes",
            Self::CertificateBytes => "the size of a certificate in bytes",
            Self::Voters => "the number of voters (1, 3, 5 or 7)",
            Self::AuditEntries => "the number of audit entries",
            Self::FeatureLevel => "the feature level",
            Self::LimitTokens => "the rate of a limit (at least 1)",
            Self::LimitPeriod => "the period of a limit in microseconds (at least 1)",
            Self::LimitBurst => "the burst of a limit (at least 1)",
            Self::LimitAmount => "the quota of a limit (at least 1)",
        })
    }
}

//! What can be asked of the replicated state. A variant, once released, never changes its shape: bincode numbers
//! variants and fields by position, so new commands are added at the end and a changed one is a new one.

use crate::{
    allowance::Acquire,
    authority::Phase,
    bucket::Terms,
    key::{ImportedKey, KeyId, SecretHash},
    member::{MemberSpec, NodeId, Standing},
    name::Name,
    operator::Role,
    outcome::{Noun, Refusal},
    request::RequestId,
    resource::Change,
    settings::Settings,
    time::{At, Wall},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// One log entry: what the leader gathered, and the instant it stamped on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Stamped by the leader after the last proposal and the last report arrived.
    pub at: At,
    /// How long the allowances last that this entry grants.
    pub terms: Terms,
    /// Applied in order, each on its own: one that is refused does not touch the others.
    pub proposals: Vec<Proposal>,
    /// What nodes report and want of the limits: served together, after the proposals.
    pub acquires: Vec<Acquire>,
}

/// One thing that somebody wants done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Kept over retries.
    pub request: RequestId,
    /// Who wants it. The node that took the request has authenticated them.
    pub actor: Actor,
    /// What they want.
    pub command: Command,
}

/// Who wants something done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Actor {
    /// A person or program with an operator certificate; its role is checked again when the command is applied.
    Operator(Name),
    /// A node, on behalf of the cluster itself.
    Node(NodeId),
    /// `quorate init`, for the first entry of a cluster.
    Bootstrap,
}

/// What an edit expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precondition {
    /// Anything.
    Any,
    /// That the thing was last changed at this revision.
    Revision(u64),
}

/// A command. Everything random or secret has been made and hashed by the node that took the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first entry of a cluster. Refused once there is one.
    Initialize(Box<Initialize>),
    /// A whole resource file, or one edit of it: all of it or nothing.
    ApplyResources {
        /// The [`crate::Registry::resources_revision`] that the changes were validated against.
        validated_against: u64,
        /// The edits.
        changes: Vec<Change>,
    },
    /// Enables or disables a consumer.
    SetConsumerEnabled {
        /// Which.
        name: Name,
        /// What it shall be.
        enabled: bool,
        /// What the operator expects.
        precondition: Precondition,
    },
    /// Makes an API key.
    CreateKey {
        /// Random.
        id: KeyId,
        /// Whose; it must exist.
        consumer: Name,
        /// For people.
        label: Option<String>,
        /// For policies.
        scopes: BTreeSet<Name>,
        /// SHA-256 of the secret.
        hash: SecretHash,
        /// When it ends.
        not_after: Option<Wall>,
    },
    /// Gives a key a new secret; the one before stays valid for a while.
    RotateKey {
        /// Which.
        id: KeyId,
        /// SHA-256 of the new secret.
        hash: SecretHash,
        /// How long the one before stays valid, in milliseconds.
        overlap_ms: u64,
        /// The end of the new secret; `None` keeps the key's end.
        not_after: Option<Wall>,
        /// What the operator expects.
        precondition: Precondition,
    },
    /// Refuses a key for good.
    RevokeKey {
        /// Which.
        id: KeyId,
        /// What the operator expects.
        precondition: Precondition,
    },
    /// Takes in keys as hashes: all or nothing.
    ImportKeys(Vec<ImportedKey>),
    /// Names a new operator.
    CreateOperator {
        /// Unique, revoked ones included.
        name: Name,
        /// What it may do.
        role: Role,
        /// SHA-256 of the DER of its certificate.
        certificate_sha256: [u8; 32],
        /// When the certificate ends.
        not_after: Wall,
    },
    /// Takes an operator's access. The last admin cannot be revoked.
    RevokeOperator {
        /// Which.
        name: Name,
    },
    /// Makes a join token.
    CreateJoinToken {
        /// SHA-256 of the secret part.
        hash: [u8; 32],
        /// When it ends.
        not_after: Wall,
    },
    /// Uses a join token: the newcomer becomes a member and gets its number.
    AdmitMember {
        /// SHA-256 of the token that it showed.
        token_hash: [u8; 32],
        /// What it tells of itself.
        spec: MemberSpec,
        /// It never votes unless promoted.
        learner: bool,
    },
    /// What a member tells of itself has changed.
    UpdateMember {
        /// Which.
        id: NodeId,
        /// What it is now.
        spec: MemberSpec,
    },
    /// Changes what the operator wants of a member.
    SetStanding {
        /// Which.
        id: NodeId,
        /// What is wanted. [`Standing::Leaving`] is final.
        standing: Standing,
    },
    /// Forgets a member that was leaving and can hold no authority any more.
    ForgetMember {
        /// Which.
        id: NodeId,
    },
    /// Changes cluster settings.
    PutSettings {
        /// The new ones, whole.
        settings: Settings,
        /// What the operator expects of the settings' revision.
        precondition: Precondition,
    },
    /// Raises the behaviour of `apply`; every member must support it.
    RaiseFeatureLevel {
        /// One of the levels up to [`crate::FEATURE_LEVEL_MAX`].
        level: u32,
    },
    /// Adds a certificate authority, trusted and not yet signing.
    AddAuthority {
        /// SHA-256 of the DER of its certificate.
        sha256: [u8; 32],
        /// Its certificate.
        certificate_pem: String,
    },
    /// Moves an authority on: `Active` makes it the signing one (the one before is retiring), `Retiring` is not asked
    /// for by itself.
    SetAuthorityPhase {
        /// Which.
        sha256: [u8; 32],
        /// Where it shall stand.
        phase: Phase,
    },
    /// Trusts a retiring (or incoming) authority no more.
    RemoveAuthority {
        /// Which.
        sha256: [u8; 32],
    },
    /// Changes nothing: shows that a leader can commit.
    Nothing,
}

/// What makes a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Initialize {
    /// Random, for life.
    pub cluster: [u8; 16],
    /// The level at which the cluster starts.
    pub feature_level: u32,
    /// The first settings.
    pub settings: Settings,
    /// SHA-256 of the DER of the first authority's certificate.
    pub authority_sha256: [u8; 32],
    /// The first authority's certificate.
    pub authority_pem: String,
    /// The first member, which gets number 1.
    pub member: MemberSpec,
    /// The first operator, an admin.
    pub operator: Name,
    /// SHA-256 of the DER of the first operator's certificate.
    pub operator_certificate_sha256: [u8; 32],
    /// When that certificate ends.
    pub operator_not_after: Wall,
    /// SHA-256 of the first join token.
    pub join_token_hash: [u8; 32],
    /// When that token ends.
    pub join_token_not_after: Wall,
}

impl Precondition {
    /// Refuses an edit of a thing that is not at the revision that the client expects.
    pub(crate) fn check(self, noun: Noun, actual: u64) -> Result<(), Refusal> {
        match self {
            Self::Revision(expected) if expected != actual => Err(Refusal::Conflict { noun, expected, actual }),
            Self::Any | Self::Revision(_) => Ok(()),
        }
    }
}

impl Command {
    /// The least role of an operator that may ask for it.
    #[must_use]
    pub const fn role_needed(&self) -> Role {
        match self {
            Self::ApplyResources { .. }
            | Self::SetConsumerEnabled { .. }
            | Self::CreateKey { .. }
            | Self::RotateKey { .. }
            | Self::RevokeKey { .. }
            | Self::ImportKeys(_) => Role::Operator,
            Self::Initialize(_)
            | Self::CreateOperator { .. }
            | Self::RevokeOperator { .. }
            | Self::CreateJoinToken { .. }
            | Self::AdmitMember { .. }
            | Self::UpdateMember { .. }
            | Self::SetStanding { .. }
            | Self::ForgetMember { .. }
            | Self::PutSettings { .. }
            | Self::RaiseFeatureLevel { .. }
            | Self::AddAuthority { .. }
            | Self::SetAuthorityPhase { .. }
            | Self::RemoveAuthority { .. }
            | Self::Nothing => Role::Admin,
        }
    }

    /// Whether a node may ask for it on behalf of the cluster.
    #[must_use]
    pub const fn is_for_nodes(&self) -> bool {
        matches!(
            self,
            Self::AdmitMember { .. }
                | Self::UpdateMember { .. }
                | Self::SetStanding { .. }
                | Self::ForgetMember { .. }
                | Self::AddAuthority { .. }
                | Self::SetAuthorityPhase { .. }
                | Self::RemoveAuthority { .. }
                | Self::Nothing
        )
    }

    /// Whether it takes away something for good, so that doing it twice is doing it once.
    pub(crate) const fn is_final(&self) -> bool {
        matches!(self, Self::RevokeKey { .. } | Self::RevokeOperator { .. })
    }

    /// As the audit log and metrics name it: `noun.verb`.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        match self {
            Self::Initialize(_) => "cluster.initialize",
            Self::ApplyResources { .. } => "resources.apply",
            Self::SetConsumerEnabled { enabled: true, .. } => "consumer.enable",
            Self::SetConsumerEnabled { enabled: false, .. } => "consumer.disable",
            Self::CreateKey { .. } => "key.create",
            Self::RotateKey { .. } => "key.rotate",
            Self::RevokeKey { .. } => "key.revoke",
            Self::ImportKeys(_) => "key.import",
            Self::CreateOperator { .. } => "operator.create",
            Self::RevokeOperator { .. } => "operator.revoke",
            Self::CreateJoinToken { .. } => "join_token.create",
            Self::AdmitMember { .. } => "member.admit",
            Self::UpdateMember { .. } => "member.update",
            Self::SetStanding { standing: Standing::Eligible, .. } => "member.promote",
            Self::SetStanding { standing: Standing::Learner, .. } => "member.demote",
            Self::SetStanding { standing: Standing::Leaving, .. } => "member.remove",
            Self::ForgetMember { .. } => "member.forget",
            Self::PutSettings { .. } => "settings.put",
            Self::RaiseFeatureLevel { .. } => "cluster.finalize_upgrade",
            Self::AddAuthority { .. } => "authority.add",
            Self::SetAuthorityPhase { .. } => "authority.set_phase",
            Self::RemoveAuthority { .. } => "authority.remove",
            Self::Nothing => "nothing",
        }
    }
}

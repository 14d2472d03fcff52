//! Operators: the people and programs that administer the cluster, known by their client certificates.

use crate::{name::Name, time::Wall};
use serde::{Deserialize, Serialize};

/// What an operator may do; each role includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Reads everything but secrets.
    Viewer,
    /// Changes keys, consumers and resources.
    Operator,
    /// Changes members, operators, settings and the cluster's certificates.
    Admin,
}

impl Role {
    /// As the command line and JSON name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// An operator, as stored. A revoked operator is kept: the name shows in the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// Unique in the cluster.
    pub name: Name,
    /// What it may do.
    pub role: Role,
    /// SHA-256 of the DER of its certificate: a certificate that the cluster signed but that is not named here is
    /// nobody's.
    pub certificate_sha256: [u8; 32],
    /// When the certificate ends.
    pub not_after: Wall,
    /// When it was created.
    pub created_at: Wall,
    /// When it was revoked.
    pub revoked_at: Option<Wall>,
    /// The cluster revision of the last change.
    pub revision: u64,
}

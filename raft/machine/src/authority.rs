//! Certificate authorities of the cluster: their public certificates. Private keys never come here.

use crate::time::Wall;
use serde::{Deserialize, Serialize};

/// A certificate authority, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// SHA-256 of the DER of its certificate.
    pub sha256: [u8; 32],
    /// Its certificate.
    pub certificate_pem: String,
    /// Where it stands in a rotation.
    pub phase: Phase,
    /// When it was added.
    pub added_at: Wall,
    /// The cluster revision of the last change.
    pub revision: u64,
}

/// Where an authority stands in a rotation. Certificates of every listed authority are trusted; one signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Trusted, not yet signing: every member must know it first.
    Incoming,
    /// Signs new certificates. Exactly one is active.
    Active,
    /// Trusted until no certificate of it is in use.
    Retiring,
}

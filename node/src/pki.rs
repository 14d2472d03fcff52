//! The cluster's certificates: who may speak on the cluster port, and how that is proved.
//!
//! Every cluster has its own authority, made by `init` or given to it. It signs nodes and operators, and nobody else
//! trusts it; its key may be outside, so that nobody in the cluster can sign. What a
//! caller may do does not follow from the signature alone: a node must be a member, an operator's certificate must be
//! the very one that the registry names. Certificates of the HTTPS gateway listener are not here; they are the
//! operator's own.
//!
//! - `authority`: makes authorities and signs with them.
//! - `certificate`: reads who a certificate speaks for.
//! - `identity`: what a data directory says of the node it belongs to.
//! - `outside`: requests for certificates that are signed outside, and the checks of what comes back.
//! - `pending`: a node that waits for its certificate from outside.
//! - `store`: the files.
//! - `token`: join tokens.
//! - `trust`: the TLS settings in force, exchanged while connections are served.
//! - `pinned`: the one connection that is made before anything is trusted, by a newcomer.
//! - `renewal`: keeps the node's certificate young and the authority's key where it belongs.

pub mod authority;
pub mod certificate;
pub mod identity;
pub mod outside;
pub mod pending;
pub mod pinned;
pub mod renewal;
pub mod store;
pub mod token;
pub mod trust;

use machine::member::NodeId;
use sha2::{Digest, Sha256};
use std::time::Duration;

/// How long an authority lasts.
pub const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// How long a node's certificate lasts. It is renewed after two thirds of that.
pub const NODE_LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long an operator's certificate lasts unless asked otherwise.
pub const OPERATOR_LIFE: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// The longest that an operator's certificate may last.
pub const OPERATOR_LIFE_MAX: Duration = Duration::from_secs(5 * 365 * 24 * 60 * 60);
/// Certificates begin this long before they are made: the clock of whoever checks them may be behind.
const BACKDATE: Duration = Duration::from_secs(60 * 60);
/// A request to sign, or a certificate, in PEM: anything larger is not one.
pub const PEM_BYTES_MAX: usize = 16 * 1024;

/// The name that every node's certificate carries: what clients that do not care which node it is ask for.
pub const ANY_NODE: &str = "node.quorate.internal";

/// The name that only this node's certificate carries.
#[must_use]
pub fn node_server_name(id: NodeId) -> String {
    format!("node-{id}.quorate.internal")
}

/// SHA-256, as fingerprints and token hashes use it.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Random bytes for keys, tokens and ids.
///
/// # Errors
/// The operating system has none to give.
pub fn random<const N: usize>() -> Result<[u8; N], PkiError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| PkiError::Crypto("no random bytes".to_owned()))?;
    Ok(bytes)
}

/// What can go wrong with keys and certificates.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("{}: {source}", .file.display())]
    File {
        /// Which.
        file: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds something else than it should.
    #[error("{}: {what}", .file.display())]
    Damaged {
        /// Which.
        file: std::path::PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A request to sign cannot be read, or is not signed by its own key.
    #[error("the certificate request is not valid: {0}")]
    Request(String),
    /// A certificate or key cannot be read.
    #[error("{0}")]
    Certificate(String),
    /// The cryptography library refused.
    #[error("cryptography: {0}")]
    Crypto(String),
}

impl From<rcgen::Error> for PkiError {
    fn from(error: rcgen::Error) -> Self {
        Self::Crypto(error.to_string())
    }
}

impl From<rustls::Error> for PkiError {
    fn from(error: rustls::Error) -> Self {
        Self::Crypto(error.to_string())
    }
}

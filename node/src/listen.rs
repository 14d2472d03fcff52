//! Listeners and the connections they accept: how bytes reach the gateway. What a request means is not decided here.

use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::{net::SocketAddr, sync::Arc};

/// Where the listeners are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Without TLS.
    pub plain: Option<SocketAddr>,
    /// With TLS.
    pub tls: Option<SocketAddr>,
}

/// The certificates of the TLS listener; the one whose names fit the client's SNI is shown, else the first.
#[derive(Clone, Debug)]
pub struct Certificates(pub Vec<Arc<Certificate>>);

/// A certificate chain, leaf first, and its private key.
#[derive(Debug)]
pub struct Certificate {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

/// Certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// There is none.
    #[error("the TLS listener has no certificate")]
    None,
    /// One is damaged, or its key is not its own.
    #[error("the certificate cannot be used: {0}")]
    Unusable(String),
}

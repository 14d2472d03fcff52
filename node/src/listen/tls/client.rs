//! Certificates that clients show: who may sign them, and who a client is by its own. What an identity may do is not
//! decided here.

use super::{not_after_ms, unusable};
use crate::listen::CertificateError;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Names of a certificate that are kept; more are nobody's identity.
const NAMES_MAX: usize = 16;

/// Who signs the certificates of clients, and whether they need one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuthorities {
    /// The roots.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Revocation lists. If there is any, a certificate that none of them is about is refused.
    pub revoked: Vec<CertificateRevocationListDer<'static>>,
    /// Whether a client without a certificate is refused.
    pub required: bool,
}

/// Who a client is, by a certificate that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The subject, as RFC 4514 writes it.
    pub subject: String,
    /// Its alternative names: `dns:…`, `uri:…`, `email:…`.
    pub names: Vec<String>,
    /// SHA-256 of the certificate.
    pub sha256: [u8; 32],
    /// When it ends, in milliseconds since 1970.
    pub not_after_ms: u64,
}

impl ClientIdentity {
    /// By a leaf that rustls has verified, now or when the session began that is resumed.
    pub(crate) fn of(leaf: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| unusable(&error))?;
        let names = parsed.subject_alternative_name().map_err(|error| unusable(&error))?;
        let names = names.map_or(&[][..], |extension| &extension.value.general_names);
        let names = names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(format!("dns:{}", name.to_ascii_lowercase())),
            GeneralName::URI(uri) => Some(format!("uri:{uri}")),
            GeneralName::RFC822Name(address) => Some(format!("email:{address}")),
            _ => None,
        });
        Ok(Self {
            subject: parsed.subject().to_string(),
            names: names.take(NAMES_MAX).collect(),
            sha256: Sha256::digest(leaf).into(),
            not_after_ms: not_after_ms(&parsed),
        })
    }
}

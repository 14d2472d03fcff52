//! TLS of the data plane: which certificate a client is shown, whose certificates clients may show, and what was shown
//! on either side. TLS 1.2 and 1.3 with what rustls offers for them: forward secrecy and authenticated encryption alone.

mod client;
mod shown;

pub use client::{ClientAuthorities, ClientIdentity};
pub(crate) use shown::Shown;

use super::{Certificate, CertificateError, Certificates};
use machine::Wall;
use metrics::gauge;
use rustls::{
    ServerConfig, ServerConnection,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ProducesTickets, ResolvesServerCert, WebPkiClientVerifier},
    version,
};
use shown::Chosen;
use std::{fmt, sync::Arc};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Tickets that a client gets for coming back, after a handshake over TLS 1.3. Each costs an encryption
/// and some hundred bytes on the wire; a client that opens several connections at once may use the same again.
const TICKETS: usize = 1;

/// What a worker needs to take TLS connections.
pub(crate) struct Tls {
    pub(super) config: Arc<ServerConfig>,
    chosen: Arc<Chosen>,
    clients: Option<ClientAuthorities>,
}

/// A certificate of the gateway, and when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The first name that it carries.
    pub certificate: String,
    /// Milliseconds since 1970.
    pub not_after_ms: u64,
}

impl Tls {
    /// `before` is what was in force: sessions that were made by it are resumed, if clients are still judged the same.
    pub(crate) fn new(certificates: &Certificates, before: Option<&Self>) -> Result<Self, CertificateError> {
        if certificates.shown.is_empty() {
            return Err(CertificateError::None);
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chosen = Arc::new(Chosen::new(&certificates.shown)?);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(|error| unusable(&error))?;
        let builder = match &certificates.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => builder.with_client_cert_verifier(verifier(clients, provider)?),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&chosen) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.send_tls13_tickets = TICKETS;
        // Sessions resume on whichever worker a client comes back to. A ticket carries the client's certificate, which is
        // not judged again: where the judgement has changed, tickets from before must not be taken.
        config.ticketer = match before {
            Some(before) if before.clients == certificates.clients => Arc::clone(&before.config.ticketer),
            _ => ticketer()?,
        };
        let tls = Self { config: Arc::new(config), chosen, clients: certificates.clients.clone() };
        tls.measure(before);
        Ok(tls)
    }

    /// Notes what a client that asked for this name was shown, and who it is.
    pub(super) fn shown(&self, name: Option<&str>, identity: Option<ClientIdentity>) -> Shown {
        Shown::new(&self.chosen, name, identity)
    }

    /// Who the client is, if it has shown a certificate. Rustls has judged that; where a session is resumed it did so then,
    /// and the certificate may have ended since.
    pub(super) fn identity(
        &self,
        session: &ServerConnection,
        now: Wall,
    ) -> Result<Option<ClientIdentity>, CertificateError> {
        let leaf = self.clients.as_ref().and_then(|_| session.peer_certificates()).and_then(<[_]>::first);
        let Some(leaf) = leaf else { return Ok(None) };
        let identity = ClientIdentity::of(leaf)?;
        if identity.not_after_ms < now.0 {
            return Err(unusable(&"it has ended since its session began"));
        }
        Ok(Some(identity))
    }

    /// When each certificate ends.
    pub(crate) fn expiries(&self) -> Vec<Expiry> {
        self.chosen.expiries()
    }

    fn measure(&self, before: Option<&Self>) {
        let expiry = |certificate: String| gauge!("quorate_gateway_certificate_expiry_timestamp_seconds", "certificate" => certificate);
        // What is shown no more does not end.
        for gone in before.iter().flat_map(|before| before.expiries()) {
            expiry(gone.certificate).set(f64::INFINITY);
        }
        for one in self.expiries() {
            let seconds = u32::try_from(one.not_after_ms / 1000).unwrap_or(u32::MAX);
            expiry(one.certificate).set(seconds);
        }
    }
}

fn ticketer() -> Result<Arc<dyn ProducesTickets>, CertificateError> {
    aws_lc_rs::Ticketer::new().map_err(|error| unusable(&error))
}

fn verifier(
    clients: &ClientAuthorities,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, CertificateError> {
    let mut roots = rustls::RootCertStore::empty();
    for authority in &clients.authorities {
        roots.add(authority.clone()).map_err(|error| unusable(&error))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if !clients.revoked.is_empty() {
        builder = builder.with_crls(clients.revoked.iter().cloned()).only_check_end_entity_revocation();
    }
    if !clients.required {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|error| unusable(&error))
}

fn unusable(error: &dyn fmt::Display) -> CertificateError {
    CertificateError::Unusable(error.to_string())
}

/// Milliseconds since 1970 of a certificate's end; those before are as good as the beginning.
fn not_after_ms(certificate: &X509Certificate<'_>) -> u64 {
    u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0).saturating_mul(1000)
}

impl Certificate {
    /// The leaf, parsed.
    fn leaf(&self) -> Result<X509Certificate<'_>, CertificateError> {
        let leaf = self.chain.first().ok_or(CertificateError::None)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| unusable(&error))?;
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{ProtocolVersion, SupportedCipherSuite};

    #[test]
    fn only_suites_with_forward_secrecy_and_authenticated_encryption() {
        let key = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let certificate = Certificate {
            chain: vec![key.cert.der().clone()],
            key: rustls_pki_types::PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()).into(),
        };
        let certificates = Certificates { shown: vec![Arc::new(certificate)], clients: None };
        let tls = Tls::new(&certificates, None).unwrap();
        let mut suites: Vec<String> = tls
            .config
            .crypto_provider()
            .cipher_suites
            .iter()
            .map(|suite: &SupportedCipherSuite| {
                assert!(matches!(suite.version().version, ProtocolVersion::TLSv1_2 | ProtocolVersion::TLSv1_3));
                format!("{:?}", suite.suite())
            })
            .collect();
        suites.sort();
        let expected = [
            "TLS13_AES_128_GCM_SHA256",
            "TLS13_AES_256_GCM_SHA384",
            "TLS13_CHACHA20_POLY1305_SHA256",
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        ];
        assert_eq!(suites, expected);
        assert_eq!(tls.config.max_early_data_size, 0, "early data can be replayed");
        assert_eq!(tls.config.send_tls13_tickets, TICKETS);
    }
}

//! The connection that a newcomer makes before it trusts anybody: it accepts a node whose chain holds, and leads to, the
//! authority that its join token names. What it learns over that connection is all it trusts from then on.

use super::{
    PkiError, sha256,
    token::JoinToken,
    trust::{clock, provider},
};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{verify_tls12_signature, verify_tls13_signature},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// TLS settings for the connection over which a newcomer joins, and whether a node of another cluster answered.
///
/// # Errors
/// [`PkiError::Crypto`].
pub fn client_config(token: JoinToken) -> Result<(ClientConfig, Arc<AtomicBool>), PkiError> {
    let met_stranger = Arc::new(AtomicBool::new(false));
    let pinned = Pinned { token, met_stranger: Arc::clone(&met_stranger) };
    let mut config = ClientConfig::builder_with_details(provider(), clock())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok((config, met_stranger))
}

/// Trusts the one authority that a join token names.
#[derive(Debug)]
struct Pinned {
    token: JoinToken,
    met_stranger: Arc<AtomicBool>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let named = intermediates
            .iter()
            .find(|certificate| self.token.names_authority(&sha256(certificate)))
            .ok_or_else(|| {
                self.met_stranger.store(true, Ordering::Relaxed);
                rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)
            })?;
        let mut roots = RootCertStore::empty();
        roots.add(named.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

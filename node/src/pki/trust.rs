//! The TLS settings of the cluster port in force: which authorities are trusted, and which certificate this node shows.
//! Both change while the node runs (a rotation, a renewal); each new connection takes what is in force then.
//!
//! The trusted authorities are those of the registry; until the node has applied one, those that it was told when it
//! joined. An operator's certificate is known by its fingerprint in the registry and not by who signed it, so operators
//! keep their access when an authority is retired.

use super::{
    PkiError,
    certificate::{is_signed_by, read_all, validity},
    sha256,
    store::{NodeCertificate, Store},
};
use crate::clock::SystemClock;
use arc_swap::{ArcSwap, ArcSwapOption};
use machine::View;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    time_provider::TimeProvider,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// The TLS settings of the cluster port. Clones are the same.
#[derive(Clone)]
pub struct Trust {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    tls: ArcSwap<Tls>,
    /// What the node shows and trusts, as the settings in `tls` were made from.
    made_from: Mutex<MadeFrom>,
    view: Arc<ArcSwapOption<View>>,
    certificate: watch::Sender<raft::Certificate>,
}

struct MadeFrom {
    node: NodeCertificate,
    authorities: Vec<TrustedAuthority>,
    /// The authorities of the registry that these are, with the revisions of their last changes; empty until then.
    revisions: BTreeMap<[u8; 32], u64>,
}

/// TLS settings for one connection.
pub struct Tls {
    /// For connections that are accepted.
    pub server: Arc<ServerConfig>,
    /// For connections to peers.
    pub client: Arc<ClientConfig>,
    /// Whom both trust.
    pub authorities: Vec<TrustedAuthority>,
}

/// An authority that is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedAuthority {
    /// SHA-256 of the DER of its certificate.
    pub sha256: [u8; 32],
    /// Its certificate.
    pub certificate: CertificateDer<'static>,
    /// The same key, certified by authorities before it.
    pub bridges: Vec<CertificateDer<'static>>,
}

/// The certificate that the node shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// SHA-256 of the authority that signed it; all zero if that is trusted no more.
    pub authority_sha256: [u8; 32],
    /// When it began.
    pub not_before_ms: u64,
    /// When it ends.
    pub not_after_ms: u64,
}

impl TrustedAuthority {
    fn chain(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        std::iter::once(&self.certificate).chain(&self.bridges)
    }
}

/// The authorities in a text that may hold several, each with its bridges behind it.
///
/// # Errors
/// It cannot be read, or holds none.
pub fn authorities_from_pem(pem: &str) -> Result<Vec<TrustedAuthority>, PkiError> {
    let mut authorities: Vec<TrustedAuthority> = Vec::new();
    for certificate in read_all(pem)? {
        let is_bridge = !is_signed_by(&certificate, &certificate);
        match authorities.last_mut() {
            Some(last) if is_bridge => last.bridges.push(certificate),
            _ => authorities.push(TrustedAuthority { sha256: sha256(&certificate), certificate, bridges: Vec::new() }),
        }
    }
    if authorities.is_empty() {
        return Err(PkiError::Certificate("there is no certificate of an authority".to_owned()));
    }
    Ok(authorities)
}

impl Trust {
    /// What the files of a data directory say.
    ///
    /// # Errors
    /// They are missing, damaged, or do not fit together.
    pub fn load(store: Store) -> Result<Self, PkiError> {
        let node = store
            .node()?
            .ok_or_else(|| PkiError::Certificate("the data directory has no certificate of its node".to_owned()))?;
        let authorities = store.trusted()?;
        let view = Arc::new(ArcSwapOption::empty());
        // The authorities are sound.
        let tls = make(&node, &authorities, &view).map_err(|error| store.unusable_node(&error))?;
        let certificate = watch::Sender::new(raft::Certificate::default());
        let made_from = Mutex::new(MadeFrom { node, authorities, revisions: BTreeMap::new() });
        let trust =
            Self { shared: Arc::new(Shared { store, tls: ArcSwap::from_pointee(tls), made_from, view, certificate }) };
        trust.tell_certificate();
        Ok(trust)
    }

    /// The settings for the next connection.
    #[must_use]
    pub fn tls(&self) -> Arc<Tls> {
        self.shared.tls.load_full()
    }

    /// The newest View that [`Trust::follow`] was given; `None` until there is one of a cluster.
    #[must_use]
    pub fn view(&self) -> Option<Arc<View>> {
        self.shared.view.load_full()
    }

    /// The store of keys behind it.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// The certificate that the node shows, as the leader wants to know it.
    #[must_use]
    pub fn certificate(&self) -> watch::Receiver<raft::Certificate> {
        self.shared.certificate.subscribe()
    }

    /// The certificate that the node shows.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn shown(&self) -> Result<Shown, PkiError> {
        let made_from = self.shared.made_from.lock().unwrap_or_else(PoisonError::into_inner);
        let validity = validity(&made_from.node.leaf)?;
        let signer = signer(&made_from.node.leaf, &made_from.authorities);
        Ok(Shown {
            authority_sha256: signer.map_or([0; 32], |authority| authority.sha256),
            not_before_ms: validity.not_before_ms,
            not_after_ms: validity.not_after_ms,
        })
    }

    /// Takes the authorities and operators of a new View. Done before the View counts as enforced, so that a fence over
    /// a change of authorities means that every node trusts by it.
    ///
    /// # Errors
    /// The authorities cannot be used; those before stay in force.
    pub fn follow(&self, view: &Arc<View>) -> Result<(), PkiError> {
        if !view.registry.is_initialized() {
            return Ok(());
        }
        self.shared.view.store(Some(Arc::clone(view)));
        let mut made_from = self.shared.made_from.lock().unwrap_or_else(PoisonError::into_inner);
        let registered = &view.registry.authorities;
        let revisions = registered.iter().map(|(sha256, authority)| (*sha256, authority.revision)).collect();
        if made_from.revisions == revisions {
            return Ok(());
        }
        let pem: String = registered.values().map(|authority| authority.certificate_pem.as_str()).collect();
        let authorities = authorities_from_pem(&pem)?;
        let tls = make(&made_from.node, &authorities, &self.shared.view)?;
        self.shared.store.save_authorities(&pem)?;
        made_from.authorities = authorities;
        made_from.revisions = revisions;
        self.shared.tls.store(Arc::new(tls));
        drop(made_from);
        self.tell_certificate();
        Ok(())
    }

    /// Shows another certificate from now on, and keeps it.
    ///
    /// # Errors
    /// It cannot be used or kept; the one before stays in force.
    pub fn show(&self, key_pem: &str, certificate_pem: &str) -> Result<(), PkiError> {
        self.shared.store.save_node(key_pem, certificate_pem)?;
        self.reload(|_, _| Ok(()))
    }

    /// Reads the node's certificate from its file again, and takes it if it passes this check.
    ///
    /// # Errors
    /// It cannot be used; the one before stays in force.
    pub fn reload(
        &self,
        check: impl FnOnce(&NodeCertificate, &[TrustedAuthority]) -> Result<(), PkiError>,
    ) -> Result<(), PkiError> {
        let node = self
            .shared
            .store
            .node()?
            .ok_or_else(|| PkiError::Certificate("the data directory has no certificate of its node".to_owned()))?;
        let mut made_from = self.shared.made_from.lock().unwrap_or_else(PoisonError::into_inner);
        check(&node, &made_from.authorities)?;
        let tls = make(&node, &made_from.authorities, &self.shared.view)?;
        made_from.node = node;
        self.shared.tls.store(Arc::new(tls));
        drop(made_from);
        self.tell_certificate();
        Ok(())
    }

    fn tell_certificate(&self) {
        if let Ok(shown) = self.shown() {
            let certificate = raft::Certificate {
                authority_sha256: shown.authority_sha256.to_vec(),
                not_after_ms: shown.not_after_ms,
            };
            self.shared.certificate.send_if_modified(|known| {
                let differs = *known != certificate;
                *known = certificate;
                differs
            });
        }
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}

/// The authority that signed a certificate.
#[must_use]
fn signer<'a>(leaf: &CertificateDer<'_>, authorities: &'a [TrustedAuthority]) -> Option<&'a TrustedAuthority> {
    authorities.iter().find(|authority| is_signed_by(leaf, &authority.certificate))
}

/// The authorities by which a leaf can be trusted that came with these certificates: the one that signed it, whether it
/// is trusted here yet or not, and those that certify that one. By which of them it counts is asked again at each
/// request, because any of them may be retired while the connection lasts.
#[must_use]
pub fn sponsors(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    authorities: &[TrustedAuthority],
) -> Vec<[u8; 32]> {
    /// A chain of ours has an authority, its bridges, and the other trusted authorities.
    const CHAIN_MAX: usize = 16;
    let mut sponsors: Vec<[u8; 32]> = signer(leaf, authorities).map(|authority| authority.sha256).into_iter().collect();
    for certificate in intermediates.iter().take(CHAIN_MAX).filter(|certificate| is_signed_by(leaf, certificate)) {
        if is_signed_by(certificate, certificate) {
            sponsors.push(sha256(certificate));
        }
        sponsors.extend(signer(certificate, authorities).map(|authority| authority.sha256));
    }
    sponsors
}

/// The cryptography in use, named once.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// By what certificates are judged, named once too: this machine's calendar, as everything else reads it.
pub(super) fn clock() -> Arc<dyn TimeProvider> {
    Arc::new(Calendar)
}

#[derive(Debug)]
struct Calendar;

impl TimeProvider for Calendar {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(SystemClock.utc_ms())))
    }
}

/// TLS settings of a client of the cluster port: an operator.
///
/// # Errors
/// The certificate and its key do not go together, or an authority cannot be read.
pub fn client_config(
    authorities: &[CertificateDer<'static>],
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, PkiError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    let mut client = ClientConfig::builder_with_details(provider(), clock())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    Ok(client)
}

fn make(
    node: &NodeCertificate,
    authorities: &[TrustedAuthority],
    view: &Arc<ArcSwapOption<View>>,
) -> Result<Tls, PkiError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.certificate.clone())?;
    }
    let roots = Arc::new(roots);

    // The chain carries every trusted authority, the signing one first: a newcomer finds the one that its token names,
    // and who knows only an authority before finds the bridge from it.
    let mut chain = vec![node.leaf.clone()];
    let signer = signer(&node.leaf, authorities).map(|authority| authority.sha256);
    let (first, rest): (Vec<_>, Vec<_>) = authorities.iter().partition(|authority| Some(authority.sha256) == signer);
    chain.extend(first.into_iter().chain(rest).flat_map(|authority| authority.chain().cloned()));

    let webpki = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| PkiError::Certificate(error.to_string()))?;
    let verifier = CallerVerifier { webpki, view: Arc::clone(view) };
    let mut server = ServerConfig::builder_with_details(provider(), clock())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(chain.clone(), node.key.clone_key())?;
    server.alpn_protocols = vec![b"h2".to_vec()];

    let mut client = ClientConfig::builder_with_details(provider(), clock())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, node.key.clone_key())?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Tls { server: Arc::new(server), client: Arc::new(client), authorities: authorities.to_vec() })
}

/// Accepts a client certificate that a trusted authority signed, or that the registry names as an operator's.
struct CallerVerifier {
    webpki: Arc<dyn ClientCertVerifier>,
    view: Arc<ArcSwapOption<View>>,
}

impl fmt::Debug for CallerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerVerifier").finish_non_exhaustive()
    }
}

impl ClientCertVerifier for CallerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A hint would make some clients hold back the certificate of an operator that an authority of before signed.
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.webpki.client_auth_mandatory()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let is_operator = self
            .view
            .load()
            .as_ref()
            .is_some_and(|view| view.registry.operator_of_certificate(&sha256(end_entity)).is_some());
        if is_operator {
            // That it has not ended is judged by the cluster's clock, when it is used.
            return Ok(ClientCertVerified::assertion());
        }
        self.webpki.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests;

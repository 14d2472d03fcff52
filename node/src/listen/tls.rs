//! TLS of the data plane: which certificate a client is shown, and what was shown to it.

use super::{Certificate, CertificateError, Certificates};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version,
};
use std::{fmt, sync::Arc};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What a worker needs to take TLS connections.
pub(crate) struct Tls {
    pub(super) config: Arc<ServerConfig>,
    chosen: Arc<Chosen>,
}

/// Which certificate a connection was shown.
pub(crate) struct Shown {
    certificates: Arc<Chosen>,
    index: usize,
    /// As the client asked for it.
    name: Option<String>,
}

/// The certificates, by the names they carry.
struct Chosen(Vec<Entry>);

struct Entry {
    /// Lower case; `*.example.com` for a wildcard.
    names: Vec<String>,
    key: Arc<CertifiedKey>,
}

impl Tls {
    pub(crate) fn new(certificates: &Certificates) -> Result<Self, CertificateError> {
        if certificates.0.is_empty() {
            return Err(CertificateError::None);
        }
        let unusable = |error: &dyn fmt::Display| CertificateError::Unusable(error.to_string());
        let entries = certificates.0.iter().map(|one| Entry::new(one)).collect::<Result<_, _>>()?;
        let chosen = Arc::new(Chosen(entries));
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(|error| unusable(&error))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&chosen) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Sessions resume on whichever worker a client comes back to.
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| unusable(&error))?;
        Ok(Self { config: Arc::new(config), chosen })
    }

    /// Notes what a client that asked for this name was shown.
    pub(super) fn shown(&self, name: Option<&str>) -> Shown {
        let name = name.map(str::to_ascii_lowercase);
        Shown { index: self.chosen.index(name.as_deref()), certificates: Arc::clone(&self.chosen), name }
    }
}

impl Shown {
    /// Whether a request for this host belongs on another connection: the certificate that was shown does not cover it,
    /// and another one does.
    pub(crate) fn is_misdirected(&self, host: &str) -> bool {
        if self.name.as_deref() == Some(host) {
            return false;
        }
        let entries = &self.certificates.0;
        !entries.get(self.index).is_some_and(|entry| entry.covers(host))
            && entries.iter().any(|entry| entry.covers(host))
    }
}

impl Entry {
    fn new(certificate: &Certificate) -> Result<Self, CertificateError> {
        let unusable = |error: &dyn fmt::Display| CertificateError::Unusable(error.to_string());
        let leaf = certificate.chain.first().ok_or(CertificateError::None)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| unusable(&error))?;
        let names = parsed
            .subject_alternative_name()
            .map_err(|error| unusable(&error))?
            .map(|extension| {
                let names = extension.value.general_names.iter();
                names
                    .filter_map(|name| match name {
                        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                        _ => None,
                    })
                    .collect()
            })
            .unwrap_or_default();
        let key = CertifiedKey::from_der(
            certificate.chain.clone(),
            certificate.key.clone_key(),
            &aws_lc_rs::default_provider(),
        )
        .map_err(|error| unusable(&error))?;
        Ok(Self { names, key: Arc::new(key) })
    }

    fn covers(&self, host: &str) -> bool {
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(domain) => host.split_once('.').is_some_and(|(_, rest)| rest == domain),
            None => name == host,
        })
    }
}

impl Chosen {
    /// The first whose names fit, a whole name before a wildcard; else the first.
    fn index(&self, name: Option<&str>) -> usize {
        let Some(name) = name else { return 0 };
        let whole = self.0.iter().position(|entry| entry.names.iter().any(|one| one == name));
        whole.or_else(|| self.0.iter().position(|entry| entry.covers(name))).unwrap_or(0)
    }
}

impl ResolvesServerCert for Chosen {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        self.0.get(self.index(name.as_deref())).map(|entry| Arc::clone(&entry.key))
    }
}

impl fmt::Debug for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|entry| &entry.names)).finish()
    }
}

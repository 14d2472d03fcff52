//! The certificates of the gateway, by the names they carry, and which of them a connection was shown.

use super::{ClientIdentity, Expiry, not_after_ms, unusable};
use crate::listen::{Certificate, CertificateError};
use rustls::{
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{fmt, sync::Arc};
use x509_parser::prelude::GeneralName;

/// Which certificate a connection was shown.
pub(crate) struct Shown {
    certificates: Arc<Chosen>,
    index: usize,
    /// As the client asked for it.
    name: Option<Box<str>>,
    /// Who the client is, by a certificate of its own.
    pub(crate) client: Option<Box<ClientIdentity>>,
}

/// The certificates, by the names they carry.
pub(super) struct Chosen(Vec<Entry>);

struct Entry {
    /// Lower case; `*.example.com` for a wildcard.
    names: Vec<String>,
    not_after_ms: u64,
    key: Arc<CertifiedKey>,
}

impl Shown {
    pub(super) fn new(chosen: &Arc<Chosen>, name: Option<&str>, client: Option<ClientIdentity>) -> Self {
        let name = name.map(str::to_ascii_lowercase);
        Self {
            index: chosen.index(name.as_deref()),
            certificates: Arc::clone(chosen),
            name: name.map(String::into_boxed_str),
            client: client.map(Box::new),
        }
    }

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
        let parsed = certificate.leaf()?;
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
        let not_after_ms = not_after_ms(&parsed);
        let key = CertifiedKey::from_der(
            certificate.chain.clone(),
            certificate.key.clone_key(),
            &aws_lc_rs::default_provider(),
        )
        .map_err(|error| unusable(&error))?;
        Ok(Self { names, not_after_ms, key: Arc::new(key) })
    }

    fn covers(&self, host: &str) -> bool {
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(domain) => host.split_once('.').is_some_and(|(_, rest)| rest == domain),
            None => name == host,
        })
    }
}

impl Chosen {
    pub(super) fn new(certificates: &[Arc<Certificate>]) -> Result<Self, CertificateError> {
        Ok(Self(certificates.iter().map(|one| Entry::new(one)).collect::<Result<_, _>>()?))
    }

    pub(super) fn expiries(&self) -> Vec<Expiry> {
        let expiry = |(place, entry): (usize, &Entry)| Expiry {
            certificate: entry.names.first().cloned().unwrap_or_else(|| format!("certificate {}", place + 1)),
            not_after_ms: entry.not_after_ms,
        };
        self.0.iter().enumerate().map(expiry).collect()
    }

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

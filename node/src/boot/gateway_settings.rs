//! What the data plane is told: settings, certificates, clocks.

use crate::{
    clock::SystemClock,
    config::{self, Settings, value::CertificateFiles},
    gateway,
    listen::{Certificate, Certificates, ClientAuthorities},
    pki::PkiError,
};
use machine::At;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject};
use std::{path::Path, sync::Arc};

/// The clocks of the data plane: this machine's for durations, the cluster's for everything that is agreed on.
pub(super) struct NodeClock {
    system: SystemClock,
    raft: raft::Handle,
}

impl NodeClock {
    pub(super) const fn new(system: SystemClock, raft: raft::Handle) -> Self {
        Self { system, raft }
    }
}

impl gateway::Clock for NodeClock {
    fn boot_us(&self) -> u64 {
        self.system.boot_us()
    }
    fn time(&self) -> At {
        self.raft.time()
    }
}

pub(super) fn gateway_settings(
    settings: &Settings,
    certificates: Option<Certificates>,
    raft: &raft::Handle,
) -> gateway::Settings {
    let of = &settings.gateway;
    gateway::Settings {
        plain: of.plain.as_ref().map(|listener| listener.bind),
        tls: of.tls.as_ref().zip(certificates).map(|(tls, certificates)| (tls.listener.bind, certificates)),
        workers: of.workers,
        trusted_proxies: of.trusted_proxies.clone(),
        names_node: of.node_header,
        access_log: match &settings.access_log {
            config::value::AccessLog::Off => gateway::AccessLog::Off,
            config::value::AccessLog::Stdout => gateway::AccessLog::Stdout,
            config::value::AccessLog::File(path) => gateway::AccessLog::File(path.clone()),
        },
        caps: gateway::Caps {
            connections_max: of.connections_max,
            connections_per_address_max: of.connections_per_address_max,
            handshakes_max: of.tls.as_ref().map_or(0, |tls| tls.handshakes_max),
            handshake_timeout: of.tls.as_ref().map_or(of.header_timeout, |tls| tls.handshake_timeout),
            requests_max: of.requests_max,
            lag_max: of.lag_max,
            memory_bytes_max: of.memory_max.unwrap_or_else(gateway::memory_default),
            header_count_max: of.headers_max,
            header_bytes_max: of.header_bytes_max,
            header_read_timeout: of.header_timeout,
            idle_timeout: of.idle_timeout,
            body_rate_min: of.body_rate_min,
            body_bytes_max: of.body_bytes_max,
            ..gateway::Caps::default()
        },
        authority: raft.authority(),
        allowances: raft.allowances(),
    }
}

/// The certificates of the HTTPS listener; `None` if there is no such listener.
pub(super) fn load_certificates(settings: &Settings) -> Result<Option<Certificates>, PkiError> {
    let Some(tls) = &settings.gateway.tls else { return Ok(None) };
    let certificates =
        tls.certificates.iter().map(|files| load_certificate(files).map(Arc::new)).collect::<Result<_, _>>()?;
    let clients = tls.clients.as_ref().map(load_clients).transpose()?;
    Ok(Some(Certificates { shown: certificates, clients }))
}

fn load_clients(files: &config::ClientFiles) -> Result<ClientAuthorities, PkiError> {
    let authorities: Vec<_> = CertificateDer::pem_slice_iter(&read(&files.authorities)?)
        .collect::<Result<_, _>>()
        .map_err(|error| damaged(&files.authorities, &format!("is not a list of certificates in PEM: {error}")))?;
    if authorities.is_empty() {
        return Err(damaged(&files.authorities, "holds no certificate in PEM"));
    }
    let mut revoked = Vec::new();
    for file in &files.revoked {
        let before = revoked.len();
        for list in CertificateRevocationListDer::pem_slice_iter(&read(file)?) {
            revoked.push(list.map_err(|error| damaged(file, &format!("is not a revocation list in PEM: {error}")))?);
        }
        if revoked.len() == before {
            return Err(damaged(file, "holds no revocation list in PEM"));
        }
    }
    Ok(ClientAuthorities { authorities, revoked, required: files.required })
}

fn read(file: &Path) -> Result<Vec<u8>, PkiError> {
    std::fs::read(file).map_err(|source| PkiError::File { file: file.to_owned(), source })
}

fn damaged(file: &Path, what: &str) -> PkiError {
    PkiError::Damaged { file: file.to_owned(), what: what.to_owned() }
}

fn load_certificate(files: &CertificateFiles) -> Result<Certificate, PkiError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(&files.certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|error| damaged(&files.certificate, &format!("is not a certificate chain in PEM: {error}")))?;
    if chain.is_empty() {
        return Err(damaged(&files.certificate, "holds no certificate in PEM"));
    }
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
        .map_err(|_| damaged(&files.key, "holds no private key in PEM"))?;
    Ok(Certificate { chain, key })
}

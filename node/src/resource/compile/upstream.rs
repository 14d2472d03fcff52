//! Upstreams, ready to be connected to. Connections themselves belong to the workers.

use crate::resource::document::{HostHeader, Target, Upstream};
use http::HeaderValue;
use machine::Name;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, version};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two pieces of a response.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Open connections of one worker to one target.
const CONNECTIONS_MAX: usize = 1024;

/// An upstream, ready to be connected to.
#[derive(Debug)]
pub(crate) struct CompiledUpstream {
    pub(crate) name: Name,
    /// Of its document.
    pub(crate) revision: u64,
    pub(crate) targets: Vec<CompiledTarget>,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) connections_max: usize,
    /// Whether the upstream sees the client's `Host`.
    pub(crate) keeps_host: bool,
}

/// One server of an upstream.
#[derive(Debug)]
pub(crate) struct CompiledTarget {
    /// `https://10.0.0.5:8443`, for logs.
    pub(crate) text: Arc<str>,
    /// A name or address without brackets, and the port.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// As `Host` says it.
    pub(crate) authority: HeaderValue,
    pub(crate) tls: Option<TargetTls>,
}

/// How to speak TLS with a target.
#[derive(Clone, Debug)]
pub(crate) struct TargetTls {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
}

impl CompiledUpstream {
    pub(crate) fn new(name: &Name, revision: u64, upstream: &Upstream) -> Result<Self, String> {
        let config = if upstream.targets.iter().any(|target| target.tls) {
            Some(Arc::new(client_config(upstream.ca.as_deref())?))
        } else {
            None
        };
        let targets = upstream
            .targets
            .iter()
            .map(|target| CompiledTarget::new(target, upstream.server_name.as_deref(), config.as_ref()))
            .collect::<Result<_, _>>()?;
        let or = |span: Option<crate::resource::quantity::Span>, otherwise| {
            span.map_or(otherwise, crate::resource::quantity::Span::duration)
        };
        Ok(Self {
            name: name.clone(),
            revision,
            targets,
            connect_timeout: or(upstream.connect_timeout, CONNECT_TIMEOUT),
            response_timeout: or(upstream.response_timeout, RESPONSE_TIMEOUT),
            idle_timeout: or(upstream.idle_timeout, IDLE_TIMEOUT),
            connections_max: upstream
                .connections_max
                .and_then(|number| usize::try_from(number).ok())
                .unwrap_or(CONNECTIONS_MAX),
            keeps_host: upstream.host == HostHeader::Preserve,
        })
    }
}

impl CompiledTarget {
    fn new(target: &Target, server_name: Option<&str>, config: Option<&Arc<ClientConfig>>) -> Result<Self, String> {
        let host = target.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = match config.filter(|_| target.tls) {
            Some(config) => {
                let name = ServerName::try_from(server_name.unwrap_or(&host).to_owned())
                    .map_err(|_| format!("{host:?} is not the name of a server"))?;
                Some(TargetTls { config: config.clone(), name })
            }
            None => None,
        };
        let authority = HeaderValue::from_str(&target.authority()).map_err(|error| error.to_string())?;
        Ok(Self { text: target.to_string().into(), host, port: target.port, authority, tls })
    }
}

fn client_config(ca: Option<&str>) -> Result<ClientConfig, String> {
    let roots = match ca {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|_| "ca: holds something that is not PEM".to_owned())?;
                roots.add(certificate).map_err(|error| format!("ca: {error}"))?;
            }
            Arc::new(roots)
        }
        None => SYSTEM_ROOTS.clone().ok_or("the system has no CA certificates: name them in the upstream's ca")?,
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Read once: hundreds of files on some systems.
static SYSTEM_ROOTS: LazyLock<Option<Arc<RootCertStore>>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    (!roots.is_empty()).then(|| Arc::new(roots))
});

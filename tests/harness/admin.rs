//! The admin API without `quoratectl` between: for what the command line hides, such as request ids, and for measurements.

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde::Deserialize;
use std::{
    fs,
    io::{Error, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

#[derive(Deserialize)]
struct Context {
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    ca_pem: Option<String>,
    certificate_pem: Option<String>,
    key_pem: Option<String>,
}

/// Connects to the cluster listener at `host:port` as the operator of a context file.
pub async fn connect(context: &Path, address: &str) -> Channel {
    Endpoint::from_static(ENDPOINT)
        .connect_with_connector(dialer(context, address))
        .await
        .unwrap_or_else(|error| panic!("{address}: {error:?}"))
}

/// The same, connecting with the first call, and again after every break: for a node that may be out of reach. A connection
/// that is silent for this long is given up.
pub fn lazy(context: &Path, address: &str, silence: Duration) -> Channel {
    let _entered = crate::runtime::runtime().enter();
    Endpoint::from_static(ENDPOINT)
        .connect_timeout(silence)
        .http2_keep_alive_interval(silence)
        .keep_alive_timeout(silence)
        .connect_with_connector_lazy(dialer(context, address))
}

const ENDPOINT: &str = "http://node.quorate.internal";

fn dialer(
    context: &Path,
    address: &str,
) -> impl tower::Service<http::Uri, Response = Tls, Error = Error, Future: Send> + Clone + Send + 'static {
    let (connector, address) = (connector(context), address.to_owned());
    tower::service_fn(move |_| {
        let (connector, address) = (connector.clone(), address.clone());
        async move {
            let tcp = TcpStream::connect(&address).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from("node.quorate.internal").map_err(Error::other)?;
            Ok(hyper_util::rt::TokioIo::new(connector.connect(name, tcp).await?))
        }
    })
}

type Tls = hyper_util::rt::TokioIo<tokio_rustls::client::TlsStream<TcpStream>>;

/// Sixteen random bytes for a request id.
pub fn random() -> Vec<u8> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).expect("random bytes");
    bytes.to_vec()
}

/// Write options with a fresh request id.
pub fn write_options() -> proto::admin::WriteOptions {
    proto::admin::WriteOptions { request_random: random(), request_issued_ms: now_ms(), ..Default::default() }
}

/// Milliseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "this is the client's side of the wire: it has a clock of its own")]
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("before the year 500,000,000")
}

fn connector(file: &Path) -> TlsConnector {
    crate::runtime::runtime();
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let context: Context = toml::from_str(&text).expect("a context file");
    let folder = file.parent().expect("a file lies in a folder");
    let pem = |inline: Option<String>, path: Option<PathBuf>| {
        inline.unwrap_or_else(|| fs::read_to_string(folder.join(path.expect("a path or a PEM"))).expect("a PEM file"))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem(context.ca_pem, context.ca).as_bytes()) {
        roots.add(certificate.expect("a certificate")).expect("an authority");
    }
    let chain = pem(context.certificate_pem, context.certificate);
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(|one| one.expect("a certificate")).collect();
    let key = PrivateKeyDer::from_pem_slice(pem(context.key_pem, context.key).as_bytes()).expect("a key");
    let mut config =
        ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key).expect("a client");
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}

//! One connection to one node: TCP, mutual TLS, HTTP/2. Which node to ask and how often is `client.rs`'s business.

use super::problem;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

/// The name that every node's certificate carries for its clients.
const SERVER_NAME: &str = "node.quorate.internal";
/// A node that stops answering is noticed after two of these, while a call is under way.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// HTTP/2 lets a server speak first, and nodes do at once; one that does not is spoken to after this.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// Refusals travel in headers, and one that names many places in a file is long.
const HEADER_BYTES_MAX: u32 = 1024 * 1024;

/// What a context needs to speak TLS.
pub fn tls(context: &Context) -> Result<TlsConnector, Failure> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let name = context.path.display();
    let mut roots = RootCertStore::empty();
    for authority in &context.authorities {
        roots
            .add(authority.clone())
            .map_err(|error| Failure::usage(format!("an authority of {name} is not usable: {error}"), ""))?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| Failure::usage(format!("the authorities of {name} are not usable: {error}"), ""))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::local(format!("TLS cannot be set up: {error}")))?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(context.certificates.clone(), context.key.clone_key())
        .map_err(|error| {
            Failure::usage(format!("the certificate and the key of {name} are not usable together: {error}"), "")
        })?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Connects to one node. `within` covers the name, TCP and TLS.
pub async fn connect(address: &str, tls: &TlsConnector, within: Duration) -> Result<Channel, Failure> {
    let dial = {
        let (address, tls) = (address.to_owned(), tls.clone());
        move |_| {
            let (address, tls) = (address.clone(), tls.clone());
            async move {
                let tcp = TcpStream::connect(&address).await?;
                tcp.set_nodelay(true)?;
                let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
                Ok::<_, io::Error>(TokioIo::new(welcomed(tls.connect(name, tcp).await?).await?))
            }
        }
    };
    // TLS is below; to the library the connection is plain, and the name is only a label.
    let endpoint = Endpoint::from_static("http://node.quorate.internal")
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .http2_max_header_list_size(HEADER_BYTES_MAX);
    match tokio::time::timeout(within, endpoint.connect_with_connector(tower::service_fn(dial))).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => {
            Err(problem::certificate_refused(&error).unwrap_or_else(|| unreachable(address, &deepest(&error))))
        }
        Err(_) => Err(unreachable(address, "no answer in time")),
    }
}

/// Waits for the node's first word. This side's handshake is over before the node has judged the operator's certificate:
/// a request that is sent already would break off against a closed connection, and nobody could tell a refused
/// certificate from a write that was lost.
async fn welcomed(mut stream: TlsStream<TcpStream>) -> io::Result<TlsStream<TcpStream>> {
    match tokio::time::timeout(FIRST_WORD, stream.fill_buf()).await {
        Ok(Ok([])) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the node closed the connection")),
        Ok(Ok(_)) | Err(_) => Ok(stream),
        Ok(Err(error)) => Err(error),
    }
}

fn unreachable(address: &str, why: &str) -> Failure {
    Failure::new(Exit::Unreachable, "unreachable", format!("{address}: {why}"), "")
}

/// The first cause says the most.
fn deepest(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = cause.to_string();
        next = cause.source();
    }
    text
}

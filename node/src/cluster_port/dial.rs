//! Connections to other nodes: TCP, TLS with the settings in force, and a gRPC channel over both. A channel connects
//! again by itself, each time with the settings of that moment.

use crate::pki::{ANY_NODE, node_server_name, pinned, token::JoinToken, trust::Trust};
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use raft::{Dial, DialError};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::watch,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

/// A connection that carries nothing is asked this often whether it lives, and gets as long to answer.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Flow control windows: a snapshot should fill the network.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Dials members as this node. The one that answers has proved that it is the node that was asked for. When this node
/// shows another certificate, its connections end, and what uses them connects again with that one: a connection that
/// outlived its certificate would be refused once the authority of then is retired.
#[must_use]
pub fn dialer(trust: Trust, timeout: Duration) -> Dial {
    Arc::new(move |id, address| {
        let trust = trust.clone();
        Box::pin(async move {
            let credentials =
                move || Credentials { shown: Some(trust.certificate()), config: Arc::clone(&trust.tls().client) };
            channel(address, node_server_name(id), timeout, credentials).await.map_err(DialError)
        })
    })
}

/// Why a node could not be dialed by a newcomer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinnedError {
    /// It is of another cluster than the join token.
    OtherCluster,
    /// In words.
    Failed(String),
}

/// Dials a node of the cluster that a join token names, as nobody.
///
/// # Errors
/// It does not answer, or is of another cluster.
pub async fn dial_pinned(address: String, token: &JoinToken, timeout: Duration) -> Result<Channel, PinnedError> {
    let (config, met_stranger) =
        pinned::client_config(token.clone()).map_err(|error| PinnedError::Failed(error.to_string()))?;
    dial_with(address, config, timeout).await.map_err(|error| {
        if met_stranger.load(Ordering::Relaxed) { PinnedError::OtherCluster } else { PinnedError::Failed(error) }
    })
}

/// Dials whichever node is at this address, as whoever the settings say.
///
/// # Errors
/// In words.
pub async fn dial_with(address: String, config: ClientConfig, timeout: Duration) -> Result<Channel, String> {
    let config = Arc::new(config);
    let credentials = move || Credentials { shown: None, config: Arc::clone(&config) };
    channel(address, ANY_NODE.to_owned(), timeout, credentials).await
}

async fn channel(
    address: String,
    server_name: String,
    timeout: Duration,
    credentials: impl Fn() -> Credentials + Send + Sync + 'static,
) -> Result<Channel, String> {
    // The scheme names what the channel speaks to our connector, which adds TLS itself.
    let endpoint = Endpoint::from_shared(format!("http://{server_name}"))
        .map_err(|error| error.to_string())?
        .connect_timeout(timeout)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let credentials = Arc::new(credentials);
    let connector = tower::service_fn(move |_: http::Uri| {
        let (address, server_name, credentials) = (address.clone(), server_name.clone(), Arc::clone(&credentials));
        async move { connect(&address, server_name, credentials(), timeout).await.map(TokioIo::new) }
    });
    endpoint.connect_with_connector(connector).await.map_err(|error| innermost(&error))
}

/// What one connection is made with.
struct Credentials {
    /// Says when another certificate is shown; taken before the settings are.
    shown: Option<watch::Receiver<raft::Certificate>>,
    config: Arc<ClientConfig>,
}

async fn connect(
    address: &str,
    server_name: String,
    credentials: Credentials,
    timeout: Duration,
) -> io::Result<Connection> {
    let connecting = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(server_name).map_err(io::Error::other)?;
        let tls = TlsConnector::from(credentials.config).connect(name, stream).await?;
        let renewed: BoxFuture<'static, ()> = match credentials.shown {
            Some(mut shown) => Box::pin(async move {
                // The sender lives as long as the node; without it nothing is renewed any more.
                if shown.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }),
            None => Box::pin(std::future::pending()),
        };
        Ok(Connection { tls, renewed })
    };
    tokio::time::timeout(timeout, connecting)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "did not answer in time"))?
}

/// A connection that ends when the certificate that it was made with is replaced.
struct Connection {
    tls: TlsStream<TcpStream>,
    renewed: BoxFuture<'static, ()>,
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.renewed.as_mut().poll(cx).is_ready() {
            self.renewed = Box::pin(std::future::ready(()));
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "this node shows another certificate: the connection is made anew",
            )));
        }
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

/// What an error comes from: the layers above it say nothing.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

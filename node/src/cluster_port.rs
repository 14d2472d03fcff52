//! The cluster port: one listener for nodes and operators, gRPC over mutual TLS. A client certificate is optional for
//! TLS, because a newcomer has none; `gate` decides, request by request, who may call what. Here connections are
//! accepted and bounded; what the services do is not here.

mod dial;
mod gate;

pub use dial::{PinnedError, dial_pinned, dial_with, dialer};
pub use gate::Gate;

use crate::pki::{
    certificate::{Speaker, speaker},
    sha256,
    trust::{Trust, sponsors},
};
use rustls_pki_types::CertificateDer;
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    service::Routes,
    transport::server::{Connected, Server},
};

/// Connections at a time: every member holds a few, and operators come and go.
const CONNECTIONS_MAX: usize = 2_048;
/// Handshakes at a time: each costs a signature, and anybody can begin one.
const HANDSHAKES_MAX: usize = 64;
/// A handshake takes two round trips.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests at a time on one connection.
const STREAMS_MAX: u32 = 512;
/// A peer that is silent this long is asked whether it lives, and gets as long to answer.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Metadata of a request; ours has a few hundred bytes.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// Flow control windows: a snapshot to a newcomer should fill the network.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Who is at the other end of a connection, as the handshake proved it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// From where.
    pub address: SocketAddr,
    /// Its certificate; `None` if it showed none.
    pub certificate: Option<PeerCertificate>,
}

/// A certificate that was shown and found to be signed by, or known to, the cluster.
#[derive(Clone, Debug)]
pub struct PeerCertificate {
    /// Whom it names; `None` for neither a node nor an operator.
    pub speaker: Option<Speaker>,
    /// SHA-256 of its DER.
    pub sha256: [u8; 32],
    /// The authorities by which it could be trusted when the connection was made.
    pub sponsors: Vec<[u8; 32]>,
    /// Itself and what came with it, to ask again when authorities have changed since.
    pub chain: Vec<CertificateDer<'static>>,
}

/// A cluster port that is served.
#[derive(Debug)]
pub struct ClusterPort {
    stop: watch::Sender<bool>,
    tasks: [JoinHandle<()>; 2],
    address: SocketAddr,
}

impl ClusterPort {
    /// Serves these services on a listener that is bound.
    ///
    /// # Errors
    /// The listener is of no use.
    pub fn serve(listener: TcpListener, trust: Trust, gate: Gate, routes: Routes) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        let (ready, incoming) = mpsc::channel(16);
        let accepting = tokio::spawn(accept(listener, trust, ready, stopped.clone()));
        let serving = tokio::spawn(async move {
            let server = Server::builder()
                .layer(gate.into_layer())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_concurrent_streams(STREAMS_MAX)
                .http2_keepalive_interval(Some(KEEPALIVE))
                .http2_keepalive_timeout(Some(KEEPALIVE))
                .http2_max_header_list_size(HEADER_BYTES_MAX);
            let incoming = tokio_stream::StreamExt::map(ReceiverStream::new(incoming), Ok::<_, io::Error>);
            let served = server.serve_with_incoming_shutdown(routes.prepare(), incoming, until(stopped)).await;
            if let Err(error) = served {
                tracing::error!(%error, "the cluster port has failed");
            }
        });
        Ok(Self { stop, tasks: [accepting, serving], address })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nothing more, and lets requests finish for so long. Streams between nodes do not end by themselves, so
    /// it usually takes all of it.
    pub async fn stop(self, patience: Duration) {
        let _ = self.stop.send(true);
        let [accepting, mut serving] = self.tasks;
        accepting.abort();
        if tokio::time::timeout(patience, &mut serving).await.is_err() {
            serving.abort();
        }
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Accepts connections and hands them on once they have shaken hands.
async fn accept(
    listener: TcpListener,
    trust: Trust,
    ready: mpsc::Sender<Accepted>,
    mut stopped: watch::Receiver<bool>,
) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut shaking = JoinSet::new();
    loop {
        // Both bounds are taken before the connection is: what is too much waits in the kernel's queue.
        let (Ok(connection), Ok(handshake)) =
            (Arc::clone(&connections).acquire_owned().await, Arc::clone(&handshakes).acquire_owned().await)
        else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the cluster port could not accept a connection");
                // Out of file descriptors, most likely: trying again at once would spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        while shaking.try_join_next().is_some() {}
        let (trust, ready) = (trust.clone(), ready.clone());
        shaking.spawn(async move {
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, shake(stream, address, &trust, connection)).await {
                Ok(Ok(accepted)) => {
                    drop(handshake);
                    let _ = ready.send(accepted).await;
                }
                Ok(Err(error)) => tracing::info!(%address, %error, "a connection to the cluster port was refused"),
                Err(_) => tracing::info!(%address, "a connection to the cluster port did not shake hands in time"),
            }
        });
    }
}

async fn shake(
    stream: TcpStream,
    address: SocketAddr,
    trust: &Trust,
    permit: OwnedSemaphorePermit,
) -> io::Result<Accepted> {
    stream.set_nodelay(true)?;
    let tls = trust.tls();
    let io = TlsAcceptor::from(Arc::clone(&tls.server)).accept(stream).await?;
    let certificate = io.get_ref().1.peer_certificates().and_then(<[CertificateDer<'_>]>::split_first).map(
        |(leaf, intermediates)| PeerCertificate {
            speaker: speaker(leaf),
            sha256: sha256(leaf),
            sponsors: sponsors(leaf, intermediates, &tls.authorities),
            chain: std::iter::once(leaf).chain(intermediates).map(|one| one.clone().into_owned()).collect(),
        },
    );
    Ok(Accepted { io, peer: Peer { address, certificate }, _permit: permit })
}

/// A connection that has shaken hands.
struct Accepted {
    io: TlsStream<TcpStream>,
    peer: Peer,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Accepted {
    type ConnectInfo = Peer;
    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

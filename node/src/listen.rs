//! Listeners and the connections they accept: how bytes reach the gateway. What a request means is not decided here.
//!
//! Every worker has its own listener on the same port (`SO_REUSEPORT`): the kernel hands each connection to one of them,
//! and it stays with that worker to its end.

pub(crate) mod connection;
pub(crate) mod door;
pub(crate) mod http1;
mod http2;
mod serving;
pub(crate) mod stream;
pub(crate) mod tls;
mod watch;
mod wire;

use crate::{
    gateway::{StartError, Worker},
    gathered::Gathered,
};
use arc_swap::ArcSwap;
use connection::Protocol;
use door::{Door, Handshake, Place};
use futures::future::BoxFuture;
use http::HeaderValue;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{Domain, SockFilter, Socket, Type};
use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tls::Tls;
pub use tls::{ClientAuthorities, ClientIdentity, Expiry};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// How long a closing listener waits for handshakes of TCP that have begun: a round trip or two.
const QUEUE_PATIENCE: Duration = Duration::from_millis(300);
/// A program for the kernel's filter of a listening socket: drops what would begin a connection, and nothing else. It
/// sees segments from their TCP header on, and in its byte 13 the flags.
const NO_NEW_CONNECTIONS: [SockFilter; 4] = [
    // The byte at 13.
    SockFilter::new(0x30, 0, 0, 13),
    // Is SYN set? (A listener gets none with SYN and ACK.)
    SockFilter::new(0x45, 0, 1, 0x02),
    // Then nothing of it is kept,
    SockFilter::new(0x06, 0, 0, 0),
    // else all.
    SockFilter::new(0x06, 0, 0, u32::MAX),
];
/// How HTTP/2 begins, where nobody has asked for it before.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Where the listeners are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Without TLS.
    pub plain: Option<SocketAddr>,
    /// With TLS.
    pub tls: Option<SocketAddr>,
}

/// The certificates of the TLS listener, and whose certificates it takes.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The one whose names fit the client's SNI is shown, else the first.
    pub shown: Vec<Arc<Certificate>>,
    /// Who signs those of clients; without it they are not asked for any.
    pub clients: Option<ClientAuthorities>,
}

/// A certificate chain, leaf first, and its private key.
#[derive(Debug)]
pub struct Certificate {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

/// Certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// There is none.
    #[error("the TLS listener has no certificate")]
    None,
    /// One is damaged, or its key is not its own.
    #[error("the certificate cannot be used: {0}")]
    Unusable(String),
}

/// A listener of one worker.
pub(crate) struct Listener {
    pub(crate) socket: std::net::TcpListener,
    /// The certificates in force, if it speaks TLS.
    pub(crate) tls: Option<Arc<ArcSwap<Tls>>>,
}

/// Opens one listener for each worker on the same address. With port 0 the first one chooses.
pub(crate) fn open(
    address: SocketAddr,
    workers: usize,
) -> Result<(SocketAddr, Vec<std::net::TcpListener>), StartError> {
    let failed = |source| StartError::Listen { address, source };
    if address.port() != 0 {
        // A port that shares would be shared with another program of the same user, unnoticed. One that does not share
        // fails if anybody listens there.
        socket(address, false).map_err(failed)?;
    }
    let first: std::net::TcpListener = socket(address, true).map_err(failed)?;
    let bound = first.local_addr().map_err(failed)?;
    let mut listeners = vec![first];
    for _ in 1..workers {
        listeners.push(socket(bound, true).map_err(failed)?);
    }
    for listener in &listeners {
        // Only now: a listener that is not served would take connections and leave them waiting.
        socket2::SockRef::from(listener).listen(BACKLOG).map_err(failed)?;
    }
    Ok((bound, listeners))
}

fn socket(address: SocketAddr, shares: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Connections of a process that has just ended do not hold the port.
    socket.set_reuse_address(true)?;
    if shares {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Accepts connections until the node closes, and then those that are in its queue.
pub(crate) async fn accept(worker: Arc<Worker>, listener: Listener) {
    let _accepting = Accepting(Arc::clone(&worker));
    let Listener { socket, tls } = listener;
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "a listener cannot be served");
            return;
        }
    };
    let door = Door::new(Arc::clone(&worker), tls);
    tokio::select! {
        () = door.admit_all(&listener) => {}
        () = worker.shared.draining.closing() => close(&door, listener).await,
    }
}

/// Takes the connections that the kernel has made for this listener, or is about to make, and closes it. Clients take
/// them for open, and may have sent a request already: closing at once would reset them. Others that share the port do not
/// take them over.
async fn close(door: &Door, listener: TcpListener) {
    if door.worker.shared.draining.last_call().is_zero() {
        return;
    }
    // From here on nobody begins to connect. Who tries again after a second is refused, and knows that nothing was taken.
    if let Err(error) = socket2::SockRef::from(&listener).attach_filter(&NO_NEW_CONNECTIONS) {
        tracing::warn!(%error, "a listener closes while clients may be connecting");
    }
    let _ = timeout(QUEUE_PATIENCE, door.admit_all(&listener)).await;
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, peer)) = listener.accept() {
        let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = stream {
            door.admit(stream, peer);
        }
    }
}

/// A listener that accepts, or takes what is queued.
struct Accepting(Arc<Worker>);

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.shared.draining.listener_closed();
    }
}

async fn plain(place: Place, stream: TcpStream, peer: SocketAddr) {
    // What it takes to begin is given back before the connection is served.
    if let Some(served) = Box::pin(identified(Arc::clone(&place.worker), stream, peer)).await {
        served.await;
    }
}

async fn encrypted(place: Place, counted: Handshake, stream: TcpStream, peer: SocketAddr, tls: Arc<Tls>) {
    if let Some(served) = Box::pin(secured(Arc::clone(&place.worker), counted, stream, peer, tls)).await {
        served.await;
    }
}

/// A connection whose protocol is known, ready to be served.
async fn identified(worker: Arc<Worker>, mut stream: TcpStream, peer: SocketAddr) -> Option<BoxFuture<'static, ()>> {
    let patience = worker.shared.settings.caps.header_read_timeout;
    let (protocol, prefix) = patiently(&worker, patience, "head", sniff(&mut stream)).await??;
    Some(serving::serve(worker, peer, None, protocol, Gathered(stream), prefix))
}

/// Waits for the beginning of a connection: not too long, and less so while the node closes.
async fn patiently<T>(
    worker: &Worker,
    patience: Duration,
    what: &'static str,
    beginning: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        begun = timeout(patience, beginning) => begun.inspect_err(|_| connection::end_stalled(what)).ok(),
        () = worker.shared.draining.last_call_over() => None,
    }
}

/// Reads until it is clear which protocol the client speaks. Nothing if it went away.
async fn sniff(stream: &mut TcpStream) -> Option<(Protocol, Vec<u8>)> {
    let mut prefix = Vec::with_capacity(PREFACE.len());
    loop {
        let mut limited = (&mut *stream).take((PREFACE.len() - prefix.len()) as u64);
        if limited.read_buf(&mut prefix).await.ok()? == 0 {
            return None;
        }
        if !PREFACE.starts_with(&prefix) {
            return Some((Protocol::Http1, prefix));
        }
        if prefix.len() == PREFACE.len() {
            return Some((Protocol::Http2, prefix));
        }
    }
}

/// A connection whose handshake is done, ready to be served.
async fn secured(
    worker: Arc<Worker>,
    _counted: Handshake,
    stream: TcpStream,
    peer: SocketAddr,
    tls: Arc<Tls>,
) -> Option<BoxFuture<'static, ()>> {
    let patience = worker.shared.settings.caps.handshake_timeout;
    let handshake = TlsAcceptor::from(Arc::clone(&tls.config)).accept(Gathered(stream));
    let refused = |error: &dyn fmt::Display| tracing::debug!(%peer, %error, "no TLS with a client");
    let stream = patiently(&worker, patience, "handshake", handshake).await?.map_err(|error| refused(&error)).ok()?;
    let (_, session) = stream.get_ref();
    let identity = tls.identity(session, worker.shared.clock.time().wall).map_err(|error| refused(&error)).ok()?;
    let protocol = if session.alpn_protocol() == Some(b"h2") { Protocol::Http2 } else { Protocol::Http1 };
    let shown = tls.shown(session.server_name(), identity);
    // Boxed, because it is large and handed on several times.
    Some(serving::serve(worker, peer, Some(shown), protocol, Box::new(stream), Vec::new()))
}

/// An address as a header field says it.
fn headers_of(address: IpAddr) -> HeaderValue {
    HeaderValue::from_str(&address.to_string()).unwrap_or(HeaderValue::from_static("unknown"))
}

//! One client connection: what is known of the other side, and how long it may keep us waiting.
//! Who does, is noticed by `watch` (and for the streams of HTTP/2 by `stream`), by what is counted here.

use super::{
    stream::{Stream, Streams},
    tls::Shown,
    watch::{Verdict, Watch},
    wire::Wire,
};
use crate::{
    gateway::{self, Caps, Worker, draining::Stage, worker::lock},
    listen::headers_of,
};
use http::HeaderValue;
use hyper::{body::Incoming, server::conn::http1, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::counter;
use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep},
};

/// The most that a client may make us read ahead: a whole header, and room to answer one that is too large in words.
const READ_AHEAD_FACTOR: usize = 4;
const READ_AHEAD_BYTES_MIN: usize = 64 * 1024;
/// HTTP/2 has no idle exchange of bytes to tell a dead peer by.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Header fields that hyper reads without asking for memory.
const FIELDS_INLINE: usize = 100;

/// One client connection.
pub(crate) struct Connection {
    pub(crate) worker: Arc<Worker>,
    pub(crate) id: u64,
    pub(crate) peer: IpAddr,
    /// As `X-Forwarded-For` says it.
    pub(crate) peer_header: HeaderValue,
    /// Whether the peer may say where a request came from.
    pub(crate) is_trusted: bool,
    /// Which certificate it was shown.
    pub(crate) tls: Option<Shown>,
    moved: AtomicU64,
    requests: AtomicU64,
    in_flight: AtomicU32,
    /// Bytes of a request that is not whole have come.
    is_partial: AtomicBool,
    write_waits: AtomicBool,
    body_waits: AtomicU32,
    /// Bytes of request bodies that have come.
    body_bytes: AtomicU64,
    /// The stream that has begun last, until it runs.
    pub(super) newest: Mutex<Option<Arc<Stream>>>,
    is_ended: AtomicBool,
    waker: Mutex<Option<Waker>>,
    protocol: Protocol,
    /// How far the node was on its way out when the connection was made.
    born: Stage,
}

impl Connection {
    fn new(worker: Arc<Worker>, peer: SocketAddr, tls: Option<Shown>, protocol: Protocol) -> Self {
        let peer = peer.ip().to_canonical();
        Self {
            id: worker.next_connection(),
            peer_header: headers_of(peer),
            is_trusted: is_trusted(&worker, peer),
            born: worker.shared.draining.stage(),
            worker,
            peer,
            tls,
            moved: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            is_partial: AtomicBool::new(false),
            write_waits: AtomicBool::new(false),
            body_waits: AtomicU32::new(0),
            body_bytes: AtomicU64::new(0),
            newest: Mutex::new(None),
            is_ended: AtomicBool::new(false),
            waker: Mutex::new(None),
            protocol,
        }
    }

    /// Bytes came or went.
    pub(super) fn moved(&self, came: bool) {
        // Its worker alone writes these: no need for the dearer `fetch_add`.
        self.moved.store(self.moved.load(Relaxed).wrapping_add(1), Relaxed);
        if came {
            self.is_partial.store(true, Relaxed);
        }
    }

    pub(super) fn write_waits(&self, waits: bool) {
        self.write_waits.store(waits, Relaxed);
    }

    /// The header of a request is whole.
    pub(crate) fn request_began(&self) {
        self.requests.fetch_add(1, Relaxed);
        self.in_flight.fetch_add(1, Relaxed);
        self.is_partial.store(false, Relaxed);
    }

    pub(crate) fn request_ended(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
        self.is_partial.store(false, Relaxed);
    }

    /// Whether a request waits for the client to go on with its body.
    pub(crate) fn waits_for_body(&self, waits: bool) {
        if waits {
            self.body_waits.fetch_add(1, Relaxed);
        } else {
            self.body_waits.fetch_sub(1, Relaxed);
        }
    }

    pub(crate) fn body_came(&self, bytes: u64) {
        self.body_bytes.store(self.body_bytes.load(Relaxed).wrapping_add(bytes), Relaxed);
    }

    /// What the watch goes by.
    pub(super) fn counts(&self) -> Counts {
        Counts {
            moved: self.moved.load(Relaxed),
            requests: self.requests.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
            is_partial: self.is_partial.load(Relaxed),
            write_waits: self.write_waits.load(Relaxed),
            body_waits: self.body_waits.load(Relaxed) > 0,
            body_bytes: self.body_bytes.load(Relaxed),
        }
    }

    /// Whether the answer that is being made is the last one: the client must be told, or it could send its next request
    /// into a connection that closes. HTTP/2 has its own way of saying so.
    pub(crate) fn is_ending(&self) -> bool {
        let stage = self.worker.shared.draining.stage();
        self.protocol == Protocol::Http1 && (stage >= Stage::Parting || stage > self.born)
    }

    /// Looks at the connection again: the node drains.
    pub(crate) fn wake(&self) {
        let waker = lock(&self.waker).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Ends the connection and whatever is in flight on it.
    pub(crate) fn end(&self) {
        self.is_ended.store(true, Relaxed);
        self.wake();
    }
}

/// What is known of a connection at one moment.
pub(super) struct Counts {
    /// How often bytes came or went.
    pub(super) moved: u64,
    pub(super) requests: u64,
    pub(super) in_flight: u32,
    pub(super) is_partial: bool,
    pub(super) write_waits: bool,
    pub(super) body_waits: bool,
    pub(super) body_bytes: u64,
}

/// Counts a connection or stream that ends because its client kept us waiting.
pub(super) fn end_stalled(what: &'static str) {
    counter!("quorate_clients_stalled_total", "waiting_for" => what).increment(1);
}

/// Whether an address is one of a proxy that is believed.
pub(crate) fn is_trusted(worker: &Worker, address: IpAddr) -> bool {
    worker.shared.settings.trusted_proxies.iter().any(|network| network.contains(&address))
}

/// Which protocol a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Serves a connection to its end. `prefix` has been read already.
pub(super) async fn serve<S>(
    worker: Arc<Worker>,
    peer: SocketAddr,
    tls: Option<Shown>,
    protocol: Protocol,
    stream: S,
    prefix: Vec<u8>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = Arc::new(Connection::new(worker, peer, tls, protocol));
    let worker = Arc::clone(&connection.worker);
    lock(&worker.connections).insert(connection.id, Arc::clone(&connection));
    let io = TokioIo::new(Wire::new(stream, prefix, Arc::clone(&connection)));
    let caps = &worker.shared.settings.caps;
    let service = {
        let connection = Arc::clone(&connection);
        service_fn(move |request: http::Request<Incoming>| {
            let connection = Arc::clone(&connection);
            let stream = (protocol == Protocol::Http2).then(Arc::<Stream>::default);
            lock(&connection.newest).clone_from(&stream);
            async move { Ok::<_, Infallible>(gateway::handle(connection, stream, request).await) }
        })
    };
    match protocol {
        Protocol::Http1 => {
            let served = http1_builder(caps).serve_connection(io, service);
            run(&connection, caps, protocol, pin!(served), http1::Connection::graceful_shutdown).await;
        }
        Protocol::Http2 => {
            let served = http2_builder(caps, Arc::clone(&connection)).serve_connection(io, service);
            run(&connection, caps, protocol, pin!(served), http2::Connection::graceful_shutdown).await;
        }
    }
    lock(&worker.connections).remove(&connection.id);
}

fn http1_builder(caps: &Caps) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // The watch of this file does it, without a timer for every request.
        .header_read_timeout(None)
        .max_buf_size((caps.header_bytes_max * READ_AHEAD_FACTOR).max(READ_AHEAD_BYTES_MIN));
    if caps.header_count_max >= FIELDS_INLINE {
        builder.max_headers(caps.header_count_max * 2);
    }
    builder
}

fn http2_builder(caps: &Caps, connection: Arc<Connection>) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(Streams(connection));
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(caps.streams_max)
        .max_header_list_size(u32::try_from(caps.header_bytes_max * 2).unwrap_or(u32::MAX));
    builder
}

/// Drives a connection, watches over it, and ends it when it drains or keeps us waiting.
async fn run<C, E>(
    connection: &Connection,
    caps: &Caps,
    protocol: Protocol,
    mut served: Pin<&mut C>,
    shut_down: impl Fn(Pin<&mut C>),
) where
    C: Future<Output = Result<(), E>>,
{
    let mut watch = Watch::new(caps, protocol);
    let mut timer = pin!(sleep(watch.interval));
    let mut is_shut_down = false;
    let mut is_closing = false;
    // The waker of a task stays the same as long as the task.
    let mut is_known = false;
    std::future::poll_fn(|cx: &mut Context<'_>| {
        if !is_known {
            is_known = true;
            *lock(&connection.waker) = Some(cx.waker().clone());
        }
        loop {
            if connection.is_ended.load(Relaxed) {
                return Poll::Ready(());
            }
            let draining = &connection.worker.shared.draining;
            if !is_closing && draining.is_closing() {
                is_closing = true;
                match protocol {
                    // The client is told to open no more streams, and then which ones were taken.
                    Protocol::Http2 => {
                        is_shut_down = true;
                        shut_down(served.as_mut());
                    }
                    // Hyper would close it at once if it is idle, with a request perhaps on its way.
                    Protocol::Http1 => {
                        watch.hurry(draining.last_call());
                        timer.as_mut().reset(Instant::now());
                    }
                }
            }
            if served.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            match watch.look(connection, now) {
                Verdict::Fine => {}
                Verdict::Idle if is_shut_down => return Poll::Ready(()),
                Verdict::Idle => {
                    is_shut_down = true;
                    shut_down(served.as_mut());
                }
                Verdict::Stalled(what) => {
                    end_stalled(what);
                    return Poll::Ready(());
                }
            }
            timer.as_mut().reset(now + watch.interval);
        }
    })
    .await;
}

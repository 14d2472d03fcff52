//! One client connection: what is known of the other side, and how long it may keep us waiting.
//!
//! Idle and slow clients are noticed by a watch of each connection that looks every now and then whether anything has
//! moved, instead of timers that are set for every request: the hot path only counts. A limit is therefore noticed up to
//! a quarter late.

use super::{tls::Shown, wire::Wire};
use crate::{
    gateway::{self, Caps, Worker, draining::Stage, worker::lock},
    listen::headers_of,
};
use http::HeaderValue;
use hyper::{body::Incoming, server::conn::http1, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
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
/// A connection is not looked at more often.
const INTERVAL_MIN: Duration = Duration::from_millis(5);
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
            async move { Ok::<_, Infallible>(gateway::handle(connection, request).await) }
        })
    };
    match protocol {
        Protocol::Http1 => {
            let served = http1_builder(caps).serve_connection(io, service);
            run(&connection, caps, protocol, pin!(served), http1::Connection::graceful_shutdown).await;
        }
        Protocol::Http2 => {
            let served = http2_builder(caps).serve_connection(io, service);
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

fn http2_builder(caps: &Caps) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
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
                Verdict::Stalled => return Poll::Ready(()),
            }
            timer.as_mut().reset(now + watch.interval);
        }
    })
    .await;
}

/// Notices that a client keeps us waiting.
struct Watch {
    protocol: Protocol,
    interval: Duration,
    header_read_timeout: Duration,
    idle_timeout: Duration,
    /// The same for a connection that could be idle or new, when the node closes.
    last_call: Option<Duration>,
    seen: Option<(Wait, u64, Instant)>,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The rest of a header, or the first request.
    Header,
    /// The next request.
    Request,
    /// The client: more of its body, or that it takes what it asked for.
    Client,
    /// Ourselves.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    /// It can be ended politely.
    Idle,
    /// It cannot.
    Stalled,
}

impl Watch {
    fn new(caps: &Caps, protocol: Protocol) -> Self {
        let interval = (caps.header_read_timeout.min(caps.idle_timeout) / 4).max(INTERVAL_MIN);
        Self {
            protocol,
            interval,
            header_read_timeout: caps.header_read_timeout,
            idle_timeout: caps.idle_timeout,
            last_call: None,
            seen: None,
        }
    }

    /// From now on only what is in flight, or on its way, is waited for.
    fn hurry(&mut self, last_call: Duration) {
        self.last_call = Some(last_call);
        self.interval = self.interval.min((last_call / 4).max(INTERVAL_MIN));
    }

    fn look(&mut self, connection: &Connection, now: Instant) -> Verdict {
        let requests = connection.requests.load(Relaxed);
        let is_busy = connection.in_flight.load(Relaxed) > 0;
        let write_waits = connection.write_waits.load(Relaxed);
        let body_waits = connection.body_waits.load(Relaxed) > 0;
        // What tells that it has not moved: for a header, the number of requests, so that a byte now and then is no way
        // out; for a body, any byte.
        let (wait, mark) = if write_waits || (is_busy && body_waits) {
            (Wait::Client, connection.moved.load(Relaxed))
        } else if is_busy {
            (Wait::Nothing, 0)
        } else if requests == 0 || (self.protocol == Protocol::Http1 && connection.is_partial.load(Relaxed)) {
            (Wait::Header, requests)
        } else {
            (Wait::Request, requests)
        };
        let since = match self.seen {
            Some((seen, seen_mark, since)) if seen == wait && seen_mark == mark => since,
            _ => {
                self.seen = Some((wait, mark, now));
                now
            }
        };
        let waited = now.saturating_duration_since(since) + self.interval;
        let is_silent = !connection.is_partial.load(Relaxed);
        match wait {
            Wait::Header | Wait::Request if is_silent && self.last_call.is_some_and(|last| waited > last) => {
                Verdict::Idle
            }
            Wait::Header if waited > self.header_read_timeout => Verdict::Stalled,
            Wait::Request if waited > self.idle_timeout => Verdict::Idle,
            Wait::Client if waited > self.idle_timeout => Verdict::Stalled,
            _ => Verdict::Fine,
        }
    }
}

//! One client connection: what is known of the other side, and what is counted of it. Whether it keeps us waiting is told
//! from that by `watch` (for the streams of HTTP/2 by `stream`); `serving` drives it.

use super::{
    http1::{Fault, Wrong},
    stream::Stream,
    tls::Shown,
};
use crate::{
    gateway::{Worker, draining::Stage, worker::lock},
    listen::headers_of,
};
use http::HeaderValue;
use metrics::counter;
use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
};

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
    /// What the client sent that must not be read.
    wrong: OnceLock<Wrong>,
    waker: Mutex<Option<Waker>>,
    protocol: Protocol,
    /// How far the node was on its way out when the connection was made.
    born: Stage,
}

impl Connection {
    pub(super) fn new(worker: Arc<Worker>, peer: SocketAddr, tls: Option<Shown>, protocol: Protocol) -> Self {
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
            wrong: OnceLock::new(),
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

    /// A message of the client is not to be read: its request is refused when its turn comes.
    pub(super) fn refuse(&self, wrong: Wrong) {
        // The first is the last: nothing is looked at after it.
        let _ = self.wrong.set(wrong);
    }

    /// What is wrong with the message of the request that began last.
    pub(crate) fn fault(&self) -> Option<Fault> {
        let wrong = self.wrong.get()?;
        (self.requests.load(Relaxed) == wrong.request + 1).then_some(wrong.fault)
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

    /// Which task looks at the connection.
    pub(super) fn is_driven_by(&self, waker: &Waker) {
        *lock(&self.waker) = Some(waker.clone());
    }

    /// Whether it is to end, whatever is in flight on it.
    pub(super) fn is_ended(&self) -> bool {
        self.is_ended.load(Relaxed)
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

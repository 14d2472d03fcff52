//! One stream of an HTTP/2 connection, as far as its client can keep it waiting: other streams of the connection may move
//! all the while, so each is watched by itself. Who keeps one waiting for too long loses that stream alone.

use super::{
    connection::{Connection, end_stalled},
    watch,
};
use crate::gateway::{Caps, worker::lock};
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};
use tokio::time::Instant;

/// A piece of an answer that is longer may take longer to be taken, in proportion.
const PIECE_BYTES: u64 = 64 * 1024;

/// What is counted of a stream. Its worker alone writes it.
#[derive(Default)]
pub(crate) struct Stream {
    /// Its request waits for the client to go on with its body, of which so much has come.
    body_waits: AtomicBool,
    body_bytes: AtomicU64,
    /// The piece of the answer that the client has not taken yet: its length, and how many there were before.
    piece: AtomicU64,
    pieces: AtomicU64,
}

impl Stream {
    pub(crate) fn waits_for_body(&self, waits: bool) {
        self.body_waits.store(waits, Relaxed);
    }

    pub(crate) fn body_came(&self, bytes: u64) {
        self.body_bytes.store(self.body_bytes.load(Relaxed).wrapping_add(bytes), Relaxed);
    }

    /// A piece of the answer was handed over, and the one before it was taken; 0 if there is none.
    pub(crate) fn handed(&self, bytes: u64) {
        self.piece.store(bytes, Relaxed);
        self.pieces.store(self.pieces.load(Relaxed).wrapping_add(1), Relaxed);
    }
}

/// Runs the streams of a connection.
#[derive(Clone)]
pub(super) struct Streams(pub(super) Arc<Connection>);

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        // Hyper hands over each stream right after it has asked for its answer.
        let stream = lock(&self.0.newest).take();
        match stream {
            Some(stream) => drop(tokio::spawn(until_stalled(future, stream, Arc::clone(&self.0)))),
            None => drop(tokio::spawn(future)),
        }
    }
}

/// Runs a stream to its end, or until its client has kept it waiting for too long; dropping it resets it.
async fn until_stalled(future: impl Future<Output = ()>, stream: Arc<Stream>, connection: Arc<Connection>) {
    let worker = &connection.worker;
    let caps = &worker.shared.settings.caps;
    let interval = watch::interval(caps.idle_timeout);
    let timer = worker.deadlines.watch(interval);
    let mut look = Look::default();
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        if future.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        while timer.poll(cx).is_ready() {
            if let Some(what) = look.stalled(&stream, caps, interval) {
                end_stalled(what);
                return Poll::Ready(());
            }
            timer.rearm(interval);
        }
        Poll::Pending
    })
    .await;
}

/// What was seen of a stream, and since when.
#[derive(Default)]
struct Look {
    body: Option<(u64, Instant)>,
    piece: Option<(u64, Instant)>,
}

impl Look {
    /// What the client has kept waiting for too long, if anything.
    fn stalled(&mut self, stream: &Stream, caps: &Caps, interval: Duration) -> Option<&'static str> {
        let now = Instant::now();
        let waited = |since: Instant| now.saturating_duration_since(since) + interval;
        if stream.body_waits.load(Relaxed) {
            let bytes = stream.body_bytes.load(Relaxed);
            let (at_first, since) = *self.body.get_or_insert((bytes, now));
            if waited(since) > caps.idle_timeout {
                if watch::is_too_slow(bytes.wrapping_sub(at_first), caps.idle_timeout, caps.body_rate_min) {
                    return Some("body");
                }
                self.body = None;
            }
        } else {
            self.body = None;
        }
        let piece = stream.piece.load(Relaxed);
        let count = stream.pieces.load(Relaxed);
        match self.piece {
            Some((seen, since)) if piece > 0 && seen == count => {
                let times = u32::try_from(piece / PIECE_BYTES).unwrap_or(u32::MAX).saturating_add(1);
                (waited(since) > caps.idle_timeout.saturating_mul(times)).then_some("answer")
            }
            _ => {
                self.piece = (piece > 0).then_some((count, now));
                None
            }
        }
    }
}

//! Serves one connection to its end: by hyper while there is something to do, and without it while an HTTP/1.1 connection
//! rests between requests. Most connections rest most of the time, and hyper's buffers and the place of the next request
//! are the most of what they would hold.

use super::{
    connection::{Connection, Protocol, end_stalled},
    stream::{Stream, Streams},
    tls::Shown,
    watch::{Verdict, Watch},
    wire::Wire,
};
use crate::gateway::{self, Caps, Worker, worker::lock};
use futures::future::{BoxFuture, FutureExt as _};
use hyper::{body::Incoming, server::conn::http1, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, sleep, timeout},
};

/// The most that a client may make us read ahead: a whole header, and room to answer one that is too large in words.
const READ_AHEAD_FACTOR: usize = 4;
const READ_AHEAD_BYTES_MIN: usize = 64 * 1024;
/// HTTP/2 has no idle exchange of bytes to tell a dead peer by.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Streams that the client reset before the gateway looked at them; one more ends the connection (CVE-2023-44487). Those
/// that it had looked at come out of the budget of `http2`.
const RESETS_PENDING_MAX: usize = 20;
/// Streams of a connection that the gateway had to reset because of what the client did with them.
const RESETS_OWN_MAX: usize = 128;
/// What a client may send of one body, and of all bodies of a connection, before the gateway has passed it on.
const STREAM_WINDOW_BYTES: u32 = 512 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// What waits to be sent on one stream.
const SEND_BYTES_MAX: usize = 128 * 1024;
/// The table that header fields are compressed with.
const HEADER_TABLE_BYTES: u32 = 4096;
/// Header fields that hyper reads without asking for memory.
const FIELDS_INLINE: usize = 100;
/// How long saying goodbye to a connection that rested may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves a connection to its end. `prefix` has been read already. Boxed, so that who begins a connection need not keep
/// room for what serves it.
pub(super) fn serve<S>(
    worker: Arc<Worker>,
    peer: SocketAddr,
    tls: Option<Shown>,
    protocol: Protocol,
    stream: S,
    prefix: Vec<u8>,
) -> BoxFuture<'static, ()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = Arc::new(Connection::new(Arc::clone(&worker), peer, tls, protocol));
    lock(&worker.connections).insert(connection.id, Arc::clone(&connection));
    let known = Known(Arc::clone(&connection));
    let wire = Wire::new(stream, prefix, protocol, connection);
    match protocol {
        Protocol::Http1 => Box::pin(http1(known, wire)),
        Protocol::Http2 => Box::pin(http2(known, wire)),
    }
}

/// A connection that its worker knows of.
struct Known(Arc<Connection>);

impl Drop for Known {
    fn drop(&mut self) {
        lock(&self.0.worker.connections).remove(&self.0.id);
    }
}

async fn http1<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(known: Known, mut wire: Wire<S>) {
    let connection = &known.0;
    let caps = &connection.worker.shared.settings.caps;
    let mut watch = Watch::new(caps, Protocol::Http1);
    loop {
        let service = service_fn(|request: http::Request<Incoming>| {
            let connection = Arc::clone(connection);
            let answer = gateway::handle(connection, None, request);
            answer.map(Ok::<_, Infallible>)
        });
        // Boxed, so that nothing of it is left while the connection rests.
        let mut served = Box::new(http1_builder(caps).serve_connection(TokioIo::new(wire), service));
        let by_hyper = Hyper { served: Pin::new(&mut *served), shut_down: http1::Connection::graceful_shutdown };
        if attend(connection, &mut watch, Protocol::Http1, by_hyper).await == End::Over {
            return;
        }
        let parts = (*served).into_parts();
        wire = parts.io.into_inner();
        wire.unread(&parts.read_buf);
        if !parts.read_buf.is_empty() {
            continue;
        }
        drop(parts.read_buf);
        let mut byte = None;
        let resting = Rest { wire: &mut wire, byte: &mut byte };
        attend(connection, &mut watch, Protocol::Http1, resting).await;
        match byte {
            Some(byte) => wire.unread(&[byte]),
            None => {
                let _ = timeout(GOODBYE_TIMEOUT, wire.shutdown()).await;
                return;
            }
        }
    }
}

async fn http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(known: Known, wire: Wire<S>) {
    let connection = &known.0;
    let caps = &connection.worker.shared.settings.caps;
    let service = service_fn(|request: http::Request<Incoming>| {
        let connection = Arc::clone(connection);
        let stream = Arc::<Stream>::default();
        *lock(&connection.newest) = Some(Arc::clone(&stream));
        // Boxed: hyper, the stream and the runtime hand it on, and it is large.
        Box::pin(gateway::handle(connection, Some(stream), request)).map(Ok::<_, Infallible>)
    });
    let served = http2_builder(caps, Arc::clone(connection)).serve_connection(TokioIo::new(wire), service);
    let by_hyper = Hyper { served: pin!(served), shut_down: http2::Connection::graceful_shutdown };
    let mut watch = Watch::new(caps, Protocol::Http2);
    attend(connection, &mut watch, Protocol::Http2, by_hyper).await;
}

fn http1_builder(caps: &Caps) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // `watch` does it, without a timer for every request.
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
        .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
        .max_local_error_reset_streams(RESETS_OWN_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BYTES_MAX)
        .header_table_size(HEADER_TABLE_BYTES)
        // Twice, so that what is a little too much is answered in words.
        .max_header_list_size(u32::try_from(caps.header_bytes_max * 2).unwrap_or(u32::MAX));
    builder
}

/// What a connection does at present.
trait Doing {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// Ends it as soon as nothing is in flight.
    fn shut_down(&mut self);
    /// Whether it could do with less.
    fn may_rest(&self) -> bool;
}

/// Requests and answers.
struct Hyper<'a, C> {
    served: Pin<&'a mut C>,
    shut_down: fn(Pin<&mut C>),
}

/// Waiting for the first byte of the next request.
struct Rest<'a, S> {
    wire: &'a mut Wire<S>,
    byte: &'a mut Option<u8>,
}

impl<C: Future> Doing for Hyper<'_, C> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.served.as_mut().poll(cx).map(drop)
    }

    fn shut_down(&mut self) {
        (self.shut_down)(self.served.as_mut());
    }

    fn may_rest(&self) -> bool {
        true
    }
}

impl<S: AsyncRead + Unpin> Doing for Rest<'_, S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut place = [0];
        let mut place = ReadBuf::new(&mut place);
        Pin::new(&mut *self.wire).poll_read(cx, &mut place).map(|read| {
            *self.byte = read.ok().and_then(|()| place.filled().first().copied());
        })
    }

    fn shut_down(&mut self) {}

    fn may_rest(&self) -> bool {
        false
    }
}

/// How a connection came to stop what it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Over,
    /// It has been silent for a while, and nothing is left to be written.
    Silent,
}

/// Drives what a connection does, watches over it, and ends it when it drains or keeps us waiting.
async fn attend(connection: &Connection, watch: &mut Watch, protocol: Protocol, mut doing: impl Doing) -> End {
    let mut timer = pin!(sleep(watch.interval));
    let mut is_shut_down = false;
    let mut is_closing = false;
    // The waker of a task stays the same as long as the task.
    let mut is_known = false;
    std::future::poll_fn(|cx: &mut Context<'_>| {
        if !is_known {
            is_known = true;
            connection.is_driven_by(cx.waker());
        }
        loop {
            if connection.is_ended() {
                return Poll::Ready(End::Over);
            }
            let draining = &connection.worker.shared.draining;
            if !is_closing && draining.is_closing() {
                is_closing = true;
                match protocol {
                    // The client is told to open no more streams, and then which ones were taken.
                    Protocol::Http2 => {
                        is_shut_down = true;
                        doing.shut_down();
                    }
                    // Hyper would close it at once if it is idle, with a request perhaps on its way.
                    Protocol::Http1 => {
                        watch.hurry(draining.last_call());
                        timer.as_mut().reset(Instant::now());
                    }
                }
            }
            if doing.poll(cx).is_ready() {
                return Poll::Ready(End::Over);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            match watch.look(connection, now) {
                Verdict::Fine => {}
                Verdict::Silent if !is_shut_down && doing.may_rest() => return Poll::Ready(End::Silent),
                Verdict::Silent => {}
                Verdict::Idle if is_shut_down || !doing.may_rest() => return Poll::Ready(End::Over),
                Verdict::Idle => {
                    is_shut_down = true;
                    doing.shut_down();
                }
                Verdict::Stalled(what) => {
                    end_stalled(what);
                    return Poll::Ready(End::Over);
                }
            }
            timer.as_mut().reset(now + watch.interval);
        }
    })
    .await
}

//! Bodies on their way through: never held whole, one piece at a time, and only as fast as the side that takes them.

use super::{Answer, deadline::Watch, pool::Lease};
use crate::{
    gateway::{
        exchange::Exchange,
        in_flight::{self, Tie},
        problem::{Problem, Refusal},
        route,
    },
    listen::{connection::Connection, http1::Fault, stream::Stream},
};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

/// How far a request body has come.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    bytes: AtomicU64,
    state: AtomicU8,
    /// Why it broke off, if that was its form.
    fault: OnceLock<Fault>,
}

/// States of an upload; it begins with 0, moving.
const DONE: u8 = 1;
const TOO_LARGE: u8 = 2;
const BROKEN: u8 = 3;

impl Upload {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether the last byte has been handed on.
    pub(crate) fn is_done(&self) -> bool {
        self.state.load(Ordering::Relaxed) == DONE
    }

    /// What is wrong with it, if that is why forwarding failed.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match self.state.load(Ordering::Relaxed) {
            TOO_LARGE => Some(Refusal::new(Problem::RequestTooLarge, "over-its-limit")),
            BROKEN => Some(match self.fault.get() {
                Some(fault) => route::malformed(*fault),
                None => Refusal::new(Problem::BadRequest, "body-broke-off"),
            }),
            _ => None,
        }
    }
}

/// The body of a request, on its way to the upstream.
pub(crate) struct UploadBody(Option<Moving>);

struct Moving {
    incoming: Incoming,
    upload: Arc<Upload>,
    bytes_max: u64,
    /// Who sends it: the stream, where there are several.
    client: (Arc<Connection>, Option<Arc<Stream>>),
    /// Its own: an upload can outlive the answer.
    tie: Option<Tie>,
    /// Whether the client is the one we wait for.
    waits: bool,
}

/// Why a body does not go on.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the request body is over its limit")]
    TooLarge,
    #[error("the client's body broke off")]
    Client,
    #[error("the upstream's body broke off")]
    Upstream,
    #[error("the upstream's body came to a standstill")]
    Standstill,
    #[error("the credential of the request holds no more")]
    Cut,
}

impl UploadBody {
    pub(crate) const fn empty() -> Self {
        Self(None)
    }

    pub(crate) fn new(
        incoming: Incoming,
        upload: Arc<Upload>,
        bytes_max: u64,
        client: (Arc<Connection>, Option<Arc<Stream>>),
        tie: Option<Tie>,
    ) -> Self {
        Self(Some(Moving { incoming, upload, bytes_max, client, tie, waits: false }))
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl HttpBody for UploadBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(moving) = &mut self.0 else { return Poll::Ready(None) };
        if moving.tie.as_ref().is_some_and(Tie::is_cut) {
            return Poll::Ready(Some(Err(BodyError::Cut)));
        }
        let polled = Pin::new(&mut moving.incoming).poll_frame(cx);
        moving.set_waits(polled.is_pending());
        let frame = match ready!(polled) {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => {
                if let Some(fault) = moving.client.0.fault() {
                    let _ = moving.upload.fault.set(fault);
                }
                moving.upload.state.store(BROKEN, Ordering::Relaxed);
                return Poll::Ready(Some(Err(BodyError::Client)));
            }
            None => {
                moving.upload.state.store(DONE, Ordering::Relaxed);
                return Poll::Ready(None);
            }
        };
        // Trailers of a request stay behind: they come after everything that is judged by fields has been judged.
        if frame.is_trailers() {
            moving.upload.state.store(DONE, Ordering::Relaxed);
            return Poll::Ready(None);
        }
        if let Some(data) = frame.data_ref() {
            let length = data.len() as u64;
            match &moving.client {
                (_, Some(stream)) => stream.body_came(length),
                (connection, None) => connection.body_came(length),
            }
            let total = moving.upload.bytes.fetch_add(length, Ordering::Relaxed).saturating_add(length);
            if total > moving.bytes_max {
                moving.upload.state.store(TOO_LARGE, Ordering::Relaxed);
                return Poll::Ready(Some(Err(BodyError::TooLarge)));
            }
        }
        if moving.incoming.is_end_stream() {
            moving.upload.state.store(DONE, Ordering::Relaxed);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|moving| moving.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |moving| moving.incoming.size_hint())
    }
}

impl Moving {
    fn set_waits(&mut self, waits: bool) {
        if waits != self.waits {
            self.waits = waits;
            match &self.client {
                (_, Some(stream)) => stream.waits_for_body(waits),
                (connection, None) => connection.waits_for_body(waits),
            }
        }
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.set_waits(false);
    }
}

/// The body of a response, on its way to the client. It carries the exchange, which ends with it.
pub(crate) struct Body {
    exchange: Option<Box<Exchange>>,
    /// Of HTTP/2: told what the client has been handed, also after the exchange has ended.
    stream: Option<Arc<Stream>>,
    content: Content,
}

enum Content {
    Nothing,
    Text(Bytes),
    Download { incoming: Incoming, lease: Option<Lease>, watch: Watch, idle_timeout: Duration },
}

impl Body {
    /// An answer of the gateway itself.
    pub(crate) const fn text(bytes: Bytes) -> Self {
        Self { exchange: None, stream: None, content: Content::Text(bytes) }
    }

    /// An answer of the upstream.
    const fn download(incoming: Incoming, lease: Lease, watch: Watch, idle_timeout: Duration) -> Self {
        Self {
            exchange: None,
            stream: None,
            content: Content::Download { incoming, lease: Some(lease), watch, idle_timeout },
        }
    }

    /// The exchange ends when the body does. `is_bare` if the client gets no body whatever it is: an answer to `HEAD`.
    pub(crate) fn carrying(mut self, mut exchange: Box<Exchange>, is_bare: bool) -> Self {
        exchange.finished = is_bare || self.is_end_stream();
        self.stream.clone_from(&exchange.stream);
        self.exchange = Some(exchange);
        self
    }

    fn finish(&mut self) {
        if let Some(mut exchange) = self.exchange.take() {
            exchange.finished = true;
            let content = std::mem::replace(&mut self.content, Content::Nothing);
            if let Content::Download { lease: Some(lease), .. } = content
                && exchange.upload.as_ref().is_none_or(|upload| upload.is_done())
            {
                lease.give_back(exchange.answered_us);
            }
        }
    }

    /// Ends an answer before its end: the credential of its request holds no more.
    fn cut(&mut self) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.fail(BodyError::Cut, in_flight::CUT)
    }

    fn fail(&mut self, error: BodyError, reason: &'static str) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(exchange) = &mut self.exchange {
            exchange.reason = reason;
        }
        Poll::Ready(Some(Err(error)))
    }
}

impl Answer {
    /// The answer as the client gets it, but for its headers.
    pub(crate) fn into_response(self, may_reuse: bool, now_us: u64) -> http::Response<Body> {
        let Self { response, lease, watch, idle_timeout } = self;
        let (parts, incoming) = response.into_parts();
        let body = if incoming.is_end_stream() {
            if may_reuse {
                lease.give_back(now_us);
            }
            Body { exchange: None, stream: None, content: Content::Nothing }
        } else {
            Body::download(incoming, lease, watch, idle_timeout)
        };
        http::Response::from_parts(parts, body)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = self.poll_next(cx);
        if let Some(stream) = &self.stream {
            let data = if let Poll::Ready(Some(Ok(frame))) = &polled { frame.data_ref() } else { None };
            stream.handed(data.map_or(0, |data| data.len() as u64));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Nothing => true,
            Content::Text(bytes) => bytes.is_empty(),
            Content::Download { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Nothing => SizeHint::with_exact(0),
            Content::Text(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Download { incoming, .. } => incoming.size_hint(),
        }
    }
}

impl Body {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self;
        if this.exchange.as_ref().is_some_and(|exchange| exchange.is_cut()) {
            return this.cut();
        }
        match &mut this.content {
            Content::Nothing => {
                this.finish();
                Poll::Ready(None)
            }
            Content::Text(bytes) => {
                let bytes = std::mem::take(bytes);
                this.content = Content::Nothing;
                if let Some(exchange) = &mut this.exchange {
                    exchange.bytes_out = bytes.len() as u64;
                }
                this.finish();
                if bytes.is_empty() { Poll::Ready(None) } else { Poll::Ready(Some(Ok(Frame::data(bytes)))) }
            }
            Content::Download { incoming, watch, idle_timeout, .. } => match Pin::new(&mut *incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let is_last = incoming.is_end_stream();
                    if !is_last {
                        watch.rearm(*idle_timeout);
                    }
                    if let (Some(exchange), Some(data)) = (&mut this.exchange, frame.data_ref()) {
                        exchange.bytes_out = exchange.bytes_out.saturating_add(data.len() as u64);
                    }
                    if is_last {
                        this.finish();
                    }
                    Poll::Ready(Some(Ok(frame)))
                }
                Poll::Ready(Some(Err(_))) => this.fail(BodyError::Upstream, "answer-broke-off"),
                Poll::Ready(None) => {
                    this.finish();
                    Poll::Ready(None)
                }
                Poll::Pending if watch.poll(cx).is_ready() => this.fail(BodyError::Standstill, "answer-stood-still"),
                Poll::Pending if this.exchange.as_ref().is_some_and(|exchange| exchange.poll_cut(cx).is_ready()) => {
                    this.cut()
                }
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

//! Sending a request on and bringing its answer back: whose connection, how long, how often, and what is said when it
//! does not work. Balancing, retries by policy and upgrades have their place here and in the rooms beside it.
//!
//! A request is sent again only if nothing of it was sent, or if it is idempotent, has no body and met a connection that
//! had been idle: such a connection may have been closed by the upstream at that very moment, and nobody is to blame.

mod body;
mod connect;
mod deadline;
pub(crate) mod headers;
mod pool;

pub(crate) use body::{Body, Upload, UploadBody};
pub(crate) use deadline::Deadlines;
pub(crate) use pool::Pool;

use super::{
    exchange::Exchange,
    problem::{Problem, Refusal},
};
use connect::ConnectError;
use deadline::Watch;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version, header};
use hyper::{body::Incoming, client::conn::TrySendError};
use pool::{Lease, Taken};
use smallvec::SmallVec;
use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

/// Targets that one request tries to reach, and idle connections that it finds dead, at most.
const ATTEMPTS_MAX: usize = 6;
/// Idle connections that one request tries; after that it makes its own.
const IDLE_ATTEMPTS_MAX: usize = 2;
/// Header fields that a copy of a request holds without asking for memory.
const FIELDS_INLINE: usize = 12;

/// What is to be sent.
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    /// Path and query alone.
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: UploadBody,
}

/// The head of the upstream's answer, and what its body will come through.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    lease: Lease,
    watch: Watch,
    idle_timeout: Duration,
}

/// Sends a request and waits for the head of its answer.
///
/// Not an `async fn`: the request would have two places in its future.
pub(crate) fn forward(
    exchange: &mut Exchange,
    pool: &Arc<Pool>,
    outgoing: Outgoing,
    response_timeout: Option<Duration>,
) -> impl Future<Output = Result<Answer, Refusal>> {
    let upstream = Arc::clone(pool.upstream());
    let response_timeout = response_timeout.unwrap_or(upstream.response_timeout);
    let worker = Arc::clone(&exchange.connection.worker);
    let watch = worker.deadlines.watch(response_timeout);
    let may_repeat = outgoing.method.is_idempotent() && outgoing.body.is_empty();
    let Outgoing { method, uri, headers, body } = outgoing;
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers;
    async move {
        let mut refusal = Refusal::new(Problem::UpstreamUnavailable { sent: false }, "no-target");

        for attempt in 0..ATTEMPTS_MAX {
            if attempt > 0 {
                pool.repeated.increment(1);
            }
            let now_us = if attempt == 0 { exchange.decided_us } else { worker.shared.clock.boot_us() };
            let mut lease = match pool.take(now_us, attempt >= IDLE_ATTEMPTS_MAX) {
                Taken::Idle(lease) => lease,
                // Boxed: what a handshake needs would make every request's future several times as large, and it is moved.
                Taken::Connect(permit) => match Box::pin(connect::connect(permit, upstream.connect_timeout)).await {
                    Ok(lease) => {
                        pool.connected.increment(1);
                        lease
                    }
                    Err(ConnectError { target, timed_out, reason }) => {
                        pool.refused.increment(1);
                        let more = pool.failed(target, worker.shared.clock.boot_us());
                        exchange.upstream = upstream.targets.get(target).map(|target| target.text.clone());
                        let problem = if timed_out {
                            Problem::UpstreamTimeout
                        } else {
                            Problem::UpstreamUnavailable { sent: false }
                        };
                        refusal = Refusal::new(problem, reason);
                        if more {
                            continue;
                        }
                        break;
                    }
                },
                Taken::Full => return Err(Refusal::new(Problem::Overloaded, "connections-busy")),
                Taken::NoTarget => break,
            };
            let target = upstream.targets.get(lease.target());
            exchange.upstream = target.map(|target| target.text.clone());
            // HTTP/1.0 may come without a host.
            let has_host = request.headers().get(header::HOST).is_some_and(|host| !host.is_empty());
            if let Some(target) = target.filter(|_| !upstream.keeps_host || !has_host) {
                request.headers_mut().insert(header::HOST, target.authority.clone());
            }
            if !lease.is_ready().await {
                continue;
            }
            let copy = (may_repeat && lease.is_reused()).then(|| Copy::of(&request));
            let sending = pin!(lease.sender().try_send_request(request));
            match send(sending, &watch, exchange.upload.as_deref(), response_timeout).await {
                Ok(response) => {
                    pool.succeeded(lease.target());
                    watch.rearm(upstream.idle_timeout);
                    return Ok(Answer { response, lease, watch, idle_timeout: upstream.idle_timeout });
                }
                Err(Failure::NotSent(unsent)) => request = *unsent,
                Err(Failure::TimedOut) => {
                    return Err(Refusal::new(Problem::UpstreamTimeout, "no-answer-in-time"));
                }
                Err(Failure::Broken) => {
                    if let Some(refusal) = exchange.upload.as_ref().and_then(|upload| upload.refusal()) {
                        return Err(refusal);
                    }
                    let Some(copy) = copy else {
                        let problem = Problem::UpstreamUnavailable { sent: true };
                        return Err(Refusal::new(problem, "closed-without-answer"));
                    };
                    request = copy.into_request();
                }
            }
        }
        Err(refusal)
    }
}

enum Failure {
    /// Nothing of it was sent: here it is again.
    NotSent(Box<Request<UploadBody>>),
    /// Some of it may have been sent.
    Broken,
    TimedOut,
}

async fn send(
    mut sending: Pin<&mut impl Future<Output = Result<Response<Incoming>, TrySendError<Request<UploadBody>>>>>,
    watch: &Watch,
    upload: Option<&Upload>,
    timeout: Duration,
) -> Result<Response<Incoming>, Failure> {
    let mut seen = 0;
    std::future::poll_fn(|cx| {
        if let Poll::Ready(sent) = sending.as_mut().poll(cx) {
            return Poll::Ready(sent.map_err(|mut error| match error.take_message() {
                Some(message) => Failure::NotSent(Box::new(message)),
                None => Failure::Broken,
            }));
        }
        while watch.poll(cx).is_ready() {
            // The time to answer begins when the request is there: a body that still moves is no silence.
            match upload {
                Some(upload) if !upload.is_done() && upload.bytes() > seen => {
                    seen = upload.bytes();
                    watch.rearm(timeout);
                }
                _ => return Poll::Ready(Err(Failure::TimedOut)),
            }
        }
        Poll::Pending
    })
    .await
}

/// A request without a body, to be sent once more if it must be. Nearly none is: a list costs a third of a second map.
struct Copy {
    method: Method,
    uri: Uri,
    fields: SmallVec<[(HeaderName, HeaderValue); FIELDS_INLINE]>,
}

impl Copy {
    fn of(request: &Request<UploadBody>) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            fields: request.headers().iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        }
    }

    fn into_request(self) -> Request<UploadBody> {
        let mut request = Request::new(UploadBody::empty());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = Version::HTTP_11;
        for (name, value) in self.fields {
            request.headers_mut().append(name, value);
        }
        request
    }
}

//! The data plane: takes requests, decides by an immutable view of the replicated state, forwards and records. It never
//! writes to the cluster, and asks it nothing while a request waits, but for an allowance where the node holds none.
//!
//! [`handle`] is the table of contents of a request. The files beside it are its chapters: [`route`], [`identify`],
//! [`authorize`], [`limit`], [`forward`], [`record`]; an [`exchange`] is what they hand to one another, a [`problem`] what they
//! refuse with. [`worker`] is what a thread holds between requests, [`running`] the threads themselves.

mod authorize;
pub(crate) mod draining;
mod exchange;
mod explain;
mod forward;
mod identify;
mod in_flight;
mod limit;
mod overload;
mod problem;
mod record;
mod route;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod rules;
mod running;
mod settings;
mod upkeep;
pub(crate) mod worker;

pub use authorize::STACK_BYTES;
pub use explain::{Counted, Explanation, Imagined, Presented, explain};
pub(crate) use overload::memory_default;
pub use running::{Handle, Status, start};
pub use settings::{AccessLog, Caps, Clock, Settings, StartError};
pub(crate) use worker::Worker;

use crate::{
    listen::{
        connection::{self, Connection},
        stream::Stream,
    },
    resource::{compile::CompiledRoute, subject::Traits},
};
use exchange::{Exchange, Stage};
use forward::{
    Body, Upload, UploadBody,
    headers::{self, Trace},
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use hyper::body::{Body as _, Incoming};
use in_flight::Tie;
use limit::Limited;
use problem::{Problem, Refusal};
use raft::mutation::{self, Mutation};
use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
};

/// Takes one request through all its stages. Whatever becomes of it is recorded, when its answer has been given or its
/// client has gone: the exchange sees to that when it is dropped.
///
/// Not an `async fn`: what such a function takes has two places in its future, and this one is moved.
pub(crate) fn handle(
    connection: Arc<Connection>,
    stream: Option<Arc<Stream>>,
    request: Request<Incoming>,
) -> impl Future<Output = Response<Body>> {
    let (mut parts, incoming) = request.into_parts();
    let (mut exchange, trace) = begin(connection, stream, &parts);
    async move {
        let is_bare = parts.method == Method::HEAD;
        let response = match pass(&mut exchange, trace, &mut parts, incoming).await {
            Ok(response) => response,
            Err(refusal) => {
                exchange.problem = Some(refusal.problem);
                exchange.reason = refusal.reason;
                refusal.response(exchange.request_id())
            }
        };
        finish(exchange, response, is_bare)
    }
}

/// The answer as the client gets it. `is_bare` if it gets no body whatever it is: an answer to `HEAD`.
fn finish(mut exchange: Box<Exchange>, mut response: Response<Body>, is_bare: bool) -> Response<Body> {
    let shared = &exchange.connection.worker.shared;
    let node = shared.settings.names_node.then_some(&shared.node_header);
    headers::for_client(response.headers_mut(), &exchange.request_id, node);
    if let Some(limits) = exchange.limits() {
        limits.fields().write(response.headers_mut(), exchange.limited.standings());
    }
    if exchange.connection.is_ending() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    exchange.status = response.status().as_u16();
    response.map(|body| body.carrying(exchange, is_bare))
}

/// The stages, in order. Each can end the request.
async fn pass(
    exchange: &mut Exchange,
    trace: Trace,
    parts: &mut Parts,
    incoming: Incoming,
) -> Result<Response<Body>, Refusal> {
    let connection = Arc::clone(&exchange.connection);
    let serving = Arc::clone(&exchange.serving);
    let shared = &connection.worker.shared;
    let caps = &shared.settings.caps;

    exchange.stage = Stage::Route;
    if let Some(fault) = connection.fault() {
        return Err(route::malformed(fault));
    }
    overload::shed(&connection.worker)?;
    let asked = route::read(parts, caps)?;
    if asked.path != parts.uri.path() {
        exchange.canonical = Some(asked.path.clone().into());
    }
    if connection.tls.as_ref().is_some_and(|tls| tls.is_misdirected(&asked.host)) {
        return Err(Refusal::new(Problem::Misdirected, "the connection was made for another host"));
    }
    let index = match route::find(&serving.plan.compiled, &asked, &parts.method) {
        // That there is no route is as old as the view.
        Err(_) if !exchange.has_authority && !serving.plan.compiled.serves_isolated => return Err(isolated()),
        found => found?,
    };
    exchange.route = Some(index);
    let (route, lane) = serving.plan.lane(index).ok_or(Refusal::new(Problem::NoRoute, "there is no such route"))?;
    if !exchange.has_authority && !route.serves_isolated {
        return Err(isolated());
    }
    let pool = match (&route.upstream, &lane.pool) {
        (Ok(_), Some(pool)) => pool,
        _ => return Err(Refusal::new(Problem::RouteUnavailable, "a document that it needs cannot be read")),
    };

    exchange.stage = Stage::Identify;
    let (caller, credential) = identify::identify(route, &serving.view, &parts.headers, || shared.clock.time().wall)?;
    if let Some(caller) = &caller {
        exchange.consumer = Some(caller.consumer.name.clone());
        exchange.key = Some(caller.key.id);
    }
    // From here on, whatever this worker is told of the credential finds the exchange.
    let cuts = caller.as_ref().filter(|_| route.cuts_on_revoke);
    let tie = cuts.map(|caller| connection.worker.in_flight.tie(caller, connection.id));

    exchange.stage = Stage::Authorize;
    let scheme = if connection.tls.is_some() { "https" } else { "http" };
    if let Some(caller) = &caller {
        let facts = authorize::Facts { host: &asked.host, path: &asked.path, scheme, client: exchange.client };
        authorize::authorize(&serving.plan.decisions, route, caller, &parts.method, &facts)?;
    }

    // Whatever else can refuse it comes first: who is refused has spent nothing.
    let body = upload(exchange, route, &parts.headers, incoming, tie.as_ref())?;
    let target = route::target(&parts.uri, &asked.path).ok_or(Refusal::new(Problem::BadRequest, "path"))?;
    let authority = asked.authority.clone();
    let traits = Traits {
        key: caller.as_ref().map(|caller| caller.key.id),
        consumer: caller.as_ref().map(|caller| &caller.consumer.name),
        route: &route.name,
        client: exchange.client,
        headers: &parts.headers,
    };
    limit::limit(exchange, &connection.worker, &lane.limits, &traits, tie.as_ref()).await?;

    exchange.stage = Stage::Forward;
    exchange.decide(&connection.worker);
    let facts = headers::Facts {
        is_trusted: connection.is_trusted,
        peer: &connection.peer_header,
        scheme,
        host: &authority,
        credential,
        consumer: caller.as_ref().map(|caller| caller.consumer.name.as_str()),
        request_id: &exchange.request_id,
        trace,
    };
    headers::for_upstream(&mut parts.headers, facts);
    let (method, headers) = (parts.method.clone(), std::mem::take(&mut parts.headers));
    let outgoing = forward::Outgoing { method, uri: target, headers, body };
    let answer = {
        let forwarding = pin!(forward::forward(exchange, pool, outgoing, route.response_timeout));
        in_flight::unless_cut(tie.as_ref(), forwarding).await??
    };
    exchange.tie = tie;
    exchange.answered_us = shared.clock.boot_us();
    if answer.response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Refusal::new(
            Problem::UpstreamUnavailable { sent: true },
            "the upstream changed the protocol unasked",
        ));
    }
    let may_reuse = exchange.upload.as_ref().is_none_or(|upload| upload.is_done());
    Ok(answer.into_response(may_reuse, exchange.answered_us))
}

fn isolated() -> Refusal {
    Refusal::new(Problem::Isolated, "no-authority")
}

fn begin(connection: Arc<Connection>, stream: Option<Arc<Stream>>, parts: &Parts) -> (Box<Exchange>, Trace) {
    let worker = &connection.worker;
    let shared = &worker.shared;
    // The order matters to the letter: the real clock after the request has begun, then the lease, then the view. A view
    // that was read before the lease can be older than a lease that was renewed in between, and a clock that was read
    // before the request began can find a lease valid that had ended when it did.
    let began_us = shared.clock.boot_us();
    let has_authority = shared.settings.authority.is_valid(began_us) || mutation::is(Mutation::IgnoresTheLease);
    let serving = worker.serving();
    connection.request_began();
    shared.in_flight.fetch_add(1, Ordering::Relaxed);
    let kept = if connection.is_trusted { headers::kept_request_id(&parts.headers) } else { None };
    let request_id = kept.unwrap_or_else(|| {
        let mut id = [0; 32];
        headers::write_hex(&mut id, &[worker.random(), worker.random()]);
        HeaderValue::from_bytes(&id).unwrap_or(HeaderValue::from_static(""))
    });
    let client = if connection.is_trusted {
        headers::client_address(&parts.headers, connection.peer, |address| connection::is_trusted(worker, address))
    } else {
        connection.peer
    };
    let trace = headers::trace(&parts.headers, || worker.random());
    let exchange = Box::new(Exchange {
        serving,
        has_authority,
        stage: Stage::Route,
        request_id,
        trace_id: trace.id,
        client,
        method: parts.method.clone(),
        uri: parts.uri.clone(),
        canonical: None,
        route: None,
        consumer: None,
        key: None,
        upstream: None,
        status: 0,
        problem: None,
        reason: "",
        limited: Limited::default(),
        upload: None,
        tie: None,
        bytes_out: 0,
        finished: false,
        decided: None,
        began_us,
        decided_us: 0,
        answered_us: 0,
        connection,
        stream,
    });
    (exchange, trace)
}

/// The body as it will be sent on; refused at once if it says that it is too long.
fn upload(
    exchange: &mut Exchange,
    route: &CompiledRoute,
    headers: &HeaderMap,
    incoming: Incoming,
    tie: Option<&Tie>,
) -> Result<UploadBody, Refusal> {
    if incoming.is_end_stream() {
        return Ok(UploadBody::empty());
    }
    let of_node = exchange.connection.worker.shared.settings.caps.body_bytes_max;
    let bytes_max = route.body_bytes_max.unwrap_or(of_node);
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.or(incoming.size_hint().exact()).is_some_and(|length| length > bytes_max) {
        let detail = format!("the most is {bytes_max} bytes");
        return Err(Refusal::new(Problem::RequestTooLarge, "Content-Length is over the limit").telling(detail));
    }
    let upload = Arc::new(Upload::default());
    exchange.upload = Some(Arc::clone(&upload));
    let client = (Arc::clone(&exchange.connection), exchange.stream.clone());
    Ok(UploadBody::new(incoming, upload, bytes_max, client, tie.cloned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// Every request makes one, and hyper moves it. Whoever makes it larger than this keeps something over an `await`, or
    /// hands something large to an `async fn` by value.
    #[test]
    fn a_request_in_progress_is_small() {
        let size = size_of_future(handle);
        assert!(size <= 4096, "{size} bytes");
    }
}

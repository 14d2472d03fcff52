//! The ops listener: plain HTTP for load balancers, metrics and people. It says how this node is; it changes nothing, and
//! whoever reaches it may read it.

mod condition;
mod histograms;
mod metrics;

pub use condition::{Condition, NotReady};
pub use metrics::{Metrics, start as start_metrics};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle};

/// Connections at a time: health checks and a scraper or two.
const CONNECTIONS_MAX: usize = 128;
/// How long a client may take to send a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves on a listener that is bound, until the task is aborted.
pub fn serve(listener: TcpListener, condition: Arc<Condition>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the ops listener could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let condition = Arc::clone(&condition);
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let condition = Arc::clone(&condition);
                    async move {
                        Ok::<_, Infallible>(match request.uri().path() {
                            "/debug/state" => debug_state(&condition).await,
                            _ => answer(&request, &condition),
                        })
                    }
                });
                // A client that breaks off is its own affair.
                let _ = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                drop(permit);
            });
        }
    })
}

fn answer(request: &Request<Incoming>, condition: &Condition) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return json(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": "only GET is served here" }));
    }
    match request.uri().path() {
        "/livez" => json(StatusCode::OK, &json!({ "live": true })),
        "/readyz" => match condition.ready() {
            Ok(()) => json(StatusCode::OK, &json!({ "ready": true })),
            Err(why) => json(
                StatusCode::SERVICE_UNAVAILABLE,
                &json!({ "ready": false, "reason": why.as_str(), "message": why.to_string() }),
            ),
        },
        "/serving" => {
            let serving = condition.is_serving();
            let status = if serving { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            json(status, &json!({ "serving": serving }))
        }
        "/metrics" => {
            let text = condition.metrics();
            respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
        }
        "/status" => json(StatusCode::OK, &condition.status()),
        _ => json(
            StatusCode::NOT_FOUND,
            &json!({ "error": "there are /livez, /readyz, /serving, /metrics and /status here" }),
        ),
    }
}

/// What a test compares over the nodes. Whole states are read for it, so it is there only where a test asked for it.
async fn debug_state(condition: &Arc<Condition>) -> Response<Full<Bytes>> {
    let condition = Arc::clone(condition);
    match tokio::task::spawn_blocking(move || condition.debug_state()).await.ok().flatten() {
        Some(state) => json(StatusCode::OK, &state),
        None => json(StatusCode::NOT_FOUND, &json!({ "error": "no digests are kept here" })),
    }
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Full<Bytes>> {
    respond(status, "application/json", format!("{value}\n"))
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

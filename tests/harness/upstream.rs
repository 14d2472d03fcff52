//! An upstream under the control of a test: it answers what a closure says, and remembers what it saw.

use crate::{
    json::{Value, json},
    runtime::runtime,
};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{net::TcpListener, task::AbortHandle};

/// A running upstream; it ends when dropped.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: AbortHandle,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The headers.
    pub headers: HeaderMap,
    /// How long the body was.
    pub body_length: usize,
}

/// What to answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Bytes,
    /// Wait so long first.
    pub after: Duration,
}

impl Default for Reply {
    fn default() -> Self {
        Self { status: 200, headers: Vec::new(), body: Bytes::new(), after: Duration::ZERO }
    }
}

impl Upstream {
    /// Answers with what it saw, as the echo of `quorate dev` does.
    pub fn echo() -> Self {
        Self::with(|seen| Reply {
            headers: vec![("content-type", "application/json".to_owned())],
            body: seen.to_json().to_string().into(),
            ..Reply::default()
        })
    }

    /// Answers what the closure says.
    pub fn with(reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::at(Ipv4Addr::LOCALHOST.into(), usize::MAX, reply)
    }

    /// The same at an address of this machine, remembering only so many of the requests that it saw: for long runs, which
    /// write down for themselves what they want to know.
    pub fn at(host: IpAddr, remembered_max: usize, reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let reply = Arc::new(reply);
        let listener = runtime().block_on(TcpListener::bind((host, 0))).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let log = Arc::clone(&seen);
        let task = runtime().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, reply) = (Arc::clone(&log), Arc::clone(&reply));
                tokio::spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (log, reply) = (Arc::clone(&log), Arc::clone(&reply));
                        async move {
                            let Some(seen) = see(request).await else { return Ok(Response::new(Full::default())) };
                            let answer = reply(&seen);
                            {
                                let mut log = log.lock().expect("never poisoned");
                                if log.len() < remembered_max {
                                    log.push(seen);
                                }
                            }
                            tokio::time::sleep(answer.after).await;
                            let mut response = Response::builder().status(answer.status);
                            for (name, value) in answer.headers {
                                response = response.header(name, value);
                            }
                            Ok::<_, Infallible>(response.body(Full::new(answer.body)).expect("a valid answer"))
                        }
                    });
                    let _ =
                        auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, seen, task: task.abort_handle() }
    }

    /// As a resource file names it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What arrived so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("never poisoned").clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seen {
    fn to_json(&self) -> Value {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let headers: Vec<Value> = self
            .headers
            .iter()
            .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
            .collect();
        json!({"method": self.method, "path": path, "query": query, "headers": headers, "body_length": self.body_length})
    }
}

async fn see(request: Request<Incoming>) -> Option<Seen> {
    let (head, mut body) = request.into_parts();
    let mut body_length = 0;
    while let Some(frame) = body.frame().await {
        body_length += frame.ok()?.data_ref().map_or(0, Bytes::len);
    }
    Some(Seen { method: head.method.to_string(), target: head.uri.to_string(), headers: head.headers, body_length })
}

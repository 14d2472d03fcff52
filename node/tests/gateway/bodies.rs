//! Bodies in both directions: streamed, held back when the other side is slow, bounded.

use crate::harness::*;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use quorate::gateway::Caps;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;

type Part = Result<Frame<Bytes>, Box<dyn std::error::Error + Send + Sync>>;

/// A body that is fed by hand.
fn fed() -> (mpsc::Sender<Part>, AnyBody) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, BodyExt::boxed(StreamBody::new(ReceiverStream::new(receiver))))
}

fn data(text: &'static str) -> Part {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// The next frame that holds something.
async fn next(body: &mut Incoming) -> Option<Frame<Bytes>> {
    loop {
        let frame = soon("a frame", body.frame()).await.transpose().unwrap();
        if !frame.as_ref().and_then(Frame::data_ref).is_some_and(Bytes::is_empty) {
            return frame;
        }
    }
}

/// A body without end that counts what was taken of it.
fn endless(count: Arc<AtomicU64>) -> AnyBody {
    let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
    let stream = tokio_stream::iter(std::iter::repeat_with(move || {
        count.fetch_add(chunk.len() as u64, Ordering::SeqCst);
        Ok(Frame::data(chunk.clone())) as Part
    }));
    BodyExt::boxed(StreamBody::new(stream))
}

/// Waits until a counter stands still, and says where.
async fn standstill(count: &AtomicU64) -> u64 {
    let mut before = count.load(Ordering::SeqCst);
    let mut still = 0;
    soon("a standstill", async {
        while still < 20 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            let now = count.load(Ordering::SeqCst);
            still = if now == before && now > 0 { still + 1 } else { 0 };
            before = now;
        }
    })
    .await;
    before
}

/// What the buffers of four sockets and the gateway may hold: far less than a body without end.
const BUFFERS_MAX: u64 = 48 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_arrives_piece_by_piece() {
    let (feed, parts) = mpsc::channel::<mpsc::Sender<Part>>(1);
    let upstream = Upstream::start(move |_| {
        let feed = feed.clone();
        async move {
            let (sender, body) = fed();
            feed.send(sender).await.unwrap();
            Response::new(body)
        }
    })
    .await;
    let mut parts = parts;
    let cluster = Cluster::start(&resources(&upstream.url())).await;
    for http2 in [false, true] {
        let stream = tokio::net::TcpStream::connect(cluster.address()).await.unwrap();
        let mut client = if http2 { Client::http2(stream).await } else { Client::http1(stream).await };
        let response = client.send(get("/open/x", "")).await.unwrap();
        let sender = soon("the request", parts.recv()).await.unwrap();
        let mut body = response.into_body();
        for text in ["one", "two"] {
            sender.send(data(text)).await.unwrap();
            assert_eq!(next(&mut body).await.unwrap().into_data().unwrap(), text);
        }
        drop(sender);
        assert!(next(&mut body).await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_holds_the_upstream_back() {
    let count = Arc::new(AtomicU64::new(0));
    let counter = count.clone();
    let upstream = Upstream::start(move |_| {
        let body = endless(counter.clone());
        async move { Response::new(body) }
    })
    .await;
    let cluster = Cluster::start(&resources(&upstream.url())).await;
    for http2 in [false, true] {
        count.store(0, Ordering::SeqCst);
        let stream = tokio::net::TcpStream::connect(cluster.address()).await.unwrap();
        let mut client = if http2 { Client::http2(stream).await } else { Client::http1(stream).await };
        let response = client.send(get("/open/x", "")).await.unwrap();
        let sent = standstill(&count).await;
        assert!(sent < BUFFERS_MAX, "{sent} bytes were taken for a client that reads nothing");
        drop(response);
        drop(client);
        // The client is gone: so is the request to the upstream.
        let gateway = cluster.gateway.clone();
        until("the end of the request", || gateway.status().in_flight == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_upstream_holds_the_client_back() {
    let go_on = Arc::new(Notify::new());
    let wait = go_on.clone();
    let upstream = Upstream::start(move |request| {
        let wait = wait.clone();
        async move {
            wait.notified().await;
            drop(request);
            Response::new(full("enough"))
        }
    })
    .await;
    let mut with = settings();
    with.caps = Caps { body_bytes_max: u64::MAX, ..Caps::default() };
    let cluster = Cluster::start_with(with, &resources(&upstream.url())).await;
    let count = Arc::new(AtomicU64::new(0));
    let mut client = Client::connect(cluster.address()).await;
    let request = Request::post("/open/x").body(endless(count.clone())).unwrap();
    let sending = tokio::spawn(async move { client.send(request).await.map(|response| response.status()) });
    let sent = standstill(&count).await;
    assert!(sent < BUFFERS_MAX, "{sent} bytes were taken for an upstream that reads nothing");
    go_on.notify_one();
    // The answer comes though the body has no end.
    assert_eq!(soon("the answer", sending).await.unwrap().unwrap(), 200);
}

#[tokio::test]
async fn a_body_that_grows_over_its_limit_is_cut_off() {
    let upstream = Upstream::echo().await;
    let mut with = settings();
    with.caps = Caps { body_bytes_max: 1_000_000, ..Caps::default() };
    let cluster = Cluster::start_with(with, &resources(&upstream.url())).await;
    let taken = Arc::new(AtomicU64::new(0));
    let mut client = Client::connect(cluster.address()).await;
    let request = Request::post("/open/x").body(endless(taken.clone())).unwrap();
    // The answer may be lost when the connection is closed under a client that goes on sending; what must not happen is
    // an answer of the upstream.
    if let Ok(response) = client.send(request).await {
        assert_eq!(response.status(), 413);
    }
    let gateway = cluster.gateway.clone();
    until("the end of the request", || gateway.status().in_flight == 0).await;
}

#[tokio::test]
async fn a_chunked_body_is_counted() {
    let upstream = Upstream::echo().await;
    let mut with = settings();
    with.caps = Caps { body_bytes_max: 6, ..Caps::default() };
    let cluster = Cluster::start_with(with, &resources(&upstream.url())).await;
    for (parts, expected) in [(["abc", "def"], 200), (["abc", "defg"], 413)] {
        let body = StreamBody::new(tokio_stream::iter(parts.map(data)));
        let request = Request::post("/open/x").body(BodyExt::boxed(body)).unwrap();
        let reply = ask(cluster.address(), request).await;
        assert_eq!(reply.status, expected);
        if expected == 413 {
            assert_eq!(reply.problem(), "413 request-too-large");
        }
    }
}

#[tokio::test]
async fn trailers_and_a_body_in_both_directions() {
    let upstream = Upstream::start(|request| async move {
        // Answers with what comes, while it comes.
        let (sender, body) = fed();
        tokio::spawn(async move {
            let mut incoming = request.into_body();
            while let Some(Ok(frame)) = incoming.frame().await {
                if sender.send(Ok(frame)).await.is_err() {
                    return;
                }
            }
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-sum", "42".parse().unwrap());
            let _ = sender.send(Ok(Frame::trailers(trailers))).await;
        });
        Response::builder().header("trailer", "x-sum").body(body).unwrap()
    })
    .await;
    let cluster = Cluster::start(&resources(&upstream.url())).await;
    let stream = tokio::net::TcpStream::connect(cluster.address()).await.unwrap();
    let mut client = Client::http2(stream).await;
    let (sender, body) = fed();
    let response = client.send(Request::post("/open/x").header("te", "trailers").body(body).unwrap()).await.unwrap();
    let mut incoming = response.into_body();
    for text in ["ping", "pong"] {
        sender.send(data(text)).await.unwrap();
        assert_eq!(next(&mut incoming).await.unwrap().into_data().unwrap(), text);
    }
    drop(sender);
    let trailers = next(&mut incoming).await.unwrap().into_trailers().unwrap();
    assert_eq!(trailers["x-sum"], "42");
}

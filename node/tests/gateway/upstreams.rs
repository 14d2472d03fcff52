//! Upstreams that are down, slow, rude, or of several minds.

use crate::harness::*;
use http::{Request, Response};
use std::{future::pending, sync::atomic::Ordering};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// A port where nobody listens.
async fn dead() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn an_upstream_that_is_down_is_unavailable() {
    let cluster = Cluster::start(&resources(&dead().await)).await;
    let mut client = Client::connect(cluster.address()).await;
    for _ in 0..3 {
        assert_eq!(client.get("/open/x", "").await.problem(), "503 upstream-unavailable");
    }
}

#[tokio::test]
async fn a_dead_target_is_passed_over() {
    let upstream = Upstream::echo().await;
    let text = resources(&upstream.url()).replace("targets: [", &format!("targets: ['{}', ", dead().await));
    let cluster = Cluster::start(&text).await;
    let mut client = Client::connect(cluster.address()).await;
    for _ in 0..20 {
        let request = Request::post("/open/x").body(full("once")).unwrap();
        assert_eq!(client.ask(request).await.json()["body_length"], 4);
    }
}

#[tokio::test]
async fn targets_take_turns() {
    let (one, other) = (Upstream::echo().await, Upstream::echo().await);
    let text = resources(&one.url()).replace("targets: [", &format!("targets: ['{}', ", other.url()));
    let cluster = Cluster::start(&text.replace("{ targets", "{ host: target, targets")).await;
    let mut client = Client::connect(cluster.address()).await;
    let mut hosts = Vec::new();
    for _ in 0..6 {
        hosts.push(client.get("/open/x", "").await.received("host").unwrap());
    }
    assert_eq!(hosts[0], hosts[2]);
    assert_eq!(hosts[1], hosts[3]);
    assert_ne!(hosts[0], hosts[1]);
    assert_eq!(one.accepted.load(Ordering::SeqCst) + other.accepted.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_times_out() {
    let upstream = Upstream::start(|_| pending::<Response<AnyBody>>()).await;
    let text = resources(&upstream.url()).replace("open: {", "open: { response_timeout: 100ms,");
    let cluster = Cluster::start(&text).await;
    let reply = ask(cluster.address(), get("/open/x", "")).await;
    assert_eq!(reply.problem(), "504 upstream-timeout");
    let request = Request::post("/open/x").body(full("sent whole")).unwrap();
    assert_eq!(ask(cluster.address(), request).await.problem(), "504 upstream-timeout");
}

#[tokio::test]
async fn an_answer_that_stands_still_is_cut_off() {
    let upstream = Upstream::start(|_| async {
        let body = http_body_util::StreamBody::new(tokio_stream::StreamExt::chain(
            tokio_stream::once(Ok::<_, Box<dyn std::error::Error + Send + Sync>>(hyper::body::Frame::data(
                "some".into(),
            ))),
            tokio_stream::pending(),
        ));
        Response::new(http_body_util::BodyExt::boxed(body))
    })
    .await;
    let text = resources(&upstream.url()).replace("{ targets", "{ idle_timeout: 100ms, targets");
    let cluster = Cluster::start(&text).await;
    let mut client = Client::connect(cluster.address()).await;
    let response = client.send(get("/open/x", "")).await.unwrap();
    assert_eq!(response.status(), 200);
    let whole = soon("the end", http_body_util::BodyExt::collect(response.into_body())).await;
    assert!(whole.is_err(), "an answer that is not whole must not look so");
}

/// An upstream that does as it likes with each connection.
async fn rude<F, R>(act: F) -> String
where
    F: Fn(usize, tokio::net::TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut number = 0;
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(act(number, stream));
            number += 1;
        }
    });
    format!("http://{address}")
}

async fn read_head(stream: &mut tokio::net::TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return false;
        }
    }
    true
}

#[tokio::test]
async fn an_upstream_that_hangs_up_is_a_bad_gateway() {
    let url = rude(|_, mut stream| async move {
        read_head(&mut stream).await;
    })
    .await;
    let cluster = Cluster::start(&resources(&url)).await;
    assert_eq!(ask(cluster.address(), get("/open/x", "")).await.problem(), "502 upstream-unavailable");
    let url = rude(|_, mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"nonsense\r\n\r\n").await;
    })
    .await;
    let cluster = Cluster::start(&resources(&url)).await;
    assert_eq!(ask(cluster.address(), get("/open/x", "")).await.problem(), "502 upstream-unavailable");
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_not_the_clients_problem() {
    // Every connection answers once, says nothing of closing, and hangs up on the next request.
    let url = rude(|_, mut stream| async move {
        if read_head(&mut stream).await {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            read_head(&mut stream).await;
        }
    })
    .await;
    let cluster = Cluster::start(&resources(&url)).await;
    let mut client = Client::connect(cluster.address()).await;
    for _ in 0..10 {
        assert_eq!(client.get("/open/x", "").await.body, "ok");
    }
    // What is not idempotent is never sent twice.
    let post = || Request::post("/open/x").body(full("pay")).unwrap();
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(client.ask(post()).await.status.as_u16());
    }
    assert!(seen.iter().all(|status| matches!(status, 200 | 502)), "{seen:?}");
}

#[tokio::test]
async fn hop_by_hop_fields_of_an_answer_stay_behind() {
    let url = rude(|_, mut stream| async move {
        read_head(&mut stream).await;
        let answer = b"HTTP/1.1 200 OK\r\nconnection: x-hop, close\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nx-quorate-node: 99\r\nx-kept: 1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        let _ = stream.write_all(answer).await;
    })
    .await;
    let cluster = Cluster::start(&resources(&url)).await;
    let mut client = Client::connect(cluster.address()).await;
    for _ in 0..3 {
        let reply = client.get("/open/x", "").await;
        assert_eq!(reply.body, "ok");
        assert_eq!(reply.headers["x-kept"], "1");
        assert_eq!(reply.headers["x-quorate-node"], "7");
        for gone in ["x-hop", "keep-alive", "connection"] {
            assert!(!reply.headers.contains_key(gone), "{gone}");
        }
    }
}

#[tokio::test]
async fn connections_to_an_upstream_are_bounded() {
    let go_on = std::sync::Arc::new(tokio::sync::Notify::new());
    let wait = go_on.clone();
    let upstream = Upstream::start(move |_| {
        let wait = wait.clone();
        async move {
            wait.notified().await;
            Response::new(full("ok"))
        }
    })
    .await;
    let mut with = settings();
    with.workers = 1;
    let text = resources(&upstream.url()).replace("{ targets", "{ connections_max: 2, targets");
    let cluster = Cluster::start_with(with, &text).await;
    let address = cluster.address();
    let busy: Vec<_> = (0..2).map(|_| tokio::spawn(ask(address, get("/open/x", "")))).collect();
    until("both connections", || upstream.accepted.load(Ordering::SeqCst) == 2).await;
    let gateway = cluster.gateway.clone();
    until("both requests", || gateway.status().in_flight == 2).await;
    assert_eq!(ask(address, get("/open/x", "")).await.problem(), "503 overloaded");
    go_on.notify_one();
    go_on.notify_one();
    for one in busy {
        assert_eq!(soon("an answer", one).await.unwrap().status, 200);
    }
}

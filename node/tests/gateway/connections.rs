//! Client connections: how long they may be idle or slow, how many there may be, and how they end.

use crate::harness::*;
use http::Response;
use quorate::gateway::{self, Caps, StartError};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};

fn impatient() -> gateway::Settings {
    let mut with = settings();
    with.caps = Caps {
        header_read_timeout: Duration::from_millis(200),
        idle_timeout: Duration::from_millis(200),
        connections_max: 10,
        ..Caps::default()
    };
    with
}

/// Reads to the end of a connection.
async fn end_of(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let _ = soon("the end of the connection", stream.read_to_end(&mut text)).await;
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn a_client_that_says_nothing_or_little_is_let_go() {
    let upstream = Upstream::echo().await;
    let cluster = Cluster::start_with(impatient(), &resources(&upstream.url())).await;
    for beginning in ["", "G", "PRI * HTTP/2.0\r\n", "GET /open/x HTTP/1.1\r\nhost: a\r\n"] {
        let mut stream = TcpStream::connect(cluster.address()).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        assert_eq!(end_of(&mut stream).await, "");
    }
    // A byte now and then does not help.
    let mut stream = TcpStream::connect(cluster.address()).await.unwrap();
    let drip = async {
        while stream.write_all(b"G").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the end of a drip", drip).await;
}

#[tokio::test]
async fn an_idle_connection_ends_and_a_busy_one_does_not() {
    let go_on = Arc::new(Notify::new());
    let wait = go_on.clone();
    let upstream = Upstream::start(move |_| {
        let wait = wait.clone();
        async move {
            wait.notified().await;
            Response::new(full("late"))
        }
    })
    .await;
    let cluster = Cluster::start_with(impatient(), &resources(&upstream.url())).await;
    let mut stream = TcpStream::connect(cluster.address()).await.unwrap();
    stream.write_all(b"GET /open/x HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    // Several times longer than a client may be idle: it is the upstream that is slow here.
    tokio::time::sleep(Duration::from_millis(700)).await;
    go_on.notify_one();
    let reply = end_of(&mut stream).await;
    assert!(reply.starts_with("HTTP/1.1 200 OK") && reply.ends_with("late"), "{reply}");
}

#[tokio::test]
async fn a_client_that_stops_in_its_body_is_let_go() {
    let upstream = Upstream::echo().await;
    let cluster = Cluster::start_with(impatient(), &resources(&upstream.url())).await;
    let mut stream = TcpStream::connect(cluster.address()).await.unwrap();
    stream.write_all(b"POST /open/x HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc").await.unwrap();
    assert_eq!(end_of(&mut stream).await, "");
    let gateway = cluster.gateway.clone();
    until("the end of the request", || gateway.status().in_flight == 0).await;
}

#[tokio::test]
async fn connections_are_counted() {
    let upstream = Upstream::echo().await;
    let mut with = impatient();
    with.caps.header_read_timeout = PATIENCE;
    with.caps.idle_timeout = PATIENCE;
    let cluster = Cluster::start_with(with, &resources(&upstream.url())).await;
    let mut open = Vec::new();
    for _ in 0..10 {
        let mut client = Client::connect(cluster.address()).await;
        assert_eq!(client.get("/open/x", "").await.status, 200);
        open.push(client);
    }
    let mut stream = TcpStream::connect(cluster.address()).await.unwrap();
    let _ = stream.write_all(b"GET /open/x HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(end_of(&mut stream).await, "");
    open.pop();
    let gateway = cluster.gateway.clone();
    until("room", || gateway.status().connections < 10).await;
    assert_eq!(ask(cluster.address(), get("/open/x", "")).await.status, 200);
}

#[tokio::test]
async fn draining_lets_requests_finish() {
    let go_on = Arc::new(Notify::new());
    let wait = go_on.clone();
    let upstream = Upstream::start(move |_| {
        let wait = wait.clone();
        async move {
            wait.notified().await;
            Response::new(full("done"))
        }
    })
    .await;
    let cluster = Cluster::start(&resources(&upstream.url())).await;
    let address = cluster.address();
    let _idle = Client::connect(address).await;
    let busy = tokio::spawn(ask(address, get("/open/x", "")));
    let gateway = cluster.gateway.clone();
    until("the request", || gateway.status().in_flight == 1).await;
    let draining = tokio::spawn(cluster.gateway.drain(PATIENCE));
    until("the listener's end", || std::net::TcpStream::connect(address).is_err()).await;
    go_on.notify_one();
    assert_eq!(soon("the answer", busy).await.unwrap().body, "done");
    soon("the end", draining).await.unwrap();
    assert_eq!(cluster.gateway.status().connections, 0);
}

#[tokio::test]
async fn draining_ends_what_does_not() {
    let upstream = Upstream::start(|_| std::future::pending::<Response<AnyBody>>()).await;
    let cluster = Cluster::start(&resources(&upstream.url())).await;
    let mut client = Client::connect(cluster.address()).await;
    let busy = tokio::spawn(async move { client.send(get("/open/x", "")).await.is_err() });
    let gateway = cluster.gateway.clone();
    until("the request", || gateway.status().in_flight == 1).await;
    soon("the end", cluster.gateway.drain(Duration::from_millis(50))).await;
    assert!(soon("the client's end", busy).await.unwrap());
    assert_eq!(cluster.gateway.status().in_flight, 0);
}

#[tokio::test]
async fn a_port_in_use_is_an_error() {
    let upstream = Upstream::echo().await;
    let cluster = Cluster::start(&resources(&upstream.url())).await;
    let mut with = settings();
    with.plain = Some(cluster.address());
    let clock = cluster.clock.clone();
    match gateway::start(with, 8, clock, Arc::new(machine::View::default())) {
        Err(StartError::Listen { address, .. }) => assert_eq!(address, cluster.address()),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("two gateways on one port"),
    }
}

#[tokio::test]
async fn a_port_is_free_again_at_once() {
    let upstream = Upstream::echo().await;
    let cluster = Cluster::start(&resources(&upstream.url())).await;
    let address = cluster.address();
    assert_eq!(ask(address, get("/open/x", "")).await.status, 200);
    cluster.gateway.drain(PATIENCE).await;
    let mut with = settings();
    with.plain = Some(address);
    let again = Cluster::start_with(with, &resources(&upstream.url())).await;
    assert_eq!(ask(again.address(), get("/open/x", "")).await.status, 200);
}

#[tokio::test]
async fn http_2_begins_by_itself() {
    let upstream = Upstream::echo().await;
    let mut cluster = Cluster::start(&resources(&upstream.url())).await;
    let key = cluster.create_key("acme", None, &[]).await;
    let mut client = Client::http2(TcpStream::connect(cluster.address()).await.unwrap()).await;
    let reply = client.get("/x?y", &key.text()).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["target"], "/x?y");
    assert_eq!(reply.received("host").unwrap(), "api.test");
    assert_eq!(client.get("/x", "").await.problem(), "401 unauthenticated");
    let two_hosts = http::Request::get("http://api.test/open/x").header("host", "other.test").body(full("")).unwrap();
    assert_eq!(client.ask(two_hosts).await.problem(), "400 bad-request");
}

#[tokio::test]
async fn requests_can_follow_one_another_closely() {
    let upstream = Upstream::echo().await;
    let cluster = Cluster::start(&resources(&upstream.url())).await;
    let one = "GET /open/1 HTTP/1.1\r\nhost: a\r\n\r\n";
    let last = "GET /open/3 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let reply = raw(cluster.address(), format!("{one}{one}{last}").as_bytes()).await;
    assert_eq!(reply.matches("HTTP/1.1 200 OK").count(), 3, "{reply}");
}

#[tokio::test]
async fn a_connection_that_has_rested_serves_again_and_drains() {
    let upstream = Upstream::echo().await;
    let mut with = impatient();
    // It is looked at each 50 ms, and rests from the second look on.
    with.caps.idle_timeout = 20 * PATIENCE;
    let cluster = Cluster::start_with(with, &resources(&upstream.url())).await;
    let mut kept = Client::connect(cluster.address()).await;
    for _ in 0..3 {
        assert_eq!(kept.get("/open/x", "").await.status, 200);
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    // What comes after a rest may come in pieces, and several at once.
    let mut raw = TcpStream::connect(cluster.address()).await.unwrap();
    for piece in [
        "GET /open/1 HTTP/1.1\r\nhost: a\r\n\r\n",
        "G",
        "ET /open/2 HTTP/1.1\r\nhost: a\r\n\r\nGET /open/3 HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        raw.write_all(piece.as_bytes()).await.unwrap();
        if piece.len() > 1 {
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    }
    raw.write_all(b"GET /open/4 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    assert_eq!(end_of(&mut raw).await.matches("HTTP/1.1 200 OK").count(), 4);
    soon("the end", cluster.gateway.drain(PATIENCE)).await;
    assert_eq!(cluster.gateway.status().connections, 0);
}

//! Clients that take what others need: slow in what they send, slow in what they take, silent, or too many. Each is let go after the
//! time that is set for it, while somebody else is served all along.

use crate::{
    harness::*,
    tls::{Authority, with_tls},
};
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use quorate::gateway::{Caps, Settings};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::Notify,
    task::JoinHandle,
};

const LITTLE: Duration = Duration::from_millis(20);

fn with(caps: Caps) -> Settings {
    Settings { caps, ..settings() }
}

fn impatient() -> Caps {
    Caps {
        header_read_timeout: Duration::from_millis(300),
        handshake_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(300),
        ..Caps::default()
    }
}

/// Somebody who is served all along, on new connections and a kept one.
struct Bystander {
    stop: Arc<Notify>,
    task: JoinHandle<usize>,
}

impl Bystander {
    fn of(address: SocketAddr) -> Self {
        let stop = Arc::new(Notify::new());
        let told = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut kept = Client::connect(address).await;
            let mut served = 0;
            loop {
                assert_eq!(kept.get("/open/x", "").await.status, 200);
                assert_eq!(ask(address, get("/open/x", "")).await.status, 200);
                served += 1;
                tokio::select! {
                    () = tokio::time::sleep(LITTLE) => {}
                    () = told.notified() => return served,
                }
            }
        });
        Self { stop, task }
    }

    async fn was_served(self) {
        self.stop.notify_one();
        assert!(soon("the bystander", self.task).await.unwrap() > 0);
    }
}

/// Writes a byte now and then until the other side has closed; returns what it said.
async fn drip(stream: TcpStream) -> String {
    let (mut reader, mut writer) = stream.into_split();
    let dripping = tokio::spawn(async move {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(LITTLE).await;
        }
    });
    let mut reply = Vec::new();
    let _ = soon("the end of the connection", reader.read_to_end(&mut reply)).await;
    dripping.abort();
    String::from_utf8_lossy(&reply).into_owned()
}

/// Whether the gateway closes a connection that says nothing.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    matches!(soon("an end", stream.read(&mut byte)).await, Ok(0) | Err(_))
}

#[tokio::test]
async fn a_head_that_drips_or_breaks_off() {
    let upstream = Upstream::echo().await;
    let cluster = Cluster::start_with(with(impatient()), &resources(&upstream.url())).await;
    let bystander = Bystander::of(cluster.address());
    for beginning in ["GET /open/x HTTP/1.1\r\nhost: a\r\nx-long: ", "G", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = TcpStream::connect(cluster.address()).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let reply = drip(stream).await;
        assert!(!reply.contains("200"), "{reply}");
    }
    // A second head, after a request that was answered; and one whose sender will send no more.
    let mut stream = TcpStream::connect(cluster.address()).await.unwrap();
    stream.write_all(b"GET /open/x HTTP/1.1\r\nhost: a\r\n\r\nGET /open/x HTTP/1.1\r\nx-long: ").await.unwrap();
    assert_eq!(drip(stream).await.matches("HTTP/1.1 200 OK").count(), 1);
    let mut stream = TcpStream::connect(cluster.address()).await.unwrap();
    stream.write_all(b"GET /open/x HTTP/1.1\r\nhost: a").await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(!drip(stream).await.contains("200"));
    bystander.was_served().await;
}

#[tokio::test]
async fn a_body_that_drips() {
    let upstream = Upstream::echo().await;
    let caps = Caps { idle_timeout: Duration::from_secs(1), body_rate_min: 2_000, ..Caps::default() };
    let cluster = Cluster::start_with(with(caps), &resources(&upstream.url())).await;
    let bystander = Bystander::of(cluster.address());
    let head = |length: usize| {
        format!("POST /open/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n")
    };
    let mut slow = TcpStream::connect(cluster.address()).await.unwrap();
    slow.write_all(head(1_000_000).as_bytes()).await.unwrap();
    // Slow, but not too slow: it is answered, after a time in which the other one would have been let go twice.
    let mut steady = TcpStream::connect(cluster.address()).await.unwrap();
    steady.write_all(head(150 * 2_000).as_bytes()).await.unwrap();
    let steady = tokio::spawn(async move {
        for _ in 0..150 {
            steady.write_all(&[b'x'; 2_000]).await.unwrap();
            tokio::time::sleep(LITTLE).await;
        }
        let mut reply = String::new();
        let _ = steady.read_to_string(&mut reply).await;
        reply
    });
    assert_eq!(drip(slow).await, "");
    let reply = soon("the steady one's answer", steady).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 OK") && reply.contains("\"body_length\":300000"), "{reply}");
    bystander.was_served().await;
}

#[tokio::test]
async fn an_answer_that_nobody_takes() {
    let upstream = Upstream::start(|request| async move {
        let large = request.uri().path().ends_with("large");
        Response::new(full(vec![b'x'; if large { 32 * 1024 * 1024 } else { 1 }]))
    })
    .await;
    let cluster = Cluster::start_with(with(impatient()), &resources(&upstream.url())).await;
    let mut stream = TcpStream::connect(cluster.address()).await.unwrap();
    stream.write_all(b"GET /open/large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let gateway = cluster.gateway.clone();
    until("the request", || gateway.status().in_flight == 1).await;
    until("its end", || gateway.status().connections == 0).await;
    assert_eq!(gateway.status().in_flight, 0);
    let bystander = Bystander::of(cluster.address());
    bystander.was_served().await;
    drop(stream);
}

/// An HTTP/2 client that lets a stream run only so far ahead of it.
async fn narrow(address: SocketAddr) -> http2::SendRequest<AnyBody> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(16 * 1024)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

fn open(path: &str, body: AnyBody) -> Request<AnyBody> {
    Request::post(format!("http://api.test/open/{path}")).body(body).unwrap()
}

#[tokio::test]
async fn a_stream_that_nobody_takes_ends_alone() {
    let upstream = Upstream::start(|request| async move {
        let large = request.uri().path().ends_with("large");
        Response::new(full(vec![b'x'; if large { 4 * 1024 * 1024 } else { 1 }]))
    })
    .await;
    let cluster = Cluster::start_with(with(impatient()), &resources(&upstream.url())).await;
    let mut sender = narrow(cluster.address()).await;
    let stalled = soon("an answer", sender.send_request(open("large", full("")))).await.unwrap();
    let gateway = cluster.gateway.clone();
    // Other streams of the connection move all the while.
    soon("the end of the stream", async {
        while gateway.status().in_flight > 0 {
            let other = soon("an answer", sender.send_request(open("x", full("")))).await.unwrap();
            assert_eq!(other.into_body().collect().await.unwrap().to_bytes().len(), 1);
            tokio::time::sleep(LITTLE).await;
        }
    })
    .await;
    assert!(soon("its end", stalled.into_body().collect()).await.is_err());
    let other = soon("an answer", sender.send_request(open("x", full("")))).await.unwrap();
    assert_eq!(other.status(), 200);
}

#[tokio::test]
async fn a_stream_that_stops_in_its_body_ends_alone() {
    let upstream = Upstream::echo().await;
    let cluster = Cluster::start_with(with(impatient()), &resources(&upstream.url())).await;
    let mut sender = narrow(cluster.address()).await;
    let beginning = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"abc")))]);
    let body = BodyExt::boxed(StreamBody::new(beginning.chain(futures::stream::pending())));
    let stopped = tokio::spawn(sender.send_request(open("x", body)));
    soon("the end of the stream", async {
        while !stopped.is_finished() {
            let other = soon("an answer", sender.send_request(open("x", full("whole")))).await.unwrap();
            assert_eq!(other.status(), 200);
            tokio::time::sleep(LITTLE).await;
        }
    })
    .await;
    assert!(stopped.await.unwrap().is_err());
    let gateway = cluster.gateway.clone();
    until("the end of the request", || gateway.status().in_flight == 0).await;
    let other = soon("an answer", sender.send_request(open("x", full("")))).await.unwrap();
    assert_eq!(other.status(), 200);
}

#[tokio::test]
async fn a_handshake_that_does_not_come() {
    let authority = Authority::new();
    let upstream = Upstream::echo().await;
    let settings = Settings { caps: impatient(), ..with_tls(vec![authority.certificate(&["api.test"])]) };
    let cluster = Cluster::start_with(settings, &resources(&upstream.url())).await;
    let bystander = Bystander::of(cluster.address());
    for beginning in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01"] {
        let mut stream = TcpStream::connect(cluster.gateway.addresses().tls.unwrap()).await.unwrap();
        stream.write_all(beginning).await.unwrap();
        assert!(is_closed(&mut stream).await);
    }
    bystander.was_served().await;
}

#[tokio::test]
async fn handshakes_are_counted() {
    let authority = Authority::new();
    let upstream = Upstream::echo().await;
    // Long: who is let in although there is no room would be closed for saying nothing.
    let caps = Caps { handshakes_max: 2, handshake_timeout: 20 * PATIENCE, ..Caps::default() };
    let settings = Settings { caps, ..with_tls(vec![authority.certificate(&["api.test"])]) };
    let cluster = Cluster::start_with(settings, &resources(&upstream.url())).await;
    let address = cluster.gateway.addresses().tls.unwrap();
    let mut idle = vec![TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
    let gateway = cluster.gateway.clone();
    until("both", || gateway.status().connections == 2).await;
    assert!(is_closed(&mut TcpStream::connect(address).await.unwrap()).await);
    idle.pop();
    until("room", || gateway.status().connections == 1).await;
    let connector = authority.client(&[], crate::tls::BOTH);
    // Handshakes that are done do not count.
    let mut done = Vec::new();
    for _ in 0..4 {
        let stream = crate::tls::connect(&cluster, &connector, "api.test").await.unwrap();
        let mut client = Client::http1(stream).await;
        let request = Request::get("/open/x").header("host", "api.test").body(full("")).unwrap();
        assert_eq!(client.ask(request).await.status, 200);
        done.push(client);
    }
}

/// A connection from an address of this machine.
async fn from(source: &str, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
    socket.connect(address).await.unwrap()
}

#[tokio::test]
async fn connections_of_an_address_are_counted() {
    let upstream = Upstream::echo().await;
    // Long: who is let in although there is no room would be closed for saying nothing.
    let caps = Caps { connections_per_address_max: 3, header_read_timeout: 20 * PATIENCE, ..Caps::default() };
    let settings = Settings { trusted_proxies: vec!["127.0.0.3/32".parse().unwrap()], ..with(caps) };
    let cluster = Cluster::start_with(settings, &resources(&upstream.url())).await;
    let mut open = Vec::new();
    for source in ["127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.2"] {
        let mut client = Client::http1(from(source, cluster.address()).await).await;
        assert_eq!(client.get("/open/x", "").await.status, 200);
        open.push(client);
    }
    assert!(is_closed(&mut from("127.0.0.1", cluster.address()).await).await);
    // A proxy brings everybody's.
    for _ in 0..10 {
        let mut client = Client::http1(from("127.0.0.3", cluster.address()).await).await;
        assert_eq!(client.get("/open/x", "").await.status, 200);
        open.push(client);
    }
    drop(open.remove(0));
    let gateway = cluster.gateway.clone();
    until("room", || gateway.status().connections == open.len()).await;
    let mut client = Client::http1(from("127.0.0.1", cluster.address()).await).await;
    assert_eq!(client.get("/open/x", "").await.status, 200);
}

#[tokio::test]
async fn requests_beyond_the_cap_are_refused_at_once() {
    let go_on = Arc::new(tokio::sync::Semaphore::new(0));
    let wait = go_on.clone();
    let upstream = Upstream::start(move |_| {
        let wait = wait.clone();
        async move {
            wait.acquire().await.unwrap().forget();
            Response::new(full("done"))
        }
    })
    .await;
    let cluster =
        Cluster::start_with(with(Caps { requests_max: 2, ..Caps::default() }), &resources(&upstream.url())).await;
    let address = cluster.address();
    let busy: Vec<_> = (0..2).map(|_| tokio::spawn(ask(address, get("/open/x", "")))).collect();
    let gateway = cluster.gateway.clone();
    until("both", || gateway.status().in_flight == 2).await;
    let mut client = Client::connect(address).await;
    for _ in 0..20 {
        let refused = client.get("/open/x", "").await;
        assert_eq!(refused.problem(), "503 overloaded");
        assert_eq!(refused.headers["retry-after"], "1");
    }
    go_on.add_permits(3);
    for one in busy {
        assert_eq!(soon("an answer", one).await.unwrap().body, "done");
    }
    until("room", || gateway.status().in_flight == 0).await;
    assert_eq!(client.get("/open/x", "").await.body, "done");
}

#[tokio::test]
async fn a_worker_that_is_late_refuses() {
    let upstream = Upstream::echo().await;
    // Later than that it is always.
    let caps = Caps { lag_max: Duration::ZERO, ..Caps::default() };
    let cluster = Cluster::start_with(with(caps), &resources(&upstream.url())).await;
    let mut client = Client::connect(cluster.address()).await;
    soon("a refusal", async {
        while client.get("/open/x", "").await.status == 200 {
            tokio::time::sleep(LITTLE).await;
        }
    })
    .await;
    assert_eq!(client.get("/open/x", "").await.problem(), "503 overloaded");
}

#[tokio::test]
async fn a_node_without_memory_refuses_requests_and_connections() {
    let upstream = Upstream::echo().await;
    // The latter is long: who is let in would be closed for saying nothing.
    let caps = Caps { memory_bytes_max: 1, header_read_timeout: 20 * PATIENCE, ..Caps::default() };
    let cluster = Cluster::start_with(with(caps), &resources(&upstream.url())).await;
    // Whoever was there before it was noticed.
    let mut early = None;
    soon("a refusal", async {
        let mut client = Client::connect(cluster.address()).await;
        while let Ok(response) = client.send(get("/open/x", "")).await {
            if response.status() == 503 {
                early = Some(client);
                return;
            }
            let _ = response.into_body().collect().await;
            tokio::time::sleep(LITTLE).await;
        }
    })
    .await;
    if let Some(mut client) = early {
        assert_eq!(client.get("/open/x", "").await.problem(), "503 overloaded");
    }
    assert!(is_closed(&mut TcpStream::connect(cluster.address()).await.unwrap()).await);
}

//! Nodes that stop in good order while they are used: no request is lost. Lost is whatever was written and not answered, also on a
//! connection that was only just made; a client may go elsewhere after `connection: close`, a GOAWAY, or a refused connection.
//! A stream that a GOAWAY says was not taken up is the client's to repeat (RFC 9113, 6.8), if that is true.

use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use tests::{
    Client, Cluster, Upstream,
    balancer::Balancer,
    client::get,
    eventually,
    load::Load,
    runtime::runtime,
    upstream::{Reply, Seen},
};

/// A machine that is busy with other tests isolates no node.
const PATIENT: (&str, &str) = ("QUORATE_TIMING", "wan");

/// Clients of one node, each going on until the node can be reached no more.
struct Clients {
    tally: Arc<Tally>,
    threads: Vec<JoinHandle<()>>,
}

/// Requests over HTTP/2 so far, in all scenes and to all nodes: each has a path of its own.
static ASKED: AtomicU64 = AtomicU64::new(0);

#[derive(Default)]
struct Tally {
    answered: AtomicU64,
    /// Answers that said that they are the last ones.
    announced: AtomicU64,
    lost: Mutex<Vec<String>>,
    /// Targets of which the node said that it did not take them up.
    not_taken_up: Mutex<Vec<String>>,
    /// From now on the node may be gone.
    may_end: AtomicBool,
}

impl Tally {
    fn lost(&self, what: String) {
        self.lost.lock().unwrap().push(what);
    }

    /// A request over HTTP/2 that was sent. A GOAWAY ends a stream in the client only where its number says that the node did not
    /// take the stream up: the last of its two can cross a request that the client writes behind its answer to the ping between.
    fn not_answered(&self, target: String, error: &hyper::Error) {
        let reason = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
        match reason {
            Some(error) if error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR) => {
                self.not_taken_up.lock().unwrap().push(target);
            }
            _ => self.lost(format!("HTTP/2 {target}: {error:?}")),
        }
    }

    /// What a client does that cannot connect: whether it is done.
    fn is_gone(&self, error: &std::io::Error) -> bool {
        if !self.may_end.load(Ordering::SeqCst) {
            self.lost(format!("connecting before the stop: {error}"));
        }
        true
    }
}

impl Clients {
    fn start(address: &str) -> Self {
        let tally = Arc::new(Tally::default());
        let mut threads = Vec::new();
        for number in 0..10 {
            let (address, tally) = (address.to_owned(), Arc::clone(&tally));
            threads.push(std::thread::spawn(move || match number {
                0..4 => one(&address, &tally, "/open/quick", true),
                4..6 => one(&address, &tally, "/open/slow", true),
                6..8 => one(&address, &tally, "/open/quick", false),
                8 => two(&address, &tally, "/open/quick"),
                _ => two(&address, &tally, "/open/slow"),
            }));
        }
        Self { tally, threads }
    }

    fn wait_for(&self, count: u64) {
        eventually("clients are answered", || {
            let answered = self.tally.answered.load(Ordering::SeqCst);
            if answered >= count { Ok(()) } else { Err(format!("{answered} of {count}")) }
        });
    }

    /// Waits until each client has found the node gone.
    fn end(self) -> Arc<Tally> {
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        self.tally
    }
}

/// HTTP/1.1 by hand, because nothing may be repeated or forgiven: on kept connections, or on a new one for each request.
fn one(address: &str, tally: &Tally, target: &str, keeps: bool) {
    loop {
        let stream = match TcpStream::connect(address) {
            Ok(stream) => stream,
            Err(error) if tally.is_gone(&error) => return,
            Err(_) => continue,
        };
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut reader = BufReader::new(stream);
        for count in 0.. {
            match ask(&mut reader, target, keeps) {
                Ok(announced) => {
                    tally.answered.fetch_add(1, Ordering::SeqCst);
                    if announced {
                        tally.announced.fetch_add(1, Ordering::SeqCst);
                        break;
                    }
                }
                Err(error) => {
                    tally.lost(format!("HTTP/1.1 {target}, request {count} of a connection: {error}"));
                    break;
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Whether the answer says that it is the connection's last.
fn ask(reader: &mut BufReader<TcpStream>, target: &str, keeps: bool) -> Result<bool, String> {
    let closes = if keeps { "" } else { "connection: close\r\n" };
    let request = format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n{closes}\r\n");
    reader.get_mut().write_all(request.as_bytes()).map_err(|error| format!("writing: {error}"))?;
    let (mut length, mut announced, mut status) = (0, false, String::new());
    loop {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(0) => return Err(format!("closed after {status:?}")),
            Ok(_) => {}
            Err(error) => return Err(format!("reading after {status:?}: {error}")),
        }
        let line = line.trim_end().to_ascii_lowercase();
        if status.is_empty() {
            status = line;
        } else if line.is_empty() {
            break;
        } else if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        } else if line == "connection: close" {
            announced = true;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).map_err(|error| format!("body: {error}"))?;
    if status.contains(" 200 ") { Ok(announced) } else { Err(status) }
}

/// HTTP/2, eight requests at a time on one connection.
fn two(address: &str, tally: &Arc<Tally>, target: &'static str) {
    runtime().block_on(async {
        loop {
            let stream = match tokio::net::TcpStream::connect(address).await {
                Ok(stream) => stream,
                Err(error) if tally.is_gone(&error) => return,
                Err(_) => continue,
            };
            let (sender, connection) =
                match http2::handshake::<_, _, Full<bytes::Bytes>>(TokioExecutor::new(), TokioIo::new(stream)).await {
                    Ok(made) => made,
                    // Nothing was asked.
                    Err(_) => continue,
                };
            let connection = tokio::spawn(connection);
            let streams: Vec<_> =
                (0..8).map(|_| tokio::spawn(stream_of(sender.clone(), Arc::clone(tally), target))).collect();
            drop(sender);
            for stream in streams {
                stream.await.unwrap();
            }
            let _ = connection.await;
        }
    });
}

/// Asks one after the other until the connection takes no more.
async fn stream_of(mut sender: http2::SendRequest<Full<bytes::Bytes>>, tally: Arc<Tally>, path: &str) {
    while sender.ready().await.is_ok() {
        let target = format!("{path}/{}", ASKED.fetch_add(1, Ordering::SeqCst));
        let request = http::Request::get(format!("http://localhost{target}")).body(Full::default()).unwrap();
        let answer = match sender.try_send_request(request).await {
            Ok(answer) => answer,
            Err(mut error) => {
                // What is given back was never sent.
                if error.take_message().is_none() {
                    tally.not_answered(target, &error.into_error());
                }
                return;
            }
        };
        let status = answer.status();
        match answer.into_body().collect().await {
            Ok(_) if status == 200 => drop(tally.answered.fetch_add(1, Ordering::SeqCst)),
            Ok(_) => tally.lost(format!("HTTP/2 {target}: {status}")),
            Err(error) => tally.lost(format!("HTTP/2 {target}, in its answer: {error:?}")),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn upstream() -> Upstream {
    Upstream::with(|seen: &Seen| Reply {
        body: "hello".into(),
        after: if seen.target.contains("slow") { Duration::from_millis(300) } else { Duration::ZERO },
        ..Reply::default()
    })
}

#[test]
fn a_node_that_stops_loses_no_request() {
    let upstream = upstream();
    let mut cluster = Cluster::start_with(3, &[PATIENT]);
    cluster.apply_example(&upstream.url());
    let leader = cluster.leader();
    for place in [leader, leader % 3 + 1] {
        let node = cluster.node_mut(place);
        let clients = Clients::start(&node.gateway);
        clients.wait_for(300);
        clients.tally.may_end.store(true, Ordering::SeqCst);
        assert_eq!(node.stop(), Some(0));
        let tally = clients.end();
        let lost = tally.lost.lock().unwrap();
        assert!(lost.is_empty(), "of {} requests were lost: {lost:#?}", tally.answered.load(Ordering::SeqCst));
        for target in tally.not_taken_up.lock().unwrap().iter() {
            assert!(upstream.seen().iter().all(|seen| seen.target != *target), "{target} was taken up");
        }
        assert!(tally.announced.load(Ordering::SeqCst) >= 6, "kept connections are told that they end");
        cluster.node_mut(place).run();
        cluster.node_mut(place).wait_ready();
    }
}

/// HAProxy repeats only what it could not send: connections that were refused. Answers that stay away would be seen.
#[test]
fn a_rolling_restart_behind_haproxy_fails_no_request() {
    let upstream = upstream();
    // Longer than the balancer takes to notice: two checks, half a second apart.
    let mut cluster = Cluster::start_with(3, &[PATIENT, ("QUORATE_DRAIN_DELAY", "3s")]);
    let Some(balancer) = Balancer::haproxy_that_repeats_connections_alone(&cluster.nodes) else { return };
    cluster.apply_example(&upstream.url());
    let client = Client::new(&balancer.tls_address).tls(&balancer.authority);
    eventually("the balancer has found the nodes", || {
        let answer = client.try_send(get("/open/x"))?;
        if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
    });
    let load = Load::start(6, |number| {
        let client = if number % 2 == 0 { client.clone() } else { client.clone().http2() };
        let target = if number < 2 { "/open/slow" } else { "/open/quick" };
        let mut connection = None;
        move || {
            let mut open = match connection.take() {
                Some(open) => open,
                None => client.connect()?,
            };
            let answer = open.try_send(get(target))?;
            // The balancer passes on what the node says of itself only to itself.
            if answer.header("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close")) {
                connection = Some(open);
            }
            std::thread::sleep(Duration::from_millis(2));
            if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
        }
    });
    load.wait_for_more(100);
    for place in 1..=3 {
        assert_eq!(cluster.node_mut(place).stop(), Some(0));
        load.wait_for_more(100);
        cluster.node_mut(place).run();
        cluster.node_mut(place).wait_ready();
        // The balancer takes it in before the next one goes: two checks.
        let seen = upstream.seen().len();
        eventually("the node is used again", || {
            let log = cluster.node(place).access_log();
            if log.len() > 20 && upstream.seen().len() > seen { Ok(()) } else { Err("it is not") }
        });
    }
    let report = load.stop();
    assert!(report.failures.is_empty(), "{} answered, these failed: {:#?}", report.done, report.failures);
}

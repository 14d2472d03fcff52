//! What attackers send: the list of known ways to make two readers disagree about a request, each with the answer that
//! docs/http.md promises, and whatever else chance makes of them. The witness is the upstream: it parses leniently and
//! must see nothing that the gateway did not judge, log and allow.

use crate::harness::*;
use http::{Request, Response};
use hyper::body::Incoming;
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use quorate::gateway::AccessLog;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What the upstream saw: the id, the method and the target of each request.
type Seen = Arc<Mutex<Vec<(String, String, String)>>>;

struct Scene {
    cluster: Cluster,
    key: String,
    seen: Seen,
    log: tempfile::TempDir,
    _upstream: Upstream,
}

impl Scene {
    /// One authenticated route for everything but `/forbidden`, an upstream that takes notes, and an access log.
    async fn new() -> Self {
        let seen = Seen::default();
        let notes = Arc::clone(&seen);
        let upstream = Upstream::start(move |request: Request<Incoming>| {
            let id = request.headers().get("x-request-id").map(|id| id.to_str().unwrap().to_owned());
            notes.lock().unwrap().push((
                id.unwrap_or_default(),
                request.method().to_string(),
                request.uri().to_string(),
            ));
            async move {
                let body = request.into_body();
                let _ = http_body_util::BodyExt::collect(body).await;
                Response::new(full("fine"))
            }
        })
        .await;
        let log = tempfile::tempdir().unwrap();
        let mut with = settings();
        with.access_log = AccessLog::File(log.path().join("access.log"));
        with.caps.header_read_timeout = Duration::from_millis(400);
        with.caps.idle_timeout = Duration::from_millis(400);
        with.caps.header_bytes_max = 8192;
        let text = format!(
            "{}  never: forbid(principal, action, resource) when {{ context.path like \"/forbidden*\" }};\n",
            resources(&upstream.url())
        );
        let mut cluster = Cluster::start_with(with, &text).await;
        let key = cluster.create_key("acme", None, &[]).await.text().to_string();
        Self { cluster, key, seen, log, _upstream: upstream }
    }

    /// Ends the gateway and checks what the upstream saw against what the gateway says that it allowed. The lines of the
    /// log that tell of a refusal, by their reason.
    async fn judge(self) -> BTreeMap<String, usize> {
        self.cluster.gateway.drain(PATIENCE).await;
        let text = std::fs::read_to_string(self.log.path().join("access.log")).unwrap();
        let mut allowed = BTreeMap::new();
        let mut refused: BTreeMap<String, usize> = BTreeMap::new();
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let of = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
            if line["decision"] == "allowed" {
                allowed.insert(of("request_id"), (of("method"), of("path")));
            }
            // What is wrong with a body can be found before it is sent on, or after that has begun.
            let reason = of("reason");
            if !reason.is_empty() {
                *refused.entry(reason).or_default() += 1;
            }
        }
        let seen = self.seen.lock().unwrap().clone();
        for (id, method, target) in seen {
            let path = target.split('?').next().unwrap().to_owned();
            // A request is sent again only under its own id, so each may be there more than once.
            assert_eq!(allowed.get(&id), Some(&(method.clone(), path)), "{method} {target} was not allowed as {id}");
        }
        refused
    }
}

/// Sends bytes in two pieces and reads what comes until the gateway closes.
async fn send(address: SocketAddr, bytes: &[u8], cut: usize) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (first, second) = bytes.split_at(cut.min(bytes.len()));
    let _ = stream.write_all(first).await;
    if !second.is_empty() {
        tokio::task::yield_now().await;
        let _ = stream.write_all(second).await;
    }
    let mut reply = Vec::new();
    let _ = soon("the end of the connection", stream.read_to_end(&mut reply)).await;
    String::from_utf8_lossy(&reply).into_owned()
}

/// What hides behind each attack. It carries the key: only its form can keep it out.
fn smuggled(key: &str) -> String {
    format!("GET /smuggled HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\n\r\n")
}

#[tokio::test]
async fn every_known_attack_has_its_answer() {
    let scene = Scene::new().await;
    let key = scene.key.as_str();
    let behind = smuggled(key);
    let post = format!("POST /a HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\n");
    let get = format!("GET /a HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\n");
    let (length, chunks) = ("Content-Length: 6\r\n", "Transfer-Encoding: chunked\r\n");
    let zero = "0\r\n\r\n";
    let head = |line: &str| format!("{line}\r\nHost: a\r\nX-Api-Key: {key}\r\n\r\n");
    // What is sent before the hidden request, the status, the problem, and the word in the log.
    let attacks: Vec<(&str, String, u16, &str, &str)> = vec![
        ("CL.TE", format!("{post}{length}{chunks}\r\n{zero}"), 400, "bad-request", "two-lengths"),
        ("TE.CL", format!("{post}{chunks}Content-Length: 3\r\n\r\n{zero}"), 400, "bad-request", "two-lengths"),
        ("CL.CL", format!("{post}{length}Content-Length: 0\r\n\r\n"), 400, "bad-request", "content-length"),
        ("CL twice the same", format!("{post}{length}{length}\r\n"), 400, "bad-request", "content-length"),
        ("CL as a list", format!("{post}Content-Length: 0, 6\r\n\r\n"), 400, "bad-request", "content-length"),
        ("CL with a sign", format!("{post}Content-Length: +0\r\n\r\n"), 400, "bad-request", "content-length"),
        ("CL with a word", format!("{post}Content-Length: 0x0\r\n\r\n"), 400, "bad-request", "content-length"),
        ("TE.TE", format!("{post}{chunks}Transfer-Encoding: x\r\n\r\n{zero}"), 400, "bad-request", "transfer-encoding"),
        (
            "TE list",
            format!("{post}Transfer-Encoding: x, chunked\r\n\r\n{zero}"),
            400,
            "bad-request",
            "transfer-encoding",
        ),
        (
            "TE tab",
            format!("{post}Transfer-Encoding:\tx chunked\r\n\r\n{zero}"),
            400,
            "bad-request",
            "transfer-encoding",
        ),
        ("TE case", format!("{post}Transfer-Encoding: cHuNkEd\r\n\r\n{zero}"), 400, "bad-request", "transfer-encoding"),
        (
            "TE quoted",
            format!("{post}Transfer-Encoding: \"chunked\"\r\n\r\n{zero}"),
            400,
            "bad-request",
            "transfer-encoding",
        ),
        ("TE identity", format!("{post}Transfer-Encoding: identity\r\n\r\n"), 400, "bad-request", "transfer-encoding"),
        (
            "TE vertical tab",
            format!("{post}Transfer-Encoding: \x0bchunked\r\n\r\n{zero}"),
            400,
            "bad-request",
            "control-byte",
        ),
        (
            "TE before its colon",
            format!("{post}Transfer-Encoding : chunked\r\n\r\n{zero}"),
            400,
            "bad-request",
            "field-name",
        ),
        (
            "TE folded",
            format!("{post}Transfer-Encoding:\r\n chunked\r\n\r\n{zero}"),
            400,
            "bad-request",
            "transfer-encoding",
        ),
        (
            "TE behind a bare LF",
            format!("{post}X: y\nTransfer-Encoding: chunked\r\n\r\n{zero}"),
            400,
            "bad-request",
            "line-end",
        ),
        (
            "TE behind a bare CR",
            format!("{post}X: y\rTransfer-Encoding: chunked\r\n\r\n{zero}"),
            400,
            "bad-request",
            "line-end",
        ),
        (
            "TE in HTTP/1.0",
            format!("{}{chunks}\r\n{zero}", post.replace("1.1", "1.0")),
            400,
            "bad-request",
            "transfer-encoding",
        ),
        ("bare LF", get.replace("\r\n", "\n") + "\n", 400, "bad-request", "line-end"),
        ("bare LF at the end", format!("{get}\n"), 400, "bad-request", "line-end"),
        ("obs-fold", format!("{get}X: 1\r\n folded\r\n\r\n"), 400, "bad-request", "folded-line"),
        (
            "a first line that is folded",
            "GET /a HTTP/1.1\r\n Host: a\r\n\r\n".to_owned(),
            400,
            "bad-request",
            "folded-line",
        ),
        ("NUL in a value", format!("{get}X: \0\r\n\r\n"), 400, "bad-request", "control-byte"),
        ("NUL in the target", head("GET /a\0 HTTP/1.1"), 400, "bad-request", "control-byte"),
        ("a name with a space", format!("{get}Bad Header: x\r\n\r\n"), 400, "bad-request", "field-name"),
        ("a name of bytes", format!("{get}X\u{e4}: x\r\n\r\n"), 400, "bad-request", "field-name"),
        ("no name", format!("{get}: x\r\n\r\n"), 400, "bad-request", "field-name"),
        ("two spaces", head("GET  /a HTTP/1.1"), 400, "bad-request", "request-line"),
        ("a space in the target", head("GET /a b HTTP/1.1"), 400, "bad-request", "request-line"),
        ("HTTP/0.9", "GET /a\r\n".to_owned(), 400, "bad-request", "request-line"),
        ("HTTP/2 in words", head("GET /a HTTP/2.0"), 400, "bad-request", "http-version"),
        ("a version of the future", head("GET /a HTTP/1.9"), 400, "bad-request", "http-version"),
        ("a lower-case method", head("delete /a HTTP/1.1"), 400, "bad-request", "method"),
        ("a fragment", head("GET /a#b HTTP/1.1"), 400, "bad-request", "target"),
        ("another scheme", head("GET ftp://a/a HTTP/1.1"), 400, "bad-request", "target"),
        ("no path", head("GET a HTTP/1.1"), 400, "bad-request", "target"),
        ("two hosts", format!("{get}Host: b\r\nConnection: close\r\n\r\n"), 400, "bad-request", "host"),
        (
            "another host in the target",
            head("GET http://b/a HTTP/1.1\r\nConnection: close"),
            400,
            "bad-request",
            "host",
        ),
        (
            "a user in the host",
            "GET /a HTTP/1.1\r\nHost: a@b\r\nConnection: close\r\n\r\n".into(),
            400,
            "bad-request",
            "host",
        ),
        ("no host", "GET /a HTTP/1.1\r\nConnection: close\r\n\r\n".into(), 400, "bad-request", "host"),
        ("asterisk", head("GET * HTTP/1.1\r\nConnection: close"), 400, "bad-request", "path"),
        ("CONNECT", head("CONNECT a:80 HTTP/1.1\r\nConnection: close"), 405, "method-not-allowed", "method"),
        ("TRACE", head("TRACE /a HTTP/1.1\r\nConnection: close"), 405, "method-not-allowed", "method"),
        ("an expectation", format!("{get}Expect: x\r\nConnection: close\r\n\r\n"), 417, "expectation-failed", "expect"),
        (
            "too many fields",
            format!("{get}{}\r\n", "X: y\r\n".repeat(200)),
            431,
            "headers-too-large",
            "too-many-fields",
        ),
        (
            "too long a field",
            format!("{get}X: {}\r\n\r\n", "y".repeat(9000)),
            431,
            "headers-too-large",
            "fields-too-long",
        ),
        ("an endless field", format!("{get}X: {}", "y".repeat(300_000)), 431, "headers-too-large", "fields-too-long"),
        (
            "a chunk size that overflows",
            format!("{post}{chunks}\r\nffffffffffffffffff\r\n"),
            400,
            "bad-request",
            "chunk-size",
        ),
        ("a chunk size with a sign", format!("{post}{chunks}\r\n+0\r\n\r\n"), 400, "bad-request", "chunk-size"),
        ("a chunk size with a prefix", format!("{post}{chunks}\r\n0x0\r\n\r\n"), 400, "bad-request", "chunk-size"),
        ("a chunk size and a bare LF", format!("{post}{chunks}\r\n0\n\r\n"), 400, "bad-request", "chunk-size"),
        (
            "a bare LF in an extension",
            format!("{post}{chunks}\r\n5;a\nhello\r\n0\r\n\r\n"),
            400,
            "bad-request",
            "chunk-extension",
        ),
        (
            "a chunk longer than it says",
            format!("{post}{chunks}\r\n1\r\nabc\r\n{zero}"),
            400,
            "bad-request",
            "chunk-end",
        ),
        ("a trailer that is a request", format!("{post}{chunks}\r\n0\r\n"), 400, "bad-request", "trailer"),
    ];
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for (name, attack, status, problem, reason) in &attacks {
        for cut in [usize::MAX, attack.len() / 2, attack.len().saturating_sub(1)] {
            let bytes = format!("{attack}{behind}");
            let reply = send(scene.cluster.address(), bytes.as_bytes(), cut).await;
            assert!(
                reply.starts_with(&format!("HTTP/1.{} {status} ", if reply.starts_with("HTTP/1.0") { 0 } else { 1 })),
                "{name}: {reply}"
            );
            assert_eq!(
                reply.matches("HTTP/1.1 4").count() + reply.matches("HTTP/1.0 4").count(),
                1,
                "one answer to {name}: {reply}"
            );
            assert!(reply.contains("application/problem+json"), "{name}: {reply}");
            assert!(reply.contains(&format!("\"type\":\"{problem}\"")), "{name}: {reply}");
            assert!(reply.to_lowercase().contains("x-request-id: "), "{name}: {reply}");
            *reasons.entry((*reason).to_owned()).or_default() += 1;
        }
    }
    let seen = scene.seen.lock().unwrap().clone();
    assert!(seen.iter().all(|(_, _, target)| !target.contains("smuggled")), "{seen:?}");
    assert_eq!(scene.judge().await, reasons);
}

#[tokio::test]
async fn bodies_do_not_become_requests() {
    let scene = Scene::new().await;
    let (key, address) = (scene.key.clone(), scene.cluster.address());
    let hidden = smuggled(&key);
    let last = format!("GET /last HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\nConnection: close\r\n\r\n");
    let size = hidden.len();
    for (head, body) in [
        (format!("POST /a HTTP/1.1\r\nContent-Length: {size}"), hidden.clone()),
        (format!("GET /a HTTP/1.1\r\nContent-Length: {size}"), hidden.clone()),
        ("PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked".to_owned(), format!("{size:x};a=b\r\n{hidden}\r\n0\r\n\r\n")),
        (
            "POST /a HTTP/1.1\r\nTrailer: X-Quorate-Consumer\r\nTransfer-Encoding: chunked".to_owned(),
            format!("{size:X}\r\n{hidden}\r\n0\r\nX-Quorate-Consumer: root\r\nContent-Length: 3\r\n\r\n"),
        ),
        (format!("POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {size}"), hidden.clone()),
        // Of no interest: what the request is refused for comes before its body.
        (format!("POST /forbidden HTTP/1.1\r\nContent-Length: {size}"), hidden.clone()),
    ] {
        for cut in [usize::MAX, 40, head.len() + 60] {
            let bytes = format!("{head}\r\nHost: a\r\nX-Api-Key: {key}\r\n\r\n{body}{last}");
            let reply = send(address, bytes.as_bytes(), cut).await;
            let answers = reply.matches("HTTP/1.1 ").count() - reply.matches("HTTP/1.1 100 ").count();
            assert!(answers == 2 || (answers == 1 && head.contains("forbidden")), "{head}: {reply}");
        }
    }
    let seen = scene.seen.lock().unwrap().clone();
    assert!(seen.iter().all(|(_, _, target)| target == "/a" || target == "/last"), "{seen:?}");
    assert!(seen.len() >= 30, "{seen:?}");
    scene.judge().await;
}

/// Streams of requests with the attackers' words in them, changed here and there.
fn stream(key: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let hidden = smuggled(key);
    let fields = format!("Host: a\r\nX-Api-Key: {key}\r\n");
    let (one, two, three) = (fields.clone(), fields.clone(), hidden.clone());
    let good = prop_oneof![
        "/[a-z]{0,4}".prop_map(move |path| format!("GET {path} HTTP/1.1\r\n{one}\r\n")),
        "[a-z\r\n]{0,20}".prop_map(move |body| {
            let body = format!("{body}{three}");
            format!("POST /b HTTP/1.1\r\n{two}Content-Length: {}\r\n\r\n{body}", body.len())
        }),
        "(;[a-z=]{0,5})?".prop_map(move |extension| {
            let size = hidden.len();
            format!("PUT /c HTTP/1.1\r\n{fields}Transfer-Encoding: chunked\r\n\r\n{size:x}{extension}\r\n{hidden}\r\n0\r\n\r\n")
        }),
    ];
    let words = prop::sample::select(vec![
        "\r\n",
        "\n",
        "\r",
        "\0",
        " ",
        "\t",
        ":",
        "0",
        "6",
        "GET ",
        "POST /x HTTP/1.1\r\n",
        "Content-Length: 5\r\n",
        "Content-Length: 0\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: x\r\n",
        "0\r\n\r\n",
        "5\r\nhello\r\n",
        "Host: b\r\n",
        "Connection: close\r\n",
        "Connection: x-api-key, host\r\n",
        "Expect: 100-continue\r\n",
        "X-HTTP-Method-Override: DELETE\r\n",
        "HTTP/1.0",
        "//",
        "/../",
        "%2f",
        ";",
        "#",
        "http://b",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ])
    .prop_map(|word| word.as_bytes().to_vec());
    let noise = prop::collection::vec(any::<u8>(), 1..3);
    let change = (any::<prop::sample::Index>(), prop_oneof![4 => words, 1 => noise], 0_usize..4);
    (prop::collection::vec(good, 1..4), prop::collection::vec(change, 0..3)).prop_map(|(parts, changes)| {
        let mut bytes = parts.concat().into_bytes();
        for (place, word, removed) in changes {
            let at = place.index(bytes.len());
            let end = (at + removed).min(bytes.len());
            bytes.splice(at..end, word);
        }
        bytes
    })
}

#[tokio::test]
async fn the_upstream_sees_nothing_that_was_not_judged() {
    const STREAMS: usize = 600;
    let scene = Scene::new().await;
    let address = scene.cluster.address();
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let streams = stream(&scene.key);
    let mut sent = 0;
    while sent < STREAMS {
        let batch: Vec<_> = (0..50)
            .map(|_| {
                let bytes = streams.new_tree(&mut runner).unwrap().current();
                let cut = (0_usize..400).new_tree(&mut runner).unwrap().current();
                tokio::spawn(async move { send(address, &bytes, cut).await })
            })
            .collect();
        sent += batch.len();
        for one in batch {
            one.await.unwrap();
        }
    }
    let seen = scene.seen.lock().unwrap().len();
    let refused = scene.judge().await;
    // It would prove nothing if nothing came through, or nothing was refused.
    assert!(seen > STREAMS / 4, "{seen} requests came through");
    assert!(refused.len() > 8, "{refused:?}");
}

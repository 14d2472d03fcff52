//! Everything that the gateway refuses by itself, by its stable name.

use crate::harness::*;
use http::Request;
use quorate::gateway::Caps;

fn caps() -> Caps {
    Caps { header_bytes_max: 4096, header_count_max: 20, body_bytes_max: 1000, ..Caps::default() }
}

async fn cluster() -> (Cluster, Upstream) {
    let upstream = Upstream::echo().await;
    let mut with = settings();
    with.caps = caps();
    let text = format!(
        "upstreams: {{ u: {{ targets: ['{}'] }} }}
consumers: {{ acme: {{}}, other: {{}} }}
routes:
  orders: {{ hosts: [api.test], paths: ['/orders/{{id}}'], methods: [GET, PUT], upstream: u }}
  small: {{ paths: [/small], upstream: u, authenticate: [none], body_bytes_max: 10 }}
  open: {{ paths: [/open], upstream: u, authenticate: [none] }}
policies:
  acme: permit(principal == Consumer::\"acme\", action == Action::\"GET\", resource);
",
        upstream.url()
    );
    (Cluster::start_with(with, &text).await, upstream)
}

#[tokio::test]
async fn refusals_have_stable_names() {
    let (mut cluster, _upstream) = cluster().await;
    let key = cluster.create_key("acme", None, &[]).await;
    let other = cluster.create_key("other", None, &[]).await;
    let unknown = quorate::credential::Credential::generate().unwrap();
    let request = |method: &str, path: &str, key: &str| {
        Request::builder().method(method).uri(path).header("x-api-key", key).body(full("")).unwrap()
    };
    let mut client = Client::connect(cluster.address()).await;
    let mut bodies = Vec::new();
    for (method, path, key, expected) in [
        ("GET", "/orders/1", unknown.text().as_str(), "401 unauthenticated"),
        ("GET", "/orders/1", "qk_short", "401 unauthenticated"),
        ("GET", "/orders/1", "anything", "401 unauthenticated"),
        ("GET", "/orders/1", other.text().as_str(), "403 forbidden"),
        ("PUT", "/orders/1", key.text().as_str(), "403 forbidden"),
        ("DELETE", "/orders/1", key.text().as_str(), "405 method-not-allowed"),
        ("TRACE", "/orders/1", key.text().as_str(), "405 method-not-allowed"),
        ("GET", "/orders", key.text().as_str(), "404 no-route"),
        ("GET", "/", "", "404 no-route"),
        ("GET", "/orders//1", "", "400 bad-request"),
        ("GET", "/orders/%2e%2e/x", "", "400 bad-request"),
        ("GET", "/orders/a%2fb", "", "400 bad-request"),
        ("GET", "/orders/a%00b", "", "400 bad-request"),
        ("GET", "/orders/%zz", "", "400 bad-request"),
    ] {
        let reply = client.ask(request(method, path, key)).await;
        assert_eq!(reply.problem(), expected, "{method} {path}");
        if reply.status == 401 {
            assert_eq!(reply.headers["www-authenticate"], "Bearer");
            let mut json = reply.json();
            json["request_id"] = "".into();
            bodies.push(json);
        }
        if expected == "405 method-not-allowed" && method == "DELETE" {
            assert_eq!(reply.headers["allow"], "GET, PUT");
        }
    }
    // Nothing tells a key that exists from one that does not.
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "{bodies:?}");
    let elsewhere = Request::get("/orders/1").header("host", "other.test").body(full("")).unwrap();
    assert_eq!(client.ask(elsewhere).await.problem(), "404 no-route");
}

#[tokio::test]
async fn too_much_is_refused() {
    let (cluster, _upstream) = cluster().await;
    let address = cluster.address();
    let body = |path: &str, length: usize| Request::post(path).body(full(vec![b'x'; length])).unwrap();
    assert_eq!(ask(address, body("/open", 1000)).await.status, 200);
    assert_eq!(ask(address, body("/open", 1001)).await.problem(), "413 request-too-large");
    assert_eq!(ask(address, body("/small", 10)).await.status, 200);
    assert_eq!(ask(address, body("/small", 11)).await.problem(), "413 request-too-large");
    let long = Request::get("/open").header("x-long", "y".repeat(5000)).body(full("")).unwrap();
    assert_eq!(ask(address, long).await.problem(), "431 headers-too-large");
    let mut many = Request::get("/open");
    for number in 0..30 {
        many = many.header(format!("x-{number}"), "1");
    }
    assert_eq!(ask(address, many.body(full("")).unwrap()).await.problem(), "431 headers-too-large");
    // Far more than that is not read to its end, and answered all the same.
    let endless = format!("GET /open HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(300_000));
    let reply = raw(address, endless.as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 431 ") && reply.contains("\"headers-too-large\""), "{reply}");
}

#[tokio::test]
async fn what_two_readers_could_see_differently_is_refused() {
    let (cluster, _upstream) = cluster().await;
    for (head, expected) in [
        ("GET /open HTTP/1.1\r\n\r\n", "400"),
        ("GET /open HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        ("GET http://a/open HTTP/1.1\r\nHost: b\r\n\r\n", "400"),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", "405"),
        ("POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "400"),
        ("POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", "400"),
        ("POST /open HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "400"),
        ("POST /open HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", "400"),
        ("GET /open HTTP/1.1\r\nHost: a\r\nBad Header: x\r\n\r\n", "400"),
        ("GET /open HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n", "400"),
        ("GET /op\x01en HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    ] {
        let reply = first_line(cluster.address(), head.as_bytes()).await;
        assert!(reply.starts_with(&format!("HTTP/1.1 {expected} ")), "{head:?} gave {reply:?}");
    }
}

/// Sends and reads until the first line of the answer is there.
async fn first_line(address: std::net::SocketAddr, bytes: &[u8]) -> String {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut line = String::new();
    soon("a line", BufReader::new(stream).read_line(&mut line)).await.unwrap();
    line
}

#[tokio::test]
async fn a_document_of_a_newer_release_is_refused_where_it_stands() {
    use machine::{
        Command, Name,
        resource::{Change, Kind},
    };
    let (mut cluster, _upstream) = cluster().await;
    let bytes = br#"{"paths":["/future"],"upstream":"u","authenticate":["none"],"quantum":true}"#;
    let change = Change::PutDocument { kind: Kind::Route, name: Name::new("future").unwrap(), bytes: (*bytes).into() };
    let validated_against = cluster.state.registry.resources_revision;
    cluster.command(Command::ApplyResources { validated_against, changes: vec![change] }).await;
    assert_eq!(ask(cluster.address(), get("/future", "")).await.problem(), "503 route-unavailable");
    assert_eq!(ask(cluster.address(), get("/open", "")).await.status, 200);
    assert_eq!(cluster.gateway.status().unreadable.len(), 1);
}

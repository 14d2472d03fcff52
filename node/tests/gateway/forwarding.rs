//! What the upstream and the client get to see of one another.

use crate::harness::*;
use http::Request;
use quorate::gateway::AccessLog;
use std::collections::BTreeSet;

#[tokio::test]
async fn a_request_goes_through_and_is_marked() {
    let upstream = Upstream::echo().await;
    let mut cluster = Cluster::start(&resources(&upstream.url())).await;
    let key = cluster.create_key("acme", None, &[]).await;
    let request = Request::post("/a/b?c=d&key=x")
        .header("x-api-key", key.text().as_str())
        .header("x-quorate-consumer", "root")
        .header("x-forwarded-for", "10.0.0.1")
        .header("x-request-id", "mine")
        .header("connection", "x-private")
        .header("x-private", "1")
        .header("authorization", "Bearer for-the-upstream")
        .body(full("12345"))
        .unwrap();
    let reply = ask(cluster.address(), request).await;
    assert_eq!(reply.status, 200);
    let json = reply.json();
    assert_eq!(json["method"], "POST");
    assert_eq!(json["target"], "/a/b?c=d&key=x");
    assert_eq!(json["body_length"], 5);
    assert_eq!(reply.received("host").unwrap(), "api.test");
    assert_eq!(reply.received("x-quorate-consumer").unwrap(), "acme");
    assert_eq!(reply.received("x-forwarded-for").unwrap(), "127.0.0.1");
    assert_eq!(reply.received("x-forwarded-proto").unwrap(), "http");
    assert_eq!(reply.received("x-forwarded-host").unwrap(), "api.test");
    assert_eq!(reply.received("authorization").unwrap(), "Bearer for-the-upstream");
    assert_eq!(reply.received("traceparent").unwrap().len(), 55);
    assert_eq!(reply.received("x-api-key"), None);
    assert_eq!(reply.received("x-private"), None);
    assert_eq!(reply.received("connection"), None);
    let id = reply.received("x-request-id").unwrap();
    assert_eq!(id.len(), 32);
    assert_eq!(reply.headers["x-request-id"], *id);
    assert_eq!(reply.headers["x-quorate-node"], "7");
    assert!(!reply.body.windows(3).any(|window| window == b"qk_"));
}

#[tokio::test]
async fn a_bearer_key_is_the_credential_and_goes() {
    let upstream = Upstream::echo().await;
    let mut cluster = Cluster::start(&resources(&upstream.url())).await;
    let key = cluster.create_key("acme", None, &[]).await;
    let bearer = format!("Bearer {}", key.text().as_str());
    let request = Request::get("/").header("authorization", bearer.clone()).body(full("")).unwrap();
    let reply = ask(cluster.address(), request).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.received("authorization"), None);
    // One of ours does not reach the upstream of an open route either.
    let request = Request::get("/open/x").header("authorization", bearer).body(full("")).unwrap();
    let reply = ask(cluster.address(), request).await;
    assert_eq!(reply.received("authorization"), None);
    assert_eq!(reply.received("x-quorate-consumer"), None);
}

#[tokio::test]
async fn a_trusted_proxy_is_believed() {
    let upstream = Upstream::echo().await;
    let mut with = settings();
    with.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let cluster = Cluster::start_with(with, &resources(&upstream.url())).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = Request::get("/open/x")
        .header("x-forwarded-for", "192.0.2.7")
        .header("x-forwarded-proto", "https")
        .header("x-request-id", "kept-1")
        .header("traceparent", trace)
        .header("tracestate", "a=b")
        .body(full(""))
        .unwrap();
    let reply = ask(cluster.address(), request).await;
    assert_eq!(reply.received("x-forwarded-for").unwrap(), "192.0.2.7, 127.0.0.1");
    assert_eq!(reply.received("x-forwarded-proto").unwrap(), "https");
    assert_eq!(reply.received("x-request-id").unwrap(), "kept-1");
    assert_eq!(reply.headers["x-request-id"], "kept-1");
    let sent = reply.received("traceparent").unwrap();
    assert!(sent.starts_with(&trace[..36]) && sent != trace, "{sent}");
    assert_eq!(reply.received("tracestate").unwrap(), "a=b");
}

#[tokio::test]
async fn the_path_that_is_routed_is_the_path_forwarded() {
    let upstream = Upstream::echo().await;
    let cluster = Cluster::start(&resources(&upstream.url())).await;
    // `/%6fpen` is `/open`: it finds the route of `/open` and arrives as it.
    let reply = ask(cluster.address(), get("/%6fpen/%7euser?%6f=%2F", "")).await;
    assert_eq!(reply.json()["target"], "/open/~user?%6f=%2F");
    assert_eq!(ask(cluster.address(), get("/open/../secret", "")).await.problem(), "400 bad-request");
}

#[tokio::test]
async fn answers_without_bodies_keep_the_connection() {
    let upstream = Upstream::start(|request| async move {
        let status: u16 = request.uri().path().rsplit('/').next().unwrap().parse().unwrap();
        let mut response = http::Response::builder().status(status).header("etag", "e");
        if request.method() == "HEAD" {
            response = response.header("content-length", "5");
        }
        let body = if status == 200 && request.method() != "HEAD" { full("hello") } else { full("") };
        response.body(body).unwrap()
    })
    .await;
    let cluster = Cluster::start(&resources(&upstream.url())).await;
    let mut client = Client::connect(cluster.address()).await;
    for (method, status, length) in
        [("GET", 204, None), ("HEAD", 200, Some("5")), ("GET", 304, None), ("GET", 200, Some("5"))]
    {
        let uri = format!("/open/{status}");
        let request = Request::builder().method(method).uri(uri).body(full("")).unwrap();
        let reply = client.ask(request).await;
        assert_eq!(reply.status, status);
        assert_eq!(reply.headers["etag"], "e");
        let declared = reply.headers.get("content-length").map(|value| value.to_str().unwrap());
        assert_eq!(declared, length, "{method} {status}");
    }
    assert_eq!(upstream.accepted.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn one_line_a_request_and_no_secret_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let upstream = Upstream::echo().await;
    let mut with = settings();
    with.access_log = AccessLog::File(path.clone());
    let mut cluster = Cluster::start_with(with, &resources(&upstream.url())).await;
    let key = cluster.create_key("acme", None, &[]).await;
    let sent =
        Request::post("/a/%62?token=hidden").header("x-api-key", key.text().as_str()).body(full("body")).unwrap();
    let reply = ask(cluster.address(), sent).await;
    assert_eq!(reply.status, 200);
    ask(cluster.address(), get("/refused\"", "qk_wrong_key")).await;
    ask(cluster.address(), get("//", "")).await;
    cluster.gateway.drain(PATIENCE).await;
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        !text.contains("hidden")
            && !text.contains(key.text().rsplit('_').next().unwrap())
            && !text.contains("wrong_key")
    );
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{text}");
    let line = lines.iter().find(|line| line["status"] == 200).unwrap();
    for (field, value) in [
        ("node", serde_json::json!(7)),
        ("tick", serde_json::json!(42)),
        ("client", serde_json::json!("127.0.0.1")),
        ("consumer", serde_json::json!("acme")),
        ("key_id", serde_json::json!(key.id().to_string())),
        ("route", serde_json::json!("all")),
        ("method", serde_json::json!("POST")),
        ("path", serde_json::json!("/a/b")),
        ("decision", serde_json::json!("allowed")),
        ("stage", serde_json::json!("forward")),
        ("problem", serde_json::json!(null)),
        ("upstream", serde_json::json!(upstream.url())),
        ("bytes_in", serde_json::json!(4)),
        ("bytes_out", serde_json::json!(reply.body.len())),
        ("request_id", serde_json::json!(reply.headers["x-request-id"].to_str().unwrap())),
    ] {
        assert_eq!(line[field], value, "{field} of {line}");
    }
    assert!(
        line["time"].as_str().unwrap().starts_with("2027-01-15T08:00:0")
            || line["time"].as_str().unwrap().starts_with("2027-01-15T07:59:59")
    );
    assert_eq!(line["trace_id"].as_str().unwrap(), &reply.received("traceparent").unwrap()[3..35]);
    let refused: BTreeSet<(String, String)> = lines
        .iter()
        .filter(|line| line["decision"] == "refused")
        .map(|line| (line["problem"].as_str().unwrap().to_owned(), line["reason"].as_str().unwrap().to_owned()))
        .collect();
    let expected = [("bad-request", "path"), ("unauthenticated", "mistyped-key")];
    assert_eq!(refused, expected.map(|(problem, reason)| (problem.to_owned(), reason.to_owned())).into());
}

#[tokio::test]
async fn http_1_0_is_understood() {
    let upstream = Upstream::echo().await;
    let cluster = Cluster::start(&resources(&upstream.url())).await;
    let reply = raw(cluster.address(), b"GET /open/x HTTP/1.0\r\n\r\n").await;
    assert!(reply.starts_with("HTTP/1.0 200 OK\r\n"), "{reply}");
    assert!(reply.contains(&format!("\"{}\"", upstream.address)), "the target's own host is sent: {reply}");
}

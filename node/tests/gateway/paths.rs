//! Paths and fields as the upstream sees them: what was judged, or nothing.

use crate::harness::*;
use http::{Request, Response};

/// `/admin` is not for `acme`, by a policy; everything else is.
async fn scene() -> (Cluster, Upstream, String) {
    let upstream = Upstream::echo().await;
    let text = format!(
        "upstreams: {{ u: {{ targets: ['{}'] }} }}
consumers: {{ acme: {{ roles: [reader] }} }}
routes:
  all: {{ paths: ['/{{*rest}}'], upstream: u }}
  admin: {{ paths: ['/admin', '/admin/{{*rest}}', '/@me'], upstream: u }}
policies:
  readers: permit(principal in Role::\"reader\", action, resource == Route::\"all\");
  writers: forbid(principal, action == Action::\"DELETE\", resource);
",
        upstream.url()
    );
    let mut cluster = Cluster::start(&text).await;
    let key = cluster.create_key("acme", None, &[]).await.text().to_string();
    (cluster, upstream, key)
}

/// Asks for a target as it is written, over HTTP/1.1: the status, and what the upstream saw.
async fn over_http1(cluster: &Cluster, key: &str, target: &str) -> (u16, Option<String>) {
    let text = format!("GET {target} HTTP/1.1\r\nhost: api.test\r\nx-api-key: {key}\r\nconnection: close\r\n\r\n");
    let reply = raw(cluster.address(), text.as_bytes()).await;
    let status = reply.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = reply.split("\r\n\r\n").nth(1).unwrap_or_default();
    let json: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    (status, json["target"].as_str().map(str::to_owned))
}

#[tokio::test]
async fn a_path_has_one_form_for_everybody() {
    let (cluster, _upstream, key) = scene().await;
    let stream = tokio::net::TcpStream::connect(cluster.address()).await.unwrap();
    let mut http2 = Client::http2(stream).await;
    for (target, status, seen) in [
        ("/a/b?c=d", 200, "/a/b?c=d"),
        ("/a/", 200, "/a/"),
        ("/a%62c", 200, "/abc"),
        ("/%7euser/%41", 200, "/~user/A"),
        ("/a%2bb+c", 200, "/a%2Bb+c"),
        ("/a%20b%3bc", 200, "/a%20b%3Bc"),
        ("/%c3%bc", 200, "/%C3%BC"),
        ("/a|b", 200, "/a%7Cb"),
        ("/a?/../%2f//;%00\\{}", 200, "/a?/../%2f//;%00\\{}"),
        // However it is written, it is the route that is not for them.
        ("/admin", 403, ""),
        ("/%61dmin", 403, ""),
        ("/admin/x", 403, ""),
        ("/%61%64%6D%69%6e/%78", 403, ""),
        ("/@me", 403, ""),
        ("/%40me", 403, ""),
        // Nor does anything that an upstream could take for it come through.
        ("//admin", 400, ""),
        ("/a/../admin", 400, ""),
        ("/a/..%2fadmin", 400, ""),
        ("/a/%2e%2e/admin", 400, ""),
        ("/a/%2E./admin", 400, ""),
        ("/./admin", 400, ""),
        ("/admin;x=1", 400, ""),
        ("/admin;/x", 400, ""),
        ("/a/..;/admin", 400, ""),
        ("/a/..%3b/admin", 400, ""),
        ("/a%2fadmin", 400, ""),
        ("/a%5cadmin", 400, ""),
        ("/a\\admin", 400, ""),
        ("/a%c0%afadmin", 400, ""),
        ("/%c0%ae%c0%ae/admin", 400, ""),
        ("/a%252fadmin", 400, ""),
        ("/%2561dmin", 400, ""),
        ("/admin%00", 400, ""),
        ("/admin%0a", 400, ""),
        ("/admin%", 400, ""),
        ("/admin%zz", 400, ""),
        ("/\u{e4}", 400, ""),
    ] {
        let (answered, saw) = over_http1(&cluster, &key, target).await;
        assert_eq!((answered, saw.as_deref().unwrap_or_default()), (status, seen), "{target} over HTTP/1.1");
        let reply = http2.get(target, &key).await;
        let saw = reply.json()["target"].as_str().map(str::to_owned);
        assert_eq!((reply.status.as_u16(), saw.as_deref().unwrap_or_default()), (status, seen), "{target} over HTTP/2");
    }
    // As a proxy would be asked.
    assert_eq!(over_http1(&cluster, &key, "http://api.test/a?b").await, (200, Some("/a?b".into())));
    assert_eq!(over_http1(&cluster, &key, "http://API.TEST/admin").await.0, 403);
    assert_eq!(over_http1(&cluster, &key, "http://other.test/a").await.0, 400);
    assert_eq!(over_http1(&cluster, &key, "http://u@api.test/a").await.0, 400);
    assert_eq!(over_http1(&cluster, &key, "*").await.0, 400);
}

#[tokio::test]
async fn nothing_but_the_method_says_the_method() {
    let (cluster, _upstream, key) = scene().await;
    let names = ["x-http-method-override", "X-HTTP-Method", "x-method-override", "x_http_method_override"];
    for name in names {
        let request = Request::post("/a").header("x-api-key", &key).header(name, "DELETE").body(full("")).unwrap();
        let reply = ask(cluster.address(), request).await;
        assert_eq!((reply.status.as_u16(), reply.json()["method"].as_str().unwrap()), (200, "POST"), "{name}");
        assert_eq!(reply.received(&name.to_lowercase()), None, "{name}");
    }
    let request = Request::delete("/a").header("x-api-key", &key).body(full("")).unwrap();
    assert_eq!(ask(cluster.address(), request).await.problem(), "403 forbidden");
    // To an upstream that does not look at the case it would be one, and to the policy it would not.
    let request = Request::builder().method("delete").uri("/a").header("x-api-key", &key).body(full("")).unwrap();
    let stream = tokio::net::TcpStream::connect(cluster.address()).await.unwrap();
    assert_eq!(Client::http2(stream).await.ask(request).await.problem(), "400 bad-request");
}

#[tokio::test]
async fn fields_of_the_connection_end_here() {
    let (cluster, _upstream, key) = scene().await;
    let fields = "Connection: x-quorate-consumer, x-forwarded-for, x-request-id, Content-Length, Host, x-secret\r\n\
        X-Secret: 1\r\nUpgrade: websocket\r\nTE: gzip\r\nTrailer: x-quorate-consumer\r\nX_Quorate_Consumer: root\r\n\
        X-Quorate-Consumer: root\r\nX_Request_Id: mine\r\nX_Api_Key: mine\r\nProxy: http://elsewhere\r\n\
        X-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\nContent_Length: 2\r\n";
    let text = format!(
        "POST /a HTTP/1.1\r\nHost: api.test\r\nX-Api-Key: {key}\r\n{fields}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\nabc\r\n0\r\nX-Quorate-Consumer: root\r\nX-Api-Key: mine\r\n\r\n"
    );
    let reply = raw(cluster.address(), text.as_bytes()).await;
    let json: serde_json::Value = serde_json::from_str(reply.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(json["body_length"], 3);
    let mut names: Vec<&str> =
        json["headers"].as_array().unwrap().iter().map(|pair| pair[0].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "host",
            "traceparent",
            "transfer-encoding",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-quorate-consumer",
            "x-request-id"
        ],
        "{json}"
    );
    let consumer = json["headers"].as_array().unwrap().iter().find(|pair| pair[0] == "x-quorate-consumer").unwrap();
    assert_eq!(consumer[1], "acme");
}

#[tokio::test]
async fn an_upstream_does_not_speak_for_the_gateway() {
    let upstream = Upstream::start(|_| async {
        Response::builder()
            .header("x-quorate-node", "another")
            .header("x-quorate-consumer", "root")
            .header("x-request-id", "theirs")
            .header("connection", "x-secret")
            .header("x-secret", "1")
            .header("x-own", "kept")
            .body(full("fine"))
            .unwrap()
    })
    .await;
    let cluster = Cluster::start(&resources(&upstream.url())).await;
    let reply = ask(cluster.address(), get("/open/x", "")).await;
    assert_eq!((reply.status.as_u16(), reply.headers["x-own"].as_bytes()), (200, &b"kept"[..]));
    for (name, value) in [("x-quorate-node", "another"), ("x-request-id", "theirs")] {
        let values: Vec<_> = reply.headers.get_all(name).iter().collect();
        assert!(values.len() == 1 && values[0] != value, "{name}: {values:?}");
    }
    for name in ["x-quorate-consumer", "x-secret"] {
        assert_eq!(reply.headers.get(name), None, "{name}");
    }
}

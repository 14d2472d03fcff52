//! A request through the gateway: routing, identity, permission, headers, bodies, protocols, refusals.

use crate::shared::{Corner, ctl, dev, dev_echo};
use std::collections::BTreeMap;
use tests::{
    Answer, Cluster, Upstream,
    client::{call, get, raw},
    json::{Value, list},
};

/// The headers that the echo saw, by lower-case name; several values of one name are joined.
fn echoed(answer: &Answer) -> BTreeMap<String, String> {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for pair in list(&answer.json(), "headers") {
        let (name, value) = (pair[0].as_str().unwrap().to_ascii_lowercase(), pair[1].as_str().unwrap());
        headers.entry(name).and_modify(|all| *all = format!("{all}, {value}")).or_insert_with(|| value.to_owned());
    }
    headers
}

#[test]
fn the_example_of_dev_works_through_every_node() {
    for node in &dev().ready().nodes {
        let answer = dev().client(node.id).send(get("/echo/hello").key(dev().key())).ok();
        assert_eq!(answer.header("x-quorate-node"), Some(node.id.to_string().as_str()), "{answer}");
    }
}

#[test]
fn an_open_route_needs_no_credential() {
    let corner = Corner::make("open-route");
    let answer = dev().client(1).send(corner.open("a/b?c=d&e=%2F")).ok();
    let seen = answer.json();
    assert_eq!((seen["method"].as_str(), seen["path"].as_str()), (Some("GET"), Some("/open/a/b")));
    assert_eq!(seen["query"].as_str(), Some("c=d&e=%2F"));
    assert!(!echoed(&answer).contains_key("x-quorate-consumer"), "nobody was identified: {answer}");
}

#[test]
fn a_guarded_route_takes_the_key_in_two_headers_on_every_node() {
    let corner = Corner::make("guarded-route");
    for node in &dev().ready().nodes {
        let client = dev().client(node.id);
        client.send(corner.guarded()).ok();
        let bearer = format!("Bearer {}", corner.key);
        client.send(get("/guarded/x").host(&corner.host).header("authorization", &bearer)).ok();
        client.send(call("POST", "/guarded/x").host(&corner.host).key(&corner.key).body("hello")).ok();
    }
}

#[test]
fn refusals_do_not_say_whether_a_key_exists() {
    let corner = Corner::make("unauthenticated");
    let client = dev().client(2);
    let unknown = format!("qk_{}_{}", "a".repeat(16), corner.key.rsplit('_').next().unwrap());
    let mut mistyped = corner.key.clone();
    let last = mistyped.pop().unwrap();
    mistyped.push(if last == 'a' { 'b' } else { 'a' });
    let none = client.send(get("/guarded/x").host(&corner.host));
    let mut documents = vec![none.problem(401, "unauthenticated")];
    assert!(none.header("www-authenticate").is_some(), "{none}");
    for key in [unknown.as_str(), mistyped.as_str(), "qk_", "nonsense", &"x".repeat(5000)] {
        documents.push(client.send(corner.guarded_with(key)).problem(401, "unauthenticated"));
    }
    client.send(get(&format!("/guarded/x?api_key={}", corner.key)).host(&corner.host)).problem(401, "unauthenticated");
    // What differs between two refusals must not depend on the key that was shown.
    let stripped: Vec<Value> = documents[1..]
        .iter()
        .map(|document| {
            let mut document = document.clone();
            document.as_object_mut().unwrap().retain(|name, _| name == "type" || name == "title" || name == "detail");
            document
        })
        .collect();
    assert!(stripped.windows(2).all(|pair| pair[0] == pair[1]), "{stripped:#?}");
}

#[test]
fn a_credential_that_is_shown_twice_is_not_guessed_at() {
    let corner = Corner::make("two-keys");
    let call = corner.guarded().header("x-api-key", "nonsense");
    let answer = dev().client(1).send(call);
    assert!(matches!(answer.status, 400 | 401), "{answer}");
}

#[test]
fn nothing_is_permitted_by_default() {
    let corner = Corner::make("forbidden");
    let problem = dev().client(3).send(get("/closed/x").host(&corner.host).key(&corner.key)).problem(403, "forbidden");
    assert!(problem.to_string().find(&corner.key).is_none());
    let other = Corner::make("forbidden-other");
    dev().client(3).send(corner.guarded_with(&other.key)).problem(403, "forbidden");
}

#[test]
fn unknown_routes_and_methods() {
    let corner = Corner::make("no-route");
    let client = dev().client(1);
    client.send(get("/elsewhere").host(&corner.host)).problem(404, "no-route");
    client.send(get("/open/x").host("nobody.knows.test")).problem(404, "no-route");
    let answer = client.send(call("DELETE", "/guarded/x").host(&corner.host).key(&corner.key));
    answer.problem(405, "method-not-allowed");
    let allow = answer.header("allow").unwrap_or_default();
    assert!(allow.contains("GET") && allow.contains("POST"), "{answer}");
}

#[test]
fn hosts_are_compared_without_case_and_port() {
    let corner = Corner::make("host-case");
    dev().client(1).send(get("/open/x").host("HOST-case.TEST")).ok();
    dev().client(1).send(get("/open/x").host(&format!("{}:8080", corner.host))).ok();
}

#[test]
fn every_answer_names_the_request_and_the_node() {
    let corner = Corner::make("request-id");
    let client = dev().client(2);
    let answer = client.send(corner.guarded()).ok();
    let id = answer.header("x-request-id").expect("a request id").to_owned();
    assert_eq!(echoed(&answer)["x-request-id"], id, "the upstream hears the same: {answer}");
    assert_eq!(answer.header("x-quorate-node"), Some("2"), "{answer}");
    let refused = client.send(get("/guarded/x").host(&corner.host));
    let problem = refused.problem(401, "unauthenticated");
    let refused_id = refused.header("x-request-id").expect("a request id");
    assert!(problem.to_string().contains(refused_id), "a refusal carries the request id: {refused}");
    assert_ne!(id, refused_id);
}

#[test]
fn the_credential_and_our_own_headers_do_not_reach_the_upstream() {
    let corner = Corner::make("stripped");
    let answer = dev()
        .client(1)
        .send(
            corner
                .guarded()
                .header("x-quorate-consumer", "somebody-else")
                .header("x-quorate-anything", "x")
                .header("x-kept", "kept"),
        )
        .ok();
    let seen = echoed(&answer);
    assert_eq!(seen["x-quorate-consumer"], corner.name, "{answer}");
    assert_eq!(seen["x-kept"], "kept");
    assert!(!seen.contains_key("x-api-key") && !seen.contains_key("x-quorate-anything"), "{answer}");
    assert!(!answer.text().contains(&corner.key), "{answer}");
    let bearer = format!("Bearer {}", corner.key);
    let answer = dev().client(1).send(get("/guarded/x").host(&corner.host).header("authorization", &bearer)).ok();
    assert!(!echoed(&answer).contains_key("authorization"), "{answer}");
}

#[test]
fn hop_by_hop_headers_end_here() {
    let corner = Corner::make("hop-by-hop");
    let answer = dev()
        .client(1)
        .send(
            corner
                .open("x")
                .header("connection", "x-private, keep-alive")
                .header("x-private", "1")
                .header("keep-alive", "timeout=5")
                .header("te", "trailers")
                .header("proxy-authorization", "secret"),
        )
        .ok();
    let seen = echoed(&answer);
    for name in ["x-private", "keep-alive", "proxy-authorization"] {
        assert!(!seen.contains_key(name), "{name} went through: {answer}");
    }
}

#[test]
fn forwarded_headers_tell_the_truth() {
    let upstream = Upstream::echo();
    let mut cluster = Cluster::first("");
    cluster.apply_example(&upstream.url());
    let spoofed = || {
        get("/open/x")
            .host("spoofed.test")
            .header("x-forwarded-for", "6.6.6.6")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-host", "evil.test")
    };
    // The harness trusts proxies on this machine.
    let seen = echoed(&cluster.node(1).client().send(spoofed()).ok());
    assert_eq!((seen["x-forwarded-for"].as_str(), seen["x-forwarded-proto"].as_str()), ("6.6.6.6, 127.0.0.1", "https"));
    let seen = echoed(&cluster.node(1).client().send(get("/open/x").host("plain.test")).ok());
    assert_eq!((seen["x-forwarded-for"].as_str(), seen["x-forwarded-proto"].as_str()), ("127.0.0.1", "http"));
    assert_eq!(seen["x-forwarded-host"], "plain.test");

    // A client that is no trusted proxy is not believed.
    let node = cluster.node_mut(1);
    node.stop();
    node.run_with(|command| {
        command.args(["--gateway-trusted-proxies", "10.0.0.0/8"]);
    });
    node.wait_ready();
    let seen = echoed(&node.client().send(spoofed()).ok());
    assert_eq!((seen["x-forwarded-for"].as_str(), seen["x-forwarded-proto"].as_str()), ("127.0.0.1", "http"));
    assert_eq!(seen["x-forwarded-host"], "spoofed.test");

    let corner = Corner::make("forwarded");
    let answer = dev().tls_client(1).send(corner.open("x")).ok();
    assert_eq!(echoed(&answer)["x-forwarded-proto"], "https", "{answer}");
}

#[test]
fn a_trace_goes_on_or_begins() {
    let corner = Corner::make("trace");
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let given = format!("00-{trace}-00f067aa0ba902b7-01");
    let answer = dev().client(1).send(corner.open("x").header("traceparent", &given)).ok();
    let seen = echoed(&answer)["traceparent"].clone();
    assert!(seen.starts_with(&format!("00-{trace}-")), "{answer}");
    for broken in [None, Some("nonsense")] {
        let call = corner.open("x");
        let call = broken.map_or(call.clone(), |value| call.header("traceparent", value));
        let answer = dev().client(1).send(call).ok();
        let parts: Vec<String> = echoed(&answer)["traceparent"].split('-').map(str::to_owned).collect();
        assert_eq!(parts.iter().map(String::len).collect::<Vec<_>>(), [2, 32, 16, 2], "{answer}");
    }
}

#[test]
fn bodies_pass_in_both_directions() {
    let size = 3 * 1024 * 1024 + 17;
    let upstream = Upstream::with(move |seen| tests::upstream::Reply {
        headers: vec![("x-length", seen.body_length.to_string())],
        body: vec![b'y'; size].into(),
        ..Default::default()
    });
    let name = "bodies";
    ctl().apply(&Corner::resources(name, &upstream.url()));
    let post = || call("POST", "/open/x").host("bodies.test").body(vec![b'x'; size]);
    let mut versions = vec![dev().client(1), dev().client(2).http2(), dev().tls_client(3), dev().tls_client(1).http2()];
    for client in versions.drain(..) {
        let answer = client.send(post()).ok();
        assert_eq!(answer.header("x-length"), Some(size.to_string().as_str()));
        assert_eq!(answer.body.len(), size);
    }
}

#[test]
fn http2_carries_many_requests_at_once() {
    let corner = Corner::make("http2");
    for client in [dev().client(1).http2(), dev().tls_client(2).http2()] {
        let mut connection = client.connect().unwrap();
        let calls = (0..50).map(|number| corner.open(&number.to_string())).collect();
        for (number, answer) in connection.send_together(calls).into_iter().enumerate() {
            let answer = answer.unwrap().ok();
            assert_eq!(answer.version, http::Version::HTTP_2);
            assert_eq!(answer.json()["path"], format!("/open/{number}"));
        }
    }
}

#[test]
fn a_change_takes_effect_on_the_next_request_of_a_living_connection() {
    let name = "living-connection";
    ctl().apply(&Corner::resources(name, &dev_echo()));
    let call = || get("/open/x").host("living-connection.test");
    let mut connections: Vec<_> = (1..=3)
        .flat_map(|id| [dev().client(id), dev().client(id).http2()])
        .map(|client| client.connect().unwrap())
        .collect();
    for connection in &mut connections {
        connection.send(call()).ok();
    }
    ctl().json(["routes", "delete", "living-connection-open"]);
    for connection in &mut connections {
        connection.send(call()).problem(404, "no-route");
    }
    ctl().apply(&Corner::resources(name, &dev_echo()));
    for connection in &mut connections {
        connection.send(call()).ok();
    }
}

#[test]
fn an_upstream_that_is_not_there() {
    let name = "dead-upstream";
    let port = tests::free_port::free_port();
    ctl().apply(&Corner::resources(name, &format!("http://127.0.0.1:{port}")));
    let answer = dev().client(1).send(get("/open/x").host("dead-upstream.test"));
    assert!(matches!(answer.status, 502 | 503), "{answer}");
    answer.problem(answer.status, "upstream-unavailable");
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_sent() {
    let corner = Corner::make("too-large");
    let head = format!("POST /open/x HTTP/1.1\r\nhost: {}\r\ncontent-length: 1099511627776\r\n\r\n", corner.host);
    let answer = raw(&dev().node(1).gateway, head.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("request-too-large"), "{answer}");
}

#[test]
fn too_many_and_too_large_headers() {
    let corner = Corner::make("headers");
    let mut many = corner.open("x");
    for number in 0..150 {
        many = many.header(&format!("x-{number}"), "1");
    }
    let answer = dev().client(1).send(many);
    assert_eq!(answer.status, 431, "{answer}");
    let large = corner.open("x").header("x-large", &"l".repeat(100_000));
    if let Ok(answer) = dev().client(1).try_send(large) {
        assert_eq!(answer.status, 431, "{answer}");
    }
}

#[test]
fn what_is_not_http_gets_a_bad_request() {
    for text in ["GET / HTTP/1.1\r\n\r\n", "NONSENSE\r\n\r\n", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"] {
        let answer = raw(&dev().node(1).gateway, text.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 ") || answer.is_empty(), "{text:?}: {answer}");
    }
}

#[test]
fn two_lengths_of_one_body_smuggle_nothing() {
    let upstream = Upstream::echo();
    ctl().apply(&Corner::resources("smuggle", &upstream.url()));
    let text = "POST /open/first HTTP/1.1\r\nhost: smuggle.test\r\ncontent-length: 60\r\ntransfer-encoding: chunked\r\n\r\n\
                0\r\n\r\nGET /open/second HTTP/1.1\r\nhost: smuggle.test\r\n\r\n";
    let _ = raw(&dev().node(1).gateway, text.as_bytes());
    for seen in upstream.seen() {
        let both = seen.headers.contains_key("content-length") && seen.headers.contains_key("transfer-encoding");
        assert!(!both, "the upstream must never be left to choose: {seen:?}");
    }
}

#[test]
fn the_upstreams_status_and_headers_come_back() {
    let upstream = Upstream::with(|_| tests::upstream::Reply {
        status: 418,
        headers: vec![("x-teapot", "short".into()), ("set-cookie", "a=1".into()), ("set-cookie", "b=2".into())],
        body: "tea".into(),
        ..Default::default()
    });
    ctl().apply(&Corner::resources("teapot", &upstream.url()));
    let answer = dev().client(1).send(get("/open/x").host("teapot.test"));
    assert_eq!((answer.status, answer.text().as_str(), answer.header("x-teapot")), (418, "tea", Some("short")));
    assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2, "{answer}");
}

#[test]
fn paths_that_could_be_read_in_two_ways_are_refused() {
    let corner = Corner::make("paths");
    for path in
        ["/open/../guarded/x", "/open//x", "/open/%2e%2e/x", "/open/a%2Fb", "/open/%zz", "/open/a\\b", "/open/."]
    {
        let text = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", corner.host);
        let answer = raw(&dev().node(1).gateway, text.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
    }
    let answer = dev().client(1).send(corner.open("%7Ea/%c3%a9")).ok();
    assert_eq!(answer.json()["path"], "/open/~a/%C3%A9", "one form of it goes on");
}

#[test]
fn an_upstream_that_is_too_slow() {
    let upstream =
        Upstream::with(|_| tests::upstream::Reply { after: std::time::Duration::from_secs(20), ..Default::default() });
    let file =
        Corner::resources("slow-upstream", &upstream.url()).replace("targets:", "response_timeout: 300ms, targets:");
    ctl().apply(&file);
    dev().client(1).send(get("/open/x").host("slow-upstream.test")).problem(504, "upstream-timeout");
}

#[test]
fn a_body_over_the_routes_own_limit() {
    let file =
        Corner::resources("small-bodies", &dev_echo()).replace("policies: off", "policies: off, body_bytes_max: 1KiB");
    ctl().apply(&file);
    let post = |bytes: usize| call("POST", "/open/x").host("small-bodies.test").body(vec![b'x'; bytes]);
    dev().client(1).send(post(1024)).ok();
    dev().client(1).send(post(1025)).problem(413, "request-too-large");
    // Without a length in front, the limit is found out on the way.
    let text = format!(
        "POST /open/x HTTP/1.1\r\nhost: small-bodies.test\r\ntransfer-encoding: chunked\r\n\r\n800\r\n{}\r\n0\r\n\r\n",
        "x".repeat(2048)
    );
    let answer = raw(&dev().node(1).gateway, text.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

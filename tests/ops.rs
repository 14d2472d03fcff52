//! The ops listener and the access log: what a load balancer, a scraper and a reader of logs see.

use crate::shared::{Corner, dev};
use std::time::Duration;
use tests::{
    Cluster, Upstream,
    client::get,
    eventually,
    json::{list, number, text},
};

#[test]
fn health_and_status() {
    for node in &dev().ready().nodes {
        let ops = dev().ops(node.id);
        for path in ["/livez", "/readyz", "/serving"] {
            assert_eq!(ops.send(get(path)).status, 200, "{path}");
        }
        let status = ops.send(get("/status")).ok().json();
        assert_eq!(status["id"], node.id, "{status}");
        assert_eq!(ops.send(get("/nothing")).status, 404);
        // Whole states are read for it: only a node of a test says this.
        assert_eq!(ops.send(get("/debug/state")).status, 404);
    }
}

#[test]
fn metrics_are_bounded_and_named() {
    let corner = Corner::make("metrics");
    for _ in 0..5 {
        dev().client(1).send(corner.guarded()).ok();
    }
    dev().client(1).send(get("/guarded/x").host(&corner.host)).problem(401, "unauthenticated");
    let metrics = eventually("the requests are counted", || {
        let text = dev().ops(1).send(get("/metrics")).ok().text();
        if text.contains("metrics-guarded") { Ok(text) } else { Err(text) }
    });
    for line in metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        assert!(line.starts_with("quorate_"), "{line}");
        assert!(
            !line.contains(&corner.key_id) && !line.contains("127.0.0.1:") && !line.contains("/guarded/"),
            "{line}"
        );
    }
}

#[test]
fn a_node_drains_on_sigterm() {
    let upstream = Upstream::with(|seen| tests::upstream::Reply {
        after: if seen.target.contains("slow") { Duration::from_secs(2) } else { Duration::ZERO },
        ..Default::default()
    });
    let mut cluster = Cluster::first("");
    cluster.apply_example(&upstream.url());
    let (client, ops) = (cluster.node(1).client(), cluster.node(1).ops());
    let slow = client.clone();
    let in_flight = std::thread::spawn(move || slow.try_send(get("/open/slow")));
    eventually("the request is in flight", || if upstream.seen().is_empty() { Err("not yet") } else { Ok(()) });
    let process = cluster.node_mut(1).process.as_mut().unwrap();
    process.signal(rustix::process::Signal::TERM);
    let mut seen_not_ready = false;
    eventually("it has ended", || {
        match ops.try_send(get("/readyz")) {
            Ok(answer) if answer.status == 503 && !seen_not_ready => {
                seen_not_ready = true;
                // Not ready, and still accepting: the load balancer may not have noticed yet.
                assert_eq!(client.send(get("/open/x")).status, 200);
            }
            _ => {}
        }
        process.ended().ok_or("it runs")
    });
    assert!(seen_not_ready, "/readyz says 503 while it drains");
    assert_eq!(in_flight.join().unwrap().expect("the request in flight is finished").status, 200);
    assert_eq!(process.exit_code(), Some(0));
}

#[test]
fn the_access_log_tells_everything_but_secrets() {
    let upstream = Upstream::echo();
    let cluster = Cluster::first("");
    cluster.apply_example(&upstream.url());
    let made = cluster.ctl().json(["keys", "create", "--consumer", "acme"]);
    let key = text(&made, "key");
    let client = cluster.node(1).client();
    let answer = client.send(get("/guarded/x?token=in-the-url").key(key)).ok();
    let request_id = answer.header("x-request-id").unwrap().to_owned();
    client.send(get("/guarded/x")).problem(401, "unauthenticated");
    client.send(get("/guarded/x").key("qk_wrong_credential")).problem(401, "unauthenticated");
    let lines = eventually("three lines", || {
        let lines = cluster.node(1).access_log();
        if lines.len() >= 3 { Ok(lines) } else { Err(format!("{} lines", lines.len())) }
    });
    let line = lines.iter().find(|line| line["request_id"] == request_id.as_str()).expect("the request's line");
    assert_eq!(text(line, "consumer"), "acme", "{line}");
    assert_eq!(text(line, "route"), "guarded", "{line}");
    assert_eq!((text(line, "method"), number(line, "status")), ("GET", 200), "{line}");
    let all = list(&serde_json::Value::from(lines.clone()), "").iter().map(ToString::to_string).collect::<String>();
    let secret = key.rsplit('_').next().unwrap();
    for hidden in [secret, "qk_wrong_credential"] {
        assert!(!all.contains(hidden), "the access log holds a credential: {all}");
    }
}

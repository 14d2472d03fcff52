//! What a node without authority answers.

use crate::harness::*;
use http::Request;
use raft::Authority;
use std::sync::Arc;

async fn cluster(authority: Authority, defaults: &str) -> (Cluster, Upstream) {
    let upstream = Upstream::echo().await;
    let mut with = settings();
    with.authority = Arc::new(authority);
    let text = format!(
        "defaults: {{ {defaults} }}
upstreams: {{ u: {{ targets: ['{}'] }} }}
consumers: {{ acme: {{}} }}
routes:
  plain: {{ paths: [/plain], upstream: u, authenticate: [none], policies: off }}
  denies: {{ paths: [/denies], upstream: u, authenticate: [none], policies: off, when_isolated: deny }}
  serves: {{ paths: [/serves], upstream: u, authenticate: [none], policies: off, when_isolated: serve }}
  guarded: {{ paths: [/guarded], upstream: u, policies: off, when_isolated: serve }}
",
        upstream.url()
    );
    (Cluster::start_with(with, &text).await, upstream)
}

async fn ask(cluster: &Cluster, path: &str) -> Reply {
    let mut client = Client::connect(cluster.address()).await;
    client.ask(Request::get(path).body(full("")).unwrap()).await
}

#[tokio::test]
async fn without_authority_a_route_is_refused_unless_it_says_otherwise() {
    let (cluster, _upstream) = cluster(Authority::default(), "").await;
    for path in ["/plain", "/denies", "/nowhere"] {
        let reply = ask(&cluster, path).await;
        assert_eq!(reply.problem(), "503 isolated", "{path}");
        assert_eq!(reply.headers["retry-after"], "1");
    }
    assert_eq!(ask(&cluster, "/serves").await.status, 200);
    assert_eq!(ask(&cluster, "/guarded").await.problem(), "401 unauthenticated", "it opens nothing else");
    assert!(cluster.gateway.status().serves_isolated);
}

#[tokio::test]
async fn routes_inherit_what_the_defaults_say() {
    let (cluster, _upstream) = cluster(Authority::until(1), "when_isolated: serve").await;
    assert_eq!(ask(&cluster, "/plain").await.status, 200);
    assert_eq!(ask(&cluster, "/denies").await.problem(), "503 isolated");
    assert_eq!(ask(&cluster, "/nowhere").await.problem(), "404 no-route");
}

#[tokio::test]
async fn with_authority_all_of_them_are_served() {
    let (cluster, _upstream) = cluster(Authority::until(u64::MAX), "").await;
    for path in ["/plain", "/denies", "/serves"] {
        assert_eq!(ask(&cluster, path).await.status, 200, "{path}");
    }
}

//! `explain` says what would become of a request, and the request then shows that it is so.

use crate::harness::*;
use http::Request;
use machine::Wall;
use quorate::{
    credential::Credential,
    resource::{Counted, Imagined, Presented, explain},
};

#[tokio::test]
async fn what_is_explained_is_what_happens() {
    let upstream = Upstream::echo().await;
    let text = format!(
        "upstreams: {{ u: {{ targets: ['{}'] }} }}
consumers: {{ acme: {{ roles: [reader], env: prod }} }}
routes:
  orders: {{ hosts: [api.test], paths: ['/orders/{{id}}'], methods: [GET, PUT], upstream: u }}
  open: {{ paths: ['/open'], upstream: u, authenticate: [none] }}
  free: {{ paths: ['/free'], upstream: u, policies: off }}
policies:
  readers: |
    permit(principal in Role::\"reader\", action == Action::\"GET\", resource == Route::\"orders\");
    permit(principal, action, resource) when {{ principal.level == \"7\" }};
  never: forbid(principal, action, resource) when {{ context.path like \"*/13\" }};
",
        upstream.url()
    );
    let mut cluster = Cluster::start(&text).await;
    let key = cluster.create_key("acme", None, &[]).await;
    let gone = cluster.create_key("acme", None, &[]).await;
    cluster.revoke_key(gone.id()).await;
    let (key, gone, unknown) = (key.text(), gone.text(), Credential::generate().unwrap().text());
    let mut client = Client::connect(cluster.address()).await;
    for (method, path, shown, status, stage, reason) in [
        ("GET", "/orders/1", key.as_str(), 200, "forward", "permitted by readers#1; could not be evaluated:"),
        ("PUT", "/orders/1", key.as_str(), 403, "authorize", "403 forbidden: no policy permits it; could not be"),
        ("GET", "/orders/13", key.as_str(), 403, "authorize", "403 forbidden by never"),
        ("DELETE", "/orders/1", key.as_str(), 405, "route", "405 method-not-allowed: the path is there for GET, PUT"),
        ("GET", "/orders", key.as_str(), 404, "route", "404 no-route"),
        ("GET", "/orders/../x", key.as_str(), 400, "route", "400 bad-request"),
        ("GET", "/orders/1", "", 401, "identify", "401 unauthenticated: no-credential"),
        ("GET", "/orders/1", gone.as_str(), 401, "identify", "401 unauthenticated: revoked-key"),
        ("GET", "/orders/1", unknown.as_str(), 401, "identify", "401 unauthenticated: unknown-key"),
        ("GET", "/orders/1", &key[..50], 401, "identify", "401 unauthenticated: mistyped-key"),
        ("GET", "/open", "", 200, "forward", "the route is open"),
        ("GET", "/free", key.as_str(), 200, "forward", "the route leaves out policies"),
    ] {
        let credential = if shown.is_empty() { Presented::Nothing } else { Presented::Text(shown) };
        let url = format!("http://API.test:80{path}?query");
        let explained = explain(&cluster.state.registry, Wall(NOW_MS), &Imagined { credential, method, url: &url });
        assert_eq!(explained.allowed, status == 200, "{method} {path}: {explained:?}");
        assert_eq!(explained.stage, stage, "{method} {path}: {explained:?}");
        assert!(explained.reason.starts_with(reason), "{method} {path}: {explained:?}");
        assert!(shown.is_empty() || !format!("{explained:?}").contains(shown));
        let request = Request::builder().method(method).uri(path).header("x-api-key", shown).body(full("")).unwrap();
        assert_eq!(client.ask(request).await.status, status, "{method} {path}");
    }
}

#[tokio::test]
async fn a_key_can_be_explained_by_its_id() {
    let upstream = Upstream::echo().await;
    let mut cluster = Cluster::start(&resources(&upstream.url())).await;
    let key = cluster.create_key("acme", Some(Wall(NOW_MS + 10)), &[]).await;
    let at = |now: u64| {
        let request = Imagined { credential: Presented::Id(key.id()), method: "GET", url: "/x" };
        explain(&cluster.state.registry, Wall(now), &request)
    };
    let fine = at(NOW_MS);
    assert!(fine.allowed);
    assert_eq!(fine.policies, ["readers"]);
    assert_eq!(fine.route.unwrap().as_str(), "all");
    assert_eq!(fine.consumer.unwrap().as_str(), "acme");
    assert_eq!(fine.upstream.unwrap().as_str(), "u");
    assert_eq!(at(NOW_MS + 10).reason, "401 unauthenticated: expired-key");
}

#[tokio::test]
async fn the_limits_that_count_a_request_are_named() {
    let upstream = Upstream::echo().await;
    let text = format!(
        "upstreams: {{ u: {{ targets: ['{}'] }} }}
consumers: {{ acme: {{}} }}
limits:
  burst: {{ rate: 100/s, burst: 200, per: [consumer, route] }}
  plan: {{ quota: 10000/day, per: key, mode: shadow }}
  flood: {{ rate: 50/s, per: [ip, 'header:X-Tenant'], scope: node }}
routes:
  orders: {{ paths: ['/orders'], upstream: u, policies: off, limits: [plan, burst, flood], cost: 3 }}
  open: {{ paths: ['/open'], upstream: u, authenticate: [none] }}
  closed: {{ paths: ['/closed'], upstream: u, limits: [plan] }}
",
        upstream.url()
    );
    let mut cluster = Cluster::start(&text).await;
    let key = cluster.create_key("acme", None, &[]).await;
    let limits = |url: &str| {
        let request = Imagined { credential: Presented::Id(key.id()), method: "GET", url };
        let limits = explain(&cluster.state.registry, Wall(NOW_MS), &request).limits;
        let line = |one: &Counted| {
            let Counted { limit, subject, per, rule, cost, mode, scope } = one;
            format!("{limit}: {rule} per {per}, {subject} costs {cost}, {mode}, {scope}")
        };
        limits.iter().map(line).collect::<Vec<_>>()
    };
    assert_eq!(
        limits("/orders"),
        [
            format!("plan: 10000/day per key, {} costs 3, shadow, cluster", key.id()),
            "burst: 100/s, burst 200 per consumer,route, acme,orders costs 3, enforce, cluster".to_owned(),
            "flood: 50/s, burst 50 per ip,header:x-tenant, <ip>,<header:x-tenant> costs 3, enforce, node".to_owned(),
        ]
    );
    assert!(limits("/open").is_empty());
    // It is refused before anything counts it.
    assert!(limits("/closed").is_empty());
}

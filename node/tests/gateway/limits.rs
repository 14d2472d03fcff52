//! Limits on the path of a request: what is admitted, what a client is told, and what the log keeps of it. The cluster's
//! side is [`crate::bank`].

use crate::{
    bank::{Bank, Steward},
    harness::*,
};
use http::{Request, Response};
use machine::View;
use quorate::{
    credential::Credential,
    gateway::{self, AccessLog, Handle, Settings},
};
use raft::{AllowanceCaps, Authority};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

/// A gateway with limits, the upstream behind it and the cluster's side.
struct Scene {
    cluster: Cluster,
    _upstream: Upstream,
    bank: Bank,
    arrived: Arc<AtomicUsize>,
    key: Credential,
    settings: Settings,
    _steward: Option<Steward>,
    _folder: tempfile::TempDir,
}

impl Scene {
    /// `limits` and `routes` are lines of a resource file.
    async fn new(limits: &str, routes: &str) -> Self {
        Self::with(limits, routes, "", |_| {}).await
    }

    async fn with(limits: &str, routes: &str, defaults: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let mut scene = Self::unserved(limits, routes, defaults, change).await;
        scene._steward = Some(scene.bank.serve(Arc::clone(&scene.settings.allowances)));
        scene
    }

    /// Nobody answers the node.
    async fn unserved(limits: &str, routes: &str, defaults: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings();
        settings.access_log = AccessLog::File(folder.path().join("access.log"));
        change(&mut settings);
        let arrived = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&arrived);
        let upstream = Upstream::start(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            async {
                Response::builder()
                    .header("ratelimit", "\"theirs\";r=1")
                    .header("ratelimit-reset", "7")
                    .body(full("fine"))
                    .unwrap()
            }
        })
        .await;
        // Waiting for the cluster is no part of these scenes unless they say so: it may take as long as it takes.
        let defaults = if defaults.is_empty() { "allowance_wait: 10s" } else { defaults };
        let text = format!(
            "defaults: {{ {defaults} }}
upstreams: {{ u: {{ targets: ['{}'] }} }}
consumers: {{ acme: {{}}, beta: {{}} }}
limits:
{limits}
routes:
{routes}
  free: {{ paths: [/free], upstream: u, policies: off }}
",
            upstream.url()
        );
        let mut cluster = Cluster::start_with(settings.clone(), &text).await;
        let key = cluster.create_key("acme", None, &[]).await;
        let bank = Bank::default();
        bank.follow(&cluster.state);
        Self { cluster, _upstream: upstream, bank, arrived, key, settings, _steward: None, _folder: folder }
    }

    async fn client(&self) -> Client {
        Client::connect(self.cluster.address()).await
    }

    async fn apply(&mut self, text: &str) {
        self.cluster.apply(text).await;
        self.bank.follow(&self.cluster.state);
    }

    /// Asks again and again; says how often it was let through.
    async fn ask(&self, times: usize, path: &str) -> usize {
        let mut client = self.client().await;
        let mut admitted = 0;
        for _ in 0..times {
            admitted += usize::from(admits(&client.get(path, &self.key.text()).await));
        }
        admitted
    }

    /// The lines of the access log so far, once there are so many.
    async fn log(&self, lines: usize) -> Vec<serde_json::Value> {
        let AccessLog::File(path) = &self.settings.access_log else { panic!() };
        let read = || std::fs::read_to_string(path).unwrap();
        until("the access log", || read().lines().count() >= lines).await;
        read().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Whether it was let through; refused in the one right way otherwise.
fn admits(reply: &Reply) -> bool {
    if reply.status == 200 {
        return true;
    }
    assert_eq!(reply.problem(), "429 rate-limited");
    let seconds: u64 = text(reply, "retry-after").parse().unwrap();
    assert!(seconds >= 1);
    false
}

fn text<'r>(reply: &'r Reply, header: &str) -> &'r str {
    reply.headers.get(header).map_or("", |value| value.to_str().unwrap())
}

/// Asks until what there is has been admitted, and then some more.
async fn hammer(address: SocketAddr, path: &'static str, key: String, admitted: Arc<AtomicUsize>, all: usize) {
    let mut client = Client::connect(address).await;
    let until = Instant::now() + PATIENCE;
    while admitted.load(Ordering::SeqCst) < all && Instant::now() < until {
        if admits(&client.get(path, &key).await) {
            admitted.fetch_add(1, Ordering::SeqCst);
        }
    }
    for _ in 0..10 {
        if admits(&client.get(path, &key).await) {
            admitted.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Another node of the same cluster.
fn other_node(scene: &Scene) -> (Handle, Steward) {
    let allowances = allowances(8, AllowanceCaps::default());
    let steward = scene.bank.serve(Arc::clone(&allowances));
    let settings = Settings { allowances, access_log: AccessLog::Off, ..scene.settings.clone() };
    let state = &scene.cluster.state;
    let view = View { index: scene.cluster.index, at: state.at, registry: state.registry.clone() };
    (gateway::start(settings, 8, scene.cluster.clock.clone(), Arc::new(view)).unwrap(), steward)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_is_exact_over_connections_workers_and_nodes() {
    const QUOTA: usize = 300;
    let limits = format!("  plan: {{ quota: {QUOTA}/day, per: consumer }}");
    let scene = Scene::new(&limits, "  a: { paths: [/a], upstream: u, policies: off, limits: [plan] }").await;
    let (other, _steward) = other_node(&scene);
    let admitted = Arc::new(AtomicUsize::new(0));
    let addresses = [scene.cluster.address(), other.addresses().plain.unwrap()];
    let clients: Vec<_> = (0..12)
        .map(|client| {
            let key = scene.key.text().to_string();
            tokio::spawn(hammer(addresses[client % 2], "/a", key, Arc::clone(&admitted), QUOTA))
        })
        .collect();
    for client in clients {
        soon("a client", client).await.unwrap();
    }
    assert_eq!(admitted.load(Ordering::SeqCst), QUOTA);
    assert_eq!(scene.arrived.load(Ordering::SeqCst), QUOTA);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_is_never_exceeded_and_is_used_up() {
    let limits = "  pace: { rate: 200/s, burst: 40, per: route }";
    let scene = Scene::new(limits, "  a: { paths: [/a], upstream: u, policies: off, limits: [pace] }").await;
    let (other, _steward) = other_node(&scene);
    let began = Instant::now();
    let admitted = Arc::new(AtomicUsize::new(0));
    let addresses = [scene.cluster.address(), other.addresses().plain.unwrap()];
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (key, admitted) = (scene.key.text().to_string(), Arc::clone(&admitted));
            tokio::spawn(hammer(addresses[client % 2], "/a", key, admitted, 300))
        })
        .collect();
    for client in clients {
        soon("a client", client).await.unwrap();
    }
    let most = 40.0 + 200.0 * began.elapsed().as_secs_f64();
    let admitted = admitted.load(Ordering::SeqCst);
    assert!(admitted >= 300, "{admitted}");
    assert!(f64::from(u32::try_from(admitted).unwrap()) <= most, "{admitted} of {most}");
}

#[tokio::test]
async fn several_limits_admit_together_or_spend_nothing() {
    let limits = "  few: { quota: 5/day, per: consumer }
  many: { quota: 8/day, per: consumer }
  here: { quota: 7/day, per: consumer, scope: node }
  two: { quota: 2/day, per: consumer }
  three: { quota: 3/day, per: consumer, scope: node }
  ten: { quota: 10/day, per: consumer }
  one: { quota: 1/day, per: consumer, scope: node }";
    let routes = "  a: { paths: [/a], upstream: u, policies: off, limits: [many, few] }
  b: { paths: [/b], upstream: u, policies: off, limits: [many] }
  c: { paths: [/c], upstream: u, policies: off, limits: [here, two] }
  d: { paths: [/d], upstream: u, policies: off, limits: [here] }
  e: { paths: [/e], upstream: u, policies: off, limits: [ten, three] }
  f: { paths: [/f], upstream: u, policies: off, limits: [ten] }
  g: { paths: [/g], upstream: u, policies: off, limits: [three, one] }";
    let scene = Scene::new(limits, routes).await;
    assert_eq!(scene.ask(10, "/a").await, 5);
    assert_eq!(scene.ask(10, "/b").await, 3, "refused requests have spent none of it");
    assert_eq!(scene.ask(10, "/c").await, 2, "the cluster refuses");
    assert_eq!(scene.ask(10, "/d").await, 5, "what was reserved has gone back");
    assert_eq!(scene.ask(2, "/e").await, 2);
    assert_eq!(scene.ask(10, "/g").await, 1, "both count on this node");
    assert_eq!(scene.ask(10, "/e").await, 0, "this node refuses");
    assert_eq!(scene.ask(20, "/f").await, 8);
}

#[tokio::test]
async fn who_is_refused_before_has_spent_nothing() {
    let limits = "  plan: { quota: 2/day, per: consumer }
  here: { quota: 2/day, per: consumer, scope: node }";
    let routes = "  a: { paths: [/a], upstream: u, policies: off, limits: [plan, here], body_bytes_max: 10 }
  b: { paths: [/b], upstream: u, limits: [plan, here] }";
    let scene = Scene::new(limits, routes).await;
    let mut client = scene.client().await;
    for _ in 0..3 {
        let long =
            Request::post("/a").header("x-api-key", scene.key.text().as_str()).body(full("x".repeat(20))).unwrap();
        for reply in [
            ask(scene.cluster.address(), long).await,
            client.get("/b", &scene.key.text()).await,
            client.get("/a", "").await,
        ] {
            assert!(matches!(reply.status.as_u16(), 413 | 403 | 401), "{reply:?}");
            assert_eq!(text(&reply, "ratelimit"), "", "its limits were not looked at");
        }
    }
    assert_eq!(scene.ask(3, "/a").await, 2);
}

#[tokio::test]
async fn a_request_can_cost_more() {
    let limits = "  plan: { quota: 10/day, per: key }
  here: { quota: 10/day, per: key, scope: node }";
    let routes = "  a: { paths: [/a], upstream: u, policies: off, limits: [plan], cost: 3 }
  b: { paths: [/b], upstream: u, policies: off, limits: [here], cost: 3 }";
    let scene = Scene::new(limits, routes).await;
    assert_eq!(scene.ask(6, "/a").await, 3);
    assert_eq!(scene.ask(6, "/b").await, 3);
}

#[tokio::test]
async fn subjects_are_counted_each_by_itself() {
    let limits = "  key: { quota: 2/day, per: key }
  both: { quota: 3/day, per: [consumer, route], scope: node }";
    let routes = "  a: { paths: [/a], upstream: u, policies: off, limits: [key] }
  b: { paths: [/b], upstream: u, policies: off, limits: [both] }
  c: { paths: [/c], upstream: u, policies: off, limits: [both] }";
    let mut scene = Scene::new(limits, routes).await;
    assert_eq!(scene.ask(5, "/a").await, 2);
    assert_eq!((scene.ask(5, "/b").await, scene.ask(5, "/c").await), (3, 3));
    scene.key = scene.cluster.create_key("acme", None, &[]).await;
    assert_eq!((scene.ask(5, "/a").await, scene.ask(5, "/b").await), (2, 0));
    scene.key = scene.cluster.create_key("beta", None, &[]).await;
    assert_eq!((scene.ask(5, "/a").await, scene.ask(5, "/b").await), (2, 3));
}

#[tokio::test]
async fn clients_are_told_where_they_stand() {
    let limits = "  here: { quota: 2/hour, per: key, scope: node }
  slow: { rate: 1/hour, burst: 5, per: key, scope: node }
  plan: { quota: 3/day, per: key }";
    let routes = "  a: { paths: [/a], upstream: u, policies: off, limits: [here, slow] }
  b: { paths: [/b], upstream: u, policies: off, limits: [plan] }";
    let scene = Scene::new(limits, routes).await;
    let mut client = scene.client().await;
    let policy = "\"here\";q=2;w=3600, \"slow\";q=5;w=18000";
    for (left, of_slow) in [(1, 4), (0, 3)] {
        let reply = client.get("/a", &scene.key.text()).await;
        assert_eq!((reply.status.as_u16(), text(&reply, "ratelimit-policy")), (200, policy));
        let expected = format!("\"here\";r={left};t=3600, \"slow\";r={of_slow};t=3600");
        assert_eq!(text(&reply, "ratelimit"), expected);
        assert!(!reply.headers.contains_key("ratelimit-reset"), "what the upstream says is replaced");
    }
    let reply = client.get("/a", &scene.key.text()).await;
    assert_eq!(reply.problem(), "429 rate-limited");
    assert_eq!(text(&reply, "retry-after"), "3600");
    assert_eq!(text(&reply, "ratelimit-policy"), policy);
    assert_eq!(text(&reply, "ratelimit"), "\"here\";r=0;t=3600, \"slow\";r=3;t=3600");

    for _ in 0..3 {
        let reply = client.get("/b", &scene.key.text()).await;
        assert_eq!((reply.status.as_u16(), text(&reply, "ratelimit-policy")), (200, "\"plan\";q=3;w=86400"));
        let held: u64 =
            text(&reply, "ratelimit").strip_prefix("\"plan\";r=").unwrap().split(';').next().unwrap().parse().unwrap();
        assert!(held < 3);
    }
    let reply = client.get("/b", &scene.key.text()).await;
    assert!(!admits(&reply));
    let retry = text(&reply, "retry-after");
    assert_eq!(text(&reply, "ratelimit"), format!("\"plan\";r=0;t={retry}"));
    let reply = client.get("/free", &scene.key.text()).await;
    assert_eq!((text(&reply, "ratelimit"), text(&reply, "ratelimit-policy")), ("\"theirs\";r=1", ""));
}

#[tokio::test]
async fn a_limit_in_shadow_counts_and_never_refuses() {
    let limits = "  watch: { quota: 3/day, per: key, mode: shadow }
  local: { quota: 2/day, per: key, mode: shadow, scope: node }
  plan: { quota: 9/day, per: key }";
    let routes = "  a: { paths: [/a], upstream: u, policies: off, limits: [watch, local, plan] }
  b: { paths: [/b], upstream: u, policies: off, limits: [watch] }";
    let mut scene = Scene::new(limits, routes).await;
    let mut client = scene.client().await;
    let reply = client.get("/b", &scene.key.text()).await;
    assert_eq!(text(&reply, "ratelimit"), "\"theirs\";r=1", "nobody is to slow down for it");
    assert_eq!(scene.ask(12, "/a").await, 9);
    // What it costs is spent when the cluster has answered, so not every line knows.
    until("that the quota is used up", || scene.settings.allowances.holds().waiting == 0).await;
    assert_eq!(scene.ask(5, "/b").await, 5);
    let lines = scene.log(18).await;
    let shadowed = |line: &serde_json::Value, name: &str| {
        line["shadowed"].as_array().is_some_and(|names| names.iter().any(|one| one == name))
    };
    let count = |name: &str| lines.iter().filter(|line| shadowed(line, name)).count();
    assert_eq!(count("local"), 7, "two of nine were within it, and the three others it has not seen");
    assert!(count("watch") >= 5);
    assert!(lines.iter().all(|line| line["decision"] == "allowed" || line["limit"] == "plan"));
    // Enforced, it knows what it has counted.
    scene.apply("limits: { watch: { quota: 3/day, per: key } }").await;
    assert_eq!(scene.ask(3, "/b").await, 0);
}

#[tokio::test]
async fn without_the_cluster_a_limit_is_unavailable_and_not_ignored() {
    let limits = "  plan: { quota: 10/day, per: key }
  here: { quota: 2/day, per: key, scope: node }";
    let routes = "  a: { paths: [/a], upstream: u, policies: off, limits: [here, plan], when_isolated: serve }
  b: { paths: [/b], upstream: u, policies: off, limits: [here] }";
    for authority in [u64::MAX, 1] {
        let scene = Scene::unserved(limits, routes, "allowance_wait: 20ms, when_isolated: serve", |settings| {
            settings.authority = Arc::new(Authority::until(authority));
        })
        .await;
        let mut client = scene.client().await;
        for _ in 0..3 {
            let reply = client.get("/a", &scene.key.text()).await;
            assert_eq!(reply.problem(), "503 limit-unavailable");
            assert_eq!(text(&reply, "retry-after"), "1");
            assert_eq!(text(&reply, "ratelimit"), "\"here\";r=2;t=57600, \"plan\";r=0;t=1");
        }
        assert_eq!(scene.arrived.load(Ordering::SeqCst), 0);
        for line in scene.log(3).await {
            assert_eq!((&line["stage"], &line["decision"]), (&"limit".into(), &"refused".into()));
            assert_eq!((&line["limit"], &line["remaining"]), (&"plan".into(), &0.into()));
            assert_eq!((&line["problem"], &line["reason"]), (&"limit-unavailable".into(), &"no-allowance".into()));
            assert!(line["duration_us"]["waited"].as_u64().unwrap() >= 20_000, "{line}");
        }
        assert_eq!(scene.ask(3, "/b").await, 2, "this node's own needs nobody, and has been spent by nobody");
        let _steward = scene.bank.serve(Arc::clone(&scene.settings.allowances));
        until("the cluster", || scene.settings.allowances.holds().waiting == 0).await;
    }
}

/// What is asked for by requests that do not wait for it comes to those after them.
#[tokio::test]
async fn a_short_patience_does_not_keep_a_bucket_cold() {
    for wait in ["0ms", "1ms"] {
        let limits = "  plan: { rate: 100/s, burst: 100, per: key }";
        let routes = "  a: { paths: [/a], upstream: u, policies: off, limits: [plan] }";
        let scene = Scene::with(limits, routes, &format!("allowance_wait: {wait}"), |_| {}).await;
        let mut client = scene.client().await;
        soon("an allowance", async { while client.get("/a", &scene.key.text()).await.status != 200 {} }).await;
    }
}

#[tokio::test]
async fn what_waited_is_in_the_log() {
    let limits = "  plan: { quota: 2/day, per: key }";
    let scene =
        Scene::unserved(limits, "  a: { paths: [/a], upstream: u, policies: off, limits: [plan] }", "", |_| {}).await;
    let (address, key) = (scene.cluster.address(), scene.key.text().to_string());
    let asked = tokio::spawn(async move { ask(address, get("/a", &key)).await });
    until("that it waits", || scene.settings.allowances.holds().waiting == 1).await;
    let _steward = scene.bank.serve(Arc::clone(&scene.settings.allowances));
    assert_eq!(soon("an answer", asked).await.unwrap().status, 200);
    assert_eq!(scene.ask(2, "/a").await, 1);
    let lines = scene.log(3).await;
    // Workers write on their own: the lines are in no order.
    let waited = |line: &serde_json::Value| line["duration_us"]["waited"].as_u64().unwrap();
    // Who is refused has waited, too, for the answer that says so.
    let late = lines.iter().filter(|line| line["status"] == 200).max_by_key(|line| waited(line)).unwrap();
    // The decision is when the tokens came; the wait ends when its worker gets to it, which may be later.
    assert!(waited(late) > 0 && late["duration_us"]["decide"].as_u64().unwrap() > 0, "{late}");
    assert_eq!((&late["stage"], &late["limit"]), (&"forward".into(), &"plan".into()));
    assert_eq!(late["tick"], 42);
    let refused = lines.iter().find(|line| line["status"] == 429).unwrap();
    assert_eq!((&refused["stage"], &refused["reason"]), (&"limit".into(), &"used-up".into()));
    assert_eq!((&refused["limit"], &refused["remaining"]), (&"plan".into(), &0.into()));
}

#[tokio::test]
async fn a_revocation_ends_the_waiting() {
    let limits = "  plan: { quota: 2/day, per: key }
  here: { quota: 1/day, per: consumer, scope: node }";
    let routes = "  a: { paths: [/a], upstream: u, policies: off, limits: [plan, here] }
  b: { paths: [/b], upstream: u, policies: off, limits: [here] }";
    let mut scene = Scene::unserved(limits, routes, "", |_| {}).await;
    let (address, key) = (scene.cluster.address(), scene.key.text().to_string());
    let asked = tokio::spawn(async move { ask(address, get("/a", &key)).await });
    until("that it waits", || scene.settings.allowances.holds().waiting == 1).await;
    scene.cluster.revoke_key(scene.key.id()).await;
    assert_eq!(soon("an answer", asked).await.unwrap().problem(), "401 unauthenticated");
    assert_eq!(scene.settings.allowances.holds().waiting, 0);
    scene.key = scene.cluster.create_key("acme", None, &[]).await;
    assert_eq!(scene.ask(2, "/b").await, 1, "what was reserved has gone back");
}

#[tokio::test]
async fn a_node_keeps_no_more_buckets_than_it_may() {
    let limits = "  plan: { quota: 2/day, per: key }";
    let routes = "  a: { paths: [/a], upstream: u, policies: off, limits: [plan] }";
    let caps = AllowanceCaps { slots: 1, ..AllowanceCaps::default() };
    let mut scene = Scene::with(limits, routes, "", |settings| settings.allowances = allowances(7, caps)).await;
    assert_eq!(scene.ask(1, "/a").await, 1);
    scene.key = scene.cluster.create_key("acme", None, &[]).await;
    let reply = scene.client().await.get("/a", &scene.key.text()).await;
    assert_eq!(reply.problem(), "503 limit-unavailable");
    let lines = scene.log(2).await;
    let refused = lines.iter().find(|line| line["status"] == 503).unwrap();
    assert_eq!((&refused["reason"], &refused["limit"]), (&"too-many-buckets".into(), &"plan".into()));
}

#[tokio::test]
async fn who_finds_no_room_among_the_subjects_shares_a_bucket() {
    for scope in ["cluster", "node"] {
        let limits = format!("  tenant: {{ quota: 3/day, per: 'header:X-Tenant', max_subjects: 2, scope: {scope} }}");
        let routes = "  a: { paths: [/a], upstream: u, policies: off, limits: [tenant] }";
        let scene = Scene::new(&limits, routes).await;
        // Each on a connection of its own: workers share the count.
        let admits = async |tenant: &str| {
            let mut request = get("/a", &scene.key.text());
            request.headers_mut().insert("x-tenant", tenant.parse().unwrap());
            admits(&ask(scene.cluster.address(), request).await)
        };
        let mut admitted = Vec::new();
        for tenant in ["one", "two", "three", "four", "five", "one", "two"] {
            let mut count = 0;
            for _ in 0..5 {
                count += usize::from(admits(tenant).await);
                // Who is not seen for some seconds makes room, and on a busy machine they go by: those who were first are seen again.
                for seated in ["one", "two"].iter().take(admitted.len()) {
                    assert!(!admits(seated).await, "{scope}: {seated}");
                }
            }
            admitted.push(count);
        }
        assert_eq!(admitted, [3, 3, 3, 0, 0, 0, 0], "{scope}");
    }
}

#[tokio::test]
async fn an_edited_limit_counts_on() {
    let limits = "  here: { quota: 3/day, per: key, scope: node }
  plan: { quota: 3/day, per: key }";
    let routes = "  a: { paths: [/a], upstream: u, policies: off, limits: [here] }
  b: { paths: [/b], upstream: u, policies: off, limits: [plan] }";
    let mut scene = Scene::new(limits, routes).await;
    assert_eq!((scene.ask(5, "/a").await, scene.ask(5, "/b").await), (3, 3));
    scene.apply("limits: { here: { quota: 5/day, per: key, scope: node }, plan: { quota: 5/day, per: key } }").await;
    let before = scene.cluster.state.registry.limits.clone();
    scene.settings.allowances.limits_changed(&machine::Registry::default().limits, &before);
    assert_eq!((scene.ask(5, "/a").await, scene.ask(5, "/b").await), (2, 2));
    // A route that is edited leaves its limits as they are.
    scene.apply("routes: { a: { paths: [/a, /c], upstream: u, policies: off, limits: [here] } }").await;
    assert_eq!(scene.ask(5, "/c").await, 0);
}

#[tokio::test]
async fn a_slot_that_is_not_used_is_let_go() {
    let limits = "  plan: { rate: 1000/s, burst: 1000, per: key }";
    let scene = Scene::new(limits, "  a: { paths: [/a], upstream: u, policies: off, limits: [plan] }").await;
    assert_eq!(scene.ask(3, "/a").await, 3);
    assert_eq!(scene.settings.allowances.holds().slots, 1);
    until("that it is forgotten", || scene.settings.allowances.holds().slots == 0).await;
    assert_eq!(scene.ask(3, "/a").await, 3);
}

#[tokio::test]
async fn open_routes_count_addresses() {
    let limits = "  plan: { quota: 1/day, per: ip, max_subjects: 10 }";
    let scene = Scene::new(limits, "  a: { paths: [/a], upstream: u, authenticate: [none], limits: [plan] }").await;
    let mut client = scene.client().await;
    assert!(admits(&client.get("/a", "").await));
    assert!(!admits(&client.get("/a", "").await));
}

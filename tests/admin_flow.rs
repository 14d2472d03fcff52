//! Keys, consumers, operators and the audit log, as an operator works with them: what a command says is true on every node from the
//! next request on.

use crate::shared::{Corner, ctl, dev};
use tests::{
    Ctl, admin,
    client::get,
    eventually,
    json::{Value, find, list, number, text},
    runtime::runtime,
};

const NODES: [u64; 3] = [1, 2, 3];

/// Checks what every write answers: a revision, and each node's part in the fence.
fn assert_enforced_everywhere(written: &Value) {
    assert!(number(written, "revision") > 0, "{written}");
    assert!(written["elapsed_ms"].is_u64(), "{written}");
    let fence = list(written, "fence");
    for node in NODES {
        let entry = find(fence, "node", node).unwrap_or_else(|| panic!("no node {node} in {written}"));
        assert_eq!(entry["state"], "applied", "{written}");
    }
}

#[test]
fn a_key_is_accepted_by_every_node_on_the_next_request() {
    let corner = Corner::make("key-everywhere");
    for from in NODES {
        let made = dev().ctl_at(from).json(["keys", "create", "--consumer", &corner.name, "--name", "laptop"]);
        assert_enforced_everywhere(&made);
        let key = text(&made, "key");
        assert!(key.starts_with(&format!("qk_{}_", text(&made, "id"))), "the key carries its id");
        assert_eq!(text(&made, "consumer"), corner.name);
        assert!(made.get("expires_at").is_some(), "{made}");
        for node in NODES {
            dev().client(node).send(corner.guarded_with(key)).ok();
        }
    }
}

#[test]
fn a_revoked_key_is_refused_by_every_node_on_the_next_request() {
    let corner = Corner::make("key-revoked");
    let mut connections: Vec<_> = NODES.iter().map(|node| dev().client(*node).connect().unwrap()).collect();
    for from in NODES {
        let made = ctl().json(["keys", "create", "--consumer", &corner.name]);
        let (key, id) = (text(&made, "key"), text(&made, "id"));
        for connection in &mut connections {
            connection.send(corner.guarded_with(key)).ok();
        }
        let revoked = dev().ctl_at(from).json(["keys", "revoke", id]);
        assert_enforced_everywhere(&revoked);
        for connection in &mut connections {
            connection.send(corner.guarded_with(key)).problem(401, "unauthenticated");
        }
        let shown = dev().ctl_at(from).json(["keys", "show", id]);
        assert_eq!(text(&shown, "state"), "revoked");
        // For good: a revoked key cannot be rotated back to life.
        ctl().run_json(["keys", "rotate", id, "--overlap", "1h"]).refused(1);
    }
}

#[test]
fn a_rotation_overlaps_as_long_as_it_was_told() {
    let corner = Corner::make("key-rotated");
    let rotated = ctl().json(["keys", "rotate", &corner.key_id, "--overlap", "7d"]);
    assert_enforced_everywhere(&rotated);
    let second = text(&rotated, "key").to_owned();
    assert_eq!(text(&rotated, "id"), corner.key_id, "the id stays");
    assert_ne!(second, corner.key);
    for node in NODES {
        dev().client(node).send(corner.guarded()).ok();
        dev().client(node).send(corner.guarded_with(&second)).ok();
    }
    assert_eq!(text(&ctl().json(["keys", "show", &corner.key_id]), "state"), "rotating");
    let third = text(&ctl().json(["keys", "rotate", &corner.key_id, "--overlap", "0s"]), "key").to_owned();
    for node in NODES {
        dev().client(node).send(corner.guarded()).problem(401, "unauthenticated");
        dev().client(node).send(corner.guarded_with(&second)).problem(401, "unauthenticated");
        dev().client(node).send(corner.guarded_with(&third)).ok();
    }
}

#[test]
fn a_key_ends_when_its_time_is_over() {
    let corner = Corner::make("key-expires");
    let made = ctl().json(["keys", "create", "--consumer", &corner.name, "--expires", "2s"]);
    let key = text(&made, "key");
    for node in NODES {
        eventually("the key has expired", || {
            let answer = dev().client(node).send(corner.guarded_with(key));
            if answer.status == 401 { Ok(()) } else { Err(answer.to_string()) }
        });
    }
    assert_eq!(text(&ctl().json(["keys", "show", text(&made, "id")]), "state"), "expired");
}

#[test]
fn a_disabled_consumer_is_refused_and_nothing_is_forgotten() {
    let corner = Corner::make("consumer-disabled");
    assert_enforced_everywhere(&dev().ctl_at(2).json(["consumers", "disable", &corner.name]));
    for node in NODES {
        let answer = dev().client(node).send(corner.guarded());
        assert!(matches!(answer.status, 401 | 403), "{answer}");
    }
    assert_enforced_everywhere(&dev().ctl_at(3).json(["consumers", "enable", &corner.name]));
    for node in NODES {
        dev().client(node).send(corner.guarded()).ok();
    }
}

#[test]
fn keys_are_listed_without_their_secrets() {
    let corner = Corner::make("key-list");
    let ran = ctl().run_json(["keys", "list", "--consumer", &corner.name]);
    let listed = ran.done();
    let key = find(list(&listed, ""), "id", corner.key_id.as_str()).expect("the key is listed");
    assert_eq!((text(key, "state"), text(key, "consumer")), ("active", corner.name.as_str()));
    let secret = corner.key.rsplit('_').next().unwrap();
    for output in [ran.stdout, ctl().run(["export"]).stdout, ctl().run(["audit"]).stdout] {
        assert!(!output.contains(secret), "the secret is printed once, when the key is made");
    }
}

#[test]
fn keys_of_another_gateway_are_taken_in_as_hashes() {
    let corner = Corner::make("key-import");
    let legacy = "legacy-credential-0123456789";
    let digest = sha256(legacy);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys.csv");
    std::fs::write(&file, format!("sha256,consumer,name,scopes,expires\n{digest},{},old,,\n", corner.name)).unwrap();
    assert_enforced_everywhere(&ctl().json(["keys".as_ref(), "import".as_ref(), file.as_os_str()]));
    for node in NODES {
        dev().client(node).send(corner.guarded_with(legacy)).ok();
        dev().client(node).send(corner.guarded_with("legacy-credential-0123456780")).problem(401, "unauthenticated");
    }
}

/// By the machine's own program: the tests carry no digests of their own.
fn sha256(text: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("text");
    std::fs::write(&file, text).unwrap();
    let output = std::process::Command::new("sha256sum").arg(file).output().expect("coreutils");
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

#[test]
fn exit_codes_tell_scripts_what_happened() {
    let corner = Corner::make("exit-codes");
    let no_such = "a".repeat(16);
    assert_eq!(ctl().run_json(["keys", "revoke", &no_such]).refused(1)["type"], "not_found");
    assert_eq!(ctl().run_json(["keys", "create", "--consumer", "nobody"]).refused(1)["type"], "not_found");
    assert_eq!(ctl().run(["keys", "frobnicate"]).code, 2);
    assert_eq!(ctl().run(["keys", "create"]).code, 2, "without a consumer");
    let nowhere = format!("127.0.0.1:{}", tests::free_port::free_port());
    ctl().at(&[&nowhere]).run_json(["--timeout", "2s", "cluster", "status"]).refused(3);

    let revision = number(&ctl().json(["keys", "show", &corner.key_id]), "revision");
    let stale = (revision - 1).to_string();
    ctl().run_json(["--if-revision", &stale, "keys", "revoke", &corner.key_id]).refused(5);
    dev().client(1).send(corner.guarded()).ok();
    ctl().json(["--if-revision", &revision.to_string(), "keys", "revoke", &corner.key_id]);
}

#[test]
fn a_request_that_is_sent_twice_is_done_once() {
    let corner = Corner::make("sent-twice");
    let context = ctl().context().to_path_buf();
    let write = admin::write_options();
    let replies: Vec<_> = NODES
        .iter()
        .map(|node| {
            let (context, address) = (context.clone(), dev().node(*node).cluster.clone());
            let request = proto::admin::SetConsumerEnabledRequest {
                write: Some(write.clone()),
                name: corner.name.clone(),
                enabled: false,
            };
            runtime().block_on(async move {
                let channel = admin::connect(&context, &address).await;
                let mut client = proto::admin::resources_client::ResourcesClient::new(channel);
                client.set_consumer_enabled(request).await.expect("done").into_inner()
            })
        })
        .collect();
    assert!(replies.iter().all(|reply| reply.revision == replies[0].revision), "{replies:?}");
    let audit = ctl().json(["audit"]);
    let entries = list(&audit, "").iter().filter(|entry| entry["to_revision"] == replies[0].revision).count();
    assert_eq!(entries, 1, "one change, one entry");
}

#[test]
fn a_request_from_long_ago_is_refused_with_the_clusters_time() {
    let mut write = admin::write_options();
    write.request_issued_ms -= 25 * 60 * 60 * 1000;
    let corner = Corner::make("outdated");
    let (context, address) = (ctl().context().to_path_buf(), dev().node(2).cluster.clone());
    let status = runtime().block_on(async move {
        let channel = admin::connect(&context, &address).await;
        let mut client = proto::admin::resources_client::ResourcesClient::new(channel);
        let request = proto::admin::SetConsumerEnabledRequest { write: Some(write), name: corner.name, enabled: false };
        client.set_consumer_enabled(request).await.expect_err("it is a day old")
    });
    let problem: proto::admin::Problem = prost::Message::decode(status.details()).expect("a problem");
    assert_eq!(problem.r#type, "outdated_request", "{problem:?}");
    assert!(problem.cluster_wall_ms.abs_diff(admin::now_ms()) < 60_000, "{problem:?}");
}

#[test]
fn operators_may_what_their_role_says() {
    let corner = Corner::make("roles");
    let directory = tempfile::tempdir().unwrap();
    let create = |name: &str, role: &str| {
        let file = directory.path().join(format!("{name}.toml"));
        let out = file.to_str().unwrap();
        ctl().json(["operators", "create", name, "--role", role, "--out", out]);
        Ctl::new(&file)
    };
    let viewer = create("roles-viewer", "viewer");
    viewer.json(["cluster", "status"]);
    viewer.json(["keys", "list"]);
    for node in NODES {
        let viewer = viewer.at(&[&dev().node(node).cluster]);
        viewer.run_json(["keys", "create", "--consumer", &corner.name]).refused(4);
        viewer.run_json(["cluster", "join-token"]).refused(4);
    }
    let operator = create("roles-operator", "operator");
    let key = text(&operator.json(["keys", "create", "--consumer", &corner.name]), "key").to_owned();
    dev().client(2).send(corner.guarded_with(&key)).ok();
    operator.run_json(["operators", "revoke", "roles-viewer"]).refused(4);
    operator.run_json(["members", "remove", "1"]).refused(4);

    ctl().run_json(["operators", "create", "roles-viewer", "--role", "viewer", "--out", "/dev/null"]);
    let audit = ctl().json(["audit", "--actor", "roles-operator"]);
    assert!(list(&audit, "").iter().any(|entry| text(entry, "action").contains("key")), "{audit}");

    ctl().json(["operators", "revoke", "roles-operator"]);
    for node in NODES {
        operator.at(&[&dev().node(node).cluster]).run_json(["keys", "list"]).refused(4);
    }
    let listed = ctl().json(["operators", "list"]);
    let revoked = find(list(&listed, ""), "name", "roles-operator").expect("a revoked operator is still listed");
    assert_eq!(text(revoked, "state"), "revoked");
}

#[test]
fn an_operator_name_is_taken_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    ctl().json(["operators", "create", "taken", "--role", "viewer", "--out", &file("one.toml")]);
    ctl().run_json(["operators", "create", "taken", "--role", "viewer", "--out", &file("two.toml")]).refused(5);
}

#[test]
fn the_last_admin_stays() {
    let operators = ctl().json(["operators", "list"]);
    let admins: Vec<&Value> = list(&operators, "")
        .iter()
        .filter(|operator| operator["role"] == "admin" && operator["state"] == "active")
        .collect();
    let [only] = admins.as_slice() else { panic!("dev has one admin: {operators}") };
    ctl().run_json(["operators", "revoke", text(only, "name")]).refused(1);
}

#[test]
fn the_audit_log_says_who_changed_what() {
    let corner = Corner::make("audited");
    let disabled = ctl().json(["consumers", "disable", &corner.name]);
    let revision = number(&disabled, "revision");
    for node in NODES {
        let audit = dev().ctl_at(node).json(["audit"]);
        let entries = list(&audit, "");
        let entry = find(entries, "to_revision", revision).unwrap_or_else(|| panic!("no {revision} in {audit}"));
        assert!(text(entry, "subject").contains(&corner.name), "{entry}");
        assert!(!text(entry, "actor").is_empty(), "{entry}");
        assert!(number(entry, "from_revision") < revision, "{entry}");
        let revisions: Vec<u64> = entries.iter().map(|entry| number(entry, "to_revision")).collect();
        assert!(revisions.is_sorted(), "{revisions:?}");
    }
}

#[test]
fn explain_says_what_decides() {
    let corner = Corner::make("explained");
    let url = |path: &str| format!("http://{}{path}", corner.host);
    let guarded = url("/guarded/x");
    let allowed = ctl().json(["explain", "--key", &corner.key, "GET", &guarded]);
    assert_eq!(allowed["allowed"], true, "{allowed}");
    assert_eq!(text(&allowed, "route"), format!("{}-guarded", corner.name));
    assert_eq!(text(&allowed, "consumer"), corner.name);
    assert_eq!(list(&allowed, "policies"), [Value::from(corner.name.as_str())]);

    let by_id = ctl().json(["explain", "--key-id", &corner.key_id, "GET", &guarded]);
    assert_eq!(by_id["allowed"], true, "{by_id}");

    for (method, path, key, stage) in [
        ("GET", "/elsewhere", Some(corner.key.as_str()), "route"),
        ("DELETE", "/guarded/x", Some(&corner.key), "route"),
        ("GET", "/guarded/x", Some("nonsense"), "identify"),
        ("GET", "/guarded/x", None, "identify"),
        ("GET", "/closed/x", Some(&corner.key), "authorize"),
    ] {
        let url = url(path);
        let mut arguments = vec!["explain", method, &url];
        if let Some(key) = key {
            arguments.extend(["--key", key]);
        }
        let refused = ctl().json(&arguments);
        assert_eq!((&refused["allowed"], text(&refused, "stage")), (&Value::Bool(false), stage), "{refused}");
        assert!(!text(&refused, "reason").is_empty(), "{refused}");
    }
}

#[test]
fn cluster_status_shows_every_node() {
    for node in NODES {
        let status = dev().ctl_at(node).json(["cluster", "status"]);
        let leader = number(&status, "leader");
        assert!(NODES.contains(&leader), "{status}");
        assert!(number(&status, "term") > 0 && number(&status, "revision") > 0, "{status}");
        for id in NODES {
            let entry = tests::dev::node_status(&status, id);
            assert_eq!(text(&entry, "role"), if id == leader { "leader" } else { "voter" }, "{status}");
            assert_eq!(entry["reachable"], true, "{status}");
            for field in ["applied", "lag"] {
                assert!(entry[field].is_u64(), "{status}");
            }
            assert!(!text(&entry, "name").is_empty() && !text(&entry, "version").is_empty(), "{status}");
        }
    }
}

#[test]
fn settings_are_read_and_changed() {
    let settings = ctl().json(["cluster", "settings"]);
    assert_eq!(number(&settings, "voters"), 3, "{settings}");
    ctl().run_json(["cluster", "settings", "set", "--voters", "4"]).refused(1);
    assert_enforced_everywhere(&ctl().json(["cluster", "settings", "set", "--audit-entries", "50000"]));
    assert_eq!(number(&ctl().json(["cluster", "settings"]), "audit_entries_max"), 50_000);
}

#[test]
fn a_stranger_gets_nowhere() {
    // Plain HTTP, and TLS without a certificate, at the cluster listener.
    let answer = tests::client::raw(&dev().node(1).cluster, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(!answer.contains("200"), "{answer}");
    let stranger = tests::Client::new(&dev().node(1).cluster).tls(&dev().ready().ca).http2();
    if let Ok(answer) = stranger.try_send(get("/quorate.admin.v1.Cluster/Status")) {
        assert_ne!(answer.header("grpc-status"), Some("0"), "{answer}");
    }
}

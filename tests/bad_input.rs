//! What is wrong is refused with a text that says what, where and what to do; and nothing is lost by it.

use crate::shared::{Corner, ctl, dev, dev_echo};
use tests::{Cluster, cluster, json::text};

/// Applies a file that must be refused; the message must hold all of these words. Checks that `validate` agrees and that nothing
/// changed.
fn refuse(file: &str, words: &[&str]) {
    for verb in ["validate", "diff", "apply"] {
        let ran = ctl().run_file(verb, file, &[]);
        let code = ran.code;
        assert!(code == 1 || code == 2, "{ran}");
        ran.refused(code);
        for word in words {
            assert!(ran.stderr.contains(word), "{word:?} is not in the message of {verb}: {ran}");
        }
    }
}

#[test]
fn mistakes_in_a_resource_file_are_named_by_file_line_and_field() {
    let good = Corner::resources("mistaken", &dev_echo());
    refuse(&good.replace("methods:", "methos:"), &["resources.yaml", "7", "methos"]);
    refuse(&good.replace("upstream: mistaken }", "upstream: missing }"), &["resources.yaml", "missing"]);
    refuse(&good.replace("permit(", "permitt("), &["resources.yaml", "policies.mistaken"]);
    refuse(&good.replace("hosts: [\"mistaken.test\"]", "hosts: 5"), &["resources.yaml", "hosts"]);
    refuse("upstreams: [", &["resources.yaml"]);
    refuse("routes:\n  a: { paths: [\"no-slash\"], upstream: x }\n", &["resources.yaml:2", "paths"]);
    refuse(&good.replace("http://127", "ftp://127"), &["resources.yaml", "targets"]);
    // Routes and what they name must be unique.
    refuse(&format!("{good}\nupstreams: {{}}\n"), &["resources.yaml", "upstreams"]);
    // Limits: a rate that is none, one that is not there, and one that would count what nobody has.
    refuse("limits:\n  burst: { rate: 0.5/s, per: consumer }\n", &["resources.yaml:2", "limits.burst.rate", "30/min"]);
    let limited = good.replace("methods: [GET, POST]", "limits: [burst]");
    refuse(&limited, &["resources.yaml", "limits[0]", "there is no limit"]);
    let open = good.replace("authenticate: [none]", "authenticate: [none], limits: [burst]");
    refuse(&format!("{open}\nlimits: {{ burst: {{ rate: 5/s, per: key }} }}\n"), &["limits[0]", "counts by key"]);
    // Deeper than what reads it could go: it would end the node.
    let (open, close) = ("(".repeat(2_000), ")".repeat(2_000));
    let deep = format!("policies:\n  p: \"permit(principal, action, resource) when {{ {open}true{close} }};\"\n");
    refuse(&deep, &["resources.yaml:2", "policies.p", "64 deep"]);
    // Not built yet, and said so.
    refuse(
        "limits:\n  one: { quota: 5/day, per: \"claim:sub\" }\n",
        &["resources.yaml:2", "limits.one.per", "not available"],
    );
    let answer = dev().client(1).send(tests::client::get("/open/x").host("mistaken.test"));
    answer.problem(404, "no-route");
}

#[test]
fn overlapping_routes_are_refused() {
    let corner = Corner::make("overlapping");
    let file = format!(
        "routes:\n  second: {{ hosts: [\"{}\"], paths: [\"/open/{{*other}}\"], upstream: overlapping, authenticate: [none], policies: off }}\n",
        corner.host
    );
    refuse(&file, &["resources.yaml", "second", "overlapping-open"]);
    dev().client(1).send(corner.open("x")).ok();
}

#[test]
fn a_file_that_does_not_exist() {
    let ran = ctl().run(["apply", "-f", "/nowhere/resources.yaml"]);
    assert_eq!(ran.code, 2, "{ran}");
    assert!(ran.stderr.contains("/nowhere/resources.yaml"), "{ran}");
}

#[test]
fn check_reads_settings_and_resource_files_offline() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("node.toml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "name = \"n1\"\n[gateway]\nbind = \"127.0.0.1:8080\"\n").unwrap();
    assert_eq!(cluster::quorate(&["check", path]).code, 0);
    std::fs::write(&file, "name = \"n1\"\nnames = \"n2\"\n").unwrap();
    let wrong = cluster::quorate(&["check", path]);
    assert_ne!(wrong.code, 0);
    assert!(wrong.stderr.contains("node.toml:2") && wrong.stderr.contains("names"), "{wrong}");
    let resources = directory.path().join("resources.yaml");
    std::fs::write(&resources, Corner::resources("checked", "http://127.0.0.1:1")).unwrap();
    assert_eq!(cluster::quorate(&["check", resources.to_str().unwrap()]).code, 0);
    std::fs::write(&resources, "routs: {}\n").unwrap();
    let wrong = cluster::quorate(&["check", resources.to_str().unwrap()]);
    assert_ne!(wrong.code, 0);
    assert!(wrong.stderr.contains("resources.yaml:1") && wrong.stderr.contains("routs"), "{wrong}");
}

#[test]
fn directories_that_are_something_else_already() {
    let mut first = Cluster::first("");

    // init where a node runs; where one has run; and with other settings.
    let living = first.node(1).quorate("init", &[]);
    assert_ne!(living.code, 0, "{living}");
    assert!(living.stderr.contains("data"), "names the directory: {living}");
    let running = first.node(1).quorate("run", &[]);
    assert_ne!(running.code, 0, "{running}");
    first.node_mut(1).stop();
    let done = first.node(1).quorate("init", &[]);
    assert_eq!(done.code, 0, "done already: {done}");
    first.node_mut(1).run();
    first.node_mut(1).wait_ready();

    // A node that was never prepared.
    let bare = first.prepare("bare");
    let run = bare.quorate("run", &[]);
    assert_ne!(run.code, 0, "{run}");
    assert!(run.stderr.contains("join") && run.stderr.contains("init"), "says what to do: {run}");

    // A member of this cluster asked to join another one.
    let second = Cluster::first_beside("");
    let (token, peer) = (second.token(), second.peer());
    let member = first.add(&[]);
    assert_eq!(member, 2);
    first.node_mut(2).stop();
    let other = first.node(2).quorate("join", &["--peer", &peer, "--token", &token]);
    assert_ne!(other.code, 0, "{other}");
    assert!(other.stderr.contains("cluster"), "{other}");
    let peer = first.peer();
    let own = first.node(2).quorate("join", &["--peer", &peer, "--token", &token]);
    assert_eq!(own.code, 0, "a member already: {own}");
    first.node_mut(2).run();
    first.node_mut(2).wait_ready();

    // The operator of one cluster at another.
    let stranger = first.ctl().at(&[&second.node(1).cluster]).run_json(["--timeout", "5s", "cluster", "status"]);
    assert!(matches!(stranger.code, 3 | 4), "{stranger}");
}

#[test]
fn tokens_that_are_wrong_used_or_expired() {
    let mut cluster = Cluster::first("");
    let peer = cluster.peer();
    let used = cluster.token();
    let mut node = cluster.prepare("n2");
    let joined = node.quorate("join", &["--peer", &peer, "--token", &used]);
    assert_eq!(joined.code, 0, "{joined}");
    node.run();
    node.wait_ready();
    cluster.nodes.push(node);

    let other = cluster.prepare("n3");
    let refused = |token: &str, words: &[&str]| {
        let ran = other.quorate("join", &["--peer", &peer, "--token", token]);
        assert_ne!(ran.code, 0, "{ran}");
        for word in words {
            assert!(ran.stderr.contains(word), "{word:?} is not in {ran}");
        }
        // The token's secret must not be repeated into logs.
        assert!(token.len() < 20 || !ran.stderr.contains(token), "{ran}");
    };
    refused(&used, &["already used"]);
    refused("nonsense", &["token"]);
    refused(&used[..used.len() - 1], &["token"]);
    let (secret, authority) = used.split_once('.').unwrap();
    refused(&format!("qj_{}.{authority}", "A".repeat(43)), &["not known"]);
    let wrong_authority: String = authority.chars().map(|digit| if digit == '0' { '1' } else { '0' }).collect();
    refused(&format!("{secret}.{wrong_authority}"), &["authority", "another cluster"]);
    let short = text(&cluster.ctl().json(["cluster", "join-token", "--expires", "1s"]), "token").to_owned();
    let clock = || cluster.ctl().json(["cluster", "clock"])["wall_ms"].as_u64().unwrap_or_default();
    let made_at = clock();
    tests::eventually("the token's time is over", || {
        let now = clock();
        if now > made_at + 1500 { Ok(()) } else { Err(format!("{now} of {}", made_at + 1500)) }
    });
    refused(&short, &["expired"]);
}

#[test]
fn a_port_in_use_is_named() {
    let cluster = Cluster::first("");
    let mut second = cluster.prepare("n2");
    let token = cluster.token();
    let joined = second.quorate("join", &["--peer", &cluster.peer(), "--token", &token]);
    assert_eq!(joined.code, 0, "{joined}");
    for address in [second.gateway.clone(), second.cluster.clone(), second.ops.clone()] {
        let _taken = std::net::TcpListener::bind(&address).expect("the node does not run");
        let run = second.quorate("run", &[]);
        assert_ne!(run.code, 0, "{run}");
        assert!(run.stderr.contains(&address), "{address} is not in {run}");
    }
    second.run();
    second.wait_ready();
}

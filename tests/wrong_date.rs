//! A machine whose date is wrong for a while: it costs the cluster nothing, and the machine itself no more than that while.

use std::fs;
use tests::{Cluster, cluster::Node, eventually, json::text};

/// Five years.
const AHEAD_MS: u64 = 5 * 365 * 24 * 60 * 60 * 1000;

/// What a node is told to get wrong.
fn tell(node: &Node, utc_offset_ms: u64) {
    let file = node.directory.join("faults.toml");
    fs::write(file.with_extension("new"), format!("utc_offset_ms = {utc_offset_ms}\n")).unwrap();
    fs::rename(file.with_extension("new"), file).unwrap();
}

fn run(node: &mut Node) {
    let file = node.directory.join("faults.toml");
    node.run_with(|command| {
        command.arg("--unsafe-test-faults").arg(file);
    });
}

/// The ends of the certificates that the nodes show.
fn ends(cluster: &Cluster) -> Vec<u64> {
    (1..=3)
        .map(|place| {
            let status = cluster.node(place).ops().send(tests::client::get("/status")).ok().json();
            status["certificate"]["not_after_ms"].as_u64().unwrap()
        })
        .collect()
}

#[test]
fn a_node_whose_date_was_wrong_comes_back_when_it_is_right() {
    let mut cluster = Cluster::start(3);
    let before = ends(&cluster);
    // Started with the wrong date, it knows no other: it signs a certificate that nobody accepts, and is alone.
    let node = cluster.node_mut(2);
    tell(node, AHEAD_MS);
    node.kill();
    run(node);
    eventually("it has signed by the wrong date", || {
        let log = cluster.node(2).process.as_ref().unwrap().stderr();
        if log.contains("it has signed a new one") { Ok(()) } else { Err(log) }
    });

    // With the right date it signs another one, and is with the others again.
    tell(cluster.node(2), 0);
    cluster.node_mut(2).wait_ready();
    assert!(ends(&cluster)[1] < before[1] + AHEAD_MS / 2);
    cluster.ctl().json_soon(&["cluster", "status"]);
    let made = cluster.ctl_at(2).json_soon(&["cluster", "join-token"]);
    assert!(text(&made, "token").starts_with("qj_"));
}

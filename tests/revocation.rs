//! A key that was revoked is refused everywhere, also by a node that was stopped in the middle of everything when it happened and wakes
//! up later with what it knew.

use rustix::process::Signal;
use std::sync::{Arc, OnceLock};
use tests::{
    Cluster, Upstream,
    client::get,
    dev::node_status,
    eventually,
    json::{Value, find, list, text},
    load::Load,
};

/// Pauses a node, revokes a key through another one, and wakes the node with requests that have waited for it.
fn revoke_while_paused(pick: impl FnOnce(&Cluster) -> usize) {
    let upstream = Upstream::echo();
    let mut cluster = Cluster::start(3);
    cluster.apply_example(&upstream.url());
    let made = cluster.ctl().json(["keys", "create", "--consumer", "acme"]);
    let key = text(&made, "key").to_owned();
    let call = || get("/guarded/x").key(&key);
    let paused = pick(&cluster);
    let through = paused % 3 + 1;
    let id = cluster.id(&cluster.node(paused).name);
    let mut connections: Vec<_> = (0..8).map(|_| cluster.node(paused).client().connect().unwrap()).collect();
    for connection in &mut connections {
        connection.send(call()).ok();
    }

    cluster.node_mut(paused).process.as_mut().unwrap().signal(Signal::STOP);
    let revoked = cluster.ctl_at(through).json_soon(&["keys", "revoke", text(&made, "id")]);
    assert_eq!(state(&revoked, id), "expired", "{revoked}");
    for place in (1..=3).filter(|place| *place != paused) {
        cluster.node(place).client().send(call()).problem(401, "unauthenticated");
    }

    // They reach a process that does not run, on connections that it has.
    let waiting: Vec<_> = connections
        .into_iter()
        .map(|mut connection| {
            let call = call();
            std::thread::spawn(move || connection.send(call))
        })
        .collect();
    cluster.node_mut(paused).process.as_mut().unwrap().signal(Signal::CONT);
    for answer in waiting {
        let answer = answer.join().unwrap();
        assert!(matches!(answer.status, 401 | 503), "decided by the state before: {answer}");
    }
    eventually("it is a full member again", || {
        let answer = cluster.node(paused).client().send(call());
        assert!(matches!(answer.status, 401 | 503), "decided by the state before: {answer}");
        if answer.status == 401 { Ok(()) } else { Err(answer.to_string()) }
    });
    let status = cluster.status();
    assert!(node_status(&status, id)["authority_ms"].is_u64(), "{status}");
}

fn state(written: &Value, node: u64) -> &str {
    text(find(list(written, "fence"), "node", node).unwrap_or_else(|| panic!("no node {node}: {written}")), "state")
}

#[test]
fn no_request_that_starts_after_the_answer_is_admitted_on_any_node() {
    let upstream = Upstream::echo();
    let cluster = Cluster::start(3);
    cluster.apply_example(&upstream.url());
    // Through each node in turn, under load on all of them.
    for through in 1..=3 {
        let made = cluster.ctl().json(["keys", "create", "--consumer", "acme"]);
        let key = text(&made, "key").to_owned();
        let acknowledged: Arc<OnceLock<()>> = Arc::default();
        let load = Load::start(6, |place| {
            let (client, call) = (cluster.node(place % 3 + 1).client(), get("/guarded/x").key(&key));
            let (acknowledged, mut connection) = (Arc::clone(&acknowledged), None);
            move || {
                let mut open = match connection.take() {
                    Some(open) => open,
                    None => client.connect()?,
                };
                let revoked = acknowledged.get().is_some();
                let answer = open.try_send(call.clone())?;
                connection = Some(open);
                match answer.status {
                    200 if revoked => Err(format!("admitted after it was revoked: {answer}")),
                    401 if revoked => Ok(()),
                    // The write is on its way.
                    200 | 401 => Ok(()),
                    _ => Err(answer.to_string()),
                }
            }
        });
        load.wait_for_more(300);
        let revoked = cluster.ctl_at(through).json(["keys", "revoke", text(&made, "id")]);
        acknowledged.set(()).unwrap();
        assert!(list(&revoked, "fence").iter().all(|node| node["state"] == "applied"), "{revoked}");
        load.wait_for_more(300);
        let report = load.stop();
        assert!(report.failures.is_empty(), "through node {through}: {:#?}", report.failures);
    }
}

#[test]
fn a_paused_follower_wakes_up_and_refuses_what_was_revoked() {
    revoke_while_paused(|cluster| cluster.leader() % 3 + 1);
}

#[test]
fn a_paused_leader_wakes_up_and_refuses_what_was_revoked() {
    revoke_while_paused(Cluster::leader);
}

#[test]
fn a_node_that_died_holds_a_write_up_for_a_lease_at_most() {
    let upstream = Upstream::echo();
    let mut cluster = Cluster::start(3);
    cluster.apply_example(&upstream.url());
    let dead = cluster.leader() % 3 + 1;
    let id = cluster.id(&cluster.node(dead).name);
    cluster.node_mut(dead).kill();
    let written = cluster.ctl().json(["keys", "create", "--consumer", "acme"]);
    assert_eq!(state(&written, id), "expired", "{written}");
    // Where routes may be served without authority, the answer says what that can mean.
    cluster.ctl().apply("routes: { open: { paths: ['/open/{*rest}'], upstream: backend, authenticate: [none], policies: off, when_isolated: serve } }");
    let written = cluster.ctl().json(["keys", "create", "--consumer", "acme"]);
    assert_eq!(state(&written, id), "serving_isolated", "{written}");
}

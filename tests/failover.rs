//! A node dies: the others serve and accept admin writes, and it comes back.

use tests::{
    Cluster, Dev, Upstream,
    client::get,
    dev::node_status,
    eventually,
    json::{number, text},
    load::Load,
};

#[test]
fn the_leader_of_dev_is_killed() {
    let dev = Dev::start();
    let echo = format!("http://{}", dev.ready().echo.as_deref().unwrap());
    dev.ctl().apply(&crate::shared::Corner::resources("survivor", &echo));
    let made = dev.ctl().json(["keys", "create", "--consumer", "survivor"]);
    let key = text(&made, "key").to_owned();
    let call = |key: &str| get("/guarded/x").host("survivor.test").key(key);
    let leader = dev.leader();
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();

    // The others answer all the time: every request, not most of them.
    let load = Load::start(2, |place| {
        let (client, key) = (dev.client(others[place]), key.clone());
        move || {
            let answer = client.try_send(get("/guarded/x").host("survivor.test").key(&key))?;
            if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
        }
    });
    load.wait_for_more(50);
    dev.kill_node(leader);

    // Writes come back by themselves, through either of the others.
    for other in &others {
        let made = dev.ctl_at(*other).json_soon(&["keys", "create", "--consumer", "survivor"]);
        for node in &others {
            dev.client(*node).send(call(text(&made, "key"))).ok();
        }
        dev.ctl_at(*other).json(["keys", "revoke", text(&made, "id")]);
        for node in &others {
            dev.client(*node).send(call(text(&made, "key"))).problem(401, "unauthenticated");
        }
    }
    load.wait_for_more(50);
    let report = load.stop();
    assert!(report.failures.is_empty(), "{} answered, these failed: {:#?}", report.done, report.failures);

    let status = eventually("the dead node shows as unreachable", || {
        let status = dev.ctl_at(others[0]).json(["cluster", "status"]);
        if node_status(&status, leader)["reachable"] == false { Ok(status) } else { Err(status.to_string()) }
    });
    assert!(others.contains(&number(&status, "leader")), "{status}");
}

#[test]
fn dev_restarts_a_killed_node_when_told_so() {
    let dev = Dev::start_with(tests::DevOptions { arguments: vec!["--restart".into()], ..Default::default() });
    let leader = dev.leader();
    dev.kill_node(leader);
    eventually("the node is back", || {
        let answer = dev.ops(leader).try_send(get("/readyz"))?;
        if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
    });
    eventually("it follows", || {
        let status = dev.ctl().json_soon(&["cluster", "status"]);
        if node_status(&status, leader)["reachable"] == true { Ok(()) } else { Err(status.to_string()) }
    });
}

#[test]
fn a_killed_leader_comes_back_and_catches_up() {
    let upstream = Upstream::echo();
    let mut cluster = Cluster::start(3);
    cluster.apply_example(&upstream.url());
    let leader = cluster.leader();
    cluster.node_mut(leader).kill();
    let made = cluster.ctl().json_soon(&["keys", "create", "--consumer", "acme"]);
    cluster.node_mut(leader).run();
    cluster.node_mut(leader).wait_ready();
    // Ready means caught up: what was acknowledged while it was away is known.
    let client = cluster.node(leader).client();
    client.send(get("/guarded/x").key(text(&made, "key"))).ok();
    let revoked = cluster.ctl_at(leader).json_soon(&["keys", "revoke", text(&made, "id")]);
    assert!(number(&revoked, "revision") > number(&made, "revision"));
    client.send(get("/guarded/x").key(text(&made, "key"))).problem(401, "unauthenticated");
}

#[test]
fn without_a_majority_writes_are_refused_in_time_and_nothing_is_made_up() {
    let upstream = Upstream::echo();
    let mut cluster = Cluster::start(3);
    cluster.apply_example(&upstream.url());
    let key = text(&cluster.ctl().json(["keys", "create", "--consumer", "acme"]), "key").to_owned();
    cluster.node_mut(1).kill();
    cluster.node_mut(2).kill();
    let ran = cluster.ctl_at(3).run_json(["--timeout", "4s", "keys", "create", "--consumer", "acme"]);
    ran.refused(3);
    let status = cluster.ctl_at(3).run_json(["--timeout", "4s", "cluster", "status"]);
    assert!(status.code == 3 || status.done()["leader"].is_null(), "{status}");
    cluster.node_mut(1).run();
    cluster.node_mut(2).run();
    cluster.ctl().json_soon(&["keys", "create", "--consumer", "acme"]);
    cluster.node(3).client().send(get("/guarded/x").key(&key)).ok();
}

#[test]
fn leadership_moves_on_request_and_on_stop() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let to = cluster.id(&cluster.node(leader % 3 + 1).name.clone());
    let moved = cluster.ctl().json(["cluster", "transfer-leader", &to.to_string()]);
    assert_eq!(number(&moved, "leader"), to, "{moved}");
    assert_eq!(tests::dev::leader(&cluster.ctl()), to);

    let leader = cluster.leader();
    assert_eq!(cluster.node_mut(leader).stop(), Some(0), "SIGTERM ends it in good order");
    let ctl = cluster.ctl();
    let next = eventually("another one leads", || {
        let id = tests::dev::leader(&ctl);
        if id == to { Err(format!("still {id}")) } else { Ok(id) }
    });
    assert_ne!(next, to);
    cluster.node_mut(leader).run();
    cluster.node_mut(leader).wait_ready();
}

//! Nodes come and go: a newcomer serves at once and votes if it is wanted, a removed one is let go, also when it leads.

use tests::{
    Cluster, Upstream,
    client::get,
    dev::node_status,
    eventually,
    json::{find, list, text},
};

fn wait_for_role(cluster: &Cluster, id: u64, role: &str) {
    eventually(&format!("node {id} is {role}"), || {
        let status = cluster.status();
        let is = text(&node_status(&status, id), "role").to_owned();
        if is == role || (role == "voter" && is == "leader") { Ok(()) } else { Err(status.to_string()) }
    });
}

#[test]
fn a_fourth_node_learns_serves_and_takes_a_vote_when_one_is_free() {
    let upstream = Upstream::echo();
    let mut cluster = Cluster::start(3);
    cluster.apply_example(&upstream.url());
    let made = cluster.ctl().json(["keys", "create", "--consumer", "acme"]);

    let id = cluster.add(&[]);
    wait_for_role(&cluster, id, "learner");
    cluster.node(4).client().send(get("/guarded/x").key(text(&made, "key"))).ok();

    // It is part of every fence.
    let revoked = cluster.ctl_at(4).json(["keys", "revoke", text(&made, "id")]);
    let part = find(list(&revoked, "fence"), "node", id).unwrap_or_else(|| panic!("no node {id}: {revoked}"));
    assert_eq!(text(part, "state"), "applied");
    cluster.node(4).client().send(get("/guarded/x").key(text(&made, "key"))).problem(401, "unauthenticated");

    // A voter is demoted for good: the newcomer takes its vote. Promoted again, it waits for the next one.
    let follower = (1..=3).find(|place| *place != cluster.leader()).unwrap();
    let follower_name = cluster.node(follower).name.clone();
    let follower_id = cluster.id(&follower_name);
    cluster.ctl().json(["members", "demote", &follower_name]);
    wait_for_role(&cluster, follower_id, "learner");
    wait_for_role(&cluster, id, "voter");
    cluster.ctl().json(["members", "demote", &id.to_string()]);
    wait_for_role(&cluster, id, "learner");
    cluster.ctl().json(["members", "promote", &follower_name]);
    wait_for_role(&cluster, follower_id, "voter");

    // Removed, it is gone from the list; the cluster goes on, and the node does not pretend to belong to it.
    cluster.ctl().json(["members", "remove", &id.to_string()]);
    eventually("it is forgotten", || {
        let members = cluster.ctl().json(["members", "list"]);
        if find(list(&members, ""), "id", id).is_none() { Ok(()) } else { Err(members.to_string()) }
    });
    cluster.ctl().json(["keys", "create", "--consumer", "acme"]);
    let mut removed = cluster.nodes.pop().unwrap();
    let ops = removed.ops();
    eventually("it is not ready any more", || match ops.try_send(get("/readyz")) {
        Ok(answer) if answer.status == 200 => Err("still ready"),
        _ => Ok(()),
    });
    removed.process.take();
    cluster.wait_until_voting(3);
}

#[test]
fn a_learner_never_votes_by_itself() {
    let mut cluster = Cluster::first("");
    let second = cluster.add(&["--learner"]);
    let third = cluster.add(&[]);
    wait_for_role(&cluster, third, "voter");
    wait_for_role(&cluster, second, "learner");
    cluster.ctl().json(["members", "promote", &second.to_string()]);
    wait_for_role(&cluster, second, "voter");
}

#[test]
fn the_leader_is_removed() {
    let upstream = Upstream::echo();
    let mut cluster = Cluster::start(3);
    cluster.apply_example(&upstream.url());
    let place = cluster.leader();
    let name = cluster.node(place).name.clone();
    let id = cluster.id(&name);
    let gone = cluster.nodes.remove(place - 1);
    let removed = cluster.ctl().json(["members", "remove", &name]);
    assert!(removed["revision"].is_u64(), "{removed}");
    let ctl = cluster.ctl();
    eventually("another one leads", || {
        let leader = tests::dev::leader(&ctl);
        if leader == id { Err("still the removed one") } else { Ok(()) }
    });
    let made = ctl.json_soon(&["keys", "create", "--consumer", "acme"]);
    for place in 1..=2 {
        cluster.node(place).client().send(get("/guarded/x").key(text(&made, "key"))).ok();
    }
    eventually("it is forgotten", || {
        let members = ctl.json_soon(&["members", "list"]);
        if find(list(&members, ""), "id", id).is_none() { Ok(()) } else { Err(members.to_string()) }
    });
    drop(gone);
}

#[test]
fn members_that_do_not_exist_or_are_the_last_voter() {
    let cluster = Cluster::first("");
    cluster.ctl().run_json(["members", "remove", "77"]).refused(1);
    cluster.ctl().run_json(["members", "promote", "nobody"]).refused(1);
    let refused = cluster.ctl().run_json(["members", "remove", "n1"]);
    assert_ne!(refused.code, 0, "the last voter cannot go: {refused}");
    let refused = cluster.ctl().run_json(["members", "demote", "n1"]);
    assert_ne!(refused.code, 0, "nor be demoted: {refused}");
    cluster.ctl().json_soon(&["cluster", "join-token"]);
}

#[test]
fn a_newcomer_that_is_far_behind_gets_a_snapshot() {
    let upstream = Upstream::echo();
    let mut cluster = Cluster::first("");
    cluster.apply_example(&upstream.url());
    // More than what a node keeps of its log, in few commands.
    let directory = tempfile::tempdir().unwrap();
    for batch in 0..3 {
        let mut rows = "sha256,consumer,name,scopes,expires\n".to_owned();
        for number in 0..5000 {
            rows.push_str(&format!("{:064x},acme,bulk,,\n", batch * 5000 + number + 1));
        }
        let file = directory.path().join(format!("{batch}.csv"));
        std::fs::write(&file, rows).unwrap();
        cluster.ctl().json(["keys".as_ref(), "import".as_ref(), file.as_os_str()]);
    }
    let made = cluster.ctl().json(["keys", "create", "--consumer", "acme"]);
    cluster.add(&[]);
    cluster.node(2).client().send(get("/guarded/x").key(text(&made, "key"))).ok();
    let listed = cluster.ctl_at(2).json(["consumers", "get", "acme"]);
    assert_eq!(listed["keys"], 15_001, "{listed}");
}

#[test]
fn certificates_of_the_cluster_are_rotated() {
    let mut cluster = Cluster::start(3);
    let before = cluster.ctl().json(["ca", "status"]);
    let old = text(&list(&before, "authorities")[0], "sha256").to_owned();
    cluster.ctl().json(["--timeout", "60s", "ca", "rotate"]);
    eventually("every node has a certificate of the new authority", || {
        let status = cluster.ctl().json_soon(&["ca", "status"]);
        let nodes = list(&status, "nodes");
        let renewed = nodes.len() == 3 && nodes.iter().all(|node| node["authority_sha256"] != old.as_str());
        if renewed { Ok(()) } else { Err(status.to_string()) }
    });
    cluster.ctl().json(["--timeout", "60s", "ca", "rotate", "--finish"]);
    let after = cluster.ctl().json_soon(&["ca", "status"]);
    assert!(find(list(&after, "authorities"), "sha256", old.as_str()).is_none(), "{after}");
    // Everybody still talks to everybody, over restarts and with a newcomer too.
    for place in 1..=3 {
        cluster.node_mut(place).stop();
        cluster.node_mut(place).run();
        cluster.node_mut(place).wait_ready();
    }
    cluster.wait_until_voting(3);
    cluster.add(&[]);
}

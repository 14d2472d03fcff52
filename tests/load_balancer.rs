//! Load balancers of the machine, with the configurations that we deploy, in front of a real cluster: a node dies, and no client
//! notices.

use tests::{Client, Cluster, Upstream, balancer::Balancer, client::get, eventually, json::text, load::Load};

/// Kills the leader under steady load through the balancer, brings it back, and stops another node in good order.
fn no_request_fails(cluster: &mut Cluster, balancer: &Balancer) {
    let made = cluster.ctl().json(["keys", "create", "--consumer", "acme"]);
    let key = text(&made, "key").to_owned();
    let client = Client::new(&balancer.address);
    eventually("the balancer has found the nodes", || {
        let answer = client.try_send(get("/guarded/x").key(&key))?;
        if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
    });
    let load = Load::start(4, |_| {
        let (client, key) = (client.clone(), key.clone());
        let mut connection = None;
        move || {
            let mut open = match connection.take() {
                Some(open) => open,
                None => client.connect()?,
            };
            let answer = open.try_send(get("/guarded/x").key(&key))?;
            // A balancer may close an idle or used connection after any answer; that is no failure.
            let closes = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
            if !closes {
                connection = Some(open);
            }
            if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
        }
    });
    load.wait_for_more(100);
    let leader = cluster.leader();
    cluster.node_mut(leader).kill();
    load.wait_for_more(300);
    let made = cluster.ctl().json_soon(&["keys", "create", "--consumer", "acme"]);
    let answer = client.send(get("/guarded/x").key(text(&made, "key")));
    assert_eq!(answer.status, 200, "{answer}");
    cluster.node_mut(leader).run();
    cluster.node_mut(leader).wait_ready();
    load.wait_for_more(300);
    let other = leader % 3 + 1;
    assert_eq!(cluster.node_mut(other).stop(), Some(0));
    load.wait_for_more(300);
    let report = load.stop();
    assert!(report.failures.is_empty(), "{} answered, these failed: {:#?}", report.done, report.failures);
}

#[test]
fn haproxy_before_three_nodes() {
    let upstream = Upstream::echo();
    let mut cluster = Cluster::start(3);
    let Some(balancer) = Balancer::haproxy(&cluster.nodes) else { return };
    cluster.apply_example(&upstream.url());
    no_request_fails(&mut cluster, &balancer);
}

#[test]
fn nginx_before_three_nodes() {
    let upstream = Upstream::echo();
    let mut cluster = Cluster::start(3);
    let Some(balancer) = Balancer::nginx(&cluster.nodes) else { return };
    cluster.apply_example(&upstream.url());
    no_request_fails(&mut cluster, &balancer);
}

/// Two of three nodes are gone: the last one is isolated, and the balancer's second tier still takes what may be answered so.
#[test]
fn haproxy_falls_back_to_an_isolated_node_for_what_it_may_serve() {
    let upstream = Upstream::echo();
    let mut cluster = Cluster::start(3);
    let Some(balancer) = Balancer::haproxy(&cluster.nodes) else { return };
    cluster.apply_example(&upstream.url());
    cluster.ctl().apply(
        "routes: { open: { paths: ['/open/{*rest}'], upstream: backend, authenticate: [none], policies: off, when_isolated: serve } }",
    );
    let key = text(&cluster.ctl().json(["keys", "create", "--consumer", "acme"]), "key").to_owned();
    let client = Client::new(&balancer.address);
    eventually("the balancer has found the nodes", || {
        let answer = client.try_send(get("/guarded/x").key(&key))?;
        if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
    });
    cluster.node_mut(1).kill();
    cluster.node_mut(2).kill();
    let last = cluster.node(3);
    eventually("the last node is isolated", || {
        let answer = last.ops().try_send(get("/readyz"))?;
        if answer.status == 503 { Ok(()) } else { Err(answer.to_string()) }
    });
    last.ops().send(get("/serving")).ok();
    eventually("the balancer has found the second tier", || {
        let answer = client.try_send(get("/open/x"))?;
        if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
    });
    client.send(get("/guarded/x").key(&key)).problem(503, "isolated");
    cluster.node_mut(1).run();
    eventually("a majority serves everything again", || {
        let answer = client.try_send(get("/guarded/x").key(&key))?;
        if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
    });
}

//! Global limits, counted at the upstream: what three nodes let through together, whatever happens to them meanwhile.

use rustix::process::Signal;
use tests::{
    Cluster,
    client::{Call, Client, get},
    eventually,
    json::{list, number, text},
    witness::Witness,
};

/// A route for each limit, all of them to the witness, open to the consumer `acme`.
fn resources(upstream: &str, limits: &[(&str, &str)]) -> String {
    let mut text = format!(
        "upstreams: {{ witness: {{ targets: ['{upstream}'], connections_max: 256 }} }}\n\
         consumers: {{ acme: {{ roles: [caller] }} }}\n\
         policies:\n  callers: |\n    permit(principal in Role::\"caller\", action, resource);\n\
         limits:\n"
    );
    for (name, limit) in limits {
        text += &format!("  {name}: {{ {limit} }}\n");
    }
    text += "routes:\n";
    for (name, _) in limits {
        text += &format!("  {name}: {{ paths: ['/{name}'], upstream: witness, limits: [{name}] }}\n");
    }
    text
}

/// Three nodes under these limits, a witness behind them, and a key.
fn three(limits: &[(&str, &str)]) -> (Cluster, Witness, String) {
    let witness = Witness::new();
    let cluster = Cluster::start(3);
    cluster.ctl().apply(&resources(&witness.url(), limits));
    let made = cluster.ctl().json(["keys", "create", "--consumer", "acme"]);
    let key = text(&made, "key").to_owned();
    (cluster, witness, key)
}

fn clients(cluster: &Cluster, each: usize) -> Vec<Client> {
    (0..each).flat_map(|_| 1..=cluster.nodes.len()).map(|place| cluster.node(place).client()).collect()
}

fn call(limit: &str, key: &str) -> Call {
    get(&format!("/{limit}")).key(key)
}

#[test]
fn a_quota_admits_exactly_its_number_over_all_nodes() {
    let limits = [
        ("ten", "quota: 10/month, per: key"),
        ("hundreds", "quota: 300/month, per: consumer"),
        ("thousands", "quota: 5000/month, per: [key, route]"),
    ];
    let (cluster, witness, key) = three(&limits);
    for (name, quota) in [("ten", 10), ("hundreds", 300), ("thousands", 5_000)] {
        witness.forget();
        let crowd = witness.crowd(clients(&cluster, 2), &call(name, &key));
        crowd.wait_until_refused(20);
        let answers = crowd.stop();
        assert_eq!(witness.admitted(), quota, "{name}: {answers:?}");
        assert_eq!(answers.get(&200), Some(&quota), "{name}: {answers:?}");
        let refused = witness.send(&cluster.node(1).client(), call(name, &key));
        refused.problem(429, "rate-limited");
        assert!(refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().unwrap() >= 1), "{refused}");
        assert!(refused.header("ratelimit-policy").is_some_and(|policy| policy.contains(name)), "{refused}");
    }
    let usage = cluster.ctl().json(["limits", "usage", "hundreds", "--subject", "acme"]);
    assert_eq!((number(&usage, "available"), number(&usage, "limit_value")), (0, 300), "{usage}");
}

#[test]
fn a_quota_that_is_used_up_stays_used_up_when_all_nodes_are_killed() {
    let (mut cluster, witness, key) = three(&[("plan", "quota: 50/month, per: key")]);
    let crowd = witness.crowd(clients(&cluster, 1), &call("plan", &key));
    crowd.wait_until_refused(5);
    crowd.stop();
    assert_eq!(witness.admitted(), 50);
    for place in 1..=3 {
        cluster.node_mut(place).kill();
    }
    for place in 1..=3 {
        cluster.node_mut(place).run();
    }
    for place in 1..=3 {
        cluster.node_mut(place).wait_ready();
    }
    let crowd = witness.crowd(clients(&cluster, 1), &call("plan", &key));
    crowd.wait_until_refused(20);
    crowd.stop();
    assert_eq!(witness.admitted(), 50);
}

#[test]
fn a_dead_holder_costs_what_it_held_and_no_more() {
    let (mut cluster, witness, key) = three(&[("plan", "quota: 2000/month, per: key")]);
    let dead = cluster.leader() % 3 + 1;
    let id = cluster.id(&cluster.node(dead).name);
    let crowd = witness.crowd(clients(&cluster, 1), &call("plan", &key));
    eventually("traffic on all nodes", || if witness.admitted() >= 600 { Ok(()) } else { Err(witness.admitted()) });
    // While it is stopped it neither spends nor asks for more.
    cluster.node_mut(dead).process.as_mut().unwrap().signal(Signal::STOP);
    let usage = cluster.ctl_at(cluster.leader()).json_soon(&["limits", "usage", "plan", "--subject", key_id(&key)]);
    let held =
        list(&usage, "outstanding").iter().find(|held| held["node"] == id).map_or(0, |held| number(held, "amount"));
    cluster.node_mut(dead).kill();
    drop(crowd);
    let living = clients(&cluster, 1).into_iter().enumerate().filter(|(place, _)| place + 1 != dead);
    let crowd = witness.crowd(living.map(|(_, client)| client).collect(), &call("plan", &key));
    crowd.wait_until_refused(50);
    let answers = crowd.stop();
    let admitted = witness.admitted();
    assert!(admitted <= 2_000, "{admitted}: {answers:?}");
    assert!(admitted + held >= 2_000, "{admitted} admitted and {held} held: {answers:?}");
}

#[test]
fn a_rate_is_never_exceeded_while_nodes_die_and_sleep() {
    let limits = [
        ("slow", "rate: 50/s, burst: 20, per: key"),
        ("middle", "rate: 500/s, burst: 100, per: key"),
        ("fast", "rate: 5000/s, burst: 1000, per: key"),
    ];
    let (mut cluster, witness, key) = three(&limits);
    for (name, rate, burst) in [("slow", 50, 20), ("middle", 500, 100), ("fast", 5_000, 1_000)] {
        witness.forget();
        let crowd = witness.crowd(clients(&cluster, 2), &call(name, &key));
        let goes_on = |more: u64| {
            let before = witness.admitted();
            eventually(&format!("{name}: {more} more"), || {
                let now = witness.admitted() - before;
                if now >= more { Ok(()) } else { Err(format!("{now} more; answers: {:?}", crowd.answers())) }
            });
        };
        goes_on(rate.min(300));
        let follower = cluster.leader() % 3 + 1;
        cluster.node_mut(follower).process.as_mut().unwrap().signal(Signal::STOP);
        goes_on(rate.min(300) / 2);
        cluster.node_mut(follower).process.as_mut().unwrap().signal(Signal::CONT);
        goes_on(rate.min(300));
        let leader = cluster.leader();
        cluster.node_mut(leader).process.as_mut().unwrap().signal(Signal::STOP);
        goes_on(rate.min(300) / 2);
        cluster.node_mut(leader).process.as_mut().unwrap().signal(Signal::CONT);
        goes_on(rate.min(300));
        let leader = cluster.leader();
        cluster.node_mut(leader).kill();
        goes_on(rate.min(300));
        let answers = crowd.stop();
        witness.never_above(burst, rate);
        eprintln!("{name}: {answers:?}");
        cluster.node_mut(leader).run();
        cluster.node_mut(leader).wait_ready();
    }
}

#[test]
fn a_lowered_limit_holds_once_it_is_acknowledged_and_what_was_out_is_gone() {
    let (cluster, witness, key) = three(&[("plan", "quota: 100/month, per: key")]);
    let crowd = witness.crowd(clients(&cluster, 1), &call("plan", &key));
    crowd.wait_until_refused(5);
    assert_eq!(witness.admitted(), 100);
    // More, while everybody is refused from memory: the refusals are forgotten.
    cluster.ctl().apply("limits: { plan: { quota: 150/month, per: key } }");
    eventually(
        "the new ones are admitted",
        || if witness.admitted() == 150 { Ok(()) } else { Err(witness.admitted()) },
    );
    cluster.ctl().apply("limits: { plan: { quota: 120/month, per: key } }");
    crowd.wait_until_refused(20);
    crowd.stop();
    assert_eq!(witness.admitted(), 150);
}

/// `qk_<id>_<secret>`.
fn key_id(key: &str) -> &str {
    key.split('_').nth(1).unwrap()
}

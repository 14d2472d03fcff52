//! What an operator sees of a limit: what is left of a bucket, and which limits would count a request.

use crate::shared::{Corner, ctl, dev, dev_echo};
use tests::{
    client::get,
    json::{Value, list, number, text},
    wait::eventually,
};

/// A route of a corner with three limits.
fn limited(name: &str) -> Corner {
    let corner = Corner::make(name);
    let file = format!(
        "limits:
  {name}-plan: {{ quota: 100/month, per: key }}
  {name}-tenant: {{ rate: 50/min, burst: 40, per: [consumer, 'header:X-Tenant'], max_subjects: 100 }}
  {name}-flood: {{ rate: 1000/s, per: ip, scope: node }}
routes:
  {name}-limited: {{ hosts: [{name}.test], paths: [/limited], upstream: {name}, policies: off,
                    limits: [{name}-plan, {name}-tenant, {name}-flood], cost: 2 }}
upstreams: {{ {name}: {{ targets: ['{}'] }} }}
",
        dev_echo()
    );
    ctl().apply(&file);
    corner
}

fn usage(limit: &str, subject: &str) -> Value {
    ctl().json(["limits", "usage", limit, "--subject", subject])
}

#[test]
fn each_subject_has_a_bucket_of_its_own() {
    let corner = limited("asked");
    let plan = usage("asked-plan", &corner.key);
    assert_eq!((text(&plan, "limit"), text(&plan, "subject")), ("asked-plan", corner.key_id.as_str()));
    assert_eq!((number(&plan, "available"), number(&plan, "limit_value")), (100, 100));
    assert!(text(&plan, "window_end").ends_with("-01T00:00:00Z"), "{plan}");
    assert!(number(&plan, "reset_ms") <= 31 * 24 * 3_600_000, "{plan}");
    for value in ["blue", ""] {
        let tenant = usage("asked-tenant", &format!("asked,{value}"));
        assert_eq!((number(&tenant, "available"), list(&tenant, "outstanding").len()), (40, 0), "{tenant}");
        assert!(!tenant.to_string().contains("blue"), "a header may be a secret: {tenant}");
    }
    let overflow = ctl().json(["limits", "usage", "asked-tenant", "--overflow"]);
    assert_eq!((number(&overflow, "available"), text(&overflow, "subject")), (40, "(overflow)"), "{overflow}");

    let refused = |line: &str, code: i32, says: &str| {
        let ran = ctl().run_json(["limits", "usage"].into_iter().chain(line.split(' ')));
        let error = ran.refused(code);
        assert!(text(&error, "message").contains(says), "{error}");
    };
    refused("asked-flood --subject 127.0.0.1", 1, "local to each node");
    refused("asked-tenant --subject asked", 2, "counts by consumer,header:x-tenant");
    refused("asked-tenant --subject nobody,blue", 1, "there is no consumer");
    refused("asked-nothing --subject asked", 1, "there is no limit");
    refused("asked-plan --overflow", 1, "has no max_subjects");
}

#[test]
fn what_was_spent_on_any_node_is_told() {
    let corner = limited("spent");
    for id in [1, 2, 3] {
        dev().client(id).send(get("/limited").host(&corner.host).key(&corner.key).header("x-tenant", "blue")).ok();
    }
    // Three requests took two tokens each. What else is not there is held by nodes that have not given it back yet.
    eventually("the nodes report what they spent", || {
        let plan = usage("spent-plan", &corner.key_id);
        let held: u64 = list(&plan, "outstanding").iter().map(|one| number(one, "amount")).sum();
        let spent = 100 - number(&plan, "available") - held;
        if spent == 6 { Ok(()) } else { Err(format!("{spent} are spent: {plan}")) }
    });
    assert_eq!(number(&usage("spent-tenant", "spent,green"), "available"), 40);
}

#[test]
fn explain_names_the_limits_that_count_a_request() {
    let corner = Corner::make("counted");
    ctl().apply(
        "limits:
  counted-plan: { quota: 100/month, per: key, mode: shadow }
routes:
  counted-limited: { hosts: [counted.test], paths: [/limited], upstream: counted, policies: off, limits: [counted-plan], cost: 2 }
",
    );
    let explained = ctl().json(["explain", "--key-id", &corner.key_id, "GET", "http://counted.test/limited"]);
    let [limit] = list(&explained, "limits") else { panic!("one limit: {explained}") };
    assert_eq!((text(limit, "limit"), text(limit, "subject")), ("counted-plan", corner.key_id.as_str()));
    assert_eq!((number(limit, "cost"), text(limit, "mode"), text(limit, "scope")), (2, "shadow", "cluster"));
    assert_eq!(text(limit, "rule"), "100/month");
}

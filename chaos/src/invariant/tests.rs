//! Every invariant, red and green, by histories made by hand. Those with arithmetic of their own have tests beside them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use super::{
    AckedSurvives, AppliedMonotonic, AuthorityIsExclusiveOfStale, Converged, ExactlyOnce, KeepsServing,
    RevokedStaysRevoked, SameIndexSameState, all,
    script::{S, Script, change, create, delete, done, found, put, read, unknown},
};
use crate::history::{AdminOutcome, Audited, Fenced, FullRate, REVOKED, What};

#[test]
fn nothing_holds_of_nothing() {
    for invariant in all() {
        Script::default().is_vacuous(invariant.as_ref());
    }
}

fn revoked(fence: &[(u64, Fenced)]) -> Script {
    let mut script = Script::new();
    let outcome = AdminOutcome::Done { revision: 9, fence: fence.to_vec() };
    let admin = script.admin((S, 2 * S), change("key/k1", REVOKED, None), outcome);
    admin.ends = vec!["k1#1".into()];
    script
}

#[test]
fn what_was_revoked_is_admitted_no_more() {
    let everywhere = [(1, Fenced::Applied), (2, Fenced::Expired), (3, Fenced::Pending)];
    let mut script = revoked(&everywhere);
    script.is_vacuous(&RevokedStaysRevoked);
    // Before and during the revocation anything goes.
    script.served(2, "k1#1", "open", S, S + 10).served(2, "k1#1", "open", 2 * S, 3 * S);
    script.refused(1, "k1#1", 3 * S, 401, "unauthenticated");
    assert_eq!(script.holds(&RevokedStaysRevoked), 1);
    // The acknowledgement says that node 3 is not known.
    script.served(3, "k1#1", "open", 3 * S, 3 * S + 10);
    assert_eq!(script.holds(&RevokedStaysRevoked), 1);
    script.served(2, "k1#1", "open", 2 * S + 1, 3 * S);
    assert!(script.is_violated(&RevokedStaysRevoked).contains("node 2"));

    let mut newcomer = revoked(&everywhere);
    newcomer.served(4, "k1#1", "open", 3 * S, 4 * S);
    newcomer.is_violated(&RevokedStaysRevoked);
}

#[test]
fn a_route_that_serves_in_isolation_has_opted_out_where_the_fence_says_so() {
    let mut script = revoked(&[(1, Fenced::Applied), (2, Fenced::ServingIsolated)]);
    script.route("lax", &[], true);
    script.served(2, "k1#1", "lax", 3 * S, 4 * S).refused(2, "k1#1", 3 * S, 503, "isolated");
    script.holds(&RevokedStaysRevoked);
    script.served(1, "k1#1", "lax", 3 * S, 4 * S);
    script.is_violated(&RevokedStaysRevoked);
    let mut strict = revoked(&[(1, Fenced::Applied), (2, Fenced::ServingIsolated)]);
    strict.served(2, "k1#1", "open", 3 * S, 4 * S);
    strict.is_violated(&RevokedStaysRevoked);
}

#[test]
fn what_was_acknowledged_is_there_at_the_end() {
    let mut script = Script::new();
    script.admin((0, 10), put("limit/a", "1"), done(5));
    script.is_vacuous(&AckedSurvives);
    script.settled(100);
    script.admin((200, 300), read("limit/a"), found("1", 5));
    assert_eq!(script.holds(&AckedSurvives), 1);

    let ends = |writes: &[(u64, u64, &str, Option<u64>)], found: AdminOutcome| {
        let mut script = Script::new();
        for (began, ended, value, revision) in writes {
            script.admin((*began, *ended), put("limit/a", value), revision.map_or_else(unknown, done));
        }
        script.settled(1_000);
        script.admin((2_000, 2_001), read("limit/a"), found);
        script
    };
    let one = [(0, 10, "1", Some(5))];
    ends(&one, AdminOutcome::Found(None)).is_violated(&AckedSurvives);
    ends(&one, found("0", 3)).is_violated(&AckedSurvives);
    ends(&one, found("2", 7)).is_violated(&AckedSurvives);
    // Put what was there already: the revision is the older one.
    ends(&one, found("1", 3)).holds(&AckedSurvives);
    // A write that may have been done takes its place, unless it was over before.
    ends(&[one[0], (5, 6, "2", None)], found("2", 7)).holds(&AckedSurvives);
    ends(&[(0, 4, "2", Some(5)), (6, 7, "1", Some(6))], found("2", 5)).is_violated(&AckedSurvives);
    ends(&[(0, 9, "2", Some(6)), (6, 7, "1", Some(5))], found("2", 6)).holds(&AckedSurvives);
}

#[test]
fn a_deletion_that_was_acknowledged_stays() {
    let mut script = Script::new();
    script.admin((0, 10), put("limit/a", "1"), done(5));
    script.admin((20, 30), delete("limit/a"), done(6));
    script.settled(100);
    let mut back = Script::new();
    back.events = script.events.clone();
    script.admin((200, 300), read("limit/a"), AdminOutcome::Found(None));
    assert_eq!(script.holds(&AckedSurvives), 2);
    back.admin((200, 300), read("limit/a"), found("1", 5));
    back.is_violated(&AckedSurvives);
}

#[test]
fn a_request_is_answered_the_same_and_changes_things_once() {
    let mut script = Script::new();
    for (span, revision) in [((0, 10), 5), ((20, 30), 5)] {
        let admin = script.admin(span, change("key/k1", REVOKED, None), done(revision));
        admin.request = "77".to_owned();
        admin.audit = Some(("key.revoke".to_owned(), "id-k1".to_owned()));
    }
    script.holds(&ExactlyOnce);
    let change_at = |number, revision| {
        let (action, subject) = ("key.revoke".to_owned(), "id-k1".to_owned());
        What::Audited(Audited { number, action, subject, revision })
    };
    script.at(40, change_at(1, 5)).at(41, change_at(1, 5));
    script.holds(&ExactlyOnce);
    script.at(42, change_at(2, 8));
    assert!(script.is_violated(&ExactlyOnce).contains("[5, 8]"));
    // Another request may have done it.
    let admin = script.admin((0, 10), change("key/k1", REVOKED, None), unknown());
    admin.audit = Some(("key.revoke".to_owned(), "id-k1".to_owned()));
    script.holds(&ExactlyOnce);

    let mut differs = Script::new();
    for revision in [5, 6] {
        differs.admin((0, 10), put("limit/a", "1"), done(revision)).request = "77".to_owned();
    }
    differs.is_violated(&ExactlyOnce);
}

#[test]
fn a_key_is_created_once_and_its_retry_may_rotate_it() {
    let audited = |number, action: &str| {
        let (action, subject) = (action.to_owned(), "id-k9".to_owned());
        What::Audited(Audited { number, action, subject, revision: number })
    };
    let mut script = Script::new();
    let admin = script.admin((0, 10), create("key/k9", "live 1"), done(6));
    admin.attempts = 2;
    admin.audit = Some(("key.create".to_owned(), "id-k9".to_owned()));
    script.at(20, audited(5, "key.create")).at(20, audited(6, "key.rotate"));
    script.holds(&ExactlyOnce);
    script.at(20, audited(7, "key.create"));
    script.is_violated(&ExactlyOnce);
}

#[test]
fn one_index_is_one_state() {
    let mut script = Script::new();
    script.said(1, 10, 64, 5).digests = vec![(64, "aa".to_owned())];
    script.is_vacuous(&SameIndexSameState);
    script.said(2, 10, 70, 5).digests = vec![(64, "aa".to_owned()), (70, "bb".to_owned())];
    assert_eq!(script.holds(&SameIndexSameState), 1);
    let restarted = script.said(2, 20, 70, 5);
    (restarted.incarnation, restarted.digests) = (2, vec![(70, "cc".to_owned())]);
    assert!(script.is_violated(&SameIndexSameState).contains("index 70"));
}

#[test]
fn what_was_applied_does_not_go_back() {
    let mut script = Script::new();
    script.said(1, 1_000, 10, 1);
    script.is_vacuous(&AppliedMonotonic);
    // Another process may begin with less, and two answers may cross.
    script.said(1, 2_000, 3, 1).incarnation = 2;
    script.said(1, 2_050, 2, 1).incarnation = 2;
    script.said(1, 3_000, 11, 1);
    script.holds(&AppliedMonotonic);
    let mut back = Script::new();
    back.said(1, 1_000, 10, 1);
    back.said(1, 2_000, 9, 1);
    assert!(back.is_violated(&AppliedMonotonic).contains("applied index 9"));
    let mut beyond = Script::new();
    beyond.said(1, 1_000, 10, 1).enforced = 11;
    beyond.is_violated(&AppliedMonotonic);
}

#[test]
fn what_was_applied_is_there_at_the_end() {
    let mut script = Script::new();
    script.said(2, 1_000, 50, 1);
    script.settled(10_000);
    script.said(1, 20_000, 50, 1);
    script.holds(&AppliedMonotonic);
    script.said(3, 20_000, 49, 1);
    assert!(script.is_violated(&AppliedMonotonic).contains("node 3 has applied 49"));
}

#[test]
fn who_has_authority_enforces_what_was_acknowledged() {
    let mut script = Script::new();
    let fence = vec![(1, Fenced::Applied), (2, Fenced::Expired), (3, Fenced::Pending)];
    script.admin((0, S), put("limit/a", "1"), AdminOutcome::Done { revision: 7, fence });
    script.is_vacuous(&AuthorityIsExclusiveOfStale);
    script.said(1, 2 * S, 40, 7);
    script.said(3, 2 * S, 30, 6);
    script.said(2, 2 * S, 30, 6).authority = false;
    // It was asked before the acknowledgement.
    script.said(2, S + 50, 30, 6);
    assert_eq!(script.holds(&AuthorityIsExclusiveOfStale), 1);
    let mut workers = Script::new();
    workers.events = script.events.clone();
    workers.said(1, 2 * S, 40, 7).enforced_revision = Some(6);
    workers.is_violated(&AuthorityIsExclusiveOfStale);
    script.said(2, 2 * S, 30, 6);
    assert!(script.is_violated(&AuthorityIsExclusiveOfStale).contains("node 2"));
}

/// Node 1 is warm, and node 3 dies at 20 s.
fn one_dies() -> Script {
    let mut script = Script::new();
    script.fault(1, 3, (20 * S, Some(40 * S)));
    script.served(1, "k1#1", "open", 19 * S, 19 * S + 10);
    script
}

#[test]
fn warm_keys_are_served_while_another_node_dies() {
    let mut script = one_dies();
    script.is_vacuous(&KeepsServing);
    script.served(1, "k1#1", "open", 21 * S, 21 * S + 10);
    // The node that died, and one that was never asked for this key.
    script.lost(3, "k1#1", 21 * S).refused(2, "k1#1", 21 * S, 503, "isolated");
    assert_eq!(script.holds(&KeepsServing), 1);
    for failed in [
        |script: &mut Script| {
            script.lost(1, "k1#1", 22 * S);
        },
        |script: &mut Script| {
            script.refused(1, "k1#1", 22 * S, 503, "isolated");
        },
        |script: &mut Script| {
            script.refused(1, "k1#1", 22 * S, 503, "limit-unavailable");
        },
        |script: &mut Script| {
            script.refused(1, "k1#1", 22 * S, 401, "unauthenticated");
        },
    ] {
        let mut red = one_dies();
        failed(&mut red);
        red.is_violated(&KeepsServing);
    }
}

#[test]
fn what_was_not_promised_is_not_held_against_it() {
    let mut script = one_dies();
    script.served(1, "k1#1", "open", 21 * S, 21 * S + 10);
    script.refused(1, "k1#1", 22 * S, 429, "rate-limited").refused(1, "k1#1", 22 * S, 502, "upstream-unavailable");
    // A limit that is asked for more than it has.
    script.route("limited", &["burst"], false);
    script.asked(1, "k1#1", "limited", 19 * S, 19 * S + 9, 200, None);
    script.asked(1, "k1#1", "limited", 22 * S, 22 * S + 9, 503, Some("limit-unavailable"));
    let checked = script.holds(&KeepsServing);
    // A key that somebody is about to revoke.
    let admin = script.admin((23 * S, 24 * S), change("key/k1", REVOKED, None), unknown());
    admin.ends = vec!["k1#1".into()];
    script.refused(1, "k1#1", 23 * S, 401, "unauthenticated");
    assert_eq!(script.holds(&KeepsServing), checked);
    // No majority is in order.
    let mut two = one_dies();
    two.served(1, "k1#1", "open", 21 * S, 21 * S + 10);
    two.fault(2, 2, (22 * S, None)).refused(1, "k1#1", 30 * S, 503, "isolated");
    two.holds(&KeepsServing);
    // A machine that has no time for anybody.
    let mut starved = one_dies();
    starved.served(1, "k1#1", "open", 21 * S, 21 * S + 10);
    starved.said(2, 31 * S, 9, 9).began_us = 30 * S;
    starved.refused(1, "k1#1", 32 * S, 503, "isolated");
    starved.holds(&KeepsServing);
    // A node that comes back is not warm before it has served again.
    let mut back = one_dies();
    back.served(3, "k1#1", "open", 19 * S, 19 * S + 10).served(1, "k1#1", "open", 21 * S, 21 * S + 10);
    back.refused(3, "k1#1", 60 * S, 503, "isolated");
    back.holds(&KeepsServing);
}

fn healed() -> Script {
    let mut script = Script::new();
    script.credential("k2#1", "k2", "acme");
    script.admin((0, S), change("key/k2", REVOKED, None), done(3)).ends = vec!["k2#1".into()];
    script.said(1, 2 * S, 60, 5);
    script.at(3 * S, What::Healed).settled(5 * S);
    for node in 1..=3 {
        script.said(node, 6 * S, 64, 5).digests = vec![(64, "aa".to_owned())];
        script.served(node, "k1#1", "open", 6 * S, 6 * S + 10);
        script.refused(node, "k2#1", 6 * S, 401, "unauthenticated");
    }
    let rate = FullRate { limit: "burst".into(), measured_us: S, admitted: 95, least: 90 };
    script.at(8 * S, What::FullRate(rate));
    script
}

#[test]
fn after_all_the_cluster_is_one() {
    assert_eq!(healed().holds(&Converged), 3 + 6 + 1);
    let red = |change: fn(&mut Script)| {
        let mut script = healed();
        change(&mut script);
        script.is_violated(&Converged)
    };
    assert!(red(|script| script.said(2, 9 * S, 64, 4).digests = Vec::new()).contains("different revisions"));
    assert!(red(|script| script.said(2, 9 * S, 64, 5).authority = false).contains("no authority"));
    let differs = red(|script| script.said(2, 9 * S, 64, 5).digests = vec![(64, "bb".to_owned())]);
    assert!(differs.contains("different states"), "{differs}");
    assert!(
        red(|script| {
            script.served(2, "k2#1", "open", 9 * S, 9 * S + 1);
        })
        .contains("k2#1")
    );
    assert!(
        red(|script| {
            script.refused(2, "k1#1", 9 * S, 401, "unauthenticated");
        })
        .contains("k1#1")
    );
    assert!(
        red(|script| {
            script.refused(2, "k1#1", 9 * S, 503, "isolated");
        })
        .contains("isolated")
    );
    assert!(
        red(|script| {
            script.lost(2, "k1#1", 9 * S);
        })
        .contains("no answer")
    );
    let slow = FullRate { limit: "burst".into(), measured_us: S, admitted: 80, least: 90 };
    let mut script = healed();
    script.at(9 * S, What::FullRate(slow));
    assert!(script.is_violated(&Converged).contains("full rate"));
    let mut silent = healed();
    silent.events.retain(|event| !matches!(&event.what, What::Observed(observed) if observed.node == 3));
    assert!(silent.is_violated(&Converged).contains("node 3 says nothing"));
}

#[test]
fn a_limited_answer_at_the_end_says_nothing_of_a_key() {
    let mut script = healed();
    let before = script.holds(&Converged);
    script.refused(2, "k1#1", 9 * S, 429, "rate-limited");
    assert_eq!(script.holds(&Converged), before - 1);
}

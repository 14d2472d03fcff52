//! The simulation of the pure core keeps every promise over a fixed set of seeds, and finds each bug that is put back.

#![allow(clippy::panic, reason = "a test fails by panicking")]

use chaos::sim::{Mutation, repeat_line, run};

/// Enough that each promise is put to the test in several ways, few enough for every build.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=120;
/// The most seeds that it may take to find a bug.
const SEEDS_TO_FIND: std::ops::RangeInclusive<u64> = 1..=1_000;

#[test]
fn every_promise_holds_over_the_fixed_seeds() {
    let mut acknowledged = 0;
    for seed in SEEDS {
        let outcome = run(seed, None);
        acknowledged += outcome.writes;
        if let Err(what) = outcome.verdict {
            panic!("seed {seed}: {what}\n  {}", repeat_line(seed, None));
        }
    }
    assert!(acknowledged > 500, "only {acknowledged} writes were put to the test");
}

#[test]
fn a_seed_says_it_all() {
    for seed in 1..=3 {
        assert_eq!(run(seed, None), run(seed, None));
    }
}

/// One test for each bug, so that they run side by side and the name of a blind checker stands in the summary.
macro_rules! finds {
    ($($name:ident: $mutation:ident,)+) => {
        $(#[test]
        fn $name() {
            let found = SEEDS_TO_FIND.into_iter().any(|seed| run(seed, Some(Mutation::$mutation)).verdict.is_err());
            assert!(found, "no seed of {SEEDS_TO_FIND:?} shows {}", Mutation::$mutation.as_str());
        })+

        #[test]
        fn no_bug_is_left_out() {
            assert_eq!([$(Mutation::$mutation),+].len(), Mutation::ALL.len());
        }
    };
}

finds! {
    finds_expiry_before_refill: ExpiryBeforeRefill,
    finds_reports_before_refill: ReportsBeforeRefill,
    finds_no_new_leader_rule: NoNewLeaderRule,
    finds_grant_booked_after_read_index: GrantBookedAfterReadIndex,
    finds_removed_forgotten_at_once: RemovedForgottenAtOnce,
    finds_view_before_lease: ViewBeforeLease,
    finds_applied_before_published: AppliedBeforePublished,
    finds_spend_after_expiry: SpendAfterExpiry,
    finds_lease_from_reply: LeaseFromReply,
    finds_allowance_from_reply: AllowanceFromReply,
    finds_cached_clock: CachedClock,
    finds_tick_jumps_forward: TickJumpsForward,
    finds_tick_unscaled: TickUnscaled,
    finds_delta_reports: DeltaReports,
    finds_duplicate_answer_accepted: DuplicateAnswerAccepted,
    finds_allowance_reused_after_restart: AllowanceReusedAfterRestart,
    finds_no_quorum_round: NoQuorumRound,
    finds_authority_before_own_term: AuthorityBeforeOwnTerm,
    finds_no_lease_margin: NoLeaseMargin,
    finds_quota_returns_into_next_window: QuotaReturnsIntoNextWindow,
}

//! The simulation of the pure core keeps every promise over a fixed set of seeds, and finds each bug that is put back.

#![allow(clippy::panic, reason = "a test fails by panicking")]

use chaos::sim::{Mutation, Scenario, repeat_line, run};

/// Enough that each promise is put to the test in several ways, few enough for every build.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=120;
/// The most seeds that it may take to find a bug.
const SEEDS_TO_FIND: u64 = 1_000;

#[test]
fn every_promise_holds_over_the_fixed_seeds() {
    let acknowledged = keeps_every_promise(Scenario::Chance, SEEDS);
    assert!(acknowledged > 500, "only {acknowledged} writes were put to the test");
}

#[test]
fn every_promise_holds_in_every_scene() {
    for scenario in [Scenario::LateAnswers, Scenario::UnknownCommit, Scenario::SlowClock] {
        keeps_every_promise(scenario, 1..=30);
    }
}

/// Returns how many writes were acknowledged.
fn keeps_every_promise(scenario: Scenario, seeds: std::ops::RangeInclusive<u64>) -> u64 {
    let mut acknowledged = 0;
    for seed in seeds {
        let outcome = run(scenario, seed, None);
        acknowledged += outcome.writes;
        if let Err(what) = outcome.verdict {
            panic!("seed {seed}: {what}\n  {}", repeat_line(scenario, seed, None));
        }
    }
    acknowledged
}

#[test]
fn a_seed_says_it_all() {
    for seed in 1..=3 {
        assert_eq!(run(Scenario::Chance, seed, None), run(Scenario::Chance, seed, None));
    }
}

/// One test for each bug, so that they run side by side and the name of a blind checker stands in the summary. The
/// search begins at a seed that showed the bug when it was written, so that it is short; any later one will do.
macro_rules! finds {
    ($($name:ident: $mutation:ident by $scenario:ident from $first:literal,)+) => {
        $(#[test]
        fn $name() {
            let mut seeds = $first..$first + SEEDS_TO_FIND;
            let mutation = Some(Mutation::$mutation);
            let found = seeds.any(|seed| run(Scenario::$scenario, seed, mutation).verdict.is_err());
            assert!(found, "no seed shows {}", Mutation::$mutation.as_str());
        })+

        #[test]
        fn no_bug_is_left_out() {
            let shown = [$(Mutation::$mutation),+];
            for mutation in Mutation::ALL {
                assert!(shown.contains(mutation), "nothing looks for {}", mutation.as_str());
            }
        }
    };
}

finds! {
    finds_expiry_before_refill: ExpiryBeforeRefill by Chance from 1,
    finds_reports_before_refill: ReportsBeforeRefill by Chance from 1,
    finds_no_new_leader_rule: NoNewLeaderRule by Chance from 39,
    finds_grant_booked_after_read_index: GrantBookedAfterReadIndex by Chance from 13,
    finds_removed_forgotten_at_once: RemovedForgottenAtOnce by Chance from 10,
    finds_view_before_lease: ViewBeforeLease by Chance from 122,
    finds_applied_before_published: AppliedBeforePublished by Chance from 1,
    finds_spend_after_expiry: SpendAfterExpiry by Chance from 4,
    finds_lease_from_reply: LeaseFromReply by Chance from 1140,
    finds_allowance_from_reply: AllowanceFromReply by LateAnswers from 37,
    finds_cached_clock: CachedClock by Chance from 60,
    finds_tick_jumps_forward: TickJumpsForward by Chance from 1,
    finds_tick_unscaled: TickUnscaled by Chance from 12,
    finds_delta_reports: DeltaReports by Chance from 1,
    finds_duplicate_answer_accepted: DuplicateAnswerAccepted by Chance from 1,
    finds_allowance_reused_after_restart: AllowanceReusedAfterRestart by Chance from 1,
    finds_no_quorum_round: NoQuorumRound by Chance from 50,
    finds_authority_before_own_term: AuthorityBeforeOwnTerm by UnknownCommit from 1,
    finds_no_lease_margin: NoLeaseMargin by SlowClock from 1,
    finds_quota_returns_into_next_window: QuotaReturnsIntoNextWindow by Chance from 189,
}

//! Bugs that can be put back, to prove that a run of `chaos` finds them (`chaos/src/mutations.rs` says by what). Only in builds
//! with the feature `mutations`, which are for tests alone: there `QUORATE_MUTATION` names the bug. In every other build
//! [`is`] is `false` and the bugs are not there.

#[cfg(all(feature = "mutations", not(debug_assertions)))]
compile_error!("the feature `mutations` puts bugs back: it is for debug builds, never for a release");

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Workers admit without looking at the lease.
    IgnoresTheLease,
    /// A node holds one token more than it was granted.
    OneTokenTooMany,
    /// A write is acknowledged as enforced by all without waiting for it.
    AcknowledgesBeforeTheFence,
    /// The log index counts as enforced before the workers have the state.
    EnforcedBeforePublished,
    /// A state in ten never reaches the workers, and counts as enforced.
    SkipsStates,
    /// Reads are answered from what the node has.
    StaleReads,
    /// A write is acknowledged by what it would do, before it is committed.
    AcknowledgesBeforeTheCommit,
    /// What is applied depends on the process that applies it.
    AppliesInItsOwnWay,
    /// The first entry after a start is not applied.
    SkipsAnEntryAfterAStart,
    /// Requests that were answered are not remembered.
    ForgetsRequests,
    /// New keys stand in the log.
    LogsSecrets,
    /// A node says that it enforces what it has not applied.
    SaysItEnforcesTheLog,
    /// The leader grants leases without asking a majority whether it leads.
    GrantsWithoutAMajority,
    /// Leases end before a change of leader is over.
    ShortLeases,
    /// A lease counts before the state that it asks for is enforced.
    LeaseBeforeTheState,
    /// A node whose session broke does not seek another.
    StaysAlone,
}

impl Mutation {
    /// Every bug and its name.
    pub const ALL: [(Self, &'static str); 16] = [
        (Self::IgnoresTheLease, "ignores-the-lease"),
        (Self::OneTokenTooMany, "one-token-too-many"),
        (Self::AcknowledgesBeforeTheFence, "acknowledges-before-the-fence"),
        (Self::EnforcedBeforePublished, "enforced-before-published"),
        (Self::SkipsStates, "skips-states"),
        (Self::StaleReads, "stale-reads"),
        (Self::AcknowledgesBeforeTheCommit, "acknowledges-before-the-commit"),
        (Self::AppliesInItsOwnWay, "applies-in-its-own-way"),
        (Self::SkipsAnEntryAfterAStart, "skips-an-entry-after-a-start"),
        (Self::ForgetsRequests, "forgets-requests"),
        (Self::LogsSecrets, "logs-secrets"),
        (Self::SaysItEnforcesTheLog, "says-it-enforces-the-log"),
        (Self::GrantsWithoutAMajority, "grants-without-a-majority"),
        (Self::ShortLeases, "short-leases"),
        (Self::LeaseBeforeTheState, "lease-before-the-state"),
        (Self::StaysAlone, "stays-alone"),
    ];
}

/// Whether this bug is back.
#[cfg(not(feature = "mutations"))]
#[must_use]
#[inline(always)]
#[expect(clippy::inline_always, reason = "nothing of it is to be left in what requests pass through")]
pub const fn is(_: Mutation) -> bool {
    false
}

/// Whether this bug is back. Read once; a name that is none ends the process, so that a typo proves nothing.
#[cfg(feature = "mutations")]
#[must_use]
pub fn is(mutation: Mutation) -> bool {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<Mutation>> = OnceLock::new();
    let read = || {
        let name = std::env::var("QUORATE_MUTATION").ok().filter(|name| !name.is_empty())?;
        let known = Mutation::ALL.iter().find(|(_, known)| *known == name);
        let Some((mutation, _)) = known else {
            tracing::error!(name, "QUORATE_MUTATION names no bug");
            std::process::exit(64);
        };
        tracing::warn!(name, "QUORATE_MUTATION: this node has a bug that a test wants found");
        Some(*mutation)
    };
    *CHOSEN.get_or_init(read) == Some(mutation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bug_is_back_by_itself() {
        assert!(Mutation::ALL.iter().all(|(mutation, _)| !is(*mutation)));
    }

    #[test]
    fn each_bug_has_a_name_of_its_own() {
        for (place, (_, name)) in Mutation::ALL.iter().enumerate() {
            assert_eq!(Mutation::ALL.iter().position(|(_, other)| other == name), Some(place));
        }
    }
}

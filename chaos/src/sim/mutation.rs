//! Bugs that can be put back, one at a time, to prove that the checkers find them. Each is a rule of the protocol that
//! somebody could take for superfluous.

crate::bugs! {
    /// Expired allowances free their room before the time that has passed is credited.
    ExpiryBeforeRefill = "expiry-before-refill",
    /// Reports free their room before the time that has passed is credited.
    ReportsBeforeRefill = "reports-before-refill",
    /// A new leader takes it that nobody was granted anything before it.
    NoNewLeaderRule = "no-new-leader-rule",
    /// The leader books a grant when it answers, after `read_index` was taken.
    GrantBookedAfterReadIndex = "grant-booked-after-read-index",
    /// A removed member is forgotten with its removal.
    RemovedForgottenAtOnce = "removed-forgotten-at-once",
    /// A request takes its View before it looks at the lease.
    ViewBeforeLease = "view-before-lease",
    /// A node reports a state as enforced when it is applied, before workers see it.
    AppliedBeforePublished = "applied-before-published",
    /// An allowance is spent whatever the clock says.
    SpendAfterExpiry = "spend-after-expiry",
    /// A lease counts from when its answer arrived.
    LeaseFromReply = "lease-from-reply",
    /// An allowance counts from when its answer arrived.
    AllowanceFromReply = "allowance-from-reply",
    /// Requests read a clock that another thread refreshes.
    CachedClock = "cached-clock",
    /// A new leader puts the cluster's time forward.
    TickJumpsForward = "tick-jumps-forward",
    /// Cluster time runs at the speed of the leader's clock.
    TickUnscaled = "tick-unscaled",
    /// Reports say what was spent since the last one.
    DeltaReports = "delta-reports",
    /// A node takes any answer for the one that it waits for.
    DuplicateAnswerAccepted = "duplicate-answer-accepted",
    /// A restarted node goes on with the allowances it had.
    AllowanceReusedAfterRestart = "allowance-reused-after-restart",
    /// A leader grants authority without asking a majority whether it still leads.
    NoQuorumRound = "no-quorum-round",
    /// A leader grants authority before an entry of its own term is committed.
    AuthorityBeforeOwnTerm = "authority-before-own-term",
    /// The leader waits for a lease exactly as long as it lasts.
    NoLeaseMargin = "no-lease-margin",
    /// What an allowance of one window did not spend goes into the next.
    QuotaReturnsIntoNextWindow = "quota-returns-into-next-window",
}

//! Bugs that can be put back where the product meets the simulation, one at a time, to prove that the checkers see them. The bugs of the
//! protocol itself are put back in the simulation of the pure core.

chaos::bugs! {
    /// The disk says that it has synced, and has not.
    SyncLeftOut = "sync-left-out",
    /// A node comes back with the disk of some seconds ago, as from an image.
    OldDisk = "old-disk",
    /// Workers admit without looking at the lease.
    LeaseIgnored = "lease-ignored",
    /// A worker takes its View before it looks at the lease.
    ViewBeforeLease = "view-before-lease",
    /// A node says that it enforces a state before its workers have it: fences end too early.
    EnforcedEarly = "enforced-early",
    /// A restarted node goes on with the allowances it had, as they were granted.
    AllowanceReusedAfterRestart = "allowance-reused-after-restart",
    /// The clock of a node that is cut off runs at half the speed: wrong by more than leases and allowances allow for.
    SlowClock = "slow-clock",
}

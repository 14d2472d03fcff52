//! The two clocks of this machine, as the caller supplies them: nothing in this crate reads a clock of its own, so that
//! a simulation can give every node its own rate and offset. Timers (how long to sleep) are tokio's.

/// The clocks of one machine.
pub trait Clock: Send + Sync + 'static {
    /// Microseconds since some instant of this boot, counting time spent suspended; never goes back.
    fn boot_us(&self) -> u64;

    /// UTC in milliseconds since the Unix epoch, right or wrong.
    fn utc_ms(&self) -> u64;
}

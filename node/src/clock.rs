//! The only file that reads a clock. Everything else is handed the time.

use rustix::time::{ClockId, clock_gettime};

/// The clocks of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// Microseconds since the machine started, counting the time it was suspended: for deadlines and leases.
    #[must_use]
    pub fn boot_us(self) -> u64 {
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
        seconds.saturating_mul(1_000_000).saturating_add(nanoseconds / 1_000)
    }

    /// Milliseconds since the Unix epoch, by this machine's calendar: for certificates, logs and messages. What expires
    /// in the cluster goes by the cluster's own clock.
    #[must_use]
    pub fn utc_ms(self) -> u64 {
        let now = clock_gettime(ClockId::Realtime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
        seconds.saturating_mul(1_000).saturating_add(nanoseconds / 1_000_000)
    }
}

impl raft::Clock for SystemClock {
    fn boot_us(&self) -> u64 {
        Self::boot_us(*self)
    }
    fn utc_ms(&self) -> u64 {
        Self::utc_ms(*self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_go_forward() {
        let clock = SystemClock;
        let earlier = clock.boot_us();
        assert!(clock.boot_us() >= earlier);
        // 2025-01-01: a machine whose calendar is before it would fail every certificate anyway.
        assert!(clock.utc_ms() > 1_735_689_600_000);
    }
}

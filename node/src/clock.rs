//! The only file that reads a clock. Everything else is handed the time.
//!
//! A test may make these clocks wrong (`faults`): nothing else can.

use rustix::time::{ClockId, clock_gettime};
use std::sync::{
    PoisonError, RwLock,
    atomic::{AtomicBool, Ordering},
};

/// The clocks of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// How wrong the clocks are. Not at all, outside of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wrong {
    /// What the calendar is ahead.
    pub utc_offset_ms: i64,
    /// How much faster durations pass, in millionths.
    pub boot_rate_ppm: i64,
}

/// Since when they have been so wrong, by the true clock and by the wrong one: a clock whose rate changes does not jump.
#[derive(Clone, Copy)]
struct Since {
    wrong: Wrong,
    true_us: u64,
    shown_us: u64,
}

/// Whether the clocks were ever made wrong: all that a request pays for it.
static EVER_WRONG: AtomicBool = AtomicBool::new(false);
static SINCE: RwLock<Since> =
    RwLock::new(Since { wrong: Wrong { utc_offset_ms: 0, boot_rate_ppm: 0 }, true_us: 0, shown_us: 0 });

impl SystemClock {
    /// Microseconds since the machine started, counting the time it was suspended: for deadlines and leases.
    #[must_use]
    pub fn boot_us(self) -> u64 {
        let now_us = true_boot_us();
        if EVER_WRONG.load(Ordering::Relaxed) { since().boot_us(now_us) } else { now_us }
    }

    /// Milliseconds since the Unix epoch, by this machine's calendar: for certificates, logs and messages. What expires
    /// in the cluster goes by the cluster's own clock.
    #[must_use]
    pub fn utc_ms(self) -> u64 {
        let now_ms = true_utc_ms();
        if EVER_WRONG.load(Ordering::Relaxed) {
            now_ms.saturating_add_signed(since().wrong.utc_offset_ms)
        } else {
            now_ms
        }
    }

    /// Makes the clocks of this process wrong: for tests.
    pub fn go_wrong(wrong: Wrong) {
        let mut since = SINCE.write().unwrap_or_else(PoisonError::into_inner);
        let now_us = true_boot_us();
        let shown_us = if EVER_WRONG.load(Ordering::Relaxed) { since.boot_us(now_us) } else { now_us };
        *since = Since { wrong, true_us: now_us, shown_us };
        EVER_WRONG.store(true, Ordering::Relaxed);
    }

    /// What the clocks show more than they should (the calendar in milliseconds, durations in microseconds); `None` if
    /// nobody ever made them wrong.
    #[must_use]
    pub fn wrong_by(self) -> Option<(i64, i64)> {
        EVER_WRONG.load(Ordering::Relaxed).then(|| {
            let (since, now_us) = (since(), true_boot_us());
            (since.wrong.utc_offset_ms, since.boot_us(now_us).cast_signed().saturating_sub(now_us.cast_signed()))
        })
    }
}

impl Since {
    fn boot_us(&self, now_us: u64) -> u64 {
        let passed_us = now_us.saturating_sub(self.true_us);
        let more_us = i128::from(passed_us) * i128::from(self.wrong.boot_rate_ppm) / 1_000_000;
        let more_us = i64::try_from(more_us).unwrap_or(0);
        self.shown_us.saturating_add(passed_us).saturating_add_signed(more_us)
    }
}

fn since() -> Since {
    *SINCE.read().unwrap_or_else(PoisonError::into_inner)
}

fn true_boot_us() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(nanoseconds / 1_000)
}

fn true_utc_ms() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000).saturating_add(nanoseconds / 1_000_000)
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

    #[test]
    fn a_clock_whose_rate_is_wrong_does_not_jump() {
        let fast = Since { wrong: Wrong { utc_offset_ms: 0, boot_rate_ppm: 4_000 }, true_us: 1_000, shown_us: 5_000 };
        assert_eq!(fast.boot_us(1_000), 5_000);
        assert_eq!(fast.boot_us(1_001_000), 1_009_000);
        // A thread that read the true clock before the rate changed.
        assert_eq!(fast.boot_us(900), 5_000);
        let slow = Since { wrong: Wrong { utc_offset_ms: 0, boot_rate_ppm: -4_000 }, ..fast };
        assert_eq!(slow.boot_us(1_001_000), 1_001_000);
    }
}

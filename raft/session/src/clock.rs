//! The cluster's clocks: `tick` for rates and leases, `wall` for calendar windows and expiry dates.
//!
//! `tick` never goes back and never runs faster than real time. A new leader anchors it, when the first entry of its
//! own term is applied, to the last tick in the log and adds only its own monotonic time, scaled down by the assumed
//! clock error: a jump forward would expire allowances that nodes are still spending, and an unscaled tick would grant
//! `rate·d` by a clock that runs fast.
//!
//! `wall` never goes back and never stops. It follows the median of what a majority of the voters reports as UTC:
//! ahead of it, it runs slower; behind it, it jumps, which needs that majority, so that one machine with a wrong date
//! can neither expire every key nor roll every quota.

use crate::DRIFT_PERCENT;
use machine::{At, Tick, Wall};

/// While the wall clock is ahead of UTC it runs at this many hundredths of its speed.
const SLEWED_PERCENT: u64 = 90;
/// A wall clock that is behind by less runs on as it is: reports are as old as the network is slow.
const JUMP_MS: u64 = 20;

/// The cluster's clocks, as the leader keeps them. Made anew with each term.
#[derive(Clone, Debug)]
pub struct ClusterClock {
    drift_percent: u64,
    /// Cluster time at the anchor, in microseconds.
    tick_us: u64,
    /// In microseconds, so that slewing loses nothing.
    wall_us: u64,
    /// Local time at the anchor.
    anchored_us: u64,
    slewing: bool,
}

impl ClusterClock {
    /// Takes over where the log stands.
    #[must_use]
    pub const fn anchor(last: At, now_us: u64) -> Self {
        Self::with_drift_percent(last, now_us, DRIFT_PERCENT)
    }

    /// The same with another assumption about clocks: for simulations that show why it is needed.
    #[must_use]
    pub const fn with_drift_percent(last: At, now_us: u64, drift_percent: u64) -> Self {
        Self {
            drift_percent,
            tick_us: last.tick.0,
            wall_us: last.wall.0.saturating_mul(1_000),
            anchored_us: now_us,
            slewing: false,
        }
    }

    /// The cluster's time now.
    #[must_use]
    pub fn now(&self, now_us: u64) -> At {
        let elapsed_us = now_us.saturating_sub(self.anchored_us);
        let scaled = |percent: u64| {
            let product = u128::from(elapsed_us) * u128::from(percent) / 100;
            u64::try_from(product).unwrap_or(u64::MAX)
        };
        let tick = self.tick_us.saturating_add(scaled(100 - self.drift_percent));
        let wall = self.wall_us.saturating_add(if self.slewing { scaled(SLEWED_PERCENT) } else { elapsed_us });
        At { tick: Tick(tick), wall: Wall(wall / 1_000) }
    }

    /// Steers the wall clock by what the voters report as their UTC (now, in milliseconds; one for each that was heard
    /// lately). Without a majority it runs on.
    pub fn steer(&mut self, now_us: u64, voters: usize, reported: &[u64]) {
        if reported.len() * 2 <= voters {
            self.move_anchor(now_us, false);
            return;
        }
        let mut sorted = reported.to_vec();
        sorted.sort_unstable();
        // The lower of the two in the middle: an even number of reports never jumps further than half of them say.
        let Some(median) = sorted.get((sorted.len() - 1) / 2).copied() else { return };
        let wall = self.now(now_us).wall.0;
        self.move_anchor(now_us, wall > median);
        if median > wall.saturating_add(JUMP_MS) {
            self.wall_us = median.saturating_mul(1_000);
        }
    }

    fn move_anchor(&mut self, now_us: u64, slewing: bool) {
        if self.slewing != slewing {
            let now = self.now(now_us);
            // Whole units only move forward with the anchor; what is cut off is less than a millisecond.
            self.tick_us = now.tick.0;
            self.wall_us = now.wall.0.saturating_mul(1_000);
            self.anchored_us = now_us.max(self.anchored_us);
            self.slewing = slewing;
        } else if self.slewing || now_us.saturating_sub(self.anchored_us) > 1_000_000 {
            let now = self.now(now_us);
            self.tick_us = now.tick.0;
            self.wall_us = now.wall.0.saturating_mul(1_000).max(self.wall_us);
            self.anchored_us = now_us.max(self.anchored_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(tick_us: u64, wall_ms: u64) -> At {
        At { tick: Tick(tick_us), wall: Wall(wall_ms) }
    }

    #[test]
    fn tick_runs_slower_than_any_clock_within_the_assumed_error() {
        let clock = ClusterClock::anchor(at(5_000_000, 1_000), 7_000_000);
        assert_eq!(clock.now(7_000_000), at(5_000_000, 1_000));
        assert_eq!(clock.now(8_000_000), at(5_990_000, 2_000));
    }

    #[test]
    fn wall_follows_a_majority_forward_and_slows_down_when_it_is_ahead() {
        let mut clock = ClusterClock::anchor(at(0, 1_000_000), 0);
        clock.steer(0, 3, &[9_000_000]);
        assert_eq!(clock.now(0).wall, Wall(1_000_000), "one of three moves nothing");
        clock.steer(0, 3, &[2_000_000, 2_000_100, 900_000_000]);
        assert_eq!(clock.now(0).wall, Wall(2_000_100), "the median, whatever one of them says");
        clock.steer(0, 3, &[1_000_000, 1_000_000, 1_000_000]);
        assert_eq!(clock.now(1_000_000).wall, Wall(2_001_000), "ahead: slower, never back");
    }

    #[test]
    fn steering_never_turns_time_back() {
        let mut clock = ClusterClock::anchor(at(0, 1_000_000), 0);
        let mut last = clock.now(0);
        for step in 1..5_000_u64 {
            let now_us = step * 777;
            let utc = if step % 7 < 3 { 1_000_000 } else { 1_000_000 + step };
            clock.steer(now_us, 3, &[utc, utc + step % 11]);
            let now = clock.now(now_us);
            assert!(now.tick >= last.tick && now.wall >= last.wall, "at {now_us}: {last:?} to {now:?}");
            last = now;
        }
    }
}

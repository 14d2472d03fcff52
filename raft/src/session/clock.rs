//! The cluster's time on a node that follows. The leader's own clocks are [`::session::clock`].

use machine::{At, Tick};

/// The cluster's time as a follower reckons it: what the leader said last, plus what has passed here since.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeardTime {
    at: At,
    heard_us: u64,
}

impl HeardTime {
    /// The leader has said this just now. Time never goes back, whoever says so.
    pub(crate) fn hear(&mut self, at: At, now_us: u64) {
        *self = Self { at: at.max(self.now(now_us)), heard_us: now_us };
    }

    /// Whether any leader ever said anything.
    pub(crate) fn is_heard(&self) -> bool {
        self.at != At::default()
    }

    /// The time now; the beginning of time if nothing was heard.
    pub(crate) fn now(&self, now_us: u64) -> At {
        if !self.is_heard() {
            return self.at;
        }
        let passed_us = now_us.saturating_sub(self.heard_us);
        let slowed_us = passed_us / 100 * (100 - ::session::DRIFT_PERCENT);
        At { tick: Tick(self.at.tick.0.saturating_add(slowed_us)), wall: self.at.wall.plus_ms(passed_us / 1000) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::Wall;

    fn at(tick: u64, wall: u64) -> At {
        At { tick: Tick(tick), wall: Wall(wall) }
    }

    #[test]
    fn a_follower_carries_on_what_it_heard() {
        let mut time = HeardTime::default();
        assert!(!time.is_heard());
        assert_eq!(time.now(9_000_000), At::default());
        time.hear(at(1_000, 50_000), 1_000_000);
        assert_eq!(time.now(3_000_000), at(1_981_000, 52_000));
        time.hear(at(900, 40_000), 3_000_000);
        assert_eq!(time.now(3_000_000), at(1_981_000, 52_000), "an older leader's word turns nothing back");
    }
}

//! One bucket of a limit with `scope: node`: what this node alone counts for one subject. Plain values, with the time
//! passed in; where buckets are kept is [`super::locals`].
//!
//! INVARIANT: of a rate, `available + reserved <= burst` at all times, so that in every interval of length d at most
//! `burst + rate·d` is admitted (watched by `no_interval_has_more_than_burst_and_rate` below). Tokens are reserved while
//! it is not yet known whether the limits of the cluster admit the request, too. A reserved token keeps its room in the
//! bucket: if the bucket could fill up meanwhile, a token put back into it would be one too many.

use machine::{
    Wall,
    limit::{Quota, Rate, Rule},
};

/// The instant of a step: local time, and the cluster's calendar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Now {
    pub(crate) us: u64,
    pub(crate) wall: Wall,
}

/// What is counted for one subject.
#[derive(Clone, Debug)]
pub(crate) struct LocalBucket {
    level: Level,
    /// Tokens of requests that are not decided yet.
    reserved: u64,
}

#[derive(Clone, Debug)]
enum Level {
    /// `available` is in parts of a token, as many as the period has microseconds, so that nothing is rounded away.
    Rate { rate: Rate, available: u128, updated_us: u64 },
    /// `used` includes what is reserved.
    Quota { quota: Quota, used: u64, ends: Wall },
}

/// What is left, and in how many microseconds there is more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) tokens: u64,
    pub(crate) more_us: u64,
}

impl LocalBucket {
    /// A full one: what an absent bucket is.
    pub(crate) fn full(rule: Rule, now: Now) -> Self {
        Self { level: Level::full(rule, 0, now), reserved: 0 }
    }

    /// Takes tokens for a request that is not decided yet: [`Self::settle`] must follow. The rule may have changed since
    /// the last time.
    ///
    /// # Errors
    /// In how many microseconds there may be so many tokens. Nothing was taken.
    pub(crate) fn reserve(&mut self, rule: Rule, cost: u64, now: Now) -> Result<(), u64> {
        self.bring_up_to(rule, now);
        match &mut self.level {
            Level::Rate { rate, available, .. } => {
                let price = parts(cost, *rate);
                match available.checked_sub(price) {
                    Some(rest) => *available = rest,
                    // What can never be there at once is told to wait for as long as a whole bucket takes.
                    None => {
                        let missing = price.min(parts(rate.burst, *rate)).saturating_sub(*available);
                        return Err(time_of(missing.max(1), *rate));
                    }
                }
            }
            Level::Quota { quota, used, ends } => {
                let rest = quota.amount.saturating_sub(*used);
                if cost > rest {
                    return Err(until(*ends, now).max(1));
                }
                *used = used.saturating_add(cost);
            }
        }
        self.reserved = self.reserved.saturating_add(cost);
        Ok(())
    }

    /// Ends a reservation: the tokens are spent, or go back.
    pub(crate) fn settle(&mut self, cost: u64, admitted: bool, now: Now) {
        // As the room was until now: see the head of this file.
        self.advance(now);
        self.reserved = self.reserved.saturating_sub(cost);
        if admitted {
            return;
        }
        match &mut self.level {
            Level::Rate { rate, available, .. } => {
                let room = parts(rate.burst.saturating_sub(self.reserved), *rate);
                *available = available.saturating_add(parts(cost, *rate)).min(room.max(*available));
            }
            Level::Quota { used, .. } => *used = used.saturating_sub(cost),
        }
    }

    /// What is left.
    pub(crate) fn left(&mut self, now: Now) -> Left {
        self.advance(now);
        match &self.level {
            Level::Rate { rate, available, .. } => {
                let period = u128::from(rate.period_us.max(1));
                let tokens = u64::try_from(available / period).unwrap_or(u64::MAX);
                Left { tokens, more_us: time_of(period - available % period, *rate) }
            }
            Level::Quota { quota, used, ends } => {
                Left { tokens: quota.amount.saturating_sub(*used), more_us: until(*ends, now) }
            }
        }
    }

    /// Whether it says no more than its absence would.
    pub(crate) fn is_absent(&mut self, now: Now) -> bool {
        self.advance(now);
        self.reserved == 0
            && match &self.level {
                Level::Rate { rate, available, .. } => *available >= parts(rate.burst, *rate),
                Level::Quota { used, .. } => *used == 0,
            }
    }

    fn advance(&mut self, now: Now) {
        match &mut self.level {
            Level::Rate { rate, available, updated_us } => {
                let elapsed_us = now.us.saturating_sub(*updated_us);
                *updated_us = now.us.max(*updated_us);
                let room = parts(rate.burst.saturating_sub(self.reserved), *rate);
                let credit = u128::from(elapsed_us).saturating_mul(u128::from(rate.tokens));
                *available = available.saturating_add(credit).min(room);
            }
            Level::Quota { quota, used, ends } => {
                if now.wall >= *ends {
                    // What is not decided yet will count in the window in which it is.
                    *used = self.reserved;
                    *ends = quota.window.end(now.wall);
                }
            }
        }
    }

    /// Time passes by the rule that it knows; then the rule is another one, and the level is carried over: never more than
    /// the larger of the two would have given.
    fn bring_up_to(&mut self, rule: Rule, now: Now) {
        self.advance(now);
        match (&mut self.level, rule) {
            (Level::Rate { rate, available, .. }, Rule::Rate(new)) => {
                if *rate != new {
                    let whole = u64::try_from(*available / u128::from(rate.period_us.max(1))).unwrap_or(u64::MAX);
                    *available = parts(whole.min(new.burst.saturating_sub(self.reserved)), new);
                    *rate = new;
                }
            }
            (Level::Quota { quota, .. }, Rule::Quota(new)) if quota.window == new.window => *quota = new,
            (level, rule) => *level = Level::full(rule, self.reserved, now),
        }
    }
}

impl Level {
    fn full(rule: Rule, reserved: u64, now: Now) -> Self {
        match rule {
            Rule::Rate(rate) => {
                let available = parts(rate.burst.saturating_sub(reserved), rate);
                Self::Rate { rate, available, updated_us: now.us }
            }
            Rule::Quota(quota) => Self::Quota { quota, used: reserved, ends: quota.window.end(now.wall) },
        }
    }
}

fn parts(tokens: u64, rate: Rate) -> u128 {
    u128::from(tokens).saturating_mul(u128::from(rate.period_us.max(1)))
}

/// How long the rate takes for so many parts.
fn time_of(parts: u128, rate: Rate) -> u64 {
    u64::try_from(parts.div_ceil(u128::from(rate.tokens.max(1)))).unwrap_or(u64::MAX)
}

fn until(end: Wall, now: Now) -> u64 {
    end.0.saturating_sub(now.wall.0).saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::limit::Window;
    use proptest::prelude::*;

    fn rate(tokens: u64, period_us: u64, burst: u64) -> Rule {
        Rule::Rate(Rate { tokens, period_us, burst })
    }

    fn quota(amount: u64) -> Rule {
        Rule::Quota(Quota { amount, window: Window::Minute })
    }

    fn at(us: u64) -> Now {
        Now { us, wall: Wall(us / 1_000) }
    }

    fn spend(bucket: &mut LocalBucket, rule: Rule, cost: u64, now: Now) -> Result<(), u64> {
        bucket.reserve(rule, cost, now).inspect(|()| bucket.settle(cost, true, now))
    }

    #[test]
    fn a_rate_gives_its_burst_and_then_as_time_passes() {
        let rule = rate(10, 1_000_000, 3);
        let mut bucket = LocalBucket::full(rule, at(0));
        for left in [2, 1, 0] {
            assert_eq!(spend(&mut bucket, rule, 1, at(5)), Ok(()));
            assert_eq!(bucket.left(at(5)), Left { tokens: left, more_us: 100_000 });
        }
        assert_eq!(spend(&mut bucket, rule, 1, at(5)), Err(100_000));
        assert_eq!(spend(&mut bucket, rule, 1, at(100_004)), Err(1));
        assert_eq!(spend(&mut bucket, rule, 1, at(100_005)), Ok(()));
        assert_eq!(spend(&mut bucket, rule, 3, at(100_005)), Err(300_000));
        assert_eq!(spend(&mut bucket, rule, 4, at(100_005)), Err(300_000), "it never fits: told as for a whole bucket");
        assert!(!bucket.is_absent(at(400_004)));
        assert!(bucket.is_absent(at(400_005)));
    }

    #[test]
    fn a_quota_ends_with_its_window() {
        let mut bucket = LocalBucket::full(quota(2), at(59_000_000));
        for _ in 0..2 {
            assert_eq!(spend(&mut bucket, quota(2), 1, at(59_000_000)), Ok(()));
        }
        assert_eq!(spend(&mut bucket, quota(2), 1, at(59_000_000)), Err(1_000_000));
        assert_eq!(spend(&mut bucket, quota(3), 1, at(59_900_000)), Ok(()), "a larger one takes the count over");
        assert_eq!(spend(&mut bucket, quota(3), 1, at(59_900_000)), Err(100_000));
        assert_eq!(spend(&mut bucket, quota(3), 3, at(60_000_000)), Ok(()));
        assert_eq!(bucket.left(at(60_000_000)), Left { tokens: 0, more_us: 60_000_000 });
        assert!(!bucket.is_absent(at(119_999_000)) && bucket.is_absent(at(120_000_000)));
    }

    #[test]
    fn what_is_put_back_is_there_again_but_never_more_than_was_taken() {
        let rule = rate(1, 1_000_000, 2);
        let mut bucket = LocalBucket::full(rule, at(0));
        bucket.reserve(rule, 2, at(0)).unwrap();
        assert_eq!(bucket.left(at(0)).tokens, 0);
        bucket.settle(2, false, at(0));
        assert_eq!(bucket.left(at(0)).tokens, 2);
        // Held for long: what would have come in meanwhile had no room.
        bucket.reserve(rule, 2, at(0)).unwrap();
        bucket.settle(2, false, at(60_000_000));
        assert_eq!(spend(&mut bucket, rule, 2, at(60_000_000)), Ok(()));
        assert_eq!(spend(&mut bucket, rule, 1, at(60_000_000)), Err(1_000_000));
    }

    #[test]
    fn another_rule_carries_the_level_over() {
        let (slow, fast) = (rate(1, 1_000_000, 10), rate(1_000, 1_000_000, 100));
        let mut bucket = LocalBucket::full(slow, at(0));
        spend(&mut bucket, slow, 6, at(0)).unwrap();
        assert_eq!(spend(&mut bucket, fast, 5, at(0)), Err(1_000), "four are there, of whatever rule");
        assert_eq!(spend(&mut bucket, fast, 5, at(1_000)), Ok(()));
        assert_eq!(spend(&mut bucket, rate(1, 1_000_000, 1), 1, at(90_000)), Ok(()));
        assert!(spend(&mut bucket, rate(1, 1_000_000, 1), 1, at(90_000)).is_err());
        assert_eq!(spend(&mut bucket, quota(5), 5, at(90_000)), Ok(()));
    }

    /// What a request does: it reserves, and later is admitted or not.
    #[derive(Clone, Debug)]
    struct Asked {
        after_us: u64,
        cost: u64,
        decided_after_us: u64,
        admitted: bool,
    }

    fn asked() -> impl Strategy<Value = Asked> {
        (0..200_000_u64, 1..5_u64, prop_oneof![Just(0), 0..400_000_u64], any::<bool>()).prop_map(
            |(after_us, cost, decided_after_us, admitted)| Asked { after_us, cost, decided_after_us, admitted },
        )
    }

    proptest! {
        #[test]
        fn no_interval_has_more_than_burst_and_rate(
            (tokens, period_us, burst) in (1..30_u64, 1..2_000_000_u64, 1..20_u64),
            requests in prop::collection::vec(asked(), 1..120),
        ) {
            let rule = rate(tokens, period_us, burst);
            let mut bucket = LocalBucket::full(rule, at(0));
            // Reservations and decisions in order of time.
            let mut steps: Vec<(u64, usize, bool)> = Vec::new();
            let mut now_us = 0;
            for (index, one) in requests.iter().enumerate() {
                now_us += one.after_us;
                steps.push((now_us, index, false));
                steps.push((now_us + one.decided_after_us, index, true));
            }
            steps.sort();
            let mut held = vec![false; requests.len()];
            let mut admits: Vec<(u64, u64)> = Vec::new();
            for (us, index, decides) in steps {
                let one = &requests[index];
                if !decides {
                    held[index] = bucket.reserve(rule, one.cost, at(us)).is_ok();
                } else if held[index] {
                    bucket.settle(one.cost, one.admitted, at(us));
                    if one.admitted {
                        admits.push((us, one.cost));
                    }
                }
                prop_assert!(bucket.left(at(us)).tokens + bucket.reserved <= burst);
            }
            for (first, (from, _)) in admits.iter().enumerate() {
                let mut sum = 0_u128;
                for (to, cost) in &admits[first..] {
                    sum += u128::from(*cost) * u128::from(period_us);
                    let most = u128::from(burst) * u128::from(period_us) + u128::from(tokens) * u128::from(to - from);
                    prop_assert!(sum <= most, "from {from} to {to}");
                }
            }
        }

        #[test]
        fn no_window_has_more_than_its_quota(requests in prop::collection::vec(asked(), 1..200), amount in 1..20_u64) {
            let mut bucket = LocalBucket::full(quota(amount), at(0));
            let mut now_us = 0;
            let mut admitted: std::collections::BTreeMap<u64, u64> = std::collections::BTreeMap::new();
            for one in &requests {
                now_us += one.after_us * 20;
                if bucket.reserve(quota(amount), one.cost, at(now_us)).is_ok() {
                    now_us += one.decided_after_us;
                    bucket.settle(one.cost, one.admitted, at(now_us));
                    if one.admitted {
                        *admitted.entry(now_us / 60_000_000).or_default() += one.cost;
                    }
                }
            }
            for (window, sum) in admitted {
                prop_assert!(sum <= amount, "window {window}: {sum}");
            }
        }
    }
}

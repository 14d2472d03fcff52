//! Limits: how much may be admitted, as integers. A rate is a token bucket; a quota is a number for each window of the
//! UTC calendar. What a limit counts by (key, consumer, …) is the data plane's concern: here it is a bucket's subject.

use crate::{
    cap::{LIMIT_PERIOD_MAX_US, LIMIT_TOKENS_MAX},
    outcome::{Field, Refusal},
    time::Wall,
};
use serde::{Deserialize, Serialize};

/// How much may be admitted for one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    /// In every interval of length d at most `burst + tokens·d/period`.
    Rate(Rate),
    /// In every window at most `amount`.
    Quota(Quota),
}

impl Rule {
    /// The most tokens there can be at a time.
    #[must_use]
    pub const fn burst(&self) -> u64 {
        match self {
            Self::Rate(Rate { burst, .. }) => *burst,
            Self::Quota(Quota { amount, .. }) => *amount,
        }
    }

    /// Refuses numbers that are none of a limit, or so large that the arithmetic of a bucket could overflow.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let within = |what: Field, value: u64, max: u64| {
            if (1..=max).contains(&value) { Ok(()) } else { Err(Refusal::OutOfBounds { what, max }) }
        };
        match self {
            Self::Rate(Rate { tokens, period_us, burst }) => {
                within(Field::LimitTokens, *tokens, LIMIT_TOKENS_MAX)?;
                within(Field::LimitPeriod, *period_us, LIMIT_PERIOD_MAX_US)?;
                within(Field::LimitBurst, *burst, LIMIT_TOKENS_MAX)
            }
            Self::Quota(Quota { amount, .. }) => within(Field::LimitAmount, *amount, LIMIT_TOKENS_MAX),
        }
    }
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// How many tokens come in a period; at least 1.
    pub tokens: u64,
    /// The period, in microseconds; at least 1.
    pub period_us: u64,
    /// The most that can be saved up; at least 1.
    pub burst: u64,
}

/// A number for each window of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// How many in a window.
    pub amount: u64,
    /// The window.
    pub window: Window,
}

/// A window of the UTC calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Window {
    /// From second 0 to second 60.
    Minute,
    /// From minute 0 to minute 60.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From the first of a month to the first of the next.
    Month,
}

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

impl Window {
    /// The instant at which the window that holds `now` ends, and the next begins.
    #[must_use]
    pub fn end(self, now: Wall) -> Wall {
        let next = |length: u64| Wall((now.0 / length).saturating_add(1).saturating_mul(length));
        match self {
            Self::Minute => next(MINUTE_MS),
            Self::Hour => next(HOUR_MS),
            Self::Day => next(DAY_MS),
            Self::Month => {
                let (year, month) = year_and_month(now.0 / DAY_MS);
                let (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                Wall(days_before(year, month).saturating_mul(DAY_MS))
            }
        }
    }
}

/// The year and the month (1 to 12) of a day since 1970-01-01 (Hinnant, "chrono-compatible low-level date algorithms",
/// `civil_from_days`, for days that are not before the epoch).
const fn year_and_month(days: u64) -> (u64, u64) {
    let days = days.saturating_add(719_468);
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + if month <= 2 { 1 } else { 0 }, month)
}

/// Days from 1970-01-01 to the first of a month (`days_from_civil` of the same source).
const fn days_before(year: u64, month: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year / 400;
    let year_of_era = year % 400;
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted + 2) / 5;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22T11:30:35.250Z
    const NOW: Wall = Wall(1_795_347_035_250);

    #[test]
    fn windows_end_where_the_calendar_says() {
        assert_eq!(Window::Minute.end(NOW), Wall(1_795_347_060_000));
        assert_eq!(Window::Hour.end(NOW), Wall(1_795_348_800_000));
        assert_eq!(Window::Day.end(NOW), Wall(1_795_392_000_000));
        assert_eq!(Window::Month.end(NOW), Wall(1_796_083_200_000));
    }

    #[test]
    fn the_first_instant_of_a_window_belongs_to_it() {
        let midnight = Window::Day.end(NOW);
        assert_eq!(Window::Day.end(midnight), Wall(midnight.0 + DAY_MS));
    }

    #[test]
    fn months_know_leap_years() {
        let february_2028 = Wall(days_before(2028, 2) * DAY_MS);
        assert_eq!(Window::Month.end(february_2028).0 - february_2028.0, 29 * DAY_MS);
        let february_2100 = Wall(days_before(2100, 2) * DAY_MS);
        assert_eq!(Window::Month.end(february_2100).0 - february_2100.0, 28 * DAY_MS);
        for month in 0..2_400_u64 {
            let (year, of_year) = (1970 + month / 12, month % 12 + 1);
            assert_eq!(year_and_month(days_before(year, of_year)), (year, of_year));
        }
    }
}

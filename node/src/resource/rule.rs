//! How much a limit admits, as people write it: `100/s` for a rate, `10000/day` for a quota. What the numbers mean is the
//! core's business.

use machine::{
    cap::LIMIT_TOKENS_MAX,
    limit::{Quota, Rate, Window},
};

const SECOND_US: u64 = 1_000_000;
/// Units of a rate, in microseconds.
const PERIODS: [(&str, u64); 4] =
    [("s", SECOND_US), ("min", 60 * SECOND_US), ("hour", 3_600 * SECOND_US), ("day", 86_400 * SECOND_US)];
/// Units of a quota.
const WINDOWS: [(&str, Window); 4] =
    [("min", Window::Minute), ("hour", Window::Hour), ("day", Window::Day), ("month", Window::Month)];

/// Reads `100/s`: tokens, and in how many microseconds they come.
pub(super) fn read_rate(text: &str) -> Result<(u64, u64), String> {
    let (number, unit) = split(text).ok_or_else(|| format!("{text:?} is not a rate: write 100/s, 30/min or 5/hour"))?;
    let Some((_, period_us)) = PERIODS.into_iter().find(|(name, _)| *name == unit) else {
        return Err(if unit == "month" {
            format!("a month is too long for a rate, which lets requests through evenly: write quota: {number}/month")
        } else {
            format!("{unit:?} is no unit of a rate: it is /s, /min, /hour or /day")
        });
    };
    Ok((count(number, "30/min or 5/hour")?, period_us))
}

/// Reads `10000/day`.
pub(super) fn read_quota(text: &str) -> Result<Quota, String> {
    let (number, unit) =
        split(text).ok_or_else(|| format!("{text:?} is not a quota: write 10000/day, 100/hour or 1000000/month"))?;
    let Some((_, window)) = WINDOWS.into_iter().find(|(name, _)| *name == unit) else {
        return Err(if unit == "s" {
            format!(
                "a second is too short for a quota, which counts in windows of the calendar: write rate: {number}/s"
            )
        } else {
            format!("{unit:?} is no unit of a quota: it is /min, /hour, /day or /month")
        });
    };
    Ok(Quota { amount: count(number, "10000/day or 300000/month")?, window })
}

/// `100/s`.
pub(super) fn rate_text(rate: &Rate) -> String {
    let unit = PERIODS.into_iter().find(|(_, period_us)| *period_us == rate.period_us).map(|(unit, _)| unit);
    match unit {
        Some(unit) => format!("{}/{unit}", rate.tokens),
        // No resource file says so; another writer of the core's state could.
        None => format!("{}/{}us", rate.tokens, rate.period_us),
    }
}

/// `10000/day`.
pub(super) fn quota_text(quota: &Quota) -> String {
    let unit = WINDOWS.into_iter().find(|(_, window)| *window == quota.window).map_or("", |(unit, _)| unit);
    format!("{}/{unit}", quota.amount)
}

/// What can be saved up where nothing is said: a second's worth, at least 1.
pub(super) const fn default_burst(tokens: u64, period_us: u64) -> u64 {
    let second = tokens.saturating_mul(SECOND_US) / if period_us == 0 { 1 } else { period_us };
    if second == 0 { 1 } else { second }
}

fn split(text: &str) -> Option<(&str, &str)> {
    let (number, unit) = text.split_once('/')?;
    (!number.is_empty() && number.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.'))).then_some((number, unit))
}

fn count(number: &str, instead: &str) -> Result<u64, String> {
    if number.contains('.') {
        return Err(format!(
            "{number} is not a whole number, and a fraction of a request cannot be admitted: take a longer unit, as {instead}"
        ));
    }
    match number.parse() {
        Ok(0) => Err("must be at least 1: a limit that admits nothing is a policy that forbids".to_owned()),
        Ok(count) if count <= LIMIT_TOKENS_MAX => Ok(count),
        _ => Err(format!("is too large: the most is {LIMIT_TOKENS_MAX}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates() {
        for (text, tokens, period_us, burst) in [
            ("100/s", 100, 1_000_000, 100),
            ("30/min", 30, 60_000_000, 1),
            ("6000/min", 6_000, 60_000_000, 100),
            ("1/hour", 1, 3_600_000_000, 1),
            ("864000/day", 864_000, 86_400_000_000, 10),
        ] {
            assert_eq!(read_rate(text), Ok((tokens, period_us)), "{text}");
            assert_eq!(rate_text(&Rate { tokens, period_us, burst }), text);
            assert_eq!(default_burst(tokens, period_us), burst, "{text}");
        }
        for (text, says) in [
            ("100", "is not a rate"),
            ("/s", "is not a rate"),
            ("-1/s", "is not a rate"),
            ("1e3/s", "is not a rate"),
            ("100/sec", "it is /s, /min, /hour or /day"),
            ("100/ s", "it is /s, /min, /hour or /day"),
            ("100/month", "write quota: 100/month"),
            ("0.5/s", "take a longer unit, as 30/min"),
            ("0/s", "at least 1"),
            ("1000000000001/s", "the most is 1000000000000"),
            ("99999999999999999999/s", "the most is"),
        ] {
            let said = read_rate(text).unwrap_err();
            assert!(said.contains(says), "{text}: {said}");
        }
    }

    #[test]
    fn quotas() {
        for text in ["10000/day", "1/min", "5/hour", "1000000000000/month"] {
            assert_eq!(quota_text(&read_quota(text).unwrap()), text);
        }
        for (text, says) in [
            ("100/s", "write rate: 100/s"),
            ("100/week", "it is /min, /hour, /day or /month"),
            ("2.5/day", "take a longer unit"),
            ("0/day", "at least 1"),
            ("day", "is not a quota"),
        ] {
            let said = read_quota(text).unwrap_err();
            assert!(said.contains(says), "{text}: {said}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged(text in "[0-9./a-z -]{0,12}") {
            if let Ok((tokens, period_us)) = read_rate(&text) {
                prop_assert!(tokens >= 1 && default_burst(tokens, period_us) >= 1);
            }
            if let Ok(quota) = read_quota(&text) {
                prop_assert!(quota.amount >= 1);
            }
        }
    }
}

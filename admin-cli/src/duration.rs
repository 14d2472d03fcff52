//! Durations as people write them: `90d`, `12h`, `1h30m`, `250ms`. Points in time live in `moment.rs`.

use std::time::Duration;

/// Longest first where one unit's name begins with another's.
const UNITS: [(&str, u64); 8] = [
    ("ms", 1),
    ("min", 60_000),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
    ("y", 31_536_000_000),
];

/// Reads `90d`, `12h`, `1h30m`, `250ms`; a bare `0` is allowed, any other bare number has no unit and is refused.
pub fn parse(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err("a duration is empty; write one like 90d, 12h or 250ms".into());
    }
    let mut total = 0u64;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong(text))?;
        let letters = after.len() - after.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, after) = after.split_at(letters);
        let (_, unit_ms) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(|| wrong(text))?;
        total = number
            .checked_mul(*unit_ms)
            .and_then(|ms| total.checked_add(ms))
            .ok_or_else(|| format!("`{text}` is too long a time"))?;
        rest = after;
    }
    Ok(Duration::from_millis(total))
}

/// How long a thing lasts; `never` is for ever and reads as zero, which is what the admin API means by it.
pub fn parse_expiry(text: &str) -> Result<Duration, String> {
    if text.trim().eq_ignore_ascii_case("never") {
        return Ok(Duration::ZERO);
    }
    match parse(text)? {
        Duration::ZERO => Err("it would expire at once; write `never` for no expiry".into()),
        duration => Ok(duration),
    }
}

/// A duration that has to be longer than nothing.
pub fn parse_positive(text: &str) -> Result<Duration, String> {
    match parse(text)? {
        Duration::ZERO => Err("it must be longer than nothing".into()),
        duration => Ok(duration),
    }
}

/// Whole milliseconds; what does not fit is the longest there is.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The shortest text that `parse` reads back to the same: `1h30m`, `250ms`, `0s`.
pub fn text(ms: u64) -> String {
    if ms == 0 {
        return "0s".into();
    }
    let mut rest = ms;
    let mut out = String::new();
    for (name, unit_ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        let count = rest / unit_ms;
        if count > 0 {
            out.push_str(&format!("{count}{name}"));
            rest %= unit_ms;
        }
    }
    out
}

fn wrong(text: &str) -> String {
    format!("`{text}` is not a duration; write one like 90d, 12h, 1h30m or 250ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, ms) in [
            ("90d", 7_776_000_000),
            ("12h", 43_200_000),
            ("250ms", 250),
            ("1h30m", 5_400_000),
            ("5min", 300_000),
            ("1m500ms", 60_500),
            (" 2w ", 1_209_600_000),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for text in ["", "90", "d", "-1s", "1.5h", "1 h", "99999999999999999999s", "9999999999999y", "10x", "5é"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn text_reads_back() {
        for ms in [0, 1, 250, 1_000, 61_001, 5_400_000, 7_776_000_000] {
            assert_eq!(parse(&text(ms)).map(millis), Ok(ms));
        }
    }

    #[test]
    fn an_expiry_is_never_or_longer_than_nothing() {
        assert_eq!(parse_expiry("never"), Ok(Duration::ZERO));
        assert!(parse_expiry("0s").is_err());
        assert!(parse_positive("0").is_err());
    }
}

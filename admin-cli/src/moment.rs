//! Points in time: milliseconds since the Unix epoch on the wire, RFC 3339 in UTC for people and scripts. The only file
//! of this program that reads the wall clock.

use crate::duration;
use jiff::Timestamp;

/// This machine's UTC, in milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// RFC 3339 in UTC; none for 0, by which the admin API means never.
pub fn text(ms: u64) -> Option<String> {
    if ms == 0 {
        return None;
    }
    let timestamp = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    Some(timestamp.unwrap_or(Timestamp::MAX).to_string())
}

/// As `text`, for a table.
pub fn text_or(ms: u64, never: &str) -> String {
    text(ms).unwrap_or_else(|| never.to_owned())
}

/// Reads an RFC 3339 time with its offset.
pub fn parse(text: &str) -> Result<u64, String> {
    let timestamp: Timestamp =
        text.trim().parse().map_err(|_| format!("`{text}` is not a time; write one like 2026-01-31T12:00:00Z"))?;
    u64::try_from(timestamp.as_millisecond()).map_err(|_| format!("`{text}` is before 1970"))
}

/// A time in the past: RFC 3339, or how long ago.
pub fn parse_since(text: &str) -> Result<u64, String> {
    match duration::parse(text) {
        Ok(ago) => Ok(now_ms().saturating_sub(duration::millis(ago))),
        Err(_) => parse(text)
            .map_err(|_| format!("`{text}` is neither a duration like 2h nor a time like 2026-01-31T12:00:00Z")),
    }
}

/// A time to come: RFC 3339, or how long from now; 0 for `never` and for nothing.
pub fn parse_expiry(text: &str) -> Result<u64, String> {
    if text.trim().is_empty() || text.trim().eq_ignore_ascii_case("never") {
        return Ok(0);
    }
    match duration::parse_expiry(text) {
        Ok(duration) => Ok(now_ms().saturating_add(duration::millis(duration))),
        Err(_) => parse(text)
            .map_err(|_| format!("`{text}` is neither a duration like 90d nor a time like 2026-01-31T12:00:00Z")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_is_nothing_and_times_are_utc() {
        assert_eq!(text(0), None);
        assert_eq!(text(1_700_000_000_000).as_deref(), Some("2023-11-14T22:13:20Z"));
        assert_eq!(text(1_700_000_000_250).as_deref(), Some("2023-11-14T22:13:20.25Z"));
        assert!(text(u64::MAX).is_some());
    }

    #[test]
    fn offsets_are_read() {
        assert_eq!(parse("2023-11-15T00:13:20+02:00"), Ok(1_700_000_000_000));
        assert!(parse("yesterday").is_err());
        assert!(parse("1960-01-01T00:00:00Z").is_err());
    }

    #[test]
    fn since_is_a_duration_or_a_time() {
        assert!(parse_since("1h").is_ok_and(|ms| ms > 1_700_000_000_000));
        assert_eq!(parse_since("2023-11-14T22:13:20Z"), Ok(1_700_000_000_000));
        assert!(parse_since("soon").is_err());
    }
}

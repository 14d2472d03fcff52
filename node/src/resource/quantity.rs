//! Durations and sizes as people write them, in one canonical form.

use serde::{Serialize, Serializer};
use std::{fmt, time::Duration};

/// A duration written with its unit: `250ms`, `30s`, `5min`, `12h`, `90d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(u64);

/// Units of time in milliseconds, the largest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];

impl Span {
    pub(crate) const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    pub(crate) const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let (digits, unit) = split(text);
        let number: Option<u64> = digits.parse().ok();
        let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
        number
            .zip(factor)
            .and_then(|(number, factor)| number.checked_mul(factor))
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a duration: write 250ms, 30s, 5min, 12h or 90d"))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = UNITS
            .into_iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(("ms", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads a size: `64KiB`, `10MiB`, `1GiB`, or bytes without a unit.
pub(crate) fn read_bytes(text: &str) -> Result<u64, String> {
    let (digits, unit) = split(text);
    let factor = match unit {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let number: Option<u64> = digits.parse().ok();
    number
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .ok_or_else(|| format!("{text:?} is not a size: write 65536, 64KiB, 10MiB or 1GiB"))
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units() {
        for (text, canonical) in
            [("250ms", "250ms"), ("1000ms", "1s"), ("90s", "90s"), ("120s", "2min"), ("24h", "1d"), ("0s", "0ms")]
        {
            assert_eq!(Span::read(text).unwrap().to_string(), canonical);
        }
        for text in ["", "1", "s", "1.5s", "-1s", "1 s", "1S", "99999999999999999999s", "999999999999999d", "1ü"] {
            assert!(Span::read(text).is_err(), "{text}");
        }
        assert_eq!(read_bytes("10MiB"), Ok(10 << 20));
        assert!(read_bytes("10MB").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(ms in 0..u64::MAX / 2) {
            prop_assert_eq!(Span::read(&Span(ms).to_string()), Ok(Span(ms)));
        }
    }
}

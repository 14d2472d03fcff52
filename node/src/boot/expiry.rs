//! Says in the log, in time, that a certificate of the HTTPS listener ends. (The node's own renews itself.)

use crate::{clock::SystemClock, gateway, listen::Expiry};
use std::time::Duration;

/// How long before the end it begins to be said.
const AHEAD_MS: u64 = 30 * DAY_MS;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// How often it is said.
const INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
/// How often new certificates are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Warns once a day, and at once of certificates that are new, until it is aborted.
pub(super) async fn warn_in_time(gateway: gateway::Handle, clock: SystemClock) {
    let mut said: Option<(Vec<Expiry>, tokio::time::Instant)> = None;
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    loop {
        looks.tick().await;
        let expiries = gateway.expiries();
        if said.as_ref().is_some_and(|(known, at)| *known == expiries && at.elapsed() < INTERVAL) {
            continue;
        }
        for (certificate, days) in ending(&expiries, clock.utc_ms()) {
            if days < 0 {
                tracing::error!(%certificate, "a certificate of the HTTPS listener has ended: clients refuse it");
            } else {
                tracing::warn!(%certificate, days, "a certificate of the HTTPS listener ends soon: replace its files and send SIGHUP");
            }
        }
        said = Some((expiries, tokio::time::Instant::now()));
    }
}

/// Certificates that end soon, and in how many days; below 0 if they have ended.
fn ending(expiries: &[Expiry], now_ms: u64) -> impl Iterator<Item = (&str, i64)> {
    expiries.iter().filter(move |one| one.not_after_ms < now_ms.saturating_add(AHEAD_MS)).map(move |one| {
        let left = i64::try_from(one.not_after_ms).unwrap_or(i64::MAX) - i64::try_from(now_ms).unwrap_or(i64::MAX);
        (one.certificate.as_str(), left.div_euclid(DAY_MS.cast_signed()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_ahead_and_after_the_end() {
        let at = |days: u64| Expiry { certificate: days.to_string(), not_after_ms: days * DAY_MS };
        let all = [at(1), at(100), at(101), at(129), at(130), at(131)];
        let found: Vec<_> = ending(&all, 100 * DAY_MS + 1).collect();
        assert_eq!(found, [("1", -100), ("100", -1), ("101", 0), ("129", 28), ("130", 29)]);
    }
}

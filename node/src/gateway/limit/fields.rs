//! What a client is told of its limits: `RateLimit-Policy` and `RateLimit`, as draft-ietf-httpapi-ratelimit-headers-11 has
//! them (structured fields, RFC 9651), on every response to a request that came as far as its limits.
//!
//! `RateLimit-Policy` says what was configured: `"burst";q=200;w=2` for a rate of 100/s with a burst of 200, which is 200
//! within two seconds, and `"plan";q=10000;w=86400` for a quota.
//!
//! `RateLimit` says what this node can tell without asking anybody. Of a limit with `scope: node` that is the truth. Of a
//! limit of the cluster, `r` is what the node holds of it and what nobody held when the cluster last answered, about a
//! second ago: others may have taken of that. `t` then is 1, because a node asks about once a second; or 0 where nothing
//! is known to be left and it has not been told no, because it would ask at once. Only a refusal knows more: then `t` is
//! when to try again, and what `Retry-After` says. Shadow limits are not shown: nobody is to slow down for them.

use crate::resource::compile::CompiledLimit;
use http::{HeaderMap, HeaderName, HeaderValue};
use machine::limit::{Quota, Rate, Rule, Window};
use smallvec::SmallVec;
use std::fmt::Write;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// How the fields of older drafts begin, which an upstream may still send: with ours beside them they would contradict.
const OLDER: &str = "ratelimit-";
/// The largest integer of a structured field.
const INTEGER_MAX: u64 = 999_999_999_999_999;
/// The longest month, in seconds: a client that spreads a quota over it stays within any.
const MONTH_SECONDS: u64 = 31 * 86_400;

/// Where a request stands with one limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Tokens that are left, as far as this node can tell.
    pub(crate) left: u64,
    /// Seconds for which to reckon with that.
    pub(crate) seconds: u64,
}

/// The fields of a route's limits, as far as they do not depend on a request.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    policy: Option<HeaderValue>,
    /// `"burst";r=` for each limit.
    items: Vec<String>,
}

impl Fields {
    pub(crate) fn of<'l>(limits: impl Iterator<Item = &'l CompiledLimit>) -> Self {
        let mut fields = Self::default();
        let mut policy = String::new();
        for limit in limits {
            // The name of a limit needs no escape in a quoted text.
            let (name, comma) = (limit.name.as_str(), if policy.is_empty() { "" } else { ", " });
            let (quota, window) = (limit.rule.burst().min(INTEGER_MAX), window_seconds(&limit.rule).min(INTEGER_MAX));
            let _ = write!(policy, "{comma}\"{name}\";q={quota};w={window}");
            fields.items.push(format!("\"{name}\";r="));
        }
        fields.policy = HeaderValue::try_from(policy).ok().filter(|policy| !policy.is_empty());
        fields
    }

    /// Puts them on a response, in place of what an upstream has said. One standing for each limit; without any, the
    /// response was made before the limits were looked at, and says nothing of them.
    pub(crate) fn write(&self, headers: &mut HeaderMap, standings: &[Standing]) {
        let Some(policy) = self.policy.as_ref().filter(|_| !standings.is_empty()) else { return };
        let older: SmallVec<[HeaderName; 4]> =
            headers.keys().filter(|name| name.as_str().starts_with(OLDER)).cloned().collect();
        for name in older {
            headers.remove(name);
        }
        headers.insert(RATE_LIMIT_POLICY, policy.clone());
        let mut text: SmallVec<[u8; 128]> = SmallVec::new();
        let mut digits = itoa::Buffer::new();
        for (item, standing) in self.items.iter().zip(standings) {
            if !text.is_empty() {
                text.extend_from_slice(b", ");
            }
            text.extend_from_slice(item.as_bytes());
            text.extend_from_slice(digits.format(standing.left.min(INTEGER_MAX)).as_bytes());
            text.extend_from_slice(b";t=");
            text.extend_from_slice(digits.format(standing.seconds.min(INTEGER_MAX)).as_bytes());
        }
        match HeaderValue::from_bytes(&text) {
            Ok(value) => drop(headers.insert(RATE_LIMIT, value)),
            // Names and digits are always a value.
            Err(_) => drop(headers.remove(RATE_LIMIT)),
        }
    }
}

/// In how many seconds a limit gives as much as its burst or quota.
fn window_seconds(rule: &Rule) -> u64 {
    match rule {
        Rule::Rate(Rate { tokens, period_us, burst }) => {
            let us = u128::from(*burst) * u128::from(*period_us) / u128::from((*tokens).max(1));
            seconds(u64::try_from(us).unwrap_or(u64::MAX)).max(1)
        }
        Rule::Quota(Quota { window, .. }) => match window {
            Window::Minute => 60,
            Window::Hour => 3_600,
            Window::Day => 86_400,
            Window::Month => MONTH_SECONDS,
        },
    }
}

/// Whole seconds, rounded up.
pub(crate) const fn seconds(us: u64) -> u64 {
    us.div_ceil(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::document::{Per, Scope};
    use machine::Name;

    fn limit(name: &str, rule: Rule) -> CompiledLimit {
        let name = Name::new(name).unwrap();
        let (per, scope) = (vec![Per::Key], Scope::Cluster);
        CompiledLimit { name, revision: 1, rule, per, scope, is_enforced: true, subjects_max: None }
    }

    fn rate(tokens: u64, period_us: u64, burst: u64) -> Rule {
        Rule::Rate(Rate { tokens, period_us, burst })
    }

    fn quota(amount: u64, window: Window) -> Rule {
        Rule::Quota(Quota { amount, window })
    }

    fn written(limits: &[CompiledLimit], standings: &[Standing]) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        headers.insert("ratelimit", HeaderValue::from_static("\"theirs\";r=1"));
        headers.insert("ratelimit-remaining", HeaderValue::from_static("1"));
        Fields::of(limits.iter()).write(&mut headers, standings);
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn policies_say_how_much_in_how_long() {
        for (rule, text) in [
            (rate(100, 1_000_000, 200), "q=200;w=2"),
            (rate(1, 60_000_000, 1), "q=1;w=60"),
            (rate(1_000, 1_000_000, 1), "q=1;w=1"),
            (rate(3, 1_000_000, 10), "q=10;w=4"),
            (quota(7, Window::Minute), "q=7;w=60"),
            (quota(7, Window::Hour), "q=7;w=3600"),
            (quota(10_000, Window::Day), "q=10000;w=86400"),
            (quota(7, Window::Month), "q=7;w=2678400"),
            (quota(u64::MAX, Window::Day), "q=999999999999999;w=86400"),
        ] {
            let fields = Fields::of([limit("l.1", rule)].iter());
            assert_eq!(fields.policy.unwrap(), format!("\"l.1\";{text}"));
        }
    }

    #[test]
    fn every_limit_is_listed_and_replaces_what_the_upstream_says() {
        let limits = [limit("burst", rate(100, 1_000_000, 200)), limit("plan", quota(10_000, Window::Day))];
        let standings = [Standing { left: 150, seconds: 1 }, Standing { left: u64::MAX, seconds: 0 }];
        assert_eq!(
            written(&limits, &standings),
            [
                ("ratelimit".to_owned(), "\"burst\";r=150;t=1, \"plan\";r=999999999999999;t=0".to_owned()),
                ("ratelimit-policy".to_owned(), "\"burst\";q=200;w=2, \"plan\";q=10000;w=86400".to_owned()),
            ]
        );
    }

    #[test]
    fn without_limits_the_upstream_has_its_say() {
        assert_eq!(written(&[], &[])[0].1, "\"theirs\";r=1");
        assert_eq!(written(&[limit("burst", rate(1, 1, 1))], &[]).len(), 2);
    }
}

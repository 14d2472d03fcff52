//! The grammar of limits.

use super::{Fields, Path, Reader};
use crate::resource::{
    document::{Limit, LimitMode, Per, Scope},
    rule,
    tree::{Node, Value},
};
use http::HeaderName;
use machine::{
    cap::LIMIT_TOKENS_MAX,
    limit::{Rate, Rule},
};

/// A subject of more parts says more than anyone can read.
const PARTS_MAX: usize = 8;
/// Beyond it, one limit could fill the cluster's buckets.
const SUBJECTS_MAX: i64 = 1_000_000;
const WHAT_PER: &str = "key, consumer, route, ip or header:NAME";

impl Reader<'_> {
    pub(super) fn limit(&mut self, node: &Node, path: &Path<'_>) -> Option<Limit> {
        let known = ["rate", "burst", "quota", "per", "scope", "mode", "max_subjects"];
        let fields = self.fields(node, path, &known)?;
        let before = self.places.len();
        let rule = self.rule(&fields, node, path);
        if fields.get("per").is_none() {
            let message = format!("is missing: what it counts by: {WHAT_PER}, or a list of them");
            self.wrong(node.spot, &Path::Key(path, "per"), message);
        }
        let per = self.field(&fields, path, "per", Self::per);
        let scope = self.field(&fields, path, "scope", |reader, node, path| {
            reader.one_of(node, path, &[("cluster", Scope::Cluster), ("node", Scope::Node)])
        });
        let mode = self.field(&fields, path, "mode", |reader, node, path| {
            reader.one_of(node, path, &[("enforce", LimitMode::Enforce), ("shadow", LimitMode::Shadow)])
        });
        let max_subjects = self.field(&fields, path, "max_subjects", |reader, node, path| {
            let number = reader.integer(node, path)?;
            let number = u32::try_from(number).ok().filter(|_| (1..=SUBJECTS_MAX).contains(&number));
            if number.is_none() {
                reader.wrong(node.spot, path, format!("must be from 1 to {SUBJECTS_MAX}"));
            }
            number
        });
        if self.places.len() > before {
            return None;
        }
        let (scope, mode) = (scope.unwrap_or_default(), mode.unwrap_or_default());
        let limit = Limit { rule: rule?, per: per?, scope, mode, max_subjects };
        self.check_subjects(&limit, &fields, node, path);
        (self.places.len() == before).then_some(limit)
    }

    fn rule(&mut self, fields: &Fields<'_>, whole: &Node, path: &Path<'_>) -> Option<Rule> {
        let quota =
            self.field(fields, path, "quota", |reader, node, path| reader.written(node, path, rule::read_quota));
        let rate = self.field(fields, path, "rate", |reader, node, path| reader.written(node, path, rule::read_rate));
        let burst = self.field(fields, path, "burst", Self::burst);
        let spot_of = |key: &str| fields.get(key).map(|node| node.spot);
        match (spot_of("rate"), spot_of("quota"), spot_of("burst")) {
            (None, None, _) => {
                self.wrong(whole.spot, path, "says neither rate (rate: 100/s) nor quota (quota: 10000/day)");
                None
            }
            (Some(_), Some(spot), _) => {
                let message = "stands beside a rate: make two limits, and name both on the route";
                self.wrong(spot, &Path::Key(path, "quota"), message);
                None
            }
            (None, Some(_), Some(spot)) => {
                let message = "belongs to a rate: of a quota, any part may be used at once";
                self.wrong(spot, &Path::Key(path, "burst"), message);
                None
            }
            (None, Some(_), None) => quota.map(Rule::Quota),
            (Some(_), None, spot) => {
                let (tokens, period_us) = rate?;
                let burst = if spot.is_some() { burst? } else { rule::default_burst(tokens, period_us) };
                Some(Rule::Rate(Rate { tokens, period_us, burst }))
            }
        }
    }

    /// A number with its unit. A number alone deserves to be told which units there are.
    fn written<T>(&mut self, node: &Node, path: &Path<'_>, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = match &node.value {
            Value::Integer(number) => number.to_string(),
            Value::Number(number) => number.clone(),
            _ => return self.parsed(node, path, read),
        };
        let Err(message) = read(&text) else { return None };
        self.wrong(node.spot, path, message);
        None
    }

    fn burst(&mut self, node: &Node, path: &Path<'_>) -> Option<u64> {
        let burst = self.integer(node, path)?;
        let burst = u64::try_from(burst).ok().filter(|burst| (1..=LIMIT_TOKENS_MAX).contains(burst));
        if burst.is_none() {
            self.wrong(node.spot, path, format!("must be from 1 to {LIMIT_TOKENS_MAX}"));
        }
        burst
    }

    /// One thing, or a list of them.
    fn per(&mut self, node: &Node, path: &Path<'_>) -> Option<Vec<Per>> {
        let part = |reader: &mut Self, node: &Node, path: &Path<'_>| reader.parsed(node, path, part);
        if !matches!(node.value, Value::List(_)) {
            return part(self, node, path).map(|only| vec![only]);
        }
        let parts = self.list(node, path, part)?;
        if parts.is_empty() {
            self.wrong(node.spot, path, format!("the list is empty: name {WHAT_PER}"));
        }
        if parts.len() > PARTS_MAX {
            self.wrong(node.spot, path, format!("{} are too many: the most is {PARTS_MAX}", parts.len()));
        }
        self.without_doubles(node, path, &parts, ToString::to_string);
        Some(parts)
    }

    /// Clients can make up as many addresses and header values as they like, and the cluster remembers each.
    fn check_subjects(&mut self, limit: &Limit, fields: &Fields<'_>, node: &Node, path: &Path<'_>) {
        let unbounded = limit.per.iter().find(|part| part.is_unbounded());
        let path = Path::Key(path, "max_subjects");
        match (unbounded, limit.max_subjects, limit.scope) {
            (Some(part), None, Scope::Cluster) => {
                let message = format!(
                    "is missing: `per: {part}` has no end of subjects, so say how many get a bucket of their own \
                     (1 to {SUBJECTS_MAX}; the others share one), or count on each node by itself with scope: node"
                );
                self.wrong(node.spot, &path, message);
            }
            (None, Some(_), Scope::Cluster) => {
                let spot = fields.get("max_subjects").map_or(node.spot, |node| node.spot);
                let message = "is for ip and header: there are as many keys, consumers and routes as you have made";
                self.wrong(spot, &path, message);
            }
            _ => {}
        }
    }
}

fn part(text: &str) -> Result<Per, String> {
    match text {
        "key" => return Ok(Per::Key),
        "consumer" => return Ok(Per::Consumer),
        "route" => return Ok(Per::Route),
        "ip" => return Ok(Per::Ip),
        _ => {}
    }
    if let Some(name) = text.strip_prefix("header:") {
        return HeaderName::from_bytes(name.as_bytes())
            .map(Per::Header)
            .map_err(|_| format!("{name:?} is not the name of a header: write header:X-Tenant"));
    }
    if text.starts_with("claim:") {
        return Err(format!("{text}: tokens are not available in this release yet: count by {WHAT_PER}"));
    }
    Err(format!("{text:?} is nothing that a limit counts by: there are {WHAT_PER}"))
}

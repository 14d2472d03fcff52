//! The typed form of every resource. The stored form is its JSON, which says the same as a resource file would; fields
//! at their default are left out, so that two spellings of one meaning are one document.

use super::{
    pattern::{HostPattern, PathPattern},
    quantity::Span,
    rule,
};
use http::HeaderName;
use machine::{Name, consumer::ConsumerSpec, limit::Rule};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_saphyr::FlowSeq;
use std::{collections::BTreeMap, fmt, sync::Arc};

/// What routes inherit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Defaults {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) when_isolated: Option<WhenIsolated>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) on_revoke: Option<OnRevoke>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) body_bytes_max: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) response_timeout: Option<Span>,
    /// How long a request may wait for its share of a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) allowance_wait: Option<Span>,
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Upstream {
    #[serde(serialize_with = "as_texts")]
    pub(crate) targets: Vec<Target>,
    /// PEM certificates that the targets' certificates must chain to; without it, the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<String>,
    /// The name that the targets' certificates must carry; without it, the host of the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_name: Option<String>,
    #[serde(skip_serializing_if = "HostHeader::is_default")]
    pub(crate) host: HostHeader,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connect_timeout: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) response_timeout: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idle_timeout: Option<Span>,
    /// Open connections of one worker to one target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connections_max: Option<u32>,
}

/// One server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) tls: bool,
    /// A name or address; an IPv6 address stands in brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// Which `Host` the upstream sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HostHeader {
    /// The client's.
    #[default]
    Preserve,
    /// The target's.
    Target,
}

/// Which requests go where, and who may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Route {
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_texts")]
    pub(crate) hosts: Vec<HostPattern>,
    #[serde(serialize_with = "as_texts")]
    pub(crate) paths: Vec<PathPattern>,
    /// None for any.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_texts")]
    pub(crate) methods: Vec<http::Method>,
    pub(crate) upstream: Name,
    #[serde(skip_serializing_if = "Authenticate::is_default")]
    pub(crate) authenticate: Authenticate,
    #[serde(skip_serializing_if = "PolicyMode::is_default")]
    pub(crate) policies: PolicyMode,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) attributes: BTreeMap<Name, String>,
    /// All of them must admit a request.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_texts")]
    pub(crate) limits: Vec<Name>,
    /// What one request takes of each limit.
    #[serde(skip_serializing_if = "is_one")]
    pub(crate) cost: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) when_isolated: Option<WhenIsolated>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) on_revoke: Option<OnRevoke>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) body_bytes_max: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) response_timeout: Option<Span>,
}

/// How callers are identified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Authenticate {
    #[default]
    ApiKey,
    /// The route is open.
    Nobody,
}

/// Whether policies decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PolicyMode {
    #[default]
    On,
    /// Whoever is identified may.
    Off,
}

/// What an isolated node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WhenIsolated {
    Deny,
    Serve,
}

/// What a revocation does to requests in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnRevoke {
    /// They end at once.
    Cut,
    /// They go on to their end.
    Finish,
}

/// How often requests may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) rule: Rule,
    /// Each combination of these has a bucket of its own; at least one.
    pub(crate) per: Vec<Per>,
    pub(crate) scope: Scope,
    pub(crate) mode: LimitMode,
    /// Subjects with a bucket of their own: what overflows shares one.
    pub(crate) max_subjects: Option<u32>,
}

/// What a limit counts by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Per {
    Key,
    Consumer,
    Route,
    /// The client's address.
    Ip,
    /// The value of a header of the request.
    Header(HeaderName),
}

/// Where a limit counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scope {
    /// Over all nodes together.
    #[default]
    Cluster,
    /// On each node by itself.
    Node,
}

/// What a limit does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LimitMode {
    #[default]
    Enforce,
    /// It counts and never refuses.
    Shadow,
}

/// One resource of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    Defaults(Defaults),
    Upstream(Upstream),
    Consumer(ConsumerSpec),
    Limit(Limit),
    Route(Route),
    /// The text of a policy.
    Policy(Arc<str>),
}

impl Resource {
    /// Canonical JSON.
    pub(crate) fn json(&self) -> String {
        let json = match self {
            Self::Defaults(defaults) => serde_json::to_string(defaults),
            Self::Upstream(upstream) => serde_json::to_string(upstream),
            Self::Consumer(spec) => serde_json::to_string(&ConsumerDocument(spec)),
            Self::Limit(limit) => serde_json::to_string(limit),
            Self::Route(route) => serde_json::to_string(route),
            Self::Policy(text) => serde_json::to_string(text),
        };
        // Text, numbers, lists and maps with text keys: there is nothing that JSON could not say.
        json.unwrap_or_default()
    }
}

/// A consumer as a resource file says it: roles, and every other field is an attribute.
pub(crate) struct ConsumerDocument<'a>(pub(crate) &'a ConsumerSpec);

impl Serialize for ConsumerDocument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.0.roles.is_empty() {
            map.serialize_entry("roles", &FlowSeq(&self.0.roles))?;
        }
        for (name, value) in &self.0.attributes {
            map.serialize_entry(name.as_str(), value)?;
        }
        map.end()
    }
}

impl Target {
    /// As `Host` and `:authority` say it: without the scheme's own port.
    pub(crate) fn authority(&self) -> String {
        if self.port == if self.tls { 443 } else { 80 } {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a target: write http://host:port or https://host:port");
        let uri: http::Uri = text.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') {
            return Err("a target holds no user or password".to_owned());
        }
        if uri.query().is_some() || !matches!(uri.path(), "" | "/") || text.contains('#') {
            return Err(format!(
                "{text:?}: a target has no path, because the path that is routed is the path forwarded"
            ));
        }
        let host = HostPattern::new(authority.host()).map_err(|_| wrong())?;
        let port = match authority.as_str().get(authority.host().len()..) {
            None | Some("") => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(rest) => {
                let port: Option<u16> = rest.strip_prefix(':').and_then(|digits| digits.parse().ok());
                port.filter(|port| *port > 0).ok_or_else(wrong)?
            }
        };
        match host {
            HostPattern::Exact(host) => Ok(Self { tls, host, port }),
            HostPattern::Below(_) => Err(wrong()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &self.rule {
            Rule::Rate(rate) => {
                map.serialize_entry("rate", &rule::rate_text(rate))?;
                if rate.burst != rule::default_burst(rate.tokens, rate.period_us) {
                    map.serialize_entry("burst", &rate.burst)?;
                }
            }
            Rule::Quota(quota) => map.serialize_entry("quota", &rule::quota_text(quota))?,
        }
        match self.per.as_slice() {
            [only] => map.serialize_entry("per", &only.to_string())?,
            several => {
                let texts: Vec<String> = several.iter().map(ToString::to_string).collect();
                map.serialize_entry("per", &FlowSeq(texts))?;
            }
        }
        if self.scope != Scope::default() {
            map.serialize_entry("scope", &self.scope)?;
        }
        if self.mode != LimitMode::default() {
            map.serialize_entry("mode", &self.mode)?;
        }
        if let Some(max_subjects) = self.max_subjects {
            map.serialize_entry("max_subjects", &max_subjects)?;
        }
        map.end()
    }
}

impl Limit {
    /// `100/s, burst 200` or `10000/day`.
    pub(crate) fn rule_text(&self) -> String {
        match &self.rule {
            Rule::Rate(rate) => format!("{}, burst {}", rule::rate_text(rate), rate.burst),
            Rule::Quota(quota) => rule::quota_text(quota),
        }
    }

    /// `consumer,route`.
    pub(crate) fn per_text(&self) -> String {
        let parts: Vec<String> = self.per.iter().map(ToString::to_string).collect();
        parts.join(",")
    }
}

impl Scope {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Node => "node",
        }
    }
}

impl LimitMode {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
        }
    }
}

impl Per {
    /// Whether only an identified caller has it.
    pub(crate) const fn needs_caller(&self) -> bool {
        matches!(self, Self::Key | Self::Consumer)
    }

    /// Whether clients choose it, so that there is no end to how many there are.
    pub(crate) const fn is_unbounded(&self) -> bool {
        matches!(self, Self::Ip | Self::Header(_))
    }
}

impl fmt::Display for Per {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key => f.write_str("key"),
            Self::Consumer => f.write_str("consumer"),
            Self::Route => f.write_str("route"),
            Self::Ip => f.write_str("ip"),
            Self::Header(name) => write!(f, "header:{name}"),
        }
    }
}

impl HostHeader {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl PolicyMode {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Authenticate {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Serialize for Authenticate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let method = match self {
            Self::ApiKey => "api_key",
            Self::Nobody => "none",
        };
        FlowSeq([method]).serialize(serializer)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_one(cost: &u64) -> bool {
    *cost == 1
}

/// On one line where the form is YAML.
fn as_texts<S: Serializer, T: fmt::Display>(items: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    FlowSeq(items.iter().map(ToString::to_string).collect::<Vec<String>>()).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        for (text, canonical) in [
            ("http://a", "http://a"),
            ("HTTP://A:80/", "http://a"),
            ("https://10.0.0.5:8443", "https://10.0.0.5:8443"),
            ("https://[::1]:443", "https://[::1]"),
            ("http://[fe80::1]:8080", "http://[fe80::1]:8080"),
        ] {
            assert_eq!(Target::read(text).unwrap().to_string(), canonical);
        }
        for text in [
            "",
            "a:80",
            "ftp://a",
            "http://",
            "http://u:p@a",
            "http://a/x",
            "http://a?x",
            "http://a#x",
            "http://a:0",
            "http://a:",
            "http://a:70000",
            "http://*.a",
            "http://a b",
            "unix:/x",
            "http:///x",
        ] {
            assert!(Target::read(text).is_err(), "{text}");
        }
    }
}

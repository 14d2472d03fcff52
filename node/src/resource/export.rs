//! From what the cluster holds to the text of a resource file. Applying the text changes nothing, which a test watches
//! over generated registries.

use super::{
    Described, Noun,
    document::{ConsumerDocument, Defaults, Limit, Resource, Route, Upstream},
    whole,
};
use machine::{Name, Registry, consumer::ConsumerSpec, resource::Kind};
use serde::Serialize;
use serde_saphyr::LitStr;
use std::collections::BTreeMap;

/// The sections of a file, in the order in which they depend on one another.
#[derive(Default, Serialize)]
struct Sections<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    defaults: Option<&'a Defaults>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    upstreams: BTreeMap<&'a Name, &'a Upstream>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    consumers: BTreeMap<&'a Name, ConsumerDocument<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    limits: BTreeMap<&'a Name, &'a Limit>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    routes: BTreeMap<&'a Name, &'a Route>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    policies: BTreeMap<&'a Name, LitStr<'a>>,
}

/// Everything that a resource file can say of what the cluster holds, as YAML. Applying it changes nothing.
#[must_use]
pub fn export(registry: &Registry) -> String {
    let consumers: Vec<(&Name, Resource)> = registry
        .consumers
        .iter()
        .map(|(name, consumer)| {
            let spec = ConsumerSpec { roles: consumer.roles.clone(), attributes: consumer.attributes.clone() };
            (name, Resource::Consumer(spec))
        })
        .collect();
    let whole = whole::Whole::of(registry);
    let mut sections = Sections::default();
    let mut unreadable = String::new();
    for (name, consumer) in &consumers {
        sections.add(name, consumer);
    }
    for ((kind, name), resource) in &whole.documents {
        match resource {
            Ok(resource) => sections.add(name, resource),
            Err(_) => {
                unreadable.push_str(&format!("# {kind} {name:?} was written by a newer release and is left out\n"))
            }
        }
    }
    unreadable + &sections.yaml()
}

/// One resource as it stands in a file.
pub(crate) fn one(noun: Noun, name: &Name, resource: &Resource) -> String {
    let mut sections = Sections::default();
    sections.add(name, resource);
    let text = sections.yaml();
    // The name of the section says nothing in a list that says the kind.
    match (noun, text.split_once('\n')) {
        (Noun::Document(Kind::Defaults), _) | (_, None) => text,
        (_, Some((_, rest))) => {
            rest.lines().fold(String::new(), |text, line| text + line.strip_prefix("  ").unwrap_or(line) + "\n")
        }
    }
}

/// One resource as canonical JSON.
#[must_use]
pub fn document_json(registry: &Registry, noun: Noun, name: &str) -> Option<Described> {
    let name = Name::new(name).ok()?;
    match noun {
        Noun::Consumer => registry.consumers.get(&name).map(|consumer| {
            let spec = ConsumerSpec { roles: consumer.roles.clone(), attributes: consumer.attributes.clone() };
            Described { json: Resource::Consumer(spec).json(), revision: consumer.revision }
        }),
        Noun::Document(kind) => registry.documents.get(&(kind, name)).map(|document| Described {
            json: String::from_utf8_lossy(&document.bytes).into_owned(),
            revision: document.revision,
        }),
    }
}

impl<'a> Sections<'a> {
    fn add(&mut self, name: &'a Name, resource: &'a Resource) {
        match resource {
            Resource::Defaults(defaults) => self.defaults = Some(defaults),
            Resource::Upstream(upstream) => drop(self.upstreams.insert(name, upstream)),
            Resource::Consumer(spec) => drop(self.consumers.insert(name, ConsumerDocument(spec))),
            Resource::Limit(limit) => drop(self.limits.insert(name, limit)),
            Resource::Route(route) => drop(self.routes.insert(name, route)),
            Resource::Policy(text) => drop(self.policies.insert(name, LitStr(text))),
        }
    }

    fn yaml(&self) -> String {
        let options = serde_saphyr::ser_options! { min_fold_chars: 0 };
        serde_saphyr::to_string_with_options(self, options).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{
        document::{Authenticate, HostHeader, LimitMode, OnRevoke, Per, PolicyMode, Scope, Target, WhenIsolated},
        parse::parse,
        pattern::{HostPattern, PathPattern},
        plan::plan,
        quantity::Span,
        rule,
    };
    use machine::{
        consumer::Consumer,
        limit::{Quota, Rate, Rule, Window},
        resource::Document,
    };
    use proptest::{
        collection::{btree_map, btree_set, vec},
        option,
        prelude::*,
    };
    use std::sync::Arc;

    fn name() -> impl Strategy<Value = Name> {
        // Words that YAML would like to read as something else.
        prop_oneof![
            "[a-z0-9][a-zA-Z0-9._-]{0,8}",
            Just("null".into()),
            Just("true".into()),
            Just("off".into()),
            Just("007".into()),
            Just("1e3".into()),
            Just("0x1F".into()),
            Just("1_000".into()),
            Just("2024-01-01".into())
        ]
        .prop_map(|text: String| Name::new(&text).unwrap())
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ -~]{0,12}",
            "[ \\t\\n\\r:#'\"\\\\{}\\[\\]&*!|>%@`,?-]{0,10}",
            "\\PC{0,8}",
            Just("null".into()),
            Just("~".into()),
            Just("yes".into()),
            Just("12".into()),
            Just("-----BEGIN X-----\nabc\n-----END X-----\n".into()),
            Just(" leading\n  and more\n\n".into()),
            Just("\u{0}\u{1}\u{85}\u{a0}\u{2028}\u{feff}".into()),
        ]
    }

    fn attributes() -> impl Strategy<Value = std::collections::BTreeMap<Name, String>> {
        btree_map(name().prop_filter("reserved", |name| name.as_str() != "roles"), text(), 0..4)
    }

    fn upstream() -> impl Strategy<Value = Upstream> {
        let target = (any::<bool>(), "[a-z]{1,5}|\\[::1\\]", 1..=u16::MAX).prop_map(|(tls, host, port)| Target {
            tls,
            host,
            port,
        });
        (
            vec(target, 1..4),
            option::of("[a-z]{1,5}"),
            any::<bool>(),
            option::of(1..10_000_u64),
            option::of(1..65_536_u32),
        )
            .prop_map(|(targets, server_name, preserve, timeout, connections_max)| Upstream {
                targets,
                ca: None,
                server_name,
                host: if preserve { HostHeader::Preserve } else { HostHeader::Target },
                connect_timeout: timeout.map(Span::from_ms),
                response_timeout: timeout.map(|ms| Span::from_ms(ms * 100)),
                idle_timeout: None,
                connections_max,
            })
    }

    fn route(index: usize, upstream: Name, limits: Vec<Name>) -> impl Strategy<Value = Route> {
        (
            vec("[a-z]{1,5}(\\.[a-z]{1,3})?|\\*\\.[a-z]{1,3}", 0..3),
            any::<[bool; 4]>(),
            attributes(),
            option::of(0..1_000_000_u64),
        )
            .prop_map(move |(hosts, bits, attributes, body_bytes_max)| Route {
                hosts: hosts
                    .iter()
                    .map(|host| HostPattern::new(host).unwrap())
                    .collect::<std::collections::BTreeSet<_>>()
                    .into_iter()
                    .collect(),
                paths: vec![
                    PathPattern::new(&format!("/r{index}/{{id}}")).unwrap(),
                    PathPattern::new(&format!("/r{index}/{{*rest}}")).unwrap(),
                ],
                methods: if bits[0] { vec!["GET".parse().unwrap(), "M-SEARCH".parse().unwrap()] } else { Vec::new() },
                upstream: upstream.clone(),
                authenticate: if bits[1] { Authenticate::Nobody } else { Authenticate::ApiKey },
                policies: if bits[2] { PolicyMode::Off } else { PolicyMode::On },
                attributes,
                limits: limits.clone(),
                cost: body_bytes_max.map_or(1, |bytes| bytes % 5 + 1),
                when_isolated: bits[3].then_some(WhenIsolated::Serve),
                on_revoke: bits[3].then_some(OnRevoke::Finish),
                body_bytes_max,
                response_timeout: body_bytes_max.map(|ms| Span::from_ms(ms + 1)),
            })
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let rate = (5..1_000_000_u64, prop::sample::select(vec![1_u64, 60, 3_600, 86_400]), option::of(5..1_000_u64))
            .prop_map(|(tokens, seconds, burst)| {
                let period_us = seconds * 1_000_000;
                let burst = burst.unwrap_or_else(|| rule::default_burst(tokens, period_us).max(5));
                Rule::Rate(Rate { tokens, period_us, burst })
            });
        let windows = vec![Window::Minute, Window::Hour, Window::Day, Window::Month];
        let quota = (5..1_000_000_u64, prop::sample::select(windows))
            .prop_map(|(amount, window)| Rule::Quota(Quota { amount, window }));
        prop_oneof![rate, quota]
    }

    fn limit() -> impl Strategy<Value = Limit> {
        let per =
            vec![Per::Route, Per::Ip, Per::Header("x-tenant".parse().unwrap()), Per::Header("off".parse().unwrap())];
        (rule(), prop::sample::subsequence(per, 1..=4).prop_shuffle(), any::<[bool; 2]>(), option::of(1..1_000_000_u32))
            .prop_map(|(rule, per, bits, most)| {
                let scope = if bits[0] { Scope::Cluster } else { Scope::Node };
                let unbounded = per.iter().any(Per::is_unbounded);
                let needed = unbounded && scope == Scope::Cluster;
                Limit {
                    rule,
                    per,
                    scope,
                    mode: if bits[1] { LimitMode::Enforce } else { LimitMode::Shadow },
                    max_subjects: if needed { Some(most.unwrap_or(1)) } else { most.filter(|_| unbounded) },
                }
            })
    }

    fn policy() -> impl Strategy<Value = String> {
        ("[ \\n\\t]{0,3}", "\\PC{0,8}", "[ \\n]{0,3}", "\\PC{0,6}").prop_map(|(before, comment, between, value)| {
            format!("{before}// {comment}\npermit(principal,{between}action, resource) when {{ principal.a == {value:?} }};")
        }).prop_filter("cedar reads it", |text| crate::resource::policy::Policy::read(&Name::new("p").unwrap(), text).is_ok())
    }

    fn registry() -> impl Strategy<Value = Registry> {
        (
            (btree_map(name(), upstream(), 1..3), btree_map(name(), limit(), 0..4)),
            btree_map(name(), (btree_set(name(), 0..3), attributes()), 0..3),
            btree_set(name(), 0..3),
            btree_map(name(), policy(), 0..3),
            option::of(0..100_u64),
        )
            .prop_flat_map(|((upstreams, limits), consumers, routes, policies, body_bytes_max)| {
                let upstream = upstreams.keys().next().unwrap().clone();
                let named: Vec<Name> = limits.keys().cloned().collect();
                let routes: Vec<_> = routes
                    .into_iter()
                    .enumerate()
                    .map(|(index, name)| (Just(name), route(index, upstream.clone(), named.clone())))
                    .collect();
                (Just((upstreams, limits, consumers, policies, body_bytes_max)), routes)
            })
            .prop_map(|((upstreams, limits, consumers, policies, body_bytes_max), routes)| {
                let mut registry = Registry::default();
                let mut put = |kind, name: Name, resource: Resource| {
                    let bytes = resource.json().into_bytes().into();
                    registry.documents.insert((kind, name), Document { bytes, revision: 1 });
                };
                if body_bytes_max.is_some() {
                    let defaults = Defaults {
                        body_bytes_max,
                        allowance_wait: body_bytes_max.map(|ms| Span::from_ms(ms * 100)),
                        ..Defaults::default()
                    };
                    put(Kind::Defaults, Name::new("defaults").unwrap(), Resource::Defaults(defaults));
                }
                for (name, upstream) in upstreams {
                    put(Kind::Upstream, name, Resource::Upstream(upstream));
                }
                for (name, limit) in limits {
                    put(Kind::Limit, name, Resource::Limit(limit));
                }
                for (name, route) in routes {
                    put(Kind::Route, name, Resource::Route(route));
                }
                for (name, text) in policies {
                    put(Kind::Policy, name, Resource::Policy(text.into()));
                }
                for (name, (roles, attributes)) in consumers {
                    let consumer = Consumer { name: name.clone(), roles, attributes, enabled: false, revision: 1 };
                    registry.consumers.insert(name, Arc::new(consumer));
                }
                registry
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
        #[test]
        fn applying_an_export_changes_nothing(registry in registry()) {
            let text = export(&registry);
            let file = parse("export", &text).map_err(|places| TestCaseError::fail(format!("{places:?}\n{text}")))?;
            for prune in [false, true] {
                let plan = plan(&registry, &file, prune).map_err(|places| TestCaseError::fail(format!("{places:?}\n{text}")))?;
                prop_assert!(plan.changes.is_empty(), "{:?}\n{}", plan.listing, text);
            }
        }

        #[test]
        fn a_stored_document_is_read_as_it_was_written(registry in registry()) {
            for ((kind, name), document) in &registry.documents {
                let resource = whole::stored(*kind, name, document);
                prop_assert!(resource.is_ok(), "{resource:?}");
                let json = resource.unwrap().json();
                prop_assert_eq!(json.as_bytes(), &*document.bytes);
            }
        }
    }
}

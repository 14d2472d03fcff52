//! The grammar of resources: which fields there are and what each may hold. One for resource files and for stored
//! documents, so that a document that a newer release wrote is refused by the field this release does not know.
//! References between resources are not followed here.

use super::{Fields, POLICY_TEXT, Path, Reader};
use crate::resource::{
    Noun,
    document::{
        Authenticate, Defaults, HostHeader, OnRevoke, PolicyMode, Resource, Route, Target, Upstream, WhenIsolated,
    },
    pattern::{HostPattern, PathPattern},
    quantity::Span,
    tree::{Entry, Node, Spot, Value},
};
use machine::{Name, cap, consumer::ConsumerSpec, resource::Kind};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Limits of one route: a request is admitted by all or none, in one entry of the log.
const ROUTE_LIMITS_MAX: usize = cap::PARTS_PER_WANT_MAX;
/// What one request may cost: a mistake beyond it.
const COST_MAX: i64 = 1_000_000;
/// A request that waits longer for its share of a limit is better refused.
const ALLOWANCE_WAIT_MAX: Span = Span::from_ms(10_000);

impl Reader<'_> {
    /// The whole file.
    pub(crate) fn file(&mut self, root: &Node) -> Vec<(Noun, Name, Resource)> {
        let mut resources = Vec::new();
        let sections = std::iter::once(Noun::Consumer).chain(Kind::ALL.map(Noun::Document));
        let known: Vec<&str> = sections.clone().map(Noun::section).collect();
        let Some(fields) = self.fields(root, &Path::Root, &known) else { return resources };
        for noun in sections {
            let Some(node) = fields.get(noun.section()) else { continue };
            let path = Path::Key(&Path::Root, noun.section());
            self.note(node.spot, &path);
            match noun {
                Noun::Document(Kind::Defaults) => {
                    if let (Some(defaults), Ok(name)) = (self.defaults(node, &path), Name::new("defaults")) {
                        resources.push((noun, name, Resource::Defaults(defaults)));
                    }
                }
                _ => self.section(noun, node, &path, &mut resources),
            }
        }
        resources
    }

    fn section(&mut self, noun: Noun, node: &Node, path: &Path<'_>, resources: &mut Vec<(Noun, Name, Resource)>) {
        let Some(entries) = self.entries(node, path) else { return };
        for entry in entries {
            let path = Path::Key(path, &entry.key);
            self.note(entry.key_spot, &path);
            let Ok(name) = Name::new(&entry.key) else {
                self.wrong(entry.key_spot, &path, machine::name::InvalidName.to_string());
                continue;
            };
            if let Some(resource) = self.resource(noun, &entry.value, entry.key_spot, &path) {
                resources.push((noun, name, resource));
            }
        }
    }

    /// One resource: of a file, or a stored document.
    pub(crate) fn resource(&mut self, noun: Noun, node: &Node, key: Spot, path: &Path<'_>) -> Option<Resource> {
        match noun {
            Noun::Consumer => self.consumer(node, path).map(Resource::Consumer),
            Noun::Document(Kind::Defaults) => self.defaults(node, path).map(Resource::Defaults),
            Noun::Document(Kind::Upstream) => self.upstream(node, path).map(Resource::Upstream),
            Noun::Document(Kind::Route) => self.route(node, path).map(Resource::Route),
            Noun::Document(Kind::Policy) => {
                let text = self.text(node, path)?;
                // A policy's mistakes have places inside its text.
                self.note(node.spot, &Path::Key(path, POLICY_TEXT));
                // `|` and `|-` are one policy.
                Some(Resource::Policy(Arc::from(text.trim_end())))
            }
            Noun::Document(Kind::Limit) => self.limit(node, path).map(Resource::Limit),
            Noun::Document(Kind::Issuer) => {
                self.wrong(key, path, "token issuers are not available in this release yet");
                None
            }
        }
    }

    fn defaults(&mut self, node: &Node, path: &Path<'_>) -> Option<Defaults> {
        let known = ["when_isolated", "body_bytes_max", "response_timeout", "allowance_wait", "on_revoke"];
        let fields = self.fields(node, path, &known)?;
        let before = self.places.len();
        let defaults = Defaults {
            when_isolated: self.when_isolated(&fields, path),
            on_revoke: self.on_revoke(&fields, path),
            body_bytes_max: self.field(&fields, path, "body_bytes_max", Self::bytes),
            response_timeout: self.field(&fields, path, "response_timeout", Self::timeout),
            allowance_wait: self.field(&fields, path, "allowance_wait", |reader, node, path| {
                reader.parsed(node, path, |text| {
                    let span = Span::read(text)?;
                    let fits = span <= ALLOWANCE_WAIT_MAX;
                    if fits { Ok(span) } else { Err(format!("must be from 0ms to {ALLOWANCE_WAIT_MAX}")) }
                })
            }),
        };
        (self.places.len() == before).then_some(defaults)
    }

    fn upstream(&mut self, node: &Node, path: &Path<'_>) -> Option<Upstream> {
        let known = [
            "targets",
            "ca",
            "server_name",
            "host",
            "connect_timeout",
            "response_timeout",
            "idle_timeout",
            "connections_max",
        ];
        let fields = self.fields(node, path, &known)?;
        let before = self.places.len();
        let targets = self.required(&fields, node, path, "targets", |reader, node, path| {
            reader.list(node, path, |reader, node, path| reader.parsed(node, path, Target::read))
        });
        let upstream = Upstream {
            targets: targets.unwrap_or_default(),
            ca: self.field(&fields, path, "ca", Self::certificates),
            server_name: self.field(&fields, path, "server_name", |reader, node, path| {
                reader.parsed(node, path, |text| {
                    rustls_pki_types::ServerName::try_from(text)
                        .map(|_| text.to_owned())
                        .map_err(|_| format!("{text:?} is not the name of a server"))
                })
            }),
            host: self
                .field(&fields, path, "host", |reader, node, path| {
                    reader.one_of(node, path, &[("preserve", HostHeader::Preserve), ("target", HostHeader::Target)])
                })
                .unwrap_or_default(),
            connect_timeout: self.field(&fields, path, "connect_timeout", Self::timeout),
            response_timeout: self.field(&fields, path, "response_timeout", Self::timeout),
            idle_timeout: self.field(&fields, path, "idle_timeout", Self::timeout),
            connections_max: self.field(&fields, path, "connections_max", |reader, node, path| {
                let number = reader.integer(node, path)?;
                let number = u32::try_from(number).ok().filter(|number| (1..=65_536).contains(number));
                if number.is_none() {
                    reader.wrong(node.spot, path, "must be from 1 to 65536");
                }
                number
            }),
        };
        if upstream.targets.is_empty() && fields.get("targets").is_some() && self.places.len() == before {
            self.wrong(node.spot, &Path::Key(path, "targets"), "there is no target");
        }
        (self.places.len() == before).then_some(upstream)
    }

    fn consumer(&mut self, node: &Node, path: &Path<'_>) -> Option<ConsumerSpec> {
        let before = self.places.len();
        let mut spec = ConsumerSpec { roles: BTreeSet::new(), attributes: BTreeMap::new() };
        for entry in self.entries(node, path)? {
            let path = Path::Key(path, &entry.key);
            self.note(entry.key_spot, &path);
            if entry.key == "roles" {
                let roles = self.list(&entry.value, &path, Self::name).unwrap_or_default();
                let count = roles.len();
                spec.roles = roles.into_iter().collect();
                if spec.roles.len() < count {
                    self.wrong(entry.value.spot, &path, "a role is there twice");
                }
            } else if let Some((name, value)) = self.attribute(entry, &path) {
                spec.attributes.insert(name, value);
            }
        }
        for (what, count) in [("roles", spec.roles.len()), ("attributes", spec.attributes.len())] {
            if count > cap::LABELS_MAX {
                self.wrong(node.spot, path, format!("{count} {what} are too many: the most is {}", cap::LABELS_MAX));
            }
        }
        (self.places.len() == before).then_some(spec)
    }

    fn route(&mut self, node: &Node, path: &Path<'_>) -> Option<Route> {
        let known = [
            "hosts",
            "paths",
            "methods",
            "upstream",
            "authenticate",
            "policies",
            "attributes",
            "when_isolated",
            "on_revoke",
            "body_bytes_max",
            "response_timeout",
            "limits",
            "cost",
            "priority",
        ];
        let fields = self.fields(node, path, &known)?;
        let before = self.places.len();
        self.not_yet(&fields, path, "priority", "priorities are not available in this release yet");
        let hosts = self.field(&fields, path, "hosts", |reader, node, path| {
            reader.list(node, path, |reader, node, path| reader.parsed(node, path, HostPattern::new))
        });
        let paths = self.required(&fields, node, path, "paths", |reader, node, path| {
            reader.list(node, path, |reader, node, path| reader.parsed(node, path, PathPattern::new))
        });
        let methods = self.field(&fields, path, "methods", |reader, node, path| {
            reader.list(node, path, |reader, node, path| reader.parsed(node, path, method))
        });
        for (key, empty) in [
            ("hosts", hosts.as_ref().is_some_and(Vec::is_empty)),
            ("paths", paths.as_ref().is_some_and(Vec::is_empty)),
            ("methods", methods.as_ref().is_some_and(Vec::is_empty)),
        ] {
            if empty && self.places.len() == before {
                let spot = fields.get(key).map_or(node.spot, |node| node.spot);
                self.wrong(spot, &Path::Key(path, key), "the list is empty, so no request would ever come here");
            }
        }
        let upstream = self.required(&fields, node, path, "upstream", Self::name);
        let route = Route {
            hosts: hosts.unwrap_or_default(),
            paths: paths.unwrap_or_default(),
            methods: methods.unwrap_or_default(),
            authenticate: self.field(&fields, path, "authenticate", Self::authenticate).unwrap_or_default(),
            policies: self.field(&fields, path, "policies", Self::policy_mode).unwrap_or_default(),
            attributes: self.field(&fields, path, "attributes", Self::attributes).unwrap_or_default(),
            limits: self.field(&fields, path, "limits", Self::route_limits).unwrap_or_default(),
            cost: self.field(&fields, path, "cost", Self::cost).unwrap_or(1),
            when_isolated: self.when_isolated(&fields, path),
            on_revoke: self.on_revoke(&fields, path),
            body_bytes_max: self.field(&fields, path, "body_bytes_max", Self::bytes),
            response_timeout: self.field(&fields, path, "response_timeout", Self::timeout),
            upstream: upstream?,
        };
        (self.places.len() == before).then_some(route)
    }

    fn authenticate(&mut self, node: &Node, path: &Path<'_>) -> Option<Authenticate> {
        let methods = self.list(node, path, |reader, node, path| match reader.text(node, path)? {
            "api_key" => Some(Authenticate::ApiKey),
            "none" => Some(Authenticate::Nobody),
            other @ ("jwt" | "mtls" | "basic" | "hmac" | "introspection") => {
                reader.wrong(
                    node.spot,
                    path,
                    format!("{other} is not available in this release yet: use api_key or none"),
                );
                None
            }
            other => {
                reader.wrong(node.spot, path, format!("there is no method {other:?}: use api_key or none"));
                None
            }
        })?;
        match methods.as_slice() {
            [one] => Some(*one),
            [] => {
                self.wrong(node.spot, path, "name a method, or [none] for an open route");
                None
            }
            _ => {
                self.wrong(node.spot, path, "'none' stands alone, and no method stands twice");
                None
            }
        }
    }

    fn policy_mode(&mut self, node: &Node, path: &Path<'_>) -> Option<PolicyMode> {
        // YAML 1.1 reads `off` as false, YAML 1.2 as text.
        match &node.value {
            Value::Bool(false) => Some(PolicyMode::Off),
            Value::Bool(true) => Some(PolicyMode::On),
            Value::Text(text) if text == "off" => Some(PolicyMode::Off),
            Value::Text(text) if text == "on" => Some(PolicyMode::On),
            other => {
                self.wrong(node.spot, path, format!("must be off or on, not {}", other.describe()));
                None
            }
        }
    }

    fn when_isolated(&mut self, fields: &Fields<'_>, path: &Path<'_>) -> Option<WhenIsolated> {
        self.field(fields, path, "when_isolated", |reader, node, path| {
            reader.one_of(node, path, &[("deny", WhenIsolated::Deny), ("serve", WhenIsolated::Serve)])
        })
    }

    fn on_revoke(&mut self, fields: &Fields<'_>, path: &Path<'_>) -> Option<OnRevoke> {
        self.field(fields, path, "on_revoke", |reader, node, path| {
            reader.one_of(node, path, &[("cut", OnRevoke::Cut), ("finish", OnRevoke::Finish)])
        })
    }

    fn route_limits(&mut self, node: &Node, path: &Path<'_>) -> Option<Vec<Name>> {
        let limits = self.list(node, path, Self::name)?;
        self.without_doubles(node, path, &limits, |name| format!("the limit {name:?}"));
        if limits.len() > ROUTE_LIMITS_MAX {
            let count = limits.len();
            self.wrong(node.spot, path, format!("{count} limits are too many: the most is {ROUTE_LIMITS_MAX}"));
        }
        Some(limits)
    }

    fn cost(&mut self, node: &Node, path: &Path<'_>) -> Option<u64> {
        let cost = self.integer(node, path)?;
        let cost = u64::try_from(cost).ok().filter(|_| (1..=COST_MAX).contains(&cost));
        if cost.is_none() {
            self.wrong(node.spot, path, format!("must be from 1 to {COST_MAX}"));
        }
        cost
    }

    fn attributes(&mut self, node: &Node, path: &Path<'_>) -> Option<BTreeMap<Name, String>> {
        let mut attributes = BTreeMap::new();
        for entry in self.entries(node, path)? {
            if let Some((name, value)) = self.attribute(entry, &Path::Key(path, &entry.key)) {
                attributes.insert(name, value);
            }
        }
        if attributes.len() > cap::LABELS_MAX {
            self.wrong(node.spot, path, format!("the most is {} attributes", cap::LABELS_MAX));
        }
        Some(attributes)
    }

    fn attribute(&mut self, entry: &Entry, path: &Path<'_>) -> Option<(Name, String)> {
        let Ok(name) = Name::new(&entry.key) else {
            self.wrong(entry.key_spot, path, machine::name::InvalidName.to_string());
            return None;
        };
        let value = self.text(&entry.value, path)?;
        if value.len() > cap::LABEL_BYTES_MAX {
            self.wrong(entry.value.spot, path, format!("an attribute has at most {} bytes", cap::LABEL_BYTES_MAX));
            return None;
        }
        Some((name, value.to_owned()))
    }

    fn certificates(&mut self, node: &Node, path: &Path<'_>) -> Option<String> {
        self.parsed(node, path, |text| {
            let mut count = 0;
            for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
                let is_fine = certificate.ok().is_some_and(|der| rustls::RootCertStore::empty().add(der).is_ok());
                if !is_fine {
                    return Err("holds something that is not a CA certificate".to_owned());
                }
                count += 1;
            }
            if text.contains("PRIVATE KEY") {
                return Err("holds a private key: only certificates belong here".to_owned());
            }
            if count == 0 { Err("holds no PEM certificate".to_owned()) } else { Ok(text.to_owned()) }
        })
    }
}

fn method(text: &str) -> Result<http::Method, String> {
    let wrong = || format!("{text:?} is not a method: write GET, POST, … in capitals");
    if !text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-' || byte == b'_') || text.len() > 32 {
        return Err(wrong());
    }
    if text == "CONNECT" {
        return Err("CONNECT asks for a tunnel, which this gateway does not make".to_owned());
    }
    http::Method::from_bytes(text.as_bytes()).map_err(|_| wrong())
}

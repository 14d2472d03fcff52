//! From the tree of a text to typed resources: which fields there are and what each may hold. One grammar for resource
//! files and for stored documents, so that a document that a newer release wrote is refused by the field this release
//! does not know. References between resources are not followed here.

use super::{
    Noun, Place,
    document::{
        Authenticate, Defaults, HostHeader, OnRevoke, PolicyMode, Resource, Route, Target, Upstream, WhenIsolated,
    },
    pattern::{HostPattern, PathPattern},
    quantity::{self, Span},
    tree::{Entry, Node, Spot, Value},
};
use machine::{Name, cap, consumer::ConsumerSpec, resource::Kind};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

/// Mistakes of one file that are told at once.
const PLACES_MAX: usize = 100;
/// Targets of an upstream, hosts and paths of a route.
const LIST_MAX: usize = 256;
/// A day: longer waits are mistakes.
const TIMEOUT_MAX: Span = Span::from_ms(86_400_000);

const LIMITS_ABSENT: &str = "global limits are not available in this release yet";

/// The field under which the text of a policy has its spot: no name of a field holds a space.
pub(crate) const POLICY_TEXT: &str = "the text";

/// Where a field is: `routes.orders.paths[0]`.
#[derive(Clone, Copy)]
pub(crate) enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(parent, key) => {
                if !matches!(parent, Self::Root) {
                    write!(f, "{parent}.")?;
                }
                if key.contains('.') { write!(f, "{key:?}") } else { f.write_str(key) }
            }
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Gathers what is wrong, and where every field stands.
pub(crate) struct Reader<'a> {
    file: &'a str,
    pub(crate) places: Vec<Place>,
    /// Where each field is, by its path: for what is found wrong only when the file is seen as a whole.
    pub(crate) spots: HashMap<String, Spot>,
}

/// The fields of a map whose keys have been checked.
struct Fields<'n>(&'n [Entry]);

impl<'n> Fields<'n> {
    fn get(&self, key: &str) -> Option<&'n Node> {
        self.0.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }
}

impl<'a> Reader<'a> {
    pub(crate) fn new(file: &'a str) -> Self {
        Self { file, places: Vec::new(), spots: HashMap::new() }
    }

    pub(crate) fn wrong(&mut self, spot: Spot, path: &Path<'_>, message: impl Into<String>) {
        if self.places.len() < PLACES_MAX {
            self.places.push(Place {
                file: self.file.to_owned(),
                line: spot.line,
                column: spot.column,
                field: path.to_string(),
                message: message.into(),
            });
        }
    }

    fn note(&mut self, spot: Spot, path: &Path<'_>) {
        if spot.line > 0 {
            self.spots.insert(path.to_string(), spot);
        }
    }

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
            Noun::Document(Kind::Limit) => {
                self.wrong(key, path, LIMITS_ABSENT);
                None
            }
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
        self.not_yet(
            &fields,
            path,
            "allowance_wait",
            "it belongs to global limits, which are not available in this release yet",
        );
        self.on_revoke(&fields, path);
        let defaults = Defaults {
            when_isolated: self.when_isolated(&fields, path),
            body_bytes_max: self.field(&fields, path, "body_bytes_max", Self::bytes),
            response_timeout: self.field(&fields, path, "response_timeout", Self::timeout),
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
        self.not_yet(&fields, path, "limits", LIMITS_ABSENT);
        self.not_yet(&fields, path, "cost", "it belongs to global limits, which are not available in this release yet");
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
            if matches!(&node.value, Value::Text(text) if text == "cut") {
                reader.wrong(
                    node.spot,
                    path,
                    "cutting what is in flight is not available in this release yet: use finish",
                );
                return None;
            }
            reader.one_of(node, path, &[("finish", OnRevoke::Finish)])
        })
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

    // What values may be.

    /// The entries of a map, none of them twice. Nothing at all counts as an empty map.
    fn entries<'n>(&mut self, node: &'n Node, path: &Path<'_>) -> Option<&'n [Entry]> {
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null => &[],
            other => {
                self.wrong(node.spot, path, format!("must be a map, not {}", other.describe()));
                return None;
            }
        };
        let mut seen: HashMap<&str, Spot> = HashMap::new();
        for entry in entries {
            if let Some(first) = seen.insert(&entry.key, entry.key_spot) {
                self.wrong(
                    entry.key_spot,
                    &Path::Key(path, &entry.key),
                    format!("is there twice: first on line {}", first.line),
                );
            }
        }
        Some(entries)
    }

    fn fields<'n>(&mut self, node: &'n Node, path: &Path<'_>, known: &[&str]) -> Option<Fields<'n>> {
        let entries = self.entries(node, path)?;
        for entry in entries {
            let path = Path::Key(path, &entry.key);
            if !known.contains(&entry.key.as_str()) {
                self.wrong(entry.key_spot, &path, format!("there is no such field; there are {}", known.join(", ")));
            }
        }
        Some(Fields(entries))
    }

    fn field<T>(
        &mut self,
        fields: &Fields<'_>,
        path: &Path<'_>,
        key: &str,
        read: impl FnOnce(&mut Self, &Node, &Path<'_>) -> Option<T>,
    ) -> Option<T> {
        let node = fields.get(key)?;
        let path = Path::Key(path, key);
        self.note(node.spot, &path);
        read(self, node, &path)
    }

    fn required<T>(
        &mut self,
        fields: &Fields<'_>,
        whole: &Node,
        path: &Path<'_>,
        key: &str,
        read: impl FnOnce(&mut Self, &Node, &Path<'_>) -> Option<T>,
    ) -> Option<T> {
        if fields.get(key).is_none() {
            self.wrong(whole.spot, &Path::Key(path, key), "is missing");
        }
        self.field(fields, path, key, read)
    }

    fn not_yet(&mut self, fields: &Fields<'_>, path: &Path<'_>, key: &str, message: &str) {
        if let Some(node) = fields.get(key) {
            self.wrong(node.spot, &Path::Key(path, key), message);
        }
    }

    fn list<T>(
        &mut self,
        node: &Node,
        path: &Path<'_>,
        mut item: impl FnMut(&mut Self, &Node, &Path<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Value::List(items) = &node.value else {
            self.wrong(node.spot, path, format!("must be a list, not {}", node.value.describe()));
            return None;
        };
        if items.len() > LIST_MAX {
            self.wrong(node.spot, path, format!("{} are too many: the most is {LIST_MAX}", items.len()));
            return None;
        }
        let mut list = Vec::with_capacity(items.len());
        for (index, node) in items.iter().enumerate() {
            let path = Path::Item(path, index);
            self.note(node.spot, &path);
            list.extend(item(self, node, &path));
        }
        (list.len() == items.len()).then_some(list)
    }

    fn text<'n>(&mut self, node: &'n Node, path: &Path<'_>) -> Option<&'n str> {
        match &node.value {
            Value::Text(text) => Some(text),
            other @ (Value::Bool(_) | Value::Integer(_) | Value::Number(_)) => {
                self.wrong(node.spot, path, format!("must be text, not {}: put it in quotes", other.describe()));
                None
            }
            other => {
                self.wrong(node.spot, path, format!("must be text, not {}", other.describe()));
                None
            }
        }
    }

    fn parsed<T>(&mut self, node: &Node, path: &Path<'_>, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match read(self.text(node, path)?) {
            Ok(value) => Some(value),
            Err(message) => {
                self.wrong(node.spot, path, message);
                None
            }
        }
    }

    fn name(&mut self, node: &Node, path: &Path<'_>) -> Option<Name> {
        self.parsed(node, path, |text| Name::new(text).map_err(|error| error.to_string()))
    }

    fn integer(&mut self, node: &Node, path: &Path<'_>) -> Option<i64> {
        if let Value::Integer(number) = node.value {
            return Some(number);
        }
        self.wrong(node.spot, path, format!("must be a whole number, not {}", node.value.describe()));
        None
    }

    fn timeout(&mut self, node: &Node, path: &Path<'_>) -> Option<Span> {
        self.parsed(node, path, |text| {
            let span = Span::read(text)?;
            if span < Span::from_ms(1) || span > TIMEOUT_MAX {
                Err(format!("must be from 1ms to {TIMEOUT_MAX}"))
            } else {
                Ok(span)
            }
        })
    }

    fn bytes(&mut self, node: &Node, path: &Path<'_>) -> Option<u64> {
        match &node.value {
            Value::Integer(number) => {
                let number = u64::try_from(*number).ok();
                if number.is_none() {
                    self.wrong(node.spot, path, "must not be negative");
                }
                number
            }
            _ => self.parsed(node, path, quantity::read_bytes),
        }
    }

    fn one_of<T: Copy>(&mut self, node: &Node, path: &Path<'_>, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(node, path)?;
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            self.wrong(node.spot, path, format!("must be {}, not {text:?}", names.join(" or ")));
        }
        found
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

//! All documents of a cluster together, as they are or as they would be: what can only be judged when they are seen as a
//! whole. References, routes that overlap, limits and the routes that name them, and what policies name.

mod limit;

use super::{
    Noun,
    document::{Authenticate, PolicyMode, Resource, Route},
    policy::{Mention, Policy, RouteScope},
    read::{Path, Reader},
    table::Table,
    tree,
};
use cedar_policy::Effect;
use machine::{
    Name, Registry,
    resource::{Document, Kind},
};
use std::{collections::BTreeMap, fmt};

/// Documents by kind and name; one that this release cannot read is there with the reason.
#[derive(Debug, Default)]
pub(crate) struct Whole {
    pub(crate) documents: BTreeMap<(Kind, Name), Result<Resource, String>>,
}

/// Something that is wrong, or may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub(crate) noun: Noun,
    pub(crate) name: Name,
    /// `paths[1]`; empty for the whole resource.
    pub(crate) field: String,
    /// Bytes into the text of a policy.
    pub(crate) offset: Option<usize>,
    /// The other resource that it is about: where to point if a file does not hold the first.
    pub(crate) other: Option<(Noun, Name)>,
    pub(crate) message: String,
}

/// What there is to say.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) errors: Vec<Complaint>,
    pub(crate) warnings: Vec<Complaint>,
}

/// Who calls, as far as policies name them.
pub(crate) trait Callers {
    /// Whether there is a consumer of this name.
    fn has_consumer(&self, name: &str) -> bool;
    /// Whether any consumer has this role.
    fn has_role(&self, name: &str) -> bool;
}

/// Reads a stored document.
///
/// # Errors
/// Why this release cannot read it.
pub(crate) fn stored(kind: Kind, name: &Name, document: &Document) -> Result<Resource, String> {
    let json = serde_json::from_slice(&document.bytes).map_err(|error| error.to_string())?;
    let node = tree::from_json(json);
    let mut reader = Reader::new("");
    let section = Path::Key(&Path::Root, kind.as_str());
    let resource = reader.resource(Noun::Document(kind), &node, node.spot, &Path::Key(&section, name.as_str()));
    match (resource, reader.places.first()) {
        (Some(resource), None) => Ok(resource),
        (_, Some(place)) => Err(format!("{}: {}", place.field, place.message)),
        (None, None) => Err("it cannot be read".to_owned()),
    }
}

impl Whole {
    pub(crate) fn of(registry: &Registry) -> Self {
        let documents = registry
            .documents
            .iter()
            .map(|((kind, name), document)| ((*kind, name.clone()), stored(*kind, name, document)))
            .collect();
        Self { documents }
    }

    pub(crate) fn put(&mut self, kind: Kind, name: Name, resource: Resource) {
        self.documents.insert((kind, name), Ok(resource));
    }

    pub(crate) fn remove(&mut self, kind: Kind, name: &Name) {
        self.documents.remove(&(kind, name.clone()));
    }

    pub(crate) fn has(&self, kind: Kind, name: &Name) -> bool {
        self.documents.contains_key(&(kind, name.clone()))
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&Name, &Result<Resource, String>)> {
        self.documents.iter().filter(move |((of, _), _)| *of == kind).map(|((_, name), resource)| (name, resource))
    }

    pub(crate) fn routes(&self) -> impl Iterator<Item = (&Name, &Route)> {
        self.of_kind(Kind::Route).filter_map(|(name, resource)| match resource {
            Ok(Resource::Route(route)) => Some((name, route)),
            _ => None,
        })
    }

    /// Judges it all.
    pub(crate) fn check(&self, callers: &impl Callers) -> Findings {
        let mut findings = Findings::default();
        self.check_references(&mut findings);
        self.check_overlaps(&mut findings);
        self.check_limits(&mut findings);
        self.check_policies(callers, &mut findings);
        findings
    }

    fn check_references(&self, findings: &mut Findings) {
        for (name, route) in self.routes() {
            if !self.has(Kind::Upstream, &route.upstream) {
                let message = format!("there is no upstream {:?}", route.upstream);
                findings.error(Kind::Route, name, "upstream", message);
            }
        }
    }

    fn check_overlaps(&self, findings: &mut Findings) {
        let routes: Vec<(&Name, &Route)> = self.routes().collect();
        let (_, overlaps) = Table::build(routes.iter().map(|(_, route)| *route));
        for overlap in overlaps {
            let (Some((name, route)), Some((other_name, other))) =
                (routes.get(overlap.one.0), routes.get(overlap.other.0))
            else {
                continue;
            };
            let path =
                |route: &Route, index: usize| route.paths.get(index).map(ToString::to_string).unwrap_or_default();
            let message = format!(
                "ambiguous: route {other_name:?} takes the same requests with its path {:?}: \
                 give one of them other hosts, paths or methods",
                path(other, overlap.other.1)
            );
            findings.error(Kind::Route, name, &format!("paths[{}]", overlap.one.1), message);
            if overlap.one.0 != overlap.other.0 {
                let message = format!(
                    "ambiguous: route {name:?} takes the same requests with its path {:?}",
                    path(route, overlap.one.1)
                );
                findings.error(Kind::Route, other_name, &format!("paths[{}]", overlap.other.1), message);
            }
        }
    }

    fn check_policies(&self, callers: &impl Callers, findings: &mut Findings) {
        let mut permits: Vec<RouteScope> = Vec::new();
        let mut all_read = true;
        for (name, resource) in self.of_kind(Kind::Policy) {
            let Ok(Resource::Policy(text)) = resource else {
                all_read = false;
                continue;
            };
            let policy = match Policy::read(name, text) {
                Ok(policy) => policy,
                Err(faults) => {
                    all_read = false;
                    findings.errors.extend(faults.into_iter().map(|fault| Complaint {
                        offset: fault.offset,
                        ..complaint(Kind::Policy, name, "", fault.message)
                    }));
                    continue;
                }
            };
            self.check_mentions(name, text, &policy, callers, findings);
            let scopes = policy.statements.into_iter().filter(|one| one.cedar.effect() == Effect::Permit);
            permits.extend(scopes.map(|one| one.scope));
        }
        if !all_read {
            return;
        }
        for (name, route) in self.routes() {
            let is_judged = route.policies == PolicyMode::On && route.authenticate != Authenticate::Nobody;
            if is_judged && !permits.iter().any(|scope| scope.includes(name)) {
                findings.warning(
                    Kind::Route,
                    name,
                    "",
                    "no policy permits anything here: every request will be refused (403)".to_owned(),
                );
            }
        }
    }

    fn check_mentions(
        &self,
        name: &Name,
        text: &str,
        policy: &Policy,
        callers: &impl Callers,
        findings: &mut Findings,
    ) {
        for mention in policy.mentions() {
            let found = |message: String| Complaint {
                offset: text.find(&mention.literal()),
                ..complaint(Kind::Policy, name, "", message)
            };
            match &mention {
                Mention::Route(id) => {
                    let is_there = Name::new(id).is_ok_and(|route| self.has(Kind::Route, &route));
                    if !is_there {
                        findings.errors.push(found(format!("there is no route {id:?}")));
                    }
                }
                Mention::Action(id) => {
                    let is_method = !id.is_empty()
                        && id.bytes().all(|byte| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_'));
                    if !is_method {
                        findings.errors.push(found(format!("{id:?} is not a method: write Action::\"GET\"")));
                    }
                }
                Mention::Unknown(whole) => {
                    let message = format!("{whole}: there are Consumer, Role, Route and Action, and nothing else");
                    findings.errors.push(found(message));
                }
                Mention::Consumer(id) if !callers.has_consumer(id) => {
                    findings.warnings.push(found(format!("there is no consumer {id:?} now")));
                }
                Mention::Role(id) if !callers.has_role(id) => {
                    findings.warnings.push(found(format!("no consumer has the role {id:?} now")));
                }
                Mention::Consumer(_) | Mention::Role(_) => {}
            }
        }
    }
}

impl Findings {
    fn error(&mut self, kind: Kind, name: &Name, field: &str, message: String) {
        self.errors.push(complaint(kind, name, field, message));
    }

    fn warning(&mut self, kind: Kind, name: &Name, field: &str, message: String) {
        self.warnings.push(complaint(kind, name, field, message));
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.noun, self.name, self.message)
    }
}

fn complaint(kind: Kind, name: &Name, field: &str, message: String) -> Complaint {
    let (noun, name, field) = (Noun::Document(kind), name.clone(), field.to_owned());
    Complaint { noun, name, field, offset: None, other: None, message }
}

//! From a resource file to changes: what differs from what the cluster holds, checked as a whole before anything is
//! proposed. The cluster's revision goes along, so that what was checked is what is applied.

use super::{
    Action, DeleteError, Listing, Noun, Place, Plan,
    document::Resource,
    export,
    parse::{ResourceFile, path_of},
    whole::{Callers, Complaint, Findings, Whole},
};
use machine::{
    Name, Registry, cap,
    consumer::{Consumer, ConsumerSpec},
    resource::{Change, Kind},
};
use std::collections::BTreeSet;

/// Compares a file with what the cluster holds and checks that the result makes sense: no dangling references, no
/// ambiguous routes, policies that parse.
///
/// # Errors
/// Every place that is wrong.
pub fn plan(registry: &Registry, file: &ResourceFile, prune: bool) -> Result<Plan, Vec<Place>> {
    let mut whole = Whole::of(registry);
    let mut draft = Draft::default();
    for ((noun, name), resource) in &file.resources {
        match (noun, resource) {
            (Noun::Consumer, Resource::Consumer(spec)) => draft.put_consumer(registry, name, spec),
            (Noun::Document(kind), _) => {
                draft.put_document(&whole, *kind, name, resource);
                whole.put(*kind, name.clone(), resource.clone());
            }
            _ => {}
        }
    }
    let mut warnings = Vec::new();
    if prune {
        for (kind, name) in registry.documents.keys() {
            if !file.resources.contains_key(&(Noun::Document(*kind), name.clone())) {
                draft.delete_document(&whole, *kind, name);
                whole.remove(*kind, name);
            }
        }
        for (name, consumer) in &registry.consumers {
            if !file.resources.contains_key(&(Noun::Consumer, name.clone())) {
                warnings.extend(keys_that_go(registry, name).map(|message| Place {
                    file: file.name.clone(),
                    line: 0,
                    column: 0,
                    field: path_of(Noun::Consumer, name, ""),
                    message,
                }));
                draft.delete_consumer(name, consumer);
            }
        }
    }
    let callers = After { registry, file, prune };
    let Findings { errors, warnings: suspicions } = whole.check(&callers);
    let place = |complaint: Complaint| {
        let Complaint { noun, name, field, offset, other, message } = complaint;
        let mut place = file.place(noun, &name, &field, offset, message);
        let is_elsewhere = !file.resources.contains_key(&(noun, name));
        if let (true, Some((noun, name))) = (is_elsewhere, other.filter(|other| file.resources.contains_key(other))) {
            let here = file.place(noun, &name, "", None, String::new());
            (place.line, place.column) = (here.line, here.column);
        }
        place
    };
    let mut errors: Vec<Place> = errors.into_iter().map(place).collect();
    errors.extend(draft.too_large(file));
    errors.sort_by_key(|place| (place.line, place.column));
    if !errors.is_empty() {
        return Err(errors);
    }
    let of_this_file = |one: &Complaint| file.resources.contains_key(&(one.noun, one.name.clone()));
    warnings.extend(suspicions.into_iter().filter(of_this_file).map(place));
    warnings.extend(draft.recounted.iter().map(|(name, field)| {
        let what = if *field == "per" { "others" } else { "in another place" };
        let message = format!("the limit counts {what} than before: its counts begin anew");
        file.place(Noun::Document(Kind::Limit), name, field, None, message)
    }));
    Ok(Plan {
        changes: draft.changes,
        listing: draft.listing,
        warnings,
        validated_against: registry.resources_revision,
    })
}

/// The changes that delete one resource.
///
/// # Errors
/// [`DeleteError`] if it does not exist or others need it.
pub fn delete(registry: &Registry, noun: Noun, name: &str) -> Result<Vec<Change>, DeleteError> {
    let name = Name::new(name).map_err(|_| DeleteError::NotFound)?;
    let kind = match noun {
        Noun::Consumer if registry.consumers.contains_key(&name) => return Ok(vec![Change::DeleteConsumer { name }]),
        Noun::Document(kind) if registry.documents.contains_key(&(kind, name.clone())) => kind,
        _ => return Err(DeleteError::NotFound),
    };
    let mut whole = Whole::of(registry);
    let callers = AsNow(registry);
    let before = whole.check(&callers).errors;
    whole.remove(kind, &name);
    let needed_by: Vec<Place> = whole
        .check(&callers)
        .errors
        .into_iter()
        .filter(|complaint| !before.contains(complaint))
        .map(|complaint| Place {
            file: String::new(),
            line: 0,
            column: 0,
            field: path_of(complaint.noun, &complaint.name, &complaint.field),
            message: format!("needs the {kind} {name:?}"),
        })
        .collect();
    if needed_by.is_empty() {
        Ok(vec![Change::DeleteDocument { kind, name }])
    } else {
        Err(DeleteError::Referenced(needed_by))
    }
}

#[derive(Default)]
struct Draft {
    changes: Vec<Change>,
    listing: Vec<Listing>,
    bytes: usize,
    oversized: Vec<(Noun, Name)>,
    /// Limits whose buckets are others than before, and the field that says so.
    recounted: Vec<(Name, &'static str)>,
}

impl Draft {
    fn put_consumer(&mut self, registry: &Registry, name: &Name, spec: &ConsumerSpec) {
        let before = registry.consumers.get(name).map(|consumer| spec_of(consumer));
        if before.as_ref() == Some(spec) {
            return;
        }
        self.list(Noun::Consumer, name, before.map(Resource::Consumer), Some(&Resource::Consumer(spec.clone())));
        self.changes.push(Change::PutConsumer { name: name.clone(), spec: spec.clone() });
    }

    fn put_document(&mut self, whole: &Whole, kind: Kind, name: &Name, resource: &Resource) {
        let there = whole.documents.get(&(kind, name.clone()));
        let before = there.and_then(|document| document.as_ref().ok());
        if before == Some(resource) {
            return;
        }
        if let (Some(Resource::Limit(before)), Resource::Limit(after)) = (before, resource) {
            let field = if before.scope == after.scope { "per" } else { "scope" };
            if before.scope != after.scope || before.per != after.per {
                self.recounted.push((name.clone(), field));
            }
        }
        let json = resource.json();
        self.bytes += json.len();
        if json.len() > cap::DOCUMENT_BYTES_MAX {
            self.oversized.push((Noun::Document(kind), name.clone()));
        }
        self.list(Noun::Document(kind), name, before.cloned(), Some(resource));
        if let (Some(Err(_)), Some(listing)) = (there, self.listing.last_mut()) {
            listing.action = Action::Update;
        }
        let (name, bytes) = (name.clone(), json.into_bytes().into());
        self.changes.push(match resource {
            Resource::Limit(limit) => Change::PutLimit { name, bytes, rule: limit.rule },
            _ => Change::PutDocument { kind, name, bytes },
        });
    }

    fn delete_document(&mut self, whole: &Whole, kind: Kind, name: &Name) {
        let before = whole.documents.get(&(kind, name.clone())).and_then(|document| document.as_ref().ok());
        self.list(Noun::Document(kind), name, before.cloned(), None);
        self.changes.push(Change::DeleteDocument { kind, name: name.clone() });
    }

    fn delete_consumer(&mut self, name: &Name, consumer: &Consumer) {
        self.list(Noun::Consumer, name, Some(Resource::Consumer(spec_of(consumer))), None);
        self.changes.push(Change::DeleteConsumer { name: name.clone() });
    }

    fn list(&mut self, noun: Noun, name: &Name, before: Option<Resource>, after: Option<&Resource>) {
        let action = match (&before, after) {
            (_, None) => Action::Delete,
            (Some(_), Some(_)) => Action::Update,
            (None, Some(_)) => Action::Create,
        };
        let text = |resource: Option<&Resource>| resource.map(|one| export::one(noun, name, one)).unwrap_or_default();
        let (old, new) = (text(before.as_ref()), text(after));
        let diff =
            similar::TextDiff::from_lines(old.as_str(), new.as_str()).unified_diff().context_radius(2).to_string();
        self.listing.push(Listing { noun, name: name.clone(), action, diff });
    }

    fn too_large<'a>(&'a self, file: &'a ResourceFile) -> impl Iterator<Item = Place> + 'a {
        let whole_file =
            |message: String| Place { file: file.name.clone(), line: 0, column: 0, field: String::new(), message };
        let changes = (self.changes.len() > cap::CHANGES_PER_APPLY_MAX).then(|| {
            whole_file(format!(
                "{} changes are too many at once: the most is {}",
                self.changes.len(),
                cap::CHANGES_PER_APPLY_MAX
            ))
        });
        let bytes = (self.bytes > cap::APPLY_BYTES_MAX).then(|| {
            whole_file(format!("{} bytes are too many at once: the most is {}", self.bytes, cap::APPLY_BYTES_MAX))
        });
        let documents = self.oversized.iter().map(|(noun, name)| {
            file.place(*noun, name, "", None, format!("is too large: the most is {} bytes", cap::DOCUMENT_BYTES_MAX))
        });
        changes.into_iter().chain(bytes).chain(documents)
    }
}

fn spec_of(consumer: &Consumer) -> ConsumerSpec {
    ConsumerSpec { roles: consumer.roles.clone(), attributes: consumer.attributes.clone() }
}

fn keys_that_go(registry: &Registry, name: &Name) -> Option<String> {
    let keys = registry.keys_of(name).count();
    (keys > 0).then(|| format!("its {keys} keys go with it"))
}

/// Callers as they will be.
struct After<'a> {
    registry: &'a Registry,
    file: &'a ResourceFile,
    prune: bool,
}

impl After<'_> {
    fn specs(&self) -> impl Iterator<Item = &BTreeSet<Name>> {
        self.file.resources.values().filter_map(|resource| match resource {
            Resource::Consumer(spec) => Some(&spec.roles),
            _ => None,
        })
    }
}

impl Callers for After<'_> {
    fn has_consumer(&self, name: &str) -> bool {
        let Ok(name) = Name::new(name) else { return false };
        (!self.prune && self.registry.consumers.contains_key(&name))
            || self.file.resources.contains_key(&(Noun::Consumer, name))
    }

    fn has_role(&self, role: &str) -> bool {
        let keeps = |name: &Name| !self.prune && !self.file.resources.contains_key(&(Noun::Consumer, name.clone()));
        self.specs().any(|roles| roles.contains(role))
            || self.registry.consumers.iter().any(|(name, consumer)| consumer.roles.contains(role) && keeps(name))
    }
}

/// Callers as they are.
struct AsNow<'a>(&'a Registry);

impl Callers for AsNow<'_> {
    fn has_consumer(&self, name: &str) -> bool {
        Name::new(name).is_ok_and(|name| self.0.consumers.contains_key(&name))
    }
    fn has_role(&self, role: &str) -> bool {
        self.0.consumers.values().any(|consumer| consumer.roles.contains(role))
    }
}

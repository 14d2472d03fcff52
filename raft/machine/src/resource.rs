//! Named documents: routes, upstreams, policies and whatever else the data plane gives meaning to. The core stores them
//! as bytes with a revision; their typed form lives in the node, so a new option never touches consensus.

use crate::{
    apply::Effect,
    bucket::Limit,
    cap::{
        APPLY_BYTES_MAX, AUDIT_SUBJECT_BYTES_MAX, CHANGES_PER_APPLY_MAX, DOCUMENT_BYTES_MAX, DOCUMENTS_PER_KIND_MAX,
    },
    consumer,
    limit::Rule,
    name::Name,
    outcome::{Field, Noun, Refusal},
    registry::Registry,
    time::Tick,
};
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// What a document describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Settings that routes inherit; one document, named `defaults`.
    Defaults,
    /// Where requests go.
    Upstream,
    /// Which requests go there.
    Route,
    /// A Cedar policy.
    Policy,
    /// A token bucket or quota.
    Limit,
    /// Who signs the tokens that are accepted.
    Issuer,
}

impl Kind {
    /// All kinds, in the order in which a file lists them.
    pub const ALL: [Self; 6] = [Self::Defaults, Self::Upstream, Self::Limit, Self::Issuer, Self::Route, Self::Policy];

    /// The singular, as messages and JSON name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Defaults => "defaults",
            Self::Upstream => "upstream",
            Self::Route => "route",
            Self::Policy => "policy",
            Self::Limit => "limit",
            Self::Issuer => "issuer",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A document, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// The canonical JSON that the node wrote; opaque here.
    pub bytes: Arc<[u8]>,
    /// The cluster revision of the last change.
    pub revision: u64,
}

/// One edit of a resource file that is applied as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Creates or replaces a document.
    PutDocument {
        /// What it describes.
        kind: Kind,
        /// Unique in its kind.
        name: Name,
        /// Its bytes, at most [`crate::cap::DOCUMENT_BYTES_MAX`].
        bytes: Arc<[u8]>,
    },
    /// Deletes a document.
    DeleteDocument {
        /// What it describes.
        kind: Kind,
        /// Its name.
        name: Name,
    },
    /// Creates a consumer or replaces its roles and attributes; whether it is enabled stays as it is.
    PutConsumer {
        /// Unique in the cluster.
        name: Name,
        /// What the file says of it.
        spec: crate::consumer::ConsumerSpec,
    },
    /// Deletes a consumer and every key of it.
    DeleteConsumer {
        /// Its name.
        name: Name,
    },
    /// Creates or replaces a limit: its document, and its rule, which the core must understand. There is no other way to
    /// write a document of [`Kind::Limit`]; deleting that deletes the rule too.
    PutLimit {
        /// Unique among limits.
        name: Name,
        /// Its document: what it counts by, its scope and its mode.
        bytes: Arc<[u8]>,
        /// How much may be admitted.
        rule: Rule,
    },
}

/// Applies the edits of a resource file, if the resources are still those that it was validated against.
pub(crate) fn apply(
    registry: &mut Registry,
    now: Tick,
    validated_against: u64,
    changes: &[Change],
) -> Result<Effect, Refusal> {
    Refusal::if_beyond(Field::Changes, changes.len(), CHANGES_PER_APPLY_MAX)?;
    Refusal::if_beyond(
        Field::ApplyBytes,
        changes.iter().map(Change::bytes).fold(0, usize::saturating_add),
        APPLY_BYTES_MAX,
    )?;
    let actual = registry.resources_revision;
    if validated_against != actual {
        return Err(Refusal::Conflict { noun: Noun::Resources, expected: validated_against, actual });
    }
    let mut done = Vec::new();
    for change in changes {
        let from = change.revision_in(registry);
        if change.make(registry, now)? {
            done.push((change, from));
        }
    }
    check_counts(registry)?;
    let from_revision = match done.as_slice() {
        [] => return Ok(Effect::Unchanged),
        [(_, from)] => *from,
        [..] => (actual > 0).then_some(actual),
    };
    registry.resources_revision = registry.revision;
    Ok(Effect::changed(subject(&done), from_revision))
}

/// Refuses too many documents of a kind. They are counted only when there are so many that it could be.
fn check_counts(registry: &Registry) -> Result<(), Refusal> {
    if registry.documents.len() <= DOCUMENTS_PER_KIND_MAX {
        return Ok(());
    }
    Kind::ALL.into_iter().try_for_each(|kind| {
        let others = registry.documents_of(kind).count().saturating_sub(1);
        Refusal::if_full(Noun::Document(kind), others, DOCUMENTS_PER_KIND_MAX)
    })
}

/// `route/orders, -upstream/old`, and no longer than an audit entry needs.
fn subject(done: &[(&Change, Option<u64>)]) -> String {
    let mut subject = String::new();
    for (change, _) in done {
        if subject.len() > AUDIT_SUBJECT_BYTES_MAX {
            break;
        }
        if !subject.is_empty() {
            subject.push_str(", ");
        }
        subject.push_str(&change.to_string());
    }
    subject
}

impl Change {
    /// Makes the edit. `false` if there is nothing to change.
    fn make(&self, registry: &mut Registry, now: Tick) -> Result<bool, Refusal> {
        match self {
            Self::PutDocument { kind: Kind::Limit, name, .. } => Err(Refusal::LimitWithoutRule { name: name.clone() }),
            Self::PutDocument { kind, name, bytes } => put(registry, *kind, name, bytes),
            Self::DeleteDocument { kind, name } => delete(registry, *kind, name).map(|()| true),
            Self::PutConsumer { name, spec } => consumer::put(registry, name, spec),
            Self::DeleteConsumer { name } => consumer::delete(registry, name).map(|()| true),
            Self::PutLimit { name, bytes, rule } => put_limit(registry, now, name, bytes, rule),
        }
    }

    /// The revision of what it edits, if that exists.
    fn revision_in(&self, registry: &Registry) -> Option<u64> {
        match self {
            Self::PutDocument { kind, name, .. } | Self::DeleteDocument { kind, name } => {
                registry.document(*kind, name).map(|document| document.revision)
            }
            Self::PutLimit { name, .. } => registry.document(Kind::Limit, name).map(|document| document.revision),
            Self::PutConsumer { name, .. } | Self::DeleteConsumer { name } => {
                registry.consumers.get(name).map(|consumer| consumer.revision)
            }
        }
    }

    /// Bytes that it brings.
    fn bytes(&self) -> usize {
        match self {
            Self::PutDocument { bytes, .. } | Self::PutLimit { bytes, .. } => bytes.len(),
            Self::PutConsumer { spec, .. } => spec.bytes(),
            Self::DeleteDocument { .. } | Self::DeleteConsumer { .. } => 0,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutDocument { kind, name, .. } => write!(f, "{kind}/{name}"),
            Self::DeleteDocument { kind, name } => write!(f, "-{kind}/{name}"),
            Self::PutConsumer { name, .. } => write!(f, "consumer/{name}"),
            Self::DeleteConsumer { name } => write!(f, "-consumer/{name}"),
            Self::PutLimit { name, .. } => write!(f, "limit/{name}"),
        }
    }
}

fn put(registry: &mut Registry, kind: Kind, name: &Name, bytes: &Arc<[u8]>) -> Result<bool, Refusal> {
    Refusal::if_beyond(Field::DocumentBytes, bytes.len(), DOCUMENT_BYTES_MAX)?;
    match registry.document(kind, name) {
        Some(document) if document.bytes == *bytes => return Ok(false),
        Some(_) | None => {}
    }
    let document = Document { bytes: Arc::clone(bytes), revision: registry.revision };
    registry.documents.insert((kind, name.clone()), document);
    Ok(true)
}

fn delete(registry: &mut Registry, kind: Kind, name: &Name) -> Result<(), Refusal> {
    let missing = || Refusal::not_found(Noun::Document(kind), name);
    registry.documents.remove(&(kind, name.clone())).ok_or_else(missing)?;
    if kind == Kind::Limit {
        registry.limits.remove(name);
    }
    Ok(())
}

/// Creates or replaces a limit. `false` if it is like that already.
fn put_limit(registry: &mut Registry, now: Tick, name: &Name, bytes: &Arc<[u8]>, rule: &Rule) -> Result<bool, Refusal> {
    rule.check()?;
    let is_new_text = put(registry, Kind::Limit, name, bytes)?;
    let generation = match registry.limits.get(name) {
        Some(limit) if limit.rule == *rule => return Ok(is_new_text),
        // INVARIANT: a generation is never above the revision that made it, so one that begins at the revision was never
        // used before: what is left of the buckets of a limit that was deleted is not taken for those of one that is
        // made again. Written twice in one revision, it is one generation: nobody has seen the first.
        Some(limit) => limit.generation.saturating_add(1).min(registry.revision),
        None => registry.revision,
    };
    registry.limits.insert(name.clone(), Limit { rule: *rule, generation, changed: now });
    if !is_new_text {
        let document = Document { bytes: Arc::clone(bytes), revision: registry.revision };
        registry.documents.insert((Kind::Limit, name.clone()), document);
    }
    Ok(true)
}

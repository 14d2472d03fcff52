//! Consumers: who calls. A consumer owns keys and has roles and attributes that policies read.

use crate::{
    apply::Effect,
    cap::{CONSUMERS_MAX, LABEL_BYTES_MAX, LABELS_MAX},
    command::Precondition,
    key::lifecycle,
    name::Name,
    outcome::{Field, Noun, Refusal},
    registry::Registry,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A caller, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumer {
    /// Unique in the cluster.
    pub name: Name,
    /// What policies know as `Role::"…"`.
    pub roles: BTreeSet<Name>,
    /// Free attributes (`env: prod`), text only.
    pub attributes: BTreeMap<Name, String>,
    /// A disabled consumer's credentials are refused; nothing is forgotten.
    pub enabled: bool,
    /// The cluster revision of the last change.
    pub revision: u64,
}

/// What a resource file says of a consumer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerSpec {
    /// See [`Consumer::roles`].
    pub roles: BTreeSet<Name>,
    /// See [`Consumer::attributes`].
    pub attributes: BTreeMap<Name, String>,
}

impl ConsumerSpec {
    fn check(&self) -> Result<(), Refusal> {
        Refusal::if_beyond(Field::Labels, self.roles.len(), LABELS_MAX)?;
        Refusal::if_beyond(Field::Labels, self.attributes.len(), LABELS_MAX)?;
        let longest = self.attributes.values().map(String::len).max().unwrap_or(0);
        Refusal::if_beyond(Field::LabelBytes, longest, LABEL_BYTES_MAX)
    }

    /// Bytes of the texts of it.
    pub(crate) fn bytes(&self) -> usize {
        let roles = self.roles.iter().map(|role| role.as_str().len());
        let attributes = self.attributes.iter().map(|(name, value)| name.as_str().len().saturating_add(value.len()));
        roles.chain(attributes).fold(0, usize::saturating_add)
    }
}

/// Creates a consumer or replaces what a file says of it. `false` if it says so already.
pub(crate) fn put(registry: &mut Registry, name: &Name, spec: &ConsumerSpec) -> Result<bool, Refusal> {
    spec.check()?;
    let (name, enabled) = match registry.consumers.get(name) {
        Some(consumer) if consumer.roles == spec.roles && consumer.attributes == spec.attributes => return Ok(false),
        Some(consumer) => (consumer.name.clone(), consumer.enabled),
        None => {
            Refusal::if_full(Noun::Consumer, registry.consumers.len(), CONSUMERS_MAX)?;
            (name.clone(), true)
        }
    };
    let ConsumerSpec { roles, attributes } = spec.clone();
    let consumer = Consumer { name: name.clone(), roles, attributes, enabled, revision: registry.revision };
    registry.consumers.insert(name, Arc::new(consumer));
    Ok(true)
}

/// Deletes a consumer and every key of it.
pub(crate) fn delete(registry: &mut Registry, name: &Name) -> Result<(), Refusal> {
    registry.consumers.remove(name).ok_or_else(|| Refusal::not_found(Noun::Consumer, name))?;
    lifecycle::delete_all(registry, name);
    Ok(())
}

/// Enables or disables a consumer.
pub(crate) fn set_enabled(
    registry: &mut Registry,
    name: &Name,
    enabled: bool,
    precondition: Precondition,
) -> Result<Effect, Refusal> {
    let consumer = registry.consumers.get(name).ok_or_else(|| Refusal::not_found(Noun::Consumer, name))?;
    precondition.check(Noun::Consumer, consumer.revision)?;
    if consumer.enabled == enabled {
        return Ok(Effect::Unchanged);
    }
    let from = consumer.revision;
    let changed = Consumer { enabled, revision: registry.revision, ..Consumer::clone(consumer) };
    registry.resources_revision = registry.revision;
    registry.consumers.insert(changed.name.clone(), Arc::new(changed));
    Ok(Effect::changed(name, Some(from)))
}

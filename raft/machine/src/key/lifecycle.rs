//! What happens to keys: they are made or imported, rotated, revoked, and go with their consumer. That one ends by its
//! date changes nothing here: readers compare it with the time.

use super::{ImportedKey, Key, KeyFields, KeyId, KeyOrigin, KeyState, Owner, Secret, SecretHash};
use crate::{
    apply::Effect,
    cap::{KEYS_MAX, KEYS_PER_IMPORT_MAX, LABEL_BYTES_MAX, LABELS_MAX},
    command::Precondition,
    name::Name,
    outcome::{Field, Noun, Refusal},
    registry::{Filed, Registry},
    time::Wall,
};
use std::{collections::BTreeSet, sync::Arc};

/// A key to be.
pub(crate) struct NewKey<'a> {
    pub(crate) id: KeyId,
    pub(crate) consumer: &'a Name,
    pub(crate) label: Option<&'a str>,
    pub(crate) scopes: &'a BTreeSet<Name>,
    pub(crate) hash: SecretHash,
    pub(crate) not_after: Option<Wall>,
    pub(crate) origin: KeyOrigin,
}

/// Makes a key.
pub(crate) fn create(registry: &mut Registry, now: Wall, new: &NewKey<'_>) -> Result<Effect, Refusal> {
    add(registry, now, new)?;
    Ok(Effect::changed(new.id, None))
}

/// Takes in keys from elsewhere, all or none.
pub(crate) fn import(registry: &mut Registry, now: Wall, keys: &[ImportedKey]) -> Result<Effect, Refusal> {
    Refusal::if_beyond(Field::ImportedKeys, keys.len(), KEYS_PER_IMPORT_MAX)?;
    for ImportedKey { id, consumer, label, scopes, hash, not_after } in keys {
        let (id, hash, not_after, origin) = (*id, *hash, *not_after, KeyOrigin::Imported);
        add(registry, now, &NewKey { id, consumer, label: label.as_deref(), scopes, hash, not_after, origin })?;
    }
    match keys {
        [] => Ok(Effect::Unchanged),
        [one] => Ok(Effect::changed(one.id, None)),
        [first, ..] => Ok(Effect::changed(format_args!("{} keys from {}", keys.len(), first.id), None)),
    }
}

fn add(registry: &mut Registry, now: Wall, new: &NewKey<'_>) -> Result<(), Refusal> {
    Refusal::if_beyond(Field::LabelBytes, new.label.map_or(0, str::len), LABEL_BYTES_MAX)?;
    Refusal::if_beyond(Field::Labels, new.scopes.len(), LABELS_MAX)?;
    Refusal::if_full(Noun::Key, registry.keys.len(), KEYS_MAX)?;
    if registry.keys.contains_key(&new.id) {
        return Err(Refusal::already_exists(Noun::Key, &new.id));
    }
    let owner = registry.consumers.get(new.consumer).ok_or_else(|| Refusal::not_found(Noun::Consumer, new.consumer))?;
    let consumer = owner.name.clone();
    if new.origin == KeyOrigin::Imported {
        check_hash(registry, new.hash)?;
    }
    let owner = shared_owner(registry, &consumer, new.scopes);
    let fields = KeyFields {
        id: new.id,
        consumer,
        label: new.label.map(Arc::from),
        scopes: owner.scopes.clone(),
        origin: new.origin,
        current: Secret { hash: new.hash, not_after: new.not_after },
        previous: None,
        created_at: now,
        revoked_at: None,
        revision: registry.revision,
    };
    registry.add_key(Key::of(owner, fields));
    Ok(())
}

/// Keys of one consumer mostly have the same scopes, so they share them: a million copies would be the better half of
/// what keys cost. Only the first key is asked, which is enough for the common case and always as fast.
fn shared_owner(registry: &Registry, consumer: &Name, scopes: &BTreeSet<Name>) -> Arc<Owner> {
    match registry.keys_of(consumer).next().map(Key::owner) {
        Some(shared) if shared.scopes.as_deref().map_or_else(|| scopes.is_empty(), |these| these == scopes) => {
            Arc::clone(shared)
        }
        Some(_) | None => {
            let scopes = (!scopes.is_empty()).then(|| Arc::new(scopes.clone()));
            Arc::new(Owner { consumer: consumer.clone(), scopes })
        }
    }
}

/// Gives a key a new secret. The one before stays valid for `overlap_ms`, but never longer than it would have been;
/// the one before that ends now.
pub(crate) fn rotate(
    registry: &mut Registry,
    now: Wall,
    id: KeyId,
    hash: SecretHash,
    overlap_ms: u64,
    not_after: Option<Wall>,
    precondition: Precondition,
) -> Result<Effect, Refusal> {
    let key = find(registry, id, precondition)?;
    if matches!(key.state(now), KeyState::Revoked | KeyState::Expired) {
        return Err(Refusal::KeyRevoked);
    }
    let current = key.current();
    let overlap_end = now.plus_ms(overlap_ms);
    let end = current.not_after.map_or(overlap_end, |end| end.min(overlap_end));
    let rotated = KeyFields {
        revision: registry.revision,
        current: Secret { hash, not_after: not_after.or(current.not_after) },
        previous: (end > now).then(|| Box::new(Secret { hash: current.hash, not_after: Some(end) })),
        ..key.fields()
    };
    let rotated = Key::of(Arc::clone(key.owner()), rotated);
    if key.origin == KeyOrigin::Imported {
        release_hashes(registry, &key);
    }
    registry.keys.insert(rotated.clone());
    if key.origin == KeyOrigin::Imported {
        for secret in rotated.secrets() {
            check_hash(registry, secret.hash)?;
            registry.keys_by_hash.insert(Filed::under(&secret.hash, id));
        }
    }
    Ok(Effect::changed(id, Some(key.revision)))
}

/// Refuses a key for good. It is kept, and an imported one keeps its hash, so that it cannot come back.
pub(crate) fn revoke(
    registry: &mut Registry,
    now: Wall,
    id: KeyId,
    precondition: Precondition,
) -> Result<Effect, Refusal> {
    let key = find(registry, id, precondition)?;
    if key.revoked_at().is_some() {
        return Ok(Effect::Unchanged);
    }
    let revoked = KeyFields { revoked_at: Some(now), revision: registry.revision, ..key.fields() };
    registry.keys.insert(Key::of(Arc::clone(key.owner()), revoked));
    Ok(Effect::changed(id, Some(key.revision)))
}

/// Deletes every key of a consumer. It may have a million: they go at once, for one by one they would hold up everything
/// that is to be applied after them, leases included.
pub(crate) fn delete_all(registry: &mut Registry, consumer: &Name) {
    let ids = registry.ids_filed_under(consumer);
    let (mut by_consumer, mut by_hash) = (Vec::with_capacity(ids.len()), Vec::new());
    registry.keys.remove_all(&ids, |key| {
        let is_its = key.consumer() == consumer;
        if is_its {
            by_consumer.push(Filed::under(consumer, key.id));
            if key.origin == KeyOrigin::Imported {
                by_hash.extend(key.secrets().map(|secret| Filed::under(&secret.hash, key.id)));
            }
        }
        is_its
    });
    by_hash.sort_unstable();
    registry.keys_by_consumer.remove_all(&by_consumer, |_| true);
    registry.keys_by_hash.remove_all(&by_hash, |_| true);
}

fn find(registry: &Registry, id: KeyId, precondition: Precondition) -> Result<Key, Refusal> {
    let key = registry.keys.get(&id).ok_or_else(|| Refusal::not_found(Noun::Key, &id))?;
    precondition.check(Noun::Key, key.revision)?;
    Ok(key.clone())
}

/// No two imported keys may have one hash.
fn check_hash(registry: &Registry, hash: SecretHash) -> Result<(), Refusal> {
    match registry.key_of_hash(&hash) {
        Some(other) => Err(Refusal::already_exists(Noun::Key, &other.id)),
        None => Ok(()),
    }
}

fn release_hashes(registry: &mut Registry, key: &Key) {
    for secret in key.secrets() {
        registry.keys_by_hash.remove(&Filed::under(&secret.hash, key.id));
    }
}

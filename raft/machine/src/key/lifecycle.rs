//! What happens to keys: they are made or imported, rotated, revoked, and go with their consumer. That one ends by its
//! date changes nothing here: readers compare it with the time.

use super::{ImportedKey, Key, KeyId, KeyOrigin, KeyState, Secret, SecretHash};
use crate::{
    apply::Effect,
    cap::{KEYS_MAX, KEYS_PER_IMPORT_MAX, LABEL_BYTES_MAX, LABELS_MAX},
    command::Precondition,
    name::Name,
    outcome::{Field, Noun, Refusal},
    registry::Registry,
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
        claim_hash(registry, new.hash, new.id)?;
    }
    let key = Key {
        id: new.id,
        label: new.label.map(Arc::from),
        scopes: shared_scopes(registry, &consumer, new.scopes),
        consumer: consumer.clone(),
        origin: new.origin,
        current: Secret { hash: new.hash, not_after: new.not_after },
        previous: None,
        created_at: now,
        revoked_at: None,
        revision: registry.revision,
    };
    registry.keys_by_consumer.insert((consumer, new.id));
    registry.keys.insert(new.id, Arc::new(key));
    Ok(())
}

/// Keys of one consumer mostly have the same scopes, so they share them: a million copies would be the better half of
/// what keys cost. Only the first key is asked, which is enough for the common case and always as fast.
pub(crate) fn shared_scopes(
    registry: &Registry,
    consumer: &Name,
    scopes: &BTreeSet<Name>,
) -> Option<Arc<BTreeSet<Name>>> {
    if scopes.is_empty() {
        return None;
    }
    let first = registry.keys_of(consumer).next().and_then(|key| key.scopes.as_ref());
    match first {
        Some(shared) if **shared == *scopes => Some(Arc::clone(shared)),
        Some(_) | None => Some(Arc::new(scopes.clone())),
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
    let mut rotated = Key::clone(&key);
    rotated.revision = registry.revision;
    rotated.current = Secret { hash, not_after: not_after.or(key.current.not_after) };
    let overlap_end = now.plus_ms(overlap_ms);
    let end = key.current.not_after.map_or(overlap_end, |end| end.min(overlap_end));
    rotated.previous = (end > now).then(|| Box::new(Secret { hash: key.current.hash, not_after: Some(end) }));
    if key.origin == KeyOrigin::Imported {
        release_hashes(registry, &key);
        for secret in rotated.secrets() {
            claim_hash(registry, secret.hash, id)?;
        }
    }
    registry.keys.insert(id, Arc::new(rotated));
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
    if key.revoked_at.is_some() {
        return Ok(Effect::Unchanged);
    }
    let revoked = Key { revoked_at: Some(now), revision: registry.revision, ..Key::clone(&key) };
    registry.keys.insert(id, Arc::new(revoked));
    Ok(Effect::changed(id, Some(key.revision)))
}

/// Deletes every key of a consumer.
pub(crate) fn delete_all(registry: &mut Registry, consumer: &Name) {
    let keys: Vec<Arc<Key>> = registry.keys_of(consumer).cloned().collect();
    for key in keys {
        if key.origin == KeyOrigin::Imported {
            release_hashes(registry, &key);
        }
        registry.keys.remove(&key.id);
        registry.keys_by_consumer.remove(&(key.consumer.clone(), key.id));
    }
}

fn find(registry: &Registry, id: KeyId, precondition: Precondition) -> Result<Arc<Key>, Refusal> {
    let key = registry.keys.get(&id).ok_or_else(|| Refusal::not_found(Noun::Key, &id))?;
    precondition.check(Noun::Key, key.revision)?;
    Ok(Arc::clone(key))
}

/// Makes an imported key findable by a hash that no other key may have.
fn claim_hash(registry: &mut Registry, hash: SecretHash, id: KeyId) -> Result<(), Refusal> {
    match registry.keys_by_hash.insert(hash, id) {
        Some(other) => Err(Refusal::already_exists(Noun::Key, &other)),
        None => Ok(()),
    }
}

fn release_hashes(registry: &mut Registry, key: &Key) {
    for secret in key.secrets() {
        registry.keys_by_hash.remove(&secret.hash);
    }
}

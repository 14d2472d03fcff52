//! A key as a node holds it: what all keys have in 88 bytes, what many have in common behind one pointer, and what few
//! have behind another. It is written as [`KeyFields`], which say what each field is.

use super::{KeyFields, KeyId, KeyOrigin, KeyState, Secret, SecretHash};
use crate::{name::Name, time::Wall, tree::Keyed};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc};

/// An API key, as stored. At most two secrets are valid at a time: the newest and, while a rotation overlaps, the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "KeyFields", into = "KeyFields")]
pub struct Key {
    /// See [`KeyFields::id`].
    pub id: KeyId,
    /// See [`KeyFields::origin`].
    pub origin: KeyOrigin,
    hash: SecretHash,
    /// [`NEVER`] if the current secret has no end.
    not_after: Wall,
    created_at: Wall,
    /// See [`KeyFields::revision`].
    pub revision: u64,
    owner: Arc<Owner>,
    rare: Option<Box<Rare>>,
}

/// The end of a secret that has none. As an end of its own it cannot be told from that, and need not: it never comes, and
/// [`Rare::ends_at_last`] keeps it apart where it is written.
const NEVER: Wall = Wall(u64::MAX);

/// What keys of one consumer mostly have in common.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) consumer: Name,
    pub(crate) scopes: Option<Arc<BTreeSet<Name>>>,
}

/// What few keys have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rare {
    label: Option<Arc<str>>,
    previous: Option<Box<Secret>>,
    revoked_at: Option<Wall>,
    ends_at_last: bool,
}

impl Key {
    /// Whose it is.
    #[must_use]
    pub fn consumer(&self) -> &Name {
        &self.owner.consumer
    }

    /// For people.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.rare.as_ref()?.label.as_deref()
    }

    /// What policies know as `context.scopes`.
    #[must_use]
    pub fn scopes(&self) -> Option<&Arc<BTreeSet<Name>>> {
        self.owner.scopes.as_ref()
    }

    /// The secret in force.
    #[must_use]
    pub fn current(&self) -> Secret {
        let has_end = self.not_after != NEVER || self.rare.as_ref().is_some_and(|rare| rare.ends_at_last);
        Secret { hash: self.hash, not_after: has_end.then_some(self.not_after) }
    }

    /// The secret before the last rotation, while it overlaps.
    #[must_use]
    pub fn previous(&self) -> Option<&Secret> {
        self.rare.as_ref()?.previous.as_deref()
    }

    /// The secret in force, and the one before if a rotation keeps it. Either may have ended.
    pub fn secrets(&self) -> impl Iterator<Item = Secret> {
        std::iter::once(self.current()).chain(self.previous().copied())
    }

    /// When it was made.
    #[must_use]
    pub const fn created_at(&self) -> Wall {
        self.created_at
    }

    /// When it was revoked. A revoked key is kept, so that it cannot come back, until its consumer is deleted.
    #[must_use]
    pub fn revoked_at(&self) -> Option<Wall> {
        self.rare.as_ref()?.revoked_at
    }

    /// The state at an instant.
    #[must_use]
    pub fn state(&self, now: Wall) -> KeyState {
        if self.revoked_at().is_some() {
            KeyState::Revoked
        } else if self.current().has_ended(now) {
            KeyState::Expired
        } else if self.previous().is_some_and(|previous| !previous.has_ended(now)) {
            KeyState::Rotating
        } else {
            KeyState::Active
        }
    }

    pub(crate) const fn owner(&self) -> &Arc<Owner> {
        &self.owner
    }

    /// Lets it share what it has in common with others.
    pub(crate) fn share(&mut self, owner: &Arc<Owner>) {
        self.owner = Arc::clone(owner);
    }

    /// A key of this owner; the fields' own consumer and scopes are not looked at.
    pub(crate) fn of(owner: Arc<Owner>, fields: KeyFields) -> Self {
        let KeyFields { id, label, origin, current, previous, created_at, revoked_at, revision, .. } = fields;
        let rare = Rare { label, previous, revoked_at, ends_at_last: current.not_after == Some(NEVER) };
        Self {
            id,
            origin,
            hash: current.hash,
            not_after: current.not_after.unwrap_or(NEVER),
            created_at,
            revision,
            owner,
            rare: (rare != Rare::default()).then(|| Box::new(rare)),
        }
    }

    /// All of it.
    pub(crate) fn fields(&self) -> KeyFields {
        let rare = self.rare.as_deref().cloned().unwrap_or_default();
        KeyFields {
            id: self.id,
            consumer: self.owner.consumer.clone(),
            label: rare.label,
            scopes: self.owner.scopes.clone(),
            origin: self.origin,
            current: self.current(),
            previous: rare.previous,
            created_at: self.created_at,
            revoked_at: rare.revoked_at,
            revision: self.revision,
        }
    }
}

impl Keyed for Key {
    type Key = KeyId;
    fn key(&self) -> KeyId {
        self.id
    }
}

impl From<KeyFields> for Key {
    fn from(fields: KeyFields) -> Self {
        let owner = Owner { consumer: fields.consumer.clone(), scopes: fields.scopes.clone() };
        Self::of(Arc::new(owner), fields)
    }
}

impl From<Key> for KeyFields {
    fn from(key: Key) -> Self {
        key.fields()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A million of them are held: a field more is a decision.
    #[test]
    fn it_is_small() {
        assert_eq!((size_of::<Key>(), size_of::<Rare>()), (88, 48));
    }

    #[test]
    fn every_field_comes_back() {
        let secret = |byte, end: Option<u64>| Secret { hash: SecretHash([byte; 32]), not_after: end.map(Wall) };
        let name = Name::new("acme").unwrap();
        for end in [None, Some(5), Some(u64::MAX)] {
            for rare in [false, true] {
                let fields = KeyFields {
                    id: KeyId([7; 10]),
                    consumer: name.clone(),
                    label: rare.then(|| Arc::from("a label")),
                    scopes: rare.then(|| Arc::new(BTreeSet::from([name.clone()]))),
                    origin: KeyOrigin::Imported,
                    current: secret(1, end),
                    previous: rare.then(|| Box::new(secret(2, end))),
                    created_at: Wall(3),
                    revoked_at: rare.then_some(Wall(4)),
                    revision: 9,
                };
                assert_eq!(Key::from(fields.clone()).fields(), fields);
            }
        }
    }
}

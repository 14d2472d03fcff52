//! What the cluster knows: the part of the state that the data plane and the admin services read. Persistent maps, so a
//! clone costs a few pointers and shares everything.

use crate::{
    authority::{Authority, Phase},
    bucket::Limit,
    consumer::Consumer,
    key::{Key, KeyId, KeyOrigin, SecretHash},
    member::{Member, NodeId},
    name::Name,
    operator::Operator,
    resource::{Document, Kind},
    settings::Settings,
    token::JoinToken,
    tree::{Keyed, Tree},
};
use imbl::OrdMap;
use std::{
    cmp::Ordering,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

/// What the cluster knows. All maps are ordered, so every listing is too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    /// All zero before the first entry.
    pub cluster: [u8; 16],
    /// Grows by one with each change of anything here.
    pub revision: u64,
    /// The revision of the last change of a document or consumer: what a resource file is validated against.
    pub resources_revision: u64,
    /// The behaviour of `apply` in force.
    pub feature_level: u32,
    /// Settings of the whole cluster.
    pub settings: Settings,
    /// The revision of the last change of the settings.
    pub settings_revision: u64,
    /// Callers.
    pub consumers: OrdMap<Name, Arc<Consumer>>,
    /// API keys.
    pub keys: Tree<Key>,
    /// The keys of each consumer: see [`Registry::keys_of`].
    pub keys_by_consumer: Tree<Filed>,
    /// Imported keys, which are found by the hash of the whole credential: see [`Registry::key_of_hash`].
    pub keys_by_hash: Tree<Filed>,
    /// Documents.
    pub documents: OrdMap<(Kind, Name), Document>,
    /// The rules of the limits, one for each document of a limit.
    pub limits: OrdMap<Name, Limit>,
    /// Operators, revoked ones included.
    pub operators: OrdMap<Name, Arc<Operator>>,
    /// Operators by the hash of their certificate, revoked ones included.
    pub operators_by_certificate: OrdMap<[u8; 32], Name>,
    /// Members, leaving ones included.
    pub members: OrdMap<NodeId, Arc<Member>>,
    /// The number that the next member gets.
    pub next_member: NodeId,
    /// Join tokens by the hash of their secret part.
    pub join_tokens: OrdMap<[u8; 32], JoinToken>,
    /// Certificate authorities.
    pub authorities: OrdMap<[u8; 32], Arc<Authority>>,
}

/// Under what else a key is found, in short: a digest stands for what it is, so whoever finds a key asks whether it is
/// the one. Eighteen bytes a key, where a name and an id would be twice that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filed {
    digest: [u8; 8],
    id: KeyId,
}

impl Ord for Filed {
    /// The order of the bytes, as numbers.
    fn cmp(&self, other: &Self) -> Ordering {
        let digest = u64::from_be_bytes(self.digest).cmp(&u64::from_be_bytes(other.digest));
        digest.then_with(|| self.id.cmp(&other.id))
    }
}

impl PartialOrd for Filed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Filed {
    pub(crate) fn under(what: &impl Hash, id: KeyId) -> Self {
        // Without a seed: the same in every process. What it is never leaves the process, and only finding depends on it.
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        Self { digest: hasher.finish().to_be_bytes(), id }
    }

    /// The same for another key.
    pub(crate) const fn with(self, id: KeyId) -> Self {
        Self { id, ..self }
    }

    pub(crate) const fn id(&self) -> KeyId {
        self.id
    }

    pub(crate) fn is_under_the_same(&self, other: &Self) -> bool {
        self.digest == other.digest
    }

    fn all_under<'a, W: Hash>(index: &'a Tree<Self>, what: &W) -> impl Iterator<Item = KeyId> + use<'a, W> {
        let first = Self::under(what, KeyId([0; 10]));
        index.from(&first).take_while(move |filed| filed.digest == first.digest).map(|filed| filed.id)
    }
}

impl Keyed for Filed {
    type Key = Self;
    fn key(&self) -> Self {
        *self
    }
}

impl Registry {
    /// Whether the first entry has been applied.
    #[must_use]
    pub fn is_initialized(&self) -> bool {
        self.next_member > 0
    }

    /// The documents of a kind, by name.
    pub fn documents_of(&self, kind: Kind) -> impl Iterator<Item = (&Name, &Document)> {
        // Every name begins with a letter or digit, and this is the least of them.
        let first = Name::least();
        self.documents
            .range((kind, first)..)
            .take_while(move |((of, _), _)| *of == kind)
            .map(|((_, name), document)| (name, document))
    }

    /// A document, if there is one.
    #[must_use]
    pub fn document(&self, kind: Kind, name: &Name) -> Option<&Document> {
        self.documents.get(&(kind, name.clone()))
    }

    /// Adds a key, and files it under what it is found by.
    pub fn add_key(&mut self, key: Key) {
        self.keys_by_consumer.insert(Filed::under(key.consumer(), key.id));
        if key.origin == KeyOrigin::Imported {
            for secret in key.secrets() {
                self.keys_by_hash.insert(Filed::under(&secret.hash, key.id));
            }
        }
        self.keys.insert(key);
    }

    /// The keys of a consumer, by id.
    pub fn keys_of<'a>(&'a self, consumer: &'a Name) -> impl Iterator<Item = &'a Key> {
        Filed::all_under(&self.keys_by_consumer, consumer)
            .filter_map(|id| self.keys.get(&id))
            .filter(move |key| key.consumer() == consumer)
    }

    /// The ids of the keys of a consumer, in order, and maybe a few of others.
    pub(crate) fn ids_filed_under(&self, consumer: &Name) -> Vec<KeyId> {
        Filed::all_under(&self.keys_by_consumer, consumer).collect()
    }

    /// The imported key whose whole credential has this hash. It may be revoked or ended, as may any key.
    #[must_use]
    pub fn key_of_hash(&self, hash: &SecretHash) -> Option<&Key> {
        Filed::all_under(&self.keys_by_hash, hash)
            .filter_map(|id| self.keys.get(&id))
            .find(|key| key.secrets().any(|secret| secret.hash == *hash))
    }

    /// The operator whose certificate this is, if it is in force.
    #[must_use]
    pub fn operator_of_certificate(&self, sha256: &[u8; 32]) -> Option<&Arc<Operator>> {
        self.operators.get(self.operators_by_certificate.get(sha256)?).filter(|operator| operator.revoked_at.is_none())
    }

    /// The authority that signs new certificates.
    #[must_use]
    pub fn active_authority(&self) -> Option<&Arc<Authority>> {
        self.authorities.values().find(|authority| authority.phase == Phase::Active)
    }
}

//! What the cluster knows: the part of the state that the data plane and the admin services read. Persistent maps, so a
//! clone costs a few pointers and shares everything.

use crate::{
    authority::{Authority, Phase},
    bucket::Limit,
    consumer::Consumer,
    key::{Key, KeyId, SecretHash},
    member::{Member, NodeId},
    name::Name,
    operator::Operator,
    resource::{Document, Kind},
    settings::Settings,
    token::JoinToken,
};
use imbl::{OrdMap, OrdSet};
use std::sync::Arc;

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
    pub keys: OrdMap<KeyId, Arc<Key>>,
    /// The keys of each consumer.
    pub keys_by_consumer: OrdSet<(Name, KeyId)>,
    /// Imported keys, which are found by the hash of the whole credential.
    pub keys_by_hash: OrdMap<SecretHash, KeyId>,
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

    /// The keys of a consumer, by id.
    pub fn keys_of<'a>(&'a self, consumer: &'a Name) -> impl Iterator<Item = &'a Arc<Key>> {
        self.keys_by_consumer
            .range((consumer.clone(), KeyId([0; 10]))..=(consumer.clone(), KeyId([0xff; 10])))
            .filter_map(|(_, id)| self.keys.get(id))
    }

    /// The imported key whose whole credential has this hash. It may be revoked or ended, as may any key.
    #[must_use]
    pub fn key_of_hash(&self, hash: &SecretHash) -> Option<&Arc<Key>> {
        self.keys.get(self.keys_by_hash.get(hash)?)
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

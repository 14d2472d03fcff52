//! The state as a set of records, each with a key: what checkpoints, snapshots and digests are made of. A snapshot of
//! a million keys is written record by record, and a checkpoint writes only the records that changed.

use crate::{
    allowance::{BucketId, Session},
    audit::AuditEntry,
    authority::Authority,
    bucket::{AllowanceId, Bucket, Limit},
    consumer::Consumer,
    invariant,
    key::{Key, KeyId, KeyOrigin, Owner},
    member::{Member, NodeId},
    name::Name,
    operator::Operator,
    registry::{Filed, Registry},
    request::{Remembered, RequestId},
    resource::{Document, Kind},
    settings::Settings,
    state::State,
    time::At,
    token::JoinToken,
    tree::{self, Builder, Difference, Tree},
};
use imbl::{OrdMap, ordmap::DiffItem};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc};

/// Names a record. The order of variants is the order on disk; new ones are added at the end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RecordKey {
    /// The one [`Record::Cluster`].
    Cluster,
    /// A consumer.
    Consumer(Name),
    /// An API key.
    Key(KeyId),
    /// A document.
    Document(Kind, Name),
    /// An operator.
    Operator(Name),
    /// A member.
    Member(NodeId),
    /// A join token.
    JoinToken([u8; 32]),
    /// A certificate authority.
    Authority([u8; 32]),
    /// An audit entry.
    Audit(u64),
    /// A remembered request.
    Request(RequestId),
    /// The rule of a limit.
    Limit(Name),
    /// A bucket.
    Bucket(BucketId),
    /// The last request of a node for allowances.
    NodeSession(NodeId),
    /// The one [`Record::Ledger`].
    Ledger,
}

/// A record. Derived indexes are not stored: they follow from the records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The scalars of the state.
    Cluster(ClusterRecord),
    /// A consumer.
    Consumer(Arc<Consumer>),
    /// An API key.
    Key(Key),
    /// A document.
    Document(Document),
    /// An operator.
    Operator(Arc<Operator>),
    /// A member.
    Member(Arc<Member>),
    /// A join token.
    JoinToken(JoinToken),
    /// A certificate authority.
    Authority(Arc<Authority>),
    /// An audit entry.
    Audit(Arc<AuditEntry>),
    /// A remembered request.
    Request(Remembered),
    /// The rule of a limit.
    Limit(Limit),
    /// A bucket.
    Bucket(Arc<Bucket>),
    /// The last request of a node for allowances.
    NodeSession(Session),
    /// The scalars of the buckets: they change with each grant, the cluster's do not.
    Ledger(LedgerRecord),
}

/// The scalars of the state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// See [`crate::State::at`].
    pub at: At,
    /// See [`crate::Registry::cluster`].
    pub cluster: [u8; 16],
    /// See [`crate::Registry::revision`].
    pub revision: u64,
    /// See [`crate::Registry::resources_revision`].
    pub resources_revision: u64,
    /// See [`crate::Registry::feature_level`].
    pub feature_level: u32,
    /// See [`crate::Registry::settings`].
    pub settings: Settings,
    /// See [`crate::Registry::settings_revision`].
    pub settings_revision: u64,
    /// See [`crate::Registry::next_member`].
    pub next_member: NodeId,
    /// See [`crate::State::next_audit`].
    pub next_audit: u64,
}

/// The scalars of the buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRecord {
    /// See [`crate::allowance::Buckets::next_allowance`].
    pub next_allowance: AllowanceId,
    /// See [`crate::State::swept`].
    pub swept: Option<BucketId>,
}

/// Records that are not those of a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the records do not make a state: {what}")]
pub struct InvalidRecords {
    /// What is wrong with them.
    pub what: &'static str,
}

impl State {
    /// Every record of the state, in the order of their keys.
    pub fn records(&self) -> impl Iterator<Item = (RecordKey, Record)> + '_ {
        let registry = &self.registry;
        std::iter::once((RecordKey::Cluster, Record::Cluster(self.cluster_record())))
            .chain(registry.consumers.iter().map(consumer))
            .chain(registry.keys.iter().map(|key| (RecordKey::Key(key.id), Record::Key(key.clone()))))
            .chain(registry.documents.iter().map(document))
            .chain(registry.operators.iter().map(operator))
            .chain(registry.members.iter().map(member))
            .chain(registry.join_tokens.iter().map(join_token))
            .chain(registry.authorities.iter().map(authority))
            .chain(self.audit.iter().map(audit))
            .chain(self.requests.iter().map(request))
            .chain(registry.limits.iter().map(limit))
            .chain(self.buckets.buckets.iter().map(bucket))
            .chain(self.buckets.sessions.iter().map(session))
            .chain(std::iter::once((RecordKey::Ledger, Record::Ledger(self.ledger_record()))))
    }

    /// What has changed since `earlier`, in the order of keys: a record that is new or different, or `None` for one that
    /// is gone. Shared parts of the maps are skipped, so the cost follows the number of changes.
    #[must_use]
    pub fn changes_since(&self, earlier: &Self) -> Vec<(RecordKey, Option<Record>)> {
        let mut changes = Vec::new();
        let cluster = self.cluster_record();
        if cluster != earlier.cluster_record() {
            changes.push((RecordKey::Cluster, Some(Record::Cluster(cluster))));
        }
        let (now, then) = (&self.registry, &earlier.registry);
        add_differences(&mut changes, &then.consumers, &now.consumers, consumer);
        tree::differences(&then.keys, &now.keys, |difference| {
            changes.push(match difference {
                Difference::Put(key) => (RecordKey::Key(key.id), Some(Record::Key(key.clone()))),
                Difference::Gone(key) => (RecordKey::Key(key.id), None),
            });
        });
        add_differences(&mut changes, &then.documents, &now.documents, document);
        add_differences(&mut changes, &then.operators, &now.operators, operator);
        add_differences(&mut changes, &then.members, &now.members, member);
        add_differences(&mut changes, &then.join_tokens, &now.join_tokens, join_token);
        add_differences(&mut changes, &then.authorities, &now.authorities, authority);
        add_differences(&mut changes, &earlier.audit, &self.audit, audit);
        add_differences(&mut changes, &earlier.requests, &self.requests, request);
        add_differences(&mut changes, &then.limits, &now.limits, limit);
        add_differences(&mut changes, &earlier.buckets.buckets, &self.buckets.buckets, bucket);
        add_differences(&mut changes, &earlier.buckets.sessions, &self.buckets.sessions, session);
        let ledger = self.ledger_record();
        if ledger != earlier.ledger_record() {
            changes.push((RecordKey::Ledger, Some(Record::Ledger(ledger))));
        }
        changes
    }

    /// The state that these records make, in whatever order they come.
    ///
    /// # Errors
    /// [`InvalidRecords`] if they are not the records of a state: hostile bytes end here, never in a panic.
    pub fn from_records(records: impl IntoIterator<Item = (RecordKey, Record)>) -> Result<Self, InvalidRecords> {
        let mut state = Self::default();
        let (mut has_cluster, mut has_ledger) = (false, false);
        let mut keys = Keys::default();
        for (key, record) in records {
            let is_new = match (key, record) {
                (RecordKey::Cluster, Record::Cluster(cluster)) => {
                    state.set_cluster_record(cluster);
                    !std::mem::replace(&mut has_cluster, true)
                }
                (RecordKey::Key(id), Record::Key(key)) if id == key.id => keys.add(key),
                (RecordKey::Operator(name), Record::Operator(operator)) => {
                    let registry = &mut state.registry;
                    registry.operators_by_certificate.insert(operator.certificate_sha256, name.clone());
                    registry.operators.insert(name, operator).is_none()
                }
                (RecordKey::Consumer(name), Record::Consumer(it)) => {
                    state.registry.consumers.insert(name, it).is_none()
                }
                (RecordKey::Document(kind, name), Record::Document(it)) => {
                    state.registry.documents.insert((kind, name), it).is_none()
                }
                (RecordKey::Member(id), Record::Member(it)) => state.registry.members.insert(id, it).is_none(),
                (RecordKey::JoinToken(hash), Record::JoinToken(it)) => {
                    state.registry.join_tokens.insert(hash, it).is_none()
                }
                (RecordKey::Authority(hash), Record::Authority(it)) => {
                    state.registry.authorities.insert(hash, it).is_none()
                }
                (RecordKey::Audit(number), Record::Audit(it)) => state.audit.insert(number, it).is_none(),
                (RecordKey::Request(id), Record::Request(it)) => state.requests.insert(id, it).is_none(),
                (RecordKey::Limit(name), Record::Limit(it)) => state.registry.limits.insert(name, it).is_none(),
                (RecordKey::Bucket(mut id), Record::Bucket(it)) => {
                    if let Some((name, _)) = state.registry.limits.get_key_value(&id.limit) {
                        id.limit = name.clone();
                    }
                    state.buckets.buckets.insert(id, it).is_none()
                }
                (RecordKey::NodeSession(id), Record::NodeSession(it)) => {
                    state.buckets.sessions.insert(id, it).is_none()
                }
                (RecordKey::Ledger, Record::Ledger(ledger)) => {
                    state.buckets.next_allowance = ledger.next_allowance;
                    state.swept = ledger.swept;
                    !std::mem::replace(&mut has_ledger, true)
                }
                _ => return Err(InvalidRecords { what: "a record is not what its key says" }),
            };
            if !is_new {
                return Err(InvalidRecords { what: "a record comes twice" });
            }
        }
        if !has_cluster {
            return Err(InvalidRecords { what: "the record of the cluster is missing" });
        }
        if !has_ledger {
            return Err(InvalidRecords { what: "the record of the ledger is missing" });
        }
        keys.file_into(&mut state.registry)?;
        match invariant::find_broken_record(&state) {
            Ok(()) => Ok(state),
            Err(broken) => Err(InvalidRecords { what: broken.rule }),
        }
    }

    fn cluster_record(&self) -> ClusterRecord {
        let registry = &self.registry;
        ClusterRecord {
            at: self.at,
            cluster: registry.cluster,
            revision: registry.revision,
            resources_revision: registry.resources_revision,
            feature_level: registry.feature_level,
            settings: registry.settings.clone(),
            settings_revision: registry.settings_revision,
            next_member: registry.next_member,
            next_audit: self.next_audit,
        }
    }

    fn ledger_record(&self) -> LedgerRecord {
        LedgerRecord { next_allowance: self.buckets.next_allowance, swept: self.swept.clone() }
    }

    fn set_cluster_record(&mut self, record: ClusterRecord) {
        let registry = &mut self.registry;
        ClusterRecord {
            at: self.at,
            cluster: registry.cluster,
            revision: registry.revision,
            resources_revision: registry.resources_revision,
            feature_level: registry.feature_level,
            settings: registry.settings,
            settings_revision: registry.settings_revision,
            next_member: registry.next_member,
            next_audit: self.next_audit,
        } = record;
    }
}

/// The keys of a state in the making: a million of them are the better part of what it takes to start.
#[derive(Default)]
struct Keys {
    keys: Builder<Key>,
    /// What some of them have in common: written, each has copies of its own.
    owners: BTreeSet<Arc<Owner>>,
}

impl Keys {
    /// Whether there was none with its id.
    fn add(&mut self, mut key: Key) -> bool {
        match self.owners.get(key.owner()) {
            Some(owner) => key.share(owner),
            None => drop(self.owners.insert(Arc::clone(key.owner()))),
        }
        self.keys.push(key).is_none()
    }

    /// Puts them where they belong, and files them under what they are found by.
    fn file_into(self, registry: &mut Registry) -> Result<(), InvalidRecords> {
        registry.keys = self.keys.finish();
        let mut by_consumer = Vec::with_capacity(registry.keys.len());
        let mut by_hash = Vec::new();
        let mut digested: Option<(&Arc<Owner>, Filed)> = None;
        for key in &registry.keys {
            // Most have the owner of the one before.
            let filed = match digested {
                Some((owner, filed)) if Arc::ptr_eq(owner, key.owner()) => filed.with(key.id),
                _ => Filed::under(key.consumer(), key.id),
            };
            digested = Some((key.owner(), filed));
            by_consumer.push(filed);
            if key.origin == KeyOrigin::Imported {
                by_hash.extend(key.secrets().map(|secret| Filed::under(&secret.hash, key.id)));
            }
        }
        by_consumer.sort_unstable();
        by_hash.sort_unstable();
        for alike in by_hash.chunk_by(Filed::is_under_the_same).filter(|alike| alike.len() > 1) {
            let ids: BTreeSet<KeyId> = alike.iter().map(Filed::id).collect();
            let mut hashes = BTreeSet::new();
            let mut secrets = ids.iter().filter_map(|id| registry.keys.get(id)).flat_map(Key::secrets);
            if !secrets.all(|secret| hashes.insert(secret.hash)) {
                return Err(InvalidRecords { what: "two imported keys have one hash" });
            }
        }
        (registry.keys_by_consumer, registry.keys_by_hash) = (Tree::from_iter(by_consumer), Tree::from_iter(by_hash));
        Ok(())
    }
}

fn add_differences<K: Ord + Clone, V: PartialEq + Clone>(
    changes: &mut Vec<(RecordKey, Option<Record>)>,
    earlier: &OrdMap<K, V>,
    now: &OrdMap<K, V>,
    entry: impl Fn((&K, &V)) -> (RecordKey, Record),
) {
    changes.extend(earlier.diff(now).map(|difference| match difference {
        DiffItem::Add(key, value) | DiffItem::Update { new: (key, value), .. } => {
            let (key, record) = entry((key, value));
            (key, Some(record))
        }
        DiffItem::Remove(key, value) => (entry((key, value)).0, None),
    }));
}

fn consumer((name, consumer): (&Name, &Arc<Consumer>)) -> (RecordKey, Record) {
    (RecordKey::Consumer(name.clone()), Record::Consumer(Arc::clone(consumer)))
}

fn document(((kind, name), document): (&(Kind, Name), &Document)) -> (RecordKey, Record) {
    (RecordKey::Document(*kind, name.clone()), Record::Document(document.clone()))
}

fn operator((name, operator): (&Name, &Arc<Operator>)) -> (RecordKey, Record) {
    (RecordKey::Operator(name.clone()), Record::Operator(Arc::clone(operator)))
}

fn member((id, member): (&NodeId, &Arc<Member>)) -> (RecordKey, Record) {
    (RecordKey::Member(*id), Record::Member(Arc::clone(member)))
}

fn join_token((hash, token): (&[u8; 32], &JoinToken)) -> (RecordKey, Record) {
    (RecordKey::JoinToken(*hash), Record::JoinToken(token.clone()))
}

fn authority((hash, authority): (&[u8; 32], &Arc<Authority>)) -> (RecordKey, Record) {
    (RecordKey::Authority(*hash), Record::Authority(Arc::clone(authority)))
}

fn audit((number, entry): (&u64, &Arc<AuditEntry>)) -> (RecordKey, Record) {
    (RecordKey::Audit(*number), Record::Audit(Arc::clone(entry)))
}

fn request((id, remembered): (&RequestId, &Remembered)) -> (RecordKey, Record) {
    (RecordKey::Request(*id), Record::Request(remembered.clone()))
}

fn limit((name, limit): (&Name, &Limit)) -> (RecordKey, Record) {
    (RecordKey::Limit(name.clone()), Record::Limit(*limit))
}

fn bucket((id, bucket): (&BucketId, &Arc<Bucket>)) -> (RecordKey, Record) {
    (RecordKey::Bucket(id.clone()), Record::Bucket(Arc::clone(bucket)))
}

fn session((id, session): (&NodeId, &Session)) -> (RecordKey, Record) {
    (RecordKey::NodeSession(*id), Record::NodeSession(*session))
}

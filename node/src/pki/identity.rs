//! What a data directory says of the node it belongs to: `node.json`. It is written when a directory is made by `init` or
//! `join`, last of all, so a directory that has it is whole.

use super::{
    PkiError,
    store::{Permissions, write},
};
use machine::{Name, member::NodeId};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Who the node is that a data directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The form of this file.
    format: u32,
    /// The cluster.
    #[serde(with = "cluster_hex")]
    pub cluster: [u8; 16],
    /// The node's number, for life.
    pub node: NodeId,
    /// The node's name, for life.
    pub name: Name,
    /// How the directory was made.
    pub origin: Origin,
    /// Whether the node has taken part in the cluster: from then on an empty log means that data was lost.
    pub took_part: bool,
    /// Where the other nodes were when this one joined: asked until the node's own state says where they are.
    pub peers: Vec<Peer>,
    /// Whether certificates of the cluster are signed outside: nobody in it holds the key of its authority.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub signed_outside: bool,
}

/// How a data directory was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// By `init`: the node was a cluster's first.
    Init,
    /// By `join`.
    Join,
}

/// Another node, as it was when this one joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its number.
    pub node: NodeId,
    /// `host:port` of its cluster listener.
    pub address: String,
}

const FORMAT: u32 = 1;
/// A cluster has at most [`machine::cap::MEMBERS_MAX`] nodes: a larger file is no identity.
const FILE_BYTES_MAX: u64 = 256 * 1024;

impl Identity {
    /// Of a node that has not taken part yet.
    #[must_use]
    pub const fn new(cluster: [u8; 16], node: NodeId, name: Name, origin: Origin, peers: Vec<Peer>) -> Self {
        Self { format: FORMAT, cluster, node, name, origin, took_part: false, peers, signed_outside: false }
    }

    /// The same node, once it has taken part.
    #[must_use]
    pub fn after_taking_part(self) -> Self {
        Self { took_part: true, ..self }
    }

    /// The same node, of a cluster whose certificates are signed outside.
    #[must_use]
    pub fn with_certificates_from_outside(self) -> Self {
        Self { signed_outside: true, ..self }
    }

    /// Reads the file; `None` if there is none.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or was written by a newer release.
    pub fn load(file: &Path) -> Result<Option<Self>, PkiError> {
        let length = match std::fs::metadata(file) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(PkiError::File { file: file.to_owned(), source }),
        };
        let damaged = |what: String| PkiError::Damaged { file: file.to_owned(), what };
        if length > FILE_BYTES_MAX {
            return Err(damaged("it is too large to be the identity of a node".to_owned()));
        }
        let bytes = std::fs::read(file).map_err(|source| PkiError::File { file: file.to_owned(), source })?;
        let identity: Self = serde_json::from_slice(&bytes)
            .map_err(|error| damaged(format!("it is not the identity of a node: {error}")))?;
        if identity.format != FORMAT {
            return Err(damaged(format!("it has form {}, and this release knows {FORMAT}", identity.format)));
        }
        Ok(Some(identity))
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn save(&self, file: &Path) -> Result<(), PkiError> {
        let mut json = serde_json::to_vec_pretty(self)
            .map_err(|error| PkiError::Damaged { file: file.to_owned(), what: error.to_string() })?;
        json.push(b'\n');
        write(file, &json, Permissions::Readable)
    }
}

mod cluster_hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(cluster: &[u8; 16], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(cluster))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 16], D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut cluster = [0; 16];
        hex::decode_to_slice(text, &mut cluster).map_err(D::Error::custom)?;
        Ok(cluster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_and_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("node.json");
        assert_eq!(Identity::load(&file).unwrap(), None);
        let peers = vec![Peer { node: 1, address: "a:1".to_owned() }];
        let identity = Identity::new([9; 16], 4, Name::new("n4").unwrap(), Origin::Join, peers);
        identity.save(&file).unwrap();
        assert!(!std::fs::read_to_string(&file).unwrap().contains("outside"), "an older release reads it too");
        assert_eq!(Identity::load(&file).unwrap(), Some(identity.clone()));
        let identity = identity.with_certificates_from_outside();
        identity.save(&file).unwrap();
        assert_eq!(Identity::load(&file).unwrap(), Some(identity));
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("node.json");
        for text in ["", "{}", "{\"format\":2,\"cluster\":\"00\"}"] {
            std::fs::write(&file, text).unwrap();
            let error = Identity::load(&file).unwrap_err().to_string();
            assert!(error.contains("node.json: it is not the identity"), "{error}");
        }
    }
}

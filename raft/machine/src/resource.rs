//! Named documents: routes, upstreams, policies and whatever else the data plane gives meaning to. The core stores them
//! as bytes with a revision; their typed form lives in the node, so a new option never touches consensus.

use crate::name::Name;
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// What a document describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Settings that routes inherit; one document, named `defaults`.
    Defaults,
    /// Where requests go.
    Upstream,
    /// Which requests go there.
    Route,
    /// A Cedar policy.
    Policy,
    /// A token bucket or quota.
    Limit,
    /// Who signs the tokens that are accepted.
    Issuer,
}

impl Kind {
    /// All kinds, in the order in which a file lists them.
    pub const ALL: [Self; 6] = [Self::Defaults, Self::Upstream, Self::Limit, Self::Issuer, Self::Route, Self::Policy];

    /// The singular, as messages and JSON name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Defaults => "defaults",
            Self::Upstream => "upstream",
            Self::Route => "route",
            Self::Policy => "policy",
            Self::Limit => "limit",
            Self::Issuer => "issuer",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A document, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// The canonical JSON that the node wrote; opaque here.
    pub bytes: Arc<[u8]>,
    /// The cluster revision of the last change.
    pub revision: u64,
}

/// One edit of a resource file that is applied as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Creates or replaces a document.
    PutDocument {
        /// What it describes.
        kind: Kind,
        /// Unique in its kind.
        name: Name,
        /// Its bytes, at most [`crate::cap::DOCUMENT_BYTES_MAX`].
        bytes: Arc<[u8]>,
    },
    /// Deletes a document.
    DeleteDocument {
        /// What it describes.
        kind: Kind,
        /// Its name.
        name: Name,
    },
    /// Creates a consumer or replaces its roles and attributes; whether it is enabled stays as it is.
    PutConsumer {
        /// Unique in the cluster.
        name: Name,
        /// What the file says of it.
        spec: crate::consumer::ConsumerSpec,
    },
    /// Deletes a consumer and every key of it.
    DeleteConsumer {
        /// Its name.
        name: Name,
    },
}

//! Resource documents: what operators write, as the data plane understands it. A file becomes typed resources
//! ([`parse()`]), resources become changes against what the cluster holds ([`plan()`]), and what the cluster holds becomes
//! tables that answer a request ([`compile`]). The core stores documents as bytes and never looks inside.
//!
//! Everything here is a pure function of the text and the registry; nothing is proposed or published from here.

pub(crate) mod compile;
pub(crate) mod document;
mod export;
mod parse;
pub mod path;
mod pattern;
mod plan;
pub(crate) mod policy;
pub(crate) mod quantity;
mod read;
mod rule;
pub(crate) mod subject;
pub(crate) mod table;
mod tree;
pub(crate) mod whole;

pub use crate::gateway::{Counted, Explanation, Imagined, Presented, explain};
pub use export::{document_json, export};
pub use parse::{ResourceFile, parse};
pub use plan::{delete, plan};

use document::{Defaults, Resource};
use machine::{Name, Registry, resource::Kind};
use std::{fmt, str::FromStr};

/// Something that a resource file can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Noun {
    /// A caller.
    Consumer,
    /// A document.
    Document(Kind),
}

impl Noun {
    /// The singular, as messages and JSON name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Consumer => "consumer",
            Self::Document(kind) => kind.as_str(),
        }
    }

    /// The section of a resource file.
    #[must_use]
    pub const fn section(self) -> &'static str {
        match self {
            Self::Consumer => "consumers",
            Self::Document(Kind::Defaults) => "defaults",
            Self::Document(Kind::Upstream) => "upstreams",
            Self::Document(Kind::Route) => "routes",
            Self::Document(Kind::Policy) => "policies",
            Self::Document(Kind::Limit) => "limits",
            Self::Document(Kind::Issuer) => "issuers",
        }
    }
}

impl fmt::Display for Noun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Noun {
    type Err = UnknownNoun;
    /// Reads the singular or the plural.
    fn from_str(text: &str) -> Result<Self, UnknownNoun> {
        std::iter::once(Self::Consumer)
            .chain(Kind::ALL.map(Self::Document))
            .find(|noun| noun.as_str() == text || noun.section() == text)
            .ok_or_else(|| UnknownNoun(text.to_owned()))
    }
}

/// Whether a node without authority serves some route, by the state that it has.
#[must_use]
pub fn serves_isolated(registry: &Registry) -> bool {
    let of_kind =
        |kind| registry.documents_of(kind).filter_map(move |(name, document)| whole::stored(kind, name, document).ok());
    let defaults = of_kind(Kind::Defaults).find_map(|resource| match resource {
        Resource::Defaults(defaults) => Some(defaults),
        _ => None,
    });
    let defaults = defaults.unwrap_or_else(Defaults::default);
    of_kind(Kind::Route).any(|resource| match resource {
        Resource::Route(route) => compile::serves_isolated(Some(&route), &defaults),
        _ => false,
    })
}

/// A kind of resource that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no kind of resource {0:?}: it is one of consumer, route, upstream, policy, limit, issuer, defaults")]
pub struct UnknownNoun(pub String);

/// A place in a resource file, and what is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As the client named it.
    pub file: String,
    /// From 1; 0 where it is not known.
    pub line: u32,
    /// From 1, in characters; 0 where it is not known.
    pub column: u32,
    /// `routes.orders.upstream`; empty for the file as a whole.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        f.write_str(": ")?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// What a plan does with one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is new.
    Create,
    /// It is replaced.
    Update,
    /// It goes.
    Delete,
}

impl Action {
    /// As JSON names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// One line of a plan, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// What kind of thing.
    pub noun: Noun,
    /// Its name.
    pub name: Name,
    /// What happens to it.
    pub action: Action,
    /// A unified diff of its YAML.
    pub diff: String,
}

/// What a resource file does to a cluster.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What to propose, in this order, in one command.
    pub changes: Vec<machine::resource::Change>,
    /// The same for people.
    pub listing: Vec<Listing>,
    /// What is allowed and may be a mistake.
    pub warnings: Vec<Place>,
    /// The resources revision that the plan was made against.
    pub validated_against: u64,
}

/// Why a resource cannot be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeleteError {
    /// There is none of that name.
    NotFound,
    /// Others need it: the places say who. The file name is empty.
    Referenced(Vec<Place>),
}

/// One resource, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Canonical JSON, as a resource file would say it.
    pub json: String,
    /// The cluster revision of the last change.
    pub revision: u64,
}

//! Who gets how many tokens: the requests of all nodes, gathered by the leader into one entry, served together.
//!
//! A node asks for combinations: a request under several limits needs tokens of all of them or is of no use (granted
//! one by one when scarce, utilisation fell to 3 % in the model).
//!
//! Here is what nodes say and are told. [`Buckets`] serves it, step by step; `desk` has the buckets that one entry
//! touches on its table, and `round` divides what is there.

mod buckets;
mod desk;
mod round;

pub use buckets::{Buckets, Session};

use crate::{
    bucket::{AllowanceId, Incarnation, Spent},
    cap::{PARTS_PER_WANT_MAX, SUBJECT_BYTES_MAX},
    member::NodeId,
    name::Name,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A limit for one subject.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BucketId {
    /// Which limit.
    pub limit: Name,
    /// Whom it counts: what the data plane made of `per:`.
    pub subject: Arc<[u8]>,
}

/// What one node reports and wants, once a cycle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acquire {
    /// Who asks.
    pub node: NodeId,
    /// Which process of it.
    pub incarnation: Incarnation,
    /// Counts the requests of the process from 1. A repeated one is answered again and grants nothing new.
    pub request: u64,
    /// What it has spent, by bucket.
    pub reports: Vec<(BucketId, Spent)>,
    /// What it wants.
    pub wants: Vec<Want>,
}

/// A combination of limits under which a node has requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// The limits, with what one request costs in each.
    pub parts: Vec<Part>,
    /// Requests that wait for tokens now.
    pub waiting: u64,
    /// Requests that are expected until the next answer could arrive, an election included.
    pub ahead: u64,
}

/// One limit of a combination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The bucket.
    pub bucket: BucketId,
    /// Tokens that one request costs; at least 1.
    pub cost: u64,
}

/// The answer to one [`Acquire`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// New allowances.
    pub grants: Vec<Grant>,
    /// Buckets that could not give all that was waited for.
    pub scarce: Vec<Scarce>,
}

/// A new allowance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Of which bucket.
    pub bucket: BucketId,
    /// Its number.
    pub allowance: AllowanceId,
    /// Tokens.
    pub amount: u64,
    /// How long it may be spent, in microseconds from when the request was sent.
    pub ttl_us: u64,
    /// What was left of the bucket after this entry, for whoever wants it: what clients are told.
    pub left: u64,
}

/// A bucket that could not give all that was waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scarce {
    /// Which bucket.
    pub bucket: BucketId,
    /// When the next request could be served, in microseconds from now: until then the node refuses from memory.
    pub due_us: u64,
}

impl BucketId {
    /// Whether it can name a bucket.
    fn is_sound(&self) -> bool {
        self.subject.len() <= SUBJECT_BYTES_MAX
    }
}

impl Want {
    /// Whether it can be served at all.
    fn is_sound(&self) -> bool {
        (1..=PARTS_PER_WANT_MAX).contains(&self.parts.len()) && self.parts.iter().all(|part| part.bucket.is_sound())
    }
}

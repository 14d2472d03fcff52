//! What can happen in a run, as its history says it. Times are the harness's monotonic microseconds, see
//! [`super::Recorder::now_us`]; an event is dated by its end, and what takes time says when it began.
//!
//! Names: a *node* is named by its number in the cluster, a *credential* by what the harness calls one secret of a key
//! (`k7#2`, the second secret of the key `k7`), an *object* of the admin API by its kind and name (`key/k7`,
//! `consumer/acme`, `limit/burst`). A secret itself is never in a history.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A name that many events share.
pub type Text = Arc<str>;

/// The value of a key's object once it is revoked.
pub const REVOKED: &str = "revoked";

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it was over.
    pub at_us: u64,
    /// What it was.
    pub what: What,
}

/// What an event says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// The first event: what runs.
    Run(Run),
    /// A step in a fault's life.
    Fault(Fault),
    /// What a route is: before its first request, and again when it changes.
    Route(Route),
    /// What a limit is, and when it became so.
    Limit(Limit),
    /// What a credential is: once the harness has it.
    Credential(Credential),
    /// A client's request, when it ended.
    Request(Request),
    /// The upstream saw a request: it was admitted.
    Arrival(Arrival),
    /// One line of a node's access log, read after the run.
    Logged(Logged),
    /// An operation of the admin API, when its last attempt ended.
    Admin(Admin),
    /// What a node said of itself.
    Observed(Observed),
    /// One entry of the audit log, read after everything settled.
    Audited(Audited),
    /// Every fault is healed, and the workload has stopped. What follows is how the cluster comes back.
    Healed,
    /// The cluster has come back, or had all the time that it gets for it. What follows is judged as its final state:
    /// reads of every object that was ever written, what every node says of itself (asked until all say a digest of one
    /// index), every credential shown to every node on a route without limits.
    Settled {
        /// The members there are now.
        nodes: Vec<u64>,
    },
    /// What a limit let through under more demand than it admits, after everything settled.
    FullRate(FullRate),
    /// The last event: nothing is missing.
    End,
}

/// What runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// What repeats it.
    pub seed: u64,
    /// The numbers of the nodes at the start.
    pub nodes: Vec<u64>,
    /// How long authority and allowances last, by the cluster's timing profile.
    pub lease_us: u64,
    /// The longest that a voter is silent before it seeks election.
    pub election_us: u64,
}

/// Where a fault is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It will be attempted from now on.
    Planned,
    /// It was seen to have taken hold.
    Installed,
    /// The machine does not permit it.
    Skipped {
        /// Why.
        why: String,
    },
    /// Whether it took hold is not known: such a run is void.
    Unknown {
        /// Why.
        why: String,
    },
    /// It is over.
    Healed,
}

/// A step in a fault's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Which one of the schedule: the steps of one fault share it.
    pub number: u64,
    /// What it is: `kill`, `stop`, `partition`, …
    pub kind: String,
    /// Details for people.
    pub about: String,
    /// The nodes that it touches.
    pub nodes: Vec<u64>,
    /// Whether the nodes that it does not touch must go on serving warm keys all the same: it takes away no majority
    /// and slows nothing that they need.
    pub spares_others: bool,
    /// The step.
    pub phase: Phase,
}

/// What a route is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Its name.
    pub name: Text,
    /// The limits that count its requests, those of scope `cluster` alone.
    pub limits: Vec<Text>,
    /// What a request takes of each.
    pub cost: u64,
    /// `when_isolated: serve`.
    pub serves_isolated: bool,
}

/// Whom a limit counts: the buckets it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Per {
    /// One bucket a key.
    Key,
    /// One a consumer.
    Consumer,
    /// One a route.
    Route,
    /// One a key and route.
    KeyAndRoute,
}

/// How much a limit admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    /// A token bucket.
    Rate {
        /// Tokens that come in a period.
        tokens: u64,
        /// The period.
        period_us: u64,
        /// The most that can be saved up.
        burst: u64,
    },
    /// A number for each window of the calendar.
    Quota {
        /// How many.
        amount: u64,
        /// The window's length: a minute, an hour or a day.
        window_us: u64,
    },
}

/// What a limit is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Its name.
    pub name: Text,
    /// How much it admits.
    pub rule: Rule,
    /// Whom it counts.
    pub per: Per,
    /// When the edit that made it so was first sent. For the limits of the start: when the run began.
    pub began_us: u64,
    /// Whether the edit is known to be done (acknowledged, at the event's time). Otherwise it may be in force from
    /// `began_us` on, or never.
    pub known: bool,
}

/// What a credential is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// As requests name it.
    pub name: Text,
    /// The key, as objects name it, without `key/`.
    pub key: Text,
    /// The key's id.
    pub key_id: Text,
    /// Whose it is.
    pub consumer: Text,
}

/// A client's request, when it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Unique in the run; its `X-Request-Id` is this number in decimal digits.
    pub request: u64,
    /// The node that it was sent to.
    pub node: u64,
    /// The credential that it showed.
    pub credential: Text,
    /// The route that it asked for.
    pub route: Text,
    /// Before its first byte was sent, its connection included.
    pub began_us: u64,
    /// What came of it.
    pub outcome: RequestOutcome,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestOutcome {
    /// An answer.
    Answered {
        /// Its status.
        status: u16,
        /// Of a refusal by the gateway, its problem's type: `isolated`, `rate-limited`, …
        problem: Option<Text>,
    },
    /// No whole answer: it may have been admitted.
    Lost {
        /// Why.
        why: Text,
        /// Nothing was sent: no connection was made. It was surely not admitted.
        unsent: bool,
    },
}

/// The upstream saw a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// By its `X-Request-Id`; the event is dated by the arrival of its head.
    pub request: u64,
    /// `X-Quorate-Consumer`, as the gateway set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<Text>,
}

/// One line of an access log. The event is dated by when it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logged {
    /// Whose log.
    pub node: u64,
    /// `request_id`.
    pub request: u64,
    /// `decision` is `allowed`.
    pub allowed: bool,
    /// `key_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<Text>,
    /// `limit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Text>,
    /// `tick`: the cluster's time of the decision, in microseconds.
    pub tick_us: u64,
    /// `time`: the cluster's calendar at the beginning of the request, in milliseconds since the epoch.
    pub wall_ms: u64,
    /// `duration_us.decide`: from there to the decision.
    pub decide_us: u64,
}

/// An operation of the admin API with its interval: from before its first attempt to the end of its last. Attempts share
/// a request id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admin {
    /// Who asked; a client asks one thing at a time.
    pub client: u32,
    /// The node of the last attempt.
    pub node: u64,
    /// Before the first attempt.
    pub began_us: u64,
    /// How often it was sent. An attempt after a lost answer has the same request id.
    pub attempts: u32,
    /// The request id of a write, in hexadecimal digits; empty for a read. Two events with one id are one operation
    /// whose answer was asked for twice.
    pub request: String,
    /// What it is to do.
    pub operation: Operation,
    /// The credentials that admit nothing any more once it is acknowledged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<Text>,
    /// How the audit log names it, if its subject is known: action and subject, `key.revoke` and the key's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<(String, String)>,
    /// What came of it.
    pub outcome: AdminOutcome,
}

/// What an operation is to do with one object. A file that changes several objects is several events with one request
/// id and one interval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Reads it.
    Read {
        /// Which.
        object: String,
    },
    /// Makes it; it must not exist.
    Create {
        /// Which.
        object: String,
        /// What it is to hold.
        value: String,
    },
    /// Makes or replaces it.
    Put {
        /// Which.
        object: String,
        /// What it is to hold.
        value: String,
        /// `--if-revision`, where that is on the object itself.
        expected: Option<u64>,
    },
    /// Changes what exists. Revoking a key is changing it to [`REVOKED`].
    Change {
        /// Which.
        object: String,
        /// What it is to hold.
        value: String,
        /// `--if-revision`.
        expected: Option<u64>,
    },
    /// Deletes it.
    Delete {
        /// Which.
        object: String,
        /// `--if-revision`.
        expected: Option<u64>,
    },
}

impl Operation {
    /// The object that it is about.
    #[must_use]
    pub fn object(&self) -> &str {
        match self {
            Self::Read { object }
            | Self::Create { object, .. }
            | Self::Put { object, .. }
            | Self::Change { object, .. }
            | Self::Delete { object, .. } => object,
        }
    }

    /// Whether it changes nothing.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        matches!(self, Self::Read { .. })
    }
}

/// What an object holds, and the revision of its last change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The revision of the last change.
    pub revision: u64,
    /// What it holds.
    pub value: String,
}

/// What a fence says of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fenced {
    /// It enforces the write.
    Applied,
    /// Its authority from before the write is over.
    Expired,
    /// The same, but it serves routes with `when_isolated: serve`.
    ServingIsolated,
    /// Not known: the wait ended first.
    Pending,
}

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminOutcome {
    /// A read's answer; `None` if there is no such object.
    Found(Option<Version>),
    /// A write's acknowledgement.
    Done {
        /// The cluster's revision after it, as the answer says.
        revision: u64,
        /// What it says of each node; empty if nobody waited.
        fence: Vec<(u64, Fenced)>,
    },
    /// Surely not done: what it expected does not hold.
    Refused(Refused),
    /// Surely not done, for a reason that says nothing about the object (no leader, overloaded, a full disk). Only if
    /// that is so of every attempt.
    Failed {
        /// The problem's type.
        why: String,
    },
    /// It may have been done, or may yet be.
    Unknown {
        /// Why.
        why: String,
    },
}

/// Why an operation was refused: each says something about the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refused {
    /// `already_exists`.
    AlreadyExists,
    /// `not_found`.
    NotFound,
    /// `conflict`: it is at another revision than was expected.
    Conflict {
        /// The revision it has, if the answer says so.
        actual: Option<u64>,
    },
    /// The key is revoked.
    Revoked,
}

/// What a node said of itself, in one answer: its authority was looked at before everything else in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// The node.
    pub node: u64,
    /// Which of its processes, counted from 1 by the harness.
    pub incarnation: u64,
    /// Before it was asked.
    pub began_us: u64,
    /// The log index that it has applied.
    pub applied: u64,
    /// The cluster revision at that index.
    pub revision: u64,
    /// The log index that all its workers enforce.
    pub enforced: u64,
    /// The cluster revision at that index, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforced_revision: Option<u64>,
    /// Whether it holds a lease.
    pub authority: bool,
    /// Digests of its state at some indexes, each as hexadecimal digits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub digests: Vec<(u64, String)>,
}

/// One entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audited {
    /// Its number.
    pub number: u64,
    /// What was done, `key.revoke`.
    pub action: String,
    /// To what.
    pub subject: String,
    /// The revision that the change made.
    pub revision: u64,
}

/// What a limit let through under more demand than it admits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullRate {
    /// The limit.
    pub limit: Text,
    /// How long it was measured, after its burst was spent.
    pub measured_us: u64,
    /// How many requests arrived meanwhile.
    pub admitted: u64,
    /// The fewest that are the full rate, as the harness reckons for the demand that it made.
    pub least: u64,
}

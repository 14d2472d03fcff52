//! One request and its answer: what is learned on the way, kept for the record that is made when the exchange ends,
//! however it ends.

use super::{
    forward::{Upload, headers::TraceId},
    in_flight::Tie,
    limit::{Limited, RouteLimits},
    problem::Problem,
    record,
    worker::{Serving, Worker},
};
use crate::listen::{connection::Connection, stream::Stream};
use http::{HeaderValue, Method, Uri};
use machine::{At, Name, key::KeyId};
use std::{
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
};

/// Where an exchange stands; the last one is where it was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Route,
    Identify,
    Authorize,
    Limit,
    Forward,
}

/// One request and its answer.
pub(crate) struct Exchange {
    pub(crate) connection: Arc<Connection>,
    /// Of HTTP/2.
    pub(crate) stream: Option<Arc<Stream>>,
    pub(crate) serving: Arc<Serving>,
    /// Whether the node held authority when the request began; the view was read after that was known.
    pub(crate) has_authority: bool,
    pub(crate) stage: Stage,
    pub(crate) request_id: HeaderValue,
    pub(crate) trace_id: TraceId,
    pub(crate) client: IpAddr,
    pub(crate) method: Method,
    /// As it was asked for, until it is routed.
    pub(crate) uri: Uri,
    /// The one form that is routed, where it differs from what was asked for.
    pub(crate) canonical: Option<Box<str>>,
    /// Its place among the compiled routes.
    pub(crate) route: Option<usize>,
    pub(crate) consumer: Option<Name>,
    pub(crate) key: Option<KeyId>,
    pub(crate) upstream: Option<Arc<str>>,
    /// 0 while there is no answer.
    pub(crate) status: u16,
    pub(crate) problem: Option<Problem>,
    /// Why it was refused, for operators.
    pub(crate) reason: &'static str,
    pub(crate) limited: Limited,
    pub(crate) upload: Option<Arc<Upload>>,
    /// Its place among what a revocation cuts, once it is forwarded.
    pub(crate) tie: Option<Tie>,
    pub(crate) bytes_out: u64,
    /// Whether the answer was given to its last byte.
    pub(crate) finished: bool,
    /// Cluster time of the decision, once there is one and if there is a log.
    pub(crate) decided: Option<At>,
    /// Microseconds on the boot clock: when the head was there, the decision was made and the upstream began to answer.
    pub(crate) began_us: u64,
    pub(crate) decided_us: u64,
    pub(crate) answered_us: u64,
}

impl Exchange {
    /// The path for the log: without its query, which may hold anything.
    pub(crate) fn path(&self) -> &str {
        self.canonical.as_deref().unwrap_or_else(|| self.uri.path())
    }

    pub(crate) fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }

    /// Whether the credential has ceased to hold.
    pub(crate) fn is_cut(&self) -> bool {
        self.tie.as_ref().is_some_and(Tie::is_cut)
    }

    /// Ready when the credential has ceased to hold.
    pub(crate) fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.tie.as_ref().map_or(Poll::Pending, |tie| tie.poll(cx))
    }

    /// The limits of its route.
    pub(crate) fn limits(&self) -> Option<&RouteLimits> {
        self.route.and_then(|route| self.serving.plan.lanes.get(route)).map(|lane| &lane.limits)
    }

    /// The request is admitted: notes when, by this machine's clock and the cluster's. Both are read here and not later:
    /// the access log is the witness of who was admitted when.
    pub(crate) fn decide(&mut self, worker: &Worker) {
        self.decided_us = match self.limited.admitted_us {
            0 => worker.shared.clock.boot_us(),
            // Read a moment ago.
            admitted_us => admitted_us,
        };
        self.decided = worker.log.is_kept().then(|| worker.shared.clock.time());
    }

    /// Whether the gateway let it pass.
    pub(crate) fn is_admitted(&self) -> bool {
        self.stage == Stage::Forward
    }
}

impl Stage {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Identify => "identify",
            Self::Authorize => "authorize",
            Self::Limit => "limit",
            Self::Forward => "forward",
        }
    }
}

impl Drop for Exchange {
    /// An exchange ends when its answer has been given, or when the client has gone: either way it is recorded.
    fn drop(&mut self) {
        record::record(self);
    }
}

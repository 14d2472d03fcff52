//! The numbers of the data plane. Every handle is made once and kept, and every histogram belongs to one worker: two
//! threads on one series would cost more than the rest of the record. Label values are bounded: names of routes, known
//! status codes, numbers of workers.

use crate::gateway::{exchange::Exchange, worker::lock};
use http::StatusCode;
use metrics::{Counter, Histogram, counter, histogram};
use std::sync::Mutex;

/// Counts the requests of one route.
pub(crate) struct RouteMeter {
    route: String,
    /// By status and decision; made when first needed. A handful, so a list is quickest.
    requests: Mutex<Vec<(u16, bool, Counter)>>,
    duration: Histogram,
}

impl RouteMeter {
    /// Requests without a route have the empty name, which no route can have.
    pub(crate) fn new(route: &str, worker: usize) -> Self {
        let duration =
            histogram!("quorate_request_duration_seconds", "route" => route.to_owned(), "worker" => worker.to_string());
        Self { route: route.to_owned(), requests: Mutex::default(), duration }
    }

    pub(crate) fn count(&self, status: u16, admitted: bool, duration_us: u64) {
        self.duration.record(seconds(duration_us));
        let mut requests = lock(&self.requests);
        if let Some((_, _, counter)) = requests.iter().find(|(of, is, _)| *of == status && *is == admitted) {
            counter.increment(1);
            return;
        }
        let counter = counter!(
            "quorate_requests_total",
            "route" => self.route.clone(),
            "status" => status_label(status),
            "decision" => decision(admitted),
        );
        counter.increment(1);
        requests.push((status, admitted, counter));
    }
}

/// Counts what a limit does.
pub(crate) struct LimitMeter {
    /// Requests that it refused; in shadow, that it would have refused.
    pub(crate) refused: Counter,
    /// Requests for which the node got no allowance; in shadow, that could not be counted.
    pub(crate) unavailable: Counter,
    /// Requests that shared a bucket because too many subjects have one of their own.
    pub(crate) overflowed: Counter,
}

impl LimitMeter {
    pub(crate) fn new(limit: &str, is_enforced: bool) -> Self {
        let mode = if is_enforced { "enforce" } else { "shadow" };
        let of = || limit.to_owned();
        Self {
            refused: counter!("quorate_limit_refusals_total", "limit" => of(), "mode" => mode),
            unavailable: counter!("quorate_limit_unavailable_total", "limit" => of(), "mode" => mode),
            overflowed: counter!("quorate_limit_overflows_total", "limit" => of()),
        }
    }
}

/// How long the stages of a request take, and what goes through.
pub(crate) struct StageMeters {
    decide: Histogram,
    limit: Histogram,
    upstream: Histogram,
    bytes_in: Counter,
    bytes_out: Counter,
    /// By problem and reason, both of which are words of this program; made when first needed.
    refusals: Mutex<Vec<(&'static str, &'static str, Counter)>>,
}

impl StageMeters {
    pub(crate) fn new(worker: usize) -> Self {
        let stage = |stage: &'static str| histogram!("quorate_stage_duration_seconds", "stage" => stage, "worker" => worker.to_string());
        let bytes = |direction: &'static str| counter!("quorate_body_bytes_total", "direction" => direction);
        Self {
            decide: stage("decide"),
            limit: stage("limit"),
            upstream: stage("upstream"),
            bytes_in: bytes("in"),
            bytes_out: bytes("out"),
            refusals: Mutex::default(),
        }
    }

    pub(crate) fn count(&self, exchange: &Exchange) {
        if exchange.decided_us > 0 {
            self.decide.record(seconds(exchange.decided_us.saturating_sub(exchange.began_us)));
        }
        if exchange.limited.waited_us > 0 {
            self.limit.record(seconds(exchange.limited.waited_us));
        }
        if exchange.answered_us > 0 {
            self.upstream.record(seconds(exchange.answered_us.saturating_sub(exchange.decided_us)));
        }
        let bytes_in = exchange.upload.as_ref().map_or(0, |upload| upload.bytes());
        if bytes_in > 0 {
            self.bytes_in.increment(bytes_in);
        }
        if exchange.bytes_out > 0 {
            self.bytes_out.increment(exchange.bytes_out);
        }
        if let Some(problem) = exchange.problem {
            self.refuse(problem.name(), exchange.reason);
        }
    }

    fn refuse(&self, problem: &'static str, reason: &'static str) {
        let mut refusals = lock(&self.refusals);
        if let Some((_, _, counter)) = refusals.iter().find(|(of, why, _)| *of == problem && *why == reason) {
            counter.increment(1);
            return;
        }
        let counter = counter!("quorate_refusals_total", "problem" => problem, "reason" => reason);
        counter.increment(1);
        refusals.push((problem, reason, counter));
    }
}

/// As the log and the metrics name the decision.
pub(crate) const fn decision(admitted: bool) -> &'static str {
    if admitted { "allowed" } else { "refused" }
}

/// An upstream may answer any number; one that nobody has registered shares a label.
fn status_label(status: u16) -> String {
    let is_known = status == super::CLIENT_CLOSED
        || StatusCode::from_u16(status).is_ok_and(|status| status.canonical_reason().is_some());
    if is_known { status.to_string() } else { "other".to_owned() }
}

#[expect(clippy::cast_precision_loss, reason = "a duration in microseconds is far below 2^52")]
fn seconds(us: u64) -> f64 {
    us as f64 / 1_000_000.0
}

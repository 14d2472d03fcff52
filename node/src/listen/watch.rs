//! Notices that a client keeps us waiting. A connection is looked at every now and then, instead of setting a timer for
//! every request: the hot path only counts. A bound is therefore noticed up to a quarter late.

use super::connection::{Connection, Protocol};
use crate::gateway::Caps;
use std::time::Duration;
use tokio::time::Instant;

/// Nothing is looked at more often.
const INTERVAL_MIN: Duration = Duration::from_millis(5);

/// Watches over one connection.
pub(super) struct Watch {
    protocol: Protocol,
    pub(super) interval: Duration,
    header_read_timeout: Duration,
    idle_timeout: Duration,
    rate_min: u64,
    /// The same for a connection that could be idle or new, when the node closes.
    last_call: Option<Duration>,
    seen: Option<(Wait, u64, Instant)>,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The rest of a header, or the first request.
    Header,
    /// The next request.
    Request,
    /// That the client goes on with its body.
    Body,
    /// That the client takes what it asked for.
    Taking,
    /// Ourselves.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    /// It waits for the next request since the last look at least.
    Silent,
    /// It can be ended politely.
    Idle,
    /// It cannot: what kept us waiting.
    Stalled(&'static str),
}

/// How often to look, where this is the shortest time that matters.
pub(super) fn interval(shortest: Duration) -> Duration {
    (shortest / 4).max(INTERVAL_MIN)
}

/// Whether so many bytes are too few for so long a wait.
pub(super) fn is_too_slow(bytes: u64, waited: Duration, rate_min: u64) -> bool {
    bytes == 0 || bytes < rate_min.saturating_mul(waited.as_secs())
}

impl Watch {
    pub(super) fn new(caps: &Caps, protocol: Protocol) -> Self {
        Self {
            protocol,
            interval: interval(caps.header_read_timeout.min(caps.idle_timeout)),
            header_read_timeout: caps.header_read_timeout,
            idle_timeout: caps.idle_timeout,
            rate_min: caps.body_rate_min,
            last_call: None,
            seen: None,
        }
    }

    /// From now on only what is in flight, or on its way, is waited for.
    pub(super) fn hurry(&mut self, last_call: Duration) {
        self.last_call = Some(last_call);
        self.interval = self.interval.min(interval(last_call));
    }

    pub(super) fn look(&mut self, connection: &Connection, now: Instant) -> Verdict {
        let counts = connection.counts();
        let is_busy = counts.in_flight > 0;
        let is_http1 = self.protocol == Protocol::Http1;
        // What tells that it has not moved: for a header, the number of requests, so that a byte now and then is no way
        // out. Bodies over HTTP/2 are watched stream by stream.
        let (wait, mark) = if counts.write_waits {
            (Wait::Taking, counts.moved)
        } else if is_busy && counts.body_waits {
            (Wait::Body, 0)
        } else if is_busy {
            (Wait::Nothing, 0)
        } else if counts.requests == 0 || (is_http1 && counts.is_partial) {
            (Wait::Header, counts.requests)
        } else {
            (Wait::Request, counts.requests)
        };
        let (since, at_first) = match self.seen {
            Some((seen, seen_mark, since)) if seen == wait && (seen_mark == mark || wait == Wait::Body) => {
                (since, seen_mark)
            }
            _ => {
                let at_first = if wait == Wait::Body { counts.body_bytes } else { mark };
                self.seen = Some((wait, at_first, now));
                (now, at_first)
            }
        };
        let waited = now.saturating_duration_since(since) + self.interval;
        let is_silent = !counts.is_partial;
        match wait {
            Wait::Header | Wait::Request if is_silent && self.last_call.is_some_and(|last| waited > last) => {
                Verdict::Idle
            }
            Wait::Header if waited > self.header_read_timeout => Verdict::Stalled("head"),
            Wait::Request if waited > self.idle_timeout => Verdict::Idle,
            Wait::Request if is_http1 && is_silent && since < now => Verdict::Silent,
            Wait::Taking if waited > self.idle_timeout => Verdict::Stalled("answer"),
            Wait::Body if waited > self.idle_timeout => {
                if is_too_slow(counts.body_bytes.wrapping_sub(at_first), self.idle_timeout, self.rate_min) {
                    return Verdict::Stalled("body");
                }
                self.seen = None;
                Verdict::Fine
            }
            _ => Verdict::Fine,
        }
    }
}

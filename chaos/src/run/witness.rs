//! The upstream behind the gateways: what arrives here was admitted. It writes down the number of each request, and answers at once.

use crate::history::{Arrival, Recorder, What};
use std::net::IpAddr;
use tests::{Upstream, upstream::Reply};

/// A recording upstream at this address.
#[must_use]
pub fn start(host: IpAddr, recorder: Recorder) -> Upstream {
    Upstream::at(host, 0, move |seen| {
        let header = |name: &str| seen.headers.get(name).and_then(|value| value.to_str().ok());
        // Whatever has no number was not sent by a client of this run.
        if let Some(request) = header("x-request-id").and_then(|id| id.parse().ok()) {
            recorder.record(What::Arrival(Arrival { request, consumer: header("x-quorate-consumer").map(Into::into) }));
        }
        Reply::default()
    })
}

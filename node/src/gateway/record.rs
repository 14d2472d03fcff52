//! What remains of a request: one line of the access log and a few numbers. Always made, also for refusals and for
//! clients that went away; holds no secret, no query and no header of the client.

mod log;
mod meter;

pub(crate) use log::{LogBuffer, LogWriter};
pub(crate) use meter::{LimitMeter, RouteMeter, StageMeters};

use super::exchange::Exchange;
use std::sync::atomic::Ordering;

/// What the log calls a request whose client went away before the answer was complete.
const CLIENT_CLOSED: u16 = 499;

/// Records an exchange that has ended.
pub(crate) fn record(exchange: &mut Exchange) {
    let worker = &exchange.connection.worker;
    let now_us = worker.shared.clock.boot_us();
    worker.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
    exchange.connection.request_ended();
    if exchange.status == 0 {
        exchange.status = CLIENT_CLOSED;
    }
    let plan = &exchange.serving.plan;
    let meter = exchange.route.and_then(|route| plan.lanes.get(route)).map_or(&plan.unrouted, |lane| &lane.meter);
    meter.count(exchange.status, exchange.is_admitted(), now_us.saturating_sub(exchange.began_us));
    worker.stages.count(exchange);
    if let Some(mut lines) = worker.log.lines() {
        log::write(&mut lines, exchange, now_us);
    }
}

//! When the node has more to do than it can: it refuses new requests at once (503 `overloaded`) instead of letting all of
//! them wait until none is worth answering, and instead of swapping. Health checks, administration and consensus run on
//! threads of their own and are not refused.

mod memory;

pub(crate) use memory::memory_default;

use super::{
    Caps,
    problem::{Problem, Refusal},
    worker::{Shared, Worker},
};
use metrics::{gauge, histogram};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep_until};

/// How often a worker looks how late it is.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// So many looks in a row must find it late: one long pause is no queue.
const PROBES_LATE: u32 = 4;
/// After so many of them the first worker looks at the node's memory.
const PROBES_PER_MEMORY: u32 = 5;

/// What the node as a whole is short of.
#[derive(Default)]
pub(crate) struct Overload {
    memory: AtomicBool,
}

impl Overload {
    pub(crate) fn is_short_of_memory(&self) -> bool {
        self.memory.load(Ordering::Relaxed)
    }
}

/// Refuses a request that the node has no room for. The request itself is counted already.
pub(crate) fn shed(worker: &Worker) -> Result<(), Refusal> {
    let shared = &worker.shared;
    let reason = if shared.in_flight.load(Ordering::Relaxed) > shared.settings.caps.requests_max {
        "requests-in-flight"
    } else if worker.is_late.load(Ordering::Relaxed) {
        "worker-late"
    } else if shared.overload.is_short_of_memory() {
        "memory"
    } else {
        return Ok(());
    };
    Err(Refusal::new(Problem::Overloaded, reason))
}

/// Watches how late a worker gets to what is due, until it ends. What is due waits behind everything that is ready to go
/// on, so this is how long a request waits before anybody looks at it.
pub(crate) async fn probe(worker: Arc<Worker>) {
    let meter = histogram!("quorate_worker_lag_seconds", "worker" => worker.index.to_string());
    let shared = &worker.shared;
    let lag_max = shared.settings.caps.lag_max;
    let mut lateness = Lateness::default();
    let mut count: u32 = 0;
    loop {
        let due = Instant::now() + PROBE_INTERVAL;
        sleep_until(due).await;
        let lag = due.elapsed();
        meter.record(lag);
        let is_late = lateness.note(lag, lag_max);
        if is_late != worker.is_late.swap(is_late, Ordering::Relaxed) {
            tracing::warn!(worker = worker.index, lag_ms = lag.as_millis(), shedding = is_late, "overload");
        }
        if worker.index == 0 && count.is_multiple_of(PROBES_PER_MEMORY) {
            look_at_memory(shared, &shared.settings.caps);
        }
        count = count.wrapping_add(1);
    }
}

fn look_at_memory(shared: &Shared, caps: &Caps) {
    let Some(used) = memory::used() else { return };
    let is_short = used > caps.memory_bytes_max;
    gauge!("quorate_memory_bytes").set(whole(used));
    gauge!("quorate_memory_max_bytes").set(whole(caps.memory_bytes_max));
    if is_short != shared.overload.memory.swap(is_short, Ordering::Relaxed) {
        tracing::warn!(used, memory_max = caps.memory_bytes_max, shedding = is_short, "overload");
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are doubles; nobody has 2^53 bytes of memory")]
const fn whole(bytes: u64) -> f64 {
    bytes as f64
}

/// Whether a worker is late again and again.
#[derive(Default)]
struct Lateness {
    in_a_row: u32,
}

impl Lateness {
    /// Notes one look; says whether to refuse.
    fn note(&mut self, lag: Duration, lag_max: Duration) -> bool {
        self.in_a_row = if lag > lag_max { self.in_a_row.saturating_add(1) } else { 0 };
        self.in_a_row >= PROBES_LATE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pause_is_no_overload_and_one_look_in_time_ends_it() {
        let (late, in_time, most) = (Duration::from_secs(2), Duration::from_millis(1), Duration::from_secs(1));
        let mut lateness = Lateness::default();
        assert!(!lateness.note(late, most) && !lateness.note(in_time, most));
        let row: Vec<bool> = (0..5).map(|_| lateness.note(late, most)).collect();
        assert_eq!(row, [false, false, false, true, true]);
        assert!(!lateness.note(in_time, most) && !lateness.note(late, most));
    }
}

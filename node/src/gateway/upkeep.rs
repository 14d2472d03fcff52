//! What a worker does beside requests: it ends what is in flight of a credential that holds no more, at once when it is
//! asked to and once a second for what has ended by time; and it lets go of what its limits have not used for a while.

use super::{
    Worker,
    worker::{Look, lock},
};
use crate::listen::connection::Connection;
use metrics::counter;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};

/// How often it looks without being asked.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// After so many of them it lets go of slots that were not used: five seconds to ten after they were.
const LOOKS_PER_AGE: u64 = 5;
/// Entries that are dropped on the spot; more would hold up requests.
const DROPPED_MAX: usize = 4_096;
/// How long what is cut may take to let go by itself. A client that takes nothing keeps it from being asked at all.
const LET_GO_TIMEOUT: Duration = Duration::from_millis(100);
/// How long its connection may take to end: it only has to be looked at.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs until the worker ends.
pub(crate) async fn run(worker: Arc<Worker>, mut asked: mpsc::Receiver<Look>) {
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count: u64 = 0;
    loop {
        tokio::select! {
            look = asked.recv() => {
                let Some(done) = look else { return };
                let view = Arc::clone(&worker.shared.published.load().view);
                let cut = worker.in_flight.look(&view, worker.shared.clock.time().wall);
                end(&worker, cut).await;
                let _ = done.send(());
            }
            _ = looks.tick() => {
                let cut = worker.in_flight.look_at_time(worker.shared.clock.time().wall);
                end(&worker, cut).await;
                count = count.wrapping_add(1);
                let_go(&worker, count);
            }
        }
    }
}

/// Lets go of what the limits have not used for a while. The first worker does it for what all of them share.
fn let_go(worker: &Worker, count: u64) {
    if worker.index == 0 {
        worker.shared.published.load().limits.sweep(worker);
    }
    if count.is_multiple_of(LOOKS_PER_AGE) {
        // The plan in force: one that no request has asked for yet is made, and the one before can go.
        let dropped = worker.serving().plan.limits.age();
        if dropped.iter().map(HashMap::len).sum::<usize>() > DROPPED_MAX {
            drop(tokio::task::spawn_blocking(move || drop(dropped)));
        }
    }
}

/// Waits until what was cut has let go, and ends the connections of what has not.
async fn end(worker: &Worker, cut: usize) {
    if cut == 0 {
        return;
    }
    counter!("quorate_requests_cut_total").increment(cut as u64);
    if timeout(LET_GO_TIMEOUT, worker.in_flight.gone()).await.is_ok() {
        return;
    }
    let connections: Vec<Arc<Connection>> = {
        let known = lock(&worker.connections);
        worker.in_flight.lingering().iter().filter_map(|id| known.get(id).cloned()).collect()
    };
    connections.iter().for_each(|connection| connection.end());
    if timeout(END_TIMEOUT, worker.in_flight.gone()).await.is_err() {
        tracing::error!("something in flight of an ended credential does not let go of its connection");
    }
}

//! What a worker does beside requests: it ends what is in flight of a credential that holds no more, at once when it is
//! asked to and once a second for what has ended by time.

use super::{
    Worker,
    worker::{Look, lock},
};
use crate::listen::connection::Connection;
use metrics::counter;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};

/// How often it looks without being asked.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long what is cut may take to let go by itself. A client that takes nothing keeps it from being asked at all.
const LET_GO_TIMEOUT: Duration = Duration::from_millis(100);
/// How long its connection may take to end: it only has to be looked at.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs until the worker ends.
pub(crate) async fn run(worker: Arc<Worker>, mut asked: mpsc::Receiver<Look>) {
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            look = asked.recv() => {
                let Some(done) = look else { return };
                let view = Arc::clone(&worker.shared.published.load().view);
                let cut = worker.in_flight.look(&view, worker.shared.clock.wall());
                end(&worker, cut).await;
                let _ = done.send(());
            }
            _ = looks.tick() => {
                let cut = worker.in_flight.look_at_time(worker.shared.clock.wall());
                end(&worker, cut).await;
            }
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

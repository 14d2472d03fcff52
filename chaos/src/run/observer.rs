//! Somebody who asks every node how it is, all the time, and writes it down.

use super::cluster::{Seat, Seats};
use crate::history::{Observed, Recorder, What};
use serde_json::Value;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use tests::{
    Connection,
    client::{Client, get},
};

/// Between two questions to a node.
const INTERVAL: Duration = Duration::from_millis(100);
/// A node that stands still answers later, or never.
const PATIENCE: Duration = Duration::from_secs(3);

/// Observers of all places.
#[derive(Debug)]
pub struct Observers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Observers {
    /// Starts one for each place.
    #[must_use]
    pub fn start(seats: &Arc<Seats>, recorder: &Recorder) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..seats.0.len()).map(|place| {
            let (seats, recorder, stop) = (Arc::clone(seats), recorder.clone(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut connection = None;
                while !stop.load(Ordering::Relaxed) {
                    if let Some(seat) = seats.0.get(place).filter(|seat| seat.id() != 0) {
                        observe(seat, &mut connection, &recorder);
                    }
                    std::thread::sleep(INTERVAL);
                }
            })
        });
        let threads = threads.collect();
        Self { stop, threads }
    }
}

impl Drop for Observers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Asks once, and records what a node says of itself.
fn observe(seat: &Seat, connection: &mut Option<Connection>, recorder: &Recorder) {
    let (incarnation, began_us) = (seat.incarnation(), recorder.now_us());
    if connection.is_none() {
        *connection = Client::new(&seat.ops).patience(PATIENCE).connect().ok();
    }
    let Some(open) = connection else { return };
    let answer = open.try_send(get("/debug/state"));
    let status = answer.ok().and_then(|answer| serde_json::from_slice::<Value>(&answer.body).ok());
    let Some(status) = status else {
        *connection = None;
        return;
    };
    // Another process has come meanwhile: whose answer that was is not known.
    if seat.incarnation() == incarnation
        && let Some(observed) = said(&status, incarnation, began_us)
    {
        recorder.record(What::Observed(observed));
    }
}

fn said(status: &Value, incarnation: u64, began_us: u64) -> Option<Observed> {
    let raft = &status["raft"];
    let digests = status["state_digests"].as_array().map(Vec::as_slice).unwrap_or_default().iter();
    Some(Observed {
        node: status["id"].as_u64()?,
        incarnation,
        began_us,
        applied: raft["applied"].as_u64()?,
        revision: status["revision"].as_u64()?,
        enforced: raft["enforced"].as_u64()?,
        enforced_revision: status["enforced_revision"].as_u64(),
        authority: status["authority_ms"].as_u64()? > 0,
        digests: digests
            .filter_map(|digest| Some((digest["index"].as_u64()?, digest["digest"].as_str()?.to_owned())))
            .collect(),
    })
}

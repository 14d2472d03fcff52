//! The steward of this node's allowances: asks the leader in time for what is used and what is waited for, and gives
//! back what is not. At most one request is on the way; while it is, wishes gather. With nothing in use it sleeps.
//!
//! It only says what to ask, in the [`Outbox`]: the session carries it to whoever leads, again and again if the leader
//! changes, and brings the answer.

use crate::{allowances::Allowances, clock::Clock, codec, node::Node};
use bytes::Bytes;
use machine::allowance::{Acquire, Answer};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

/// The least time between two looks that find nothing to say.
const LOOK_MIN: Duration = Duration::from_millis(1);

/// After a look the steward rests so many times as long as it took: it grows with the number of buckets in use, and
/// workers that meet a new bucket wait for it.
const REST: u32 = 4;

/// How long a stopping node waits for the answer that is on the way, and then for the one to its last request: what it
/// does not give back is nobody's until it ends.
const CLOSE_PATIENCE: Duration = Duration::from_millis(500);

/// How often a stopping node looks for the answer.
const CLOSE_LOOK: Duration = Duration::from_millis(5);

/// A request to the leader.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) acquire: Acquire,
    /// The same as it travels.
    pub(crate) record: Bytes,
    written: Instant,
}

/// The request that is to be answered, for whoever has a session with the leader.
#[derive(Debug)]
pub(crate) struct Outbox {
    letter: watch::Sender<Option<Arc<Letter>>>,
    answered: Notify,
    closing: watch::Sender<bool>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self { letter: watch::Sender::new(None), answered: Notify::new(), closing: watch::Sender::new(false) }
    }
}

impl Outbox {
    /// What is to be sent, as it changes. A new session sends what is there.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Arc<Letter>>> {
        self.letter.subscribe()
    }

    fn put(&self, acquire: Acquire) {
        match codec::encode(&acquire) {
            Ok(record) => {
                self.letter.send_replace(Some(Arc::new(Letter { acquire, record, written: Instant::now() })));
            }
            // Its parts are bounded, so it always fits; if it did not, it would be given up like one that is lost.
            Err(error) => tracing::error!(%error, "a request for allowances could not be written"),
        }
    }

    /// The leader has answered.
    pub(crate) fn answered(&self, allowances: &Allowances, clock: &dyn Clock, request: u64, answer: &Answer) {
        let taken = allowances.accept(request, answer, clock.boot_us());
        // An answer that comes too late has something to give back.
        self.answered.notify_one();
        if !taken {
            return;
        }
        self.letter.send_if_modified(|letter| {
            let of_it = letter.take_if(|letter| letter.acquire.request == request);
            if let Some(letter) = &of_it {
                metrics::histogram!("quorate_limit_acquire_seconds").record(letter.written.elapsed().as_secs_f64());
            }
            of_it.is_some()
        });
    }
}

/// Asks until the node gives back what it holds.
pub(crate) async fn ask(node: Arc<Node>) {
    let (allowances, outbox) = (node.allowances(), node.outbox());
    let mut closing = outbox.closing.subscribe();
    while !*closing.borrow_and_update() {
        let began = Instant::now();
        // Before anything of the request: what it brings counts from here.
        let now_us = node.clock.boot_us();
        let acquire = allowances.collect(now_us);
        let rested = Instant::now() + began.elapsed() * REST;
        if let Some(acquire) = acquire {
            outbox.put(acquire);
        }
        let (next_us, asking) = (allowances.next_us(), allowances.is_asking());
        let pause = Duration::from_micros(next_us.unwrap_or(0).saturating_sub(now_us)).max(LOOK_MIN);
        tokio::select! {
            () = tokio::time::sleep(pause), if next_us.is_some() => {}
            // What is wanted while a request is on the way goes with the next.
            () = allowances.wanted(), if !asking => {}
            () = outbox.answered.notified() => {}
            changed = closing.changed() => if changed.is_err() { return },
        }
        tokio::time::sleep_until(rested).await;
    }
}

/// Forgets refusals when limits change, until raft ends.
pub(crate) async fn follow_limits(node: Arc<Node>) {
    let allowances = node.allowances();
    let mut views = node.watch();
    let mut limits = views.borrow_and_update().registry.limits.clone();
    while views.changed().await.is_ok() {
        let now = views.borrow_and_update().registry.limits.clone();
        allowances.limits_changed(&limits, &now);
        limits = now;
    }
}

/// Gives everything back, as a node that stops does, and waits a moment for the leader to have taken it.
pub(crate) async fn give_back(node: &Node) {
    let (allowances, outbox) = (node.allowances(), node.outbox());
    outbox.closing.send_replace(true);
    // What is on the way brings something to give back.
    answered(&allowances, Instant::now() + CLOSE_PATIENCE).await;
    let until = Instant::now() + CLOSE_PATIENCE;
    while let Some(acquire) = allowances.close_all(node.clock.boot_us()) {
        outbox.put(acquire);
        if !answered(&allowances, until).await {
            tracing::warn!("allowances could not be given back: the cluster counts them as held until they end");
            return;
        }
    }
}

async fn answered(allowances: &Allowances, until: Instant) -> bool {
    while allowances.is_asking() && Instant::now() < until {
        tokio::time::sleep(CLOSE_LOOK).await;
    }
    !allowances.is_asking()
}

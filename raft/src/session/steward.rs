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

/// The least time between two requests, and between two looks while there is something to report.
const CYCLE: Duration = Duration::from_millis(5);

/// The most, while buckets are in use and none of them has anything to say: what is used up all at once is noticed by
/// the request that finds nothing.
const CYCLE_MAX: Duration = Duration::from_millis(40);

/// A look may take this part of the time: it grows with the number of buckets.
const LOOK_SHARE: u32 = 5;

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
        if !allowances.accept(request, answer, clock.boot_us()) {
            return;
        }
        self.letter.send_if_modified(|letter| {
            let of_it = letter.take_if(|letter| letter.acquire.request == request);
            if let Some(letter) = &of_it {
                metrics::histogram!("quorate_limit_acquire_seconds").record(letter.written.elapsed().as_secs_f64());
            }
            of_it.is_some()
        });
        self.answered.notify_one();
    }
}

/// Asks until the node gives back what it holds.
pub(crate) async fn ask(node: Arc<Node>) {
    let (allowances, outbox) = (node.allowances(), node.outbox());
    let mut closing = outbox.closing.subscribe();
    let mut pause = CYCLE;
    let mut asked = Instant::now();
    while !*closing.borrow_and_update() {
        let began = Instant::now();
        // Before anything of the request: what it brings counts from here.
        let now_us = node.clock.boot_us();
        if let Some(acquire) = allowances.collect(now_us) {
            outbox.put(acquire);
            (asked, pause) = (began, CYCLE);
        } else {
            pause = CYCLE_MAX.min(pause * 2);
        }
        let rested = Instant::now() + began.elapsed() * LOOK_SHARE;
        let next = if allowances.is_waited_for() { Instant::now().max(asked) + CYCLE } else { rested + pause };
        let (in_use, asking) = (allowances.is_in_use(), allowances.is_asking());
        tokio::select! {
            () = tokio::time::sleep_until(next), if in_use && !asking => {}
            // One that is not answered is given up some time, or more is wanted than it asked for.
            () = tokio::time::sleep(CYCLE_MAX), if asking => {}
            () = allowances.wanted(), if !asking => {}
            () = outbox.answered.notified() => {}
            changed = closing.changed() => if changed.is_err() { return },
        }
        tokio::time::sleep_until(rested.max(asked + CYCLE)).await;
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
    answered(&allowances).await;
    if let Some(acquire) = allowances.close_all(node.clock.boot_us()) {
        outbox.put(acquire);
        if !answered(&allowances).await {
            tracing::warn!("allowances could not be given back: the cluster counts them as held until they end");
        }
    }
}

async fn answered(allowances: &Allowances) -> bool {
    let until = Instant::now() + CLOSE_PATIENCE;
    while allowances.is_asking() && Instant::now() < until {
        tokio::time::sleep(CLOSE_LOOK).await;
    }
    !allowances.is_asking()
}

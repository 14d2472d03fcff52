//! How far a node is on its way out, so that it can leave without losing a request. What that means for a listener or a
//! connection is decided in `listen`; when each stage begins, in [`super::Handle`].
//!
//! A request is lost where a connection closes while one is on its way. So the end is announced first: HTTP/1.1 answers
//! say `connection: close`, HTTP/2 connections get a GOAWAY that names no stream yet, and a listener takes what the
//! kernel has already accepted for it before it closes.

use crate::listen::door::Crowd;
use std::{
    sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};
use tokio::sync::Notify;

/// How far a node is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Serving,
    /// Load balancers look elsewhere. Connections that were there before are told to end with their next answer; a new
    /// one may be used again for a while, or clients without a balancer would make one for every request.
    Leaving,
    /// Every answer over HTTP/1.1 is the last one of its connection.
    Parting,
    /// Listeners close, and connections as soon as nothing is in flight on them.
    Closing,
}

/// Where the node stands, and who waits for it.
#[derive(Default)]
pub(crate) struct Draining {
    stage: AtomicU8,
    /// How long a connection that has not been told that it ends may still be used, once the node closes.
    last_call_ms: AtomicU64,
    /// Told when the node closes.
    closes: Notify,
    /// Told when the last listener or connection of a closing node is gone.
    emptied: Notify,
    /// Listeners that still accept.
    listeners: AtomicUsize,
}

impl Draining {
    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Serving,
            1 => Stage::Leaving,
            2 => Stage::Parting,
            _ => Stage::Closing,
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.stage() == Stage::Closing
    }

    /// Goes on to a stage; never back.
    pub(crate) fn reach(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::SeqCst);
    }

    /// Closes, and says so to whoever waits for it.
    pub(crate) fn close(&self, last_call: Duration) {
        self.last_call_ms.store(u64::try_from(last_call.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
        self.reach(Stage::Closing);
        self.closes.notify_waiters();
    }

    pub(crate) fn last_call(&self) -> Duration {
        Duration::from_millis(self.last_call_ms.load(Ordering::Relaxed))
    }

    /// Resolves when the node closes.
    pub(crate) async fn closing(&self) {
        loop {
            let notified = self.closes.notified();
            if self.is_closing() {
                return;
            }
            notified.await;
        }
    }

    /// Resolves when a connection that is only just beginning has had its chance.
    pub(crate) async fn last_call_over(&self) {
        self.closing().await;
        tokio::time::sleep(self.last_call()).await;
    }

    /// A listener is there that may still accept.
    pub(crate) fn listener_opened(&self) {
        self.listeners.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn listener_closed(&self) {
        self.listeners.fetch_sub(1, Ordering::SeqCst);
        self.emptied.notify_waiters();
    }

    /// The last connection is gone.
    pub(crate) fn no_connection(&self) {
        if self.is_closing() {
            self.emptied.notify_waiters();
        }
    }

    /// Resolves when no listener accepts and no connection is open any more.
    pub(crate) async fn emptied(&self, crowd: &Crowd) {
        loop {
            let notified = self.emptied.notified();
            // In this order: a listener that has closed opens no more connections.
            if self.listeners.load(Ordering::SeqCst) == 0 && crowd.connections() == 0 {
                return;
            }
            notified.await;
        }
    }
}

//! The cluster's side of limits, in memory: the buckets of the real core, and for each node a task that carries requests
//! to them and answers back, as a node's steward does over the network.

use crate::harness::*;
use machine::{
    At, Name, State, Tick, Wall,
    allowance::Buckets,
    bucket::{Limit, Terms},
};
use quorate::clock::SystemClock;
use raft::Allowances;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{task::JoinHandle, time::sleep};

const TERMS: Terms = Terms { ttl_us: 20_000_000, margin_us: 1_000_000 };

/// The buckets, and what limits there are.
#[derive(Clone, Default)]
pub struct Bank(Arc<Mutex<Safe>>);

#[derive(Default)]
struct Safe {
    buckets: Buckets,
    limits: BTreeMap<Name, Limit>,
}

/// Serves a node until it is dropped.
pub struct Steward(JoinHandle<()>);

impl Bank {
    /// Takes over the limits that the core knows.
    pub fn follow(&self, state: &State) {
        self.0.lock().unwrap().limits =
            state.registry.limits.iter().map(|(name, limit)| (name.clone(), *limit)).collect();
    }

    pub fn serve(&self, allowances: Arc<Allowances>) -> Steward {
        let bank = self.clone();
        Steward(tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = allowances.wanted() => {}
                    () = sleep(Duration::from_millis(2)) => {}
                }
                let now_us = SystemClock.boot_us();
                let Some(acquire) = allowances.collect(now_us) else { continue };
                let answer = {
                    let mut safe = bank.0.lock().unwrap();
                    let at = At { tick: Tick(SystemClock.boot_us()), wall: Wall(NOW_MS) };
                    let limits = safe.limits.clone().into_iter().collect();
                    safe.buckets.acquire(&limits, at, TERMS, std::slice::from_ref(&acquire)).remove(0)
                };
                // Over the network and back.
                sleep(Duration::from_millis(1)).await;
                allowances.accept(acquire.request, &answer, SystemClock.boot_us());
            }
        }))
    }
}

impl Drop for Steward {
    fn drop(&mut self) {
        self.0.abort();
    }
}

//! What one worker thread holds: the view in force, prepared for this thread, and everything that is better not shared
//! between threads (upstream connections, remembered decisions, random numbers, the access log's buffer).
//!
//! The locks here are never contended: their thread alone takes them, again and again. They are there because a future
//! must be `Send` to be spawned, also where it never leaves its thread.

use super::{
    Clock, Settings,
    authorize::Decisions,
    draining::Draining,
    forward::{Deadlines, Pool},
    in_flight::InFlight,
    limit::{NodeLimits, RouteLimits, WorkerLimits},
    overload::Overload,
    record::{LogBuffer, RouteMeter, StageMeters},
};
use crate::{
    listen::{connection::Connection, door::Crowd},
    resource::compile::{Compiled, CompiledRoute},
};
use arc_swap::ArcSwap;
use aws_lc_rs::rand;
use http::HeaderValue;
use machine::{View, member::NodeId};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};
use tokio::sync::{Notify, mpsc, oneshot};

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) node: NodeId,
    /// The node's number as `X-Quorate-Node` says it.
    pub(crate) node_header: HeaderValue,
    pub(crate) clock: Arc<dyn Clock>,
    /// What is in force. A request reads it after it has begun: whatever was published before is seen.
    pub(crate) published: ArcSwap<Published>,
    /// Client connections.
    pub(crate) crowd: Crowd,
    pub(crate) overload: Overload,
    pub(crate) in_flight: AtomicUsize,
    pub(crate) draining: Draining,
    pub(crate) stopped: AtomicBool,
    /// Told when the workers are to end.
    pub(crate) stop: Notify,
}

/// A view, and what was compiled from it.
pub(crate) struct Published {
    pub(crate) view: Arc<View>,
    pub(crate) compiled: Arc<Compiled>,
    pub(crate) limits: Arc<NodeLimits>,
}

/// One worker thread's own.
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) log: Arc<LogBuffer>,
    pub(crate) deadlines: Arc<Deadlines>,
    pub(crate) in_flight: Arc<InFlight>,
    /// Asks the worker to look through what is in flight: see [`super::upkeep`].
    pub(crate) looks: mpsc::Sender<Look>,
    pub(crate) stages: StageMeters,
    pub(crate) connections: Mutex<HashMap<u64, Arc<Connection>>>,
    /// Where it is written whom a limit counts.
    pub(crate) scratch: Mutex<Vec<u8>>,
    /// Requests that limits in shadow are still to count.
    pub(crate) shadows: Arc<AtomicUsize>,
    /// Whether it gets to things so late that new requests are refused.
    pub(crate) is_late: AtomicBool,
    next_connection: AtomicU64,
    random: AtomicU64,
    local: Mutex<Local>,
}

/// A look that a worker is asked for; answered when nothing is left that had to end.
pub(crate) type Look = oneshot::Sender<()>;

struct Local {
    /// What `serving` was made from.
    published: Arc<Published>,
    serving: Arc<Serving>,
}

/// What is in force, prepared for one worker.
pub(crate) struct Serving {
    pub(crate) view: Arc<View>,
    pub(crate) plan: Arc<Plan>,
}

/// The compiled resources with what this worker keeps for each.
pub(crate) struct Plan {
    pub(crate) compiled: Arc<Compiled>,
    /// By the index of the route.
    pub(crate) lanes: Vec<Lane>,
    /// For requests that no route takes.
    pub(crate) unrouted: RouteMeter,
    pub(crate) decisions: Mutex<Decisions>,
    pub(crate) limits: WorkerLimits,
}

/// What a worker keeps for a route.
pub(crate) struct Lane {
    /// None where the route has no upstream that this release can read.
    pub(crate) pool: Option<Arc<Pool>>,
    pub(crate) meter: RouteMeter,
    pub(crate) limits: RouteLimits,
}

impl Worker {
    pub(crate) fn new(index: usize, shared: Arc<Shared>, log: Arc<LogBuffer>, looks: mpsc::Sender<Look>) -> Self {
        let published = shared.published.load_full();
        let plan = Arc::new(Plan::new(&published, None, index));
        let serving = Arc::new(Serving { view: published.view.clone(), plan });
        let mut seed = [0; 8];
        // Ids need to differ, not to be secret; without randomness they still differ within this process.
        let _ = rand::fill(&mut seed);
        let seed = u64::from_le_bytes(seed) ^ (index as u64) << 48;
        Self {
            index,
            shared,
            log,
            deadlines: Arc::new(Deadlines::new()),
            in_flight: Arc::default(),
            looks,
            stages: StageMeters::new(index),
            connections: Mutex::default(),
            scratch: Mutex::default(),
            shadows: Arc::default(),
            is_late: AtomicBool::new(false),
            next_connection: AtomicU64::new(0),
            random: AtomicU64::new(seed),
            local: Mutex::new(Local { published, serving }),
        }
    }

    /// What is in force now, for a request that has begun.
    pub(crate) fn serving(&self) -> Arc<Serving> {
        let published = self.shared.published.load();
        let mut local = lock(&self.local);
        if !Arc::ptr_eq(&published, &local.published) {
            let plan = if Arc::ptr_eq(&published.compiled, &local.serving.plan.compiled) {
                local.serving.plan.clone()
            } else {
                Arc::new(Plan::new(&published, Some(&local.serving.plan), self.index))
            };
            local.serving = Arc::new(Serving { view: published.view.clone(), plan });
            local.published = Arc::clone(&published);
        }
        local.serving.clone()
    }

    /// Sixty-four bits that differ from all others of this worker (SplitMix64): for ids, not for secrets.
    pub(crate) fn random(&self) -> u64 {
        // Its thread alone draws: no need for the dearer `fetch_add`.
        let state = self.random.load(Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.store(state, Ordering::Relaxed);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn next_connection(&self) -> u64 {
        self.next_connection.fetch_add(1, Ordering::Relaxed)
    }

    /// Resolves when the worker is to end.
    pub(crate) async fn stopped(&self) {
        told(&self.shared.stop, &self.shared.stopped).await;
    }
}

impl Plan {
    fn new(published: &Published, before: Option<&Self>, worker: usize) -> Self {
        let compiled = Arc::clone(&published.compiled);
        let known: HashMap<*const _, &Arc<Pool>> = before
            .iter()
            .flat_map(|plan| &plan.lanes)
            .filter_map(|lane| lane.pool.as_ref())
            .map(|pool| (Arc::as_ptr(pool.upstream()), pool))
            .collect();
        // Routes to the same upstream share its connections, and keep them over an edit elsewhere.
        let pools: HashMap<*const _, Arc<Pool>> = compiled
            .upstreams
            .iter()
            .map(|upstream| {
                let pool = known.get(&Arc::as_ptr(upstream)).map(|pool| Arc::clone(pool));
                (Arc::as_ptr(upstream), pool.unwrap_or_else(|| Arc::new(Pool::new(upstream.clone()))))
            })
            .collect();
        let limits = WorkerLimits::of(&published.limits, before.map(|plan| &plan.limits));
        let lanes = compiled
            .routes
            .iter()
            .map(|route| Lane {
                pool: route.upstream.as_ref().ok().and_then(|upstream| pools.get(&Arc::as_ptr(upstream)).cloned()),
                meter: RouteMeter::new(route.name.as_str(), worker),
                limits: RouteLimits::of(route, &limits),
            })
            .collect();
        Self { compiled, lanes, unrouted: RouteMeter::new("", worker), decisions: Mutex::default(), limits }
    }
}

impl Plan {
    /// A route and what this worker keeps for it.
    pub(crate) fn lane(&self, index: usize) -> Option<(&CompiledRoute, &Lane)> {
        self.compiled.routes.get(index).map(|route| &**route).zip(self.lanes.get(index))
    }
}

/// Waits for a flag that is set before its notification is sent.
async fn told(notify: &Notify, flag: &AtomicBool) {
    loop {
        let notified = notify.notified();
        if flag.load(Ordering::SeqCst) {
            return;
        }
        notified.await;
    }
}

/// Takes a lock that no other thread holds. A panic elsewhere has left whole values behind: each is written at once.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Connections of one worker to one upstream: those that are idle, how many there are, and which target comes next.
//! Targets take turns; one that could not be reached is passed over for a while, unless there is no other.

use super::body::UploadBody;
use crate::{gateway::worker::lock, resource::compile::CompiledUpstream};
use hyper::client::conn::http1::SendRequest;
use metrics::{Counter, counter};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

/// Idle connections are kept this long: less than the 60 s and more that servers commonly allow.
const IDLE_MAX_US: u64 = 50_000_000;
/// How long a target is passed over after its first failure; it doubles with each further one.
const SKIP_MIN_US: u64 = 500_000;
/// The longest that a target is passed over.
const SKIP_MAX_US: u64 = 10_000_000;

/// Connections of one worker to one upstream.
pub(crate) struct Pool {
    upstream: Arc<CompiledUpstream>,
    state: Mutex<State>,
    /// Whether some target has failed and not answered since.
    is_failing: AtomicBool,
    /// Connections that were made, and attempts that failed.
    pub(super) connected: Counter,
    pub(super) refused: Counter,
    /// Requests that were sent once more.
    pub(super) repeated: Counter,
}

struct State {
    /// As many as the upstream has.
    targets: Vec<Target>,
    next: usize,
}

#[derive(Default)]
struct Target {
    /// The one used last is used first: the others may go to sleep.
    idle: Vec<Idle>,
    /// Idle ones, busy ones, and those that are being made.
    open: usize,
    failures: u32,
    skip_until_us: u64,
}

struct Idle {
    sender: SendRequest<UploadBody>,
    since_us: u64,
}

/// What the pool has to offer.
pub(crate) enum Taken {
    Idle(Lease),
    /// There is room for a new one.
    Connect(Permit),
    /// All connections that there may be are busy.
    Full,
    NoTarget,
}

/// A connection that is in use. It is closed when it is dropped; [`Lease::give_back`] keeps it.
pub(crate) struct Lease {
    pool: Arc<Pool>,
    target: usize,
    sender: SendRequest<UploadBody>,
    is_reused: bool,
}

/// The right to have one more connection to a target. It lives as long as the connection.
pub(crate) struct Permit {
    pool: Arc<Pool>,
    target: usize,
}

impl Pool {
    pub(crate) fn new(upstream: Arc<CompiledUpstream>) -> Self {
        let targets = upstream.targets.iter().map(|_| Target::default()).collect();
        let name = upstream.name.to_string();
        let connects = |outcome: &'static str| counter!("quorate_upstream_connects_total", "upstream" => name.clone(), "outcome" => outcome);
        Self {
            connected: connects("connected"),
            refused: connects("failed"),
            repeated: counter!("quorate_upstream_repeats_total", "upstream" => name.clone()),
            upstream,
            state: Mutex::new(State { targets, next: 0 }),
            is_failing: AtomicBool::new(false),
        }
    }

    pub(crate) const fn upstream(&self) -> &Arc<CompiledUpstream> {
        &self.upstream
    }

    /// A connection, or the right to make one; if a `fresh` one is wanted and there is room, the latter.
    pub(crate) fn take(self: &Arc<Self>, now_us: u64, fresh: bool) -> Taken {
        let mut state = lock(&self.state);
        let count = state.targets.len();
        if count == 0 {
            return Taken::NoTarget;
        }
        let first = state.next % count;
        state.next = (first + 1) % count;
        let in_turn = (first..count).chain(0..first);
        // First those that answer, then whoever is left.
        for spare_the_failing in [true, false] {
            for index in in_turn.clone() {
                let Some(target) = state.targets.get_mut(index) else { continue };
                if (target.skip_until_us > now_us) == spare_the_failing {
                    continue;
                }
                let has_room = target.open < self.upstream.connections_max;
                if !(fresh && has_room)
                    && let Some(sender) = target.take_idle(now_us)
                {
                    return Taken::Idle(Lease { pool: Arc::clone(self), target: index, sender, is_reused: true });
                }
                if has_room {
                    target.open += 1;
                    return Taken::Connect(Permit { pool: Arc::clone(self), target: index });
                }
            }
        }
        Taken::Full
    }

    /// Notes that a target could not be reached. Whether another one can be tried.
    pub(crate) fn failed(&self, target: usize, now_us: u64) -> bool {
        let mut state = lock(&self.state);
        self.is_failing.store(true, Ordering::Relaxed);
        if let Some(target) = state.targets.get_mut(target) {
            let skip_us = SKIP_MIN_US.saturating_shl(target.failures).min(SKIP_MAX_US);
            target.failures = target.failures.saturating_add(1);
            target.skip_until_us = now_us.saturating_add(skip_us);
        }
        state.targets.iter().any(|target| target.skip_until_us <= now_us)
    }

    /// Notes that a target has answered.
    pub(crate) fn succeeded(&self, target: usize) {
        if !self.is_failing.load(Ordering::Relaxed) {
            return;
        }
        let mut state = lock(&self.state);
        if let Some(target) = state.targets.get_mut(target) {
            target.failures = 0;
            target.skip_until_us = 0;
        }
        self.is_failing.store(state.targets.iter().any(|target| target.failures > 0), Ordering::Relaxed);
    }
}

trait SaturatingShl {
    fn saturating_shl(self, bits: u32) -> Self;
}

impl SaturatingShl for u64 {
    fn saturating_shl(self, bits: u32) -> Self {
        self.saturating_mul(1_u64.checked_shl(bits).unwrap_or(Self::MAX))
    }
}

impl Target {
    fn take_idle(&mut self, now_us: u64) -> Option<SendRequest<UploadBody>> {
        // The oldest are at the bottom.
        let old = self.idle.iter().take_while(|idle| now_us.saturating_sub(idle.since_us) > IDLE_MAX_US).count();
        self.idle.drain(..old);
        while let Some(idle) = self.idle.pop() {
            if !idle.sender.is_closed() {
                return Some(idle.sender);
            }
        }
        None
    }
}

impl Lease {
    pub(super) fn new(permit: &Permit, sender: SendRequest<UploadBody>) -> Self {
        Self { pool: Arc::clone(&permit.pool), target: permit.target, sender, is_reused: false }
    }

    pub(crate) const fn target(&self) -> usize {
        self.target
    }

    /// Whether it has carried a request before.
    pub(crate) const fn is_reused(&self) -> bool {
        self.is_reused
    }

    pub(crate) const fn sender(&mut self) -> &mut SendRequest<UploadBody> {
        &mut self.sender
    }

    /// Waits until the connection has put its last exchange away: at once, or when its own task has run. False if it was
    /// closed.
    pub(crate) async fn is_ready(&mut self) -> bool {
        self.sender.is_ready() || self.sender.ready().await.is_ok()
    }

    /// Keeps the connection for the next request. Both bodies must be through.
    pub(crate) fn give_back(self, now_us: u64) {
        let Self { pool, target, sender, .. } = self;
        if sender.is_closed() {
            return;
        }
        let mut state = lock(&pool.state);
        if let Some(target) = state.targets.get_mut(target) {
            target.idle.push(Idle { sender, since_us: now_us });
        }
    }
}

impl Permit {
    pub(crate) const fn target(&self) -> usize {
        self.target
    }

    pub(crate) fn upstream(&self) -> &CompiledUpstream {
        &self.pool.upstream
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(target) = lock(&self.pool.state).targets.get_mut(self.target) {
            target.open = target.open.saturating_sub(1);
        }
    }
}

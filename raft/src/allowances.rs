//! What this node may spend of the cluster's limits: the ledger, shared by all workers, and the requests that wait for
//! it.
//!
//! A warm request does not come here: a worker keeps the slots of its buckets and spends them with [`admit`]. Here are
//! the cold paths, behind one lock: the slot of a bucket that a worker has not met lately, waiting for tokens, and the
//! steward's side, which the crate's own task drives. Nothing here sends anything.

use crate::{clock::Clock, types::lock};
use ::session::ledger::{Ledger, Pace, Slot, Verdict, admit};
use imbl::OrdMap;
use machine::{
    Name,
    allowance::{Acquire, Answer, BucketId},
    bucket::{Incarnation, Limit},
    member::NodeId,
};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

/// How much a node's ledger may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllowanceCaps {
    /// Buckets in use at a time. Each costs some hundred bytes, and the steward looks at all of them in each cycle.
    pub slots: usize,
    /// Requests that wait for tokens at a time; each holds a request and its connection.
    pub waiting: usize,
}

impl Default for AllowanceCaps {
    fn default() -> Self {
        Self { slots: 200_000, waiting: 10_000 }
    }
}

/// A combination of limits, as requests wait for it: where the slots lie, which a queue holds for as long as it is there,
/// with what a request costs of each.
type Combination = Vec<(usize, u64)>;

/// What this node may spend of the cluster's limits.
pub struct Allowances {
    clock: Arc<dyn Clock>,
    caps: AllowanceCaps,
    inner: Mutex<Inner>,
    /// Something should be asked before the next cycle.
    wanted: Notify,
}

struct Inner {
    ledger: Ledger,
    queues: BTreeMap<Combination, Queue>,
    waiting: usize,
    next_waiter: u64,
    /// The node gives back what it holds, and asks for nothing more.
    closed: bool,
}

/// Requests that wait for one combination, the first first.
struct Queue {
    parts: Vec<(Arc<Slot>, u64)>,
    waiters: VecDeque<Waiter>,
}

struct Waiter {
    number: u64,
    verdict: oneshot::Sender<Verdict>,
}

/// What an [`Allowances`] holds, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    /// Buckets in use.
    pub slots: usize,
    /// Requests that wait for tokens.
    pub waiting: usize,
    /// Tokens that are held and not spent.
    pub tokens: u64,
}

impl fmt::Debug for Allowances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allowances").field("caps", &self.caps).finish_non_exhaustive()
    }
}

impl Allowances {
    /// Nothing is held: a process that starts is a new `incarnation`, a random number.
    #[must_use]
    pub fn new(node: NodeId, incarnation: Incarnation, pace: Pace, caps: AllowanceCaps, clock: Arc<dyn Clock>) -> Self {
        let inner = Inner {
            ledger: Ledger::new(node, incarnation, pace),
            queues: BTreeMap::new(),
            waiting: 0,
            next_waiter: 0,
            closed: false,
        };
        Self { clock, caps, inner: Mutex::new(inner), wanted: Notify::new() }
    }

    /// The slot of a bucket, made when first asked for; `None` when the node's cap of slots is reached. `burst` is the
    /// most that the bucket can hold ([`machine::limit::Rule::burst`]).
    ///
    /// A worker keeps it in a map of its own and drops it when it was not used for some seconds: the ledger forgets a
    /// bucket only when nobody else holds its slot.
    pub fn slot(&self, id: &BucketId, burst: u64) -> Option<Arc<Slot>> {
        let now_us = self.clock.boot_us();
        let mut inner = lock(&self.inner);
        let before = inner.ledger.len();
        if before >= self.caps.slots && inner.ledger.find(id).is_none() {
            drop(inner);
            metrics::counter!("quorate_limit_slots_refused_total").increment(1);
            return None;
        }
        let slot = inner.ledger.slot(id, burst, now_us);
        let is_new = inner.ledger.len() > before;
        drop(inner);
        if is_new {
            // The steward looks after it from now on, until it is used no more.
            self.wanted.notify_one();
        }
        Some(slot)
    }

    /// Waits for tokens of all parts: until they were spent for the caller ([`Verdict::Admitted`]), refused, or the time
    /// is over or too many wait already ([`Verdict::Dry`]). First come, first served, for each combination of limits.
    pub async fn wait(&self, parts: &[(Arc<Slot>, u64)], within: Duration) -> Verdict {
        let began = Instant::now();
        let verdict = match self.join(parts) {
            Ok(place) => place.served(began + within).await,
            Err(verdict) => verdict,
        };
        let result = match verdict {
            Verdict::Admitted { .. } => "admitted",
            Verdict::Refused { .. } => "refused",
            Verdict::Dry => "dry",
        };
        metrics::counter!("quorate_limit_waits_total", "result" => result).increment(1);
        metrics::histogram!("quorate_limit_wait_seconds").record(began.elapsed().as_secs_f64());
        verdict
    }

    /// Takes a place in the queue, or says at once what becomes of the request.
    fn join(&self, parts: &[(Arc<Slot>, u64)]) -> Result<Place<'_>, Verdict> {
        let combination: Combination = parts.iter().map(|(slot, cost)| (Arc::as_ptr(slot).addr(), *cost)).collect();
        let mut inner = lock(&self.inner);
        // Tokens may have arrived since the caller looked.
        if !inner.queues.contains_key(&combination) {
            match admit(parts, self.clock.boot_us()) {
                Verdict::Dry => {}
                verdict => return Err(verdict),
            }
        }
        if inner.closed || inner.waiting >= self.caps.waiting {
            return Err(Verdict::Dry);
        }
        let number = inner.next_waiter;
        let (verdict, answer) = oneshot::channel();
        inner.next_waiter = inner.next_waiter.wrapping_add(1);
        inner.waiting = inner.waiting.saturating_add(1);
        inner.ledger.wait(parts);
        let new = || Queue { parts: parts.to_vec(), waiters: VecDeque::new() };
        let queue = inner.queues.entry(combination.clone()).or_insert_with(new);
        queue.waiters.push_back(Waiter { number, verdict });
        drop(inner);
        self.wanted.notify_one();
        Ok(Place { allowances: self, combination, number, answer })
    }

    /// What to send to the leader now, if anything. The allowances that it brings count from `now_us`, so nothing may be
    /// sent that was read from the clock later.
    pub fn collect(&self, now_us: u64) -> Option<Acquire> {
        let mut inner = lock(&self.inner);
        if inner.closed { None } else { inner.ledger.collect(now_us) }
    }

    /// When [`Allowances::collect`] has something to do next, as far as is known: never, if nothing is in use.
    #[must_use]
    pub fn next_us(&self) -> Option<u64> {
        lock(&self.inner).ledger.next_us()
    }

    /// Takes the answer to the request under way, and serves who waits for it. Any other answer is ignored, a second one
    /// to the same request included. Returns whether it was taken.
    pub fn accept(&self, request: u64, answer: &Answer, now_us: u64) -> bool {
        let mut inner = lock(&self.inner);
        let taken = inner.ledger.accept(request, answer, now_us);
        if !taken {
            return false;
        }
        // Read again, behind the lock: every request that waits has come before. By an older reading, what has expired
        // since, in a pause of this machine, would be spent.
        inner.serve(self.clock.boot_us());
        drop(inner);
        let tokens = answer.grants.iter().map(|grant| grant.amount).fold(0, u64::saturating_add);
        metrics::counter!("quorate_limit_grants_total").increment(answer.grants.len() as u64);
        metrics::counter!("quorate_limit_granted_tokens_total").increment(tokens);
        true
    }

    /// Whether a request is under way: not answered, and not given up.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        lock(&self.inner).ledger.under_way().is_some()
    }

    /// Resolves when something should be asked before [`Allowances::next_us`]: a request waits for tokens, or a bucket is
    /// new.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Gives everything back, as a node that stops does: what to send, if anything is held. Nothing can be spent from
    /// here on, and who waits is told so. One request may not hold everything: call it again when it was answered.
    pub fn close_all(&self, now_us: u64) -> Option<Acquire> {
        let mut inner = lock(&self.inner);
        inner.closed = true;
        let queues = std::mem::take(&mut inner.queues);
        for (_, queue) in queues {
            for waiter in queue.waiters {
                inner.left(&queue.parts);
                // One that has gone meanwhile needs no answer.
                let _: Result<_, _> = waiter.verdict.send(Verdict::Dry);
            }
        }
        inner.ledger.close_all(now_us)
    }

    /// Forgets what was refused of limits that are others than they were: what is asked from here on is served by the
    /// new ones.
    pub fn limits_changed(&self, before: &OrdMap<Name, Limit>, now: &OrdMap<Name, Limit>) {
        use imbl::ordmap::DiffItem;
        if before.ptr_eq(now) {
            return;
        }
        let mut inner = lock(&self.inner);
        for item in before.diff(now) {
            let (name, limit) = match item {
                DiffItem::Add(name, limit) | DiffItem::Update { new: (name, limit), .. } => (name, Some(limit)),
                DiffItem::Remove(name, _) => (name, None),
            };
            inner.ledger.limit_changed(name, limit.map(|limit| limit.rule.burst()));
        }
        drop(inner);
        // Who waits may be served now.
        self.wanted.notify_one();
    }

    /// What is held, for metrics: it walks all slots.
    #[must_use]
    pub fn holds(&self) -> Holds {
        let now_us = self.clock.boot_us();
        let inner = lock(&self.inner);
        let tokens = inner.ledger.slots().map(|slot| slot.remaining(now_us)).fold(0, u64::saturating_add);
        Holds { slots: inner.ledger.len(), waiting: inner.waiting, tokens }
    }
}

impl Inner {
    /// Serves who waits, as far as the tokens go.
    fn serve(&mut self, now_us: u64) {
        let Self { ledger, queues, waiting, .. } = self;
        queues.retain(|_, queue| {
            while !queue.waiters.is_empty() {
                let verdict = admit(&queue.parts, now_us);
                if verdict == Verdict::Dry {
                    break;
                }
                let Some(waiter) = queue.waiters.pop_front() else { break };
                ledger.done_waiting(&queue.parts);
                *waiting = waiting.saturating_sub(1);
                // The tokens of one that goes at this very moment are lost, as those of a request that is cut off.
                let _: Result<_, _> = waiter.verdict.send(verdict);
            }
            !queue.waiters.is_empty()
        });
    }

    fn left(&mut self, parts: &[(Arc<Slot>, u64)]) {
        self.ledger.done_waiting(parts);
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// Takes a waiting request out of its queue. `false` if it was answered before.
    fn leave(&mut self, combination: &Combination, number: u64) -> bool {
        let Some(queue) = self.queues.get_mut(combination) else { return false };
        // They are numbered in order; who gives up is mostly the first.
        let Some(place) = queue.waiters.iter().position(|waiter| waiter.number == number) else { return false };
        queue.waiters.remove(place);
        let parts = queue.parts.clone();
        if queue.waiters.is_empty() {
            self.queues.remove(combination);
        }
        self.left(&parts);
        true
    }
}

/// A place in a queue. Given up when it is dropped, as when the client goes away.
struct Place<'a> {
    allowances: &'a Allowances,
    combination: Combination,
    number: u64,
    answer: oneshot::Receiver<Verdict>,
}

impl Place<'_> {
    async fn served(mut self, until: Instant) -> Verdict {
        if let Ok(verdict) = tokio::time::timeout_at(until, &mut self.answer).await {
            return verdict.unwrap_or(Verdict::Dry);
        }
        if lock(&self.allowances.inner).leave(&self.combination, self.number) {
            return Verdict::Dry;
        }
        // Answered in this very moment: tokens may have been spent for it.
        self.answer.try_recv().unwrap_or(Verdict::Dry)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(&self.allowances.inner).leave(&self.combination, self.number);
    }
}

#[cfg(test)]
mod tests;

//! A node's ledger: the allowances it holds, spent without asking anybody.
//!
//! Workers share [`Slot`]s, one for each bucket that is in use, and spend with [`admit`]: a few loads and an atomic
//! decrement, no lock, no allocation. One steward owns the [`Ledger`]: it reports what was spent, asks for more before
//! a slot runs dry, and closes what is idle. At most one request is under way at a time, so that what is asked for
//! meanwhile travels together.
//!
//! What keeps the limit:
//! - an allowance is spent only before `sent + ttl`, counted from *before* its request was sent;
//! - an answer is taken once, and only by the process that asked;
//! - reports are cumulative and count admitted requests only, never tokens that were taken and put back;
//! - a closed allowance can be spent no more before its close is reported.

use arc_swap::ArcSwap;
use machine::{
    Name,
    allowance::{Acquire, Answer, BucketId, Part, Want},
    bucket::{AllowanceId, Incarnation, Spent},
    member::NodeId,
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

/// How the steward behaves. Times are in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The least time between two requests: what arrives within it travels together.
    pub cycle_us: u64,
    /// A slot in use asks again at the latest after this.
    pub renew_us: u64,
    /// How long a request may take with an election in between: what is asked ahead covers it.
    pub election_us: u64,
    /// A slot that was not used for this long gives back what it holds.
    pub idle_us: u64,
    /// A request that was not answered for this long is given up.
    pub patience_us: u64,
}

/// One bucket, as workers see it.
#[derive(Debug)]
pub struct Slot {
    id: BucketId,
    /// The most that the bucket can hold: how often spending is reported follows from it.
    burst: AtomicU64,
    holdings: ArcSwap<Vec<Arc<Holding>>>,
    /// Until then the answer is no, from memory.
    refused_until_us: AtomicU64,
    /// Requests that wait for tokens.
    waiting: AtomicU64,
}

/// An allowance, as its holder spends it.
#[derive(Debug)]
struct Holding {
    allowance: AllowanceId,
    granted: u64,
    /// Below zero once it is closed.
    remaining: AtomicI64,
    /// Tokens of admitted requests.
    spent: AtomicU64,
    /// Local time: when it arrived.
    received_us: u64,
    /// Local time: never spent at or after it.
    deadline_us: u64,
}

/// An allowance that a node holds, for people and checkers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its number.
    pub allowance: AllowanceId,
    /// Tokens that can still be spent.
    pub remaining: u64,
    /// Tokens of admitted requests.
    pub spent: u64,
    /// Local time at which it ends.
    pub deadline_us: u64,
}

/// Far below anything that takers can add or subtract.
const CLOSED: i64 = i64::MIN / 4;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Tokens of every limit were spent.
    Admitted {
        /// The instant that counts: when the clock was read, or when the tokens arrived, if that was later.
        at_us: u64,
    },
    /// At least one limit is used up: try again in so many microseconds. Nothing was spent.
    Refused {
        /// From now.
        retry_us: u64,
    },
    /// The node holds nothing here: wait for an allowance. Nothing was spent.
    Dry,
}

/// Spends one request's cost of each of its limits: of all of them, or of none.
///
/// `now_us` is read from CLOCK_BOOTTIME after the request has started, never from a cache: after a pause, a worker can
/// run before whatever refreshes a cache, and would spend what has expired.
pub fn admit(parts: &[(Arc<Slot>, u64)], now_us: u64) -> Verdict {
    // A request has few limits; three fit without an allocation, more are taken one by one all the same.
    let mut first = None;
    let mut rest: Vec<(Arc<Holding>, u64)> = Vec::new();
    for (slot, cost) in parts {
        match slot.take(*cost, now_us) {
            Some(holding) if first.is_none() => first = Some((holding, *cost)),
            Some(holding) => rest.push((holding, *cost)),
            None => {
                for (holding, cost) in first.into_iter().chain(rest) {
                    holding.put_back(cost);
                }
                return slot.verdict_without_tokens(now_us);
            }
        }
    }
    let mut at_us = now_us;
    for (holding, cost) in first.into_iter().chain(rest) {
        holding.spent.fetch_add(cost, Ordering::AcqRel);
        at_us = at_us.max(holding.received_us);
    }
    Verdict::Admitted { at_us }
}

impl Slot {
    fn new(id: BucketId, burst: u64) -> Self {
        Self {
            id,
            burst: AtomicU64::new(burst),
            holdings: ArcSwap::from_pointee(Vec::new()),
            refused_until_us: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
        }
    }

    /// Which bucket.
    #[must_use]
    pub const fn id(&self) -> &BucketId {
        &self.id
    }

    /// Tokens that could be spent at this instant: for the `RateLimit` header, and for people.
    #[must_use]
    pub fn remaining(&self, now_us: u64) -> u64 {
        self.holdings
            .load()
            .iter()
            .filter(|holding| now_us < holding.deadline_us)
            .map(|holding| u64::try_from(holding.remaining.load(Ordering::Relaxed)).unwrap_or(0))
            .sum()
    }

    /// What the node holds of the bucket, the first to end first.
    #[must_use]
    pub fn held(&self) -> Vec<Held> {
        let held = |holding: &Arc<Holding>| Held {
            allowance: holding.allowance,
            remaining: u64::try_from(holding.remaining.load(Ordering::Acquire)).unwrap_or(0),
            spent: holding.spent.load(Ordering::Acquire),
            deadline_us: holding.deadline_us,
        };
        self.holdings.load().iter().map(held).collect()
    }

    fn take(&self, cost: u64, now_us: u64) -> Option<Arc<Holding>> {
        let holdings = self.holdings.load();
        let taken = holdings.iter().find(|holding| now_us < holding.deadline_us && holding.take(cost));
        taken.map(Arc::clone)
    }

    fn verdict_without_tokens(&self, now_us: u64) -> Verdict {
        let refused_until_us = self.refused_until_us.load(Ordering::Acquire);
        if refused_until_us > now_us { Verdict::Refused { retry_us: refused_until_us - now_us } } else { Verdict::Dry }
    }
}

impl Holding {
    fn take(&self, cost: u64) -> bool {
        let Ok(cost) = i64::try_from(cost) else { return false };
        if self.remaining.load(Ordering::Relaxed) < cost {
            return false;
        }
        if self.remaining.fetch_sub(cost, Ordering::AcqRel) >= cost {
            return true;
        }
        // Somebody was faster. Put back to what may have been closed meanwhile: then it stays below zero.
        self.remaining.fetch_add(cost, Ordering::AcqRel);
        false
    }

    fn put_back(&self, cost: u64) {
        self.remaining.fetch_add(i64::try_from(cost).unwrap_or(0), Ordering::AcqRel);
    }

    /// Ends spending for good and says how much was spent at the most: tokens that a worker has in its hands count as
    /// spent, whether it puts them back or not.
    fn close(&self) -> u64 {
        let left = self.remaining.swap(CLOSED, Ordering::AcqRel);
        self.granted.saturating_sub(u64::try_from(left).unwrap_or(0))
    }
}

/// The steward's side of a node's ledger.
#[derive(Debug)]
pub struct Ledger {
    node: NodeId,
    incarnation: Incarnation,
    pace: Pace,
    accounts: BTreeMap<BucketId, Account>,
    /// Combinations under which requests wait.
    waiting: BTreeMap<Vec<(BucketId, u64)>, u64>,
    requests: u64,
    /// The request under way, and when it was first sent.
    under_way: Option<(Acquire, u64)>,
    last_sent_us: Option<u64>,
}

/// What the steward knows of a slot.
#[derive(Debug)]
struct Account {
    slot: Arc<Slot>,
    /// By allowance: what the last request said was spent.
    reported: BTreeMap<AllowanceId, u64>,
    /// Spent of allowances that are gone from the slot.
    spent_before: u64,
    /// Of the last look: when, and how much had been spent in all.
    looked_us: u64,
    looked_spent: u64,
    /// Tokens a second, smoothed.
    demand: u64,
    used_us: u64,
    asked_us: u64,
    /// Closed allowances with what was spent of them, until a request has carried them.
    closes: Vec<(AllowanceId, u64)>,
}

/// The shortest time over which demand is measured.
const LOOK_US: u64 = 50_000;

impl Ledger {
    /// An empty ledger: a process that starts holds nothing. `incarnation` is random.
    #[must_use]
    pub const fn new(node: NodeId, incarnation: Incarnation, pace: Pace) -> Self {
        Self {
            node,
            incarnation,
            pace,
            accounts: BTreeMap::new(),
            waiting: BTreeMap::new(),
            requests: 0,
            under_way: None,
            last_sent_us: None,
        }
    }

    /// The slot of a bucket: made when it is first asked for. `burst` is the most that the bucket can hold.
    pub fn slot(&mut self, id: &BucketId, burst: u64, now_us: u64) -> Arc<Slot> {
        if let Some(account) = self.accounts.get(id) {
            account.slot.burst.store(burst, Ordering::Relaxed);
            return Arc::clone(&account.slot);
        }
        let slot = Arc::new(Slot::new(id.clone(), burst));
        self.accounts.insert(id.clone(), Account::new(Arc::clone(&slot), now_us));
        slot
    }

    /// The slot of a bucket, if it is in use.
    #[must_use]
    pub fn find(&self, id: &BucketId) -> Option<Arc<Slot>> {
        self.accounts.get(id).map(|account| Arc::clone(&account.slot))
    }

    /// All slots in use.
    pub fn slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.accounts.values().map(|account| &account.slot)
    }

    /// A limit has changed or is gone: what its buckets refused from memory is no longer known.
    pub fn limit_changed(&mut self, limit: &Name, burst: Option<u64>) {
        let first = BucketId { limit: limit.clone(), subject: Arc::from([]) };
        let of_limit = self.accounts.range(first..).take_while(|(id, _)| id.limit == *limit);
        for (_, account) in of_limit {
            account.slot.refused_until_us.store(0, Ordering::Release);
            if let Some(burst) = burst {
                account.slot.burst.store(burst, Ordering::Relaxed);
            }
        }
    }

    /// How many buckets are in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    /// Whether no bucket is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// A request waits for tokens of this combination; call it for each, and [`Ledger::done_waiting`] when it ends.
    pub fn wait(&mut self, parts: &[(Arc<Slot>, u64)]) {
        let key = parts.iter().map(|(slot, cost)| (slot.id.clone(), *cost)).collect();
        let waiting = self.waiting.entry(key).or_default();
        *waiting = waiting.saturating_add(1);
    }

    /// A waiting request was admitted, refused or gave up.
    pub fn done_waiting(&mut self, parts: &[(Arc<Slot>, u64)]) {
        let key: Vec<(BucketId, u64)> = parts.iter().map(|(slot, cost)| (slot.id.clone(), *cost)).collect();
        if let Some(waiting) = self.waiting.get_mut(&key) {
            *waiting = waiting.saturating_sub(1);
            if *waiting == 0 {
                self.waiting.remove(&key);
            }
        }
    }

    /// What to send to the leader now, if anything. The time of the first call that returned a request is the time
    /// from which its allowances count.
    pub fn collect(&mut self, now_us: u64) -> Option<Acquire> {
        if let Some((_, sent_us)) = &self.under_way {
            if now_us.saturating_sub(*sent_us) < self.pace.patience_us {
                return None;
            }
            // Given up: if an answer comes after all, it is not taken.
            self.under_way = None;
        }
        let too_early = self.last_sent_us.is_some_and(|sent_us| now_us < sent_us.saturating_add(self.pace.cycle_us));
        if too_early {
            return None;
        }
        let mut reports = Vec::new();
        let mut wants = Vec::new();
        for account in self.accounts.values_mut() {
            account.look(now_us, self.pace);
        }
        for (combination, waiting) in &self.waiting {
            let refused = combination
                .iter()
                .filter_map(|(id, _)| self.accounts.get(id))
                .any(|account| account.slot.refused_until_us.load(Ordering::Acquire) > now_us);
            if !refused {
                let part = |(id, cost): &(BucketId, u64)| Part { bucket: id.clone(), cost: *cost };
                wants.push(Want { parts: combination.iter().map(part).collect(), waiting: *waiting, ahead: 0 });
                for (id, _) in combination {
                    if let Some(account) = self.accounts.get_mut(id) {
                        account.slot.waiting.fetch_add(*waiting, Ordering::Relaxed);
                    }
                }
            }
        }
        for (id, account) in &mut self.accounts {
            let waits = account.slot.waiting.swap(0, Ordering::Relaxed) > 0;
            let ahead = account.ahead(now_us, self.pace);
            let due = account.is_due(now_us, self.pace, waits || ahead > 0);
            if due {
                reports.extend(account.reports(now_us).into_iter().map(|spent| (id.clone(), spent)));
                account.asked_us = now_us;
            }
            if due && ahead > 0 {
                wants.push(Want { parts: vec![Part { bucket: id.clone(), cost: 1 }], waiting: 0, ahead });
            }
        }
        self.forget_idle(now_us);
        if reports.is_empty() && wants.is_empty() {
            return None;
        }
        Some(self.send(reports, wants, now_us))
    }

    fn send(&mut self, reports: Vec<(BucketId, Spent)>, wants: Vec<Want>, now_us: u64) -> Acquire {
        self.requests = self.requests.saturating_add(1);
        let acquire =
            Acquire { node: self.node, incarnation: self.incarnation, request: self.requests, reports, wants };
        self.under_way = Some((acquire.clone(), now_us));
        self.last_sent_us = Some(now_us);
        acquire
    }

    /// The request under way, to send again when the stream to the leader was cut: it is answered again, and what it
    /// grants still counts from when it was first sent.
    #[must_use]
    pub fn under_way(&self) -> Option<&Acquire> {
        self.under_way.as_ref().map(|(acquire, _)| acquire)
    }

    /// Takes the answer to the request under way; any other is ignored, a second one to the same request included.
    /// Returns whether it was taken.
    pub fn accept(&mut self, request: u64, answer: &Answer, now_us: u64) -> bool {
        let Some((acquire, sent_us)) = self.under_way.take_if(|(acquire, _)| acquire.request == request) else {
            return false;
        };
        for (id, spent) in &acquire.reports {
            if let Some(account) = self.accounts.get_mut(id) {
                account.was_reported(spent);
            }
        }
        for grant in &answer.grants {
            if let Some(account) = self.accounts.get_mut(&grant.bucket) {
                account.hold(grant.allowance, grant.amount, sent_us.saturating_add(grant.ttl_us), now_us);
            }
        }
        for scarce in &answer.scarce {
            if let Some(account) = self.accounts.get_mut(&scarce.bucket) {
                account.slot.refused_until_us.store(now_us.saturating_add(scarce.due_us), Ordering::Release);
            }
        }
        true
    }

    /// Gives everything back, as a node that stops does: the last request of the process.
    pub fn close_all(&mut self, now_us: u64) -> Option<Acquire> {
        self.under_way = None;
        let mut reports = Vec::new();
        for (id, account) in &mut self.accounts {
            account.close_all();
            reports.extend(account.reports(now_us).into_iter().map(|spent| (id.clone(), spent)));
        }
        (!reports.is_empty()).then(|| self.send(reports, Vec::new(), now_us))
    }

    fn forget_idle(&mut self, now_us: u64) {
        let idle_us = self.pace.idle_us;
        self.accounts.retain(|_, account| {
            let used = now_us.saturating_sub(account.used_us) < idle_us.saturating_mul(2);
            // Somebody else holds it: a worker that is about to spend, or a request that waits.
            let held = Arc::strong_count(&account.slot) > 1;
            used || held || !account.closes.is_empty() || !account.slot.holdings.load().is_empty()
        });
    }
}

impl Account {
    const fn new(slot: Arc<Slot>, now_us: u64) -> Self {
        Self {
            slot,
            reported: BTreeMap::new(),
            spent_before: 0,
            looked_us: now_us,
            looked_spent: 0,
            demand: 0,
            used_us: now_us,
            asked_us: now_us,
            closes: Vec::new(),
        }
    }

    /// Measures demand, drops what has expired, closes what is idle.
    fn look(&mut self, now_us: u64, pace: Pace) {
        let holdings = self.slot.holdings.load_full();
        let spent = holdings
            .iter()
            .map(|holding| holding.spent.load(Ordering::Acquire))
            .fold(self.spent_before, u64::saturating_add);
        let elapsed_us = now_us.saturating_sub(self.looked_us);
        if spent > self.looked_spent {
            self.used_us = now_us;
        }
        if elapsed_us >= LOOK_US {
            let rate = u128::from(spent.saturating_sub(self.looked_spent)) * 1_000_000 / u128::from(elapsed_us);
            let rate = u64::try_from(rate).unwrap_or(u64::MAX);
            self.demand = if rate > self.demand { rate } else { self.demand / 2 + rate / 2 };
            self.looked_us = now_us;
            self.looked_spent = spent;
        }
        if holdings.iter().any(|holding| holding.deadline_us <= now_us) {
            // A quota takes back what was not spent, if its window still lasts; a token bucket has written it off.
            for holding in holdings.iter().filter(|holding| holding.deadline_us <= now_us) {
                self.closes.push((holding.allowance, holding.close()));
            }
            self.keep(|holding| holding.deadline_us > now_us);
        }
        if now_us.saturating_sub(self.used_us) >= pace.idle_us {
            self.demand = 0;
            self.close_all();
        }
    }

    /// Drops holdings from the slot; what was spent of them stays counted.
    fn keep(&mut self, keeps: impl Fn(&Holding) -> bool) {
        let holdings = self.slot.holdings.load_full();
        let (kept, dropped): (Vec<_>, Vec<_>) = holdings.iter().cloned().partition(|holding| keeps(holding));
        for holding in &dropped {
            self.spent_before = self.spent_before.saturating_add(holding.spent.load(Ordering::Acquire));
            self.reported.remove(&holding.allowance);
        }
        self.slot.holdings.store(Arc::new(kept));
    }

    fn close_all(&mut self) {
        for holding in self.slot.holdings.load_full().iter() {
            self.closes.push((holding.allowance, holding.close()));
        }
        self.keep(|_| false);
    }

    /// Tokens to ask for beyond what waits: enough until the next renewal and through an election, once half of that is
    /// gone.
    fn ahead(&self, now_us: u64, pace: Pace) -> u64 {
        if self.demand == 0 || self.slot.refused_until_us.load(Ordering::Acquire) > now_us {
            return 0;
        }
        let horizon_us = pace.renew_us.saturating_add(pace.election_us);
        let wanted = u128::from(self.demand) * u128::from(horizon_us) / 1_000_000;
        let wanted = u64::try_from(wanted).unwrap_or(u64::MAX).max(1);
        let lasting = self.slot.remaining(now_us.saturating_add(pace.election_us));
        if lasting >= wanted / 2 { 0 } else { wanted - lasting }
    }

    /// Whether the slot's spending must be reported now: to get more, or because what it keeps to itself would hold up
    /// the refill of a small bucket.
    fn is_due(&self, now_us: u64, pace: Pace, wants: bool) -> bool {
        let unreported: u64 = self
            .slot
            .holdings
            .load()
            .iter()
            .map(|holding| {
                let reported = self.reported.get(&holding.allowance).copied().unwrap_or(0);
                holding.spent.load(Ordering::Acquire).saturating_sub(reported)
            })
            .sum();
        let much = unreported > 0 && unreported >= self.slot.burst.load(Ordering::Relaxed) / 16;
        let late = unreported > 0 && now_us.saturating_sub(self.asked_us) >= pace.renew_us;
        wants || much || late || !self.closes.is_empty()
    }

    fn reports(&mut self, now_us: u64) -> Vec<Spent> {
        // What is used up need not wait for its end.
        let used_up: Vec<Arc<Holding>> = self
            .slot
            .holdings
            .load()
            .iter()
            .filter(|holding| holding.spent.load(Ordering::Acquire) >= holding.granted)
            .map(Arc::clone)
            .collect();
        for holding in &used_up {
            self.closes.push((holding.allowance, holding.close()));
        }
        if !used_up.is_empty() {
            self.keep(|holding| !used_up.iter().any(|used| used.allowance == holding.allowance));
        }
        let closed =
            self.closes.iter().map(|(allowance, spent)| Spent { allowance: *allowance, spent: *spent, close: true });
        let open = self.slot.holdings.load_full();
        let open = open.iter().filter(|holding| holding.deadline_us > now_us).filter_map(|holding| {
            let spent = holding.spent.load(Ordering::Acquire);
            let known = self.reported.get(&holding.allowance).copied().unwrap_or(0);
            (spent > known).then_some(Spent { allowance: holding.allowance, spent, close: false })
        });
        closed.chain(open).collect()
    }

    fn was_reported(&mut self, report: &Spent) {
        if report.close {
            self.closes.retain(|(allowance, _)| *allowance != report.allowance);
        } else if self.slot.holdings.load().iter().any(|holding| holding.allowance == report.allowance) {
            self.reported.insert(report.allowance, report.spent);
        }
    }

    fn hold(&mut self, allowance: AllowanceId, amount: u64, deadline_us: u64, now_us: u64) {
        let holding = Arc::new(Holding {
            allowance,
            granted: amount,
            remaining: AtomicI64::new(i64::try_from(amount).unwrap_or(i64::MAX)),
            spent: AtomicU64::new(0),
            received_us: now_us,
            deadline_us,
        });
        let mut holdings = self.slot.holdings.load_full().as_ref().clone();
        holdings.push(holding);
        // What ends first is spent first.
        holdings.sort_by_key(|holding| holding.deadline_us);
        self.slot.holdings.store(Arc::new(holdings));
        self.used_us = now_us;
    }
}

#[cfg(test)]
mod tests;

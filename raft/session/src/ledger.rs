//! A node's ledger: the allowances it holds, spent without asking anybody.
//!
//! Workers share [`Slot`]s, one for each bucket that is in use, and spend with [`admit`]: a few loads and atomic
//! additions, no lock, no allocation. One steward owns the [`Ledger`]: it reports what was spent, asks for more before
//! a slot runs dry, and closes what is idle. At most one request is under way at a time, so that what is asked for
//! meanwhile travels together.
//!
//! What keeps the limit:
//! - an allowance is spent only before `sent + ttl`, counted from *before* its request was sent;
//! - an answer is taken once, and only by the process that asked;
//! - reports are cumulative and count admitted requests only, never tokens that were taken and put back;
//! - a closed allowance can be spent no more before its close is reported.
//!
//! What keeps it cheap: a slot is looked at when it is due, not in every cycle, so that the cost follows what is in
//! use, not what was used lately.

mod account;
mod slot;

pub use slot::{Held, Slot, Verdict, admit};

use account::Account;
use machine::{
    Name,
    allowance::{Acquire, Answer, BucketId, Part, Want},
    bucket::{Incarnation, Spent},
    cap::{REPORTS_PER_ACQUIRE_MAX, WANTS_PER_ACQUIRE_MAX},
    member::NodeId,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
};

/// Of the wants of one request, how many at the most are for requests that wait: the rest is kept for slots that are
/// about to run dry, or a flood of new buckets would let all others run dry as well.
const WAITING_WANTS_MAX: usize = WANTS_PER_ACQUIRE_MAX / 4 * 3;
/// Of the reports of one request, how many at the most are of buckets that are waited for.
const WAITING_REPORTS_MAX: usize = REPORTS_PER_ACQUIRE_MAX / 2;
/// Bytes of one request, as far as buckets with long names count: well below what a message between nodes may have.
const ACQUIRE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Of these, how many at the most are for what is waited for.
const WAITING_BYTES_MAX: usize = ACQUIRE_BYTES_MAX / 4 * 3;
/// Requests that were given up and may be answered yet.
const GIVEN_UP_MAX: usize = 8;

/// How the steward behaves. Times are in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The least time between two requests, but for a bucket that nothing is known of: what arrives within it travels
    /// together.
    pub cycle_us: u64,
    /// A slot in use asks again at the latest after this.
    pub renew_us: u64,
    /// How long a request may take with an election in between: what is asked ahead covers it.
    pub election_us: u64,
    /// A slot that was not used for this long gives back what it holds.
    pub idle_us: u64,
    /// A request that was not answered for this long is given up.
    pub patience_us: u64,
    /// How long before its end, at the latest, what is held is given back.
    pub return_us: u64,
}

/// The steward's side of a node's ledger.
#[derive(Debug)]
pub struct Ledger {
    node: NodeId,
    incarnation: Incarnation,
    pace: Pace,
    numbers: BTreeMap<BucketId, u64>,
    accounts: BTreeMap<u64, Account>,
    next_number: u64,
    /// Which account is to be looked at when: each once.
    due: BTreeSet<(u64, u64)>,
    /// Combinations under which requests wait, as numbers of accounts with what a request costs there.
    waiting: BTreeMap<Vec<(u64, u64)>, Waiting>,
    requests: u64,
    under_way: Option<UnderWay>,
    /// Requests that were not answered in time: what an answer grants after all goes back at once.
    given_up: Vec<u64>,
    last_sent_us: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    requests: u64,
    /// The request that asked for it last; 0 if none has. Who was not asked for the longest comes first.
    asked: u64,
    /// There was nothing to ask for: look again then.
    not_before_us: u64,
}

/// A request that is not answered yet.
#[derive(Debug)]
struct UnderWay {
    acquire: Acquire,
    /// When it was first sent.
    sent_us: u64,
    /// The accounts that it asks something for.
    asked: Vec<u64>,
}

/// What is about to be sent.
#[derive(Default)]
struct Draft {
    reports: Vec<(BucketId, Spent)>,
    wants: Vec<Want>,
    asked: Vec<u64>,
    /// What the buckets that it names take, about.
    bytes: usize,
}

/// What naming a bucket with a few numbers takes in a request, about.
fn bytes_of(bucket: &BucketId) -> usize {
    bucket.limit.as_str().len().saturating_add(bucket.subject.len()).saturating_add(48)
}

impl Ledger {
    /// An empty ledger: a process that starts holds nothing. `incarnation` is random.
    #[must_use]
    pub const fn new(node: NodeId, incarnation: Incarnation, pace: Pace) -> Self {
        Self {
            node,
            incarnation,
            pace,
            numbers: BTreeMap::new(),
            accounts: BTreeMap::new(),
            next_number: 0,
            due: BTreeSet::new(),
            waiting: BTreeMap::new(),
            requests: 0,
            under_way: None,
            given_up: Vec::new(),
            last_sent_us: None,
        }
    }

    /// The slot of a bucket: made when it is first asked for. `burst` is the most that the bucket can hold.
    pub fn slot(&mut self, id: &BucketId, burst: u64, now_us: u64) -> Arc<Slot> {
        if let Some(account) = self.numbers.get(id).and_then(|number| self.accounts.get(number)) {
            account.slot.burst.store(burst, Ordering::Relaxed);
            return Arc::clone(&account.slot);
        }
        let number = self.next_number;
        self.next_number = self.next_number.saturating_add(1);
        let slot = Arc::new(Slot::new(number, id.clone(), burst));
        self.numbers.insert(id.clone(), number);
        self.accounts.insert(number, Account::new(Arc::clone(&slot), now_us));
        self.look_again(number, now_us);
        slot
    }

    /// The slot of a bucket, if it is in use.
    #[must_use]
    pub fn find(&self, id: &BucketId) -> Option<Arc<Slot>> {
        self.numbers.get(id).and_then(|number| self.accounts.get(number)).map(|account| Arc::clone(&account.slot))
    }

    /// All slots in use.
    pub fn slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.accounts.values().map(|account| &account.slot)
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
        for (slot, cost) in parts {
            if let Some(account) = self.accounts.get_mut(&slot.number) {
                account.one_request = account.one_request.max(*cost);
            }
        }
        let waiting = self.waiting.entry(combination(parts)).or_default();
        waiting.requests = waiting.requests.saturating_add(1);
    }

    /// A waiting request was admitted, refused or gave up.
    pub fn done_waiting(&mut self, parts: &[(Arc<Slot>, u64)]) {
        let combination = combination(parts);
        if let Some(waiting) = self.waiting.get_mut(&combination) {
            waiting.requests = waiting.requests.saturating_sub(1);
            if waiting.requests == 0 {
                self.waiting.remove(&combination);
            }
        }
    }

    /// A limit has another rule, or is gone (`None`): what its buckets were refused counts no more, neither what is
    /// remembered nor what an answer on the way may say. `burst` is the most that a bucket of it can hold now.
    pub fn limit_changed(&mut self, limit: &Name, burst: Option<u64>) {
        let first = BucketId { limit: limit.clone(), subject: [].as_slice().into() };
        for (_, number) in self.numbers.range(&first..).take_while(|(id, _)| id.limit == *limit) {
            let Some(account) = self.accounts.get_mut(number) else { continue };
            account.slot.refused_until_us.store(0, Ordering::Release);
            account.outdated_request = self.requests;
            if let Some(burst) = burst {
                account.slot.burst.store(burst, Ordering::Relaxed);
            }
        }
    }

    /// When [`Ledger::collect`] has something to do next, as far as is known now: never, if nothing is in use. A call of
    /// [`Ledger::wait`], [`Ledger::accept`] or [`Ledger::slot`] may bring it nearer.
    #[must_use]
    pub fn next_us(&self) -> Option<u64> {
        if let Some(under_way) = &self.under_way {
            return Some(under_way.sent_us.saturating_add(self.pace.patience_us));
        }
        let looks_us = self.due.first().map(|(due_us, _)| *due_us);
        if self.waiting.is_empty() {
            return looks_us.map(|due_us| due_us.max(self.next_cycle_us()));
        }
        let next_us =
            self.waiting.iter().map(|(parts, waiting)| self.may_ask_us(parts).max(waiting.not_before_us)).min();
        next_us.into_iter().chain(looks_us.map(|due_us| due_us.max(self.next_cycle_us()))).min()
    }

    /// When what is known may be sent: after a cycle.
    fn next_cycle_us(&self) -> u64 {
        self.last_sent_us.map_or(0, |sent_us| sent_us.saturating_add(self.pace.cycle_us))
    }

    /// When a combination may be asked for: at once if a bucket of it was not asked for within the last cycle, and not
    /// while one of its limits is known to be used up.
    fn may_ask_us(&self, combination: &[(u64, u64)]) -> u64 {
        let (mut cycle_us, mut refused_us) = (u64::MAX, 0);
        for (number, cost) in combination {
            let Some(account) = self.accounts.get(number) else { continue };
            cycle_us = cycle_us.min(account.asked_us.map_or(0, |us| us.saturating_add(self.pace.cycle_us)));
            if account.slot.remaining(0) < *cost {
                refused_us = refused_us.max(account.slot.refused_until_us.load(Ordering::Acquire));
            }
        }
        cycle_us.max(refused_us)
    }

    /// What to send to the leader now, if anything. The time of the first call that returned a request is the time
    /// from which its allowances count.
    ///
    /// A request keeps within what the cluster looks at in one. What does not fit goes with the next, the oldest first,
    /// so that nobody starves.
    pub fn collect(&mut self, now_us: u64) -> Option<Acquire> {
        if let Some(under_way) = &self.under_way {
            if now_us.saturating_sub(under_way.sent_us) < self.pace.patience_us {
                return None;
            }
            self.give_up();
        }
        if self.next_us().is_none_or(|next_us| next_us > now_us) {
            return None;
        }
        let mut draft = Draft::default();
        self.ask_for_waiting(now_us, &mut draft);
        self.look_at_due(now_us, &mut draft);
        self.send(draft, now_us)
    }

    /// Asks for what requests wait for, and says what was spent of the same buckets.
    fn ask_for_waiting(&mut self, now_us: u64, draft: &mut Draft) {
        for (number, cost) in self.waiting.keys().flatten() {
            if let Some(account) = self.accounts.get_mut(number) {
                account.close_if_too_small(*cost, now_us);
            }
        }
        let request = self.requests.saturating_add(1);
        let mut turns: Vec<(u64, &Vec<(u64, u64)>)> =
            self.waiting.iter().map(|(combination, waiting)| (waiting.asked, combination)).collect();
        if turns.len() > WAITING_WANTS_MAX {
            turns.sort_unstable();
        }
        let (mut asked, mut not_asked) = (Vec::new(), Vec::new());
        for (_, combination) in turns {
            if draft.wants.len() >= WAITING_WANTS_MAX || draft.bytes >= WAITING_BYTES_MAX {
                break;
            }
            match self.want(combination, now_us) {
                Some(want) => {
                    // Each bucket of it is likely to be reported, too.
                    let bytes: usize = want.parts.iter().map(|part| bytes_of(&part.bucket)).sum();
                    draft.bytes = draft.bytes.saturating_add(bytes.saturating_mul(2));
                    draft.wants.push(want);
                    asked.push(combination.clone());
                }
                None => not_asked.push(combination.clone()),
            }
        }
        for combination in not_asked {
            if let Some(waiting) = self.waiting.get_mut(&combination) {
                waiting.not_before_us = now_us.saturating_add(self.pace.cycle_us);
            }
        }
        let mut numbers = Vec::new();
        for combination in asked {
            let Some(waiting) = self.waiting.get_mut(&combination) else { continue };
            waiting.asked = request;
            for (number, cost) in combination {
                if let Some(account) = self.accounts.get_mut(&number) {
                    account.asked = account.asked.saturating_add(cost.saturating_mul(waiting.requests));
                    account.asked_us = Some(now_us);
                    numbers.push(number);
                }
            }
        }
        numbers.sort_unstable();
        numbers.dedup();
        for number in &numbers {
            self.look(*number, now_us, true, WAITING_REPORTS_MAX, draft);
        }
        // In order, and each once: those that were looked at.
        draft.asked = numbers;
    }

    /// What to ask for a combination: nothing while one of its limits is known to be used up. One that is used up but
    /// of which the node holds enough is left out, or the others would be asked for in vain.
    fn want(&self, combination: &[(u64, u64)], now_us: u64) -> Option<Want> {
        let mut parts = Vec::with_capacity(combination.len());
        for (number, cost) in combination {
            let slot = &self.accounts.get(number)?.slot;
            if slot.refused_us(*cost, now_us).is_some() {
                return None;
            }
            if slot.refused_until_us.load(Ordering::Acquire) <= now_us {
                parts.push(Part { bucket: slot.id().clone(), cost: *cost });
            }
        }
        let waiting = self.waiting.get(combination)?.requests;
        (!parts.is_empty()).then_some(Want { parts, waiting, ahead: 0 })
    }

    fn look_at_due(&mut self, now_us: u64, draft: &mut Draft) {
        let due: Vec<u64> =
            self.due.range(..=(now_us, u64::MAX)).map(|(_, number)| *number).take(REPORTS_PER_ACQUIRE_MAX).collect();
        for number in due {
            self.look(number, now_us, false, REPORTS_PER_ACQUIRE_MAX, draft);
        }
    }

    /// Looks at an account: adds to the draft what is to be said and asked, as far as there is room, and says when to
    /// look again. One that is over is forgotten.
    fn look(&mut self, number: u64, now_us: u64, is_waited_for: bool, reports_max: usize, draft: &mut Draft) {
        let Some(account) = self.accounts.get_mut(&number) else { return };
        account.look(now_us, self.pace);
        if account.is_over(now_us, self.pace) {
            let (id, due_us) = (account.slot.id().clone(), account.due_us);
            self.due.remove(&(due_us, number));
            self.numbers.remove(&id);
            self.accounts.remove(&number);
            return;
        }
        let mut has_room = true;
        let ahead = account.ahead(now_us, self.pace);
        if is_waited_for || ahead > 0 || account.is_due(now_us, self.pace) {
            let id = account.slot.id().clone();
            if ahead > 0 {
                has_room = draft.wants.len() < WANTS_PER_ACQUIRE_MAX && draft.bytes < ACQUIRE_BYTES_MAX;
                if has_room {
                    draft.bytes = draft.bytes.saturating_add(bytes_of(&id));
                    let part = Part { bucket: id.clone(), cost: 1 };
                    draft.wants.push(Want { parts: vec![part], waiting: 0, ahead });
                    draft.asked.push(number);
                    account.asked = account.asked.saturating_add(ahead);
                }
            }
            let reports = account.reports(now_us);
            let room = reports_max.saturating_sub(draft.reports.len());
            let bytes = bytes_of(&id).saturating_mul(reports.len());
            let room = if is_waited_for || draft.bytes < ACQUIRE_BYTES_MAX { room } else { 0 };
            draft.bytes = draft.bytes.saturating_add(if is_waited_for { 0 } else { bytes });
            has_room &= reports.len() <= room;
            draft.reports.extend(reports.into_iter().take(room).map(|spent| (id.clone(), spent)));
            if has_room {
                account.asked_us = Some(now_us);
            }
        }
        // What found no room keeps its place in the queue.
        let due_us = if has_room { account.next_look_us(now_us, self.pace) } else { account.due_us };
        self.look_again(number, due_us);
    }

    fn look_again(&mut self, number: u64, due_us: u64) {
        if let Some(account) = self.accounts.get_mut(&number) {
            self.due.remove(&(account.due_us, number));
            account.due_us = due_us;
            self.due.insert((due_us, number));
        }
    }

    fn send(&mut self, mut draft: Draft, now_us: u64) -> Option<Acquire> {
        if draft.reports.is_empty() && draft.wants.is_empty() {
            return None;
        }
        // In order of buckets: who serves many requests at once merges long runs.
        draft.reports.sort_by(|(one, _), (other, _)| one.cmp(other));
        let bucket = |want: &Want| want.parts.first().map(|part| part.bucket.clone());
        draft.wants.sort_by_cached_key(bucket);
        self.requests = self.requests.saturating_add(1);
        let acquire = Acquire {
            node: self.node,
            incarnation: self.incarnation,
            request: self.requests,
            reports: draft.reports,
            wants: draft.wants,
        };
        self.under_way = Some(UnderWay { acquire: acquire.clone(), sent_us: now_us, asked: draft.asked });
        self.last_sent_us = Some(now_us);
        Some(acquire)
    }

    /// The request under way, to send again when the stream to the leader was cut: it is answered again, and what it
    /// grants still counts from when it was first sent.
    #[must_use]
    pub fn under_way(&self) -> Option<&Acquire> {
        self.under_way.as_ref().map(|under_way| &under_way.acquire)
    }

    fn give_up(&mut self) {
        let Some(under_way) = self.under_way.take() else { return };
        if self.given_up.len() >= GIVEN_UP_MAX {
            self.given_up.remove(0);
        }
        self.given_up.push(under_way.acquire.request);
        for number in under_way.asked {
            if let Some(account) = self.accounts.get_mut(&number) {
                (account.asked, account.received) = (0, 0);
            }
        }
    }

    /// Takes the answer to the request under way; any other is ignored, a second one to the same request included.
    /// Returns whether it was taken.
    ///
    /// What a request that was given up is granted after all goes back unspent: of a quota it would be lost for the
    /// rest of the window.
    pub fn accept(&mut self, request: u64, answer: &Answer, now_us: u64) -> bool {
        let Some(under_way) = self.under_way.take_if(|under_way| under_way.acquire.request == request) else {
            if let Some(place) = self.given_up.iter().position(|given_up| *given_up == request) {
                self.given_up.remove(place);
                self.give_back(answer, now_us);
            }
            return false;
        };
        for (id, spent) in &under_way.acquire.reports {
            if let Some(account) = self.account_mut(id) {
                account.was_reported(spent);
            }
        }
        let mut granted = Vec::with_capacity(answer.grants.len());
        for grant in &answer.grants {
            let Some(&number) = self.numbers.get(&grant.bucket) else { continue };
            if let Some(account) = self.accounts.get_mut(&number) {
                account.slot.left.store(grant.left, Ordering::Relaxed);
                account.hold(grant.allowance, grant.amount, under_way.sent_us.saturating_add(grant.ttl_us), now_us);
                granted.push(number);
            }
        }
        for scarce in &answer.scarce {
            if let Some(account) = self.account_mut(&scarce.bucket)
                && request > account.outdated_request
            {
                account.slot.left.store(0, Ordering::Relaxed);
                account.slot.refused_until_us.store(now_us.saturating_add(scarce.due_us), Ordering::Release);
            }
        }
        let pace = self.pace;
        for number in &under_way.asked {
            if let Some(account) = self.accounts.get_mut(number) {
                account.was_answered(now_us, pace);
                account.received = 0;
            }
        }
        for number in granted {
            let Some(due_us) = self.accounts.get(&number).map(|account| account.next_look_us(now_us, pace)) else {
                continue;
            };
            self.look_again(number, due_us);
        }
        true
    }

    fn give_back(&mut self, answer: &Answer, now_us: u64) {
        for grant in &answer.grants {
            // Its slot may be forgotten: then one is made for the time it takes.
            self.slot_to_close(&grant.bucket, now_us);
            let Some(&number) = self.numbers.get(&grant.bucket) else { continue };
            if let Some(account) = self.accounts.get_mut(&number) {
                account.closes.push((grant.allowance, 0));
            }
            self.look_again(number, now_us);
        }
    }

    fn slot_to_close(&mut self, id: &BucketId, now_us: u64) {
        if !self.numbers.contains_key(id) {
            self.slot(id, 0, now_us);
        }
    }

    fn account_mut(&mut self, id: &BucketId) -> Option<&mut Account> {
        self.accounts.get_mut(self.numbers.get(id)?)
    }

    /// Gives everything back, as a node that stops does: the last requests of the process. Call it until it returns
    /// nothing, each time after the answer to the one before was taken: one request does not hold everything of a node
    /// that holds very much. An answer to what was under way may still come; what it grants goes back with the next.
    pub fn close_all(&mut self, now_us: u64) -> Option<Acquire> {
        self.give_up();
        self.waiting.clear();
        let mut draft = Draft::default();
        for account in self.accounts.values_mut() {
            account.close(|_| true);
            let room = REPORTS_PER_ACQUIRE_MAX.saturating_sub(draft.reports.len());
            let reports = account.reports(now_us).into_iter().take(room);
            let id = account.slot.id().clone();
            draft.reports.extend(reports.map(|spent| (id.clone(), spent)));
        }
        self.send(draft, now_us)
    }
}

fn combination(parts: &[(Arc<Slot>, u64)]) -> Vec<(u64, u64)> {
    parts.iter().map(|(slot, cost)| (slot.number, *cost)).collect()
}

#[cfg(test)]
mod tests;

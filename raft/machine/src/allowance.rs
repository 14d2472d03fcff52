//! Who gets how many tokens: the requests of all nodes, gathered by the leader into one entry, served together.
//!
//! A node asks for combinations: a request under several limits needs tokens of all of them or is of no use (granted
//! one by one when scarce, utilisation fell to 3 % in the model).

use crate::{
    bucket::{Allowance, AllowanceId, Bucket, Incarnation, Limit, Spent, Terms},
    member::NodeId,
    name::Name,
    time::{At, Tick},
};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// A limit for one subject.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BucketId {
    /// Which limit.
    pub limit: Name,
    /// Whom it counts: what the data plane made of `per:`.
    pub subject: Arc<[u8]>,
}

/// What one node reports and wants, once a cycle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acquire {
    /// Who asks.
    pub node: NodeId,
    /// Which process of it.
    pub incarnation: Incarnation,
    /// Counts the requests of the process from 1. A repeated one is answered again and grants nothing new.
    pub request: u64,
    /// What it has spent, by bucket.
    pub reports: Vec<(BucketId, Spent)>,
    /// What it wants.
    pub wants: Vec<Want>,
}

/// A combination of limits under which a node has requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// The limits, with what one request costs in each.
    pub parts: Vec<Part>,
    /// Requests that wait for tokens now.
    pub waiting: u64,
    /// Requests that are expected until the next answer could arrive, an election included.
    pub ahead: u64,
}

/// One limit of a combination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The bucket.
    pub bucket: BucketId,
    /// Tokens that one request costs; at least 1.
    pub cost: u64,
}

/// The answer to one [`Acquire`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// New allowances.
    pub grants: Vec<Grant>,
    /// Buckets that could not give all that was waited for.
    pub scarce: Vec<Scarce>,
}

/// A new allowance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Of which bucket.
    pub bucket: BucketId,
    /// Its number.
    pub allowance: AllowanceId,
    /// Tokens.
    pub amount: u64,
    /// How long it may be spent, in microseconds from when the request was sent.
    pub ttl_us: u64,
}

/// A bucket that could not give all that was waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scarce {
    /// Which bucket.
    pub bucket: BucketId,
    /// When the next request could be served, in microseconds from now: until then the node refuses from memory.
    pub due_us: u64,
}

/// The buckets of all limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buckets {
    /// By limit and subject. Absent means full.
    pub buckets: OrdMap<BucketId, Arc<Bucket>>,
    /// The last request of each node's process.
    pub sessions: OrdMap<NodeId, Session>,
    /// The number that the next allowance gets.
    pub next_allowance: AllowanceId,
}

/// What is remembered of a node's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The process that asked last.
    pub incarnation: Incarnation,
    /// Its last request.
    pub request: u64,
}

impl Buckets {
    /// Serves the requests of many nodes at one instant, in exactly this order: refill, expire, book, grant, each step
    /// for every bucket that is touched before the next begins. See [`Bucket::refill`] for why the order matters.
    pub fn acquire(&mut self, limits: &OrdMap<Name, Limit>, at: At, terms: Terms, acquires: &[Acquire]) -> Vec<Answer> {
        for id in touched(acquires) {
            self.bring_up(limits, at, terms, id);
        }
        for acquire in acquires {
            for (id, spent) in &acquire.reports {
                if let Some(bucket) = self.buckets.get_mut(id) {
                    Arc::make_mut(bucket).book(acquire.node, acquire.incarnation, *spent);
                }
            }
        }
        let answers = self.grant(limits, at, terms, acquires);
        for id in touched(acquires) {
            self.drop_if_absent(id);
        }
        answers
    }

    /// Steps 1 and 2 for one bucket; one that is absent stays so until something is granted.
    fn bring_up(&mut self, limits: &OrdMap<Name, Limit>, at: At, terms: Terms, id: &BucketId) {
        let (Some(bucket), Some(limit)) = (self.buckets.get_mut(id), limits.get(&id.limit)) else { return };
        let bucket = Arc::make_mut(bucket);
        bucket.refill(limit, at);
        bucket.expire(at, terms);
    }

    /// Brings up to `most` buckets after `after` up to date and drops those that are full again: called with every
    /// entry, so that what is used no more goes away without any entry being slow. Returns where to go on.
    pub fn sweep(
        &mut self,
        limits: &OrdMap<Name, Limit>,
        at: At,
        terms: Terms,
        after: Option<&BucketId>,
        most: usize,
    ) -> Option<BucketId> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, |id| Excluded(id.clone()));
        let ids: Vec<BucketId> = self.buckets.range((from, Unbounded)).take(most).map(|(id, _)| id.clone()).collect();
        for id in &ids {
            if limits.contains_key(&id.limit) {
                self.bring_up(limits, at, terms, id);
                self.drop_if_absent(id);
            } else {
                // The limit is gone, and so is what it counted.
                self.buckets.remove(id);
            }
        }
        (ids.len() == most).then(|| ids.last().cloned()).flatten()
    }

    /// Forgets what a node asked for. What it still holds ends by itself.
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.sessions.remove(&node);
    }

    fn drop_if_absent(&mut self, id: &BucketId) {
        if self.buckets.get(id).is_some_and(|bucket| bucket.is_absent()) {
            self.buckets.remove(id);
        }
    }

    /// Step 4, and the answers.
    pub fn grant(&mut self, limits: &OrdMap<Name, Limit>, at: At, terms: Terms, acquires: &[Acquire]) -> Vec<Answer> {
        let fresh: Vec<bool> = acquires.iter().map(|acquire| self.is_fresh(acquire)).collect();
        let mut round = Round::new(self, limits, at, acquires, &fresh);
        round.serve_waiting();
        round.serve_ahead();
        let tokens = round.tokens;
        let mut answers: Vec<Answer> = Vec::with_capacity(acquires.len());
        for ((acquire, fresh), tokens) in acquires.iter().zip(&fresh).zip(&tokens) {
            let grants =
                if *fresh { self.write_down(limits, at, terms, acquire, tokens) } else { self.repeat(acquire) };
            answers.push(Answer { grants, scarce: Vec::new() });
        }
        // What is due can be told only once everybody has been served.
        for (answer, tokens) in answers.iter_mut().zip(tokens) {
            answer.scarce =
                tokens.short.into_iter().filter_map(|(id, cost)| self.scarce(limits, at, id, cost)).collect();
        }
        answers
    }

    fn scarce(&self, limits: &OrdMap<Name, Limit>, at: At, id: BucketId, cost: u64) -> Option<Scarce> {
        let limit = limits.get(&id.limit)?;
        let due_us = match self.buckets.get(&id) {
            Some(bucket) => bucket.due_us(cost, at),
            None => Bucket::full(limit, at).due_us(cost, at),
        };
        Some(Scarce { bucket: id, due_us })
    }

    /// Whether a request is new; then it is remembered.
    fn is_fresh(&mut self, acquire: &Acquire) -> bool {
        // What wants nothing can be granted nothing twice.
        if acquire.wants.is_empty() {
            return false;
        }
        let known = self.sessions.get(&acquire.node);
        let repeated = known
            .is_some_and(|session| session.incarnation == acquire.incarnation && acquire.request <= session.request);
        if !repeated {
            self.sessions.insert(acquire.node, Session { incarnation: acquire.incarnation, request: acquire.request });
        }
        !repeated
    }

    /// Turns granted tokens into allowances.
    fn write_down(
        &mut self,
        limits: &OrdMap<Name, Limit>,
        at: At,
        terms: Terms,
        acquire: &Acquire,
        tokens: &Tokens,
    ) -> Vec<Grant> {
        let mut grants = Vec::with_capacity(tokens.granted.len());
        for (id, amount) in &tokens.granted {
            let Some(limit) = limits.get(&id.limit) else { continue };
            let number = self.next_allowance;
            self.next_allowance = self.next_allowance.saturating_add(1);
            let bucket = self.buckets.entry(id.clone()).or_insert_with(|| Arc::new(Bucket::full(limit, at)));
            let bucket = Arc::make_mut(bucket);
            let ttl_us = bucket.ttl_us(at, terms);
            bucket.grant(
                number,
                Allowance {
                    node: acquire.node,
                    incarnation: acquire.incarnation,
                    request: acquire.request,
                    granted: *amount,
                    spent: 0,
                    ttl_us,
                    expires: Tick(at.tick.0.saturating_add(ttl_us)),
                    expired: false,
                },
            );
            grants.push(Grant { bucket: id.clone(), allowance: number, amount: *amount, ttl_us });
        }
        grants
    }

    /// The answer to a request that was answered before, as far as it still stands: the first answer may have been
    /// lost with its leader. The holder counts the lifetime from when it first sent the request, and takes an answer
    /// once, so saying it again is harmless.
    fn repeat(&self, acquire: &Acquire) -> Vec<Grant> {
        let mut ids: Vec<&BucketId> =
            acquire.wants.iter().flat_map(|want| &want.parts).map(|part| &part.bucket).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter()
            .filter_map(|id| Some((id, self.buckets.get(id)?)))
            .flat_map(|(id, bucket)| bucket.allowances().iter().map(move |(number, allowance)| (id, number, allowance)))
            .filter(|(_, _, allowance)| {
                allowance.node == acquire.node
                    && allowance.incarnation == acquire.incarnation
                    && allowance.request == acquire.request
                    && !allowance.expired
            })
            .map(|(id, number, allowance)| Grant {
                bucket: id.clone(),
                allowance: *number,
                amount: allowance.granted,
                ttl_us: allowance.ttl_us,
            })
            .collect()
    }
}

/// The buckets that these requests name, each once.
fn touched(acquires: &[Acquire]) -> Vec<&BucketId> {
    let mut ids: Vec<&BucketId> = acquires
        .iter()
        .flat_map(|acquire| {
            let reported = acquire.reports.iter().map(|(id, _)| id);
            let wanted = acquire.wants.iter().flat_map(|want| want.parts.iter().map(|part| &part.bucket));
            reported.chain(wanted)
        })
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// What one node gets.
#[derive(Default)]
struct Tokens {
    granted: BTreeMap<BucketId, u64>,
    /// Buckets that held a waiting request up, with what that request costs there.
    short: BTreeMap<BucketId, u64>,
}

/// One division of what is there among those who want it.
struct Round<'a> {
    /// What is left of each bucket; `None` for a limit that does not exist.
    left: BTreeMap<&'a BucketId, Option<u64>>,
    served: BTreeMap<(&'a BucketId, NodeId), u64>,
    demands: Vec<Demand<'a>>,
    /// By acquire.
    tokens: Vec<Tokens>,
}

struct Demand<'a> {
    acquire: usize,
    node: NodeId,
    want: &'a Want,
    /// Waiting requests that have nothing yet.
    unmet: u64,
}

impl<'a> Round<'a> {
    fn new(buckets: &Buckets, limits: &OrdMap<Name, Limit>, at: At, acquires: &'a [Acquire], fresh: &[bool]) -> Self {
        let mut round =
            Self { left: BTreeMap::new(), served: BTreeMap::new(), demands: Vec::new(), tokens: Vec::new() };
        for (number, (acquire, fresh)) in acquires.iter().zip(fresh).enumerate() {
            round.tokens.push(Tokens::default());
            for want in acquire.wants.iter().filter(|want| *fresh && !want.parts.is_empty()) {
                for part in &want.parts {
                    let bucket = buckets.buckets.get(&part.bucket);
                    round.left.entry(&part.bucket).or_insert_with(|| {
                        let limit = limits.get(&part.bucket.limit)?;
                        Some(bucket.map_or_else(|| Bucket::full(limit, at).available(), |bucket| bucket.available()))
                    });
                    let served = bucket.map_or(0, |bucket| bucket.served(acquire.node));
                    round.served.entry((&part.bucket, acquire.node)).or_insert(served);
                }
                round.demands.push(Demand { acquire: number, node: acquire.node, want, unmet: want.waiting });
            }
        }
        round
    }

    /// How many requests of a combination what is left could serve.
    fn feasible(&self, want: &Want) -> u64 {
        want.parts
            .iter()
            .map(|part| self.left.get(&part.bucket).copied().flatten().unwrap_or(0) / part.cost.max(1))
            .min()
            .unwrap_or(0)
    }

    fn give(&mut self, demand: usize, requests: u64) {
        let Some(demand) = self.demands.get_mut(demand) else { return };
        demand.unmet = demand.unmet.saturating_sub(requests);
        let Some(tokens) = self.tokens.get_mut(demand.acquire) else { return };
        for part in &demand.want.parts {
            let amount = requests.saturating_mul(part.cost.max(1));
            if let Some(Some(left)) = self.left.get_mut(&part.bucket) {
                *left = left.saturating_sub(amount);
            }
            if let Some(served) = self.served.get_mut(&(&part.bucket, demand.node)) {
                *served = served.saturating_add(amount);
            }
            let granted = tokens.granted.entry(part.bucket.clone()).or_default();
            *granted = granted.saturating_add(amount);
        }
    }

    /// Waiting requests first. Where there is enough for all of them, all are served; the others are divided.
    fn serve_waiting(&mut self) {
        let mut asked: BTreeMap<&BucketId, u64> = BTreeMap::new();
        for demand in &self.demands {
            for part in &demand.want.parts {
                let sum = asked.entry(&part.bucket).or_default();
                *sum = sum.saturating_add(demand.unmet.saturating_mul(part.cost.max(1)));
            }
        }
        let is_short =
            |id: &BucketId| asked.get(id).copied().unwrap_or(0) > self.left.get(id).copied().flatten().unwrap_or(0);
        let mut contested: BTreeMap<&BucketId, Vec<usize>> = BTreeMap::new();
        let mut served: Vec<(usize, u64)> = Vec::new();
        for (number, demand) in self.demands.iter().enumerate().filter(|(_, demand)| demand.unmet > 0) {
            match demand.want.parts.iter().find(|part| is_short(&part.bucket)) {
                Some(part) => contested.entry(&part.bucket).or_default().push(number),
                None => served.push((number, demand.unmet)),
            }
        }
        for (number, requests) in served {
            self.give(number, requests);
        }
        for group in contested.values() {
            self.divide(group);
        }
        for demand in self.demands.iter().filter(|demand| demand.unmet > 0) {
            let Some(tokens) = self.tokens.get_mut(demand.acquire) else { continue };
            for part in &demand.want.parts {
                let left = self.left.get(&part.bucket).copied().flatten().unwrap_or(0);
                if left < part.cost.max(1) {
                    tokens.short.insert(part.bucket.clone(), part.cost.max(1));
                }
            }
        }
    }

    /// Divides a bucket that cannot serve all, the node that was served least first: exactly the permitted number is
    /// admitted, and no token sits idle on the wrong node.
    fn divide(&mut self, group: &[usize]) {
        loop {
            let open: Vec<(usize, u64, u64)> = group
                .iter()
                .filter_map(|number| Some((*number, self.demands.get(*number)?)))
                .filter(|(_, demand)| demand.unmet > 0)
                .map(|(number, demand)| (number, self.feasible(demand.want), self.served_least(demand)))
                .filter(|(_, feasible, _)| *feasible > 0)
                .collect();
            let Some(&(number, feasible, _)) = open.iter().min_by_key(|(number, _, served)| (*served, *number)) else {
                break;
            };
            // Large portions first and single requests at the end: fair, in a number of steps that grows with the
            // logarithm of what is given.
            let portion = (feasible / (4 * open.len() as u64)).max(1);
            let unmet = self.demands.get(number).map_or(0, |demand| demand.unmet);
            self.give(number, portion.min(unmet));
        }
    }

    /// The node's share of the bucket that is scarcest for it.
    fn served_least(&self, demand: &Demand<'_>) -> u64 {
        demand
            .want
            .parts
            .iter()
            .min_by_key(|part| self.left.get(&part.bucket).copied().flatten().unwrap_or(0) / part.cost.max(1))
            .and_then(|part| self.served.get(&(&part.bucket, demand.node)))
            .copied()
            .unwrap_or(0)
    }

    /// Then what is expected, out of half of what is left, so that a node whose requests come a moment later finds
    /// something. Divided by demand.
    fn serve_ahead(&mut self) {
        let mut asked: BTreeMap<&BucketId, u64> = BTreeMap::new();
        for demand in self.demands.iter().filter(|demand| demand.unmet == 0) {
            for part in &demand.want.parts {
                let sum = asked.entry(&part.bucket).or_default();
                *sum = sum.saturating_add(demand.want.ahead.saturating_mul(part.cost.max(1)));
            }
        }
        let spare: BTreeMap<&BucketId, u64> = self.left.iter().map(|(id, left)| (*id, left.unwrap_or(0) / 2)).collect();
        let portions: Vec<(usize, u64)> = self
            .demands
            .iter()
            .enumerate()
            .filter(|(_, demand)| demand.unmet == 0 && demand.want.ahead > 0)
            .map(|(number, demand)| {
                let portion = demand.want.parts.iter().map(|part| {
                    let spare = u128::from(spare.get(&part.bucket).copied().unwrap_or(0));
                    let asked = u128::from(asked.get(&part.bucket).copied().unwrap_or(0)).max(1);
                    let wanted = u128::from(demand.want.ahead);
                    // The share of the spare tokens that its part of the demand is, in requests.
                    u64::try_from((spare * wanted / asked).min(wanted)).unwrap_or(0)
                });
                (number, portion.min().unwrap_or(0))
            })
            .filter(|(_, requests)| *requests > 0)
            .collect();
        for (number, requests) in portions {
            self.give(number, requests);
        }
    }
}

//! What the simulated log does to a node's state: the real buckets, with just enough around them.

use super::mutation::Mutation;
use imbl::{OrdMap, OrdSet};
use machine::{
    At, Name, Tick,
    allowance::{Acquire, Answer, Buckets},
    bucket::{AllowanceId, Limit, Terms},
    limit::Rule,
    member::NodeId,
    time::Wall,
};
use std::sync::Arc;

/// What an entry says.
#[derive(Clone, Debug)]
pub enum Payload {
    /// The first entry of a term.
    Nothing,
    /// The requests of many nodes.
    Acquires { at: At, acquires: Arc<Vec<Acquire>> },
    /// An admin write, by its number.
    Write { at: At, write: u64, change: Change },
}

/// What an admin write does.
#[derive(Clone, Debug)]
pub enum Change {
    /// Revokes something: all that matters of it is the index at which it is enforced.
    Revoke,
    /// Gives a limit another rule.
    SetLimit(Name, Rule),
    /// Sends a member away.
    Remove(NodeId),
    /// Forgets a member that can hold no authority any more.
    Forget(NodeId),
}

/// The replicated state of the simulation. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Replica {
    /// The latest time that was applied.
    pub at: At,
    /// Entries applied.
    pub applied: usize,
    /// The limits.
    pub limits: OrdMap<Name, Limit>,
    /// Their buckets.
    pub buckets: Buckets,
    /// Members, leaving ones included.
    pub members: OrdSet<NodeId>,
    /// Members on their way out.
    pub leaving: OrdSet<NodeId>,
    /// Only with [`Mutation::DeltaReports`]: the sums that this bug adds up.
    sums: OrdMap<AllowanceId, u64>,
    /// Only with [`Mutation::QuotaReturnsIntoNextWindow`]: what allowances of a past window had.
    past: OrdMap<AllowanceId, u64>,
}

/// How long allowances last in the simulation.
pub const TERMS: Terms = Terms { ttl_us: 2_000_000, margin_us: 1_000 };

impl Replica {
    /// The state before the first entry.
    pub fn new(limits: &[(Name, Rule)], members: &[NodeId], wall: Wall) -> Self {
        let limit = |rule: &Rule| Limit { rule: *rule, generation: 1, changed: Tick(0) };
        Self {
            at: At { tick: Tick(0), wall },
            applied: 0,
            limits: limits.iter().map(|(name, rule)| (name.clone(), limit(rule))).collect(),
            buckets: Buckets::default(),
            members: members.iter().copied().collect(),
            leaving: OrdSet::new(),
            sums: OrdMap::new(),
            past: OrdMap::new(),
        }
    }

    /// Applies the next entry.
    pub fn apply(&mut self, payload: &Payload, mutation: Option<Mutation>) -> Vec<Answer> {
        self.applied += 1;
        match payload {
            Payload::Nothing => Vec::new(),
            Payload::Acquires { at, acquires } => {
                self.at = self.at.max(*at);
                let answers = self.acquire(acquires, mutation);
                self.buckets.sweep(&self.limits, self.at, None, 8);
                answers
            }
            Payload::Write { at, change, .. } => {
                self.at = self.at.max(*at);
                self.change(change, mutation);
                Vec::new()
            }
        }
    }

    fn change(&mut self, change: &Change, mutation: Option<Mutation>) {
        match change {
            Change::Revoke => {}
            Change::SetLimit(name, rule) => {
                if let Some(limit) = self.limits.get_mut(name) {
                    *limit = Limit { rule: *rule, generation: limit.generation + 1, changed: self.at.tick };
                }
            }
            Change::Remove(node) => {
                self.leaving.insert(*node);
                if mutation == Some(Mutation::RemovedForgottenAtOnce) {
                    self.members.remove(node);
                }
            }
            Change::Forget(node) => {
                self.members.remove(node);
            }
        }
    }

    fn acquire(&mut self, acquires: &[Acquire], mutation: Option<Mutation>) -> Vec<Answer> {
        match mutation {
            Some(Mutation::ExpiryBeforeRefill | Mutation::ReportsBeforeRefill) => {
                self.in_wrong_order(acquires, mutation)
            }
            Some(Mutation::DeltaReports) => {
                let mut acquires = acquires.to_vec();
                for (_, spent) in acquires.iter_mut().flat_map(|acquire| &mut acquire.reports) {
                    let sum = self.sums.entry(spent.allowance).or_default();
                    *sum += spent.spent;
                    spent.spent = *sum;
                }
                self.buckets.acquire(&self.limits, self.at, TERMS, &acquires)
            }
            Some(Mutation::QuotaReturnsIntoNextWindow) => self.returning_into_any_window(acquires),
            _ => self.buckets.acquire(&self.limits, self.at, TERMS, acquires),
        }
    }

    fn in_wrong_order(&mut self, acquires: &[Acquire], mutation: Option<Mutation>) -> Vec<Answer> {
        let (limits, at) = (self.limits.clone(), self.at);
        let book = |buckets: &mut Buckets| {
            for acquire in acquires {
                for (id, spent) in &acquire.reports {
                    if let Some(bucket) = buckets.buckets.get_mut(id) {
                        Arc::make_mut(bucket).book(acquire.node, acquire.incarnation, *spent);
                    }
                }
            }
        };
        if mutation == Some(Mutation::ReportsBeforeRefill) {
            book(&mut self.buckets);
        }
        for (id, bucket) in self.buckets.buckets.clone() {
            let Some(limit) = limits.get(&id.limit) else { continue };
            let mut bucket = bucket;
            let changed = Arc::make_mut(&mut bucket);
            if mutation == Some(Mutation::ExpiryBeforeRefill) {
                changed.expire(at);
                changed.refill(limit, at);
            } else {
                changed.refill(limit, at);
                changed.expire(at);
            }
            self.buckets.buckets.insert(id, bucket);
        }
        if mutation == Some(Mutation::ExpiryBeforeRefill) {
            book(&mut self.buckets);
        }
        self.buckets.grant(&limits, at, TERMS, acquires)
    }

    fn returning_into_any_window(&mut self, acquires: &[Acquire]) -> Vec<Answer> {
        for (id, spent) in acquires.iter().flat_map(|acquire| &acquire.reports) {
            let Some(granted) = self.past.get(&spent.allowance).copied() else { continue };
            let gone =
                self.buckets.buckets.get(id).is_none_or(|bucket| !bucket.allowances().contains_key(&spent.allowance));
            if gone && spent.close && granted > spent.spent {
                // The bug gives it back by raising what the window has, for as long as it lasts.
                if let Some(limit) = self.limits.get_mut(&id.limit)
                    && let Rule::Quota(quota) = &mut limit.rule
                {
                    quota.amount += granted - spent.spent;
                    limit.generation += 1;
                }
                self.past.remove(&spent.allowance);
            }
        }
        let answers = self.buckets.acquire(&self.limits, self.at, TERMS, acquires);
        for grant in answers.iter().flat_map(|answer| &answer.grants) {
            if matches!(self.limits.get(&grant.bucket.limit).map(|limit| limit.rule), Some(Rule::Quota(_))) {
                self.past.insert(grant.allowance, grant.amount);
            }
        }
        answers
    }
}

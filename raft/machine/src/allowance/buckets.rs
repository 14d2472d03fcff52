//! The buckets of all limits, and the one order in which an entry's requests are served.

use super::{
    Acquire, Answer, BucketId, Grant, Scarce,
    desk::{Desk, Line},
    round::Round,
};
use crate::{
    bucket::{Allowance, AllowanceId, Bucket, Incarnation, Limit, Terms},
    cap::BUCKETS_MAX,
    member::NodeId,
    name::Name,
    time::At,
};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

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
    /// Its last request that wanted something.
    pub request: u64,
}

impl Buckets {
    /// Serves the requests of many nodes at one instant, in exactly this order: refill, expire, book, grant, each step
    /// for every bucket that is touched before the next begins. See [`Bucket::refill`] for why the order matters.
    pub fn acquire(&mut self, limits: &OrdMap<Name, Limit>, at: At, terms: Terms, acquires: &[Acquire]) -> Vec<Answer> {
        let mut desk = Desk::lay(&self.buckets, limits, acquires, BUCKETS_MAX);
        desk.bring_up(at);
        desk.book();
        self.serve(desk, at, terms, acquires.len())
    }

    /// Step 4 alone, and the answers.
    pub fn grant(&mut self, limits: &OrdMap<Name, Limit>, at: At, terms: Terms, acquires: &[Acquire]) -> Vec<Answer> {
        let desk = Desk::lay(&self.buckets, limits, acquires, BUCKETS_MAX);
        self.serve(desk, at, terms, acquires.len())
    }

    fn serve(&mut self, mut desk: Desk<'_>, at: At, terms: Terms, asked: usize) -> Vec<Answer> {
        let terms = terms.clamped();
        let fresh: Vec<bool> = desk.acquires.iter().map(|acquire| self.is_fresh(acquire)).collect();
        desk.demands.retain(|demand| fresh.get(demand.acquire).copied().unwrap_or(false));
        Round::new(&mut desk, at, terms, self.next_allowance).divide();
        let lines = std::mem::take(&mut desk.lines);
        for line in lines.iter().filter(|line| line.granted > 0) {
            self.write_down(&mut desk, line, at, terms);
        }
        // What stands and what is due can be told only once everybody has been served.
        let mut answers = vec![Answer::default(); asked];
        for line in &lines {
            let Some(answer) = answers.get_mut(line.acquire) else { continue };
            let Some(acquire) = desk.acquires.get(line.acquire) else { continue };
            let Some(seat) = desk.seats.get(line.seat) else { continue };
            answer.grants.extend(seat.bucket.iter().flat_map(|bucket| standing(bucket, seat.id, acquire)));
            if let Some(cost) = line.short {
                answer.scarce.push(Scarce { bucket: seat.id.clone(), due_us: seat.due_us(cost, at) });
            }
        }
        desk.clear(&mut self.buckets);
        answers
    }

    /// Whether a request is new; then it is remembered. One that wants nothing can be granted nothing twice.
    fn is_fresh(&mut self, acquire: &Acquire) -> bool {
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

    /// Turns granted tokens into an allowance.
    fn write_down(&mut self, desk: &mut Desk<'_>, line: &Line, at: At, terms: Terms) {
        let Some(acquire) = desk.acquires.get(line.acquire) else { return };
        let Some(bucket) = desk.seats.get_mut(line.seat).and_then(|seat| seat.open(at)) else { return };
        let ttl_us = bucket.ttl_us(at, terms);
        let allowance = Allowance {
            node: acquire.node,
            incarnation: acquire.incarnation,
            request: acquire.request,
            granted: line.granted,
            spent: 0,
            ttl_us,
            expires: terms.end(at, ttl_us),
            expired: false,
        };
        bucket.grant(self.next_allowance, allowance);
        self.next_allowance = self.next_allowance.saturating_add(1);
    }

    /// A bucket as it stands at this instant, for people; `None` if its limit does not exist.
    #[must_use]
    pub fn look(&self, limits: &OrdMap<Name, Limit>, at: At, id: &BucketId) -> Option<Bucket> {
        let limit = limits.get(&id.limit)?;
        Some(self.buckets.get(id).map_or_else(|| Bucket::full(limit, at), |bucket| brought_up(bucket, limit, at)))
    }

    /// Looks at up to `most` buckets after `after` and drops those that are full again: called with every entry, so that
    /// what is used no more goes away without any entry being slow. Returns where to go on.
    ///
    /// A bucket that stays is not written anew only because time has passed.
    pub fn sweep(
        &mut self,
        limits: &OrdMap<Name, Limit>,
        at: At,
        after: Option<&BucketId>,
        most: usize,
    ) -> Option<BucketId> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, |id| Excluded(id.clone()));
        let looked: Vec<(BucketId, Arc<Bucket>)> =
            self.buckets.range((from, Unbounded)).take(most).map(|(id, bucket)| (id.clone(), bucket.clone())).collect();
        for (id, bucket) in &looked {
            let (now, is_over) = match limits.get(&id.limit) {
                Some(limit) => {
                    let now = brought_up(bucket, limit, at);
                    let is_over = now.is_absent();
                    (now, is_over)
                }
                // The limit is gone, and so is what it counted, once nobody holds anything of it: a limit that is made
                // again before that must know.
                None => {
                    let mut now = Bucket::clone(bucket);
                    now.expire(at);
                    let is_over = now.outstanding() == 0;
                    (now, is_over)
                }
            };
            if is_over {
                self.buckets.remove(id);
            } else if now.allowances() != bucket.allowances() {
                // Room that an expired allowance leaves is credited only from when it is known.
                self.buckets.insert(id.clone(), Arc::new(now));
            }
        }
        (looked.len() == most).then(|| looked.into_iter().last().map(|(id, _)| id)).flatten()
    }

    /// Forgets what a node asked for. What it still holds ends by itself.
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.sessions.remove(&node);
    }
}

/// Steps 1 and 2, on a copy.
fn brought_up(bucket: &Bucket, limit: &Limit, at: At) -> Bucket {
    let mut bucket = bucket.clone();
    bucket.refill(limit, at);
    bucket.expire(at);
    bucket
}

/// What a bucket has granted to a request and still stands by. Of a request that comes again this is the first answer,
/// which may have been lost with its leader: the holder counts the lifetime from when it first sent the request, and
/// takes an answer once, so saying it again is harmless.
fn standing<'a>(bucket: &'a Bucket, id: &'a BucketId, acquire: &'a Acquire) -> impl Iterator<Item = Grant> + 'a {
    let is_its = |allowance: &Allowance| {
        let process = (allowance.node, allowance.incarnation) == (acquire.node, acquire.incarnation);
        process && allowance.request == acquire.request && !allowance.expired
    };
    bucket.allowances().iter().filter(move |(_, allowance)| is_its(allowance)).map(|(number, allowance)| Grant {
        bucket: id.clone(),
        allowance: number,
        amount: allowance.granted,
        ttl_us: allowance.ttl_us,
        left: bucket.available(),
    })
}

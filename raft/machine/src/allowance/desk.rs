//! The buckets that one entry touches, looked up once, worked on in the order of their names, and put back once. What
//! requests say of them is turned into places here, so that no later step compares names: with 10,000 buckets and three
//! nodes in an entry, comparing was most of the time.

use super::{Acquire, BucketId};
use crate::{
    bucket::{Bucket, Limit, Spent, Terms},
    cap::{
        ACQUIRES_PER_ENTRY_MAX, LIMIT_TOKENS_MAX, NO_ROOM_DUE_US, REPORTS_PER_ACQUIRE_MAX, WAITING_MAX,
        WANTS_PER_ACQUIRE_MAX,
    },
    member::NodeId,
    name::Name,
    time::At,
};
use imbl::OrdMap;
use std::{ops::Range, sync::Arc};

/// What one entry works on. Places are numbers in its lists.
pub(super) struct Desk<'a> {
    /// The requests that are looked at.
    pub(super) acquires: &'a [Acquire],
    /// Each bucket once, in order.
    pub(super) seats: Vec<Seat<'a>>,
    /// Who wants something of which bucket, in order of buckets.
    pub(super) lines: Vec<Line>,
    /// In the order in which they were made.
    pub(super) demands: Vec<Demand>,
    /// Of all demands.
    pub(super) parts: Vec<Part>,
    reports: Vec<Report>,
}

/// A bucket, or the place of one that is absent.
pub(super) struct Seat<'a> {
    pub(super) id: &'a BucketId,
    /// Its limit, if there is one, under the name that all buckets of it share.
    limit: Option<(Name, Limit)>,
    pub(super) bucket: Option<Arc<Bucket>>,
    was_there: bool,
    is_wanted: bool,
    /// More has changed than the time.
    is_changed: bool,
    /// It is absent, and there are too many buckets already.
    is_crowded_out: bool,
}

/// What one request gets of one bucket.
pub(super) struct Line {
    pub(super) seat: usize,
    pub(super) acquire: usize,
    pub(super) granted: u64,
    /// What the node was granted lately.
    pub(super) served: u64,
    /// The least cost of a request that found too little here.
    pub(super) short: Option<u64>,
}

/// A combination of limits under which a node has requests.
pub(super) struct Demand {
    pub(super) acquire: usize,
    pub(super) node: NodeId,
    /// Waiting requests that have nothing yet.
    pub(super) unmet: u64,
    /// Requests that are expected.
    pub(super) ahead: u64,
    /// Its place among the parts.
    pub(super) parts: Range<usize>,
}

/// One bucket of a demand.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) line: usize,
    pub(super) seat: usize,
    /// Tokens for one request; 0 for a bucket that the demand names again.
    pub(super) cost: u64,
}

struct Report {
    seat: usize,
    acquire: usize,
    spent: Spent,
}

/// Where a request names a bucket.
struct Mention<'a> {
    id: &'a BucketId,
    acquire: usize,
    place: Place,
}

enum Place {
    Report(usize),
    Part(usize),
}

impl<'a> Desk<'a> {
    /// Reads requests, as far as they keep to their bounds, and gets the buckets that they name. There may be `most`
    /// buckets.
    pub(super) fn lay(
        buckets: &OrdMap<BucketId, Arc<Bucket>>,
        limits: &OrdMap<Name, Limit>,
        acquires: &'a [Acquire],
        most: usize,
    ) -> Self {
        let mut desk = Self {
            acquires: acquires.get(..ACQUIRES_PER_ENTRY_MAX).unwrap_or(acquires),
            seats: Vec::new(),
            lines: Vec::new(),
            demands: Vec::new(),
            parts: Vec::new(),
            reports: Vec::new(),
        };
        let mut mentions = desk.read();
        // Nodes list buckets in order, so this merges a few long runs; what is equal stays in its order.
        mentions.sort_by(|one, other| one.id.cmp(other.id));
        for mention in &mentions {
            desk.seat(mention);
        }
        desk.merge_parts();
        desk.fetch(buckets, limits, most);
        desk
    }

    fn read(&mut self) -> Vec<Mention<'a>> {
        let mut mentions = Vec::new();
        for (acquire, asked) in self.acquires.iter().enumerate() {
            for (id, spent) in asked.reports.iter().take(REPORTS_PER_ACQUIRE_MAX) {
                mentions.push(Mention { id, acquire, place: Place::Report(self.reports.len()) });
                self.reports.push(Report { seat: 0, acquire, spent: *spent });
            }
            for want in asked.wants.iter().take(WANTS_PER_ACQUIRE_MAX).filter(|want| want.is_sound()) {
                let first = self.parts.len();
                for part in &want.parts {
                    mentions.push(Mention { id: &part.bucket, acquire, place: Place::Part(self.parts.len()) });
                    self.parts.push(Part { line: 0, seat: 0, cost: part.cost.max(1) });
                }
                self.demands.push(Demand {
                    acquire,
                    node: asked.node,
                    unmet: want.waiting.min(WAITING_MAX),
                    ahead: want.ahead.min(LIMIT_TOKENS_MAX),
                    parts: first..self.parts.len(),
                });
            }
        }
        mentions
    }

    /// Gives the next mention its place; they come in order.
    fn seat(&mut self, mention: &Mention<'a>) {
        if self.seats.last().is_none_or(|last| last.id != mention.id) {
            self.seats.push(Seat {
                id: mention.id,
                limit: None,
                bucket: None,
                was_there: false,
                is_wanted: false,
                is_changed: false,
                is_crowded_out: false,
            });
        }
        let seat = self.seats.len().saturating_sub(1);
        match mention.place {
            Place::Report(place) => {
                if let Some(report) = self.reports.get_mut(place) {
                    report.seat = seat;
                }
            }
            Place::Part(place) => {
                if self.lines.last().is_none_or(|last| (last.seat, last.acquire) != (seat, mention.acquire)) {
                    self.lines.push(Line { seat, acquire: mention.acquire, granted: 0, served: 0, short: None });
                }
                let line = self.lines.len().saturating_sub(1);
                if let Some(part) = self.parts.get_mut(place) {
                    *part = Part { line, seat, ..*part };
                }
                if let Some(seat) = self.seats.last_mut() {
                    seat.is_wanted = true;
                }
            }
        }
    }

    /// A demand that names a bucket twice costs the sum there: taken one by one, each would find all that is left.
    fn merge_parts(&mut self) {
        for demand in &self.demands {
            let mut rest = self.parts.get_mut(demand.parts.clone()).unwrap_or_default();
            while let Some((first, others)) = rest.split_first_mut() {
                for other in others.iter_mut().filter(|other| other.seat == first.seat) {
                    first.cost = first.cost.saturating_add(std::mem::take(&mut other.cost));
                }
                rest = others;
            }
        }
    }

    fn fetch(&mut self, buckets: &OrdMap<BucketId, Arc<Bucket>>, limits: &OrdMap<Name, Limit>, most: usize) {
        let mut room = most.saturating_sub(buckets.len());
        let mut limit: Option<(Name, Limit)> = None;
        for seat in &mut self.seats {
            // Buckets of one limit follow each other.
            if limit.as_ref().is_none_or(|(name, _)| *name != seat.id.limit) {
                limit = limits.get_key_value(&seat.id.limit).map(|(name, limit)| (name.clone(), *limit));
            }
            seat.limit.clone_from(&limit);
            seat.bucket = buckets.get(seat.id).map(Arc::clone);
            seat.was_there = seat.bucket.is_some();
            if seat.is_wanted && !seat.was_there && seat.limit.is_some() {
                seat.is_crowded_out = room == 0;
                room = room.saturating_sub(1);
            }
        }
    }

    /// Steps 1 and 2. A bucket that is absent stays so until something is granted; one whose limit is gone is left to
    /// the sweep.
    pub(super) fn bring_up(&mut self, at: At) {
        for seat in &mut self.seats {
            let (Some((_, limit)), Some(bucket)) = (&seat.limit, &mut seat.bucket) else { continue };
            let mut now = Bucket::clone(bucket);
            now.refill(limit, at);
            now.expire(at);
            let is_same = now.allowances() == bucket.allowances() && now.generation() == bucket.generation();
            seat.is_changed = !is_same || now.is_absent();
            *bucket = Arc::new(now);
        }
    }

    /// Step 3.
    pub(super) fn book(&mut self) {
        for report in &self.reports {
            let Some(asked) = self.acquires.get(report.acquire) else { continue };
            let Some(seat) = self.seats.get_mut(report.seat) else { continue };
            if let Some(bucket) = &mut seat.bucket
                && Arc::make_mut(bucket).book(asked.node, asked.incarnation, report.spent)
            {
                seat.is_changed = true;
            }
        }
    }

    /// Puts back what has changed.
    pub(super) fn clear(self, buckets: &mut OrdMap<BucketId, Arc<Bucket>>) {
        for seat in self.seats.into_iter().filter(|seat| seat.is_changed) {
            let Some(bucket) = seat.bucket else { continue };
            if bucket.is_absent() {
                buckets.remove(seat.id);
            } else if let Some(there) = buckets.get_mut(seat.id) {
                *there = bucket;
            } else {
                // The name is shared, for there may be millions.
                let limit = seat.limit.map_or_else(|| seat.id.limit.clone(), |(name, _)| name);
                buckets.insert(BucketId { limit, subject: Arc::clone(&seat.id.subject) }, bucket);
            }
        }
    }
}

impl Seat<'_> {
    /// Tokens that can be granted.
    pub(super) fn grantable(&self, at: At, terms: Terms) -> u64 {
        match (&self.limit, &self.bucket) {
            (Some(_), Some(bucket)) => bucket.grantable(at, terms),
            (Some((_, limit)), None) if !self.is_crowded_out => Bucket::full(limit, at).grantable(at, terms),
            (Some(_) | None, None) | (None, Some(_)) => 0,
        }
    }

    /// When to ask again for so many tokens. Of a limit that does not exist there are none: a node that has not heard yet
    /// that it was deleted must not wait in vain, nor ask in every cycle.
    pub(super) fn due_us(&self, tokens: u64, at: At) -> u64 {
        match (&self.limit, &self.bucket) {
            (Some(_), Some(bucket)) => bucket.due_us(tokens, at),
            (Some((_, limit)), None) if !self.is_crowded_out => Bucket::full(limit, at).due_us(tokens, at),
            (Some(_) | None, None) | (None, Some(_)) => NO_ROOM_DUE_US,
        }
    }

    /// The bucket, to grant of it.
    pub(super) fn open(&mut self, at: At) -> Option<&mut Bucket> {
        let (_, limit) = self.limit.as_ref()?;
        self.is_changed = true;
        Some(Arc::make_mut(self.bucket.get_or_insert_with(|| Arc::new(Bucket::full(limit, at)))))
    }
}

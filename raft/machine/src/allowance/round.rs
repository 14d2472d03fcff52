//! One division of what is there among those who want it.
//!
//! Waiting requests first. Where there is enough for all of them, all are served. What cannot serve all is divided among
//! the nodes that wait for it, the one that was served least first, so that exactly the permitted number is admitted and
//! no token sits idle on the wrong node. What is left after that is given ahead of demand, by demand, up to half of it.

use super::desk::{Demand, Desk, Part};
use crate::{bucket::Terms, time::At};

/// One division.
pub(super) struct Round<'r, 'a> {
    desk: &'r mut Desk<'a>,
    /// What is left of each bucket.
    left: Vec<u64>,
    /// Where among a node's demands a division begins: not always with the same.
    turn: u64,
}

/// A node's demands on a bucket that cannot serve all.
struct Queue {
    demands: Vec<usize>,
}

impl<'r, 'a> Round<'r, 'a> {
    /// Begins with what the buckets hold. `turn` is any number that moves on.
    pub(super) fn new(desk: &'r mut Desk<'a>, at: At, terms: Terms, turn: u64) -> Self {
        let left = desk.seats.iter().map(|seat| seat.grantable(at, terms)).collect();
        for line in &mut desk.lines {
            let bucket = desk.seats.get(line.seat).and_then(|seat| seat.bucket.as_ref());
            let node = desk.acquires.get(line.acquire).map(|acquire| acquire.node);
            line.served = bucket.zip(node).map_or(0, |(bucket, node)| bucket.served(node));
        }
        Self { desk, left, turn }
    }

    /// Writes into the desk's lines what each gets, and what was short.
    pub(super) fn divide(mut self) {
        self.serve_waiting();
        self.note_short();
        self.serve_ahead();
    }

    fn serve_waiting(&mut self) {
        let asked = self.sums(|demand| demand.unmet);
        let is_short = |part: &Part| at(&asked, part.seat) > at(&self.left, part.seat);
        let mut served: Vec<(usize, u64)> = Vec::new();
        let mut contested: Vec<(usize, u64, usize)> = Vec::new();
        for (number, demand) in self.desk.demands.iter().enumerate().filter(|(_, demand)| demand.unmet > 0) {
            match self.parts(demand).iter().find(|part| is_short(part)) {
                Some(part) => contested.push((part.seat, demand.node, number)),
                None => served.push((number, demand.unmet)),
            }
        }
        for (number, requests) in served {
            self.give(number, requests);
        }
        contested.sort_unstable();
        for group in contested.chunk_by(|(one, ..), (other, ..)| one == other) {
            self.divide_one(group);
        }
    }

    /// Divides one bucket among the demands that it holds up, given as bucket, node and demand.
    fn divide_one(&mut self, group: &[(usize, u64, usize)]) {
        let mut queues: Vec<Queue> =
            group.chunk_by(|(_, one, _), (_, other, _)| one == other).map(|of_node| self.queue(of_node)).collect();
        let Some((seat, ..)) = group.first() else { return };
        while let Some(turn) = self.least_served(*seat, &queues) {
            let open = queues.len() as u64;
            let Some(queue) = queues.get_mut(turn) else { return };
            let Some(&number) = queue.demands.last() else {
                queues.swap_remove(turn);
                continue;
            };
            let Some(demand) = self.desk.demands.get(number) else { return };
            let (feasible, unmet) = (self.feasible(demand), demand.unmet);
            // Large portions first and single requests at the end: fair, in a number of steps that grows with the
            // logarithm of what is given, and with the number of nodes and demands.
            let portion = if open == 1 { feasible } else { (feasible / (4 * open)).max(1) };
            let requests = portion.min(unmet).min(feasible);
            self.give(number, requests);
            if requests == unmet || feasible <= requests {
                // Served, or not to be served any more: what is left only shrinks.
                queue.demands.pop();
            }
        }
    }

    /// A node's demands, last first. It begins with another one each time: or under a limit that all share, those whose
    /// names come late would never get anything.
    fn queue(&self, of_node: &[(usize, u64, usize)]) -> Queue {
        let mut demands: Vec<usize> = of_node.iter().map(|(.., number)| *number).collect();
        let turn = self.turn % demands.len().max(1) as u64;
        demands.rotate_left(usize::try_from(turn).unwrap_or(0));
        demands.reverse();
        Queue { demands }
    }

    /// The queue whose node was served least of a bucket; the first of equals.
    fn least_served(&self, seat: usize, queues: &[Queue]) -> Option<usize> {
        let served = |queue: &Queue| {
            let demand = self.desk.demands.get(*queue.demands.last()?)?;
            let part = self.parts(demand).iter().find(|part| part.seat == seat)?;
            Some(self.desk.lines.get(part.line)?.served)
        };
        queues.iter().enumerate().min_by_key(|(_, queue)| served(queue).unwrap_or(0)).map(|(number, _)| number)
    }

    /// Tells who found too little of what.
    fn note_short(&mut self) {
        for demand in self.desk.demands.iter().filter(|demand| demand.unmet > 0) {
            for part in self.desk.parts.get(demand.parts.clone()).unwrap_or_default() {
                if at(&self.left, part.seat) < part.cost
                    && let Some(line) = self.desk.lines.get_mut(part.line)
                {
                    line.short = Some(line.short.map_or(part.cost, |cost| cost.min(part.cost)));
                }
            }
        }
    }

    /// Gives what is expected, out of half of what is left, so that a node whose requests come a moment later finds
    /// something. Divided by demand.
    fn serve_ahead(&mut self) {
        let expects = |demand: &Demand| if demand.unmet == 0 { demand.ahead } else { 0 };
        let asked = self.sums(expects);
        let portions: Vec<(usize, u64)> = self
            .desk
            .demands
            .iter()
            .enumerate()
            .filter(|(_, demand)| expects(demand) > 0)
            .map(|(number, demand)| {
                let wanted = u128::from(demand.ahead);
                let portion = self.parts(demand).iter().filter(|part| part.cost > 0).map(|part| {
                    let spare = u128::from(at(&self.left, part.seat) / 2);
                    let asked = u128::from(at(&asked, part.seat)).max(1);
                    // The share of the spare tokens that its part of the demand is, in requests.
                    u64::try_from((spare * wanted / asked).min(wanted)).unwrap_or(0)
                });
                (number, portion.min().unwrap_or(0))
            })
            .collect();
        for (number, requests) in portions {
            self.give(number, requests);
        }
    }

    /// Tokens that all demands together ask of each bucket.
    fn sums(&self, requests: impl Fn(&Demand) -> u64) -> Vec<u64> {
        let mut sums = vec![0_u64; self.left.len()];
        for demand in &self.desk.demands {
            for part in self.parts(demand) {
                if let Some(sum) = sums.get_mut(part.seat) {
                    *sum = sum.saturating_add(requests(demand).saturating_mul(part.cost));
                }
            }
        }
        sums
    }

    fn parts(&self, demand: &Demand) -> &[Part] {
        self.desk.parts.get(demand.parts.clone()).unwrap_or_default()
    }

    /// How many requests of a demand what is left could serve.
    fn feasible(&self, demand: &Demand) -> u64 {
        let parts = self.parts(demand).iter().filter(|part| part.cost > 0);
        parts.map(|part| at(&self.left, part.seat) / part.cost).min().unwrap_or(0)
    }

    fn give(&mut self, number: usize, requests: u64) {
        let Some(demand) = self.desk.demands.get_mut(number) else { return };
        demand.unmet = demand.unmet.saturating_sub(requests);
        for part in self.desk.parts.get(demand.parts.clone()).unwrap_or_default() {
            let amount = requests.saturating_mul(part.cost);
            if let Some(left) = self.left.get_mut(part.seat) {
                *left = left.saturating_sub(amount);
            }
            if let Some(line) = self.desk.lines.get_mut(part.line) {
                line.granted = line.granted.saturating_add(amount);
                line.served = line.served.saturating_add(amount);
            }
        }
    }
}

/// The number at a place that the desk gave out.
fn at(numbers: &[u64], place: usize) -> u64 {
    numbers.get(place).copied().unwrap_or(0)
}

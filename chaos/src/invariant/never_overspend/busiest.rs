//! The interval in which a bucket admitted most beyond what it may, of all intervals, in `n log n`.
//!
//! With `allowed(s, e) = burst(s) + income(e) − income(s) + given(e) − given before(s)`, what an interval has too much is
//! `(admitted in it + what depends on s) − what depends on e`. The ends are walked in order; for each beginning a tree
//! holds the first bracket, where an admit that began at `b` adds to all beginnings up to `b`.

use super::allowed::Allowed;
use std::collections::BTreeMap;

/// Something admitted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admit {
    pub request: u64,
    pub cost: u64,
    /// Its client began to send it.
    pub began_us: u64,
    /// The upstream saw it.
    pub arrived_us: u64,
    /// When it was decided by the cluster's calendar, if its line is there.
    pub wall_ms: Option<u64>,
}

/// An interval with too much in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Excess {
    pub from_us: u64,
    pub to_us: u64,
    pub count: u64,
    pub most: f64,
    /// One of the requests in it.
    pub example: u64,
}

/// No more than this is an error of the arithmetic: tokens are whole. A half that is one by sums of fractions is not more than a half.
const HALF_A_TOKEN: f64 = 0.5 + 1e-6;

/// The first interval that holds more than a rate allows. The admits are in the order of their arrivals.
pub(super) fn interval(admits: &[Admit], allowed: &Allowed) -> Option<Excess> {
    // An interval with too much can be shrunk until it begins with one that was admitted in it.
    let mut begins: Vec<u64> = admits.iter().map(|admit| admit.began_us).collect();
    begins.sort_unstable();
    begins.dedup();
    let of_beginning = |begin: &u64| allowed.income(*begin) + allowed.given_before(*begin) - allowed.burst_at(*begin);
    let mut tree = Tree::of(begins.iter().map(of_beginning).collect());
    let end_of = |admit: &Admit| begins.partition_point(|begin| *begin <= admit.began_us);
    for (place, admit) in admits.iter().enumerate() {
        tree.add_to_first(end_of(admit), admit.cost as f64);
        // Those that arrive at one instant are counted together.
        if admits.get(place + 1).is_some_and(|next| next.arrived_us == admit.arrived_us) {
            continue;
        }
        let within = begins.partition_point(|begin| *begin <= admit.arrived_us);
        let of_end = allowed.income(admit.arrived_us) + allowed.given_until(admit.arrived_us);
        let Some((most_at, excess)) = tree.most_of_first(within) else { continue };
        let excess = excess - of_end;
        if excess > HALF_A_TOKEN {
            let from_us = begins.get(most_at).copied().unwrap_or(0);
            return Some(excess_of(admits.get(..=place).unwrap_or_default(), from_us, admit, excess));
        }
    }
    None
}

fn excess_of(until: &[Admit], from_us: u64, last: &Admit, excess: f64) -> Excess {
    let count = until.iter().filter(|admit| admit.began_us >= from_us).map(|admit| admit.cost).sum::<u64>();
    Excess { from_us, to_us: last.arrived_us, count, most: count as f64 - excess, example: last.request }
}

/// What a node may be ahead of the leader's calendar by, beside what two nodes are seen to be apart.
const AHEAD_MS: u64 = 30;

/// The first window of the calendar with more in it than a quota allows. The end of a node's window is where it may be
/// behind the leader's calendar, and its beginning where it may be ahead of it, as after a change of leader: what was decided
/// there may belong to either window.
pub(super) fn window(admits: &[Admit], allowed: &Allowed, window_us: u64, slack_us: u64) -> Option<Excess> {
    let (window_ms, slack_ms) = ((window_us / 1000).max(1), slack_us / 1000);
    let mut windows: BTreeMap<u64, Vec<&Admit>> = BTreeMap::new();
    for admit in admits {
        let Some(wall_ms) = admit.wall_ms else { continue };
        if wall_ms % window_ms < window_ms.saturating_sub(slack_ms) {
            windows.entry(wall_ms / window_ms).or_default().push(admit);
        }
    }
    windows.into_values().find_map(|admits| {
        let from_us = admits.iter().map(|admit| admit.began_us).min()?;
        let last = admits.iter().max_by_key(|admit| admit.arrived_us)?;
        // A calendar that jumped while these were admitted says nothing of them: then no one distance between it and the
        // harness's clock puts each decision between the beginning of the request and its arrival.
        let ahead_ms = |of: fn(&Admit) -> u64| {
            admits.iter().filter_map(move |admit| Some(i128::from(admit.wall_ms?) - i128::from(of(admit) / 1000)))
        };
        let spread_ms = ahead_ms(|admit| admit.arrived_us).max()? - ahead_ms(|admit| admit.began_us).min()?;
        let ahead_ms = u64::try_from(spread_ms).unwrap_or(0).saturating_add(AHEAD_MS);
        // The window may have begun before the first of them.
        let before_us = from_us.saturating_sub(window_us);
        let most = allowed.burst_at(before_us).max(allowed.burst_at(from_us)) + allowed.given_until(last.arrived_us)
            - allowed.given_before(before_us);
        let is_in = |admit: &&&Admit| admit.wall_ms.is_some_and(|wall_ms| wall_ms % window_ms >= ahead_ms);
        let count = admits.iter().filter(is_in).map(|admit| admit.cost).sum::<u64>();
        (spread_ms <= i128::from(slack_ms) && count as f64 > most + HALF_A_TOKEN).then_some(Excess {
            from_us,
            to_us: last.arrived_us,
            count,
            most,
            example: last.request,
        })
    })
}

/// The first interval of the length of a window with more in it than two windows allow.
pub(super) fn interval_of_a_window(admits: &[Admit], allowed: &Allowed, window_us: u64) -> Option<Excess> {
    // The cluster's calendar may run a little faster than the harness's clock while it is slewed.
    let length_us = window_us / 100 * 95;
    let mut begins: Vec<u64> = admits.iter().map(|admit| admit.began_us).collect();
    begins.sort_unstable();
    begins.dedup();
    let mut tree = Tree::of(vec![0.0; begins.len()]);
    for (place, admit) in admits.iter().enumerate() {
        tree.add_to_first(begins.partition_point(|begin| *begin <= admit.began_us), admit.cost as f64);
        let from_us = admit.arrived_us.saturating_sub(length_us);
        let first = begins.partition_point(|begin| *begin < from_us);
        let Some(count) = tree.at(first) else { continue };
        let most = 2.0 * allowed.burst_at(from_us).max(allowed.burst_at(admit.arrived_us))
            + 2.0 * (allowed.given_until(admit.arrived_us) - allowed.given_before(from_us.saturating_sub(window_us)));
        if count > most + HALF_A_TOKEN {
            let from_us = begins.get(first).copied().unwrap_or(from_us);
            return Some(excess_of(admits.get(..=place).unwrap_or_default(), from_us, admit, count - most));
        }
    }
    None
}

/// Numbers to which something is added from the first up to a place, and whose largest is asked for.
struct Tree {
    /// The number of leaves, a power of two.
    leaves: usize,
    /// What was added to all below a node, and the largest below it with that.
    added: Vec<f64>,
    largest: Vec<f64>,
}

impl Tree {
    fn of(values: Vec<f64>) -> Self {
        let leaves = values.len().next_power_of_two();
        let mut largest = vec![f64::NEG_INFINITY; leaves];
        largest.extend(values);
        largest.resize(2 * leaves, f64::NEG_INFINITY);
        let mut tree = Self { leaves, added: vec![0.0; 2 * leaves], largest };
        (1..leaves).rev().for_each(|node| tree.combine(node));
        tree
    }

    fn get(of: &[f64], node: usize) -> f64 {
        of.get(node).copied().unwrap_or(f64::NEG_INFINITY)
    }

    fn combine(&mut self, node: usize) {
        let below = Self::get(&self.largest, 2 * node).max(Self::get(&self.largest, 2 * node + 1));
        let sum = below + Self::get(&self.added, node);
        if let Some(largest) = self.largest.get_mut(node) {
            *largest = sum;
        }
    }

    fn add(&mut self, node: usize, amount: f64) {
        for of in [&mut self.added, &mut self.largest] {
            if let Some(value) = of.get_mut(node) {
                *value += amount;
            }
        }
    }

    /// Adds to the first `count` numbers.
    fn add_to_first(&mut self, count: usize, amount: f64) {
        // Walks down to the border: what hangs left of it is inside as a whole.
        let (mut node, mut width, mut left) = (1, self.leaves, count.min(self.leaves));
        let mut path = Vec::new();
        while left > 0 && left < width {
            path.push(node);
            width /= 2;
            if left >= width {
                self.add(2 * node, amount);
                left -= width;
                node = 2 * node + 1;
            } else {
                node *= 2;
            }
        }
        if left > 0 {
            self.add(node, amount);
        }
        path.into_iter().rev().for_each(|node| self.combine(node));
    }

    /// The largest of the first `count` numbers, and its place.
    fn most_of_first(&self, count: usize) -> Option<(usize, f64)> {
        let mut best: Option<(usize, f64)> = None;
        let (mut node, mut width, mut left, mut above) = (1, self.leaves, count.min(self.leaves), 0.0);
        let mut consider = |node: usize, above: f64| {
            let value = Self::get(&self.largest, node) + above;
            if value > best.map_or(f64::NEG_INFINITY, |(_, best)| best) {
                best = Some((node, value));
            }
        };
        while left > 0 && left < width {
            above += Self::get(&self.added, node);
            width /= 2;
            if left >= width {
                consider(2 * node, above);
                left -= width;
                node = 2 * node + 1;
            } else {
                node *= 2;
            }
        }
        if left > 0 {
            consider(node, above);
        }
        let (mut node, value) = best?;
        while node < self.leaves {
            let right = Self::get(&self.largest, 2 * node + 1) > Self::get(&self.largest, 2 * node);
            node = 2 * node + usize::from(right);
        }
        Some((node - self.leaves, value))
    }

    /// One number.
    fn at(&self, place: usize) -> Option<f64> {
        let mut node = self.leaves.checked_add(place).filter(|node| *node < 2 * self.leaves)?;
        let mut value = Self::get(&self.largest, node);
        while node > 1 {
            node /= 2;
            value += Self::get(&self.added, node);
        }
        value.is_finite().then_some(value)
    }
}

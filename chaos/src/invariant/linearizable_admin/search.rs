//! The search for an order (Wing and Gong, with the memory of Lowe): depth first over which operation comes next, where an
//! operation may come next if none that is not placed yet ended before it began. A state in which the same operations are
//! placed and the object is the same is looked at once.

use super::object::{Answer, Deed, Object};
use std::{collections::HashSet, fmt};

/// An operation and its interval.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timed<'a> {
    pub began_us: u64,
    /// `None` for one that may have been done at any time since, or never.
    pub ended_us: Option<u64>,
    pub deed: Deed<'a>,
    pub answer: Answer<'a>,
    /// How often it was sent.
    pub attempts: u32,
    /// The object's revisions say little.
    pub loose: bool,
}

/// What the search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// An order.
    Order,
    /// There is none.
    None {
        /// The operations, one of which would have to come next where the longest order ends.
        stuck: Vec<usize>,
    },
    /// It took too long.
    GaveUp,
}

/// Which operations are placed: all before `first` whose end is known, and these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Placed {
    first: u32,
    /// In order: later ones with a known end, and all without.
    others: Vec<u32>,
}

/// A place of the search: what was placed, the object then, and what may come next.
struct Frame<'a> {
    placed: Placed,
    object: Object<'a>,
    candidates: Vec<u32>,
}

impl Timed<'_> {
    /// The same operation, asked for twice: it was done once, before the first known answer.
    pub(super) fn merge(&mut self, other: Self) {
        self.began_us = self.began_us.min(other.began_us);
        self.attempts = self.attempts.saturating_add(other.attempts);
        match (self.ended_us, other.ended_us) {
            (None, Some(_)) => (self.ended_us, self.answer) = (other.ended_us, other.answer),
            (Some(mine), Some(its)) if its < mine => (self.ended_us, self.answer) = (other.ended_us, other.answer),
            _ => {}
        }
    }
}

impl fmt::Display for Timed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} from {} us", self.deed, self.began_us)?;
        match self.ended_us {
            Some(ended_us) => write!(f, " to {ended_us} us: {:?}", self.answer),
            None => f.write_str(", which may have been done"),
        }
    }
}

/// Looks for an order of operations that are sorted by their beginnings.
pub(super) fn search(operations: &[Timed<'_>], steps_max: u64) -> Found {
    let (known, unknown): (Vec<u32>, Vec<u32>) =
        (0_u32..).take(operations.len()).partition(|place| ended(operations, *place).is_some());
    let mut seen = HashSet::new();
    let mut stack = Vec::new();
    let mut steps = 0_u64;
    let mut longest = (0, Vec::new());
    let mut next = Some((Placed::default(), Object::UNSEEN));
    loop {
        if let Some((placed, object)) = next.take()
            && seen.insert((placed.clone(), object))
        {
            let Some(open) = open(operations, &known, &placed) else { return Found::Order };
            let count = known_placed(operations, &placed);
            if stack.is_empty() || count > longest.0 {
                longest = (count, open.iter().map(|place| *place as usize).collect());
            }
            // Popped from the end: those whose end is known are tried first, earliest first.
            let began = |place: &&u32| began(operations, **place);
            let until_us = open.iter().filter_map(|place| ended(operations, *place)).min().unwrap_or(u64::MAX);
            let waiting = unknown.iter().take_while(|place| began(place) <= until_us);
            let mut candidates: Vec<u32> =
                waiting.filter(|place| placed.others.binary_search(place).is_err()).copied().collect();
            candidates.extend(open.iter().rev());
            stack.push(Frame { placed, object, candidates });
        }
        let Some(frame) = stack.last_mut() else { return Found::None { stuck: longest.1 } };
        let Some(place) = frame.candidates.pop() else {
            stack.pop();
            continue;
        };
        steps += 1;
        if steps > steps_max {
            return Found::GaveUp;
        }
        let after = operations
            .get(place as usize)
            .and_then(|operation| frame.object.after(operation.deed, operation.answer, operation.loose));
        if let Some(object) = after {
            next = Some((frame.placed.with(place, &known), object));
        }
    }
}

fn began(operations: &[Timed<'_>], place: u32) -> u64 {
    operations.get(place as usize).map_or(u64::MAX, |operation| operation.began_us)
}

fn ended(operations: &[Timed<'_>], place: u32) -> Option<u64> {
    operations.get(place as usize)?.ended_us
}

fn known_placed(operations: &[Timed<'_>], placed: &Placed) -> usize {
    let beyond = placed.others.iter().filter(|place| ended(operations, **place).is_some()).count();
    placed.first as usize + beyond
}

/// The operations with a known end that may come next; `None` if all of those are placed.
fn open(operations: &[Timed<'_>], known: &[u32], placed: &Placed) -> Option<Vec<u32>> {
    let mut open = Vec::new();
    let mut until_us = u64::MAX;
    let rest = known.get(placed.first as usize..).unwrap_or_default();
    for place in rest.iter().filter(|place| placed.others.binary_search(place).is_err()) {
        if began(operations, *place) > until_us {
            break;
        }
        until_us = until_us.min(ended(operations, *place).unwrap_or(u64::MAX));
        open.push(*place);
    }
    // One that began early may still have to wait for another that ended before it.
    open.retain(|place| began(operations, *place) <= until_us);
    (!open.is_empty()).then_some(open)
}

impl Placed {
    /// These and one more. `first` counts in the list of those whose end is known.
    fn with(&self, place: u32, known: &[u32]) -> Self {
        let mut others = self.others.clone();
        if let Err(at) = others.binary_search(&place) {
            others.insert(at, place);
        }
        let mut first = self.first;
        while let Some(lowest) = known.get(first as usize)
            && let Ok(at) = others.binary_search(lowest)
        {
            others.remove(at);
            first += 1;
        }
        Self { first, others }
    }
}

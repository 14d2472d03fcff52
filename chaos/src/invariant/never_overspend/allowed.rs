//! How much a bucket may admit in an interval, over all edits of its limit: what may be there at its beginning, what comes
//! in it, and what each edit in it may give once more.

use crate::history::Limit;

/// How much a bucket of a limit may admit.
#[derive(Clone, Debug)]
pub(super) struct Allowed {
    /// Of a quota, its window.
    pub window_us: Option<u64>,
    burst: Steps,
    income: Steps,
    given_until: Steps,
    given_before: Steps,
}

/// A number that changes at instants: from each on its value there, and what it grows by in a microsecond.
#[derive(Clone, Debug, Default)]
struct Steps(Vec<(u64, f64, f64)>);

/// One thing that the limit was, or may have been.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    /// The first instant at which it may be in force.
    from_us: u64,
    /// The first at which it surely is. The end of time for an edit that may never have been made.
    sure_us: u64,
    /// The first at which it surely is no more.
    until_us: u64,
    /// The same for what was granted by it.
    settled_us: u64,
    burst: f64,
    rate: f64,
}

impl Allowed {
    /// From the edits of a limit, each with the time at which it was known; `None` if they change what the limit is.
    pub(super) fn of(edits: &[(u64, &Limit)], lease_us: u64) -> Option<Self> {
        let (_, first) = edits.first()?;
        let window_us = first.rule.window_us();
        if edits.iter().any(|(_, edit)| edit.per != first.per || edit.rule.window_us() != window_us) {
            return None;
        }
        let epochs = epochs(edits, lease_us);
        let given = epochs.get(1..).unwrap_or_default();
        let of_those_at = |at_us: u64, span: fn(&Epoch) -> (u64, u64), of: fn(&Epoch) -> f64| {
            let there = epochs.iter().filter(|epoch| (span(epoch).0..span(epoch).1).contains(&at_us));
            there.map(of).fold(0.0, f64::max)
        };
        let burst_at = |at_us| of_those_at(at_us, |epoch| (epoch.from_us, epoch.settled_us), |epoch| epoch.burst);
        let rate_at = |at_us| of_those_at(at_us, |epoch| (epoch.from_us, epoch.until_us), |epoch| epoch.rate);
        let given_at = |at_us, mark: fn(&Epoch) -> u64| {
            given.iter().filter(|epoch| mark(epoch) <= at_us).map(|epoch| epoch.burst).sum::<f64>()
        };
        let mut income = Steps::default();
        for at_us in marks(&epochs) {
            income.0.push((at_us, income.at(at_us), rate_at(at_us)));
        }
        let level = |of: &dyn Fn(u64) -> f64| Steps(marks(&epochs).into_iter().map(|at| (at, of(at), 0.0)).collect());
        Some(Self {
            window_us,
            burst: level(&burst_at),
            income,
            given_until: level(&|at_us| given_at(at_us, |epoch| epoch.from_us)),
            given_before: level(&|at_us| given_at(at_us, |epoch| epoch.sure_us.saturating_add(1))),
        })
    }

    /// The most that may be there at an instant.
    pub(super) fn burst_at(&self, at_us: u64) -> f64 {
        self.burst.at(at_us)
    }

    /// What edits may have given up to the end of an interval. With [`Self::given_before`] of its beginning taken away, it
    /// is what edits in the interval may give: a whole burst each.
    pub(super) fn given_until(&self, at_us: u64) -> f64 {
        self.given_until.at(at_us)
    }

    /// What edits gave that were surely made before an instant.
    pub(super) fn given_before(&self, at_us: u64) -> f64 {
        self.given_before.at(at_us)
    }

    /// What has come in from the beginning on: the difference of two is what comes in between. While two rules may be in
    /// force, the larger rate counts.
    pub(super) fn income(&self, at_us: u64) -> f64 {
        self.income.at(at_us)
    }
}

impl Steps {
    fn at(&self, at_us: u64) -> f64 {
        let count = self.0.partition_point(|(from_us, ..)| *from_us <= at_us);
        let step = count.checked_sub(1).and_then(|last| self.0.get(last));
        step.map_or(0.0, |(from_us, value, slope)| value + slope * at_us.saturating_sub(*from_us) as f64)
    }
}

/// What the limit was, in the order in which its edits began. It was its first from the beginning of time.
fn epochs(edits: &[(u64, &Limit)], lease_us: u64) -> Vec<Epoch> {
    let mut edits = edits.to_vec();
    edits.sort_by_key(|(at_us, edit)| (edit.began_us, *at_us));
    let settle_us = lease_us.saturating_add(lease_us / 50).saturating_add(100_000);
    let epoch_of = |(place, (at_us, edit)): (usize, &(u64, &Limit))| {
        // It is gone with the first edit that surely came after it; one that may have been made may come at any time.
        let later = edits.get(place + 1..).unwrap_or_default().iter();
        let surely_later = later.filter(|(_, later)| later.known && edit.known && later.began_us >= *at_us);
        let until_us = surely_later.map(|(at_us, _)| *at_us).min().unwrap_or(u64::MAX);
        Epoch {
            from_us: if place == 0 { 0 } else { edit.began_us },
            sure_us: if edit.known { *at_us } else { u64::MAX },
            until_us,
            settled_us: until_us.saturating_add(settle_us),
            burst: edit.rule.burst() as f64,
            rate: edit.rule.rate(),
        }
    };
    edits.iter().enumerate().map(epoch_of).collect()
}

/// Every instant at which something changes.
fn marks(epochs: &[Epoch]) -> Vec<u64> {
    let of = |epoch: &Epoch| [epoch.from_us, epoch.sure_us.saturating_add(1), epoch.until_us, epoch.settled_us];
    let mut marks: Vec<u64> = epochs.iter().flat_map(of).filter(|mark| *mark < u64::MAX).collect();
    marks.sort_unstable();
    marks.dedup();
    marks
}

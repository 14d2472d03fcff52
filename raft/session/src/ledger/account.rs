//! What the steward knows of one slot: how fast it is spent, what must be said of it, and when to look again.

use super::{
    Pace,
    slot::{Holding, Slot},
};
use machine::bucket::{AllowanceId, Spent};
use std::sync::{Arc, atomic::Ordering};

/// The shortest time over which demand is measured, and the longest for which a slot that holds something is not looked
/// at.
const LOOK_US: u64 = 50_000;
/// How often to see whether somebody still holds a slot that is not used.
const HELD_LOOK_US: u64 = 5_000_000;

/// What the steward knows of a slot.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) slot: Arc<Slot>,
    /// Its place in the queue of what is to be looked at.
    pub(super) due_us: u64,
    /// When it was last asked for, or reported.
    pub(super) asked_us: Option<u64>,
    /// What is closed and not said yet would count as spent soon.
    hurries: bool,
    /// Tokens that the request under way asks for, and what came of them.
    pub(super) asked: u64,
    pub(super) received: u64,
    /// What requests up to this one were told does not count: the limit has changed since.
    pub(super) outdated_request: u64,
    /// The largest cost of a request that has waited.
    pub(super) one_request: u64,
    /// Closed allowances with what was spent of them, until a request that carried them is answered.
    pub(super) closes: Vec<(AllowanceId, u64)>,
    /// Spent of allowances that are gone from the slot.
    spent_before: u64,
    /// Of the last look: when, and how much had been spent in all.
    looked_us: u64,
    looked_spent: u64,
    /// Tokens a second, smoothed.
    demand: u64,
    /// When spending was last seen, or tokens arrived.
    used_us: u64,
    /// When spending was last seen, and how much it was in all.
    spent_us: u64,
    used_spent: u64,
    /// The cluster had less than was asked for: others want it, too.
    is_tight: bool,
    /// What lasted through an election after the last answer.
    topped_up: u64,
}

impl Account {
    pub(super) const fn new(slot: Arc<Slot>, now_us: u64) -> Self {
        Self {
            slot,
            due_us: 0,
            asked_us: None,
            hurries: false,
            asked: 0,
            received: 0,
            outdated_request: 0,
            one_request: 0,
            closes: Vec::new(),
            spent_before: 0,
            looked_us: now_us,
            looked_spent: 0,
            demand: 0,
            used_us: now_us,
            spent_us: now_us,
            used_spent: 0,
            is_tight: false,
            topped_up: 0,
        }
    }

    /// Measures demand, drops what has expired, closes what is idle.
    pub(super) fn look(&mut self, now_us: u64, pace: Pace) {
        let holdings = self.slot.holdings.load_full();
        let spent = holdings.iter().map(|holding| holding.spent()).fold(self.spent_before, u64::saturating_add);
        let elapsed_us = now_us.saturating_sub(self.looked_us);
        let new = spent.saturating_sub(self.looked_spent);
        if spent > self.used_spent {
            (self.used_us, self.spent_us, self.used_spent) = (now_us, now_us, spent);
        }
        // Few requests say little of a rate, but what begins should soon be known.
        let telling = self.one_request.max(1).saturating_mul(if self.demand == 0 { 2 } else { 8 });
        if elapsed_us >= pace.idle_us || (elapsed_us >= LOOK_US && new >= telling) {
            let rate = u128::from(new) * 1_000_000 / u128::from(elapsed_us.max(1));
            let rate = u64::try_from(rate).unwrap_or(u64::MAX);
            // A lone request is no demand: of a million keys with a request each, none would be back.
            let is_lone = self.demand == 0 && new <= self.one_request;
            let rate = if is_lone { 0 } else { rate };
            self.demand = if rate > self.demand { rate } else { self.demand / 2 + rate / 2 };
            self.looked_us = now_us;
            self.looked_spent = spent;
        }
        if holdings.iter().any(|holding| holding.deadline_us <= now_us) {
            // A quota takes back what was not spent, if its window still lasts; a token bucket has written it off.
            self.close(|holding| holding.deadline_us <= now_us);
        }
        self.return_in_time(now_us, pace);
        // By spending alone: what arrives for a demand that is over would keep it alive.
        if now_us.saturating_sub(self.spent_us) >= pace.idle_us {
            self.demand = 0;
        }
        if now_us.saturating_sub(self.used_us) >= pace.idle_us {
            self.close(|_| true);
        }
    }

    /// Closes what is about to end by itself: of a rate, what is left then counts as spent. With a renewal, whatever would
    /// end before the next one could carry it, as long as what is kept lasts until the answer; and in any case shortly
    /// before the end. Nothing is closed while the leader does not answer, for then nobody looks.
    fn return_in_time(&mut self, now_us: u64, pace: Pace) {
        let last_us = now_us.saturating_add(pace.return_us);
        let before_next_us = last_us.saturating_add(pace.renew_us);
        let holdings = self.slot.holdings.load_full();
        let left = |ends: &dyn Fn(u64) -> bool| -> u64 {
            holdings.iter().filter(|holding| ends(holding.deadline_us)).map(|holding| holding.left()).sum()
        };
        let kept = left(&|deadline_us| deadline_us > before_next_us);
        let lasts = kept >= self.demanded(pace.return_us);
        let ends_us = if self.is_late(now_us, pace) && lasts { before_next_us } else { last_us };
        // What the demand takes by then anyhow need not go back and forth.
        let taken = self.demanded(pace.return_us);
        if ends_us == last_us && left(&|deadline_us| deadline_us <= last_us) <= taken {
            return;
        }
        let ends = |holding: &Holding| holding.deadline_us <= ends_us && holding.deadline_us > now_us;
        if holdings.iter().any(|holding| ends(holding) && holding.left() > 0) {
            self.close(ends);
            self.hurries = true;
        }
    }

    /// Closes holdings and drops them from the slot; what was spent of them stays counted.
    pub(super) fn close(&mut self, which: impl Fn(&Holding) -> bool) {
        let holdings = self.slot.holdings.load_full();
        let (dropped, kept): (Vec<_>, Vec<_>) = holdings.iter().cloned().partition(|holding| which(holding));
        if dropped.is_empty() {
            return;
        }
        self.slot.holdings.store(Arc::new(kept));
        for holding in dropped {
            let spent = holding.close();
            self.spent_before = self.spent_before.saturating_add(spent);
            self.closes.push((holding.allowance, spent));
        }
    }

    /// Closes what is held in pieces of which none is enough for a request that waits. Together with what nobody holds
    /// it may be: kept, the last tokens of a quota would lie on both sides, too few on either. It goes back with the very
    /// request that asks again, and is there when that is looked at.
    pub(super) fn close_if_too_small(&mut self, cost: u64, now_us: u64) {
        let holdings = self.slot.holdings.load_full();
        let lasting = || holdings.iter().filter(|holding| holding.deadline_us > now_us).map(|holding| holding.left());
        let is_vain = cost > self.slot.burst.load(Ordering::Relaxed) || lasting().all(|left| left == 0);
        if is_vain || lasting().any(|left| left >= cost) {
            return;
        }
        self.close(|_| true);
        // What was not there when the cluster was asked last may be there now.
        self.slot.refused_until_us.store(0, Ordering::Release);
    }

    /// Tokens to ask for beyond what waits: enough until the next renewal and through an election, once what is left
    /// would not last through an election.
    pub(super) fn ahead(&self, now_us: u64, pace: Pace) -> u64 {
        if self.demand == 0 || self.slot.refused_until_us.load(Ordering::Acquire) > now_us {
            return 0;
        }
        // Who asks for what is not there asks in every cycle: not sooner than when something may have changed.
        let in_vain = self.is_tight && self.topped_up == 0;
        if in_vain && self.asked_us.is_some_and(|asked_us| now_us < asked_us.saturating_add(LOOK_US)) {
            return 0;
        }
        let wanted = self.demanded(pace.renew_us.saturating_add(pace.election_us)).max(1);
        let lasting = self.slot.remaining(now_us.saturating_add(pace.election_us));
        // A request that reports all the same tops up as well, or another would follow soon.
        let is_enough = if self.hurries || self.is_late(now_us, pace) { wanted / 4 * 3 } else { self.enough(pace) };
        if lasting > is_enough { 0 } else { wanted.saturating_sub(lasting) }
    }

    /// Whether it was not asked for, or reported, for as long as that may take.
    fn is_late(&self, now_us: u64, pace: Pace) -> bool {
        self.asked_us.is_none_or(|asked_us| now_us.saturating_sub(asked_us) >= pace.renew_us)
    }

    /// With more than this nothing is asked ahead. Where the cluster has too little, half of what there was.
    fn enough(&self, pace: Pace) -> u64 {
        let through_election = self.demanded(pace.election_us);
        if self.is_tight { through_election.min(self.topped_up / 2) } else { through_election }
    }

    /// Tokens that the demand takes in this time.
    fn demanded(&self, span_us: u64) -> u64 {
        let tokens = u128::from(self.demand) * u128::from(span_us) / 1_000_000;
        u64::try_from(tokens).unwrap_or(u64::MAX)
    }

    /// Whether the slot's spending must be reported now: to get more, or because what it keeps to itself would hold up
    /// the refill of a small bucket.
    pub(super) fn is_due(&self, now_us: u64, pace: Pace) -> bool {
        let unreported = self.unreported();
        let late = self.is_late(now_us, pace);
        self.must_close()
            || (late && !self.closes.is_empty())
            || (unreported > 0 && (unreported >= self.much() || late))
    }

    /// Whether what is closed must be said at once: others wait for it, or there will be no other occasion. Else it goes
    /// with the next renewal.
    fn must_close(&self) -> bool {
        !self.closes.is_empty() && (self.is_tight || self.hurries || self.slot.holdings.load().is_empty())
    }

    fn unreported(&self) -> u64 {
        self.slot.holdings.load().iter().map(|holding| holding.unreported()).fold(0, u64::saturating_add)
    }

    /// So much is reported at once: others may wait for its refill.
    fn much(&self) -> u64 {
        let burst = self.slot.burst.load(Ordering::Relaxed);
        if self.is_tight { burst / 16 } else { burst / 4 }.max(1)
    }

    /// What is to be said of it, closes first. They are cumulative, and said again until they are answered.
    pub(super) fn reports(&mut self, now_us: u64) -> Vec<Spent> {
        // What is used up need not wait for its end.
        self.close(|holding| holding.spent() >= holding.granted);
        let closed =
            self.closes.iter().map(|(allowance, spent)| Spent { allowance: *allowance, spent: *spent, close: true });
        let open = self.slot.holdings.load_full();
        let open = open
            .iter()
            .filter(|holding| holding.deadline_us > now_us && holding.unreported() > 0)
            .map(|holding| Spent { allowance: holding.allowance, spent: holding.spent(), close: false });
        closed.chain(open).collect()
    }

    pub(super) fn was_reported(&mut self, report: &Spent) {
        if report.close {
            self.closes.retain(|(allowance, _)| *allowance != report.allowance);
            self.hurries &= !self.closes.is_empty();
        } else if let Some(holding) =
            self.slot.holdings.load().iter().find(|holding| holding.allowance == report.allowance)
        {
            holding.reported.fetch_max(report.spent, Ordering::Relaxed);
        }
    }

    pub(super) fn hold(&mut self, allowance: AllowanceId, amount: u64, deadline_us: u64, now_us: u64) {
        let holding = Arc::new(Holding::new(allowance, amount, now_us, deadline_us));
        let mut holdings = self.slot.holdings.load_full().as_ref().clone();
        let place = holdings.partition_point(|there| there.deadline_us <= deadline_us);
        holdings.insert(place, holding);
        self.slot.holdings.store(Arc::new(holdings));
        self.received = self.received.saturating_add(amount);
        self.used_us = now_us;
    }

    /// The request that asked for it is answered, with all that it has got.
    pub(super) fn was_answered(&mut self, now_us: u64, pace: Pace) {
        if self.asked > 0 {
            self.is_tight = self.received < self.asked;
            self.topped_up = self.slot.remaining(now_us.saturating_add(pace.election_us));
        }
        self.asked = 0;
    }

    /// Whether nothing is held or to be said, and nobody has used it lately.
    pub(super) fn is_over(&self, now_us: u64, pace: Pace) -> bool {
        let used = now_us.saturating_sub(self.used_us) < pace.idle_us.saturating_mul(2);
        // Somebody else holds it: a worker that is about to spend, or a request that waits.
        let held = Arc::strong_count(&self.slot) > 1;
        !used && !held && self.closes.is_empty() && self.slot.holdings.load().is_empty()
    }

    /// When to look at it again.
    pub(super) fn next_look_us(&self, now_us: u64, pace: Pace) -> u64 {
        if self.must_close() {
            return now_us.saturating_add(1);
        }
        let holdings = self.slot.holdings.load();
        if holdings.is_empty() {
            let forgotten_us = self.used_us.saturating_add(pace.idle_us.saturating_mul(2));
            return if forgotten_us > now_us { forgotten_us } else { now_us.saturating_add(HELD_LOOK_US) };
        }
        let mut next_us = now_us.saturating_add(LOOK_US).min(self.used_us.saturating_add(pace.idle_us));
        if self.demand > 0 {
            // At twice the speed: when it must ask, or must say what it has spent.
            let lasting = self.slot.remaining(now_us.saturating_add(pace.election_us));
            let until_dry = lasting.saturating_sub(self.enough(pace));
            let until_much = self.much().saturating_sub(self.unreported());
            let tokens = u128::from(until_dry.min(until_much));
            let span_us = u64::try_from(tokens * 500_000 / u128::from(self.demand)).unwrap_or(u64::MAX);
            next_us = next_us.min(now_us.saturating_add(span_us));
        }
        let ends_us = holdings.first().map_or(u64::MAX, |one| one.deadline_us.saturating_sub(pace.return_us));
        next_us.min(ends_us).max(now_us.saturating_add(pace.cycle_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::{Name, allowance::BucketId};

    #[test]
    fn a_demand_ends_with_its_requests_and_not_with_what_arrives_for_it() {
        let pace = Pace {
            cycle_us: 5_000,
            renew_us: 1_000_000,
            election_us: 500_000,
            idle_us: 500_000,
            patience_us: 2_000_000,
            return_us: 200_000,
        };
        let bucket = BucketId { limit: Name::new("l").unwrap(), subject: b"anna".as_slice().into() };
        let slot = Arc::new(Slot::new(1, bucket, 100_000));
        let mut account = Account::new(Arc::clone(&slot), 0);
        account.hold(1, 1_000, 2_000_000, 0);
        let parts = [(slot, 1)];
        for _ in 0..500 {
            super::super::admit(&parts, 10);
        }
        account.look(100_000, pace);
        assert!(account.ahead(100_000, pace) > 0);
        account.hold(2, 9_000, 2_000_000, 500_000);
        account.look(599_999, pace);
        assert!(account.demand > 0);
        account.look(600_000, pace);
        assert_eq!(account.ahead(600_000, pace), 0);
        assert_eq!(account.closes, [], "held a while yet");
        account.look(1_000_000, pace);
        assert_eq!(account.closes, [(1, 500), (2, 0)]);
    }
}

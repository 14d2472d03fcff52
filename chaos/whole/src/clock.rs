//! Time in the simulation: the one true time, and each node's clocks, which run at a rate of their own and show a date of their own. Where
//! the product reads a clock, it reads one of these; its timers are the executor's, which run true.

use raft::Clock;
use std::{
    cell::Cell,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The true date at the beginning: noon, in the middle of a month, so that no window ends by chance.
pub const EPOCH_MS: u64 = 1_789_300_800_000;

/// Parts of a million.
const MILLION: u128 = 1_000_000;

thread_local! {
    static NOW_US: Cell<u64> = const { Cell::new(0) };
}

/// The true time since the simulation began. Never goes back.
#[must_use]
pub fn now_us() -> u64 {
    NOW_US.with(|last| {
        let elapsed = turmoil::sim_elapsed().map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(u64::MAX));
        let now = last.get().max(elapsed);
        last.set(now);
        now
    })
}

/// The clocks of one machine.
#[derive(Debug)]
pub struct NodeClock {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Since when the clock has run at which rate, oldest first.
    spans: Vec<Span>,
    utc_error_ms: i64,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    real_us: u64,
    local_us: u64,
    /// How many microseconds it counts in a true second.
    rate: u64,
}

impl Span {
    fn local(&self, real_us: u64) -> u64 {
        let passed = u128::from(real_us.saturating_sub(self.real_us)) * u128::from(self.rate) / MILLION;
        self.local_us.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    fn real(&self, local_us: u64) -> u64 {
        let passed = u128::from(local_us.saturating_sub(self.local_us)) * MILLION / u128::from(self.rate.max(1));
        self.real_us.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }
}

impl NodeClock {
    /// A clock that shows `local_us` now, and is wrong by so many parts of a million.
    #[must_use]
    pub fn new(local_us: u64, ppm: i64, utc_error_ms: i64) -> Self {
        let span = Span { real_us: now_us(), local_us, rate: rate(ppm) };
        Self { inner: Mutex::new(Inner { spans: vec![span], utc_error_ms }) }
    }

    /// From now on it is wrong by so much.
    pub fn run_at(&self, ppm: i64) {
        let (now_us, local_us) = (now_us(), self.boot_us());
        self.lock().spans.push(Span { real_us: now_us, local_us, rate: rate(ppm) });
    }

    /// The machine has started anew: the clock begins elsewhere.
    pub fn reboot(&self, local_us: u64) {
        let real_us = now_us();
        let mut inner = self.lock();
        let rate = inner.spans.last().map_or(1_000_000, |span| span.rate);
        inner.spans = vec![Span { real_us, local_us, rate }];
    }

    /// From now on the date is wrong by so much.
    pub fn date_wrong_by(&self, utc_error_ms: i64) {
        self.lock().utc_error_ms = utc_error_ms;
    }

    /// The true time at which it showed this.
    #[must_use]
    pub fn real_us(&self, local_us: u64) -> u64 {
        let inner = self.lock();
        let span = inner.spans.iter().rev().find(|span| span.local_us <= local_us);
        span.map_or(0, |span| span.real(local_us))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rate(ppm: i64) -> u64 {
    1_000_000_u64.saturating_add_signed(ppm).max(1)
}

impl Clock for NodeClock {
    fn boot_us(&self) -> u64 {
        let now_us = now_us();
        self.lock().spans.last().map_or(0, |span| span.local(now_us))
    }

    fn utc_ms(&self) -> u64 {
        (EPOCH_MS + now_us() / 1_000).saturating_add_signed(self.lock().utc_error_ms)
    }
}

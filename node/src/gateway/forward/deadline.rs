//! Deadlines of requests in flight, for one worker. Nearly none is ever reached, so they are made to cost little: a place
//! in a list instead of a timer each, looked over by one task some times a second, and not at all while there is none. A
//! deadline is therefore noticed up to two looks late, never early.

use crate::gateway::worker::lock;
use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval},
};

/// How often the list is looked over.
const LOOK_INTERVAL: Duration = Duration::from_millis(25);

/// The deadlines of one worker.
pub(crate) struct Deadlines {
    began: Instant,
    list: Mutex<List>,
    /// Told when there is a deadline again.
    some: Notify,
}

#[derive(Default)]
struct List {
    /// The time of the last look, in looks since the worker started.
    now: u64,
    places: Vec<Place>,
    free: Vec<usize>,
}

#[derive(Default)]
struct Place {
    due: u64,
    waker: Option<Waker>,
}

/// One deadline. It ends when it is dropped.
pub(crate) struct Watch {
    deadlines: Arc<Deadlines>,
    index: usize,
}

/// A place that nobody uses is never due.
const NEVER: u64 = u64::MAX;

impl Deadlines {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), list: Mutex::default(), some: Notify::new() }
    }

    pub(crate) fn watch(self: &Arc<Self>, after: Duration) -> Watch {
        let mut list = lock(&self.list);
        if list.is_idle() {
            // Nobody has looked for a while.
            list.now = self.now();
            self.some.notify_one();
        }
        let due = list.due(after);
        let index = match list.free.pop() {
            Some(index) => index,
            None => {
                list.places.push(Place::default());
                list.places.len() - 1
            }
        };
        if let Some(place) = list.places.get_mut(index) {
            place.due = due;
        }
        drop(list);
        Watch { deadlines: Arc::clone(self), index }
    }

    /// Looks at the list again and again, until its worker ends.
    pub(crate) async fn look(self: Arc<Self>) {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let is_idle = {
                let mut list = lock(&self.list);
                list.now = self.now();
                let now = list.now;
                for place in &mut list.places {
                    if place.due <= now
                        && let Some(waker) = place.waker.take()
                    {
                        waker.wake();
                    }
                }
                list.is_idle()
            };
            if is_idle {
                self.some.notified().await;
            }
        }
    }

    /// Counted from the clock, not from looks made: a busy worker looks less often.
    fn now(&self) -> u64 {
        let looks = self.began.elapsed().as_millis() / LOOK_INTERVAL.as_millis();
        u64::try_from(looks).unwrap_or(NEVER - 1)
    }
}

impl List {
    fn is_idle(&self) -> bool {
        self.free.len() == self.places.len()
    }

    fn due(&self, after: Duration) -> u64 {
        let looks = after.as_millis().div_ceil(LOOK_INTERVAL.as_millis());
        // The present look began up to one interval ago.
        self.now.saturating_add(u64::try_from(looks).unwrap_or(NEVER)).saturating_add(1).min(NEVER - 1)
    }
}

impl Watch {
    /// Sets the deadline anew, from now.
    pub(crate) fn rearm(&self, after: Duration) {
        let mut list = lock(&self.deadlines.list);
        let due = list.due(after);
        if let Some(place) = list.places.get_mut(self.index) {
            place.due = due;
        }
    }

    /// Ready when the deadline has passed.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut list = lock(&self.deadlines.list);
        let now = list.now;
        match list.places.get_mut(self.index) {
            Some(place) if place.due > now => {
                match &mut place.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    empty => *empty = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut list = lock(&self.deadlines.list);
        if let Some(place) = list.places.get_mut(self.index) {
            *place = Place { due: NEVER, waker: None };
            list.free.push(self.index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deadline_comes_and_never_early() {
        let deadlines = Arc::new(Deadlines::new());
        let look = tokio::spawn(deadlines.clone().look());
        for ms in [0, 1, 24, 25, 26, 120, 1] {
            // Nothing is watched for a while: the list is not looked at.
            tokio::time::sleep(3 * LOOK_INTERVAL).await;
            let after = Duration::from_millis(ms);
            let began = Instant::now();
            let watch = deadlines.watch(after);
            std::future::poll_fn(|cx| watch.poll(cx)).await;
            assert!(began.elapsed() >= after, "{ms} ms took {:?}", began.elapsed());
        }
        look.abort();
    }

    #[tokio::test]
    async fn places_are_used_again_and_deadlines_can_move() {
        let deadlines = Arc::new(Deadlines::new());
        let _look = tokio::spawn(deadlines.clone().look());
        for _ in 0..100 {
            let _one = deadlines.watch(Duration::from_secs(1));
            let _two = deadlines.watch(Duration::from_secs(1));
        }
        assert_eq!(lock(&deadlines.list).places.len(), 2);
        let began = Instant::now();
        let watch = deadlines.watch(Duration::from_millis(1));
        watch.rearm(Duration::from_millis(150));
        std::future::poll_fn(|cx| watch.poll(cx)).await;
        assert!(began.elapsed() >= Duration::from_millis(150));
    }
}

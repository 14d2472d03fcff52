//! Deadlines of requests in flight, for one worker. Nearly none is ever reached, so they are made to cost little: a place
//! in a list instead of a timer each, looked over by one task a few times a second. A deadline is therefore noticed up to
//! two looks late, never early.

use crate::gateway::worker::lock;
use std::{
    sync::{Arc, Mutex, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often the list is looked over.
const LOOK_INTERVAL: Duration = Duration::from_millis(25);

/// The deadlines of one worker.
#[derive(Default)]
pub(crate) struct Deadlines(Mutex<List>);

#[derive(Default)]
struct List {
    /// Looks since the worker started.
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
    pub(crate) fn watch(self: &Arc<Self>, after: Duration) -> Watch {
        let mut list = lock(&self.0);
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

    /// Looks at the list again and again, until the worker is gone.
    pub(crate) async fn look(deadlines: Weak<Self>) {
        let began = Instant::now();
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let Some(deadlines) = deadlines.upgrade() else { return };
            // Counted from the clock, not from looks made: a busy worker looks less often.
            let now = began.elapsed().as_millis() / LOOK_INTERVAL.as_millis();
            let mut list = lock(&deadlines.0);
            list.now = u64::try_from(now).unwrap_or(NEVER - 1);
            let now = list.now;
            for place in &mut list.places {
                if place.due <= now
                    && let Some(waker) = place.waker.take()
                {
                    waker.wake();
                }
            }
        }
    }
}

impl List {
    fn due(&self, after: Duration) -> u64 {
        let looks = after.as_millis().div_ceil(LOOK_INTERVAL.as_millis());
        // The present look began up to one interval ago.
        self.now.saturating_add(u64::try_from(looks).unwrap_or(NEVER)).saturating_add(1).min(NEVER - 1)
    }
}

impl Watch {
    /// Sets the deadline anew, from now.
    pub(crate) fn rearm(&self, after: Duration) {
        let mut list = lock(&self.deadlines.0);
        let due = list.due(after);
        if let Some(place) = list.places.get_mut(self.index) {
            place.due = due;
        }
    }

    /// Ready when the deadline has passed.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut list = lock(&self.deadlines.0);
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
        let mut list = lock(&self.deadlines.0);
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
        let deadlines = Arc::new(Deadlines::default());
        let look = tokio::spawn(Deadlines::look(Arc::downgrade(&deadlines)));
        for ms in [0, 1, 24, 25, 26, 120] {
            let after = Duration::from_millis(ms);
            let began = Instant::now();
            let watch = deadlines.watch(after);
            std::future::poll_fn(|cx| watch.poll(cx)).await;
            assert!(began.elapsed() >= after, "{ms} ms took {:?}", began.elapsed());
        }
        drop(deadlines);
        look.await.unwrap();
    }

    #[tokio::test]
    async fn places_are_used_again_and_deadlines_can_move() {
        let deadlines = Arc::new(Deadlines::default());
        let _look = tokio::spawn(Deadlines::look(Arc::downgrade(&deadlines)));
        for _ in 0..100 {
            let _one = deadlines.watch(Duration::from_secs(1));
            let _two = deadlines.watch(Duration::from_secs(1));
        }
        assert_eq!(lock(&deadlines.0).places.len(), 2);
        let began = Instant::now();
        let watch = deadlines.watch(Duration::from_millis(1));
        watch.rearm(Duration::from_millis(150));
        std::future::poll_fn(|cx| watch.poll(cx)).await;
        assert!(began.elapsed() >= Duration::from_millis(150));
    }
}

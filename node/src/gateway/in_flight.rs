//! What is in flight of callers who are identified, for one worker, so that it can be cut when a credential ceases to
//! hold: its key revoked, a rotation's overlap over, its consumer disabled or gone, its end reached.
//!
//! A worker looks through its list when a View with other keys or consumers is published, before that View counts as
//! enforced, and once a second for what has ended by time. Both happen on the worker's own thread: a request reads its
//! View and enters the list without a pause in between, so that at a look it is in the list, or has not begun. Routes
//! with `on_revoke: finish` are not in it.
//!
//! What is cut is told by its waker, and its connection is ended if it has not let go soon after: a client that takes
//! nothing keeps its exchange from being looked at.

use super::{
    identify::{Caller, api_key},
    problem::{Problem, Refusal},
    worker::lock,
};
use machine::{
    View, Wall,
    key::{KeyId, SecretHash},
};
use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};
use tokio::sync::Notify;

/// Why it was cut, for the access log and the metrics.
pub(crate) const CUT: &str = "credential-ended";

/// The exchanges of one worker that a revocation cuts.
#[derive(Default)]
pub(crate) struct InFlight {
    list: Mutex<List>,
    /// Whether something is cut and has not let go: nearly never, and asked at every step of every exchange.
    some_cut: AtomicBool,
    /// Told when nothing is left that was cut.
    gone: Notify,
}

#[derive(Default)]
struct List {
    places: Vec<Option<Place>>,
    free: Vec<usize>,
    /// Places that are cut and have not let go.
    cut: usize,
}

struct Place {
    key: KeyId,
    /// Of the secret that was shown.
    hash: SecretHash,
    ends: Option<Wall>,
    connection: u64,
    /// The exchange, and its upload, which may outlive the answer.
    holders: usize,
    is_cut: bool,
    waker: Option<Waker>,
}

/// An exchange's place in the list. It leaves when the last of its ties is dropped.
pub(crate) struct Tie {
    in_flight: Arc<InFlight>,
    index: usize,
}

impl InFlight {
    /// Enters an exchange. Between the reading of its View and this there must be no await.
    pub(crate) fn tie(self: &Arc<Self>, caller: &Caller, connection: u64) -> Tie {
        let place = Place {
            key: caller.key.id,
            hash: caller.shown.hash,
            ends: caller.shown.not_after,
            connection,
            holders: 1,
            is_cut: false,
            waker: None,
        };
        let mut list = lock(&self.list);
        let index = match list.free.pop() {
            Some(index) => index,
            None => {
                list.places.push(None);
                list.places.len() - 1
            }
        };
        if let Some(free) = list.places.get_mut(index) {
            *free = Some(place);
        }
        Tie { in_flight: Arc::clone(self), index }
    }

    /// Cuts what does not hold by this View; says how many.
    pub(crate) fn look(&self, view: &View, now: Wall) -> usize {
        self.cut(|place| {
            let caller = view
                .registry
                .keys
                .get(&place.key)
                .and_then(|key| api_key::check(view, key, Some(&place.hash), || now).ok());
            if let Some(caller) = &caller {
                place.ends = caller.shown.not_after;
            }
            caller.is_none()
        })
    }

    /// Cuts what has ended by time; says how many.
    pub(crate) fn look_at_time(&self, now: Wall) -> usize {
        self.cut(|place| place.ends.is_some_and(|end| now >= end))
    }

    fn cut(&self, mut must_end: impl FnMut(&mut Place) -> bool) -> usize {
        let mut list = lock(&self.list);
        let mut wakers = Vec::new();
        let before = list.cut;
        let mut cut = before;
        for place in list.places.iter_mut().flatten() {
            if !place.is_cut && must_end(place) {
                place.is_cut = true;
                cut += 1;
                wakers.extend(place.waker.take());
            }
        }
        list.cut = cut;
        self.some_cut.store(cut > 0, Ordering::SeqCst);
        drop(list);
        wakers.into_iter().for_each(Waker::wake);
        cut - before
    }

    /// Resolves when everything that was cut has let go.
    pub(crate) async fn gone(&self) {
        loop {
            let gone = self.gone.notified();
            if lock(&self.list).cut == 0 {
                return;
            }
            gone.await;
        }
    }

    /// The connections of what was cut and has not let go.
    pub(crate) fn lingering(&self) -> Vec<u64> {
        let list = lock(&self.list);
        list.places.iter().flatten().filter(|place| place.is_cut).map(|place| place.connection).collect()
    }
}

/// Lets something go on until the credential of its exchange ceases to hold.
///
/// # Errors
/// It has; the future is dropped, and with it whatever it had under way.
pub(crate) async fn unless_cut<T>(
    tie: Option<&Tie>,
    mut future: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Refusal> {
    std::future::poll_fn(|cx| {
        // First, and not only when there is nothing to do: what never pauses would never be asked.
        if tie.is_some_and(Tie::is_cut) {
            return Poll::Ready(Err(Refusal::new(Problem::Unauthenticated, CUT)));
        }
        if let Poll::Ready(done) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        match tie.map(|tie| tie.poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Err(Refusal::new(Problem::Unauthenticated, CUT))),
            _ => Poll::Pending,
        }
    })
    .await
}

impl Tie {
    /// Whether the credential has ceased to hold.
    pub(crate) fn is_cut(&self) -> bool {
        self.in_flight.some_cut.load(Ordering::SeqCst)
            && lock(&self.in_flight.list)
                .places
                .get(self.index)
                .is_some_and(|place| place.as_ref().is_some_and(|one| one.is_cut))
    }

    /// Ready when the credential has ceased to hold.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut list = lock(&self.in_flight.list);
        match list.places.get_mut(self.index) {
            Some(Some(place)) if !place.is_cut => {
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

impl Clone for Tie {
    fn clone(&self) -> Self {
        if let Some(Some(place)) = lock(&self.in_flight.list).places.get_mut(self.index) {
            place.holders += 1;
        }
        Self { in_flight: Arc::clone(&self.in_flight), index: self.index }
    }
}

impl Drop for Tie {
    fn drop(&mut self) {
        let mut list = lock(&self.in_flight.list);
        let Some(free) = list.places.get_mut(self.index) else { return };
        if let Some(place) = free.as_mut().filter(|place| place.holders > 1) {
            place.holders -= 1;
            return;
        }
        let place = free.take();
        list.free.push(self.index);
        if place.is_some_and(|place| place.is_cut) {
            list.cut = list.cut.saturating_sub(1);
            if list.cut == 0 {
                self.in_flight.some_cut.store(false, Ordering::SeqCst);
                self.in_flight.gone.notify_waiters();
            }
        }
    }
}

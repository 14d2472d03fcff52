//! What nodes ask of the limits, until an entry takes it. One request for each node: a newer one takes the place of one
//! that still waits, which nobody waits for any more.

use super::Declined;
use crate::types::lock;
use machine::{
    allowance::{Acquire, Answer},
    cap::ACQUIRES_PER_ENTRY_MAX,
    member::NodeId,
};
use std::{collections::BTreeMap, sync::Mutex};
use tokio::sync::{Notify, oneshot};

/// The largest request of a node, and the most that one entry carries of all of them. With the proposals of the entry it
/// stays within what peers send each other.
pub(crate) const ACQUIRE_BYTES_MAX: usize = 15 * 1024 * 1024;

/// A request that waits.
pub(super) struct Asking {
    pub(super) acquire: Acquire,
    bytes: usize,
    pub(super) answer: oneshot::Sender<Result<Answer, Declined>>,
}

/// What nodes ask of the limits.
#[derive(Default)]
pub(super) struct Asked {
    waiting: Mutex<BTreeMap<NodeId, Asking>>,
    arrived: Notify,
}

impl Asked {
    /// Puts a request in, for the next entry.
    pub(super) fn put(&self, acquire: Acquire, bytes: usize) -> oneshot::Receiver<Result<Answer, Declined>> {
        let (answer, wait) = oneshot::channel();
        lock(&self.waiting).insert(acquire.node, Asking { acquire, bytes, answer });
        self.arrived.notify_one();
        wait
    }

    /// Resolves when something waits.
    pub(super) async fn arrived(&self) {
        while lock(&self.waiting).is_empty() {
            self.arrived.notified().await;
        }
    }

    /// Takes what waits, as far as an entry may carry it: the rest is for the next.
    pub(super) fn take(&self) -> Vec<Asking> {
        let mut waiting = lock(&self.waiting);
        waiting.retain(|_, asking| !asking.answer.is_closed());
        let mut bytes = 0_usize;
        let mut fits = |asking: &Asking| {
            bytes = bytes.saturating_add(asking.bytes);
            bytes <= ACQUIRE_BYTES_MAX
        };
        let taken = waiting.values().take(ACQUIRES_PER_ENTRY_MAX).take_while(|asking| fits(asking)).count();
        let rest = waiting.keys().nth(taken).copied().map(|first| waiting.split_off(&first));
        std::mem::replace(&mut *waiting, rest.unwrap_or_default()).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn request(node: NodeId, request: u64) -> Acquire {
        Acquire { node, incarnation: 1, request, reports: Vec::new(), wants: Vec::new() }
    }

    #[test]
    fn a_newer_request_takes_the_place_of_one_that_waits() {
        let asked = Asked::default();
        assert!(asked.arrived().now_or_never().is_none());
        let mut old = asked.put(request(1, 7), 10);
        let _new = asked.put(request(1, 8), 10);
        let _other = asked.put(request(2, 3), 10);
        drop(asked.put(request(3, 5), 10));
        assert!(asked.arrived().now_or_never().is_some());
        assert!(old.try_recv().is_err());
        let taken: Vec<_> = asked.take().into_iter().map(|asking| asking.acquire.request).collect();
        assert_eq!(taken, [8, 3], "one for each node that still waits");
        assert!(asked.arrived().now_or_never().is_none() && asked.take().is_empty());
    }

    #[test]
    fn an_entry_carries_so_many_bytes_and_the_rest_comes_next() {
        let asked = Asked::default();
        let _waits: Vec<_> = (1..=4).map(|node| asked.put(request(node, 1), ACQUIRE_BYTES_MAX / 2)).collect();
        let nodes = || asked.take().into_iter().map(|asking| asking.acquire.node).collect::<Vec<_>>();
        assert_eq!([nodes(), nodes(), nodes()], [vec![1, 2], vec![3, 4], vec![]]);
    }
}

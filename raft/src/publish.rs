//! From applied to enforced: hands each new View to the caller's workers, and notes how far they enforce. Applying does
//! not wait for it, and a View is skipped when a newer one is there.

use crate::{applied::Applied, start::Publish};
use std::sync::Arc;
use tokio::sync::watch;

/// Publishes until the state ends. `enforced` moves only once every worker has the View, and so does what waits for it.
pub(crate) async fn publish(
    mut applied: watch::Receiver<Arc<Applied>>,
    publish: Publish,
    enforced: watch::Sender<u64>,
    put_in_force: impl Fn(u64),
) {
    loop {
        let view = Arc::clone(&applied.borrow_and_update().view);
        let index = view.index;
        publish(view).await;
        put_in_force(index);
        enforced.send_if_modified(|enforced| {
            let further = index > *enforced;
            *enforced = index.max(*enforced);
            further
        });
        if applied.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::form::{LogIdForm, StoredMembershipForm};
    use futures::FutureExt;
    use machine::State;
    use std::sync::Mutex;
    use tokio::sync::Semaphore;

    fn at(index: u64) -> Arc<Applied> {
        let last = Some(LogIdForm { term: 1, node: 1, index });
        Arc::new(Applied::new(State::default(), last, StoredMembershipForm::default()))
    }

    #[tokio::test]
    async fn the_index_moves_after_the_workers_and_the_newest_goes_first() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let gate = Arc::new(Semaphore::new(0));
        let (noted, waits) = (Arc::clone(&seen), Arc::clone(&gate));
        let workers: Publish = Arc::new(move |view| {
            let (noted, waits) = (Arc::clone(&noted), Arc::clone(&waits));
            async move {
                waits.acquire().await.unwrap().forget();
                noted.lock().unwrap().push(view.index);
            }
            .boxed()
        });
        let (applied, receive) = watch::channel(at(1));
        let (enforced, mut enforces) = watch::channel(0);
        let task = tokio::spawn(publish(receive, workers, enforced, |_| ()));
        tokio::task::yield_now().await;
        for index in 2..=9 {
            applied.send_replace(at(index));
        }
        assert_eq!(*enforces.borrow(), 0, "published is not enforced");
        gate.add_permits(1);
        enforces.wait_for(|index| *index == 1).await.unwrap();
        gate.add_permits(1);
        enforces.wait_for(|index| *index == 9).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), [1, 9]);
        drop(applied);
        task.await.unwrap();
    }
}

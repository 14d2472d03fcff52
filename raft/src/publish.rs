//! From applied to enforced: hands each new View to the caller's workers, and notes how far they enforce. Applying does
//! not wait for it, and a View is skipped when a newer one is there. Entries that only serve allowances change nothing
//! that workers decide by: they count as enforced without a word to anybody, many times a second.

use crate::{
    applied::Applied,
    mutation::{self, Mutation},
    start::Publish,
};
use std::sync::Arc;
use tokio::sync::watch;

/// Publishes until the state ends. `enforced` moves only once every worker has the View, and so does what waits for it.
pub(crate) async fn publish(
    mut applied: watch::Receiver<Arc<Applied>>,
    publish: Publish,
    enforced: watch::Sender<u64>,
    put_in_force: impl Fn(u64),
) {
    let mut published = None;
    loop {
        let (view, news) = {
            let applied = applied.borrow_and_update();
            (Arc::clone(&applied.view), applied.news)
        };
        let index = view.index;
        let is_news = published.is_none_or(|published| news > published);
        if is_news && published.is_some() && mutation::is(Mutation::LeaseBeforeTheState) {
            // Workers that take their time are no bug: what was acknowledged waits for them, or for the end of a lease.
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        if is_news && mutation::is(Mutation::SkipsStates) && index.is_multiple_of(10) {
            published = Some(index);
        } else if is_news && published.is_some() && mutation::is(Mutation::EnforcedBeforePublished) {
            put_in_force(index);
            enforced.send_replace(index);
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            publish(view).await;
            published = Some(index);
        } else if is_news {
            publish(view).await;
            published = Some(index);
        }
        put_in_force(index);
        enforced.send_if_modified(|enforced| {
            let further = index > *enforced;
            *enforced = index.max(*enforced);
            further && is_news
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

    #[tokio::test]
    async fn what_only_serves_allowances_is_enforced_without_a_word() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let workers: Publish = Arc::new(move |view| {
            noted.lock().unwrap().push(view.index);
            async {}.boxed()
        });
        let (applied, receive) = watch::channel(at(1));
        let (enforced, mut enforces) = watch::channel(0);
        let in_force = watch::Sender::new(0);
        let (notes, mut noted) = (in_force.clone(), in_force.subscribe());
        let task = tokio::spawn(publish(receive, workers, enforced, move |index| {
            notes.send_replace(index);
        }));
        enforces.wait_for(|index| *index == 1).await.unwrap();
        applied.send_replace(Arc::new(Applied { news: 1, ..Applied::clone(&at(2)) }));
        noted.wait_for(|index| *index == 2).await.unwrap();
        tokio::task::yield_now().await;
        assert_eq!(*enforces.borrow(), 2);
        assert!(!enforces.has_changed().unwrap(), "nobody waits for it");
        applied.send_replace(at(3));
        enforces.changed().await.unwrap();
        assert_eq!(*seen.lock().unwrap(), [1, 3]);
        drop(applied);
        task.await.unwrap();
    }
}

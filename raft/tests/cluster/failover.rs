//! Losing leaders.

use crate::harness::{Cluster, Real, done, operator, request, token, until};
use machine::Outcome;
use raft::{Clock, Fence, Role, TransferError};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stops_hands_over_and_nothing_is_lost() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let before = cluster.write(leader).await;
    cluster.stop(leader).await;
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    let other = (1..=3).find(|id| *id != leader && *id != next).unwrap();
    let after = cluster.write(other).await;
    assert!(after.index > before.index);
    cluster.start(leader).await;
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_vanishes_is_replaced_and_comes_back_as_a_follower() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let others: Vec<_> = (1..=3).filter(|id| *id != leader).collect();
    cluster.links.isolate(leader, true);
    // Asked through a follower that still believes in the old leader: forwarded, retried, done once.
    let (hash, command) = token();
    let id = request();
    let written = until("a write without the leader", async || {
        cluster.node(others[0]).propose(id, operator(), command.clone(), Fence::None).await.ok()
    })
    .await;
    assert!(matches!(written.outcome, Outcome::Done { .. }));
    let view = until("a read", async || cluster.node(others[1]).read().await.ok()).await;
    assert!(view.registry.join_tokens.contains_key(&hash));

    let term = cluster.node(others[0]).local().term;
    cluster.links.isolate(leader, false);
    until("the old leader to follow", async || {
        let local = cluster.node(leader).local();
        (local.role == Role::Follower && local.applied >= written.index).then_some(())
    })
    .await;
    assert!(cluster.node(leader).view().registry.join_tokens.contains_key(&hash));
    cluster.write(leader).await;
    assert_eq!(cluster.node(others[0]).local().term, term, "who was cut off deposes nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_on_request_through_any_node() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let [to, through] = [1, 2, 3].into_iter().filter(|id| *id != leader).collect::<Vec<_>>()[..] else { panic!() };
    assert_eq!(cluster.node(through).transfer_leader(Some(to)).await, Ok(to));
    assert_eq!(cluster.leader().await, to);
    cluster.write(leader).await;
    let next = cluster.node(to).transfer_leader(None).await.unwrap();
    assert_ne!(next, to);
    assert_eq!(cluster.leader().await, next);
    let refused = cluster.node(to).transfer_leader(Some(77)).await.unwrap_err();
    assert!(matches!(refused, TransferError::Refused(_)), "{refused:?}");
    done(cluster.write(through).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_end_without_a_word_come_back_with_everything() {
    let mut cluster = Cluster::of(3).await;
    let mut last = cluster.write(1).await;
    for _ in 0..2 {
        let leader = cluster.leader().await;
        cluster.crash(leader).await;
        let other = (1..=3).find(|id| *id != leader).unwrap();
        last = until("a write", async || {
            let (_, command) = token();
            let written = cluster.node(other).propose(request(), operator(), command, Fence::None).await.ok()?;
            (written.index > last.index).then_some(written)
        })
        .await;
        cluster.start(leader).await;
        cluster.agree().await;
    }
    assert!(cluster.running().all(|(_, running)| running.handle.view().index >= last.index));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_rough_ride() {
    let mut cluster = Cluster::of(3).await;
    let over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (1..=3)
        .map(|through| {
            let (node, over) = (cluster.node(through), Arc::clone(&over));
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let (hash, command) = token();
                    // Stopped, cut off or without a leader: not acknowledged, and nothing is promised of it.
                    if let Ok(written) = node.propose(request(), operator(), command, Fence::None).await {
                        assert!(matches!(written.outcome, Outcome::Done { .. }), "{written:?}");
                        acknowledged.push(hash);
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                acknowledged
            })
        })
        .collect();
    for round in 0..4 {
        let leader = cluster.leader().await;
        if round % 2 == 0 {
            cluster.links.isolate(leader, true);
            let other = (1..=3).find(|id| *id != leader).unwrap();
            until("another leader", async || {
                let local = cluster.node(other).local();
                (local.leader.is_some() && local.leader != Some(leader)).then_some(())
            })
            .await;
            cluster.links.isolate(leader, false);
        } else {
            let _ = cluster.node(leader).transfer_leader(None).await;
        }
    }
    cluster.leader().await;
    over.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    assert!(acknowledged.len() > 10, "{} writes are no ride", acknowledged.len());
    cluster.agree().await;
    cluster.stop_all().await;
    for id in 1..=3 {
        cluster.start(id).await;
    }
    cluster.leader().await;
    cluster.agree().await;
    let registry = cluster.node(1).view().registry.clone();
    let lost = acknowledged.iter().filter(|hash| !registry.join_tokens.contains_key(*hash)).count();
    assert_eq!(lost, 0, "of {} acknowledged writes", acknowledged.len());
    assert!(cluster.running().all(|(_, running)| running.handle.view().registry == registry));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_a_wrong_date_hands_over_and_the_calendar_stays() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    cluster.seats[&leader].clock.ahead_ms.store(86_400_000, Ordering::Relaxed);
    let next = until("another leader", async || {
        let now = cluster.leader().await;
        (now != leader).then_some(now)
    })
    .await;
    let wall = cluster.node(next).time().wall.0;
    assert!(wall < Real.utc_ms() + 3_600_000, "one machine's date moved the cluster's");
    // Nobody hands it back.
    assert_eq!(cluster.node(next).transfer_leader(None).await.ok().filter(|to| *to == leader), None);
}

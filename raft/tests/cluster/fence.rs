//! The fence: a write is acknowledged when every member that is heard of enforces it.

use crate::harness::{Cluster, PATIENCE, done, operator, request, token, until};
use raft::{Fence, FenceState};
use std::time::Duration;

fn state(fence: &[(u64, FenceState)], node: u64) -> FenceState {
    fence.iter().find(|(id, _)| *id == node).unwrap().1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_applies_but_does_not_enforce_holds_the_write() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let slow = (1..=3).find(|id| *id != leader).unwrap();
    let gate = cluster.seats[&slow].running.as_ref().unwrap().gate.clone();
    gate.send_replace(false);

    let (_, command) = token();
    let fence = Fence::Within(Duration::from_millis(300));
    let written = done(cluster.node(leader).propose(request(), operator(), command, fence).await.unwrap());
    assert_eq!(state(&written.fence, slow), FenceState::Pending);
    assert_eq!(state(&written.fence, leader), FenceState::Applied);

    let (_, command) = token();
    let node = cluster.node(leader);
    let waits =
        tokio::spawn(
            async move { node.propose(request(), operator(), command, Fence::Within(PATIENCE)).await.unwrap() },
        );
    until("the slow node to apply", async || {
        let local = cluster.node(slow).local();
        (local.applied > written.index).then_some(())
    })
    .await;
    assert!(!waits.is_finished());
    gate.send_replace(true);
    let written = done(waits.await.unwrap());
    assert!(written.fence.iter().all(|(_, state)| *state == FenceState::Applied), "{written:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_vanishes_is_reported_and_one_that_said_goodbye_is_not_waited_for() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let [cut, stopped] = [1, 2, 3].into_iter().filter(|id| *id != leader).collect::<Vec<_>>()[..] else { panic!() };
    cluster.links.isolate(cut, true);
    let written = cluster.write(leader).await;
    assert_eq!(state(&written.fence, cut), FenceState::Unreachable);
    assert_eq!(state(&written.fence, stopped), FenceState::Applied);
    cluster.links.isolate(cut, false);
    until("the node to come back", async || {
        let written = cluster.write(leader).await;
        (state(&written.fence, cut) == FenceState::Applied).then_some(())
    })
    .await;

    cluster.stop(stopped).await;
    let written = cluster.write(leader).await;
    assert_eq!(state(&written.fence, stopped), FenceState::Unreachable);
    let observed = cluster.node(leader).observe().await.unwrap();
    assert!(!observed.members.iter().find(|member| member.node == stopped).unwrap().reachable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_outlives_the_leader_that_began_it() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let [heir, slow] = [1, 2, 3].into_iter().filter(|id| *id != leader).collect::<Vec<_>>()[..] else { panic!() };
    let gate = cluster.seats[&slow].running.as_ref().unwrap().gate.clone();
    gate.send_replace(false);
    let (hash, command) = token();
    let node = cluster.node(leader);
    let waits =
        tokio::spawn(
            async move { node.propose(request(), operator(), command, Fence::Within(PATIENCE)).await.unwrap() },
        );
    until("the write to be applied", async || {
        cluster.node(heir).view().registry.join_tokens.contains_key(&hash).then_some(())
    })
    .await;
    assert_eq!(cluster.node(heir).transfer_leader(Some(heir)).await, Ok(heir));
    assert!(!waits.is_finished());
    gate.send_replace(true);
    let written = done(waits.await.unwrap());
    assert!(written.fence.iter().all(|(_, state)| *state == FenceState::Applied), "{written:?}");
}

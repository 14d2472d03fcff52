//! The fence: a write is acknowledged when every member enforces it or can no longer hold authority from before it.

use crate::harness::{Cluster, PATIENCE, done, operator, request, token, until};
use raft::{Fence, FenceState};
use std::time::Duration;

fn state(fence: &[(u64, FenceState)], node: u64) -> FenceState {
    fence.iter().find(|(id, _)| *id == node).unwrap().1
}

/// The leader and the two others, all of which may admit requests.
async fn three() -> (Cluster, u64, [u64; 2]) {
    let cluster = Cluster::of(3).await;
    for id in 1..=3 {
        cluster.has_authority(id).await;
    }
    let leader = cluster.leader().await;
    let others = [1, 2, 3].into_iter().filter(|id| *id != leader).collect::<Vec<_>>();
    (cluster, leader, [others[0], others[1]])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_renews_and_does_not_enforce_is_waited_for_until_it_has_no_authority() {
    let (cluster, leader, [slow, other]) = three().await;
    let gate = cluster.seats[&slow].running.as_ref().unwrap().gate.clone();
    gate.send_replace(false);

    let (_, command) = token();
    let fence = Fence::Within(Duration::from_millis(50));
    let written = done(cluster.node(leader).propose(request(), operator(), command, fence).await.unwrap());
    assert_eq!(state(&written.fence, slow), FenceState::Pending, "it may still decide by the state before");

    let (_, command) = token();
    let fence = Fence::Within(PATIENCE);
    let written = done(cluster.node(leader).propose(request(), operator(), command, fence).await.unwrap());
    let authorized = cluster.is_authorized(slow);
    let local = cluster.node(slow).local();
    assert_eq!(state(&written.fence, slow), FenceState::Expired);
    assert_eq!(state(&written.fence, leader), FenceState::Applied);
    assert_eq!(state(&written.fence, other), FenceState::Applied);
    assert!(!authorized, "what it was granted since needs the state that it does not enforce");
    assert!(local.enforced < written.index, "{local:?}");

    gate.send_replace(true);
    cluster.has_authority(slow).await;
    assert!(cluster.node(slow).local().enforced >= written.index, "authority comes with the state");
    let written = cluster.write(leader).await;
    assert_eq!(state(&written.fence, slow), FenceState::Applied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_vanishes_is_waited_for_as_long_as_its_lease_and_one_that_said_goodbye_is_not() {
    let (mut cluster, leader, [cut, stopped]) = three().await;
    cluster.links.isolate(cut, true);
    let written = cluster.write(leader).await;
    assert!(!cluster.is_authorized(cut), "it could still decide by the state before");
    assert_eq!(state(&written.fence, cut), FenceState::Expired);
    assert_eq!(state(&written.fence, stopped), FenceState::Applied);
    cluster.links.isolate(cut, false);
    cluster.has_authority(cut).await;
    assert!(cluster.node(cut).local().enforced >= written.index, "authority comes with the state");
    until("the node to come back", async || {
        let written = cluster.write(leader).await;
        (state(&written.fence, cut) == FenceState::Applied).then_some(())
    })
    .await;

    let authority = cluster.node(stopped).authority();
    cluster.stop(stopped).await;
    assert_eq!(authority.remaining_us(0), 0, "given up");
    until("the goodbye to arrive", async || {
        let observed = cluster.node(leader).observe().await.ok()?;
        let member = observed.members.into_iter().find(|member| member.node == stopped)?;
        (!member.reachable && member.authority_ms.is_none_or(|ms| ms == 0)).then_some(())
    })
    .await;
    let (_, command) = token();
    let fence = Fence::Within(PATIENCE);
    let written = done(cluster.node(leader).propose(request(), operator(), command, fence).await.unwrap());
    assert_eq!(state(&written.fence, stopped), FenceState::Expired);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_waits_for_what_the_one_before_may_have_granted() {
    let (cluster, _, [cut, heir]) = three().await;
    cluster.links.isolate(cut, true);
    assert_eq!(cluster.node(heir).transfer_leader(Some(heir)).await, Ok(heir));
    let written = cluster.write(heir).await;
    let authorized = cluster.is_authorized(cut);
    assert_eq!(state(&written.fence, cut), FenceState::Expired, "the new leader has never heard of it");
    assert!(!authorized, "it could still decide by the state before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nobody_has_authority() {
    let (cluster, leader, others) = three().await;
    for other in others {
        cluster.links.isolate(other, true);
    }
    for id in [leader, others[0], others[1]] {
        until("authority to end", async || (!cluster.is_authorized(id)).then_some(())).await;
    }
    for other in others {
        cluster.links.isolate(other, false);
    }
    for id in 1..=3 {
        cluster.has_authority(id).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_outlives_the_leader_that_began_it() {
    let (cluster, leader, [heir, slow]) = three().await;
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
    gate.send_replace(true);
    let written = done(waits.await.unwrap());
    for node in [leader, heir] {
        assert_eq!(state(&written.fence, node), FenceState::Applied, "{written:?}");
    }
    // On a slow machine its lease may have ended before it was let through.
    assert_ne!(state(&written.fence, slow), FenceState::Pending, "{written:?}");
}

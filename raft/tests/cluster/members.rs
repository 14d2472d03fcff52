//! Members come, change and go.

use crate::harness::{Cluster, done, operator, request, until};
use machine::{
    Command,
    command::Precondition,
    member::{NodeId, Standing},
    settings::Settings,
};
use raft::{Fence, Session};

async fn set_standing(cluster: &Cluster, through: NodeId, id: NodeId, standing: Standing) {
    let command = Command::SetStanding { id, standing };
    done(cluster.node(through).propose(request(), operator(), command, Fence::None).await.unwrap());
}

async fn voters(cluster: &Cluster, through: NodeId, expected: &[NodeId]) {
    until(&format!("voters {expected:?}"), async || {
        let observed = cluster.node(through).observe().await.ok()?;
        let voters: Vec<_> = observed.members.iter().filter(|member| member.voter).map(|member| member.node).collect();
        (voters == expected && observed.settled).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_leader_hands_over_leaves_and_is_forgotten() {
    let mut cluster = Cluster::of(3).await;
    let fourth = cluster.join().await;
    cluster.all_vote(3).await;
    let leader = cluster.leader().await;
    set_standing(&cluster, fourth, leader, Standing::Leaving).await;
    let mut stay: Vec<_> = (1..=4).filter(|id| *id != leader).collect();
    stay.sort_unstable();
    voters(&cluster, fourth, &stay).await;
    until("the removed node to know", async || {
        (cluster.node(leader).local().session == Session::Removed).then_some(())
    })
    .await;
    until("the removed node to be forgotten", async || {
        let view = cluster.node(fourth).read().await.ok()?;
        (!view.registry.members.contains_key(&leader)).then_some(())
    })
    .await;
    cluster.write(fourth).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_would_leave_no_majority_waits() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let [gone, removed] = [1, 2, 3].into_iter().filter(|id| *id != leader).collect::<Vec<_>>()[..] else { panic!() };
    cluster.links.isolate(gone, true);
    until("the node to be missed", async || {
        let observed = cluster.node(leader).observe().await.ok()?;
        (!observed.members.iter().find(|member| member.node == gone)?.reachable).then_some(())
    })
    .await;
    set_standing(&cluster, leader, removed, Standing::Leaving).await;
    until("the reason to be told", async || {
        let observed = cluster.node(removed).observe().await.ok()?;
        observed.held.contains("too few").then_some(())
    })
    .await;
    cluster.write(leader).await;
    voters(&cluster, leader, &[1, 2, 3]).await;
    cluster.links.isolate(gone, false);
    let mut stay = [leader, gone];
    stay.sort_unstable();
    voters(&cluster, leader, &stay).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_serves_without_a_vote_until_it_is_promoted() {
    let mut cluster = Cluster::of_one().await;
    let learner = cluster.admit(true).await;
    cluster.start(learner).await;
    until("the learner to follow", async || (cluster.node(learner).local().session == Session::Open).then_some(()))
        .await;
    cluster.write(learner).await;
    voters(&cluster, learner, &[1]).await;
    set_standing(&cluster, learner, learner, Standing::Eligible).await;
    voters(&cluster, learner, &[1, 2]).await;
    set_standing(&cluster, learner, learner, Standing::Learner).await;
    voters(&cluster, learner, &[1]).await;
    cluster.write(learner).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_that_vanishes_is_removed_after_its_time() {
    let mut cluster = Cluster::of_one().await;
    let settings = Settings { learner_expiry_ms: 1_000, ..Settings::default() };
    let command = Command::PutSettings { settings, precondition: Precondition::Any };
    done(cluster.node(1).propose(request(), operator(), command, Fence::None).await.unwrap());
    let learner = cluster.admit(true).await;
    cluster.start(learner).await;
    until("the learner to follow", async || (cluster.node(learner).local().session == Session::Open).then_some(()))
        .await;
    cluster.stop(learner).await;
    until("the learner to be removed", async || {
        (!cluster.node(1).view().registry.members.contains_key(&learner)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_moved_is_found_at_its_new_address() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let mover = (1..=3).find(|id| *id != leader).unwrap();
    cluster.stop(mover).await;
    let dir = cluster.seats[&mover].dir.clone();
    cluster.seat(mover).await;
    cluster.seats.get_mut(&mover).unwrap().dir = dir;
    let address = cluster.seats[&mover].address.clone();
    cluster.start(mover).await;
    until("the new address to be written down", async || {
        let view = cluster.node(leader).view();
        (view.registry.members[&mover].address == address).then_some(())
    })
    .await;
    cluster.agree().await;
}

//! How a cluster begins, and how nodes come to vote.

use crate::harness::{CLUSTER, Cluster, done, operator, request, token};
use machine::{Outcome, Refusal};
use raft::{Fence, FenceState, Role, Session};

#[tokio::test]
async fn one_node_makes_a_cluster_once() {
    let cluster = Cluster::of_one().await;
    let node = cluster.node(1);
    assert_eq!(node.view().registry.cluster, CLUSTER);
    let again = node.bootstrap(cluster.initialize()).await.unwrap();
    assert!(matches!(again, Outcome::Done { .. }));
    let mut other = cluster.initialize();
    other.cluster = [9; 16];
    assert_eq!(node.bootstrap(other).await.unwrap(), Outcome::Refused(Refusal::AlreadyInitialized));

    let written = cluster.write(1).await;
    assert_eq!(written.fence, [(1, FenceState::Applied)]);
    let local = node.local();
    assert_eq!((local.role, local.leader, local.voter, local.session), (Role::Leader, Some(1), true, Session::Open));
    assert!(local.enforced >= written.index && local.caught_up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newcomers_follow_then_vote_and_every_node_takes_writes() {
    let cluster = Cluster::of(3).await;
    for through in 1..=3 {
        let written = cluster.write(through).await;
        assert_eq!(written.fence, [1, 2, 3].map(|node| (node, FenceState::Applied)));
        for (id, running) in cluster.running() {
            let enforced = running.enforced.borrow().index;
            assert!(enforced >= written.index, "node {id} enforces {enforced}, not {}", written.index);
        }
    }
    let (_, command) = token();
    let unfenced = cluster.node(2).propose(request(), operator(), command, Fence::None).await.unwrap();
    assert!(done(unfenced).fence.is_empty());

    let observed = cluster.node(3).observe().await.unwrap();
    assert_eq!(observed.leader, cluster.leader().await);
    assert_eq!(observed.members.iter().map(|member| member.node).collect::<Vec<_>>(), [1, 2, 3]);
    for member in observed.members {
        assert!(member.reachable && member.voter, "{member:?}");
        assert_eq!(member.certificate_not_after_ms, 99);
        assert!(member.clock_offset_ms.unwrap().abs() < 60_000, "{member:?}");
    }
}

//! Proposals and reads: once each, in order, and bounded.

use crate::harness::{Cluster, PATIENCE, done, operator, request, token, until};
use futures::future::join_all;
use machine::{Command, Outcome, Refusal};
use raft::{Fence, ProposeError, Upkeep};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_is_answered_like_the_first_and_changes_nothing() {
    let cluster = Cluster::of(3).await;
    let (id, (hash, command)) = (request(), token());
    let first = done(cluster.node(1).propose(id, operator(), command.clone(), Fence::None).await.unwrap());
    for through in [2, 3, 1] {
        let again = cluster.node(through).propose(id, operator(), command.clone(), Fence::None).await.unwrap();
        assert_eq!((&again.outcome, again.index), (&first.outcome, first.index));
    }
    // The same wish under another id is another request, and finds the name taken.
    let other = cluster.node(2).propose(request(), operator(), command, Fence::None).await.unwrap();
    assert!(matches!(other.outcome, Outcome::Refused(Refusal::AlreadyExists { .. })), "{other:?}");
    let view = cluster.node(3).read().await.unwrap();
    assert!(view.registry.join_tokens.contains_key(&hash));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_through_any_node_sees_what_was_acknowledged() {
    let cluster = Cluster::of(3).await;
    for round in 0..5 {
        for (writer, reader) in [(1, 2), (2, 3), (3, 1)] {
            let (hash, command) = token();
            let written = cluster.node(writer).propose(request(), operator(), command, Fence::None).await.unwrap();
            done(written);
            let view = cluster.node(reader).read().await.unwrap();
            assert!(view.registry.join_tokens.contains_key(&hash), "round {round}: {writer} to {reader}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_on_all_nodes_share_entries_and_each_gets_its_own_answer() {
    let cluster = Cluster::of(3).await;
    let before = cluster.node(1).view();
    let writes = (0..300_u64).map(|number| {
        let node = cluster.node(number % 3 + 1);
        async move {
            let (hash, command) = token();
            done(node.propose(request(), operator(), command, Fence::None).await.unwrap());
            hash
        }
    });
    let hashes = join_all(writes).await;
    let view = cluster.node(2).read().await.unwrap();
    assert!(hashes.iter().all(|hash| view.registry.join_tokens.contains_key(hash)));
    assert_eq!(view.registry.revision - before.registry.revision, 300);
    assert!(view.index - before.index < 300, "they should have shared entries");
    cluster.agree().await;
    for (id, running) in cluster.running() {
        assert_eq!(running.handle.view().registry, view.registry, "node {id}");
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_sent() {
    let cluster = Cluster::of_one().await;
    let command = Command::AddAuthority { sha256: [9; 32], certificate_pem: "x".repeat(9 * 1024 * 1024) };
    let error = cluster.node(1).propose(request(), operator(), command, Fence::None).await.unwrap_err();
    assert!(matches!(error, ProposeError::TooLarge { bytes, max } if bytes > max), "{error:?}");
    cluster.write(1).await;
}

#[tokio::test]
async fn a_disk_below_its_watermark_refuses_writes_and_serves_reads() {
    let mut cluster = Cluster::of_one().await;
    cluster.write(1).await;
    cluster.stop(1).await;
    cluster.upkeep = Upkeep { disk_low_bytes: u64::MAX, ..cluster.upkeep };
    cluster.start(1).await;
    until("the disk to be looked at", async || cluster.node(1).local().disk_low.then_some(())).await;
    let (_, command) = token();
    let error = cluster.node(1).propose(request(), operator(), command, Fence::None).await.unwrap_err();
    assert_eq!(error, ProposeError::DiskFull);
    until("a read", async || cluster.node(1).read().await.ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_said_to_be_done() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    for id in (1..=3).filter(|id| *id != leader) {
        cluster.links.isolate(id, true);
    }
    cluster.timing.propose = Duration::from_secs(3);
    let (hash, command) = token();
    let node = cluster.node(leader);
    let id = request();
    let proposed = tokio::time::timeout(PATIENCE, node.propose(id, operator(), command.clone(), Fence::None)).await;
    let error = proposed.expect("bounded").unwrap_err();
    assert!(matches!(error, ProposeError::Unknown | ProposeError::NoLeader), "{error:?}");
    assert!(tokio::time::timeout(PATIENCE, node.read()).await.expect("bounded").is_err());

    for id in 1..=3 {
        cluster.links.isolate(id, false);
    }
    // Repeating the same request is safe, whatever had become of it.
    until("the write", async || {
        let written = node.propose(id, operator(), command.clone(), Fence::None).await.ok()?;
        matches!(written.outcome, Outcome::Done { .. }).then_some(())
    })
    .await;
    let view = until("a read", async || node.read().await.ok()).await;
    assert!(view.registry.join_tokens.contains_key(&hash));
}

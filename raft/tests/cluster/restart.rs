//! Coming back from disk.

use crate::harness::{Cluster, done, folders, name, operator, request, token, until};
use machine::{
    Command,
    consumer::ConsumerSpec,
    key::{ImportedKey, KeyId, SecretHash},
    member::NodeId,
    resource::Change,
};
use raft::{Fence, StartError, Upkeep};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

/// Checkpoints and snapshots after a few entries, and next to nothing kept in the log.
fn eager() -> Upkeep {
    Upkeep {
        checkpoint_bytes: 1,
        checkpoint_every: Duration::from_millis(100),
        snapshot_bytes: 1,
        snapshot_entries: 20,
        digest_entries: 8,
        keep_entries: 5,
        disk_low_bytes: 0,
    }
}

async fn writes(cluster: &Cluster, through: NodeId, count: usize) -> Vec<[u8; 32]> {
    let mut hashes = Vec::new();
    for _ in 0..count {
        let (hash, command) = token();
        done(cluster.node(through).propose(request(), operator(), command, Fence::None).await.unwrap());
        hashes.push(hash);
    }
    hashes
}

fn has_all(cluster: &Cluster, node: NodeId, hashes: &[[u8; 32]]) -> bool {
    let view = cluster.node(node).view();
    hashes.iter().all(|hash| view.registry.join_tokens.contains_key(hash))
}

/// Enough keys that a snapshot travels in several pieces.
async fn keys(cluster: &Cluster) {
    let acme = name("acme");
    let changes = vec![Change::PutConsumer {
        name: acme.clone(),
        spec: ConsumerSpec { roles: BTreeSet::new(), attributes: BTreeMap::new() },
    }];
    let validated_against = cluster.node(1).view().registry.resources_revision;
    let command = Command::ApplyResources { validated_against, changes };
    done(cluster.node(1).propose(request(), operator(), command, Fence::None).await.unwrap());
    let imported = (0..4_000_u16).map(|number| {
        let (mut id, mut hash) = ([0; 10], [0; 32]);
        id[..2].copy_from_slice(&number.to_be_bytes());
        hash[..2].copy_from_slice(&number.to_be_bytes());
        ImportedKey {
            id: KeyId(id),
            consumer: acme.clone(),
            label: Some("x".repeat(100)),
            scopes: BTreeSet::new(),
            hash: SecretHash(hash),
            not_after: None,
        }
    });
    let command = Command::ImportKeys(imported.collect());
    done(cluster.node(1).propose(request(), operator(), command, Fence::None).await.unwrap());
}

async fn cut_log(cluster: &Cluster, node: NodeId) {
    until("a snapshot behind which the log is cut", async || {
        let local = cluster.node(node).local();
        (local.snapshot > 20).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_come_back_in_any_order() {
    let mut cluster = Cluster::of(3).await;
    let mut hashes = writes(&cluster, 2, 10).await;
    for order in [[3, 1, 2], [2, 3, 1]] {
        cluster.stop_all().await;
        for id in order {
            // Without being told of any peer: its own state names them.
            cluster.start_with_peers(id, Vec::new()).await;
        }
        let leader = cluster.leader().await;
        assert!(until("a read", async || cluster.node(order[0]).read().await.ok()).await.registry.is_initialized());
        cluster.agree().await;
        for id in order {
            assert!(has_all(&cluster, id, &hashes), "node {id} has forgotten something");
        }
        hashes.extend(writes(&cluster, leader, 3).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_far_behind_gets_a_snapshot() {
    let mut cluster = Cluster::of_one_with(eager()).await;
    keys(&cluster).await;
    let hashes = writes(&cluster, 1, 60).await;
    cut_log(&cluster, 1).await;
    let newcomer = cluster.join().await;
    cluster.all_vote(2).await;
    cluster.agree().await;
    assert!(has_all(&cluster, newcomer, &hashes));
    assert_eq!(cluster.node(newcomer).view().registry, cluster.node(1).view().registry);
    assert!(cluster.node(newcomer).local().snapshot > 20);
    // And it comes back from what it was given.
    cluster.stop_all().await;
    cluster.start(newcomer).await;
    cluster.start(1).await;
    cluster.leader().await;
    cluster.agree().await;
    assert!(has_all(&cluster, newcomer, &hashes));
}

async fn comes_back_after(damage: impl Fn(&Path)) {
    let mut cluster = Cluster::of_one_with(eager()).await;
    let mut hashes = writes(&cluster, 1, 50).await;
    cut_log(&cluster, 1).await;
    hashes.extend(writes(&cluster, 1, 3).await);
    cluster.stop(1).await;
    damage(&cluster.seats[&1].dir.clone());
    cluster.start(1).await;
    until("a read", async || cluster.node(1).read().await.ok()).await;
    assert!(has_all(&cluster, 1, &hashes));
    cluster.write(1).await;
    // The next start finds everything in order again.
    cluster.stop(1).await;
    cluster.start(1).await;
    until("a read", async || cluster.node(1).read().await.ok()).await;
    assert!(has_all(&cluster, 1, &hashes));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checkpoint_folder_may_vanish() {
    comes_back_after(|dir| fs::remove_dir_all(folders(dir).checkpoint).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checkpoint_folder_may_be_damaged() {
    comes_back_after(|dir| {
        let checkpoint = folders(dir).checkpoint;
        let mut damaged = 0;
        for file in fs::read_dir(checkpoint).unwrap().map(|file| file.unwrap().path()).filter(|path| path.is_file()) {
            let mut bytes = fs::read(&file).unwrap();
            for byte in bytes.iter_mut().skip(100).step_by(50) {
                *byte ^= 0x55;
                damaged += 1;
            }
            fs::write(&file, bytes).unwrap();
        }
        assert!(damaged > 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_file_may_be_damaged() {
    comes_back_after(|dir| {
        for file in fs::read_dir(folders(dir).snapshots).unwrap().map(|file| file.unwrap().path()) {
            let mut bytes = fs::read(&file).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&file, bytes).unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_its_log_does_not_start() {
    let mut cluster = Cluster::of_one_with(eager()).await;
    writes(&cluster, 1, 5).await;
    cluster.stop(1).await;
    fs::remove_dir_all(folders(&cluster.seats[&1].dir).log).unwrap();
    let (start, ..) = cluster.ingredients(1, Vec::new());
    let error = raft::start(start).await.unwrap_err();
    assert!(matches!(&error, StartError::Damaged(why) if why.contains("the log is gone")), "{error}");

    let (mut fresh, ..) = cluster.ingredients(1, Vec::new());
    let empty = tempfile::tempdir().unwrap();
    fresh.folders = folders(empty.path());
    fresh.expect_data = true;
    assert!(matches!(raft::start(fresh).await.unwrap_err(), StartError::Damaged(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_names_the_file() {
    let mut cluster = Cluster::of_one().await;
    writes(&cluster, 1, 50).await;
    cluster.stop(1).await;
    let log = folders(&cluster.seats[&1].dir).log;
    let file = fs::read_dir(&log).unwrap().map(|file| file.unwrap().path()).next().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let place = bytes.len() / 3;
    bytes[place] ^= 1;
    fs::write(&file, bytes).unwrap();
    let (start, ..) = cluster.ingredients(1, Vec::new());
    let error = raft::start(start).await.unwrap_err().to_string();
    assert!(error.contains(file.to_str().unwrap()) && error.contains("damaged at byte"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_a_whole_snapshot_file() {
    let cluster = Cluster::of(3).await;
    let hashes = writes(&cluster, 1, 5).await;
    let mut backup = cluster.node(3).snapshot().await.unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = backup.pieces.recv().await {
        bytes.extend(piece.unwrap());
    }
    assert_eq!(bytes.len() as u64, backup.bytes);
    assert!(has_all(&cluster, 3, &hashes));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    assert!(storage::snapshot::Reader::open(file.path()).unwrap().verify().unwrap() > 5);
}

/// The digest of one index that all of these nodes have, if there is one.
fn common_digest(cluster: &Cluster, nodes: &[NodeId], from: u64) -> Option<(u64, BTreeSet<raft::Digest>)> {
    let all: Vec<BTreeMap<u64, raft::Digest>> = nodes
        .iter()
        .map(|node| cluster.node(*node).digests().unwrap().expect("they are kept").into_iter().collect())
        .collect();
    let indexes =
        all.first()?.keys().rev().find(|index| **index >= from && all.iter().all(|one| one.contains_key(index)))?;
    Some((*indexes, all.iter().filter_map(|one| one.get(indexes).copied()).collect()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_at_one_index_are_in_one_state() {
    let mut cluster = Cluster::of_with(3, eager()).await;
    let mut last = 0;
    for round in 0..3 {
        writes(&cluster, 1, 30).await;
        cluster.agree().await;
        let from = last + 1;
        let (index, digests) = until("a digest of one index", async || common_digest(&cluster, &[1, 2, 3], from)).await;
        assert_eq!(digests.len(), 1, "round {round}: at index {index} the nodes are in different states");
        last = index;
        // From its checkpoint or its log it comes to the same.
        cluster.stop_all().await;
        for id in 1..=3 {
            cluster.start(id).await;
        }
        cluster.leader().await;
    }
}

//! Keys and policies over their lives: what was published decides the next request, on connections that are open.

use crate::harness::*;
use machine::{
    Command, Name, Wall,
    command::Precondition,
    key::{ImportedKey, KeyId},
};
use quorate::credential::{self, Credential};
use std::{collections::BTreeSet, sync::atomic::Ordering};

#[tokio::test]
async fn a_key_lives_from_publish_to_publish() {
    let upstream = Upstream::echo().await;
    let mut cluster = Cluster::start(&resources(&upstream.url())).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = Client::connect(cluster.address()).await;
        assert_eq!(client.get("/", "").await.problem(), "401 unauthenticated");
        clients.push(client);
    }
    for _ in 0..20 {
        let key = cluster.create_key("acme", None, &[]).await;
        for client in &mut clients {
            assert_eq!(client.get("/", &key.text()).await.status, 200);
        }
        cluster.revoke_key(key.id()).await;
        for client in &mut clients {
            assert_eq!(client.get("/", &key.text()).await.problem(), "401 unauthenticated");
        }
    }
}

#[tokio::test]
async fn a_rotation_overlaps() {
    let upstream = Upstream::echo().await;
    let mut cluster = Cluster::start(&resources(&upstream.url())).await;
    let before = cluster.create_key("acme", None, &[]).await;
    let after = Credential::generate_for(before.id()).unwrap();
    let precondition = Precondition::Any;
    let rotate =
        Command::RotateKey { id: before.id(), hash: after.hash(), overlap_ms: 60_000, not_after: None, precondition };
    cluster.command(rotate).await;
    let mut client = Client::connect(cluster.address()).await;
    assert_eq!(client.get("/", &before.text()).await.status, 200);
    assert_eq!(client.get("/", &after.text()).await.status, 200);
    cluster.clock.wall_ms.store(NOW_MS + 60_000, Ordering::SeqCst);
    assert_eq!(client.get("/", &before.text()).await.problem(), "401 unauthenticated");
    assert_eq!(client.get("/", &after.text()).await.status, 200);
}

#[tokio::test]
async fn keys_end_by_the_clusters_clock() {
    let upstream = Upstream::echo().await;
    let mut cluster = Cluster::start(&resources(&upstream.url())).await;
    let key = cluster.create_key("acme", Some(Wall(NOW_MS + 1000)), &[]).await;
    let mut client = Client::connect(cluster.address()).await;
    assert_eq!(client.get("/", &key.text()).await.status, 200);
    cluster.clock.wall_ms.store(NOW_MS + 1000, Ordering::SeqCst);
    assert_eq!(client.get("/", &key.text()).await.problem(), "401 unauthenticated");
}

#[tokio::test]
async fn a_disabled_consumer_is_nobody() {
    let upstream = Upstream::echo().await;
    let mut cluster = Cluster::start(&resources(&upstream.url())).await;
    let key = cluster.create_key("acme", None, &[]).await;
    let mut client = Client::connect(cluster.address()).await;
    for (enabled, status) in [(true, 200), (false, 401), (true, 200)] {
        let name = Name::new("acme").unwrap();
        let precondition = Precondition::Any;
        cluster.command(Command::SetConsumerEnabled { name, enabled, precondition }).await;
        assert_eq!(client.get("/", &key.text()).await.status, status);
    }
}

#[tokio::test]
async fn an_imported_key_is_its_whole_text() {
    let upstream = Upstream::echo().await;
    let mut cluster = Cluster::start(&resources(&upstream.url())).await;
    let imported = ImportedKey {
        id: KeyId([9; 10]),
        consumer: Name::new("acme").unwrap(),
        label: None,
        scopes: BTreeSet::new(),
        hash: credential::hash_of_text("legacy-0123"),
        not_after: None,
    };
    cluster.command(Command::ImportKeys(vec![imported])).await;
    let mut client = Client::connect(cluster.address()).await;
    assert_eq!(client.get("/", "legacy-0123").await.status, 200);
    assert_eq!(client.get("/", "legacy-0124").await.problem(), "401 unauthenticated");
}

#[tokio::test]
async fn edits_take_effect_without_dropping_a_connection() {
    let (one, other) = (Upstream::echo().await, Upstream::echo().await);
    let mut cluster = Cluster::start(&resources(&one.url())).await;
    let key = cluster.create_key("acme", None, &["write"]).await;
    let mut client = Client::connect(cluster.address()).await;
    assert_eq!(client.get("/x", &key.text()).await.status, 200);
    cluster.apply("policies: {readers: 'permit(principal in Role::\"writer\", action, resource);'}").await;
    assert_eq!(client.get("/x", &key.text()).await.problem(), "403 forbidden");
    cluster.apply("consumers: {acme: {roles: [writer]}}").await;
    assert_eq!(client.get("/x", &key.text()).await.status, 200);
    cluster
        .apply("policies: {scoped: 'forbid(principal, action, resource) unless {context.scopes.contains(\"admin\")};'}")
        .await;
    assert_eq!(client.get("/x", &key.text()).await.problem(), "403 forbidden");
    cluster.apply("routes: {all: {paths: ['/{*rest}'], upstream: u, policies: off}}").await;
    assert_eq!(client.get("/x", &key.text()).await.status, 200);
    assert_eq!(other.accepted.load(Ordering::SeqCst), 0);
    cluster.apply(&format!("upstreams: {{u: {{targets: ['{}']}}}}", other.url())).await;
    assert_eq!(client.get("/x", &key.text()).await.status, 200);
    assert_eq!(other.accepted.load(Ordering::SeqCst), 1);
    // An edit elsewhere leaves the upstream's connections alone.
    cluster.apply("consumers: {other: {}}").await;
    assert_eq!(client.get("/x", &key.text()).await.status, 200);
    assert_eq!(other.accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_older_view_is_never_taken_back() {
    let upstream = Upstream::echo().await;
    let mut cluster = Cluster::start(&resources(&upstream.url())).await;
    let old = cluster.state.clone();
    let index = cluster.index;
    let key = cluster.create_key("acme", None, &[]).await;
    let late = machine::View { index, at: old.at, registry: old.registry };
    cluster.gateway.publish(std::sync::Arc::new(late)).await;
    assert_eq!(cluster.gateway.status().enforced, index + 1);
    assert_eq!(ask(cluster.address(), get("/", &key.text())).await.status, 200);
}

//! What a revocation does to requests in flight: when it counts as enforced, nothing of the credential is.

use crate::harness::*;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use machine::{Command, Name, Wall, command::Precondition, key::KeyId, resource::Change};
use quorate::credential::Credential;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;

type Part = Result<Frame<Bytes>, Box<dyn std::error::Error + Send + Sync>>;

fn data(text: &'static str) -> Part {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

fn fed() -> (mpsc::Sender<Part>, AnyBody) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, BodyExt::boxed(StreamBody::new(ReceiverStream::new(receiver))))
}

/// An upstream whose answers are fed by hand, one piece being there already. `broken` counts request bodies that broke
/// off.
struct Feeding {
    upstream: Upstream,
    feeds: mpsc::Receiver<mpsc::Sender<Part>>,
    broken: Arc<AtomicUsize>,
}

impl Feeding {
    async fn start() -> Self {
        let (feed, feeds) = mpsc::channel::<mpsc::Sender<Part>>(16);
        let broken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&broken);
        let upstream = Upstream::start(move |request: Request<Incoming>| {
            let (feed, counter) = (feed.clone(), Arc::clone(&counter));
            async move {
                if request.into_body().collect().await.is_err() {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
                let (sender, body) = fed();
                sender.send(data("begun")).await.unwrap();
                feed.send(sender).await.unwrap();
                Response::new(body)
            }
        })
        .await;
        Self { upstream, feeds, broken }
    }

    async fn cluster(&self) -> Cluster {
        let text = format!(
            "{}  stays: {{ paths: ['/stays'], upstream: u, policies: off, on_revoke: finish }}
  goes: {{ paths: ['/goes'], upstream: u, policies: off, on_revoke: cut }}
",
            resources(&self.upstream.url())
                .replace("policies:\n", "")
                .replace("  readers: permit(principal in Role::\"reader\", action, resource);\n", "")
        );
        let text = text.replace(
            "all: { paths: ['/{*rest}'], upstream: u }",
            "all: { paths: ['/{*rest}'], upstream: u, policies: off }",
        );
        Cluster::start(&text).await
    }

    /// A stream that has begun: its client's end and the upstream's.
    async fn stream(&mut self, client: &mut Client, path: &str, key: &Credential) -> (Incoming, mpsc::Sender<Part>) {
        let response = client.send(get(path, &key.text())).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        assert_eq!(next(&mut body).await.as_deref(), Some("begun"));
        (body, soon("the upstream's end", self.feeds.recv()).await.unwrap())
    }
}

/// The next piece; `None` when the stream breaks off.
async fn next(body: &mut Incoming) -> Option<String> {
    loop {
        let frame =
            soon("a frame", body.frame()).await.unwrap_or_else(|| panic!("it ended as if it were whole")).ok()?;
        let text = frame.into_data().unwrap_or_default();
        if !text.is_empty() {
            return Some(String::from_utf8(text.to_vec()).unwrap());
        }
    }
}

async fn disable(cluster: &mut Cluster, enabled: bool) {
    let name = Name::new("acme").unwrap();
    cluster.command(Command::SetConsumerEnabled { name, enabled, precondition: Precondition::Any }).await;
}

#[tokio::test]
async fn a_revoked_key_has_nothing_in_flight_once_that_is_enforced() {
    let mut feeding = Feeding::start().await;
    let mut cluster = feeding.cluster().await;
    let (gone, kept) = (cluster.create_key("acme", None, &[]).await, cluster.create_key("acme", None, &[]).await);
    let mut streams = Vec::new();
    for path in ["/x", "/goes", "/x", "/x"] {
        let mut client = Client::connect(cluster.address()).await;
        let (body, feed) = feeding.stream(&mut client, path, &gone).await;
        streams.push((client, body, feed));
    }
    let mut client = Client::connect(cluster.address()).await;
    let (mut other, feed) = feeding.stream(&mut client, "/x", &kept).await;
    let mut open = Client::connect(cluster.address()).await;
    let (mut finishing, feed_finishing) = feeding.stream(&mut open, "/stays", &gone).await;
    assert_eq!(cluster.gateway.status().in_flight, 6);
    cluster.revoke_key(gone.id()).await;
    // No patience here: it was waited for.
    assert_eq!(cluster.gateway.status().in_flight, 2);
    for (_client, mut body, feed) in streams {
        assert_eq!(next(&mut body).await, None);
        soon("that the upstream is left alone", feed.closed()).await;
    }
    feed.send(data("more")).await.unwrap();
    assert_eq!(next(&mut other).await.as_deref(), Some("more"));
    feed_finishing.send(data("the rest")).await.unwrap();
    drop(feed_finishing);
    assert_eq!(next(&mut finishing).await.as_deref(), Some("the rest"));
    assert!(soon("the end", finishing.frame()).await.is_none());
    assert_eq!(open.get("/stays", &gone.text()).await.problem(), "401 unauthenticated");
}

#[tokio::test]
async fn a_consumer_that_is_disabled_or_deleted_has_nothing_in_flight() {
    let mut feeding = Feeding::start().await;
    let mut cluster = feeding.cluster().await;
    let key = cluster.create_key("acme", None, &[]).await;
    let mut client = Client::connect(cluster.address()).await;
    let (mut body, _feed) = feeding.stream(&mut client, "/x", &key).await;
    // Anything else about it changes nothing.
    cluster.apply("consumers: {acme: {roles: [other]}, beta: {}}").await;
    cluster.create_key("acme", None, &[]).await;
    assert_eq!(cluster.gateway.status().in_flight, 1);
    disable(&mut cluster, false).await;
    assert_eq!(cluster.gateway.status().in_flight, 0);
    assert_eq!(next(&mut body).await, None);
    disable(&mut cluster, true).await;
    let mut client = Client::connect(cluster.address()).await;
    let (mut body, _feed) = feeding.stream(&mut client, "/x", &key).await;
    let name = Name::new("acme").unwrap();
    let validated_against = cluster.state.registry.resources_revision;
    cluster
        .command(Command::ApplyResources { validated_against, changes: vec![Change::DeleteConsumer { name }] })
        .await;
    assert_eq!(cluster.gateway.status().in_flight, 0);
    assert_eq!(next(&mut body).await, None);
}

#[tokio::test]
async fn a_rotation_cuts_the_secret_before_when_its_overlap_is_over() {
    let mut feeding = Feeding::start().await;
    let mut cluster = feeding.cluster().await;
    let before = cluster.create_key("acme", None, &[]).await;
    let mut old = Client::connect(cluster.address()).await;
    let (mut by_old, _feed) = feeding.stream(&mut old, "/x", &before).await;
    let after = Credential::generate_for(before.id()).unwrap();
    rotate(&mut cluster, before.id(), &after, 60_000).await;
    let mut new = Client::connect(cluster.address()).await;
    let (mut by_new, feed) = feeding.stream(&mut new, "/x", &after).await;
    assert_eq!(cluster.gateway.status().in_flight, 2);
    cluster.clock.wall_ms.store(NOW_MS + 60_000, Ordering::SeqCst);
    // Nothing is published when time ends it: it is noticed at the next look.
    assert_eq!(next(&mut by_old).await, None);
    feed.send(data("more")).await.unwrap();
    assert_eq!(next(&mut by_new).await.as_deref(), Some("more"));
    // Without an overlap it ends at once.
    rotate(&mut cluster, before.id(), &Credential::generate_for(before.id()).unwrap(), 0).await;
    assert_eq!(cluster.gateway.status().in_flight, 0);
    assert_eq!(next(&mut by_new).await, None);
}

async fn rotate(cluster: &mut Cluster, id: KeyId, to: &Credential, overlap_ms: u64) {
    let precondition = Precondition::Any;
    cluster.command(Command::RotateKey { id, hash: to.hash(), overlap_ms, not_after: None, precondition }).await;
}

#[tokio::test]
async fn an_end_by_time_cuts_too() {
    let mut feeding = Feeding::start().await;
    let mut cluster = feeding.cluster().await;
    let key = cluster.create_key("acme", Some(Wall(NOW_MS + 1_000)), &[]).await;
    let mut client = Client::connect(cluster.address()).await;
    let (mut body, _feed) = feeding.stream(&mut client, "/x", &key).await;
    cluster.clock.wall_ms.store(NOW_MS + 1_000, Ordering::SeqCst);
    assert_eq!(next(&mut body).await, None);
}

#[tokio::test]
async fn an_upload_and_a_request_without_an_answer_are_cut() {
    let feeding = Feeding::start().await;
    let mut cluster = feeding.cluster().await;
    let key = cluster.create_key("acme", None, &[]).await;
    let mut client = Client::connect(cluster.address()).await;
    let (feed, body) = fed();
    let request = Request::post("/x").header("x-api-key", key.text().as_str()).body(body).unwrap();
    let asked = tokio::spawn(async move { client.ask(request).await });
    feed.send(data("some of it")).await.unwrap();
    until("that it is under way", || feeding.upstream.accepted.load(Ordering::SeqCst) == 1).await;
    cluster.revoke_key(key.id()).await;
    assert_eq!(soon("an answer", asked).await.unwrap().problem(), "401 unauthenticated");
    until("that the upload breaks off", || feeding.broken.load(Ordering::SeqCst) == 1).await;
    until("that it is over", || cluster.gateway.status().in_flight == 0).await;
}

/// The upstream has answered to the last byte and goes on reading: the upload is in flight still.
#[tokio::test]
async fn an_upload_that_outlives_its_answer_is_cut() {
    let broken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&broken);
    let upstream = Upstream::start(move |request: Request<Incoming>| {
        let counter = Arc::clone(&counter);
        async move {
            tokio::spawn(async move {
                if request.into_body().collect().await.is_err() {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            });
            Response::new(full("done"))
        }
    })
    .await;
    let mut cluster = Cluster::start(&resources(&upstream.url())).await;
    let key = cluster.create_key("acme", None, &[]).await;
    let mut client = Client::http2(TcpStream::connect(cluster.address()).await.unwrap()).await;
    let (feed, body) = fed();
    let request = Request::post("/x").header("x-api-key", key.text().as_str()).body(body).unwrap();
    feed.send(data("some of it")).await.unwrap();
    let reply = client.ask(request).await;
    assert_eq!(reply.body, "done");
    cluster.revoke_key(key.id()).await;
    // Whether it was let go with its answer or by the revocation: nothing of it moves now.
    until("that the upload breaks off", || broken.load(Ordering::SeqCst) == 1).await;
    assert_eq!(cluster.gateway.status().in_flight, 0);
}

/// A body without end for a client that takes nothing: the gateway is not asked for more, and must end it all the same.
#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let upstream = Upstream::start(|_| async {
        let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
        let endless = tokio_stream::iter(std::iter::repeat_with(move || Ok(Frame::data(chunk.clone())) as Part));
        Response::new(BodyExt::boxed(StreamBody::new(endless)))
    })
    .await;
    let mut cluster = Cluster::start(&resources(&upstream.url())).await;
    let key = cluster.create_key("acme", None, &[]).await;
    let plain = Client::connect(cluster.address()).await;
    let multiplexed = Client::http2(TcpStream::connect(cluster.address()).await.unwrap()).await;
    let mut held = Vec::new();
    for mut client in [plain, multiplexed] {
        held.push((client.send(get("/x", &key.text())).await.unwrap(), client));
    }
    assert_eq!(cluster.gateway.status().in_flight, 2);
    cluster.revoke_key(key.id()).await;
    assert_eq!(cluster.gateway.status().in_flight, 0);
}

#[tokio::test]
async fn one_stream_of_a_connection_is_cut_alone() {
    let mut feeding = Feeding::start().await;
    let mut cluster = feeding.cluster().await;
    let (gone, kept) = (cluster.create_key("acme", None, &[]).await, cluster.create_key("acme", None, &[]).await);
    let mut client = Client::http2(TcpStream::connect(cluster.address()).await.unwrap()).await;
    let (mut cut, _feed) = feeding.stream(&mut client, "/x", &gone).await;
    let (mut other, feed) = feeding.stream(&mut client, "/x", &kept).await;
    cluster.revoke_key(gone.id()).await;
    assert_eq!(cluster.gateway.status().in_flight, 1);
    assert_eq!(next(&mut cut).await, None);
    feed.send(data("more")).await.unwrap();
    assert_eq!(next(&mut other).await.as_deref(), Some("more"));
    let (mut again, _feed) = feeding.stream(&mut client, "/x", &kept).await;
    drop(feed);
    assert!(soon("the end", other.collect()).await.unwrap().to_bytes().is_empty());
    cluster.revoke_key(kept.id()).await;
    assert_eq!(next(&mut again).await, None);
}

/// Requests begin all the time while keys are revoked: none of them may stay.
#[tokio::test]
async fn nothing_slips_through_while_requests_begin() {
    let upstream = Upstream::start(|_| async {
        let (sender, body) = fed();
        sender.send(data("begun")).await.unwrap();
        tokio::spawn(async move { sender.closed().await });
        Response::new(body)
    })
    .await;
    let mut cluster = Cluster::start(&resources(&upstream.url())).await;
    for _ in 0..10 {
        let key = cluster.create_key("acme", None, &[]).await;
        let (address, text) = (cluster.address(), key.text());
        let began = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (text, began) = (text.clone(), Arc::clone(&began));
                tokio::spawn(async move {
                    let mut held = Vec::new();
                    loop {
                        let mut client = Client::connect(address).await;
                        match client.send(get("/x", &text)).await {
                            Ok(response) if response.status() == 200 => held.push((response, client)),
                            _ => return,
                        }
                        began.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        until("some streams", || began.load(Ordering::SeqCst) >= 8).await;
        cluster.revoke_key(key.id()).await;
        for client in clients {
            soon("the end of a client", client).await.unwrap();
        }
        until("that nothing is in flight", || cluster.gateway.status().in_flight == 0).await;
    }
}

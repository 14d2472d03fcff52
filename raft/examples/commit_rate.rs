//! How many writes a second three nodes commit, and how long each takes: three nodes in one process, over loopback
//! without TLS, on real files.
//!
//! `cargo run --release -p raft --example commit_rate -- [writers] [seconds] [nodes] [directory]`

#![allow(clippy::indexing_slicing, clippy::print_stdout, clippy::unwrap_used, reason = "a measurement, run by hand")]

use futures::FutureExt;
use machine::{
    Actor, Command, Name, Outcome, RequestId, Wall,
    command::Initialize,
    member::{MemberSpec, NodeId},
    settings::Settings,
};
use raft::{Callers, Certificate, Clock, Dial, DialError, Fence, Folders, Handle, Start, Timing, Upkeep};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, sync::watch};
use tonic::transport::{Endpoint, Server, server::TcpIncoming};

struct Real;

impl Clock for Real {
    fn boot_us(&self) -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        u64::try_from(now.tv_sec).unwrap() * 1_000_000 + u64::try_from(now.tv_nsec).unwrap() / 1_000
    }

    fn utc_ms(&self) -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        u64::try_from(now.tv_sec).unwrap() * 1_000 + u64::try_from(now.tv_nsec).unwrap() / 1_000_000
    }
}

fn request() -> RequestId {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    RequestId { issued: Wall(Real.utc_ms()), random: COUNT.fetch_add(1, Ordering::Relaxed).into() }
}

fn spec(id: NodeId, address: &str) -> MemberSpec {
    MemberSpec {
        name: Name::new(&format!("n{id}")).unwrap(),
        address: address.to_owned(),
        gateway_address: String::new(),
        gateway_tls_address: String::new(),
        ops_address: String::new(),
        zone: None,
        version: "0.1.0".into(),
        feature_level_max: 1,
    }
}

fn dial() -> Dial {
    Arc::new(|_, address| {
        async move {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|e| DialError(e.to_string()))?;
            endpoint.tcp_nodelay(true).connect().await.map_err(|error| DialError(error.to_string()))
        }
        .boxed()
    })
}

async fn node(id: NodeId, dir: &Path, peers: Vec<(NodeId, String)>, listener: TcpListener) -> Handle {
    let address = listener.local_addr().unwrap().to_string();
    let dir = dir.join(format!("n{id}"));
    std::fs::create_dir_all(&dir).unwrap();
    let handle = raft::start(Start {
        node: id,
        spec: spec(id, &address),
        folders: Folders { log: dir.join("log"), checkpoint: dir.join("checkpoint"), snapshots: dir.join("snapshots") },
        expect_data: false,
        peers,
        timing: Timing::default(),
        upkeep: Upkeep::default(),
        dial: dial(),
        clock: Arc::new(Real),
        publish: Arc::new(|_| async {}.boxed()),
        certificate: watch::Sender::new(Certificate::default()).subscribe(),
        callers: Callers::Trusted,
    })
    .await
    .unwrap();
    let services = handle.services();
    tokio::spawn(
        Server::builder()
            .add_service(services.raft)
            .add_service(services.leader)
            // Without this, an answer waits for the acknowledgement of the one before: 40 ms.
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))),
    );
    handle
}

async fn cluster(count: u64, dir: &Path) -> Vec<Handle> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let first = listener.local_addr().unwrap().to_string();
    let mut nodes = vec![node(1, dir, Vec::new(), listener).await];
    let initialize = Initialize {
        cluster: [7; 16],
        feature_level: 1,
        settings: Settings::default(),
        authority_sha256: [1; 32],
        authority_pem: "authority".into(),
        member: spec(1, &first),
        operator: Name::new("root").unwrap(),
        operator_certificate_sha256: [2; 32],
        operator_not_after: Wall(u64::MAX / 2),
        join_token_hash: [0; 32],
        join_token_not_after: Wall(u64::MAX / 2),
    };
    nodes[0].bootstrap(initialize).await.unwrap();
    for id in 2..=count {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let hash = [u8::try_from(id).unwrap(); 32];
        let not_after = Wall(Real.utc_ms() + 3_600_000);
        let root = Actor::Operator(Name::new("root").unwrap());
        nodes[0].propose(request(), root, Command::CreateJoinToken { hash, not_after }, Fence::None).await.unwrap();
        let admit = Command::AdmitMember { token_hash: hash, spec: spec(id, &address), learner: false };
        nodes[0].propose(request(), Actor::Node(1), admit, Fence::None).await.unwrap();
        nodes.push(node(id, dir, vec![(1, first.clone())], listener).await);
    }
    loop {
        let voters = nodes[0].observe().await.map_or(0, |seen| seen.members.iter().filter(|one| one.voter).count());
        if voters as u64 == count.min(3) {
            return nodes;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn measure(handle: &Handle, writers: usize, time: Duration, fence: Fence) -> (usize, Duration, Vec<Duration>) {
    let began = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let handle = handle.clone();
            tokio::spawn(async move {
                let mut took = Vec::new();
                while began.elapsed() < time {
                    let start = Instant::now();
                    let command = Command::Nothing;
                    let written = handle.propose(request(), Actor::Node(1), command, fence).await.unwrap();
                    assert!(!matches!(written.outcome, Outcome::Refused(_)), "{written:?}");
                    took.push(start.elapsed());
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.unwrap());
    }
    took.sort_unstable();
    (took.len(), began.elapsed(), took)
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let writers: Option<usize> = arguments.next().and_then(|text| text.parse().ok());
    let seconds: u64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(3);
    let count: u64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(3);
    let temporary = tempfile::tempdir().unwrap();
    let dir = arguments.next().map_or(temporary.path().to_owned(), Into::into);
    let nodes = cluster(count, &dir).await;
    let through = [("leader", &nodes[0]), ("follower", nodes.last().unwrap())];
    println!(
        "{:<10} {:<7} {:>8} {:>12} {:>9} {:>9} {:>9}",
        "through", "fence", "writers", "writes/s", "p50", "p99", "max"
    );
    for writers in writers.map_or(vec![1, 16, 128, 1024], |writers| vec![writers]) {
        for (name, handle) in through {
            for (fenced, fence) in [("no", Fence::None), ("yes", Fence::Within(Duration::from_secs(10)))] {
                let (writes, time, took) = measure(handle, writers, Duration::from_secs(seconds), fence).await;
                let at = |part: usize| took.get((took.len() * part / 100).min(took.len() - 1)).copied().unwrap();
                println!(
                    "{name:<10} {fenced:<7} {writers:>8} {:>12.0} {:>9.2?} {:>9.2?} {:>9.2?}",
                    writes as f64 / time.as_secs_f64(),
                    at(50),
                    at(99),
                    at(100),
                );
            }
        }
    }
    for node in nodes {
        node.stop().await;
    }
}

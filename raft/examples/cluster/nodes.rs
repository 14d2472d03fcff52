//! Nodes of one cluster in one process, over loopback without TLS, on real files: what the measurements run on.

use futures::FutureExt;
use machine::{
    Actor, Command, Name, RequestId, Wall,
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
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch};
use tonic::transport::{Endpoint, Server, server::TcpIncoming};

pub(crate) struct Real;

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

pub(crate) fn request() -> RequestId {
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
        ground: raft::Ground::System,
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

pub(crate) async fn cluster(count: u64, dir: &Path) -> Vec<Handle> {
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

//! Nodes in one process, each with its own directory and its own port, over links that can be cut.

pub(crate) mod link;

use futures::FutureExt;
use link::Links;
use machine::{
    Actor, Command, Name, Outcome, RequestId, View, Wall,
    command::Initialize,
    member::{MemberSpec, NodeId},
    settings::Settings,
};
use raft::{Callers, Certificate, Clock, Fence, Folders, Handle, Start, Timing, Upkeep, Written};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::JoinHandle,
};
use tonic::transport::server::TcpIncoming;

/// How long anything may take before a test fails: machines that test are slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const CLUSTER: [u8; 16] = [7; 16];

/// This machine's clocks.
pub(crate) struct Real;

impl Clock for Real {
    fn boot_us(&self) -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
    }

    fn utc_ms(&self) -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000
    }
}

/// The same with a date that can be set wrong.
#[derive(Default)]
pub(crate) struct Dated {
    pub(crate) ahead_ms: AtomicI64,
}

impl Clock for Dated {
    fn boot_us(&self) -> u64 {
        Real.boot_us()
    }

    fn utc_ms(&self) -> u64 {
        Real.utc_ms().saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed))
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn operator() -> Actor {
    Actor::Operator(name("root"))
}

/// A request id that was not used before.
pub(crate) fn request() -> RequestId {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let random = u128::from(std::process::id()) << 64 | u128::from(COUNT.fetch_add(1, Ordering::Relaxed));
    RequestId { issued: Wall(Real.utc_ms()), random }
}

/// A command that changes something each time: a new join token.
pub(crate) fn token() -> ([u8; 32], Command) {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    (hash, Command::CreateJoinToken { hash, not_after: Wall(Real.utc_ms() + 3_600_000) })
}

/// Waits until something holds; says what was waited for if it does not in time.
pub(crate) async fn until<T>(what: &str, mut holds: impl AsyncFnMut() -> Option<T>) -> T {
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(found) = holds().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    match found.await {
        Ok(found) => found,
        Err(_) => panic!("waited in vain: {what}"),
    }
}

/// A node that runs.
pub(crate) struct Running {
    pub(crate) handle: Handle,
    /// The Views that its workers enforce.
    pub(crate) enforced: watch::Receiver<Arc<View>>,
    /// Lets publishing pass while it is true.
    pub(crate) gate: watch::Sender<bool>,
    server: JoinHandle<()>,
    stop_server: oneshot::Sender<()>,
}

/// A node, running or not.
pub(crate) struct Seat {
    pub(crate) dir: PathBuf,
    pub(crate) address: String,
    pub(crate) running: Option<Running>,
    pub(crate) clock: Arc<Dated>,
}

/// A cluster in one process.
pub(crate) struct Cluster {
    root: tempfile::TempDir,
    pub(crate) links: Links,
    pub(crate) seats: BTreeMap<NodeId, Seat>,
    pub(crate) upkeep: Upkeep,
    pub(crate) timing: Timing,
}

impl Cluster {
    /// A cluster of one, initialized.
    pub(crate) async fn of_one() -> Self {
        Self::of_one_with(Upkeep { disk_low_bytes: 0, ..Upkeep::default() }).await
    }

    pub(crate) async fn of_one_with(upkeep: Upkeep) -> Self {
        let _ = tracing_subscriber_from_env();
        let timing = Timing::default();
        let root = tempfile::tempdir().unwrap();
        let mut cluster = Self { root, links: Links::default(), seats: BTreeMap::new(), upkeep, timing };
        cluster.seat(1).await;
        cluster.start(1).await;
        let outcome = cluster.node(1).bootstrap(cluster.initialize()).await.unwrap();
        assert!(matches!(outcome, Outcome::Admitted { id: 1, .. }), "{outcome:?}");
        cluster
    }

    /// A cluster of so many, all of which vote, if it is at most three.
    pub(crate) async fn of(count: u64) -> Self {
        Self::of_with(count, Upkeep { disk_low_bytes: 0, ..Upkeep::default() }).await
    }

    pub(crate) async fn of_with(count: u64, upkeep: Upkeep) -> Self {
        let mut cluster = Self::of_one_with(upkeep).await;
        for _ in 1..count {
            cluster.join().await;
        }
        cluster.all_vote(usize::try_from(count.min(3)).unwrap()).await;
        cluster
    }

    pub(crate) fn initialize(&self) -> Initialize {
        Initialize {
            cluster: CLUSTER,
            feature_level: 1,
            settings: Settings::default(),
            authority_sha256: [1; 32],
            authority_pem: "authority".into(),
            member: self.spec(1),
            operator: name("root"),
            operator_certificate_sha256: [2; 32],
            operator_not_after: Wall(u64::MAX / 2),
            join_token_hash: [3; 32],
            join_token_not_after: Wall(u64::MAX / 2),
        }
    }

    pub(crate) fn spec(&self, id: NodeId) -> MemberSpec {
        MemberSpec {
            name: name(&format!("n{id}")),
            address: self.seats[&id].address.clone(),
            gateway_address: String::new(),
            gateway_tls_address: String::new(),
            ops_address: String::new(),
            zone: None,
            version: "0.1.0".into(),
            feature_level_max: 1,
        }
    }

    /// Sets up a directory and a port for a node.
    pub(crate) async fn seat(&mut self, id: NodeId) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let dir = self.root.path().join(format!("n{id}"));
        self.seats.insert(id, Seat { dir, address, running: None, clock: Arc::default() });
    }

    /// Starts a node on its directory and its port.
    pub(crate) async fn start(&mut self, id: NodeId) {
        let peers = self.seats.iter().map(|(id, seat)| (*id, seat.address.clone())).collect();
        self.start_with_peers(id, peers).await;
    }

    pub(crate) async fn start_with_peers(&mut self, id: NodeId, peers: Vec<(NodeId, String)>) {
        let start = self.ingredients(id, peers);
        let (start, enforced, gate) = start;
        let address = self.seats[&id].address.clone();
        let listener = until("the port", async || TcpListener::bind(&address).await.ok()).await;
        let handle = raft::start(start).await.unwrap();
        let services = handle.services();
        let (stop_server, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(services.raft)
                .add_service(services.leader)
                .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), stopped.map(drop))
                .await
                .unwrap();
        });
        let running = Running { handle, enforced, gate, server, stop_server };
        self.seats.get_mut(&id).unwrap().running = Some(running);
    }

    /// What [`raft::start`] needs for this node.
    pub(crate) fn ingredients(
        &self,
        id: NodeId,
        peers: Vec<(NodeId, String)>,
    ) -> (Start, watch::Receiver<Arc<View>>, watch::Sender<bool>) {
        let (published, enforced) = watch::channel(Arc::new(View::default()));
        let gate = watch::Sender::new(true);
        let opens = gate.clone();
        let start = Start {
            node: id,
            spec: self.spec(id),
            folders: folders(&self.seats[&id].dir),
            expect_data: false,
            peers,
            timing: self.timing.clone(),
            upkeep: self.upkeep.clone(),
            dial: self.links.dial(id),
            clock: Arc::<Dated>::clone(&self.seats[&id].clock),
            publish: Arc::new(move |view| {
                let (published, mut opens) = (published.clone(), opens.subscribe());
                async move {
                    let _ = opens.wait_for(|open| *open).await;
                    published.send_replace(view);
                }
                .boxed()
            }),
            certificate: watch::Sender::new(Certificate { authority_sha256: vec![1; 32], not_after_ms: 99 })
                .subscribe(),
            callers: Callers::Trusted,
            ground: raft::Ground::System,
        };
        (start, enforced, gate)
    }

    /// Admits a new node through any node, and starts it.
    pub(crate) async fn join(&mut self) -> NodeId {
        let id = self.admit(false).await;
        self.start(id).await;
        id
    }

    /// Gives a new node a seat and a number.
    pub(crate) async fn admit(&mut self, learner: bool) -> NodeId {
        let id = self.seats.keys().max().unwrap() + 1;
        self.seat(id).await;
        let (hash, command) = token();
        let through = self.anybody();
        done(through.propose(request(), operator(), command, Fence::None).await.unwrap());
        let command = Command::AdmitMember { token_hash: hash, spec: self.spec(id), learner };
        let local = through.local().node;
        let admitted = through.propose(request(), Actor::Node(local), command, Fence::None).await.unwrap();
        match admitted.outcome {
            Outcome::Admitted { id: given, .. } => assert_eq!(given, id),
            other => panic!("{other:?}"),
        }
        id
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = (NodeId, &Running)> {
        self.seats.iter().filter_map(|(id, seat)| Some((*id, seat.running.as_ref()?)))
    }

    pub(crate) fn node(&self, id: NodeId) -> Handle {
        self.seats[&id].running.as_ref().unwrap().handle.clone()
    }

    pub(crate) fn anybody(&self) -> Handle {
        self.running().next().unwrap().1.handle.clone()
    }

    /// Who leads, once all running nodes say the same and it answers.
    pub(crate) async fn leader(&self) -> NodeId {
        until("one leader", async || {
            let mut said = self.running().map(|(_, running)| running.handle.local().leader);
            let first = said.next()??;
            (said.all(|leader| leader == Some(first)) && self.running().any(|(id, _)| id == first)).then_some(first)
        })
        .await
    }

    /// Waits until so many vote, and all running nodes know it and have a session.
    pub(crate) async fn all_vote(&self, voters: usize) {
        until(&format!("{voters} voters"), async || {
            let observed = self.anybody().observe().await.ok()?;
            let votes = observed.members.iter().filter(|member| member.voter).count();
            let heard = observed.members.iter().all(|member| member.reachable);
            (votes == voters && heard && observed.settled).then_some(())
        })
        .await;
    }

    /// Proposes a change through this node, fenced.
    pub(crate) async fn write(&self, through: NodeId) -> Written {
        let (_, command) = token();
        let fence = Fence::Within(Duration::from_secs(20));
        done(self.node(through).propose(request(), operator(), command, fence).await.unwrap())
    }

    /// Waits until this node may admit requests.
    pub(crate) async fn has_authority(&self, id: NodeId) {
        until("authority", async || self.is_authorized(id).then_some(())).await;
    }

    /// Whether this node may admit requests now.
    pub(crate) fn is_authorized(&self, id: NodeId) -> bool {
        self.node(id).authority().is_valid(Real.boot_us())
    }

    /// Waits until all running nodes hold the same state.
    pub(crate) async fn agree(&self) {
        let read = until("a read", async || self.anybody().read().await.ok()).await;
        until("all to agree", async || {
            self.running()
                .all(|(_, running)| {
                    let view = running.handle.view();
                    view.index >= read.index && view.registry.revision >= read.registry.revision
                })
                .then_some(())
        })
        .await;
    }

    /// Stops a node cleanly.
    pub(crate) async fn stop(&mut self, id: NodeId) {
        let running = self.seats.get_mut(&id).unwrap().running.take().unwrap();
        running.handle.stop().await;
        drop(running.stop_server);
        running.server.abort();
        let _ = running.server.await;
    }

    /// Cuts a node off and then stops it: nobody gets a word of it.
    pub(crate) async fn crash(&mut self, id: NodeId) {
        self.links.isolate(id, true);
        self.stop(id).await;
        self.links.isolate(id, false);
    }

    pub(crate) async fn stop_all(&mut self) {
        let ids: Vec<_> = self.running().map(|(id, _)| id).collect();
        for id in ids {
            self.stop(id).await;
        }
    }
}

pub(crate) fn folders(dir: &Path) -> Folders {
    std::fs::create_dir_all(dir).unwrap();
    Folders { log: dir.join("log"), checkpoint: dir.join("checkpoint"), snapshots: dir.join("snapshots") }
}

pub(crate) fn done(written: Written) -> Written {
    assert!(matches!(written.outcome, Outcome::Done { .. }), "{written:?}");
    written
}

/// `RUST_LOG` shows what the nodes say.
fn tracing_subscriber_from_env() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    if std::env::var_os("RUST_LOG").is_none() {
        return Ok(());
    }
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init()
}

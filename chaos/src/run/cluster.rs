//! The cluster under test: real `quorate` processes with settings, data and logs in the run's folder, started, stopped, killed,
//! paused and replaced by the harness. Nothing here panics when the product misbehaves: that is what a run is about.

use super::{network::Network, operator::Operator};
use crate::history::{Recorder, Secret};
use anyhow::{Context as _, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tests::{
    client::{Client, get},
    free_port::free_port,
    process::Process,
};

/// Places that are free at first, for nodes that are added.
const SPARE_PLACES: usize = 2;
/// A node that is asked how it is answers at once, or is not well.
const STATUS_PATIENCE: Duration = Duration::from_secs(1);
/// Until a node of a new cluster is ready, on a busy machine.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// The longest that one attempt to join may take.
const JOIN_PATIENCE_MAX: Duration = Duration::from_secs(20);
/// What every node of a run does: so few entries between two snapshots that a run of minutes makes many, and cuts the log behind
/// them; and digests of the state.
const ALWAYS: &str = "snapshot_entries = 400
digest_entries = 50
";

/// What a cluster is made of.
#[derive(Debug)]
pub struct Cluster {
    /// Where the nodes live.
    pub network: Network,
    /// The nodes by their places; a place may be empty.
    pub nodes: Vec<Node>,
    /// What the workload knows of them.
    pub seats: Arc<Seats>,
    /// Where everything is written down.
    pub recorder: Recorder,
    /// Who administers.
    pub operator: Operator,
    /// How many nodes there were at the start.
    pub size: usize,
    /// What faults have seen that must not be.
    pub broken: Vec<String>,
    folder: PathBuf,
    quorate: PathBuf,
    joined: u64,
}

/// A place for a node, and the node that has it now.
#[derive(Debug)]
pub struct Node {
    /// From 0.
    pub place: usize,
    /// Its number in the cluster; 0 while nobody is here.
    pub id: u64,
    /// Its name; a replaced node's successor has another.
    pub name: String,
    /// Its settings, data and logs.
    pub folder: PathBuf,
    /// The running program, also while it is paused.
    pub process: Option<Process>,
    /// The fault that has its process or its disk, if any: no other may touch them meanwhile.
    pub held_by: Option<String>,
    /// Whether a fault may make it end by itself. Otherwise that is a finding.
    pub may_end: bool,
    /// Whether it was removed from the cluster, so that it will end.
    pub removed: bool,
    /// What its calendar is to be ahead.
    pub utc_ahead_ms: i64,
    /// How much faster its clock for durations is to run, in millionths.
    pub boot_rate_ppm: i64,
    /// What every sync of it takes longer.
    pub sync_delay_ms: u64,
    /// Whether its syncs fail.
    pub sync_fails: bool,
    address: [String; 3],
}

/// What clients know of the nodes.
#[derive(Debug)]
pub struct Seats(pub Vec<Seat>);

/// Addresses of a place, and who is there.
#[derive(Debug)]
pub struct Seat {
    /// The gateway.
    pub gateway: String,
    /// The cluster listener.
    pub cluster: String,
    /// The ops listener.
    pub ops: String,
    id: AtomicU64,
    incarnation: AtomicU64,
}

/// How a run makes its cluster.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// How many nodes.
    pub nodes: usize,
    /// The program.
    pub quorate: &'a Path,
    /// The run's folder.
    pub folder: &'a Path,
    /// No namespaces, even if they were permitted.
    pub loopback: bool,
}

impl Seat {
    /// The number of the node here; 0 for none.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id.load(Ordering::Relaxed)
    }

    /// Which process it is of those that this place has seen.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Relaxed)
    }
}

impl Cluster {
    /// Starts a cluster; all nodes are ready.
    ///
    /// # Errors
    /// It did not come up: without faults that is a failure of this machine, or a broken product.
    pub fn start(wanted: &Wanted<'_>, recorder: Recorder) -> anyhow::Result<Self> {
        let places = wanted.nodes + SPARE_PLACES;
        let network = Network::make(places, wanted.loopback);
        let addresses: Vec<[String; 3]> = (0..places).map(|place| addresses(&network, place)).collect();
        let seats = addresses.iter().map(|[gateway, cluster, ops]| Seat {
            gateway: gateway.clone(),
            cluster: cluster.clone(),
            ops: ops.clone(),
            id: AtomicU64::new(0),
            incarnation: AtomicU64::new(0),
        });
        let seats = Arc::new(Seats(seats.collect()));
        let nodes = addresses.into_iter().enumerate().map(|(place, address)| Node::empty(place, address)).collect();
        let context = wanted.folder.join("operator");
        let mut cluster = Self {
            network,
            nodes,
            seats,
            recorder,
            operator: Operator::new(Path::new(""), &[]),
            size: wanted.nodes,
            broken: Vec::new(),
            folder: wanted.folder.to_owned(),
            quorate: wanted.quorate.to_owned(),
            joined: 0,
        };
        cluster.prepare(0, wanted.nodes)?;
        let made = cluster.quorate(0, "init", &["--context-dir", text(&context)?])?;
        let token = made["join_token"].as_str().context("init prints a join token")?;
        cluster.hide("the first join token", token, &[]);
        let file = made["context"].as_str().context("init prints the context")?;
        let addresses: Vec<String> = cluster.seats.0.iter().map(|seat| seat.cluster.clone()).collect();
        cluster.operator = Operator::new(Path::new(file), &addresses);
        cluster.is_there(0, made["node"].as_u64().context("init prints the node's number")?);
        cluster.run(0)?;
        cluster.wait_ready(0)?;
        for place in 1..wanted.nodes {
            cluster.join(place, START_PATIENCE)?;
            cluster.wait_ready(place)?;
        }
        cluster.wait_voting(wanted.nodes)?;
        Ok(cluster)
    }

    /// Writes the settings of a node to be, in a folder of its own.
    fn prepare(&mut self, place: usize, voters: usize) -> anyhow::Result<()> {
        self.joined += 1;
        let name = format!("n{}", self.joined);
        let folder = self.folder.join(crate::history::WRITTEN_FOLDER).join(&name);
        fs::create_dir_all(&folder)?;
        let own = self.network.own();
        let node = self.nodes.get_mut(place).context("no such place")?;
        let [gateway, cluster, ops] = &node.address;
        let mut settings = format!("name = \"{name}\"\ndata_dir = \"data\"\naccess_log = \"./access.log\"\n");
        // An odd number of voters: the fourth node follows.
        writeln!(settings, "voters = {}\ndrain_delay = \"500ms\"\ndrain_timeout = \"5s\"", voters - (voters + 1) % 2)?;
        writeln!(settings, "[gateway]\nbind = \"{gateway}\"\nworkers = 2\ntrusted_proxies = [\"{own}/32\"]")?;
        writeln!(settings, "[cluster]\nbind = \"{cluster}\"\n[ops]\nbind = \"{ops}\"")?;
        fs::write(folder.join("node.toml"), settings)?;
        fs::write(folder.join(FAULTS), ALWAYS)?;
        (node.name, node.folder, node.removed, node.may_end) = (name, folder, false, false);
        (node.utc_ahead_ms, node.boot_rate_ppm) = (0, 0);
        (node.sync_delay_ms, node.sync_fails) = (0, false);
        Ok(())
    }

    /// Runs `quorate VERB` for a node to its end; what it printed.
    fn quorate(&self, place: usize, verb: &str, arguments: &[&str]) -> anyhow::Result<Value> {
        let node = self.node(place)?;
        let output = Command::new("timeout")
            .args(["--signal=KILL", "60"])
            .args(self.network.command(place, &self.quorate).get_program_and_arguments())
            .args([verb, "--config"])
            .arg(node.folder.join("node.toml"))
            .args(["--output", "json"])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .context("timeout cannot be run")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "quorate {verb} of {}: {}", node.name, stderr.trim());
        serde_json::from_slice(&output.stdout).with_context(|| format!("quorate {verb} prints JSON"))
    }

    /// Adds a node at a place that is empty: a token, `join`, `run`. Returns its number.
    ///
    /// # Errors
    /// Not within this time.
    pub fn join(&mut self, place: usize, patience: Duration) -> anyhow::Result<u64> {
        let size = self.size;
        self.prepare(place, size)?;
        let began = Instant::now();
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.try_join(place, attempt, patience) {
                Ok(id) => {
                    self.is_there(place, id);
                    self.run(place)?;
                    return Ok(id);
                }
                Err(error) if began.elapsed() > patience => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(300)),
            }
        }
    }

    fn try_join(&self, place: usize, attempt: usize, patience: Duration) -> anyhow::Result<u64> {
        let running: Vec<&Node> = self.nodes.iter().filter(|node| node.process.is_some() && node.id != 0).collect();
        ensure!(!running.is_empty(), "no node runs");
        let peer = running.get(attempt % running.len()).context("there is one")?;
        // Nothing else happens meanwhile: what does not succeed soon is tried again later.
        let (patience, join_timeout) = (patience.min(Duration::from_secs(10)) / 2, patience.min(JOIN_PATIENCE_MAX));
        let made = self.operator.ask(peer.place, patience, async |channel| {
            let message =
                proto::admin::CreateJoinTokenRequest { write: Some(tests::admin::write_options()), ttl_ms: 600_000 };
            proto::admin::cluster_client::ClusterClient::new(channel)
                .create_join_token(super::operator::within(message, patience))
                .await
        });
        let made = made.map_err(|failure| anyhow::anyhow!("no join token: {failure}"))?;
        self.hide(&format!("join token of {}", self.node(place)?.name), &made.token, &[]);
        let peers: Vec<&str> = running.iter().map(|node| node.cluster()).collect();
        let join_timeout = format!("{}s", join_timeout.as_secs());
        let arguments = ["--peer", &peers.join(","), "--token", &made.token, "--join-timeout", &join_timeout];
        let joined = self.quorate(place, "join", &arguments)?;
        joined["node"].as_u64().context("join prints the node's number")
    }

    /// Notes a secret, with the parts of paths in which it may stand.
    pub fn hide(&self, name: &str, text: &str, may_be_in: &[&str]) {
        let may_be_in = may_be_in.iter().map(|part| (*part).to_owned()).collect();
        self.recorder.secret(Secret { name: name.to_owned(), text: text.to_owned(), may_be_in });
    }

    fn is_there(&mut self, place: usize, id: u64) {
        if let Some(node) = self.nodes.get_mut(place) {
            node.id = id;
        }
        if let Some(seat) = self.seats.0.get(place) {
            seat.id.store(id, Ordering::Relaxed);
        }
    }

    /// The node of a place is gone for good.
    pub fn empty(&mut self, place: usize) {
        self.is_there(place, 0);
        if let Some(node) = self.nodes.get_mut(place) {
            (node.held_by, node.removed) = (None, false);
        }
    }

    /// Starts a member again that has ended by itself and that no fault has.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run_if_ended(&mut self, place: usize) -> anyhow::Result<()> {
        let node = self.node(place)?;
        if node.id != 0 && node.process.is_none() && node.held_by.is_none() {
            self.run(place)?;
        }
        Ok(())
    }

    /// A node.
    ///
    /// # Errors
    /// There is no such place.
    pub fn node(&self, place: usize) -> anyhow::Result<&Node> {
        self.nodes.get(place).context("no such place")
    }

    /// A node.
    ///
    /// # Errors
    /// There is no such place.
    pub fn node_mut(&mut self, place: usize) -> anyhow::Result<&mut Node> {
        self.nodes.get_mut(place).context("no such place")
    }

    /// Starts the process of a node. It is not waited for.
    ///
    /// # Errors
    /// It runs already, or there is none.
    pub fn run(&mut self, place: usize) -> anyhow::Result<()> {
        let mut command = self.network.command(place, &self.quorate);
        let node = self.nodes.get_mut(place).context("no such place")?;
        ensure!(node.process.is_none(), "{} runs already", node.name);
        command.args(["run", "--config"]).arg(node.folder.join("node.toml"));
        command.arg("--unsafe-test-faults").arg(node.folder.join(FAULTS));
        if let Some(seat) = self.seats.0.get(place) {
            seat.incarnation.fetch_add(1, Ordering::Relaxed);
        }
        node.process = Some(Process::start_and_keep(command, &node.folder.join("run")));
        Ok(())
    }

    /// SIGKILL, and waits for its end. Proof: the process is gone.
    ///
    /// # Errors
    /// There is no such place, or it lives on.
    pub fn kill(&mut self, place: usize) -> anyhow::Result<u32> {
        let node = self.node_mut(place)?;
        let mut process = node.process.take().with_context(|| format!("{} does not run", node.name))?;
        let pid = process.pid();
        process.kill();
        ensure!(!tests::process::is_alive(pid), "process {pid} lives after SIGKILL");
        Ok(pid)
    }

    /// SIGSTOP or SIGCONT; waits until every thread of the process is so.
    ///
    /// # Errors
    /// It does not become so.
    pub fn pause(&mut self, place: usize, paused: bool) -> anyhow::Result<()> {
        let node = self.node_mut(place)?;
        let process = node.process.as_mut().with_context(|| format!("{} does not run", node.name))?;
        process.signal(if paused { Signal::STOP } else { Signal::CONT });
        let pid = process.pid();
        let began = Instant::now();
        while threads_stopped(pid) != Some(paused) {
            ensure!(
                began.elapsed() < Duration::from_secs(5),
                "process {pid} does not become {}",
                if paused { "stopped" } else { "running" }
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Changes what a node is told to get wrong.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn tell(&mut self, place: usize, change: impl FnOnce(&mut Node)) -> anyhow::Result<()> {
        let node = self.node_mut(place)?;
        change(node);
        let file = node.folder.join(FAULTS);
        // Renamed into place: a node never reads half of it.
        let beside = file.with_extension("new");
        let lines = format!(
            "{ALWAYS}utc_offset_ms = {}\nboot_rate_ppm = {}\nsync_delay_ms = {}\nsync_fails = {}\n",
            node.utc_ahead_ms, node.boot_rate_ppm, node.sync_delay_ms, node.sync_fails
        );
        fs::write(&beside, lines)?;
        Ok(fs::rename(beside, file)?)
    }

    /// What `/status` of a node says, if it answers.
    #[must_use]
    pub fn status(&self, place: usize) -> Option<Value> {
        let seat = self.seats.0.get(place)?;
        let answer = Client::new(&seat.ops).patience(STATUS_PATIENCE).try_send(get("/status")).ok()?;
        (answer.status == 200).then(|| serde_json::from_slice(&answer.body).ok()).flatten()
    }

    /// The places of members whose processes run and are nobody's.
    #[must_use]
    pub fn free(&self) -> Vec<usize> {
        let free = |node: &&Node| node.id != 0 && node.process.is_some() && node.held_by.is_none() && !node.removed;
        self.nodes.iter().filter(free).map(|node| node.place).collect()
    }

    /// The places of all members.
    #[must_use]
    pub fn members(&self) -> Vec<usize> {
        self.nodes.iter().filter(|node| node.id != 0 && !node.removed).map(|node| node.place).collect()
    }

    /// Who leads: of those that say so, the one with the latest term.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let leading = self.members().into_iter().filter_map(|place| {
            let status = self.status(place)?;
            (status["raft"]["role"] == "leader").then(|| (status["raft"]["term"].as_u64().unwrap_or(0), place))
        });
        leading.max().map(|(_, place)| place)
    }

    /// The numbers of nodes.
    #[must_use]
    pub fn ids(&self, places: &[usize]) -> Vec<u64> {
        places.iter().filter_map(|place| self.nodes.get(*place)).map(|node| node.id).collect()
    }

    /// Processes that have ended by themselves since this was last asked: name, how, and the last lines that they wrote.
    pub fn ended(&mut self) -> Vec<(u64, bool, String)> {
        let mut ended = Vec::new();
        for node in &mut self.nodes {
            let Some(process) = &mut node.process else { continue };
            if let Some(status) = process.ended() {
                let expected = node.may_end || node.removed;
                ended.push((node.id, expected, format!("{} ended: {status}\n{}", node.name, process.tail())));
                node.process = None;
            }
        }
        ended
    }

    fn wait_ready(&mut self, place: usize) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            if self.is_ready(place) {
                return Ok(());
            }
            if let Some((_, _, how)) = self.ended().pop() {
                bail!("before it was ready: {how}");
            }
            ensure!(began.elapsed() < START_PATIENCE, "node {place} is not ready: {:?}", self.status(place));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether `/readyz` says so.
    #[must_use]
    pub fn is_ready(&self, place: usize) -> bool {
        let Some(seat) = self.seats.0.get(place) else { return false };
        let answer = Client::new(&seat.ops).patience(STATUS_PATIENCE).try_send(get("/readyz"));
        answer.is_ok_and(|answer| answer.status == 200)
    }

    fn wait_voting(&self, nodes: usize) -> anyhow::Result<()> {
        let wanted = nodes - (nodes + 1) % 2;
        let began = Instant::now();
        loop {
            let voting =
                (0..nodes).filter(|place| self.status(*place).is_some_and(|status| status["raft"]["voter"] == true));
            let count = voting.count();
            if count == wanted {
                return Ok(());
            }
            ensure!(began.elapsed() < START_PATIENCE, "{count} nodes vote, and {wanted} should");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The file beside the settings through which a node is told what to get wrong.
const FAULTS: &str = "faults.toml";

impl Node {
    fn empty(place: usize, address: [String; 3]) -> Self {
        Self {
            place,
            id: 0,
            name: String::new(),
            folder: PathBuf::new(),
            process: None,
            held_by: None,
            may_end: false,
            removed: false,
            utc_ahead_ms: 0,
            boot_rate_ppm: 0,
            sync_delay_ms: 0,
            sync_fails: false,
            address,
        }
    }

    /// `host:port` of its cluster listener.
    #[must_use]
    pub fn cluster(&self) -> &str {
        let [_, cluster, _] = &self.address;
        cluster
    }

    /// `host:port` of its gateway.
    #[must_use]
    pub fn gateway(&self) -> &str {
        let [gateway, ..] = &self.address;
        gateway
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }
}

/// Gateway, cluster and ops listeners of a place.
fn addresses(network: &Network, place: usize) -> [String; 3] {
    let host = network.host(place);
    match network {
        Network::Bridge(_) => [8080, 7400, 9400].map(|port| format!("{host}:{port}")),
        Network::Loopback(_) => [(); 3].map(|()| format!("{host}:{}", free_port())),
    }
}

/// Whether all threads of a process are stopped, or none is; `None` for neither.
fn threads_stopped(process: u32) -> Option<bool> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let states: Vec<bool> = threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("stat")).ok())
        .filter_map(|stat| Some(stat.rsplit(')').next()?.trim_start().starts_with('T')))
        .collect();
    match (states.iter().all(|stopped| *stopped), states.iter().any(|stopped| *stopped)) {
        (true, true) => Some(true),
        (false, false) => Some(false),
        _ => None,
    }
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path is UTF-8")
}

trait Whole {
    fn get_program_and_arguments(&self) -> Vec<&std::ffi::OsStr>;
}

impl Whole for Command {
    fn get_program_and_arguments(&self) -> Vec<&std::ffi::OsStr> {
        std::iter::once(self.get_program()).chain(self.get_args()).collect()
    }
}

//! `quorate dev` as a newcomer runs it: the real program, known by its ready file.

use crate::{
    client::Client,
    ctl::Ctl,
    json::Value,
    permit::Permit,
    process::{self, Process},
    programs,
    wait::eventually_within,
};
use rustix::process::Signal;
use serde::Deserialize;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A running `quorate dev`.
#[derive(Debug)]
pub struct Dev {
    ready: Ready,
    process: Process,
    _permit: Option<Permit>,
    _directory: TempDir,
}

/// How to start it.
#[derive(Clone, Debug, Default)]
pub struct DevOptions {
    /// `--data-dir`; without one dev uses a temporary folder of its own.
    pub data_dir: Option<PathBuf>,
    /// A resource file, given as text, for `--config`.
    pub config: Option<String>,
    /// More arguments.
    pub arguments: Vec<String>,
}

/// The ready file.
#[derive(Clone, Debug, Deserialize)]
pub struct Ready {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The certificate authority, a PEM file.
    pub ca: PathBuf,
    /// The operator's context file.
    pub context: PathBuf,
    /// A key that the example configuration accepts.
    pub api_key: String,
    /// `host:port` of the echo upstream.
    pub echo: Option<String>,
}

/// A node in the ready file.
#[derive(Clone, Debug, Deserialize)]
pub struct Node {
    /// Its number.
    pub id: u64,
    /// Its process.
    pub pid: u32,
    /// Where it takes requests.
    pub gateway: String,
    /// The same over TLS.
    pub gateway_tls: String,
    /// Raft and administration.
    pub cluster: String,
    /// Health and metrics.
    pub ops: String,
    /// Its data directory.
    pub data_dir: PathBuf,
}

impl Node {
    /// SIGKILL, if its process is still its own: the kernel gives numbers out again.
    fn kill(&self) {
        let command = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let folder = self.data_dir.parent().expect("below dev's folder").to_string_lossy();
        if String::from_utf8_lossy(&command).contains(&*folder) {
            process::signal(self.pid, Signal::KILL);
        }
    }
}

impl Dev {
    /// Three nodes with the example configuration.
    pub fn start() -> Self {
        Self::start_with(DevOptions::default())
    }

    /// Waits for a permit, starts it and waits for the ready file.
    pub fn start_with(options: DevOptions) -> Self {
        let permit = Permit::take();
        let mut dev = Self::start_beside(options);
        dev._permit = Some(permit);
        dev
    }

    /// Starts it without a permit: for the one cluster that many tests share.
    pub fn start_beside(options: DevOptions) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let ready_file = directory.path().join("ready.json");
        let mut command = Self::command(&options, directory.path());
        command.arg("--ready-file").arg(&ready_file);
        // What it puts into a temporary folder goes away with ours.
        command.env("TMPDIR", directory.path());
        let mut process = Process::start(command, &directory.path().join("dev"));
        let ready: Ready = eventually_within(Duration::from_secs(120), "the ready file of quorate dev", || {
            assert!(process.ended().is_none(), "quorate dev ended before it was ready\n{}", process.tail());
            let text = fs::read_to_string(&ready_file)?;
            // Written atomically: what is there is whole.
            Ok::<_, std::io::Error>(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
        });
        Self { ready, process, _permit: None, _directory: directory }
    }

    /// The command line that these options mean.
    pub fn command(options: &DevOptions, directory: &Path) -> Command {
        let mut command = Command::new(programs::quorate());
        command.arg("dev");
        if let Some(data_dir) = &options.data_dir {
            command.arg("--data-dir").arg(data_dir);
        }
        if let Some(config) = &options.config {
            let file = directory.join("config.yaml");
            fs::write(&file, config).expect("a resource file can be written");
            command.arg("--config").arg(file);
        }
        command.args(&options.arguments);
        command
    }

    /// What the ready file says.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The process of `quorate dev` itself.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// A node by its number.
    pub fn node(&self, id: u64) -> &Node {
        self.ready.nodes.iter().find(|node| node.id == id).unwrap_or_else(|| panic!("no node {id}: {:?}", self.ready))
    }

    /// The operator's command line, with the context as dev wrote it.
    pub fn ctl(&self) -> Ctl {
        Ctl::new(&self.ready.context)
    }

    /// The operator's command line, talking to one node only.
    pub fn ctl_at(&self, id: u64) -> Ctl {
        self.ctl().at(&[&self.node(id).cluster])
    }

    /// A client of one node's gateway.
    pub fn client(&self, id: u64) -> Client {
        Client::new(&self.node(id).gateway)
    }

    /// A client of one node's gateway over TLS.
    pub fn tls_client(&self, id: u64) -> Client {
        Client::new(&self.node(id).gateway_tls).tls(&self.ready.ca)
    }

    /// A client of one node's ops listener.
    pub fn ops(&self, id: u64) -> Client {
        Client::new(&self.node(id).ops)
    }

    /// The key that the example configuration accepts.
    pub fn key(&self) -> &str {
        &self.ready.api_key
    }

    /// The leader's number, once there is one.
    pub fn leader(&self) -> u64 {
        leader(&self.ctl())
    }

    /// Kills a node's process with SIGKILL.
    pub fn kill_node(&self, id: u64) {
        self.node(id).kill();
    }

    /// Kills everything with SIGKILL, dev itself first, so that it cannot tidy up.
    pub fn kill_all(mut self) {
        self.process.kill();
        for node in &self.ready.nodes {
            node.kill();
        }
        for node in &self.ready.nodes {
            crate::eventually("the nodes are dead", || {
                if process::is_alive(node.pid) { Err(format!("node {} lives", node.id)) } else { Ok(()) }
            });
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.process.tail());
        }
        // In good order, so that it ends its nodes by itself; whoever is left then is killed.
        self.process.signal(Signal::TERM);
        let started = Instant::now();
        while self.process.ended().is_none() && started.elapsed() < Duration::from_secs(3) {
            sleep(Duration::from_millis(20));
        }
        for node in &self.ready.nodes {
            node.kill();
        }
    }
}

/// The leader's number by `cluster status`, once there is one.
pub fn leader(ctl: &Ctl) -> u64 {
    crate::eventually("a leader", || {
        let ran = ctl.run_json(["cluster", "status"]);
        if ran.code != 0 {
            return Err(format!("{ran}"));
        }
        ran.done()["leader"].as_u64().ok_or_else(|| format!("none yet: {ran}"))
    })
}

/// The entry of a node in `cluster status`.
pub fn node_status(status: &Value, id: u64) -> Value {
    let nodes = crate::json::list(status, "nodes");
    crate::json::find(nodes, "id", id).unwrap_or_else(|| panic!("no node {id} in {status}")).clone()
}

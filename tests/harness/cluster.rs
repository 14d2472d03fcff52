//! A real cluster: nodes with settings files and data directories, started by `init`, `join` and `run`, on ports that stay theirs.

use crate::{
    client::{Client, get},
    ctl::{Ctl, Ran},
    dev,
    free_port::free_port,
    json::{Value, find, list, text},
    permit::Permit,
    process::Process,
    programs,
    wait::eventually,
};
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tempfile::TempDir;

/// Nodes on this machine, and the first operator's context. The nodes end when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes, in the order in which they joined.
    pub nodes: Vec<Node>,
    context: PathBuf,
    /// Settings that go before those in the files.
    environment: Vec<(&'static str, String)>,
    directory: TempDir,
    _permit: Option<Permit>,
}

/// A node, running or not.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// `host:port` of its listeners.
    pub gateway: String,
    /// See `gateway`.
    pub cluster: String,
    /// See `gateway`.
    pub ops: String,
    /// Its settings file, data and logs lie below.
    pub directory: PathBuf,
    /// What stands before the program when it runs: another one that becomes it, such as `taskset`, with its arguments.
    pub under: Vec<String>,
    /// Variables of its environment, when it runs.
    pub environment: Vec<(&'static str, String)>,
    /// The running program.
    pub process: Option<Process>,
}

impl Cluster {
    /// As many nodes, all of them ready, with as many of them voting as the cluster wants.
    pub fn start(count: usize) -> Self {
        Self::start_with(count, &[])
    }

    /// The same, with these variables in the environment of every node.
    pub fn start_with(count: usize, environment: &[(&'static str, &str)]) -> Self {
        let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self::several(count, environment, |_| {})
    }

    /// The same, each node changed before it runs.
    pub fn start_changed(count: usize, change: impl Fn(&mut Node)) -> Self {
        Self::several(count, Vec::new(), change)
    }

    fn several(count: usize, environment: Vec<(&'static str, String)>, change: impl Fn(&mut Node)) -> Self {
        let permit = Permit::take();
        let mut cluster = Self { _permit: Some(permit), ..Self::begin("", environment, &change) };
        for _ in 1..count {
            cluster.add_changed(&[], &change);
        }
        cluster.wait_until_voting(count.min(3));
        cluster
    }

    /// One node, with these lines at the head of its settings file.
    pub fn first(settings: &str) -> Self {
        let permit = Permit::take();
        Self { _permit: Some(permit), ..Self::first_beside(settings) }
    }

    /// The same without a permit: for a second cluster beside one that has it.
    pub fn first_beside(settings: &str) -> Self {
        Self::begin(settings, Vec::new(), |_| {})
    }

    fn begin(settings: &str, environment: Vec<(&'static str, String)>, change: impl Fn(&mut Node)) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut node = Node::prepare(directory.path(), "n1", settings);
        node.environment.clone_from(&environment);
        change(&mut node);
        let init = node.quorate("init", &[]);
        assert_eq!(init.code, 0, "{init}");
        let context = printed_context(&init);
        node.run();
        node.wait_ready();
        Self { nodes: vec![node], context, environment, directory, _permit: None }
    }

    /// Adds a node: a token, `join` with these further arguments, `run`; waits until it is ready. Returns its number.
    pub fn add(&mut self, arguments: &[&str]) -> u64 {
        self.add_changed(arguments, |_| {})
    }

    fn add_changed(&mut self, arguments: &[&str], change: impl Fn(&mut Node)) -> u64 {
        let mut node = self.prepare(&format!("n{}", self.nodes.len() + 1));
        change(&mut node);
        let token = self.token();
        let peer = self.peer();
        let join = node.quorate("join", &[&["--peer", &peer, "--token", &token], arguments].concat());
        assert_eq!(join.code, 0, "{join}");
        node.run();
        node.wait_ready();
        let name = node.name.clone();
        self.nodes.push(node);
        self.id(&name)
    }

    /// Settings and directories of one more node, which is neither joined nor started.
    pub fn prepare(&self, name: &str) -> Node {
        let mut node = Node::prepare(self.directory.path(), name, "");
        node.environment.clone_from(&self.environment);
        node
    }

    /// A fresh join token.
    pub fn token(&self) -> String {
        let made = self.ctl().json_soon(&["cluster", "join-token"]);
        text(&made, "token").to_owned()
    }

    /// The cluster address of a node that runs.
    pub fn peer(&self) -> String {
        self.nodes.iter().find(|node| node.process.is_some()).expect("a node runs").cluster.clone()
    }

    /// A node by its place, from 1.
    pub fn node(&self, place: usize) -> &Node {
        &self.nodes[place - 1]
    }

    /// A node by its place, from 1.
    pub fn node_mut(&mut self, place: usize) -> &mut Node {
        &mut self.nodes[place - 1]
    }

    /// The operator's command line, knowing every node.
    pub fn ctl(&self) -> Ctl {
        let endpoints: Vec<&str> = self.nodes.iter().map(|node| node.cluster.as_str()).collect();
        Ctl::new(&self.context).at(&endpoints)
    }

    /// The operator's command line, talking to one node only.
    pub fn ctl_at(&self, place: usize) -> Ctl {
        Ctl::new(&self.context).at(&[&self.node(place).cluster])
    }

    /// What `cluster status` says.
    pub fn status(&self) -> Value {
        self.ctl().json_soon(&["cluster", "status"])
    }

    /// The number of a node by its name.
    pub fn id(&self, name: &str) -> u64 {
        let members = self.ctl().json_soon(&["members", "list"]);
        let member = find(list(&members, ""), "name", name).unwrap_or_else(|| panic!("no {name} in {members}"));
        member["id"].as_u64().expect("a number")
    }

    /// The place of the leader, from 1, once there is one.
    pub fn leader(&self) -> usize {
        let id = dev::leader(&self.ctl());
        let status = self.status();
        let name = text(&dev::node_status(&status, id), "name").to_owned();
        self.nodes.iter().position(|node| node.name == name).expect("the leader is one of the nodes") + 1
    }

    /// Waits until as many nodes vote, the leader included.
    pub fn wait_until_voting(&self, count: usize) {
        eventually(&format!("{count} voters"), || {
            let status = self.status();
            let voting = list(&status, "nodes").iter().filter(|node| node["role"] != "learner").count();
            if voting == count { Ok(()) } else { Err(status.to_string()) }
        });
    }

    /// A resource file with one open and one guarded route to this upstream, and a consumer `acme` that may use it.
    pub fn apply_example(&self, upstream: &str) {
        self.ctl().apply(&example(upstream));
    }
}

/// One open route, one guarded route, and a consumer `acme` that may use it.
pub fn example(upstream: &str) -> String {
    format!(
        r#"
upstreams:
  backend: {{ targets: ["{upstream}"] }}
consumers:
  acme: {{ roles: [reader] }}
routes:
  guarded: {{ paths: ["/guarded/{{*rest}}"], upstream: backend }}
  open: {{ paths: ["/open/{{*rest}}"], upstream: backend, authenticate: [none], policies: off }}
policies:
  readers: |
    permit(principal in Role::"reader", action == Action::"GET", resource == Route::"guarded");
"#
    )
}

impl Node {
    /// Writes the settings file of a node with ports of its own. `settings` stands at the head of the file.
    pub fn prepare(parent: &Path, name: &str, settings: &str) -> Self {
        let directory = parent.join(name);
        fs::create_dir_all(&directory).expect("a folder for the node");
        let address = || format!("127.0.0.1:{}", free_port());
        let (gateway, cluster, ops) = (address(), address(), address());
        let text = format!(
            "{settings}\nname = \"{name}\"\ndata_dir = \"data\"\naccess_log = \"./access.log\"\ndrain_delay = \"500ms\"\n\
             [gateway]\nbind = \"{gateway}\"\nworkers = 2\ntrusted_proxies = [\"127.0.0.1/32\"]\n\
             [cluster]\nbind = \"{cluster}\"\n[ops]\nbind = \"{ops}\"\n",
        );
        fs::write(directory.join("node.toml"), text).expect("a settings file");
        let (under, environment) = (Vec::new(), Vec::new());
        Self { name: name.to_owned(), gateway, cluster, ops, directory, under, environment, process: None }
    }

    /// The settings file.
    pub fn config(&self) -> PathBuf {
        self.directory.join("node.toml")
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Runs `quorate VERB --config …` to its end.
    pub fn quorate(&self, verb: &str, arguments: &[&str]) -> Ran {
        let config = self.config();
        let mut all = vec![verb, "--config", config.to_str().expect("UTF-8")];
        all.extend(arguments);
        quorate(&all)
    }

    /// Starts `quorate run`.
    pub fn run(&mut self) {
        self.run_with(|_| {});
    }

    /// Starts `quorate run`, changed in some way.
    pub fn run_with(&mut self, change: impl FnOnce(&mut Command)) {
        let mut words = self.under.iter().map(OsStr::new).chain([programs::quorate().as_os_str()]);
        let mut command = Command::new(words.next().expect("the program at least"));
        command.args(words).args(["run", "--config"]).arg(self.config());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        change(&mut command);
        self.process = Some(Process::start(command, &self.directory.join("run")));
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// SIGTERM; its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.process.take().expect("it runs").stop()
    }

    /// Waits until `/readyz` says 200; panics at once if the process has ended.
    pub fn wait_ready(&mut self) -> &Self {
        let ops = self.ops();
        let name = self.name.clone();
        let process = self.process.as_mut().expect("it runs");
        eventually(&format!("{name} is ready"), || {
            assert!(process.ended().is_none(), "{name} ended before it was ready\n{}", process.tail());
            let answer = ops.try_send(get("/readyz"))?;
            if answer.status == 200 { Ok(()) } else { Err(format!("{answer}")) }
        });
        self
    }

    /// A client of its gateway.
    pub fn client(&self) -> Client {
        Client::new(&self.gateway)
    }

    /// A client of its ops listener.
    pub fn ops(&self) -> Client {
        Client::new(&self.ops)
    }

    /// The lines of its access log so far.
    pub fn access_log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.directory.join("access.log")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }
}

/// Runs `quorate` with these arguments to its end; for commands that end by themselves.
pub fn quorate(arguments: &[&str]) -> Ran {
    let output = Command::new("timeout")
        .args(["--signal=KILL", "60"])
        .arg(programs::quorate())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("quorate starts");
    Ran {
        arguments: format!("quorate {}", arguments.join(" ")),
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The join token that `quorate init` printed.
pub fn printed_token(ran: &Ran) -> String {
    let word = ran.stdout.split_whitespace().find(|word| word.starts_with("qj_"));
    word.unwrap_or_else(|| panic!("no join token was printed: {ran}")).to_owned()
}

/// The operator's context file that `quorate init` printed.
pub fn printed_context(ran: &Ran) -> PathBuf {
    let paths = ran.stdout.split_whitespace().map(|word| PathBuf::from(word.trim_matches(['"', '\'', '`', ',', '.'])));
    let is_context = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "toml")
            && fs::read_to_string(path).is_ok_and(|text| text.contains("endpoints"))
    };
    paths.into_iter().find(is_context).unwrap_or_else(|| panic!("no context file was printed: {ran}"))
}

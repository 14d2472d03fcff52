//! The gateways that are compared. A new one is a file in `peer/`, which says how it is found and installed, what it has of each
//! stack, with which configuration, and how it is started; and its line in [`all`].

mod envoy;
mod haproxy;
mod nginx;
mod nginx_redis;
mod none;
mod quorate;
mod redis;
mod traefik;

use crate::{row::Stack, site::Site};
use std::{
    fmt::Write,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use tests::process::Process;

/// All of them, in the order of the tables.
pub fn all() -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(none::None),
        Box::new(quorate::Quorate),
        Box::new(nginx::Nginx),
        Box::new(haproxy::Haproxy),
        Box::new(envoy::Envoy),
        Box::new(traefik::Traefik),
        Box::new(nginx_redis::NginxRedis::Window),
        Box::new(nginx_redis::NginxRedis::Bucket),
    ]
}

/// A gateway.
pub trait Peer {
    /// By what it is chosen, and what tables call it.
    fn name(&self) -> &'static str;

    /// What it says that it is; nothing where it is not installed.
    fn version(&self) -> Option<String>;

    /// The line that installs it.
    fn install(&self) -> &'static str;

    /// What it has of a stack, ready to be started; nothing where that would not be comparable.
    fn solve(&self, stack: Stack, site: &Site) -> Option<Box<dyn Solution>>;

    /// Several of it that keep one limit for each key, started on a core; nothing where it has no such thing.
    fn together(&self, _rule: &Rule, _site: &Site, _core: &str) -> Option<Result<Box<dyn Together>, String>> {
        None
    }
}

/// A limit for gateways to keep together.
#[derive(Debug)]
pub struct Rule {
    /// How many gateways.
    pub gateways: usize,
    /// Requests a second for each key.
    pub rate: u64,
    /// How many at once.
    pub burst: u64,
}

/// Gateways that run and keep a limit together.
pub trait Together {
    /// Where they take requests.
    fn gateways(&self) -> Vec<SocketAddr>;

    /// What the limit rests on, if there is such a thing.
    fn rests_on(&mut self) -> Option<&mut Process>;

    /// Starts that again.
    fn repair(&mut self) -> Result<(), String>;
}

/// A gateway that is configured for a stack.
pub trait Solution {
    /// What it does for the stack, for the table.
    fn how(&self) -> String;

    /// Has the gateway itself check its configuration, where it can.
    fn check(&self) -> Result<(), String>;

    /// Starts it on a core.
    fn start(self: Box<Self>, core: &str) -> Result<Running, String>;
}

/// A gateway that runs.
pub struct Running {
    /// Where it takes requests.
    pub address: SocketAddr,
    /// What to charge for them: names and process numbers; with children, and theirs.
    pub processes: Vec<(&'static str, u32)>,
    /// Whether it knows a wrong key.
    pub checks_keys: bool,
    /// What ends it when dropped.
    pub _alive: Box<dyn std::any::Any>,
}

/// A solution that is a number of programs, the last one being the gateway: most are.
pub struct Programs {
    /// See [`Solution::how`].
    pub how: String,
    /// What is started, in this order.
    pub programs: Vec<Program>,
    /// Whether it knows a wrong key.
    pub checks_keys: bool,
    /// A command that checks the configuration.
    pub check: Option<Vec<String>>,
}

/// A program of a solution.
pub struct Program {
    /// What the table calls it.
    pub name: &'static str,
    /// With its arguments.
    pub command: Vec<String>,
    /// More environment.
    pub environment: Vec<(&'static str, String)>,
    /// Where it listens once it is ready.
    pub address: SocketAddr,
    /// Its own folder: it runs there, and its output goes there.
    pub folder: PathBuf,
}

impl Solution for Programs {
    fn how(&self) -> String {
        self.how.clone()
    }

    fn check(&self) -> Result<(), String> {
        let Some(words) = &self.check else { return Ok(()) };
        let output = Command::new(&words[0]).args(&words[1..]).output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        let mut text = format!("{words:?}: {}", output.status);
        for part in [&output.stdout, &output.stderr] {
            write!(text, "\n{}", String::from_utf8_lossy(part)).expect("a String");
        }
        Err(text)
    }

    fn start(self: Box<Self>, core: &str) -> Result<Running, String> {
        let mut processes = Vec::new();
        let mut alive = Vec::new();
        for program in &self.programs {
            let process = program.start(core)?;
            processes.push((program.name, process.pid()));
            alive.push(process);
        }
        let address = self.programs.last().ok_or("no program")?.address;
        Ok(Running { address, processes, checks_keys: self.checks_keys, _alive: Box::new(alive) })
    }
}

impl Program {
    fn start(&self, core: &str) -> Result<Process, String> {
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", core]).args(&self.command).current_dir(&self.folder);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let mut process = Process::start(command, &self.folder.join(self.name));
        wait_for(self.address, &mut process)?;
        Ok(process)
    }
}

/// Gateways that are a program each, with or without a store.
struct Group {
    store: Option<(Program, Process)>,
    gateways: Vec<(SocketAddr, Process)>,
    core: String,
}

impl Group {
    fn start(store: Option<Program>, gateways: Vec<Program>, core: &str) -> Result<Box<dyn Together>, String> {
        let store = store.map(|store| store.start(core).map(|process| (store, process))).transpose()?;
        let started = gateways.iter().map(|gateway| Ok((gateway.address, gateway.start(core)?)));
        Ok(Box::new(Self { store, gateways: started.collect::<Result<_, String>>()?, core: core.to_owned() }))
    }
}

impl Together for Group {
    fn gateways(&self) -> Vec<SocketAddr> {
        self.gateways.iter().map(|gateway| gateway.0).collect()
    }

    fn rests_on(&mut self) -> Option<&mut Process> {
        self.store.as_mut().map(|store| &mut store.1)
    }

    fn repair(&mut self) -> Result<(), String> {
        let Some((program, process)) = &mut self.store else { return Ok(()) };
        *process = program.start(&self.core)?;
        Ok(())
    }
}

fn wait_for(address: SocketAddr, process: &mut Process) -> Result<(), String> {
    let began = Instant::now();
    while TcpStream::connect(address).is_err() {
        if process.ended().is_some() || began.elapsed() > Duration::from_secs(20) {
            return Err(format!("does not listen on {address}\n{}", process.tail()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// An address that nobody listens on.
fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], tests::free_port::free_port()))
}

/// A program of the machine, or one in the Python environment that `PEERS_VENV` names: in its `bin`, or at this place in a package.
fn find(name: &str, in_package: Option<&str>) -> Option<PathBuf> {
    let environment = std::env::var_os("PEERS_VENV").map(PathBuf::from);
    if let Some(environment) = &environment {
        let packages = std::fs::read_dir(environment.join("lib")).into_iter().flatten().flatten();
        let packaged = packages.map(|python| python.path().join("site-packages").join(in_package.unwrap_or_default()));
        let candidates = packaged.chain([environment.join("bin").join(name)]);
        if let Some(found) = candidates.into_iter().find(|path| path.is_file()) {
            return Some(found);
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// The first line that a program prints about its version.
fn version(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let both = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&both).into_owned();
    let line = text.lines().find(|line| !line.trim().is_empty())?;
    // One of them begins with where it is.
    Some(line.split_whitespace().filter(|word| !word.starts_with('/')).collect::<Vec<_>>().join(" "))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Folders and files of this program have names of letters.
fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

//! Where the nodes live: each in a network namespace of its own on one bridge, so that what passes between any two of them can be
//! filtered in each direction; or, where namespaces are not permitted, all on loopback, where nothing can be filtered.
//!
//! Everything is named `qch<process>…`. What a harness that was killed has left is removed by the next one.

use anyhow::{Context as _, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{
    fs::File,
    io::{ErrorKind, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// How everything of ours begins; behind it the number of the process that made it.
const TAG: &str = "qch";
/// The host part of the first node's address.
const FIRST_NODE: u8 = 11;
/// The host part of the first node's second face: the address from which a relay speaks for it.
const FIRST_FACE: u8 = 111;
/// A port at which nobody listens.
const NOBODY: u16 = 9;
/// Knocks at a door that is cut off, where another fault loses up to half of all packets.
const KNOCKS_MAX: u32 = 10;
/// The most nodes that have an address.
pub const PLACES_MAX: usize = 9;

/// Where the nodes live. Places count from 0.
#[derive(Debug)]
pub enum Network {
    /// Namespaces on a bridge.
    Bridge(Bridge),
    /// All on loopback; and why.
    Loopback(String),
}

/// Namespaces on a bridge; removed when dropped.
#[derive(Debug)]
pub struct Bridge {
    tag: String,
    subnet: [u8; 3],
    places: usize,
}

/// What became of an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knock {
    /// Somebody listens.
    Open,
    /// The machine is there, and nobody listens.
    Refused,
    /// No answer at all.
    Silence,
}

impl Network {
    /// Makes namespaces for so many nodes, or says why it cannot.
    #[must_use]
    pub fn make(places: usize, loopback: bool) -> Self {
        if loopback {
            return Self::Loopback("--loopback".to_owned());
        }
        sweep();
        match Bridge::make(places) {
            Ok(bridge) => Self::Bridge(bridge),
            Err(error) => Self::Loopback(format!("{error:#}")),
        }
    }

    /// The bridge, or why there is none.
    ///
    /// # Errors
    /// Everything is on loopback.
    pub fn bridge(&self) -> Result<&Bridge, String> {
        match self {
            Self::Bridge(bridge) => Ok(bridge),
            Self::Loopback(why) => Err(format!("no network namespaces: {why}")),
        }
    }

    /// The address of a node.
    #[must_use]
    pub fn host(&self, place: usize) -> IpAddr {
        match self {
            Self::Bridge(bridge) => bridge.host(place),
            Self::Loopback(_) => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// The address of the harness: its clients come from here, and the upstream is here.
    #[must_use]
    pub fn own(&self) -> IpAddr {
        match self {
            Self::Bridge(bridge) => bridge.at(1),
            Self::Loopback(_) => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// A program that runs where a node lives.
    #[must_use]
    pub fn command(&self, place: usize, program: &Path) -> Command {
        match self {
            Self::Bridge(bridge) => {
                // `ip` becomes the program: its process is the node's.
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &bridge.namespace(place)]).arg(program);
                command
            }
            Self::Loopback(_) => Command::new(program),
        }
    }
}

impl Bridge {
    fn make(places: usize) -> anyhow::Result<Self> {
        ensure!(places <= PLACES_MAX, "at most {PLACES_MAX} nodes");
        let process = std::process::id();
        let made = Self { tag: format!("{TAG}{process}"), subnet: free_subnet(process)?, places };
        // Dropped, with all that is there already, if a step fails.
        made.build()?;
        Ok(made)
    }

    fn build(&self) -> anyhow::Result<()> {
        let bridge = self.bridge();
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["addr", "add", &format!("{}/24", self.at(1)), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for place in 0..self.places {
            let (namespace, outside) = (self.namespace(place), self.outside(place));
            ip(&["netns", "add", &namespace])?;
            ip(&["link", "add", &outside, "type", "veth", "peer", "name", "eth0", "netns", &namespace])?;
            ip(&["link", "set", &outside, "master", &bridge])?;
            ip(&["link", "set", &outside, "up"])?;
            ip(&["-n", &namespace, "addr", "add", &format!("{}/24", self.host(place)), "dev", "eth0"])?;
            ip(&["-n", &namespace, "link", "set", "eth0", "up"])?;
            ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
            // What a relay says for this node comes from here.
            ip(&["addr", "add", &format!("{}/24", self.face(place)), "dev", &bridge])?;
        }
        for place in 0..self.places {
            self.check(place)?;
        }
        Ok(())
    }

    /// Packets pass, and a filter stops them: anything else would make every later fault a lie.
    fn check(&self, place: usize) -> anyhow::Result<()> {
        let listener = TcpListener::bind((self.at(1), 0)).context("listening on the bridge")?;
        let target = listener.local_addr()?;
        let knock = self.knock(place, target, Duration::from_secs(2))?;
        ensure!(knock == Knock::Open, "no packets pass between a namespace and the bridge");
        let rules =
            format!("chain out {{ type filter hook output priority 0; ip daddr {} counter drop; }}", self.at(1));
        self.filter(place, "check", &rules)?;
        let knock = self.knock(place, target, Duration::from_millis(100))?;
        let dropped = self.dropped(place, "check")?;
        self.unfilter(place, "check")?;
        ensure!(knock == Knock::Silence && dropped > 0, "nftables does not stop packets here");
        Ok(())
    }

    fn at(&self, host: u8) -> IpAddr {
        let [a, b, c] = self.subnet;
        Ipv4Addr::new(a, b, c, host).into()
    }

    /// The address of a node.
    #[must_use]
    pub fn host(&self, place: usize) -> IpAddr {
        self.at(FIRST_NODE.saturating_add(small(place)))
    }

    /// The address from which a relay speaks for a node: filters that stop the node stop this too.
    #[must_use]
    pub fn face(&self, place: usize) -> IpAddr {
        self.at(FIRST_FACE.saturating_add(small(place)))
    }

    /// The address of the harness.
    #[must_use]
    pub fn own(&self) -> IpAddr {
        self.at(1)
    }

    fn bridge(&self) -> String {
        format!("{}b", self.tag)
    }

    fn namespace(&self, place: usize) -> String {
        format!("{}n{place}", self.tag)
    }

    /// The end of a node's cable that is on the bridge.
    #[must_use]
    pub fn outside(&self, place: usize) -> String {
        format!("{}v{place}", self.tag)
    }

    /// Puts chains into a node's namespace, in a table of this name. Rules that say `counter` are counted.
    ///
    /// # Errors
    /// nft refuses.
    pub fn filter(&self, place: usize, table: &str, chains: &str) -> anyhow::Result<()> {
        self.nft(place, &["-f", "-"], &format!("table inet {table} {{\n{chains}\n}}\n")).map(drop)
    }

    /// Takes a table out again.
    ///
    /// # Errors
    /// nft refuses.
    pub fn unfilter(&self, place: usize, table: &str) -> anyhow::Result<()> {
        self.nft(place, &["delete", "table", "inet", table], "").map(drop)
    }

    /// How many packets the counters of a table have seen.
    ///
    /// # Errors
    /// There is no such table.
    pub fn dropped(&self, place: usize, table: &str) -> anyhow::Result<u64> {
        let listed = self.nft(place, &["list", "table", "inet", table], "")?;
        let words: Vec<&str> = listed.split_whitespace().collect();
        let counts = words.windows(3).filter_map(|words| match words {
            ["counter", "packets", count] => count.parse::<u64>().ok(),
            _ => None,
        });
        Ok(counts.sum())
    }

    /// Tries to connect from where a node lives.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn knock(&self, from: usize, to: SocketAddr, patience: Duration) -> anyhow::Result<Knock> {
        let file = File::open(format!("/run/netns/{}", self.namespace(from)))?;
        // Only the thread moves, and it ends there.
        let thread = std::thread::spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(match TcpStream::connect_timeout(&to, patience) {
                Ok(_) => Knock::Open,
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => Knock::Refused,
                Err(_) => Knock::Silence,
            })
        });
        thread.join().map_err(|_| anyhow::anyhow!("a thread in a namespace panicked"))?
    }

    /// That nothing passes from one node to another because a table at the other end stops it: how many packets it stopped meanwhile.
    /// By a knock where nobody listens, which is refused while anything passes: the doors of nodes may be turned to relays, and what
    /// is said to a relay does not arrive.
    ///
    /// # Errors
    /// Something passes, or it is not this table that stops it.
    pub fn prove_cut(&self, from: usize, to: usize, table: &str, patience: Duration) -> anyhow::Result<u64> {
        let before = self.dropped(to, table)?;
        // A knock that another fault loses on its way says nothing of this table.
        for _ in 0..KNOCKS_MAX {
            let knock = self.knock(from, SocketAddr::new(self.host(to), NOBODY), patience)?;
            ensure!(knock == Knock::Silence, "{from} still reaches {to}: {knock:?}");
            let dropped = self.dropped(to, table)? - before;
            if dropped > 0 {
                return Ok(dropped);
            }
        }
        bail!("nothing of {from} arrives at {to}, and it is not this that stops it")
    }

    fn nft(&self, place: usize, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let namespace = self.namespace(place);
        let all = [&["netns", "exec", &namespace, "nft"], arguments].concat();
        perform("ip", &all, input)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        for place in 0..self.places {
            let _ = ip(&["netns", "delete", &self.namespace(place)]);
            let _ = ip(&["link", "delete", &self.outside(place)]);
        }
        let _ = ip(&["link", "delete", &self.bridge()]);
    }
}

/// Removes what harnesses that do not live any more have left.
fn sweep() {
    let left = |name: &str| {
        let number: String = name.strip_prefix(TAG)?.chars().take_while(char::is_ascii_digit).collect();
        let dead = !Path::new("/proc").join(&number).exists();
        (dead && !number.is_empty()).then(|| name.to_owned())
    };
    let namespaces = ip(&["netns", "list"]).unwrap_or_default();
    for name in namespaces.lines().filter_map(|line| left(line.split_whitespace().next()?)) {
        for process in ip(&["netns", "pids", &name]).unwrap_or_default().split_whitespace() {
            if let Some(process) = process.parse().ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
            }
        }
        let _ = ip(&["netns", "delete", &name]);
    }
    let links = ip(&["-o", "link", "show"]).unwrap_or_default();
    let names = links.lines().filter_map(|line| line.split(": ").nth(1)?.split('@').next());
    for name in names.filter_map(left) {
        let _ = ip(&["link", "delete", &name]);
    }
}

/// A subnet that no interface of this machine is in. Harnesses that run at the same time begin far apart.
fn free_subnet(process: u32) -> anyhow::Result<[u8; 3]> {
    let addresses = ip(&["-o", "-4", "addr", "show"])?;
    let [high, low, ..] = process.wrapping_mul(40_503).to_be_bytes();
    for step in 0..=u8::MAX {
        let subnet = [10, 64 + high % 128, low.wrapping_add(step)];
        let [a, b, c] = subnet;
        if !addresses.contains(&format!(" {a}.{b}.{c}.")) {
            return Ok(subnet);
        }
    }
    bail!("no subnet is free")
}

/// Runs `ip`; what it printed.
///
/// # Errors
/// It is missing or refuses.
pub fn ip(arguments: &[&str]) -> anyhow::Result<String> {
    perform("ip", arguments, "")
}

/// Runs a program of the machine; what it printed.
///
/// # Errors
/// It is missing or refuses.
pub fn perform(program: &str, arguments: &[&str], input: &str) -> anyhow::Result<String> {
    let text = || format!("{program} {}", arguments.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(text)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read has said what is wrong by then.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(text)?;
    ensure!(output.status.success(), "{}: {}", text(), String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn small(place: usize) -> u8 {
    u8::try_from(place).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(300);

    /// A cut is proved, and what is not cut is not, also while the doors of the nodes are turned to somebody else.
    #[test]
    fn a_cut_is_proved_behind_relays_too() {
        let network = Network::make(2, false);
        let bridge = match network.bridge() {
            Ok(bridge) => bridge,
            Err(why) => return eprintln!("skipped: {why}"),
        };
        // A relay that takes what is meant for the second node and never passes it on.
        let relay = TcpListener::bind((bridge.face(1), 0)).expect("an address of the bridge");
        let here = relay.local_addr().expect("an address");
        let door = SocketAddr::new(bridge.host(1), 7_400);
        let turn = format!(
            "chain out {{ type nat hook output priority -100; ip daddr {} tcp dport {} dnat ip to {here}; }}",
            door.ip(),
            door.port()
        );
        bridge.filter(0, "turn", &turn).expect("nft");
        assert_eq!(bridge.knock(0, door, SOON).expect("a namespace"), Knock::Open, "it is the relay that answers");

        let deaf = |from: usize| {
            let saddr = format!("ip saddr {{ {}, {} }} counter drop", bridge.host(from), bridge.face(from));
            format!("chain into {{ type filter hook input priority 0; {saddr}; }}")
        };
        bridge.filter(0, "cut", &deaf(1)).expect("nft");
        bridge
            .filter(1, "cut", "chain into { type filter hook input priority 0; ip saddr 192.0.2.1 counter drop; }")
            .expect("nft");
        assert!(bridge.prove_cut(0, 1, "cut", SOON).is_err(), "only the answers are stopped");
        bridge.unfilter(1, "cut").expect("nft");
        bridge.filter(1, "cut", &deaf(0)).expect("nft");
        assert!(bridge.prove_cut(0, 1, "cut", SOON).expect("cut") > 0);
        assert!(bridge.prove_cut(1, 0, "cut", SOON).expect("cut") > 0);
        bridge.unfilter(0, "cut").expect("nft");
        assert!(bridge.prove_cut(0, 1, "cut", SOON).expect("one direction is still cut") > 0);
        bridge.unfilter(1, "cut").expect("nft");
        bridge
            .filter(1, "cut", "chain into { type filter hook input priority 0; ip saddr 192.0.2.1 counter drop; }")
            .expect("nft");
        let error = bridge.prove_cut(0, 1, "cut", SOON).expect_err("nothing is cut").to_string();
        assert!(error.contains("Refused"), "{error}");
    }
}

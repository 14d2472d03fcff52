//! Quorate: a cluster of three voters, each with one worker, all on the gateways' core. Only one of them is asked, one that does not
//! lead: it asks another for its share of the limits. All three are charged.

use super::{Peer, Rule, Running, Solution, Together, free_address, text, version};
use crate::{
    row::Stack,
    site::{RATE, Site, write},
};
use std::{ffi::OsString, fmt::Write, fs, net::SocketAddr, path::PathBuf, process::Command};
use tests::{Cluster, process::Process, programs};

const NODES: usize = 3;
const NAMES: [&str; NODES] = ["node 1", "node 2", "node 3"];

/// See the file.
pub struct Quorate;

impl Peer for Quorate {
    fn name(&self) -> &'static str {
        "quorate"
    }

    fn version(&self) -> Option<String> {
        version(programs::quorate(), "--version")
    }

    fn install(&self) -> &'static str {
        "cargo build --profile dist -p quorate -p quoratectl; QUORATE_BIN_DIR"
    }

    fn solve(&self, stack: Stack, site: &Site) -> Option<Box<dyn Solution>> {
        let (how, limits, route) = match stack {
            Stack::Plain | Stack::Tls => ("", "{}".to_owned(), "authenticate: [none], policies: off"),
            Stack::Keys => ("key", "{}".to_owned(), "policies: off"),
            Stack::LocalLimit => (
                "limit of the node",
                format!("{{ calls: {{ rate: {RATE}/s, per: 'header:x-api-key', scope: node }} }}"),
                "authenticate: [none], policies: off, limits: [calls]",
            ),
            Stack::GlobalLimit => (
                "key + limit of the cluster, exact",
                format!("{{ calls: {{ rate: {RATE}/s, per: key }} }}"),
                "policies: off, limits: [calls]",
            ),
            Stack::Full => (
                "key + policy + limit of the cluster, exact + access log",
                format!("{{ calls: {{ rate: {RATE}/s, per: key }} }}"),
                "limits: [calls]",
            ),
        };
        let resources = format!(
            "upstreams: {{ up: {{ targets: ['http://{}'] }} }}\nconsumers: {{ acme: {{ roles: [caller] }} }}\n\
             policies:\n  callers: |\n    permit(principal in Role::\"caller\", action == Action::\"GET\", resource == Route::\"all\");\n\
             limits: {limits}\nroutes: {{ all: {{ paths: ['/'], upstream: up, {route} }} }}\n",
            site.upstream
        );
        let mut keys = "sha256,consumer,name,scopes,expires\n".to_owned();
        if stack.has_clients() {
            for key in &site.keys {
                let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
                digest.as_ref().iter().for_each(|byte| write!(keys, "{byte:02x}").expect("a String"));
                keys.push_str(",acme,,,\n");
            }
        }
        let folder = site.folder("quorate");
        Some(Box::new(Nodes {
            how: how.to_owned(),
            resources: write(&folder, "resources.yaml", &resources),
            keys: stack.has_clients().then(|| write(&folder, "keys.csv", &keys)),
            tls: stack.is_tls().then(|| (free_address(), format!("{}:{}", text(&site.certificate), text(&site.key)))),
            access_log: stack == Stack::Full,
            checks_keys: stack.checks_keys(),
        }))
    }

    /// With one node more, which leads and is not asked.
    fn together(&self, rule: &Rule, site: &Site, core: &str) -> Option<Result<Box<dyn Together>, String>> {
        let cluster = Cluster::start_changed(rule.gateways + 1, |node| {
            node.under = super::words(&["taskset", "--cpu-list", core]);
            node.environment.push(("QUORATE_ACCESS_LOG", "off".to_owned()));
        });
        cluster.ctl().apply(&format!(
            "upstreams: {{ up: {{ targets: ['http://{}'] }} }}\nlimits: {{ calls: {{ rate: {}/s, burst: {}, per: route }} }}\n\
             routes: {{ all: {{ paths: ['/'], upstream: up, authenticate: [none], policies: off, limits: [calls] }} }}\n",
            site.upstream, rule.rate, rule.burst
        ));
        let leader = cluster.leader();
        Some(Ok(Box::new(Asked { cluster, leader })))
    }
}

/// A cluster of which all but one node are asked.
struct Asked {
    cluster: Cluster,
    leader: usize,
}

impl Together for Asked {
    fn gateways(&self) -> Vec<SocketAddr> {
        let asked = (1..=self.cluster.nodes.len()).filter(|place| *place != self.leader);
        asked.map(|place| self.cluster.node(place).gateway.parse().expect("an address")).collect()
    }

    fn rests_on(&mut self) -> Option<&mut Process> {
        self.cluster.node_mut(self.leader).process.as_mut()
    }

    fn repair(&mut self) -> Result<(), String> {
        self.cluster.node_mut(self.leader).run();
        Ok(())
    }
}

struct Nodes {
    how: String,
    resources: PathBuf,
    keys: Option<PathBuf>,
    tls: Option<(SocketAddr, String)>,
    access_log: bool,
    checks_keys: bool,
}

impl Solution for Nodes {
    fn how(&self) -> String {
        self.how.clone()
    }

    fn check(&self) -> Result<(), String> {
        let output = Command::new(programs::quorate()).arg("check").arg(&self.resources).output();
        let output = output.map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        Err([output.stdout, output.stderr].map(|part| String::from_utf8_lossy(&part).into_owned()).concat())
    }

    fn start(self: Box<Self>, core: &str) -> Result<Running, String> {
        let asked = format!("n{NODES}");
        let cluster = Cluster::start_changed(NODES, |node| {
            node.under = super::words(&["taskset", "--cpu-list", core]);
            let mut set = |name, value: &str| node.environment.push((name, value.to_owned()));
            set("QUORATE_GATEWAY_WORKERS", "1");
            if !self.access_log {
                set("QUORATE_ACCESS_LOG", "off");
            }
            if let Some((address, certificate)) = &self.tls
                && node.name == asked
            {
                set("QUORATE_GATEWAY_TLS_BIND", &address.to_string());
                set("QUORATE_GATEWAY_TLS_CERTIFICATES", certificate);
            }
        });
        let resources = fs::read_to_string(&self.resources).map_err(|error| error.to_string())?;
        cluster.ctl().apply(&resources);
        if let Some(keys) = &self.keys {
            let command: [OsString; 5] =
                ["--timeout".into(), "60s".into(), "keys".into(), "import".into(), keys.clone().into_os_string()];
            cluster.ctl().json(command);
        }
        if cluster.leader() == NODES {
            return Err("the node to be asked leads; the others were to".to_owned());
        }
        let gateway = &cluster.node(NODES).gateway;
        let address = match &self.tls {
            Some((address, _)) => *address,
            None => gateway.parse().map_err(|error| format!("{gateway}: {error}"))?,
        };
        let pids = cluster.nodes.iter().map(|node| node.process.as_ref().expect("it runs").pid());
        let processes = NAMES.into_iter().zip(pids).collect();
        Ok(Running { address, processes, checks_keys: self.checks_keys, _alive: Box::new(cluster) })
    }
}

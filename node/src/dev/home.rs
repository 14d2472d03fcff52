//! What `quorate dev` keeps in its data directory: the nodes' settings and data, the operator's context, and which ports
//! they all have. A directory without the last file was never finished.
//!
//! ```text
//! dev.json      nodes and ports, written last
//! ca.pem        what clients of the gateways and of the cluster trust
//! api-key       the example's key
//! context/      the operator's context
//! gateway.pem   the HTTPS certificate of all nodes, with its key
//! node-1/       node.toml, data/, node.log, access.log
//! ```

use super::{
    DevError,
    ports::{is_free, local, pick},
};
use crate::{
    clock::SystemClock,
    command_line,
    pki::{
        authority::Authority,
        random,
        store::{Permissions, Store, private_folder, remove, write},
        trust::authorities_from_pem,
    },
};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// The data directory, owned by this process.
pub(super) struct Home {
    path: PathBuf,
    /// Removed at the end.
    temporary: bool,
    _lock: File,
}

/// Which nodes there are, and where they listen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layout {
    format: u32,
    pub nodes: Vec<NodeLayout>,
    pub echo: Option<SocketAddr>,
}

/// Where one node listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodeLayout {
    pub id: u64,
    pub gateway: SocketAddr,
    pub gateway_tls: SocketAddr,
    pub cluster: SocketAddr,
    pub ops: SocketAddr,
}

const FORMAT: u32 = 1;
const LAYOUT: &str = "dev.json";
const API_KEY: &str = "api-key";
const TOKEN: &str = "join-token";
/// How long processes of a dev that was killed may hold on to their ports.
const PORT_PATIENCE: Duration = Duration::from_secs(10);
const PORT_PAUSE: Duration = Duration::from_millis(100);

impl Home {
    /// Opens the data directory, or makes a temporary one; and the cluster that it holds, if it does.
    pub(super) fn open(options: &command_line::Dev) -> Result<(Self, Option<Layout>), DevError> {
        let (path, temporary) = match &options.data_dir {
            Some(path) => (path.clone(), false),
            None => {
                let random: [u8; 6] = random()?;
                (std::env::temp_dir().join(format!("quorate-dev-{}", hex::encode(random))), true)
            }
        };
        private_folder(&path)?;
        let path = path.canonicalize().map_err(|source| DevError::File { file: path.clone(), source })?;
        let failed = |source| DevError::File { file: path.clone(), source };
        let mut is_empty = true;
        for entry in std::fs::read_dir(&path).map_err(failed)? {
            is_empty &= entry.map_err(failed)?.file_name() == "LOCK";
        }
        let lock = File::create(path.join("LOCK")).map_err(failed)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| DevError::Options(format!("{}: another `quorate dev` runs there", path.display())))?;
        let home = Self { path, temporary, _lock: lock };
        let layout = home.layout()?;
        match &layout {
            None if !is_empty => {
                return Err(DevError::Options(format!(
                    "{}: there is something in this folder, but not a whole cluster of `quorate dev`: empty it, or name \
                     another one",
                    home.path.display()
                )));
            }
            Some(layout) if options.nodes.is_some_and(|nodes| usize::from(nodes) != layout.nodes.len()) => {
                return Err(DevError::Options(format!(
                    "{}: holds a cluster of {} nodes: leave --nodes out, or name another folder",
                    home.path.display(),
                    layout.nodes.len()
                )));
            }
            _ => {}
        }
        Ok((home, layout))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes a temporary folder.
    pub(super) fn close(self) {
        if self.temporary {
            // What is left of it is in the way of nobody.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }

    pub(super) fn node_folder(&self, id: u64) -> PathBuf {
        self.path.join(format!("node-{id}"))
    }

    pub(super) fn data_folder(&self, id: u64) -> PathBuf {
        self.node_folder(id).join("data")
    }

    pub(super) fn settings_file(&self, id: u64) -> PathBuf {
        self.node_folder(id).join("node.toml")
    }

    pub(super) fn log_file(&self, id: u64) -> PathBuf {
        self.node_folder(id).join("node.log")
    }

    pub(super) fn context_folder(&self) -> PathBuf {
        self.path.join("context")
    }

    pub(super) fn context_file(&self) -> PathBuf {
        self.context_folder().join("context.toml")
    }

    pub(super) fn ca_file(&self) -> PathBuf {
        self.path.join("ca.pem")
    }

    fn layout(&self) -> Result<Option<Layout>, DevError> {
        let file = self.path.join(LAYOUT);
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(DevError::File { file, source }),
        };
        let layout: Layout =
            serde_json::from_str(&text).map_err(|error| DevError::Options(format!("{}: {error}", file.display())))?;
        if layout.format != FORMAT || layout.nodes.is_empty() {
            return Err(DevError::Options(format!("{}: of another release", file.display())));
        }
        Ok(Some(layout))
    }

    /// From now on the folder holds a whole cluster.
    pub(super) fn save_layout(&self, layout: &Layout) -> Result<(), DevError> {
        let json = serde_json::to_vec_pretty(layout).map_err(|error| DevError::Options(error.to_string()))?;
        Ok(write(&self.path.join(LAYOUT), &json, Permissions::Readable)?)
    }

    pub(super) fn api_key(&self) -> Result<Option<String>, DevError> {
        let file = self.path.join(API_KEY);
        match std::fs::read_to_string(&file) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DevError::File { file, source }),
        }
    }

    pub(super) fn save_api_key(&self, api_key: &str) -> Result<(), DevError> {
        Ok(write(&self.path.join(API_KEY), format!("{api_key}\n").as_bytes(), Permissions::Private)?)
    }

    /// Where a join token lies for the moment that it is needed: other users can read command lines.
    pub(super) fn write_token(&self, token: &str) -> Result<PathBuf, DevError> {
        let file = self.path.join(TOKEN);
        write(&file, token.as_bytes(), Permissions::Private)?;
        Ok(file)
    }

    pub(super) fn forget_token(&self) -> Result<(), DevError> {
        Ok(remove(&self.path.join(TOKEN))?)
    }

    /// Writes the settings files of all nodes.
    pub(super) fn write_settings(&self, layout: &Layout) -> Result<(), DevError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = (cores / layout.nodes.len()).clamp(2, 8);
        for node in &layout.nodes {
            private_folder(&self.node_folder(node.id))?;
            let NodeLayout { id, gateway, gateway_tls, cluster, ops } = node;
            let voters = layout.voters();
            let text = format!(
                "# Written by `quorate dev`, again each time that it starts.\n\
                 name = \"node-{id}\"\ndata_dir = \"data\"\nvoters = {voters}\ndrain_delay = \"0s\"\n\
                 drain_timeout = \"5s\"\ndisk_free_min = \"64MiB\"\naccess_log = \"./access.log\"\n\n\
                 [gateway]\nbind = \"{gateway}\"\nworkers = {workers}\ntrusted_proxies = [\"127.0.0.0/8\"]\n\n\
                 [gateway_tls]\nbind = \"{gateway_tls}\"\n\
                 certificates = [{{ certificate = \"../gateway.pem\", key = \"../gateway.pem\" }}]\n\n\
                 [cluster]\nbind = \"{cluster}\"\n\n[ops]\nbind = \"{ops}\"\n"
            );
            write(&self.settings_file(*id), text.as_bytes(), Permissions::Readable)?;
        }
        Ok(())
    }

    /// Makes the certificate that all gateways show, signed by the cluster's authority, and tells clients what to trust.
    pub(super) fn issue_gateway_certificate(&self, clock: SystemClock) -> Result<(), DevError> {
        let (authority, trusted_pem) = self.authority()?;
        let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let (signed, key) = authority.issue_server(&["localhost"], &addresses, clock.utc_ms())?;
        let pem = format!("{}{}{}", signed.pem, authority.certificates_pem(), *key);
        write(&self.path.join("gateway.pem"), pem.as_bytes(), Permissions::Private)?;
        Ok(write(&self.ca_file(), trusted_pem.as_bytes(), Permissions::Readable)?)
    }

    /// An authority of the cluster, from whichever node holds its key, and all that the cluster trusts.
    fn authority(&self) -> Result<(Arc<Authority>, String), DevError> {
        let mut id = 1;
        while self.data_folder(id).is_dir() {
            let store = Store::open(self.data_folder(id).join("pki"))?;
            let trusted_pem = store.authorities()?;
            for trusted in authorities_from_pem(&trusted_pem)? {
                if let Some(authority) = store.authority(&trusted.sha256)? {
                    return Ok((authority, trusted_pem));
                }
            }
            id += 1;
        }
        Err(DevError::Options(format!("{}: no node holds the key of the cluster's authority", self.path.display())))
    }

    /// Lets the operator's context know of all nodes.
    pub(super) fn write_context(&self, layout: &Layout) -> Result<(), DevError> {
        let file = self.context_file();
        let text = std::fs::read_to_string(&file).map_err(|source| DevError::File { file: file.clone(), source })?;
        let endpoints: Vec<String> = layout.nodes.iter().map(|node| format!("\"{}\"", node.cluster)).collect();
        let text: String = text
            .lines()
            .map(|line| {
                if line.starts_with("endpoints") {
                    format!("endpoints = [{}]\n", endpoints.join(", "))
                } else {
                    format!("{line}\n")
                }
            })
            .collect();
        Ok(write(&file, text.as_bytes(), Permissions::Readable)?)
    }
}

impl Layout {
    /// A new cluster's.
    pub(super) fn new(options: &command_line::Dev) -> Result<Self, DevError> {
        let nodes = usize::from(options.nodes.unwrap_or(3));
        let has_echo = !options.no_echo && options.upstream.is_none();
        let ports = pick(options.base_port, nodes * 4 + usize::from(has_echo))?;
        let mut ports = ports.into_iter().map(local);
        let mut next = || ports.next().ok_or(DevError::NoPorts);
        let mut of_nodes = Vec::with_capacity(nodes);
        for id in (1_u64..).take(nodes) {
            of_nodes.push(NodeLayout { id, gateway: next()?, gateway_tls: next()?, cluster: next()?, ops: next()? });
        }
        let echo = if has_echo { Some(next()?) } else { None };
        Ok(Self { format: FORMAT, nodes: of_nodes, echo })
    }

    /// How many of the nodes vote.
    pub(super) fn voters(&self) -> usize {
        match self.nodes.len() {
            0..=2 => 1,
            3..=4 => 3,
            5..=6 => 5,
            _ => 7,
        }
    }

    pub(super) fn address_of_first(&self) -> String {
        self.nodes.first().map(|node| node.cluster.to_string()).unwrap_or_default()
    }

    /// The same nodes with the same ports. The nodes know each other by them, so they must be had again; processes of a
    /// dev that was killed may take a moment to end.
    pub(super) async fn with_free_ports(self, home: &Home) -> Result<Self, DevError> {
        let deadline = tokio::time::Instant::now() + PORT_PATIENCE;
        loop {
            let mut wanted: Vec<(SocketAddr, String)> = self
                .nodes
                .iter()
                .flat_map(|node| {
                    [node.gateway, node.gateway_tls, node.cluster, node.ops]
                        .map(|address| (address, format!("node {} of {}", node.id, home.path.display())))
                })
                .collect();
            wanted.extend(self.echo.map(|address| (address, "the echo server".to_owned())));
            let Some((address, wanted_by)) = wanted.into_iter().find(|(address, _)| !is_free(*address)) else {
                return Ok(self);
            };
            if tokio::time::Instant::now() >= deadline {
                return Err(DevError::PortInUse { address, wanted_by });
            }
            tokio::time::sleep(PORT_PAUSE).await;
        }
    }
}

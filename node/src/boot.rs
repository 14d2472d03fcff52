//! A node, from its settings to its end: the only file where everything meets. Nothing listens before the settings, the
//! data directory and the keys are known to be good, and the gateway takes no request before the node knows everything
//! that was acknowledged while it was away.

mod expiry;
mod gateway_settings;
mod publishing;
mod signals;

use crate::{
    admin,
    clock::SystemClock,
    cluster_port::{ClusterPort, Gate, dialer},
    config::{Settings, value::Timing},
    directory::{Directory, DirectoryError},
    enrol::{
        Registrar, member_spec,
        newcomer::{self, Join, JoinError},
        service::EnrolService,
    },
    faults, gateway,
    listen::Certificates,
    ops,
    pki::{
        PkiError, authority,
        certificate::{Speaker, speaker},
        identity::Identity,
        renewal,
        store::Store,
        trust::Trust,
    },
};
use gateway_settings::{NodeClock, gateway_settings, load_certificates};
use machine::{Outcome, command::Initialize};
use publishing::Publishing;
use signals::{Ending, Signals};
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tonic::service::Routes;

/// How a node is to be run.
#[derive(Clone, Debug)]
pub struct Running {
    /// How to join first, if the data directory is new.
    pub join: Option<Join>,
    /// Stop when standard input ends.
    pub stop_with_stdin: bool,
}

/// Why a node does not run, or runs no more.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The data directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The data directory is new, and nobody said which cluster.
    #[error(
        "{}: is not the data directory of a node yet: prepare it with `quorate init` (a new cluster) or `quorate join`, or \
         give a join token and a peer",
        .0.display()
    )]
    NotPrepared(PathBuf),
    /// It could not join.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// Keys and certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The files of the data directory do not belong together.
    #[error("{}: {message}", .folder.display())]
    Mixed {
        /// The data directory.
        folder: PathBuf,
        /// What does not fit.
        message: String,
    },
    /// An address cannot be bound.
    #[error("cannot listen on {address} (the setting {setting}): {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Who wants it.
        setting: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// Consensus could not start.
    #[error(transparent)]
    Raft(#[from] raft::StartError),
    /// The data plane could not start.
    #[error(transparent)]
    Gateway(#[from] gateway::StartError),
    /// The first entry of a new cluster was refused.
    #[error("the new cluster could not be begun: {0}")]
    FirstEntry(String),
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signals(std::io::Error),
    /// Consensus has failed while the node ran.
    #[error("consensus has failed, and the node cannot go on: {0}")]
    Failed(String),
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// [`BootError`]: it could not start, or something of this machine has failed.
pub async fn run(settings: Settings, running: Running) -> Result<(), BootError> {
    let recorder = ops::start_metrics();
    let mut signals = Signals::receive(running.stop_with_stdin).map_err(BootError::Signals)?;
    let prepared = prepare(&settings, running.join.as_ref()).await?;
    let bound = listen(&settings).await?;
    let mut tasks = Tasks::default();
    let timing = raft::Timing::of(match settings.timing {
        Timing::Lan => raft::Profile::Lan,
        Timing::Wan => raft::Profile::Wan,
    });
    let condition = Arc::new(ops::Condition::new(&settings, recorder));
    condition.is_node(prepared.identity.node, prepared.identity.cluster, prepared.trust.clone());
    if let Some(listener) = bound.ops {
        tasks.add(ops::serve(listener, Arc::clone(&condition)));
    }

    let publishing = Publishing::new(prepared.trust.clone());
    let consensus = begin_consensus(&settings, &prepared, timing, &publishing, bound.cluster).await?;
    let Consensus { raft, registrar, port } = consensus;
    condition.has_raft(raft.clone());
    tasks.add(renewal::start(registrar));

    let beginning = begin_serving(&settings, &prepared, &raft, &publishing);
    let begun = tokio::select! {
        begun = beginning => Ok(begun),
        ended = signals.ending(&raft) => Err(ended),
    };
    let (gateway, ended) = match begun {
        Ok(Ok(gateway)) => {
            condition.has_gateway(gateway.clone());
            tracing::info!(addresses = ?gateway.addresses(), "the gateway takes requests");
            let trust = prepared.trust.clone();
            let identity = prepared.identity.clone();
            let reloading = signals::reload_on_hangup(settings.clone(), identity, trust, gateway.clone(), SystemClock);
            tasks.add(tokio::spawn(reloading));
            tasks.add(tokio::spawn(expiry::warn_in_time(gateway.clone(), SystemClock)));
            (Some(gateway), signals.ending(&raft).await)
        }
        Ok(Err(error)) => {
            raft.stop().await;
            return Err(error);
        }
        // Nobody was served yet, so nobody is to be waited for.
        Err(Ending::Told { .. }) => (None, Ending::Told { in_a_hurry: true }),
        Err(ended) => (None, ended),
    };
    condition.drains();
    tokio::select! {
        ended = end(&settings, ended, gateway, &raft, port) => ended,
        () = signals.again() => {
            tracing::info!("told to stop twice: not waiting any longer");
            Ok(())
        }
    }
}

/// What is known to be good before anything listens.
struct Prepared {
    directory: Directory,
    identity: Identity,
    first_entry: Option<Initialize>,
    trust: Trust,
    certificates: Option<Certificates>,
}

/// Opens the data directory, joins if it is new and somebody said how, and reads all keys.
async fn prepare(settings: &Settings, join: Option<&Join>) -> Result<Prepared, BootError> {
    let directory = Directory::open(settings)?;
    directory.refuse_if_pending()?;
    let identity = match (&directory.identity, join) {
        (Some(identity), _) => identity.clone(),
        (None, Some(join)) => {
            let identity_file = directory.data.identity();
            newcomer::join(settings, &directory.store, &identity_file, join, SystemClock).await?
        }
        (None, None) => return Err(BootError::NotPrepared(directory.path().to_owned())),
    };
    let first_entry = directory.first_entry()?;
    let trust = load_trust(&directory, &identity, SystemClock)?;
    let certificates = load_certificates(settings)?;
    Ok(Prepared { directory, identity, first_entry, trust, certificates })
}

/// Listeners that are bound.
struct Bound {
    cluster: TcpListener,
    ops: Option<TcpListener>,
}

/// Binds what serves first; and says at once if the gateway's addresses are taken, which are bound only when the node has
/// caught up.
async fn listen(settings: &Settings) -> Result<Bound, BootError> {
    let cluster = bind(settings.cluster.bind, "cluster.bind").await?;
    for (listener, setting) in [
        (settings.gateway.plain.as_ref(), "gateway.bind"),
        (settings.gateway.tls.as_ref().map(|tls| &tls.listener), "gateway_tls.bind"),
    ] {
        if let Some(listener) = listener {
            drop(bind(listener.bind, setting).await?);
        }
    }
    let ops = match &settings.ops {
        Some(listener) => Some(bind(listener.bind, "ops.bind").await?),
        None => None,
    };
    Ok(Bound { cluster, ops })
}

async fn bind(address: SocketAddr, setting: &'static str) -> Result<TcpListener, BootError> {
    TcpListener::bind(address).await.map_err(|source| BootError::Listen { address, setting, source })
}

/// Consensus, and what speaks for it on the network.
struct Consensus {
    raft: raft::Handle,
    registrar: Registrar,
    port: ClusterPort,
}

async fn begin_consensus(
    settings: &Settings,
    prepared: &Prepared,
    timing: raft::Timing,
    publishing: &Publishing,
    listener: TcpListener,
) -> Result<Consensus, BootError> {
    let Prepared { directory, identity, trust, .. } = prepared;
    let dial = dialer(trust.clone(), timing.dial);
    let raft = raft::start(raft::Start {
        node: identity.node,
        spec: member_spec(settings),
        folders: raft::Folders {
            log: directory.data.log(),
            checkpoint: directory.data.checkpoint(),
            snapshots: directory.data.snapshots(),
        },
        expect_data: identity.took_part,
        peers: identity.peers.iter().map(|peer| (peer.node, peer.address.clone())).collect(),
        timing,
        upkeep: upkeep(settings),
        dial: Arc::clone(&dial),
        clock: Arc::new(SystemClock),
        publish: publishing.publish(),
        certificate: trust.certificate(),
        callers: raft::Callers::Proved,
        ground: raft::Ground::System,
    })
    .await?;
    refuse_mixed_data(&raft, directory, identity)?;
    let registrar = Registrar::new(identity, raft.clone(), trust.clone(), dial, SystemClock);
    let gate = Gate::new(raft.clone(), identity.cluster);
    let address = settings.cluster.bind;
    let port = ClusterPort::serve(listener, trust.clone(), gate, routes(&raft, &registrar))
        .map_err(|source| BootError::Listen { address, setting: "cluster.bind", source })?;
    tracing::info!(
        node = identity.node,
        name = %identity.name,
        cluster = %hex::encode(identity.cluster),
        %address,
        version = env!("CARGO_PKG_VERSION"),
        "the node has started"
    );
    Ok(Consensus { raft, registrar, port })
}

/// When snapshots and checkpoints are made. A test that lasts minutes wants to see many.
fn upkeep(settings: &Settings) -> raft::Upkeep {
    let faults = faults::at_start().unwrap_or_default();
    let upkeep = raft::Upkeep {
        disk_low_bytes: settings.disk_free_min,
        digest_entries: faults.digest_entries,
        ..raft::Upkeep::default()
    };
    match faults.snapshot_entries {
        Some(entries) => raft::Upkeep {
            snapshot_entries: entries,
            keep_entries: entries / 10,
            checkpoint_every: Duration::from_secs(3),
            ..upkeep
        },
        None => upkeep,
    }
}

fn routes(raft: &raft::Handle, registrar: &Registrar) -> Routes {
    let services = raft.services();
    let routes =
        Routes::new(services.raft).add_service(services.leader).add_service(EnrolService::server(registrar.clone()));
    admin::add_services(routes, registrar)
}

/// Takes part in the cluster, and once everything that was acknowledged is known here, takes requests.
async fn begin_serving(
    settings: &Settings,
    prepared: &Prepared,
    raft: &raft::Handle,
    publishing: &Publishing,
) -> Result<gateway::Handle, BootError> {
    let Prepared { directory, identity, first_entry, certificates, .. } = prepared;
    begin_cluster(raft, directory, identity, first_entry.as_ref()).await?;
    catch_up(raft).await;
    let clock = Arc::new(NodeClock::new(SystemClock, raft.clone()));
    let settings = gateway_settings(settings, certificates.clone(), raft);
    let (node, view) = (identity.node, raft.view());
    let publishing = publishing.clone();
    // It binds, starts threads and compiles every route.
    let started = tokio::task::spawn_blocking(move || {
        publishing.start(view, |first| gateway::start(settings, node, clock, first))
    });
    match started.await {
        Ok(started) => Ok(started?),
        Err(error) => Err(BootError::Failed(error.to_string())),
    }
}

/// Ends in good order: first nobody sends anything new, then what is in flight finishes, then consensus stops.
async fn end(
    settings: &Settings,
    ended: Ending,
    gateway: Option<gateway::Handle>,
    raft: &raft::Handle,
    port: ClusterPort,
) -> Result<(), BootError> {
    let (delay, timeout, is_hurried) = match &ended {
        Ending::Told { in_a_hurry: false } => (settings.drain_delay, settings.drain_timeout, false),
        Ending::Told { in_a_hurry: true } | Ending::Removed => (Duration::ZERO, HURRY, true),
        Ending::Failed(reason) => return Err(BootError::Failed(reason.clone())),
    };
    tracing::info!(?ended, "the node is stopping");
    // Early, so that the cluster goes on while this node finishes what it has. Otherwise `stop` sees to it.
    let hands_over = raft.local().role == raft::Role::Leader && !delay.is_zero();
    let handing_over = async {
        if hands_over && let Err(error) = raft.transfer_leader(None).await {
            tracing::info!(%error, "leadership was not handed over");
        }
    };
    let handing_over = tokio::time::timeout(delay, handing_over);
    let leaving = async {
        if let (Some(gateway), false) = (&gateway, is_hurried) {
            gateway.leave(delay).await;
        }
    };
    let _ = tokio::join!(handing_over, leaving);
    if let Some(gateway) = gateway {
        gateway.drain(timeout).await;
    }
    raft.stop().await;
    port.stop(PORT_PATIENCE).await;
    tracing::info!("the node has stopped");
    Ok(())
}

/// How long requests in flight get when nobody wants to wait.
const HURRY: Duration = Duration::from_secs(1);
/// How long answers to operators may take to leave.
const PORT_PATIENCE: Duration = Duration::from_millis(300);

/// The keys of the directory, if they are those of its node.
fn load_trust(directory: &Directory, identity: &Identity, clock: SystemClock) -> Result<Trust, BootError> {
    let store = &directory.store;
    let mixed = |message: String| BootError::Mixed { folder: directory.path().to_owned(), message };
    let certificate = store
        .node()?
        .ok_or_else(|| mixed("pki/node.pem, its certificate, is missing: the node must join again".to_owned()))?;
    let own = Speaker::Node { cluster: identity.cluster, id: identity.node };
    if speaker(&certificate.leaf) != Some(own) {
        return Err(mixed(format!(
            "pki/node.pem is not the certificate of node {} of cluster {}: it is damaged, or the directory was put together from \
             others",
            identity.node,
            hex::encode(identity.cluster)
        )));
    }
    let trust = Trust::load(store.clone())?;
    let ended = trust.shown()?.not_after_ms <= clock.utc_ms();
    if ended && identity.signed_outside {
        return Err(mixed(
            "the node's certificate, pki/node.pem, has expired: have another one signed, with `quorate certificate request` and `quorate \
             certificate install`"
                .to_owned(),
        ));
    }
    if ended && !revive(store, identity, &trust, clock)? {
        return Err(mixed(
            "its certificate, pki/node.pem, has expired while the node was away, and it cannot sign another one: remove the node from \
             the cluster, empty the data directory and join again"
                .to_owned(),
        ));
    }
    Ok(trust)
}

/// Signs a new certificate for a node that was away for too long, if it holds the key of an authority that it trusts.
fn revive(store: &Store, identity: &Identity, trust: &Trust, clock: SystemClock) -> Result<bool, PkiError> {
    for trusted in store.trusted()? {
        if let Some(authority) = store.authority(&trusted.sha256)? {
            let (key_pem, request_pem) = authority::request()?;
            let signed = authority.sign_node(&request_pem, identity.cluster, identity.node, clock.utc_ms())?;
            trust.show(&key_pem, &signed.pem)?;
            tracing::info!("the node's certificate had expired; it has signed a new one");
            return Ok(true);
        }
    }
    Ok(false)
}

/// The state that raft has loaded must be of the cluster that the rest of the directory is of.
fn refuse_mixed_data(raft: &raft::Handle, directory: &Directory, identity: &Identity) -> Result<(), BootError> {
    let registry = &raft.view().registry;
    if registry.is_initialized() && registry.cluster != identity.cluster {
        return Err(BootError::Mixed {
            folder: directory.path().to_owned(),
            message: format!(
                "its data are of cluster {} and its identity is of cluster {}: the directory was put together from others",
                hex::encode(registry.cluster),
                hex::encode(identity.cluster)
            ),
        });
    }
    Ok(())
}

/// Proposes the first entry of a new cluster, and remembers that this node has taken part.
async fn begin_cluster(
    raft: &raft::Handle,
    directory: &Directory,
    identity: &Identity,
    first_entry: Option<&Initialize>,
) -> Result<(), BootError> {
    if let Some(first_entry) = first_entry {
        while !raft.view().registry.is_initialized() {
            match raft.bootstrap(first_entry.clone()).await {
                Ok(Outcome::Refused(refusal)) => return Err(BootError::FirstEntry(refusal.to_string())),
                Ok(Outcome::Done { .. } | Outcome::Admitted { .. }) => break,
                Err(error) => {
                    tracing::warn!(%error, "the new cluster has not begun yet: trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
    let mut views = raft.watch();
    // It ends only with raft itself.
    let _ = views.wait_for(|view| view.registry.is_initialized()).await;
    if !identity.took_part {
        identity.clone().after_taking_part().save(&directory.data.identity())?;
    }
    Ok(directory.forget_first_entry()?)
}

/// Between attempts at what needs the cluster.
const RETRY: Duration = Duration::from_millis(100);

/// Waits until this node knows everything that was acknowledged before now.
async fn catch_up(raft: &raft::Handle) {
    while let Err(error) = raft.read().await {
        tracing::info!(%error, "waiting for the cluster");
        tokio::time::sleep(RETRY).await;
    }
}

/// Tasks that end with the node.
#[derive(Default)]
struct Tasks(Vec<tokio::task::JoinHandle<()>>);

impl Tasks {
    fn add(&mut self, task: tokio::task::JoinHandle<()>) {
        self.0.push(task);
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

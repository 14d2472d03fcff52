//! What a node must bring along to take part, and the start itself.

use crate::{
    clock::Clock,
    ground::Ground,
    handle::Handle,
    timing::{Timing, Upkeep},
};
use futures::future::BoxFuture;
use machine::{
    View,
    member::{MemberSpec, NodeId},
};
use std::{fmt, path::PathBuf, sync::Arc};
use tokio::sync::watch;
use tonic::transport::Channel;

/// Dials the node with this number at this address (`host:port`), and proves that it is that node.
pub type Dial = Arc<dyn Fn(NodeId, String) -> BoxFuture<'static, Result<Channel, DialError>> + Send + Sync>;

/// Takes a new View. When the future resolves, every worker of this node enforces it. Called in order; a View may be
/// skipped when a newer one is there.
pub type Publish = Arc<dyn Fn(Arc<View>) -> BoxFuture<'static, ()> + Send + Sync>;

/// Why a peer could not be dialed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct DialError(pub String);

/// The certificate that this node shows to its peers, for the leader's table of members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-256 of the DER of the authority that signed it.
    pub authority_sha256: Vec<u8>,
    /// When it ends.
    pub not_after_ms: u64,
}

/// Where the data lies; the caller holds the lock on all of it for as long as the handle lives.
#[derive(Clone, Debug)]
pub struct Folders {
    /// The write-ahead log and the vote.
    pub log: PathBuf,
    /// The checkpoint of the applied state.
    pub checkpoint: PathBuf,
    /// Snapshot files.
    pub snapshots: PathBuf,
}

/// Who a peer request comes from, proved by its certificate. The server that mounts [`crate::Services`] puts it into the
/// extensions of each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller(pub NodeId);

/// Whether peer requests must carry a [`Caller`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Callers {
    /// A request without one is refused, and so is a report in another node's name.
    #[default]
    Proved,
    /// For tests without certificates.
    Trusted,
}

/// What a node brings along.
pub struct Start {
    /// Its number, for life.
    pub node: NodeId,
    /// What it tells the cluster of itself.
    pub spec: MemberSpec,
    /// Where its data lies.
    pub folders: Folders,
    /// Whether this node has been in a cluster before: then an empty log means that data was lost, and it must not
    /// start, because it may have voted.
    pub expect_data: bool,
    /// Peers to ask until the node's own state names the members: as the join reply listed them.
    pub peers: Vec<(NodeId, String)>,
    /// Durations.
    pub timing: Timing,
    /// Checkpoints, snapshots, disk.
    pub upkeep: Upkeep,
    /// How to reach a peer.
    pub dial: Dial,
    /// This machine's clocks.
    pub clock: Arc<dyn Clock>,
    /// What to do with a new View.
    pub publish: Publish,
    /// The certificate in use.
    pub certificate: watch::Receiver<Certificate>,
    /// How far peer requests are believed.
    pub callers: Callers,
    /// What it stands on.
    pub ground: Ground,
}

impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Start").field("node", &self.node).field("folders", &self.folders).finish_non_exhaustive()
    }
}

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The disk refused: no room, no permission, an I/O error.
    #[error("{0}")]
    Disk(String),
    /// The data are damaged or do not fit together: which file, where, and what to do. The node must rejoin.
    #[error("{0}")]
    Damaged(String),
    /// A setting makes no sense.
    #[error("{0}")]
    Settings(String),
}

/// Opens the data and takes part in the cluster.
///
/// # Errors
/// [`StartError`]: nothing has been changed, and nothing runs.
pub async fn start(start: Start) -> Result<Handle, StartError> {
    Handle::start(start).await
}

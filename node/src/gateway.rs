//! The data plane: takes requests, decides by an immutable view of the replicated state, forwards and records. It never
//! writes to the cluster and never asks it anything while a request waits.

use crate::listen::{Addresses, Certificates};
use futures::future::BoxFuture;
use ipnet::IpNet;
use machine::{Tick, View, Wall, member::NodeId};
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

/// The clocks that the data plane reads. The real one is the node's `clock.rs`.
pub trait Clock: Send + Sync + 'static {
    /// Microseconds since boot, suspended time included: for durations and, later, leases.
    fn boot_us(&self) -> u64;
    /// UTC as the cluster agrees on it: keys end by it, and logs are dated by it.
    fn wall(&self) -> Wall;
    /// Cluster time, for the access log.
    fn tick(&self) -> Tick;
}

/// Settings of the data plane of one node.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to take requests without TLS.
    pub plain: Option<SocketAddr>,
    /// Where to take requests with TLS, and the certificates to show.
    pub tls: Option<(SocketAddr, Certificates)>,
    /// Worker threads, each with its own runtime, listeners and upstream connections.
    pub workers: usize,
    /// Who may say where a request came from (`X-Forwarded-*`) and name it (`X-Request-Id`).
    pub trusted_proxies: Vec<IpNet>,
    /// Whether responses name the node in `X-Quorate-Node`.
    pub names_node: bool,
    /// Where one JSON line a request goes.
    pub access_log: AccessLog,
    /// What one client may take.
    pub caps: Caps,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// To standard output.
    Stdout,
    /// To the end of a file, which is made if it does not exist and opened anew on [`Handle::reopen_access_log`].
    File(PathBuf),
}

/// Bounds on what clients may take of this node.
#[derive(Clone, Debug)]
pub struct Caps {
    /// Open client connections of the node; more are closed at once.
    pub connections_max: usize,
    /// Header fields of one request.
    pub header_count_max: usize,
    /// Bytes of the request line and header fields of one request.
    pub header_bytes_max: usize,
    /// From the first byte of a request (or a new connection, TLS handshake included) to the end of its header.
    pub header_read_timeout: Duration,
    /// A connection without a request, or one whose client neither sends nor takes what it should, ends after this.
    pub idle_timeout: Duration,
    /// Bytes of a request body where neither route nor defaults say otherwise.
    pub body_bytes_max: u64,
    /// Concurrent HTTP/2 streams of one connection.
    pub streams_max: u32,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            header_count_max: 96,
            header_bytes_max: 32 * 1024,
            header_read_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_bytes_max: 64 * 1024 * 1024,
            streams_max: 128,
        }
    }
}

/// Why the data plane could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// A thread or runtime could not be made.
    #[error("cannot start a worker: {0}")]
    Worker(std::io::Error),
    /// The access log cannot be opened.
    #[error("cannot open the access log {path}: {source}", path = path.display())]
    AccessLog {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The certificates cannot be used.
    #[error(transparent)]
    Certificates(#[from] crate::listen::CertificateError),
}

/// The running data plane. Clones are the same one.
#[derive(Clone)]
pub struct Handle {
    addresses: Addresses,
}

/// What the data plane says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The log index that every worker enforces.
    pub enforced: u64,
    /// Open client connections.
    pub connections: usize,
    /// Requests in flight.
    pub in_flight: usize,
    /// Documents that this release cannot read, and why; the routes that need them are refused.
    pub unreadable: Vec<String>,
}

/// Binds the listeners and starts the workers, which enforce `first` from their first request on.
///
/// # Errors
/// [`StartError`] says what could not be had; nothing is left running.
pub fn start(settings: Settings, node: NodeId, clock: Arc<dyn Clock>, first: Arc<View>) -> Result<Handle, StartError> {
    let _ = (settings, node, clock, first);
    Ok(Handle { addresses: Addresses::default() })
}

impl Handle {
    /// Makes a view the one that decides. When the future resolves, every request that begins from then on is decided by
    /// it (or a later one), on every worker. Must be called in the order of the views.
    pub fn publish(&self, view: Arc<View>) -> BoxFuture<'static, ()> {
        let _ = view;
        Box::pin(async {})
    }

    /// Where the listeners are, with the ports that the system chose.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Takes no new connections, lets requests in flight finish for at most this long, then ends what is left.
    pub fn drain(&self, at_most: Duration) -> BoxFuture<'static, ()> {
        let _ = at_most;
        Box::pin(async {})
    }

    /// Shows other certificates from the next handshake on.
    ///
    /// # Errors
    /// If they cannot be used; the ones before stay.
    pub fn reload_certificates(&self, certificates: Certificates) -> Result<(), crate::listen::CertificateError> {
        let _ = certificates;
        Ok(())
    }

    /// Opens the access log's file anew: after it has been rotated away.
    pub fn reopen_access_log(&self) {}

    /// What it says of itself.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::default()
    }
}

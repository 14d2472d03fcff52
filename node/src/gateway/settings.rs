//! What the data plane of a node is told when it starts, and what can keep it from starting.

use crate::listen::{CertificateError, Certificates};
use ipnet::IpNet;
use machine::At;
use raft::{Allowances, Authority};
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

/// The clocks that the data plane reads. The real one is the node's `clock.rs`.
pub trait Clock: Send + Sync + 'static {
    /// Microseconds since boot, suspended time included: for durations and leases. Never a cached value: after a pause a
    /// worker would run on a lease that has ended.
    fn boot_us(&self) -> u64;
    /// The cluster's time. Keys end and logs are dated by its UTC; its tick orders what different nodes did.
    fn time(&self) -> At;
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
    /// Until when this node may admit requests.
    pub authority: Arc<Authority>,
    /// What this node may spend of the cluster's limits.
    pub allowances: Arc<Allowances>,
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
    /// Of these, from one address (IPv6: one /64) that is no trusted proxy.
    pub connections_per_address_max: usize,
    /// TLS connections whose handshake is not done; more are closed at once.
    pub handshakes_max: usize,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// Requests in flight on the node; more are refused at once.
    pub requests_max: usize,
    /// How late a worker may get to what is due, again and again, before it refuses requests.
    pub lag_max: Duration,
    /// Memory that the node may use before it refuses requests and connections.
    pub memory_bytes_max: u64,
    /// Header fields of one request.
    pub header_count_max: usize,
    /// Bytes of the request line and header fields of one request.
    pub header_bytes_max: usize,
    /// From the first byte of a request (or a new connection, after its TLS handshake) to the end of its header.
    pub header_read_timeout: Duration,
    /// A connection without a request, or one whose client neither sends nor takes what it should, ends after this.
    pub idle_timeout: Duration,
    /// Bytes a second of a request body that waits for its client, taken over `idle_timeout`; who is slower is let go.
    pub body_rate_min: u64,
    /// Bytes of a request body where neither route nor defaults say otherwise.
    pub body_bytes_max: u64,
    /// Concurrent HTTP/2 streams of one connection.
    pub streams_max: u32,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            connections_per_address_max: 20_000,
            handshakes_max: 1_000,
            handshake_timeout: Duration::from_secs(10),
            requests_max: 10_000,
            lag_max: Duration::from_secs(1),
            memory_bytes_max: u64::MAX,
            header_count_max: 96,
            header_bytes_max: 32 * 1024,
            header_read_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_rate_min: 100,
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
    Certificates(#[from] CertificateError),
}

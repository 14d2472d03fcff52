//! Node settings as they are written: one description for the file, the environment and the command line. Everything is
//! optional here; what is absent, and what contradicts something else, is settled in `config`.
//!
//! The comments on the fields are what `--help` prints and what the documentation lists.

use super::value::{AccessLog, Address, Bind, Bytes, CertificateFiles, ClientCertificates, LogFormat, Span, Timing};
use ipnet::IpNet;
use serde::Deserialize;
use std::path::PathBuf;

/// Settings of a node. The command line wins over the environment, the environment over the file.
#[derive(Clone, Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Node settings (each may stand in the file of --config)")]
pub struct Written {
    /// The node's name, unique in the cluster. [default: the host name up to its first dot]
    #[arg(long, env = "QUORATE_NAME", value_name = "NAME")]
    pub name: Option<String>,
    /// The folder of everything that the node keeps. One node, one folder. [default: /var/lib/quorate]
    #[arg(long, env = "QUORATE_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// The failure domain that the node is in (a rack, an availability zone): shown in `cluster status`. [default: none]
    #[arg(long, env = "QUORATE_ZONE", value_name = "TEXT")]
    pub zone: Option<String>,
    /// Heartbeats and election timeouts for one site (`lan`) or several (`wan`). The same on all nodes. [default: lan]
    #[arg(long, env = "QUORATE_TIMING", value_name = "lan|wan")]
    pub timing: Option<Timing>,
    /// How many nodes vote: 1, 3, 5 or 7. Read by `init` alone; later `quoratectl cluster settings` changes it. [default: 3]
    #[arg(long, env = "QUORATE_VOTERS", value_name = "NUMBER")]
    pub voters: Option<u8>,
    /// After SIGTERM, how long the listeners still accept while `/readyz` already answers 503, so that a load balancer can
    /// look elsewhere first. [default: 5s]
    #[arg(long, env = "QUORATE_DRAIN_DELAY", value_name = "TIME")]
    pub drain_delay: Option<Span>,
    /// After that, how long requests in flight may take to finish. [default: 30s]
    #[arg(long, env = "QUORATE_DRAIN_TIMEOUT", value_name = "TIME")]
    pub drain_timeout: Option<Span>,
    /// Below so much free space on the disk of `data_dir`, admin writes are refused, before anything stops.
    /// [default: 256MiB]
    #[arg(long, env = "QUORATE_DISK_FREE_MIN", value_name = "SIZE")]
    pub disk_free_min: Option<Bytes>,
    /// What the node logs to standard error: `error`, `warn`, `info`, `debug`, `trace`, or directives as in
    /// `info,raft=debug`. A level alone leaves out what the consensus engine (`openraft`) says below a warning.
    /// [default: info]
    #[arg(long, env = "QUORATE_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// The form of these lines: `text` or `json`. [default: text]
    #[arg(long, env = "QUORATE_LOG_FORMAT", value_name = "text|json")]
    pub log_format: Option<LogFormat>,
    /// Where the access log goes, one JSON line a request: `stdout`, `off`, or a file (opened again on SIGHUP).
    /// [default: stdout]
    #[arg(long, env = "QUORATE_ACCESS_LOG", value_name = "TARGET")]
    pub access_log: Option<AccessLog>,
    /// The plain HTTP listener, and what holds for both gateway listeners.
    #[command(flatten)]
    pub gateway: WrittenGateway,
    /// The HTTPS listener.
    #[command(flatten)]
    pub gateway_tls: WrittenGatewayTls,
    /// The listener for nodes and operators: gRPC with mutual TLS.
    #[command(flatten)]
    pub cluster: WrittenCluster,
    /// The plain HTTP listener for health checks and metrics.
    #[command(flatten)]
    pub ops: WrittenOps,
}

/// `[gateway]`: the plain HTTP listener, and what holds for both gateway listeners.
#[derive(Clone, Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct WrittenGateway {
    /// Where plain HTTP is served, or `off`. [default: 0.0.0.0:8080]
    #[arg(id = "gateway.bind", long = "gateway-bind", env = "QUORATE_GATEWAY_BIND", value_name = "ADDRESS")]
    pub bind: Option<Bind>,
    /// How clients reach it: shown in `members list`. [default: the host of `cluster.advertise` and the port of `bind`]
    #[arg(
        id = "gateway.advertise",
        long = "gateway-advertise",
        env = "QUORATE_GATEWAY_ADVERTISE",
        value_name = "ADDRESS"
    )]
    pub advertise: Option<Address>,
    /// Threads that serve requests, each with its own connections to the upstreams; 0 for one a core. [default: 0]
    #[arg(id = "gateway.workers", long = "gateway-workers", env = "QUORATE_GATEWAY_WORKERS", value_name = "NUMBER")]
    pub workers: Option<u16>,
    /// The most client connections at a time; further ones are closed at once. [default: 10000]
    #[arg(
        id = "gateway.connections_max",
        long = "gateway-connections-max",
        env = "QUORATE_GATEWAY_CONNECTIONS_MAX",
        value_name = "NUMBER"
    )]
    pub connections_max: Option<u32>,
    /// The most of these from one address (IPv6: from one /64) that is not in `trusted_proxies`. [default: a quarter of
    /// `connections_max`]
    #[arg(
        id = "gateway.connections_per_address_max",
        long = "gateway-connections-per-address-max",
        env = "QUORATE_GATEWAY_CONNECTIONS_PER_ADDRESS_MAX",
        value_name = "NUMBER"
    )]
    pub connections_per_address_max: Option<u32>,
    /// The most requests in flight; further ones are answered with 503 `overloaded` at once. [default: 10000]
    #[arg(
        id = "gateway.requests_max",
        long = "gateway-requests-max",
        env = "QUORATE_GATEWAY_REQUESTS_MAX",
        value_name = "NUMBER"
    )]
    pub requests_max: Option<u32>,
    /// How late a worker may get to what is due before it answers new requests with 503 `overloaded`. [default: 1s]
    #[arg(id = "gateway.lag_max", long = "gateway-lag-max", env = "QUORATE_GATEWAY_LAG_MAX", value_name = "TIME")]
    pub lag_max: Option<Span>,
    /// Above so much memory of the process, new requests are answered with 503 `overloaded` and new connections closed.
    /// [default: 80 % of what the control group allows, or of what the machine has]
    #[arg(
        id = "gateway.memory_max",
        long = "gateway-memory-max",
        env = "QUORATE_GATEWAY_MEMORY_MAX",
        value_name = "SIZE"
    )]
    pub memory_max: Option<Bytes>,
    /// The least bytes a second of a request body that the gateway waits for, taken over `idle_timeout`; a slower client is
    /// let go. [default: 100]
    #[arg(
        id = "gateway.body_rate_min",
        long = "gateway-body-rate-min",
        env = "QUORATE_GATEWAY_BODY_RATE_MIN",
        value_name = "SIZE"
    )]
    pub body_rate_min: Option<Bytes>,
    /// The most headers of a request; more are answered with 431. [default: 100]
    #[arg(
        id = "gateway.headers_max",
        long = "gateway-headers-max",
        env = "QUORATE_GATEWAY_HEADERS_MAX",
        value_name = "NUMBER"
    )]
    pub headers_max: Option<u16>,
    /// The most bytes of the headers of a request; more are answered with 431. [default: 64KiB]
    #[arg(
        id = "gateway.header_bytes_max",
        long = "gateway-header-bytes-max",
        env = "QUORATE_GATEWAY_HEADER_BYTES_MAX",
        value_name = "SIZE"
    )]
    pub header_bytes_max: Option<Bytes>,
    /// The most bytes of the body of a request; more are answered with 413. [default: 64MiB]
    #[arg(
        id = "gateway.body_bytes_max",
        long = "gateway-body-bytes-max",
        env = "QUORATE_GATEWAY_BODY_BYTES_MAX",
        value_name = "SIZE"
    )]
    pub body_bytes_max: Option<Bytes>,
    /// How long a client may take to send the headers of a request. [default: 10s]
    #[arg(
        id = "gateway.header_timeout",
        long = "gateway-header-timeout",
        env = "QUORATE_GATEWAY_HEADER_TIMEOUT",
        value_name = "TIME"
    )]
    pub header_timeout: Option<Span>,
    /// How long a connection may be silent, between requests or within one. [default: 75s]
    #[arg(
        id = "gateway.idle_timeout",
        long = "gateway-idle-timeout",
        env = "QUORATE_GATEWAY_IDLE_TIMEOUT",
        value_name = "TIME"
    )]
    pub idle_timeout: Option<Span>,
    /// Networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed. [default: none]
    #[arg(
        id = "gateway.trusted_proxies",
        long = "gateway-trusted-proxies",
        env = "QUORATE_GATEWAY_TRUSTED_PROXIES",
        value_name = "NETWORK,…",
        value_delimiter = ','
    )]
    pub trusted_proxies: Option<Vec<IpNet>>,
    /// Whether responses carry `X-Quorate-Node`. [default: true]
    #[arg(
        id = "gateway.node_header",
        long = "gateway-node-header",
        env = "QUORATE_GATEWAY_NODE_HEADER",
        value_name = "true|false"
    )]
    pub node_header: Option<bool>,
}

/// `[gateway_tls]`: the HTTPS listener. It is served once there is a certificate.
#[derive(Clone, Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct WrittenGatewayTls {
    /// Where HTTPS is served, or `off`. [default: 0.0.0.0:8443 with certificates, else off]
    #[arg(
        id = "gateway_tls.bind",
        long = "gateway-tls-bind",
        env = "QUORATE_GATEWAY_TLS_BIND",
        value_name = "ADDRESS"
    )]
    pub bind: Option<Bind>,
    /// How clients reach it: shown in `members list`. [default: the host of `cluster.advertise` and the port of `bind`]
    #[arg(
        id = "gateway_tls.advertise",
        long = "gateway-tls-advertise",
        env = "QUORATE_GATEWAY_TLS_ADVERTISE",
        value_name = "ADDRESS"
    )]
    pub advertise: Option<Address>,
    /// Certificates, chosen by the name that a client asks for; the first one serves all other names. In the file a list
    /// of tables `{ certificate = "chain.pem", key = "key.pem" }`. Read again on SIGHUP. [default: none]
    #[arg(
        id = "gateway_tls.certificates",
        long = "gateway-tls-certificates",
        env = "QUORATE_GATEWAY_TLS_CERTIFICATES",
        value_name = "CHAIN.pem:KEY.pem,…",
        value_delimiter = ','
    )]
    pub certificates: Option<Vec<CertificateFiles>>,
    /// A file of authorities in PEM. Clients are asked for a certificate of one of them. Read again on SIGHUP. [default: none]
    #[arg(
        id = "gateway_tls.client_ca",
        long = "gateway-tls-client-ca",
        env = "QUORATE_GATEWAY_TLS_CLIENT_CA",
        value_name = "FILE"
    )]
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is refused (`required`) or served all the same (`optional`).
    /// [default: required with `client_ca`]
    #[arg(
        id = "gateway_tls.client_certificates",
        long = "gateway-tls-client-certificates",
        env = "QUORATE_GATEWAY_TLS_CLIENT_CERTIFICATES",
        value_name = "required|optional"
    )]
    pub client_certificates: Option<ClientCertificates>,
    /// Files of revocation lists in PEM, one for each authority that signs clients. Read again on SIGHUP. [default: none]
    #[arg(
        id = "gateway_tls.client_revoked",
        long = "gateway-tls-client-revoked",
        env = "QUORATE_GATEWAY_TLS_CLIENT_REVOKED",
        value_name = "FILE,…",
        value_delimiter = ','
    )]
    pub client_revoked: Option<Vec<PathBuf>>,
    /// The most TLS handshakes in progress; further connections are closed at once. [default: 1000]
    #[arg(
        id = "gateway_tls.handshakes_max",
        long = "gateway-tls-handshakes-max",
        env = "QUORATE_GATEWAY_TLS_HANDSHAKES_MAX",
        value_name = "NUMBER"
    )]
    pub handshakes_max: Option<u32>,
    /// How long a TLS handshake may take. [default: 10s]
    #[arg(
        id = "gateway_tls.handshake_timeout",
        long = "gateway-tls-handshake-timeout",
        env = "QUORATE_GATEWAY_TLS_HANDSHAKE_TIMEOUT",
        value_name = "TIME"
    )]
    pub handshake_timeout: Option<Span>,
}

/// `[cluster]`: the listener for nodes and operators.
#[derive(Clone, Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct WrittenCluster {
    /// Where nodes and operators are served. [default: 0.0.0.0:7400]
    #[arg(id = "cluster.bind", long = "cluster-bind", env = "QUORATE_CLUSTER_BIND", value_name = "ADDRESS")]
    pub bind: Option<Bind>,
    /// How the other nodes and operators reach it. [default: the address of `bind`, or the host name where that is every
    /// address]
    #[arg(
        id = "cluster.advertise",
        long = "cluster-advertise",
        env = "QUORATE_CLUSTER_ADVERTISE",
        value_name = "ADDRESS"
    )]
    pub advertise: Option<Address>,
}

/// `[ops]`: the listener for health checks and metrics.
#[derive(Clone, Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct WrittenOps {
    /// Where `/livez`, `/readyz`, `/serving`, `/metrics` and `/status` are served, or `off`. Plain HTTP, open to whoever
    /// reaches it. [default: 0.0.0.0:9400]
    #[arg(id = "ops.bind", long = "ops-bind", env = "QUORATE_OPS_BIND", value_name = "ADDRESS")]
    pub bind: Option<Bind>,
    /// How others reach it: shown in `members list`. [default: the host of `cluster.advertise` and the port of `bind`]
    #[arg(id = "ops.advertise", long = "ops-advertise", env = "QUORATE_OPS_ADVERTISE", value_name = "ADDRESS")]
    pub advertise: Option<Address>,
}

/// Takes each field from the first that has it.
macro_rules! first_of {
    ($over:ident, $under:ident; $($field:ident),* $(,)?) => {
        Self { $($field: $over.$field.or($under.$field),)* }
    };
}

impl Written {
    /// These settings, and where they say nothing, those.
    #[must_use]
    pub fn or(self, under: Self) -> Self {
        Self {
            gateway: self.gateway.or(under.gateway),
            gateway_tls: self.gateway_tls.or(under.gateway_tls),
            cluster: self.cluster.or(under.cluster),
            ops: self.ops.or(under.ops),
            name: self.name.or(under.name),
            data_dir: self.data_dir.or(under.data_dir),
            zone: self.zone.or(under.zone),
            timing: self.timing.or(under.timing),
            voters: self.voters.or(under.voters),
            drain_delay: self.drain_delay.or(under.drain_delay),
            drain_timeout: self.drain_timeout.or(under.drain_timeout),
            disk_free_min: self.disk_free_min.or(under.disk_free_min),
            log_level: self.log_level.or(under.log_level),
            log_format: self.log_format.or(under.log_format),
            access_log: self.access_log.or(under.access_log),
        }
    }
}

impl WrittenGateway {
    fn or(self, under: Self) -> Self {
        first_of!(self, under; bind, advertise, workers, connections_max,
            connections_per_address_max, requests_max, lag_max, memory_max, body_rate_min, headers_max, header_bytes_max, body_bytes_max,
            header_timeout, idle_timeout, trusted_proxies, node_header)
    }
}

impl WrittenGatewayTls {
    fn or(self, under: Self) -> Self {
        first_of!(self, under; bind, advertise, certificates, client_ca, client_certificates, client_revoked,
            handshakes_max, handshake_timeout)
    }
}

impl WrittenCluster {
    fn or(self, under: Self) -> Self {
        first_of!(self, under; bind, advertise)
    }
}

impl WrittenOps {
    fn or(self, under: Self) -> Self {
        first_of!(self, under; bind, advertise)
    }
}

//! What a node is told when it starts: settings from the command line, the environment and a TOML file, checked and with
//! defaults filled in. Inside the program only [`Settings`] exists. Settings of the whole cluster are not here: they are
//! replicated.

pub mod check;
pub mod value;
pub mod written;

use machine::Name;
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use value::{AccessLog, Address, Bind, CertificateFiles, ClientCertificates, LogFormat, Timing};
pub use written::Written;

/// Settings of a node, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Unique in the cluster.
    pub name: Name,
    /// The folder of everything that the node keeps.
    pub data_dir: PathBuf,
    /// The failure domain.
    pub zone: Option<String>,
    /// The timing profile.
    pub timing: Timing,
    /// How many nodes vote, for `init`.
    pub voters: u8,
    /// How long listeners still accept after SIGTERM.
    pub drain_delay: Duration,
    /// How long requests in flight may take after that.
    pub drain_timeout: Duration,
    /// The low-disk watermark in bytes.
    pub disk_free_min: u64,
    /// What the node logs about itself.
    pub log: Log,
    /// Where the access log goes.
    pub access_log: AccessLog,
    /// The data plane.
    pub gateway: Gateway,
    /// The listener for nodes and operators.
    pub cluster: Listener,
    /// The listener for health checks and metrics.
    pub ops: Option<Listener>,
}

/// What the node logs about itself.
#[derive(Clone, Debug)]
pub struct Log {
    /// Directives of tracing's filter.
    pub level: String,
    /// Text or JSON.
    pub format: LogFormat,
}

/// Where to listen, and how others get there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The address to listen on.
    pub bind: SocketAddr,
    /// `host:port` for others.
    pub advertise: String,
}

/// Settings of the data plane.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Plain HTTP.
    pub plain: Option<Listener>,
    /// HTTPS, with at least one certificate.
    pub tls: Option<TlsListener>,
    /// Threads; never 0.
    pub workers: usize,
    /// The most client connections at a time.
    pub connections_max: usize,
    /// The most of these from one address.
    pub connections_per_address_max: usize,
    /// The most requests in flight.
    pub requests_max: usize,
    /// How late workers may be before requests are refused.
    pub lag_max: Duration,
    /// Memory in bytes, above which requests are refused; none: a part of what there is.
    pub memory_max: Option<u64>,
    /// The least bytes a second of a request body.
    pub body_rate_min: u64,
    /// The most headers of a request.
    pub headers_max: usize,
    /// The most bytes of the headers of a request.
    pub header_bytes_max: usize,
    /// The most bytes of the body of a request.
    pub body_bytes_max: u64,
    /// How long the headers of a request may take.
    pub header_timeout: Duration,
    /// How long a connection may be silent.
    pub idle_timeout: Duration,
    /// Proxies whose `X-Forwarded-*` are believed.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Whether responses carry `X-Quorate-Node`.
    pub node_header: bool,
}

/// The HTTPS listener.
#[derive(Clone, Debug)]
pub struct TlsListener {
    /// Where it is.
    pub listener: Listener,
    /// Its certificates, at least one.
    pub certificates: Vec<CertificateFiles>,
    /// Whose certificates clients may show.
    pub clients: Option<ClientFiles>,
    /// The most handshakes in progress.
    pub handshakes_max: usize,
    /// How long one may take.
    pub handshake_timeout: Duration,
}

/// Files by which certificates of clients are judged.
#[derive(Clone, Debug)]
pub struct ClientFiles {
    /// The authorities, in PEM.
    pub authorities: PathBuf,
    /// Revocation lists, in PEM.
    pub revoked: Vec<PathBuf>,
    /// Whether a client must have one.
    pub required: bool,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", .file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file says something that cannot be.
    #[error("{}:{line}:{column}: {message}", .file.display())]
    Invalid {
        /// Which.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// A setting, wherever it was written, does not go.
    #[error("{setting}: {message}")]
    Setting {
        /// As the file names it.
        setting: &'static str,
        /// What is wrong.
        message: String,
    },
}

/// A settings file is written by hand; a larger one is something else.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Reads the file, if one is named, puts what was written elsewhere over it, and checks the whole.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn load(file: Option<&Path>, over: Written) -> Result<Settings, ConfigError> {
    let under = match file {
        Some(file) => parse(file, &read(file)?)?,
        None => Written::default(),
    };
    settle(over.or(under))
}

/// Reads a file of bounded size.
fn read(file: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { file: file.to_owned(), source };
    let length = std::fs::metadata(file).map_err(unreadable)?.len();
    if length > FILE_BYTES_MAX {
        return Err(unreadable(std::io::Error::other("it is larger than 1 MiB")));
    }
    std::fs::read_to_string(file).map_err(unreadable)
}

/// The settings that a text in TOML writes. Relative paths in it are taken from the folder of the file.
///
/// # Errors
/// The first thing that is wrong, with line and column.
pub fn parse(file: &Path, text: &str) -> Result<Written, ConfigError> {
    let mut written: Written = toml::from_str(text).map_err(|error| {
        let (line, column) = place(text, error.span().map_or(0, |span| span.start));
        ConfigError::Invalid { file: file.to_owned(), line, column, message: error.message().to_owned() }
    })?;
    let folder = file.parent().unwrap_or(Path::new(""));
    if let Some(data_dir) = &mut written.data_dir {
        *data_dir = folder.join(&data_dir);
    }
    if let Some(AccessLog::File(path)) = &mut written.access_log {
        *path = folder.join(&path);
    }
    let tls = &mut written.gateway_tls;
    for files in tls.certificates.iter_mut().flatten() {
        files.resolve(folder);
    }
    for file in tls.client_ca.iter_mut().chain(tls.client_revoked.iter_mut().flatten()) {
        *file = folder.join(&file);
    }
    Ok(written)
}

/// Line and column, from 1, of a byte of a text.
fn place(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte.min(text.len())).unwrap_or("");
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
    (line, column)
}

/// Fills in defaults and checks what one field alone cannot show.
///
/// # Errors
/// The first setting that does not go.
pub fn settle(written: Written) -> Result<Settings, ConfigError> {
    let host = host_name();
    let name = match written.name {
        Some(name) => Name::new(&name),
        None => Name::new(host.split('.').next().unwrap_or("")),
    }
    .map_err(|error| setting("name", error.to_string()))?;

    let voters = written.voters.unwrap_or(3);
    if !matches!(voters, 1 | 3 | 5 | 7) {
        return Err(setting("voters", format!("{voters} nodes cannot vote: it is 1, 3, 5 or 7")));
    }
    let level = written.log_level.unwrap_or_else(|| "info".to_owned());
    if let Err(error) = level.parse::<tracing_subscriber::filter::Targets>() {
        return Err(setting("log_level", format!("{level:?} is not a level or a list of directives: {error}")));
    }
    let zone = written.zone.filter(|zone| !zone.is_empty());
    if zone.as_ref().is_some_and(|zone| zone.len() > machine::cap::MEMBER_TEXT_BYTES_MAX) {
        return Err(setting("zone", format!("is longer than {} bytes", machine::cap::MEMBER_TEXT_BYTES_MAX)));
    }

    let cluster_bind = match written.cluster.bind.unwrap_or(every_address(7400)) {
        Bind::At(bind) => bind,
        Bind::Off => return Err(setting("cluster.bind", "the cluster listener cannot be off".to_owned())),
    };
    let cluster_advertise = match written.cluster.advertise {
        Some(Address(address)) => address,
        None if cluster_bind.ip().is_unspecified() => format!("{host}:{}", cluster_bind.port()),
        None => cluster_bind.to_string(),
    };
    let cluster = Listener { bind: cluster_bind, advertise: cluster_advertise };
    if cluster.bind.port() == 0 {
        return Err(setting("cluster.bind", "needs a port: the other nodes remember it".to_owned()));
    }

    let gateway = settle_gateway(written.gateway, written.gateway_tls, &cluster)?;
    let ops = listener(written.ops.bind.unwrap_or(every_address(9400)), written.ops.advertise, &cluster);

    let settings = Settings {
        name,
        // Messages name it, and whoever reads them may be elsewhere.
        data_dir: std::path::absolute(written.data_dir.unwrap_or_else(|| PathBuf::from("/var/lib/quorate")))
            .map_err(|error| setting("data_dir", error.to_string()))?,
        zone,
        timing: written.timing.unwrap_or_default(),
        voters,
        drain_delay: written.drain_delay.map_or(Duration::from_secs(5), |span| span.0),
        drain_timeout: written.drain_timeout.map_or(Duration::from_secs(30), |span| span.0),
        disk_free_min: written.disk_free_min.map_or(256 * 1024 * 1024, |bytes| bytes.0),
        log: Log { level, format: written.log_format.unwrap_or_default() },
        access_log: written.access_log.unwrap_or_default(),
        gateway,
        cluster,
        ops,
    };
    refuse_shared_addresses(&settings)?;
    Ok(settings)
}

fn settle_gateway(
    written: written::WrittenGateway,
    tls: written::WrittenGatewayTls,
    cluster: &Listener,
) -> Result<Gateway, ConfigError> {
    let certificates = tls.certificates.unwrap_or_default();
    let clients = match (tls.client_ca, tls.client_certificates, tls.client_revoked) {
        (Some(authorities), wish, revoked) => Some(ClientFiles {
            authorities,
            revoked: revoked.unwrap_or_default(),
            required: wish.unwrap_or_default() == ClientCertificates::Required,
        }),
        (None, None, None) => None,
        (None, ..) => {
            return Err(setting(
                "gateway_tls.client_ca",
                "is needed to judge certificates of clients: set it, or leave out what else is said of them".to_owned(),
            ));
        }
    };
    let tls_bind = match tls.bind {
        Some(Bind::At(_)) if certificates.is_empty() => {
            return Err(setting(
                "gateway_tls.bind",
                "HTTPS needs a certificate: set gateway_tls.certificates, or leave both out".to_owned(),
            ));
        }
        Some(bind) => bind,
        None if certificates.is_empty() => Bind::Off,
        None => every_address(8443),
    };
    let header_bytes_max = written.header_bytes_max.map_or(64 * 1024, |bytes| bytes.0);
    if !(8 * 1024..=1024 * 1024).contains(&header_bytes_max) {
        // hyper reads headers into one buffer and refuses to be given less than 8 KiB for it.
        return Err(setting("gateway.header_bytes_max", "must be between 8KiB and 1MiB".to_owned()));
    }
    let connections_max = written.connections_max.unwrap_or(10_000);
    let headers_max = written.headers_max.unwrap_or(100);
    let connections_per_address_max = written.connections_per_address_max.unwrap_or(connections_max.div_ceil(4));
    let requests_max = written.requests_max.unwrap_or(10_000);
    let handshakes_max = tls.handshakes_max.unwrap_or(1_000);
    for (name, value) in [
        ("gateway.connections_max", connections_max),
        ("gateway.connections_per_address_max", connections_per_address_max),
        ("gateway.requests_max", requests_max),
        ("gateway_tls.handshakes_max", handshakes_max),
        ("gateway.headers_max", u32::from(headers_max)),
    ] {
        if value == 0 {
            return Err(setting(name, "must be more than 0".to_owned()));
        }
    }
    let header_timeout = written.header_timeout.map_or(Duration::from_secs(10), |span| span.0);
    let idle_timeout = written.idle_timeout.map_or(Duration::from_secs(75), |span| span.0);
    let lag_max = written.lag_max.map_or(Duration::from_secs(1), |span| span.0);
    let handshake_timeout = tls.handshake_timeout.map_or(Duration::from_secs(10), |span| span.0);
    for (name, value) in [
        ("gateway.header_timeout", header_timeout),
        ("gateway.idle_timeout", idle_timeout),
        ("gateway.lag_max", lag_max),
        ("gateway_tls.handshake_timeout", handshake_timeout),
    ] {
        if value.is_zero() {
            return Err(setting(name, "must be more than 0".to_owned()));
        }
    }
    let workers = match written.workers.unwrap_or(0) {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => usize::from(workers),
    };
    if workers > WORKERS_MAX {
        return Err(setting("gateway.workers", format!("must be at most {WORKERS_MAX}")));
    }
    Ok(Gateway {
        plain: listener(written.bind.unwrap_or(every_address(8080)), written.advertise, cluster),
        tls: listener(tls_bind, tls.advertise, cluster).map(|listener| TlsListener {
            listener,
            certificates,
            clients,
            handshakes_max: usize::try_from(handshakes_max).unwrap_or(usize::MAX),
            handshake_timeout,
        }),
        workers,
        connections_max: usize::try_from(connections_max).unwrap_or(usize::MAX),
        connections_per_address_max: usize::try_from(connections_per_address_max).unwrap_or(usize::MAX),
        requests_max: usize::try_from(requests_max).unwrap_or(usize::MAX),
        lag_max,
        memory_max: written.memory_max.map(|bytes| bytes.0),
        body_rate_min: written.body_rate_min.map_or(100, |bytes| bytes.0),
        headers_max: usize::from(headers_max),
        header_bytes_max: usize::try_from(header_bytes_max).unwrap_or(usize::MAX),
        body_bytes_max: written.body_bytes_max.map_or(64 * 1024 * 1024, |bytes| bytes.0),
        header_timeout,
        idle_timeout,
        trusted_proxies: written.trusted_proxies.unwrap_or_default(),
        node_header: written.node_header.unwrap_or(true),
    })
}

/// More threads than any machine has cores for.
const WORKERS_MAX: usize = 512;

/// Two listeners on one address would fail much later, with a message about a port in use.
fn refuse_shared_addresses(settings: &Settings) -> Result<(), ConfigError> {
    let binds = [
        ("gateway.bind", settings.gateway.plain.as_ref().map(|listener| listener.bind)),
        ("gateway_tls.bind", settings.gateway.tls.as_ref().map(|tls| tls.listener.bind)),
        ("cluster.bind", Some(settings.cluster.bind)),
        ("ops.bind", settings.ops.as_ref().map(|listener| listener.bind)),
    ];
    let mut taken: Vec<(&'static str, SocketAddr)> = Vec::new();
    for (name, bind) in
        binds.into_iter().filter_map(|(name, bind)| Some((name, bind?))).filter(|(_, bind)| bind.port() != 0)
    {
        let other = taken.iter().find(|(_, other)| {
            other.port() == bind.port()
                && (other.ip() == bind.ip() || other.ip().is_unspecified() || bind.ip().is_unspecified())
        });
        if let Some((other, _)) = other {
            return Err(setting(name, format!("{bind} is also {other}: each listener needs its own port")));
        }
        taken.push((name, bind));
    }
    Ok(())
}

fn listener(bind: Bind, advertise: Option<Address>, cluster: &Listener) -> Option<Listener> {
    let Bind::At(bind) = bind else { return None };
    let advertise = match advertise {
        Some(Address(address)) => address,
        None if bind.ip().is_unspecified() => {
            let host = cluster.advertise.rsplit_once(':').map_or("localhost", |(host, _)| host);
            format!("{host}:{}", bind.port())
        }
        None => bind.to_string(),
    };
    Some(Listener { bind, advertise })
}

const fn every_address(port: u16) -> Bind {
    Bind::At(SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), port))
}

fn setting(setting: &'static str, message: String) -> ConfigError {
    ConfigError::Setting { setting, message }
}

/// The name of this machine, as the kernel knows it.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests;

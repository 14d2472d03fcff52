//! The clients: one thread, many connections that are kept alive. As fast as answers come (closed loop), or at a constant rate whatever
//! the answers do (open loop: latency counts from when a request was due). Rooms: `http1`, `http2`, what is spoken on a connection;
//! `clock`, when requests are due.

mod clock;
mod http1;
mod http2;

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io::{Error, Result},
    net::SocketAddr,
    path::Path,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::{
    net::TcpStream,
    sync::{Notify, oneshot},
};
use tokio_rustls::TlsConnector;

/// What is spoken to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 over TCP.
    Plain,
    /// HTTP/1.1 over TLS 1.3.
    Tls,
    /// HTTP/2 over TLS 1.3.
    Http2,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// Each connection sends the next one when it has its answer.
    Closed,
    /// So many a second.
    Open(u32),
}

/// Connections of HTTP/1.1, each with one request at a time.
const CONNECTIONS: usize = 64;
/// Connections of HTTP/2.
const CONNECTIONS_HTTP2: usize = 16;
/// Requests that each of those has under way.
const STREAMS: usize = 8;
/// A connection that failed is opened again after so long.
const PAUSE: Duration = Duration::from_millis(20);

/// Where requests go, and what they are.
#[derive(Clone, Debug)]
pub struct Target {
    /// The gateways: connections and, in an open loop, requests go to each in turn.
    pub addresses: Vec<SocketAddr>,
    /// What is spoken.
    pub protocol: Protocol,
    /// Sent as `X-Api-Key`, one after the other; none at all where this is empty.
    pub keys: Vec<String>,
    /// What the gateway's certificate must chain to.
    pub authority: std::path::PathBuf,
}

/// Clients that are at work.
#[derive(Debug)]
pub struct Load {
    counts: Arc<Counts>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Vec<u64>>,
}

/// What became of the requests so far.
#[derive(Debug, Default)]
struct Counts {
    open: AtomicU64,
    done: AtomicU64,
    limited: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    /// Open loop: as many as were due.
    offered: AtomicU64,
    record: AtomicBool,
    hold: AtomicBool,
}

/// What became of requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// Due so far, in an open loop.
    pub offered: u64,
    /// Answered with 200.
    pub done: u64,
    /// Answered with 429.
    pub limited: u64,
    /// Answered with anything else.
    pub refused: u64,
    /// Not answered.
    pub failed: u64,
}

/// What the tasks of the thread share.
struct Shared {
    counts: Arc<Counts>,
    pace: Pace,
    /// Of each gateway.
    lanes: Vec<Lane>,
    latencies: RefCell<Vec<u64>>,
    next: Cell<usize>,
}

/// Open loop: what is due at a gateway.
#[derive(Default)]
struct Lane {
    /// When those were due that no connection has taken yet.
    due: RefCell<VecDeque<Instant>>,
    wake: Notify,
}

impl Load {
    /// Starts them; returns once all connections are open.
    ///
    /// # Errors
    /// They do not open.
    pub fn start(target: &Target, pace: Pace) -> std::result::Result<Self, String> {
        let counts = Arc::new(Counts::default());
        let (stop, stopped) = oneshot::channel();
        let (target, theirs) = (target.clone(), Arc::clone(&counts));
        let wanted = if target.protocol == Protocol::Http2 { CONNECTIONS_HTTP2 } else { CONNECTIONS };
        let (ended, has_ended) = mpsc::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || {
                let _ended = ended;
                run(&target, pace, wanted, theirs, stopped)
            })
            .expect("a thread");
        let load = Self { counts, stop, thread };
        let began = Instant::now();
        while load.counts.open.load(Ordering::Relaxed) < wanted as u64 {
            if began.elapsed() > Duration::from_secs(20)
                || has_ended.try_recv() == Err(mpsc::TryRecvError::Disconnected)
            {
                return Err(format!("of {wanted} connections not all open: {:?}", load.counts));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(load)
    }

    /// What became of the requests so far.
    pub fn count(&self) -> Count {
        Count {
            offered: self.counts.offered.load(Ordering::Relaxed),
            done: self.counts.done.load(Ordering::Relaxed),
            limited: self.counts.limited.load(Ordering::Relaxed),
            refused: self.counts.refused.load(Ordering::Relaxed),
            failed: self.counts.failed.load(Ordering::Relaxed),
        }
    }

    /// From now on latencies are remembered.
    pub fn record(&self) {
        self.counts.record.store(true, Ordering::Relaxed);
    }

    /// From now on no more requests are due.
    pub fn hold(&self) {
        self.counts.hold.store(true, Ordering::Relaxed);
    }

    /// Stops them: the latencies that were recorded, in nanoseconds, the shortest first.
    pub fn stop(self) -> Vec<u64> {
        let _ = self.stop.send(());
        let mut latencies = self.thread.join().expect("the load does not panic");
        latencies.sort_unstable();
        latencies
    }
}

fn run(
    target: &Target,
    pace: Pace,
    connections: usize,
    counts: Arc<Counts>,
    stopped: oneshot::Receiver<()>,
) -> Vec<u64> {
    let shared = Rc::new(Shared {
        counts,
        pace,
        lanes: target.addresses.iter().map(|_| Lane::default()).collect(),
        latencies: RefCell::default(),
        next: Cell::new(0),
    });
    let requests = Rc::new(match target.protocol {
        Protocol::Http2 => http2::requests(&target.keys),
        Protocol::Plain | Protocol::Tls => http1::requests(&target.keys),
    });
    let tls = connector(target);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let tasks = tokio::task::LocalSet::new();
    for number in 0..connections {
        let lane = number % target.addresses.len();
        let (shared, requests, tls, target) = (Rc::clone(&shared), Rc::clone(&requests), tls.clone(), target.clone());
        tasks.spawn_local(async move {
            loop {
                let ended = connection(&target, lane, &tls, &requests, &shared).await;
                if ended.is_err() {
                    shared.counts.failed.fetch_add(1, Ordering::Relaxed);
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
    if let Pace::Open(rate) = pace {
        tasks.spawn_local(clock::tick(rate, Rc::clone(&shared)));
    }
    let _ = tasks.block_on(&runtime, stopped);
    drop(tasks);
    shared.latencies.take()
}

async fn connection(
    target: &Target,
    lane: usize,
    tls: &TlsConnector,
    requests: &[Vec<u8>],
    shared: &Shared,
) -> Result<()> {
    let tcp = TcpStream::connect(target.addresses[lane]).await?;
    tcp.set_nodelay(true)?;
    if target.protocol == Protocol::Plain {
        return http1::speak(tcp, requests, shared, lane).await;
    }
    let name = ServerName::try_from("localhost").map_err(Error::other)?;
    let stream = tls.connect(name, tcp).await?;
    match target.protocol {
        Protocol::Http2 => http2::speak(stream, requests, shared, STREAMS).await,
        Protocol::Plain | Protocol::Tls => http1::speak(stream, requests, shared, lane).await,
    }
}

/// One cipher suite, so that each gateway encrypts with the same.
fn connector(target: &Target) -> TlsConnector {
    let provider = rustls::crypto::CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        ..aws_lc_rs::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots(&target.authority))
        .with_no_client_auth();
    let protocol: &[u8] = if target.protocol == Protocol::Http2 { b"h2" } else { b"http/1.1" };
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsConnector::from(Arc::new(config))
}

fn roots(file: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).expect("a PEM file") {
        roots.add(certificate.expect("a certificate")).expect("an authority");
    }
    roots
}

impl Shared {
    /// When the next request is due on a connection that is free: at once, or when the clock says so.
    async fn turn(&self, lane: usize) -> Option<Instant> {
        if matches!(self.pace, Pace::Closed) {
            return None;
        }
        let lane = &self.lanes[lane];
        loop {
            if let Some(due) = lane.due.borrow_mut().pop_front() {
                return Some(due);
            }
            lane.wake.notified().await;
        }
    }

    /// The number of the next request, which is that of its key.
    fn next(&self, of: usize) -> usize {
        let next = self.next.get();
        self.next.set(if next + 1 == of { 0 } else { next + 1 });
        next
    }

    fn opened(&self) {
        self.counts.open.fetch_add(1, Ordering::Relaxed);
    }

    fn answered(&self, status: [u8; 3], due: Option<Instant>) {
        let count = match &status {
            b"200" => &self.counts.done,
            b"429" => &self.counts.limited,
            _ => &self.counts.refused,
        };
        count.fetch_add(1, Ordering::Relaxed);
        if let Some(due) = due
            && self.counts.record.load(Ordering::Relaxed)
        {
            let nanoseconds = u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.latencies.borrow_mut().push(nanoseconds);
        }
    }
}

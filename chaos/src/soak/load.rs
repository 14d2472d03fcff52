//! Good clients: each keeps a connection and asks on it now and then, with another key each time. They speak just enough HTTP/1.1, so
//! that ten thousand of them cost less than what they ask of.

use crate::sim::random::Random;
use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tests::runtime::runtime;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

/// An answer that takes longer counts as lost.
const PATIENCE: Duration = Duration::from_secs(20);
/// Before a connection that broke is made again.
const AGAIN: Duration = Duration::from_millis(500);
/// Addresses that clients come from: a node may have a cap for each.
const CLIENT_ADDRESSES: usize = 128;
/// The longest head and body of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What clients ask.
#[derive(Debug)]
pub struct Targets {
    /// Of whom.
    pub gateways: Vec<SocketAddr>,
    /// With these credentials in turn.
    pub keys: Vec<String>,
    /// How often each client asks.
    pub period: Duration,
}

/// What happened since it was last asked.
#[derive(Clone, Debug, Default)]
pub struct Happened {
    /// Microseconds from each request to the end of its answer, in no order.
    pub latencies_us: Vec<u32>,
    /// Answers by status; 0 for those that were lost.
    pub answers: BTreeMap<u16, u64>,
    /// Connections that are open now.
    pub open: usize,
    /// Connections that broke, or could not be made.
    pub broken: u64,
}

/// Good clients at work.
#[derive(Debug)]
pub struct Load(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    open: AtomicUsize,
    broken: AtomicU64,
    happened: Mutex<Happened>,
}

impl Load {
    /// Starts as many clients.
    #[must_use]
    pub fn start(targets: &Arc<Targets>, clients: usize, seed: u64) -> Self {
        let shared = Arc::new(Shared::default());
        for client in 0..clients {
            let (shared, targets) = (Arc::clone(&shared), Arc::clone(targets));
            let random = Random::new(seed.wrapping_mul(0x9e37).wrapping_add(client as u64));
            runtime().spawn(async move { ask_on(&shared, &targets, client, random).await });
        }
        Self(shared)
    }

    /// What happened since the last call.
    #[must_use]
    pub fn take(&self) -> Happened {
        let mut taken = std::mem::take(&mut *self.0.happened.lock().unwrap_or_else(PoisonError::into_inner));
        taken.open = self.0.open.load(Ordering::Relaxed);
        taken.broken = self.0.broken.swap(0, Ordering::Relaxed);
        taken
    }

    /// Nobody asks any more.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// The address that a client comes from.
pub(super) fn source(client: usize) -> SocketAddr {
    let host = u8::try_from(client % CLIENT_ADDRESSES).unwrap_or(0) + 1;
    SocketAddr::from((Ipv4Addr::new(127, 9, 0, host), 0))
}

/// A connection to one of these from the address of this client; with how much it lets wait unread, if it says so.
pub(super) async fn connect(gateways: &[SocketAddr], client: usize, unread: Option<u32>) -> io::Result<TcpStream> {
    let target = gateways.get(client % gateways.len().max(1)).copied().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let socket = TcpSocket::new_v4()?;
    socket.bind(source(client))?;
    if let Some(bytes) = unread {
        socket.set_recv_buffer_size(bytes)?;
    }
    let stream =
        tokio::time::timeout(PATIENCE, socket.connect(target)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn ask_on(shared: &Shared, targets: &Targets, client: usize, mut random: Random) {
    let period_us = u64::try_from(targets.period.as_micros()).unwrap_or(u64::MAX).max(2);
    while !shared.stop.load(Ordering::Relaxed) {
        // Not all at once, neither at the start nor after all were thrown out.
        tokio::time::sleep(Duration::from_micros(random.between(0, period_us))).await;
        let Ok(mut stream) = connect(&targets.gateways, client, None).await else {
            shared.broken.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        shared.open.fetch_add(1, Ordering::Relaxed);
        loop {
            let status = match ask(&mut stream, targets, &mut random).await {
                Ok((status, took)) => {
                    let mut happened = shared.happened.lock().unwrap_or_else(PoisonError::into_inner);
                    happened.latencies_us.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
                    *happened.answers.entry(status).or_default() += 1;
                    status
                }
                Err(_) => {
                    *shared.happened.lock().unwrap_or_else(PoisonError::into_inner).answers.entry(0).or_default() += 1;
                    0
                }
            };
            if status == 0 || shared.stop.load(Ordering::Relaxed) {
                break;
            }
            tokio::time::sleep(Duration::from_micros(random.between(period_us / 2, period_us * 3 / 2))).await;
        }
        shared.open.fetch_sub(1, Ordering::Relaxed);
        shared.broken.fetch_add(1, Ordering::Relaxed);
    }
}

/// One request and its answer: the status, and how long it took.
async fn ask(stream: &mut TcpStream, targets: &Targets, random: &mut Random) -> io::Result<(u16, Duration)> {
    let key = random.pick(&targets.keys).map_or("", String::as_str);
    let request = format!("GET /soak/x HTTP/1.1\r\nhost: soak.example\r\nx-api-key: {key}\r\n\r\n");
    let began = Instant::now();
    let answered = async {
        stream.write_all(request.as_bytes()).await?;
        answer(stream).await
    };
    let status = tokio::time::timeout(PATIENCE, answered).await.map_err(|_| io::ErrorKind::TimedOut)??;
    Ok((status, began.elapsed()))
}

/// Reads an answer with a length to its end.
async fn answer(stream: &mut TcpStream) -> io::Result<u16> {
    let mut bytes = Vec::with_capacity(512);
    let head = loop {
        if stream.read_buf(&mut bytes).await? == 0 || bytes.len() > ANSWER_BYTES_MAX {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = std::str::from_utf8(bytes.get(..head).unwrap_or_default()).map_err(|_| io::ErrorKind::InvalidData)?;
    let status = text.get(9..12).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let end = head + length.filter(|length| *length <= ANSWER_BYTES_MAX).ok_or(io::ErrorKind::InvalidData)?;
    while bytes.len() < end {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(status)
}

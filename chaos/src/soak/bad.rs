//! Bad clients: who sends slowly, who never sends or never reads, who sends far too much, and who does not speak HTTP at all. A node
//! ends each of them by itself, in bounded time; nobody else notices.

use super::load::connect;
use crate::sim::random::Random;
use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tests::runtime::runtime;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A node that has not ended a bad client by then, beside the time that it gives to everybody, never will.
const PATIENCE: Duration = Duration::from_secs(90);
/// What somebody who never reads lets the kernel keep for them. With what it keeps by itself, megabytes, a node could go on answering
/// for minutes on a busy machine, before anything waits.
const UNREAD_BYTES: u32 = 4 * 1024;

/// What a bad client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A head, one byte at a time.
    SlowHead,
    /// Nothing at all.
    Silent,
    /// Half of a request, and nothing more.
    Half,
    /// Many requests, and never reads an answer.
    NeverReads,
    /// A header without an end.
    Oversize,
    /// A body that is larger than any may be.
    LargeBody,
    /// Bytes by chance.
    Garbage,
    /// Breaks off in the middle, with a reset.
    Reset,
}

const KINDS: [(Kind, &str); 8] = [
    (Kind::SlowHead, "slow-head"),
    (Kind::Silent, "silent"),
    (Kind::Half, "half"),
    (Kind::NeverReads, "never-reads"),
    (Kind::Oversize, "oversize"),
    (Kind::LargeBody, "large-body"),
    (Kind::Garbage, "garbage"),
    (Kind::Reset, "reset"),
];

/// Bad clients at work, until the program ends.
#[derive(Debug)]
pub struct Bad(Arc<[Count; 8]>);

#[derive(Debug, Default)]
struct Count {
    ended: AtomicU64,
    endless: AtomicU64,
}

/// How many of a kind came to their end so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Ended {
    /// The node ended them, or they themselves.
    pub ended: u64,
    /// The node let them go on for longer than it ever should.
    pub endless: u64,
}

impl Bad {
    /// By kind, since the start.
    #[must_use]
    pub fn ended(&self) -> BTreeMap<&'static str, Ended> {
        let count = |count: &Count| Ended {
            ended: count.ended.load(Ordering::Relaxed),
            endless: count.endless.load(Ordering::Relaxed),
        };
        KINDS.iter().zip(self.0.iter()).map(|((_, name), counted)| (*name, count(counted))).collect()
    }
}

/// How many kinds there are.
pub const KINDS_COUNT: usize = KINDS.len();

/// Starts as many, each of another kind each time, on nodes that give everybody so long between two bytes.
#[must_use]
pub fn start(gateways: &[SocketAddr], clients: usize, idle_timeout: Duration, seed: u64) -> Bad {
    let counts: Arc<[Count; 8]> = Arc::default();
    for client in 0..clients {
        let (counts, gateways) = (Arc::clone(&counts), gateways.to_vec());
        let mut random = Random::new(seed ^ 0xbad ^ ((client as u64) << 32));
        runtime().spawn(async move {
            // Each begins with another one, so that the first few have them all.
            for kind in client.. {
                let place = kind % KINDS.len();
                let (Some((kind, _)), Some(count)) = (KINDS.get(place), counts.get(place)) else { return };
                match tokio::time::timeout(idle_timeout + PATIENCE, misbehave(*kind, &gateways, client, &mut random))
                    .await
                {
                    // That no connection could be made is nothing that it did.
                    Ok(Err(Unconnected)) => {}
                    Ok(Ok(())) => drop(count.ended.fetch_add(1, Ordering::Relaxed)),
                    Err(_) => drop(count.endless.fetch_add(1, Ordering::Relaxed)),
                }
                tokio::time::sleep(Duration::from_millis(random.between(50, 500))).await;
            }
        });
    }
    Bad(counts)
}

struct Unconnected;

/// Until the node ends it.
async fn misbehave(kind: Kind, gateways: &[SocketAddr], client: usize, random: &mut Random) -> Result<(), Unconnected> {
    // Each time another node.
    let client = client + usize::try_from(random.between(0, 9)).unwrap_or(0);
    let unread = (kind == Kind::NeverReads).then_some(UNREAD_BYTES);
    let mut stream = connect(gateways, client, unread).await.map_err(|_| Unconnected)?;
    // However it ends, it has ended.
    drop(speak(kind, &mut stream, random).await);
    Ok(())
}

async fn speak(kind: Kind, stream: &mut TcpStream, random: &mut Random) -> io::Result<()> {
    const HEAD: &[u8] = b"GET /soak/x HTTP/1.1\r\nhost: soak.example\r\n";
    match kind {
        Kind::SlowHead => {
            for byte in HEAD.iter().cycle() {
                stream.write_all(&[*byte]).await?;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        Kind::Silent => {}
        Kind::Half => stream.write_all(HEAD).await?,
        Kind::NeverReads => {
            let request = [HEAD, b"\r\n"].concat();
            while stream.write_all(&request).await.is_ok() {}
            return Ok(());
        }
        Kind::Oversize => {
            stream.write_all(HEAD).await?;
            stream.write_all(b"x-endless: ").await?;
            return pour(stream, b"x").await;
        }
        Kind::LargeBody => {
            stream
                .write_all(b"POST /soak/x HTTP/1.1\r\nhost: soak.example\r\ncontent-length: 99999999999\r\n\r\n")
                .await?;
            return pour(stream, &[0]).await;
        }
        Kind::Garbage => {
            let bytes: Vec<u8> = (0..random.between(1, 512)).flat_map(|_| random.next().to_le_bytes()).collect();
            stream.write_all(&bytes).await?;
        }
        Kind::Reset => {
            stream.write_all(HEAD).await?;
            stream.set_zero_linger()?;
            return Ok(());
        }
    }
    read_to_end(stream).await
}

/// Writes until nobody takes it any more, or there is an answer and then the end.
async fn pour(stream: &mut TcpStream, what: &[u8]) -> io::Result<()> {
    let piece = what.repeat(16 * 1024);
    let (mut from, mut to) = stream.split();
    let writing = async { while to.write_all(&piece).await.is_ok() {} };
    let reading = async {
        let mut bytes = [0; 4096];
        while from.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
    };
    tokio::select! {
        () = writing => {}
        () = reading => {}
    }
    Ok(())
}

async fn read_to_end(stream: &mut TcpStream) -> io::Result<()> {
    let mut bytes = [0; 4096];
    while stream.read(&mut bytes).await? > 0 {}
    Ok(())
}

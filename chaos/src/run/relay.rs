//! A relay between two nodes that takes its time: every byte arrives so much later, in order. For kernels that cannot delay packets.
//!
//! It speaks from the second face of the node that connects, so that whatever cuts that node's cable cuts this as well.

use super::network::Bridge;
use anyhow::Context as _;
use std::{
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
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::Instant,
};

/// What is read at once.
const PIECE_BYTES: usize = 16 * 1024;
/// Pieces on their way in one direction: a sender that is faster waits, as it would for a window.
const PIECES_MAX: usize = 256;

/// A relay that runs; its connections break when it is dropped.
#[derive(Debug)]
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    carried: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Starts one for what a node sends to another's listener.
    ///
    /// # Errors
    /// It cannot listen.
    pub fn start(bridge: &Bridge, from: usize, to: usize, target: SocketAddr, delay: Duration) -> anyhow::Result<Self> {
        let (here, face) = (bridge.face(to), bridge.face(from));
        let listener = runtime().block_on(TcpListener::bind((here, 0))).context("a relay's listener")?;
        let address = listener.local_addr()?;
        let carried = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&carried);
        let task = runtime().spawn(async move {
            // Ends, and breaks all of them, with this task.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                connections.spawn(async move {
                    let _ = carry(stream, SocketAddr::new(face, 0), target, delay, &count).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, carried, task })
    }

    /// How many bytes it has carried.
    #[must_use]
    pub fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(
    stream: TcpStream,
    face: SocketAddr,
    target: SocketAddr,
    delay: Duration,
    count: &AtomicU64,
) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(face)?;
    let onward = socket.connect(target).await?;
    stream.set_nodelay(true)?;
    onward.set_nodelay(true)?;
    let ((from, back), (from_target, to)) = (stream.into_split(), onward.into_split());
    // One side that ends ends both: half a connection is no use to anybody here.
    tokio::select! {
        done = later(from, to, delay, count) => done,
        done = later(from_target, back, delay, count) => done,
    }
}

async fn later(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    delay: Duration,
    count: &AtomicU64,
) -> std::io::Result<()> {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_MAX);
    let read = async {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let length = from.read(&mut piece).await?;
            piece.truncate(length);
            if length == 0 || sender.send((Instant::now() + delay, piece)).await.is_err() {
                return Ok(());
            }
        }
    };
    let write = async {
        while let Some((due, piece)) = pieces.recv().await {
            tokio::time::sleep_until(due).await;
            to.write_all(&piece).await?;
            count.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    };
    tokio::select! { done = read => done, done = write => done }
}

//! What a node stands on: threads for work that blocks, and files. Both are the operating system's, or a simulation's, in which everything
//! happens on the executor's one thread, so that a seed decides the order of all of it.

use std::{fmt, io, sync::Arc, time::Duration};
use storage::fs::Fs;

/// What a node stands on.
#[derive(Clone, Debug, Default)]
pub enum Ground {
    /// The operating system.
    #[default]
    System,
    /// No threads, and other files. There is no checkpoint: the state comes back from snapshot and log.
    Simulated(Simulated),
}

/// How long the disk takes for the next write and its sync.
pub type DiskPause = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The ground of a simulated node.
#[derive(Clone)]
pub struct Simulated {
    /// Its disk.
    pub files: Arc<dyn Fs>,
    /// How slow it is.
    pub pause: DiskPause,
}

impl fmt::Debug for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulated").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Ground {
    /// Where work that blocks is done.
    pub(crate) fn blocking(&self) -> Blocking {
        match self {
            Self::System => Blocking::Threads,
            Self::Simulated(_) => Blocking::Here,
        }
    }
}

/// Where work that blocks is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Blocking {
    /// On threads that may block.
    #[default]
    Threads,
    /// At once: what it waits for is in memory.
    Here,
}

impl Blocking {
    /// Does something that blocks.
    pub(crate) async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        match self {
            Self::Threads => tokio::task::spawn_blocking(work).await.map_err(io::Error::other),
            Self::Here => Ok(work()),
        }
    }
}

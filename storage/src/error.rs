//! What can go wrong with bytes on a disk, told apart by what the caller does next. No recovery lives here.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A failure of this machine's storage. Cloneable, because one failed batch is reported to everyone who waited for it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The bytes on disk are not those that were written. The node stops; its operator replaces the disk and lets it join again.
    #[error("{}: damaged at byte {offset}: {what}", file.display())]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Where in it, counted from its start.
        offset: u64,
        /// What was expected there.
        what: String,
    },

    /// The disk (or the quota) is full.
    #[error("{}: no space left on the device", file.display())]
    Full {
        /// The file being written.
        file: PathBuf,
    },

    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", file.display())]
    Io {
        /// The file or directory concerned.
        file: PathBuf,
        /// What was being done to it.
        action: &'static str,
        /// Why not.
        source: Arc<io::Error>,
    },

    /// Another process owns the data directory.
    #[error("{}: in use by another process{}", dir.display(), match pid { Some(pid) => format!(" (pid {pid})"), None => String::new() })]
    Locked {
        /// The data directory.
        dir: PathBuf,
        /// Its owner, if it has said so.
        pid: Option<u32>,
    },

    /// Written by a later release in a format that this one cannot read.
    #[error("{}: format {found} is newer than this release understands ({supported}): start it with the release that wrote it", file.display())]
    Newer {
        /// The file that names its format.
        file: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format that this release reads.
        supported: u32,
    },

    /// An earlier write or sync failed. What the kernel then still holds in memory may never reach the disk, even if a later sync
    /// succeeds, so nothing is acknowledged any more until the directory has been opened again.
    #[error("stopped after an earlier failure: {cause}")]
    Poisoned {
        /// The first failure.
        cause: Arc<Error>,
    },

    /// The caller asked for what cannot be stored: a gap in the log, a record above its limit. Nothing was written.
    #[error("refused: {what}")]
    Refused {
        /// What is wrong with the request.
        what: String,
    },
}

impl Error {
    pub(crate) fn io(file: &Path, action: &'static str, source: io::Error) -> Error {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full { file: file.to_owned() },
            _ => Error::Io { file: file.to_owned(), action, source: Arc::new(source) },
        }
    }

    pub(crate) fn corrupt(file: &Path, offset: u64, what: impl Into<String>) -> Error {
        Error::Corrupt { file: file.to_owned(), offset, what: what.into() }
    }

    pub(crate) fn refused(what: impl Into<String>) -> Error {
        Error::Refused { what: what.into() }
    }

    /// The failure as everyone after the first one sees it.
    pub(crate) fn poison(&self) -> Error {
        match self {
            Error::Poisoned { .. } => self.clone(),
            first => Error::Poisoned { cause: Arc::new(first.clone()) },
        }
    }

    /// Whether the disk is full, now or as the cause of an earlier failure.
    pub fn is_full(&self) -> bool {
        match self {
            Error::Full { .. } => true,
            Error::Poisoned { cause } => cause.is_full(),
            _ => false,
        }
    }
}

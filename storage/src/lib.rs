//! Bytes and files: the write-ahead log, the checkpoint in sled, snapshot files and the map of the data directory.
//!
//! Nothing here knows consensus, the replicated state or an async runtime: keys, values and markers are opaque bytes, calls block,
//! and the caller chooses the thread. What is promised about durability:
//!
//! - [`Log`] is the truth. What it has acknowledged survives `kill -9` and power loss.
//! - [`Checkpoint`] is a cache of the applied state that makes a restart quick. It is either proved complete when it is loaded, or thrown away.
//! - [`snapshot`] files are whole or refused, naming file and offset.
//!
//! Damage is never served: it is an [`Error::Corrupt`] that says where.

pub mod checkpoint;
mod error;
pub mod fs;
pub mod layout;
pub mod log;
pub mod snapshot;

pub use checkpoint::Checkpoint;
pub use error::Error;
pub use layout::{DataDir, free_bytes};
pub use log::{Log, LogSettings, Record};

/// A key and its value, as checkpoints and snapshots hold them.
pub type KeyValue = (Vec<u8>, Vec<u8>);

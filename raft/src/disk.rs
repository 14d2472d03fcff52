//! The room on this node's disk, and who is told when there is little. Who makes room is not here: an operator does.
//!
//! Two marks. Below the *watermark*, a setting, admin writes are refused, and a node does not write what can wait. When the disk has
//! no room left at all, the log goes on from its reserve (`storage::log`): then a node takes nothing that it can refuse, entries from
//! its leader included, and keeps the rest of the reserve for its vote. Both end by themselves once there is room.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};
use storage::log::Shortage;

/// The disk of the data directory.
pub(crate) struct Disk {
    /// None if nobody knows its room, as in a simulation.
    dir: Option<PathBuf>,
    low_bytes: u64,
    low: AtomicBool,
    shortage: Shortage,
}

impl Disk {
    pub(crate) fn new(dir: Option<PathBuf>, low_bytes: u64, shortage: Shortage) -> Self {
        Self { dir, low_bytes, low: AtomicBool::new(false), shortage }
    }

    /// Asks the disk now, which takes about a microsecond: a disk can run full between any two looks.
    pub(crate) fn look(&self) -> bool {
        let Some(dir) = &self.dir else { return self.is_low() };
        let free = match storage::free_bytes(dir) {
            Ok(free) => free,
            Err(error) => {
                tracing::warn!(%error, "the disk's room is not known");
                return self.is_low();
            }
        };
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!("quorate_disk_free_bytes").set(free as f64);
        let low = free < self.low_bytes || self.is_short();
        if self.low.swap(low, Ordering::Relaxed) != low {
            if low {
                let (dir, watermark) = (dir.display(), self.low_bytes);
                tracing::error!(%dir, free, watermark, "this disk is nearly full: admin writes are refused until there is room");
            } else {
                tracing::info!(free, "this disk has room again");
            }
        }
        low
    }

    /// Whether it had less room than the watermark at the last look.
    pub(crate) fn is_low(&self) -> bool {
        self.low.load(Ordering::Relaxed)
    }

    /// Whether the log lives on its reserve.
    pub(crate) fn is_short(&self) -> bool {
        self.shortage.is_now()
    }
}

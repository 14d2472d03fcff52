//! What a test makes the operating system's syncs get wrong. Nothing, outside of tests: only a node that was started to be lied to
//! calls [`go_wrong`].

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// What goes wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wrong {
    /// Every sync takes so much longer.
    pub sync_delay_ms: u64,
    /// Syncs fail, and what they should have saved stays unsaved.
    pub sync_fails: bool,
}

static SYNC_DELAY_MS: AtomicU64 = AtomicU64::new(0);
static SYNC_FAILS: AtomicBool = AtomicBool::new(false);

/// From now on, in this process.
pub fn go_wrong(wrong: Wrong) {
    SYNC_DELAY_MS.store(wrong.sync_delay_ms, Ordering::Relaxed);
    SYNC_FAILS.store(wrong.sync_fails, Ordering::Relaxed);
}

/// Before each sync of a file or a directory.
pub(crate) fn before_sync() -> io::Result<()> {
    let delay_ms = SYNC_DELAY_MS.load(Ordering::Relaxed);
    if delay_ms > 0 {
        thread::sleep(Duration::from_millis(delay_ms));
    }
    if SYNC_FAILS.load(Ordering::Relaxed) {
        return Err(io::Error::other("a test lets this sync fail"));
    }
    Ok(())
}

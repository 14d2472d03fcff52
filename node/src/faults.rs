//! What a test makes this node get wrong, by a file that it changes while the node runs. Only `quorate run --unsafe-test-faults
//! FILE` reads one: nothing in the settings or the environment leads here.
//!
//! This is the file and the thread that reads it. The clocks that get things wrong are in `clock`, the syncs in storage.

use crate::clock::{SystemClock, Wrong};
use serde::Deserialize;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::OnceLock,
    thread,
    time::Duration,
};

/// How often the file is read: a test waits until what it wrote is shown by `/status`.
const INTERVAL: Duration = Duration::from_millis(20);
/// What a test writes is a few lines.
const FILE_BYTES_MAX: u64 = 4096;

/// What can go wrong. What is absent does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// What the node's calendar is ahead of the machine's.
    pub utc_offset_ms: i64,
    /// How much faster its clock for durations runs, in millionths. The guarantees assume that any two machines of a
    /// cluster are within 1 % of each other.
    pub boot_rate_ppm: i64,
    /// What every sync of the log, of snapshots and checkpoints takes longer.
    pub sync_delay_ms: u64,
    /// Those syncs fail.
    pub sync_fails: bool,
    /// A snapshot after so many log entries, and a log that is cut right behind it. Read at the start alone.
    pub snapshot_entries: Option<u64>,
    /// Every so many log entries the state is set aside: `/debug/state` on the ops listener says its digest. Read at the
    /// start alone.
    pub digest_entries: u64,
}

/// Why a file of faults is none.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", .file.display())]
pub struct InvalidFaults {
    file: PathBuf,
    why: String,
}

static AT_START: OnceLock<Faults> = OnceLock::new();

/// Gets wrong what the file says, from now on and as it changes.
///
/// # Errors
/// It cannot be read, or is no such file.
pub fn obey(file: PathBuf) -> Result<(), InvalidFaults> {
    let invalid = |why: String| InvalidFaults { file: file.clone(), why };
    let faults = read(&file).map_err(invalid)?;
    let _ = AT_START.set(faults);
    take(faults);
    tracing::warn!(file = %file.display(), ?faults, "--unsafe-test-faults: this node gets wrong what a test tells it to");
    let follow = move || {
        let mut last = faults;
        loop {
            thread::sleep(INTERVAL);
            match read(&file) {
                Ok(faults) if faults != last => {
                    tracing::warn!(?faults, "a test changes what this node gets wrong");
                    take(faults);
                    last = faults;
                }
                Ok(_) => {}
                Err(why) => tracing::error!(why, "the file of faults cannot be read: they stay as they are"),
            }
        }
    };
    let started = thread::Builder::new().name("test-faults".to_owned()).spawn(follow);
    started.map(drop).map_err(|error| invalid_thread(&error))
}

/// What the file said when the node started; `None` outside of tests.
#[must_use]
pub fn at_start() -> Option<Faults> {
    AT_START.get().copied()
}

fn take(faults: Faults) {
    SystemClock::go_wrong(Wrong { utc_offset_ms: faults.utc_offset_ms, boot_rate_ppm: faults.boot_rate_ppm });
    storage::fs::go_wrong(storage::fs::Wrong { sync_delay_ms: faults.sync_delay_ms, sync_fails: faults.sync_fails });
}

fn read(file: &Path) -> Result<Faults, String> {
    let text = |error: io::Error| error.to_string();
    if fs::metadata(file).map_err(text)?.len() > FILE_BYTES_MAX {
        return Err("is larger than any file of faults".to_owned());
    }
    toml::from_str(&fs::read_to_string(file).map_err(text)?).map_err(|error| error.to_string())
}

fn invalid_thread(error: &io::Error) -> InvalidFaults {
    InvalidFaults { file: PathBuf::new(), why: format!("no thread can be started: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_faults_says_only_what_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("faults.toml");
        let read_this = |text: &str| {
            fs::write(&file, text).unwrap();
            read(&file)
        };
        assert_eq!(read_this(""), Ok(Faults::default()));
        let both = Faults { utc_offset_ms: -5_000, snapshot_entries: Some(400), sync_delay_ms: 9, ..Faults::default() };
        assert_eq!(read_this("utc_offset_ms = -5000\nsync_delay_ms = 9\nsnapshot_entries = 400"), Ok(both));
        assert!(read_this("utc_offset = 1").is_err());
        assert!(read_this(&"#".repeat(5_000)).is_err());
    }
}

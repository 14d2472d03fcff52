//! Files of earlier releases still open and say the same: `frozen/` holds what format 1 looked like when it was introduced.
//!
//! A release that changes a format adds a folder and a test, and leaves these alone.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;

use bytes::Bytes;
use storage::snapshot::{Reader, Snapshots};
use storage::{DataDir, Error, KeyValue, Log, LogSettings, Record};

fn frozen() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frozen/1")
}

/// A copy that may be written to.
fn thawed() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for part in ["log", "snapshots"] {
        std::fs::create_dir(dir.path().join(part)).unwrap();
        for entry in std::fs::read_dir(frozen().join(part)).unwrap().map(Result::unwrap) {
            std::fs::copy(entry.path(), dir.path().join(part).join(entry.file_name())).unwrap();
        }
    }
    std::fs::copy(frozen().join("VERSION"), dir.path().join("VERSION")).unwrap();
    dir
}

fn settings() -> LogSettings {
    LogSettings { segment_bytes: 2048, ..LogSettings::default() }
}

fn record(index: u64) -> Record {
    Record { index, bytes: Bytes::from(format!("entry {index} {}", "é".repeat(index as usize % 30))) }
}

fn records() -> Vec<KeyValue> {
    (0..200u32).map(|n| (format!("key {n}").into_bytes(), vec![n as u8; n as usize * 3])).collect()
}

fn asked(call: impl FnOnce(Box<dyn FnOnce(Result<(), Error>) + Send>)) {
    let (done, wait) = channel();
    call(Box::new(move |result| done.send(result).unwrap()));
    wait.recv().unwrap().unwrap();
}

#[test]
fn the_log_of_format_1_reads_the_same_and_goes_on() {
    let dir = thawed();
    let data = DataDir::open(dir.path()).unwrap();
    let log = Log::open(&data.log(), settings()).unwrap();
    assert_eq!(log.torn_bytes(), 21);
    assert_eq!(log.vote(), Some(Bytes::from_static(b"the second vote")));
    assert_eq!(log.committed(), Some(Bytes::from_static(b"committed")));
    assert_eq!(log.purged(), Some((40, Bytes::from_static(b"purged to 40"))));
    assert_eq!(log.read(0..1000, usize::MAX).unwrap(), (41..=120).map(record).collect::<Vec<_>>());
    asked(|done| log.append((121..140).map(record).collect(), done));
    drop(log);
    let log = Log::open(&data.log(), settings()).unwrap();
    assert_eq!((log.torn_bytes(), log.first_index(), log.last_index()), (0, Some(41), Some(139)));
}

#[test]
fn the_snapshot_of_format_1_reads_the_same() {
    let dir = thawed();
    let snapshots = Snapshots::open(&dir.path().join("snapshots")).unwrap();
    let stored = snapshots.latest().unwrap().unwrap();
    assert_eq!(stored.index, 40);
    let reader = snapshots.read(&stored).unwrap();
    assert_eq!(&reader.head()[..], b"head");
    assert_eq!(reader.collect::<Result<Vec<_>, _>>().unwrap(), records());
}

/// Snapshots have no chance in them: what is written today is what was written then, byte for byte.
#[test]
fn a_snapshot_of_format_1_is_still_written_like_this() {
    let dir = tempfile::tempdir().unwrap();
    let stored = write_snapshot(dir.path());
    let frozen = frozen().join("snapshots").join(stored.file_name().unwrap());
    assert!(std::fs::read(stored).unwrap() == std::fs::read(frozen).unwrap());
}

fn write_snapshot(dir: &Path) -> PathBuf {
    let mut writer = Snapshots::open(dir).unwrap().write(40, Bytes::from_static(b"head")).unwrap();
    for (key, value) in records() {
        writer.put(&key, &value).unwrap();
    }
    let stored = writer.finish().unwrap();
    assert_eq!(Reader::open(&stored.path).unwrap().verify().unwrap(), 200);
    stored.path
}

/// Makes the frozen files of a new format. Never run again for an old one.
#[test]
#[ignore = "makes files to be committed"]
fn freeze() {
    let dir = PathBuf::from(std::env::var("QUORATE_FREEZE_TO").unwrap());
    let data = DataDir::open(&dir).unwrap();
    let log = Log::open(&data.log(), settings()).unwrap();
    asked(|done| log.save_vote(Bytes::from_static(b"the first vote"), done));
    asked(|done| log.append((1..=100).map(record).collect(), done));
    asked(|done| log.save_vote(Bytes::from_static(b"the second vote"), done));
    asked(|done| {
        log.append((101..=110).map(|index| Record { index, bytes: Bytes::from_static(b"x") }).collect(), done)
    });
    asked(|done| log.truncate_from(101, done));
    asked(|done| log.purge_to(40, Bytes::from_static(b"purged to 40"), done));
    log.save_committed(Bytes::from_static(b"committed"));
    asked(|done| log.append((101..=120).map(record).collect(), done));
    drop(log);
    // A tail as a crash leaves it.
    let newest = std::fs::read_dir(data.log()).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    bytes.extend_from_slice(b"torn by a power cut..");
    std::fs::write(newest, bytes).unwrap();
    write_snapshot(&data.snapshots());
}

//! The log on the real file system and on the simulated one: what it gives back, what it refuses, and how it fails.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use storage::fs::{Fs, Loss, Simulated};
use storage::{Error, Log, LogSettings, Record};

fn small() -> LogSettings {
    LogSettings {
        segment_bytes: 1024,
        cache_bytes: 256,
        idle_mark: Duration::from_secs(3600),
        reserve_bytes: 0,
        ..LogSettings::default()
    }
}

fn record(index: u64) -> Record {
    Record { index, bytes: body(index) }
}

fn body(index: u64) -> Bytes {
    Bytes::from(format!("entry {index} {}", "x".repeat(index as usize % 50)))
}

fn asked(call: impl FnOnce(Box<dyn FnOnce(Result<(), Error>) + Send>)) -> Result<(), Error> {
    let (done, wait): (_, Receiver<Result<(), Error>>) = channel();
    call(Box::new(move |result| done.send(result).unwrap()));
    wait.recv().unwrap()
}

fn append(log: &Log, range: std::ops::Range<u64>) -> Result<(), Error> {
    asked(|done| log.append(range.map(record).collect(), done))
}

fn held(log: &Log) -> Vec<u64> {
    let records = log.read(0..u64::MAX, usize::MAX).unwrap();
    for found in &records {
        assert_eq!(*found, record(found.index));
    }
    records.into_iter().map(|record| record.index).collect()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn gives_back_what_was_saved_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), small()).unwrap();
    assert_eq!((log.first_index(), log.last_index(), log.last().unwrap(), log.vote()), (None, None, None, None));
    append(&log, 1..101).unwrap();
    asked(|done| log.save_vote(Bytes::from("vote"), done)).unwrap();
    log.save_committed(Bytes::from("committed"));
    asked(|done| log.truncate_from(81, done)).unwrap();
    append(&log, 81..91).unwrap();
    asked(|done| log.purge_to(20, Bytes::from("purged"), done)).unwrap();
    let check = |log: &Log| {
        assert_eq!(held(log), (21..91).collect::<Vec<_>>());
        assert_eq!((log.first_index(), log.last_index()), (Some(21), Some(90)));
        assert_eq!(log.last().unwrap(), Some(record(90)));
        assert_eq!(log.vote(), Some(Bytes::from("vote")));
        assert_eq!(log.committed(), Some(Bytes::from("committed")));
        assert_eq!(log.purged(), Some((20, Bytes::from("purged"))));
    };
    check(&log);
    drop(log);
    let log = Log::open(dir.path(), small()).unwrap();
    assert_eq!(log.torn_bytes(), 0);
    check(&log);
}

#[test]
fn reads_are_capped_by_bytes_but_never_empty() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), small()).unwrap();
    let entries = (0..10).map(|index| Record { index, bytes: Bytes::from(vec![7; 100]) }).collect();
    asked(|done| log.append(entries, done)).unwrap();
    let count = |range, cap| log.read(range, cap).unwrap().len();
    assert_eq!(count(0..10, 350), 3);
    assert_eq!(count(0..10, 1), 1);
    assert_eq!(count(4..6, usize::MAX), 2);
    assert_eq!(count(10..20, usize::MAX), 0);
}

#[test]
fn the_vote_and_the_markers_outlive_the_segments_that_held_them() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), small()).unwrap();
    asked(|done| log.save_vote(Bytes::from("vote"), done)).unwrap();
    log.save_committed(Bytes::from("committed"));
    append(&log, 1..101).unwrap();
    let before = segments(dir.path());
    assert!(before.len() > 3, "{before:?}");
    asked(|done| log.purge_to(100, Bytes::from("purged"), done)).unwrap();
    let after = segments(dir.path());
    assert_eq!((after.len(), log.size().segments), (1, 1));
    assert!(after[0] >= before[before.len() - 1]);
    drop(log);
    let log = Log::open(dir.path(), small()).unwrap();
    assert_eq!(log.vote(), Some(Bytes::from("vote")));
    assert_eq!(log.committed(), Some(Bytes::from("committed")));
    assert_eq!(log.purged(), Some((100, Bytes::from("purged"))));
    append(&log, 101..111).unwrap();
    assert_eq!(held(&log), (101..111).collect::<Vec<_>>());
}

#[test]
fn a_purge_beyond_the_end_lets_the_log_go_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), small()).unwrap();
    append(&log, 1..11).unwrap();
    asked(|done| log.purge_to(500, Bytes::from("snapshot"), done)).unwrap();
    assert_eq!((log.first_index(), log.last_index()), (None, None));
    assert!(matches!(append(&log, 11..12), Err(Error::Refused { .. })));
    append(&log, 501..503).unwrap();
    drop(log);
    assert_eq!(held(&Log::open(dir.path(), small()).unwrap()), [501, 502]);
}

#[test]
fn gaps_and_what_was_purged_are_refused_without_harm() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), small()).unwrap();
    append(&log, 1..5).unwrap();
    assert!(matches!(append(&log, 6..7), Err(Error::Refused { .. })));
    asked(|done| log.purge_to(3, Bytes::new(), done)).unwrap();
    assert!(matches!(asked(|done| log.truncate_from(3, done)), Err(Error::Refused { .. })));
    assert!(matches!(asked(|done| log.purge_to(2, Bytes::new(), done)), Err(Error::Refused { .. })));
    append(&log, 5..6).unwrap();
    assert_eq!(held(&log), [4, 5]);
}

#[test]
fn completions_come_in_order_and_one_sync_serves_many() {
    let disk = Simulated::new();
    let log = Log::open_on(Arc::new(disk.clone()), Path::new("/log"), LogSettings::default()).unwrap();
    let (done, order) = channel();
    for index in 0..1000 {
        let done = done.clone();
        log.append(vec![record(index)], move |result| done.send((index, result.is_ok())).unwrap());
        // What was queued can be read.
        assert_eq!(log.last_index(), Some(index));
    }
    for index in 0..1000 {
        assert_eq!(order.recv().unwrap(), (index, true));
    }
    assert!(disk.power_cut(Loss::All).used() > 0);
}

#[test]
fn a_flipped_byte_names_file_and_offset() {
    let disk = Simulated::new();
    let dir = Path::new("/log");
    let open = |disk: &Simulated| Log::open_on(Arc::new(disk.clone()), dir, small());
    let log = open(&disk).unwrap();
    for index in 1..51 {
        append(&log, index..index + 1).unwrap();
    }
    drop(log);
    let mut paths: Vec<_> = disk.list(dir).unwrap().into_iter().map(|name| dir.join(name)).collect();
    paths.sort();
    assert!(paths.len() > 2);
    for path in &paths {
        let length = disk.open(path).unwrap().len().unwrap();
        for offset in 0..length {
            let damaged = disk.copy();
            damaged.damage(path, offset, 0x10).unwrap();
            let newest = Some(path) == paths.last();
            match open(&damaged) {
                Err(Error::Corrupt { file, offset: at, what }) => {
                    assert_eq!(&file, path);
                    assert!(at <= offset, "{at} {offset}: {what}");
                }
                // The mark that was written last guards everything before it; nothing guards the mark itself, and nothing needs it.
                Ok(log) if newest && offset >= length - 32 => assert_eq!(held(&log), (1..51).collect::<Vec<_>>()),
                other => panic!("byte {offset} of {}: {other:?}", path.display()),
            }
        }
    }
}

#[test]
fn damage_under_an_open_log_is_found_by_the_read() {
    let disk = Simulated::new();
    let dir = Path::new("/log");
    let log = Log::open_on(Arc::new(disk.clone()), dir, small()).unwrap();
    append(&log, 1..101).unwrap();
    let first = dir.join("0000000000000001.log");
    disk.damage(&first, 500, 1).unwrap();
    match log.read(1..101, usize::MAX) {
        Err(Error::Corrupt { file, offset, .. }) => assert!(file == first && offset <= 500, "{offset}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn missing_segments_are_damage() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), small()).unwrap();
    append(&log, 1..101).unwrap();
    drop(log);
    let paths = segments(dir.path());
    for path in &paths[..paths.len() - 1] {
        let bytes = std::fs::read(path).unwrap();
        std::fs::remove_file(path).unwrap();
        assert!(matches!(Log::open(dir.path(), small()), Err(Error::Corrupt { .. })), "{}", path.display());
        std::fs::write(path, bytes).unwrap();
    }
    assert_eq!(held(&Log::open(dir.path(), small()).unwrap()).len(), 100);
}

#[test]
fn an_earlier_segment_cut_at_a_record_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), small()).unwrap();
    append(&log, 1..101).unwrap();
    drop(log);
    let first = &segments(dir.path())[0];
    let length = first.metadata().unwrap().len();
    std::fs::OpenOptions::new().write(true).open(first).unwrap().set_len(length - 8).unwrap();
    assert!(matches!(Log::open(dir.path(), small()), Err(Error::Corrupt { .. })));
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    drop(Log::open(dir.path(), small()).unwrap());
    let path = &segments(dir.path())[0];
    let mut bytes = std::fs::read(path).unwrap();
    bytes[8] = 2;
    let crc = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
    let error = Log::open(dir.path(), small()).unwrap_err();
    assert!(matches!(error, Error::Newer { found: 2, supported: 1, .. }), "{error}");
}

#[test]
fn a_full_disk_is_told_and_poisons_and_nothing_acknowledged_is_lost() {
    let disk = Simulated::new();
    let dir = Path::new("/log");
    let log = Log::open_on(Arc::new(disk.clone()), dir, small()).unwrap();
    append(&log, 1..11).unwrap();
    disk.limit(Some(disk.used() + 100));
    let error = append(&log, 11..31).unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    disk.limit(None);
    let error = append(&log, 31..32).unwrap_err();
    assert!(matches!(&error, Error::Poisoned { .. }) && error.is_full(), "{error}");
    assert!(matches!(log.failure(), Some(Error::Full { .. })));
    drop(log);
    for loss in [Loss::All, Loss::Nothing, Loss::Some(7)] {
        let survivor = disk.power_cut(loss);
        let log = Log::open_on(Arc::new(survivor), dir, small()).unwrap();
        let held = held(&log);
        assert!(held.len() >= 10 && held.len() < 30, "{held:?}");
        append(&log, held.len() as u64 + 1..41).unwrap();
    }
}

/// What holds room in advance: the log takes what its callers had decided, tells them to stop, and goes on once there is room.
#[test]
fn a_disk_that_fills_at_once_stops_nothing_while_the_reserve_lasts() {
    let disk = Simulated::new();
    let dir = Path::new("/log");
    let settings = LogSettings { reserve_bytes: 4000, ..small() };
    let open = |disk: &Simulated| Log::open_on(Arc::new(disk.clone()), dir, settings.clone()).unwrap();
    let log = open(&disk);
    append(&log, 1..11).unwrap();
    let shortage = log.shortage();
    assert!(!shortage.is_now());
    // From one instant to the next there is not a byte left.
    disk.limit(Some(disk.used()));
    let before = log.size();
    let room = 4000 / log.size().bytes.div_ceil(10);
    append(&log, 11..11 + room / 2).unwrap();
    assert!(shortage.is_now());
    asked(|done| log.save_vote(Bytes::from("vote"), done)).unwrap();
    // Beyond the size of a segment, of which there is no new one.
    assert_eq!(log.size().segments, before.segments);
    assert!(log.size().bytes - before.bytes > 1024);
    // A restart does not lose the room, and nor does what had been written.
    drop(log);
    let log = open(&disk.killed());
    assert!(log.shortage().is_now());
    assert_eq!(held(&log).len() as u64, 10 + room / 2);
    append(&log, 11 + room / 2..12 + room / 2).unwrap();
    drop(log);

    // Room again: it is noticed with the next write, or without one; and a new segment begins.
    let disk = disk.copy();
    disk.limit(None);
    let log = open(&disk);
    disk.limit(Some(disk.used()));
    let next = log.last_index().unwrap() + 1;
    append(&log, next..next + 1).unwrap();
    let shortage = log.shortage();
    while !shortage.is_now() {
        let next = log.last_index().unwrap() + 1;
        append(&log, next..next + 1).unwrap();
    }
    disk.limit(None);
    until_there_is_room(&log);
    let next = log.last_index().unwrap() + 1;
    append(&log, next..next + 30).unwrap();
    assert!(log.size().segments > before.segments);

    // If nobody listens, the reserve runs out; then the log stops, and tells.
    disk.limit(Some(disk.used()));
    let next = log.last_index().unwrap() + 1;
    let error = (next..).find_map(|index| append(&log, index..index + 1).err()).unwrap();
    assert!(matches!(&error, Error::Full { file } if file.starts_with(dir)), "{error}");
    assert!(append(&log, log.last_index().unwrap() + 1..log.last_index().unwrap() + 2).unwrap_err().is_full());
}

fn until_there_is_room(log: &Log) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while log.shortage().is_now() {
        assert!(Instant::now() < deadline, "nobody has looked whether there is room");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The room that a segment held is given back when the next one begins.
#[test]
fn only_the_newest_segment_holds_room() {
    let dir = tempfile::tempdir().unwrap();
    let reserve_bytes = 256 << 10;
    let log = Log::open(dir.path(), LogSettings { reserve_bytes, ..small() }).unwrap();
    append(&log, 1..100).unwrap();
    let taken: Vec<u64> = segments(dir.path()).iter().map(|path| path.metadata().unwrap().blocks() * 512).collect();
    assert!(taken.len() > 3, "{taken:?}");
    let (newest, complete) = taken.split_last().unwrap();
    if *newest < reserve_bytes {
        return println!("skipped: this file system holds no room");
    }
    assert!(complete.iter().all(|bytes| *bytes < 64 << 10), "{taken:?}");
    assert!(segments(dir.path()).iter().all(|path| path.metadata().unwrap().len() < 4096));
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged() {
    let disk = Simulated::new();
    let dir = Path::new("/log");
    let log = Log::open_on(Arc::new(disk.clone()), dir, small()).unwrap();
    append(&log, 1..5).unwrap();
    disk.sync_fails_after(0);
    assert!(matches!(append(&log, 5..8), Err(Error::Io { .. })));
    // The disk works again, but what it should have saved is gone.
    assert!(matches!(append(&log, 8..9), Err(Error::Poisoned { .. })));
    assert!(matches!(asked(|done| log.save_vote(Bytes::from("vote"), done)), Err(Error::Poisoned { .. })));
    assert!(matches!(log.sync(), Err(Error::Poisoned { .. })));
    drop(log);
    let log = Log::open_on(Arc::new(disk.power_cut(Loss::Nothing)), dir, small()).unwrap();
    assert_eq!(held(&log), [1, 2, 3, 4]);
}

#[test]
fn a_segment_begun_and_not_finished_is_removed() {
    let disk = Simulated::new();
    let dir = Path::new("/log");
    let log = Log::open_on(Arc::new(disk.clone()), dir, small()).unwrap();
    append(&log, 1..5).unwrap();
    drop(log);
    disk.create(&dir.join("0000000000000002.new")).unwrap().write_at(b"QUOR", 0).unwrap();
    let log = Log::open_on(Arc::new(disk.clone()), dir, small()).unwrap();
    assert_eq!(held(&log), [1, 2, 3, 4]);
    assert_eq!(disk.list(dir).unwrap(), ["0000000000000001.log"]);
}

#[test]
fn a_slow_disk_holds_its_callers_back() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), LogSettings { queue_bytes: 64, ..small() }).unwrap();
    let (done, count) = channel();
    for index in 0..200 {
        let done = done.clone();
        log.append(vec![record(index)], move |result| done.send(result).unwrap());
    }
    drop(done);
    assert_eq!(count.iter().filter(Result::is_ok).count(), 200);
    assert_eq!(held(&log).len(), 200);
}

#[test]
fn the_last_clone_may_be_dropped_by_a_completion() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), small()).unwrap();
    let (done, wait) = channel();
    let clone = log.clone();
    clone.append(vec![record(1)], move |result| {
        drop(log);
        done.send(result).unwrap();
    });
    drop(clone);
    wait.recv().unwrap().unwrap();
}

#[test]
fn a_log_without_a_thread_writes_when_it_is_told_to_and_forgets_the_rest() {
    let disk = Simulated::new();
    let dir = Path::new("/log");
    let (log, mut stepper) = Log::open_stepped(Arc::new(disk.clone()), dir, LogSettings::default()).unwrap();
    let done = Arc::new(Mutex::new(Vec::new()));
    let note = |name: &'static str| {
        let done = done.clone();
        move |result: Result<(), Error>| done.lock().unwrap().push((name, result.is_ok()))
    };
    log.append(vec![record(1)], note("one"));
    log.save_vote("me".into(), note("vote"));
    assert!(done.lock().unwrap().is_empty(), "nobody has written it");
    assert!(stepper.step());
    assert!(!stepper.step());
    assert_eq!(*done.lock().unwrap(), [("one", true), ("vote", true)]);
    log.append(vec![record(2)], note("two"));
    drop(stepper);
    assert_eq!(done.lock().unwrap().last(), Some(&("two", false)));
    drop(log);
    let disk = disk.power_cut(storage::fs::Loss::All);
    let (log, _stepper) = Log::open_stepped(Arc::new(disk), dir, LogSettings::default()).unwrap();
    assert_eq!((log.last_index(), log.vote()), (Some(1), Some("me".into())));
}

//! Snapshot files: what was put comes back, and what is damaged, cut short or unfinished is never taken for a snapshot.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use storage::fs::{Fs, Loss, Simulated};
use storage::snapshot::{Reader, Snapshots, Stored};
use storage::{Error, KeyValue};

fn records(count: u32) -> Vec<KeyValue> {
    (0..count).map(|n| (format!("key {n:06}").into_bytes(), vec![n as u8; n as usize % 300])).collect()
}

fn write(snapshots: &Snapshots, index: u64, records: &[KeyValue]) -> Result<Stored, Error> {
    let mut writer = snapshots.write(index, Bytes::from(format!("head {index}")))?;
    for (key, value) in records {
        writer.put(key, value)?;
    }
    writer.finish()
}

fn read(reader: Reader) -> Result<Vec<KeyValue>, Error> {
    reader.collect()
}

#[test]
fn what_was_put_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(dir.path()).unwrap();
    assert_eq!(snapshots.latest().unwrap(), None);
    for count in [0, 1, 5000] {
        let stored = write(&snapshots, u64::from(count), &records(count)).unwrap();
        assert_eq!(stored.bytes, stored.path.metadata().unwrap().len());
        assert_eq!(snapshots.latest().unwrap(), Some(stored.clone()));
        let reader = snapshots.read(&stored).unwrap();
        assert_eq!((reader.index(), &reader.head()[..]), (u64::from(count), format!("head {count}").as_bytes()));
        assert_eq!(read(reader).unwrap(), records(count));
        assert_eq!(Reader::open(&stored.path).unwrap().verify().unwrap(), u64::from(count));
    }
}

#[test]
fn a_record_larger_than_a_block_is_fine() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(dir.path()).unwrap();
    let large = vec![(b"large".to_vec(), vec![1; 3_000_000]), (Vec::new(), Vec::new())];
    let stored = write(&snapshots, 1, &large).unwrap();
    assert_eq!(read(snapshots.read(&stored).unwrap()).unwrap(), large);
}

#[test]
fn every_flipped_byte_and_every_cut_is_noticed_with_its_place() {
    let disk = Simulated::new();
    let snapshots = Snapshots::open_on(Arc::new(disk.clone()), Path::new("/s")).unwrap();
    let small = write(&snapshots, 1, &records(40)).unwrap();
    for offset in 0..small.bytes {
        disk.damage(&small.path, offset, 0x40).unwrap();
        match snapshots.read(&small).and_then(Reader::verify) {
            Err(Error::Corrupt { file, offset: at, .. }) => {
                assert!(file == small.path && at <= offset, "{at} {offset}")
            }
            other => panic!("byte {offset}: {other:?}"),
        }
        disk.damage(&small.path, offset, 0x40).unwrap();
    }
    // Several blocks: the place is the block's.
    let large = write(&snapshots, 2, &records(5000)).unwrap();
    for offset in [0, 10, 40, 200_000, 400_000, 600_000, large.bytes - 21, large.bytes - 20, large.bytes - 1] {
        disk.damage(&large.path, offset, 1).unwrap();
        match snapshots.read(&large).and_then(Reader::verify) {
            Err(Error::Corrupt { offset: at, .. }) => assert!(at <= offset && offset - at < 140_000, "{at} {offset}"),
            other => panic!("byte {offset}: {other:?}"),
        }
        disk.damage(&large.path, offset, 1).unwrap();
    }
    for length in (0..small.bytes).rev() {
        disk.open(&small.path).unwrap().cut(length).unwrap();
        let result = snapshots.read(&small).and_then(Reader::verify);
        assert!(matches!(result, Err(Error::Corrupt { .. })), "{length}: {result:?}");
    }
    let end = disk.open(&large.path).unwrap();
    end.write_at(&[0], large.bytes).unwrap();
    let result = snapshots.read(&large).and_then(Reader::verify);
    assert!(matches!(result, Err(Error::Corrupt { offset, .. }) if offset == large.bytes), "{result:?}");
}

#[test]
fn old_ones_are_listed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(dir.path()).unwrap();
    for index in [7, 100, 20] {
        write(&snapshots, index, &records(3)).unwrap();
    }
    let indexes = |list: Vec<Stored>| list.into_iter().map(|stored| stored.index).collect::<Vec<_>>();
    assert_eq!(indexes(snapshots.list().unwrap()), [7, 20, 100]);
    let open = snapshots.read(&snapshots.list().unwrap()[0]).unwrap();
    assert_eq!(snapshots.remove_older_than(100).unwrap(), 2);
    assert_eq!(indexes(snapshots.list().unwrap()), [100]);
    assert_eq!(open.verify().unwrap(), 3);
}

#[test]
fn unfinished_ones_vanish() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(dir.path()).unwrap();
    let count = || std::fs::read_dir(dir.path()).unwrap().count();
    let mut writer = snapshots.write(5, Bytes::new()).unwrap();
    writer.put(b"key", b"value").unwrap();
    assert_eq!((count(), snapshots.latest().unwrap()), (1, None));
    drop(writer);
    assert_eq!(count(), 0);
    // As a crash leaves it.
    std::fs::write(dir.path().join("0.partial"), b"QUOR").unwrap();
    Snapshots::open(dir.path()).unwrap();
    assert_eq!(count(), 0);
}

#[test]
fn a_received_one_is_verified_before_it_exists() {
    let from = tempfile::tempdir().unwrap();
    let sent = write(&Snapshots::open(from.path()).unwrap(), 9, &records(2000)).unwrap();
    let bytes = std::fs::read(&sent.path).unwrap();
    let to = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(to.path()).unwrap();

    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    let mut incoming = snapshots.receive().unwrap();
    incoming.append(&damaged).unwrap();
    assert!(matches!(incoming.finish(), Err(Error::Corrupt { .. })));
    assert_eq!(std::fs::read_dir(to.path()).unwrap().count(), 0);

    let mut incoming = snapshots.receive().unwrap();
    incoming.append(b"an earlier attempt").unwrap();
    incoming.restart().unwrap();
    for piece in bytes.chunks(1000) {
        incoming.append(piece).unwrap();
    }
    assert_eq!(incoming.received(), sent.bytes);
    let stored = incoming.finish().unwrap();
    assert_eq!((stored.index, std::fs::read(&stored.path).unwrap()), (9, bytes));
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let stored = write(&Snapshots::open(dir.path()).unwrap(), 1, &[]).unwrap();
    let mut bytes = std::fs::read(&stored.path).unwrap();
    let header = bytes.len() - 20;
    bytes[8] = 2;
    let crc = crc32fast::hash(&bytes[..header - 4]);
    bytes[header - 4..header].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&stored.path, bytes).unwrap();
    let error = Reader::open(&stored.path).unwrap_err();
    assert!(matches!(error, Error::Newer { found: 2, .. }), "{error}");
}

#[test]
fn a_full_disk_is_told_and_leaves_the_earlier_one() {
    let disk = Simulated::new();
    let snapshots = Snapshots::open_on(Arc::new(disk.clone()), Path::new("/s")).unwrap();
    let stored = write(&snapshots, 1, &records(100)).unwrap();
    disk.limit(Some(disk.used() + 1000));
    let error = write(&snapshots, 2, &records(100)).unwrap_err();
    assert!(error.is_full(), "{error}");
    assert_eq!(disk.used(), stored.bytes);
    assert_eq!(snapshots.list().unwrap(), [stored]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whenever the power goes off, what has the name of a snapshot is a whole one, and finished ones stay.
    #[test]
    fn a_power_cut_leaves_whole_snapshots_only(steps in 0u64..40, seed: u64) {
        let disk = Simulated::new();
        let dir = Path::new("/s");
        let snapshots = Snapshots::open_on(Arc::new(disk.clone()), dir).unwrap();
        disk.power_ends_after(steps);
        let mut finished = Vec::new();
        for index in 1..5 {
            match write(&snapshots, index, &records(700)) {
                Ok(stored) => finished.push(stored),
                Err(_) => break,
            }
        }
        let loss = if seed % 4 == 0 { Loss::All } else { Loss::Some(seed) };
        let snapshots = Snapshots::open_on(Arc::new(disk.power_cut(loss)), dir).unwrap();
        let found = snapshots.list().unwrap();
        for stored in &finished {
            prop_assert!(found.contains(stored));
        }
        for stored in found {
            prop_assert_eq!(read(snapshots.read(&stored).unwrap()).unwrap(), records(700));
        }
    }
}

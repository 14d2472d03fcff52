//! A real file system that is full. Needs root, loop devices and ext4, else it says "skipped"; the simulated disk covers the rest.

#![expect(clippy::expect_used, reason = "helpers of tests fail by panicking")]
#![expect(dead_code, reason = "shared with the power loss test")]

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use bytes::Bytes;
use storage::snapshot::Snapshots;
use storage::{Checkpoint, DataDir, Log, LogSettings, Record};

use device::Device;

#[path = "torture/device.rs"]
mod device;

#[test]
fn is_told_by_everything_and_survived() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk.img");
    std::fs::File::create(&disk).unwrap().set_len(24 << 20).unwrap();
    let mounted = match Device::attach(&disk).and_then(|device| device.format(&dir.path().join("mnt"))) {
        Ok(mounted) => mounted,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    let data = DataDir::open(mounted.at.join("data")).unwrap();
    let log = Log::open(
        &data.log(),
        LogSettings { segment_bytes: 1 << 20, reserve_bytes: 4 << 20, ..LogSettings::default() },
    )
    .unwrap();
    let append = |log: &Log, index: u64| {
        let (done, wait) = channel();
        log.append(vec![Record { index, bytes: Bytes::from(vec![index as u8; 200_000]) }], move |result| {
            done.send(result).expect("waiting");
        });
        wait.recv().expect("an answer")
    };
    append(&log, 1).unwrap();

    // The checkpoint fills the disk, says so, and gives the space back.
    let mut checkpoint = Checkpoint::open(&data.checkpoint()).unwrap();
    let state = |records: u32| (0..records).map(|n| (n.to_be_bytes().to_vec(), vec![n as u8; 1000]));
    let error = checkpoint.replace(state(40_000), Bytes::from_static(b"full")).unwrap_err();
    assert!(error.is_full(), "{error}");
    checkpoint.replace(state(1000), Bytes::from_static(b"fits")).unwrap();
    assert_eq!(checkpoint.load(|loading| loading.count).unwrap(), Some(1000));

    // So does a snapshot.
    let snapshots = Snapshots::open(&data.snapshots()).unwrap();
    let before = data.free_bytes().unwrap();
    let mut writer = snapshots.write(1, Bytes::new()).unwrap();
    let error = (0..).find_map(|_| writer.put(b"key", &[7; 100_000]).err()).unwrap();
    assert!(error.is_full(), "{error}");
    drop(writer);
    assert!(data.free_bytes().unwrap() + (1 << 20) > before);

    // At once, to the last byte: the log goes on from its reserve, and says so.
    let filler = mounted.at.join("filler");
    fill(&filler);
    assert!(log.shortage().is_now() || append(&log, 2).is_ok());
    let taken = (log.last_index().unwrap() + 1..).take(15).find_map(|index| append(&log, index).err());
    assert!(taken.is_none(), "{taken:?}");
    assert!(log.shortage().is_now());
    std::fs::remove_file(&filler).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while log.shortage().is_now() {
        assert!(Instant::now() < deadline, "nobody has looked whether there is room");
        std::thread::sleep(Duration::from_millis(5));
    }
    fill(&filler);

    // Once the reserve is used up, the log stops. What it had acknowledged is there once there is room again.
    let next = log.last_index().unwrap() + 1;
    let (last, error) = (next..).find_map(|index| append(&log, index).err().map(|error| (index - 1, error))).unwrap();
    assert!(error.is_full(), "{error}");
    assert!(append(&log, last + 2).unwrap_err().is_full());
    drop((log, checkpoint));
    std::fs::remove_file(&filler).unwrap();
    std::fs::remove_dir_all(data.checkpoint()).unwrap();
    let log = Log::open(&data.log(), LogSettings::default()).unwrap();
    assert!(log.last_index().unwrap() >= last);
    for record in log.read(1..last + 1, usize::MAX).unwrap() {
        assert_eq!(record.bytes, vec![record.index as u8; 200_000]);
    }
    let next = log.last_index().unwrap() + 1;
    append(&log, next).unwrap();
}

/// Writes until there is no byte left.
fn fill(path: &std::path::Path) {
    let mut file = std::fs::File::create(path).expect("a file");
    for bytes in [1 << 20, 4096, 1] {
        let piece = vec![0_u8; bytes];
        while std::io::Write::write_all(&mut file, &piece).is_ok() {}
    }
    // What was written and not allocated yet takes its room now, or is lost.
    drop(file.sync_all());
}

//! Images of a disk, taken while a process writes to it, as a power cut would leave it: everything acknowledged must be there.
//!
//! Off unless `QUORATE_POWER_IMAGES` says how many (30 for the long version). Needs root, loop devices and ext4, else it says "skipped".
//!
//! The file system lies on a loop device whose file stands for the platter: what ext4 has not written to it is lost. The writer is
//! stopped right after an acknowledgement; the copy counts only if nothing was written to the device meanwhile, so that it is the
//! disk of one moment. The copy is mounted, which replays its journal, and compared with the history. Then the writer goes on.
//!
//! For the log nothing may be missing. The checkpoint makes a weaker promise: what it gives is exact, or it gives nothing; how often it
//! was behind or gone is reported.

#![expect(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use storage::{Checkpoint, DataDir, Log};

use device::{Device, run};
use history::History;
use writer::Writer;

#[path = "torture/device.rs"]
mod device;
#[path = "torture/history.rs"]
mod history;
#[path = "torture/writer.rs"]
mod writer;

const IMAGE_BYTES: u64 = 256 << 20;
/// Images taken of one writer before it is killed and the next one goes on.
const IMAGES_PER_WRITER: u64 = 10;
/// Until the device is quiet: what was being synced when the writer was stopped completes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Not a test by itself: the process that writes.
#[test]
fn writes_until_killed() {
    writer::run_if_asked();
}

#[test]
fn nothing_acknowledged_is_lost_by_power_loss() {
    let Some(images) = std::env::var("QUORATE_POWER_IMAGES").ok().and_then(|images| images.parse::<u64>().ok()) else {
        println!("skipped: QUORATE_POWER_IMAGES is not set");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk.img");
    std::fs::File::create(&disk).unwrap().set_len(IMAGE_BYTES).unwrap();
    let mounted = match Device::attach(&disk).and_then(|device| device.format(&dir.path().join("mnt"))) {
        Ok(mounted) => mounted,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    let path = mounted.at.join("data");
    let (mut steps, mut commits, mut taken) = (0, 0, 0);
    let (mut current, mut behind, mut gone) = (0, 0, 0);
    while taken < images {
        let mut writer = Writer::start("writes_until_killed", &path, steps, commits);
        for _ in 0..IMAGES_PER_WRITER.min(images - taken) {
            taken += 1;
            let seed = mixed(u64::from(writer.pid()) << 8 | taken);
            writer.wait(1 + seed % 1500, Duration::from_micros(seed % 3000));
            let image = dir.path().join(format!("{taken}.img"));
            let (acknowledged, committed) = cut(&writer, &mounted.device, &disk, &image);

            let copy = Device::attach(&image).and_then(|device| device.mount(&dir.path().join("copy"))).expect("mount");
            let data = DataDir::open(copy.at.join("data")).unwrap();
            let log =
                Log::open(&data.log(), history::settings()).unwrap_or_else(|error| panic!("image {taken}: {error}"));
            let found = History::matching(&History::found(&log), acknowledged);
            assert!(found.is_some(), "image {taken}: the log is not what step {acknowledged} or a later one left");
            let mut checkpoint = Checkpoint::open(&data.checkpoint()).unwrap();
            match history::commits_found(&mut checkpoint) {
                Ok(found) if found >= committed => current += 1,
                Ok(found) => {
                    println!("image {taken}: commit {committed} was acknowledged, the checkpoint is at {found}");
                    behind += 1;
                }
                Err(why) => {
                    println!("image {taken}: the checkpoint after commit {committed} was thrown away: {why}");
                    gone += 1;
                }
            }
            drop((log, checkpoint, data));
            drop(copy);
            std::fs::remove_file(image).unwrap();
            signal(&writer, Signal::CONT);
        }
        let (acknowledged, committed) = writer.kill();
        let data = DataDir::open(&path).unwrap();
        let log = Log::open(&data.log(), history::settings()).unwrap();
        steps = History::matching(&History::found(&log), acknowledged).expect("killed");
        commits = history::commits_found(&mut Checkpoint::open(&data.checkpoint()).unwrap()).unwrap_or(committed);
    }
    println!(
        "{images} images, {steps} steps of the log, none lost; {commits} commits: {current} checkpoints current, {behind} behind, {gone} gone"
    );
}

/// Stops the writer, and copies the disk of one moment. Returns what had been acknowledged before.
fn cut(writer: &Writer, device: &Device, disk: &Path, image: &Path) -> (u64, u64) {
    let acknowledged = writer.acknowledged();
    signal(writer, Signal::STOP);
    let began = Instant::now();
    loop {
        let before = device.activity();
        if before.in_flight == 0 {
            run("cp", &["--sparse=always", disk.to_str().expect("ascii"), image.to_str().expect("ascii")])
                .expect("copy");
            if device.activity() == before {
                break;
            }
        }
        assert!(began.elapsed() < PATIENCE, "the device does not come to rest");
        std::thread::sleep(Duration::from_millis(1));
    }
    acknowledged
}

fn signal(writer: &Writer, signal: Signal) {
    let pid = Pid::from_raw(writer.pid() as i32).expect("pid");
    kill_process(pid, signal).expect("signal");
}

fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

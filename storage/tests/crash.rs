//! A process that writes is killed again and again: everything it had acknowledged must be there.
//!
//! Ten kills by default; `QUORATE_CRASH_KILLS=50` for the long version. A kill leaves the kernel's memory intact, so this cannot show a
//! missing sync: `power_loss.rs` and `log_model.rs` can.

#![expect(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::time::Duration;

use storage::{Checkpoint, DataDir, Log};

use history::History;
use writer::Writer;

#[path = "torture/history.rs"]
mod history;
#[path = "torture/writer.rs"]
mod writer;

/// Not a test by itself: the process that is killed.
#[test]
fn writes_until_killed() {
    writer::run_if_asked();
}

#[test]
fn nothing_acknowledged_is_lost_by_kill() {
    let kills = std::env::var("QUORATE_CRASH_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(10);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let (mut steps, mut commits, mut thrown_away, mut torn) = (0, 0, 0, 0);
    for kill in 1..=kills {
        let mut writer = Writer::start("writes_until_killed", &path, steps, commits);
        let seed = u64::from(writer.pid()) * 7919 + kill;
        writer.wait(1 + seed % 700, Duration::from_micros(seed % 20_000));
        let (acknowledged, committed) = writer.kill();

        let data = DataDir::open(&path).unwrap();
        let log = Log::open(&data.log(), history::settings()).unwrap();
        torn += u64::from(log.torn_bytes() > 0);
        steps = History::matching(&History::found(&log), acknowledged)
            .unwrap_or_else(|| panic!("kill {kill}: the log is not what step {acknowledged} or a later one left"));
        match history::commits_found(&mut Checkpoint::open(&data.checkpoint()).unwrap()) {
            Ok(found) => {
                assert!(found >= committed, "kill {kill}: commit {committed} was acknowledged, found {found}");
                commits = found;
            }
            Err(why) => {
                println!("kill {kill}: the checkpoint after commit {committed} was thrown away: {why}");
                commits = committed;
                thrown_away += 1;
            }
        }
    }
    println!(
        "{kills} kills, {steps} steps of the log ({torn} torn tails), {commits} commits, {thrown_away} checkpoints thrown away"
    );
}

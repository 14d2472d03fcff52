//! The loss of power: of the disk there is left what had been written to its device at one instant, and of the process nothing. What
//! was acknowledged must be there when it comes back.

use super::{Disk, Harm, Harmed, run};
use crate::{
    run::{cluster::Cluster, fault::Fault},
    sim::random::Random,
};
use anyhow::ensure;
use std::{
    fs,
    time::{Duration, Instant},
};

/// Until the device is quiet: what was being synced when the node was stopped completes.
const PATIENCE: Duration = Duration::from_secs(20);
/// Written and not synced, to see that it is lost.
const PROBE: &str = "unsynced";

struct Power;

/// Of any node.
pub(in super::super) fn any(random: &mut Random) -> Box<dyn Fault> {
    Harmed::any(Power, random)
}

impl Harm for Power {
    const NAME: &'static str = "power-loss";
    const ABOUT: &'static str = "a node loses its power, and what its disk has not synced";
    const SPARES_OTHERS: bool = true;

    fn harm(&self, cluster: &mut Cluster, disk: &mut Disk, random: &mut Random) -> anyhow::Result<String> {
        let writes_for = Duration::from_millis(random.between(0, 3_000));
        std::thread::sleep(writes_for);
        cut(cluster, disk)
    }

    fn mend(&self, disk: &mut Disk) -> anyhow::Result<()> {
        drop(fs::remove_file(disk.at.join(PROBE)));
        Ok(())
    }
}

/// Replaces the disk by what was on its device at an instant at which nothing was written to it.
fn cut(cluster: &mut Cluster, disk: &mut Disk) -> anyhow::Result<String> {
    let probe = vec![0x5a_u8; 64 * 1024];
    fs::write(disk.at.join(PROBE), &probe)?;
    cluster.pause(disk.place, true)?;
    let platter = disk.image.with_extension("cut");
    let began = Instant::now();
    loop {
        let before = disk.activity()?;
        let [_, _, in_flight] = before;
        if in_flight == 0 {
            run("cp", &["--sparse=always".as_ref(), disk.image.as_ref(), platter.as_ref()])?;
            if disk.activity()? == before {
                break;
            }
        }
        ensure!(began.elapsed() < PATIENCE, "the device does not come to rest");
        std::thread::sleep(Duration::from_millis(1));
    }
    let process = cluster.kill(disk.place)?;
    disk.unmount()?;
    fs::rename(platter, &disk.image)?;
    disk.mount()?;
    let left = fs::read(disk.at.join(PROBE)).unwrap_or_default();
    ensure!(left != probe, "what was not synced is there");
    Ok(format!("no process {process}; of {} bytes that were not synced {} are left", probe.len(), left.len()))
}

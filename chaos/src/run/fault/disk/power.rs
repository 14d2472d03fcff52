//! The loss of power: of the disk there is left what had been written to its device at one instant, and of the process nothing. What
//! was acknowledged must be there when it comes back.

use super::{Disk, give_back, moved, run, stop, take};
use crate::{
    run::{
        cluster::Cluster,
        fault::{Fault, Healing, Took},
    },
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

struct Power {
    random: Random,
    disk: Option<Disk>,
    place: Option<usize>,
}

/// Of any node.
pub(in super::super) fn any(random: &mut Random) -> Box<dyn Fault> {
    Box::new(Power { random: random.clone(), disk: None, place: None })
}

impl Fault for Power {
    fn about(&self) -> String {
        "a node loses its power, and what its disk has not synced".to_owned()
    }

    fn install(&mut self, cluster: &mut Cluster) -> Took {
        let place = match take(cluster, &mut self.random, "power-loss") {
            Ok(place) => place,
            Err(took) => return took,
        };
        self.place = Some(place);
        let disk = match moved(cluster, place) {
            Ok(disk) => self.disk.insert(disk),
            Err(took) => return took,
        };
        let writes_for = Duration::from_millis(self.random.between(0, 3_000));
        std::thread::sleep(writes_for);
        match cut(cluster, disk) {
            Ok(proof) => Took::Installed { nodes: cluster.ids(&[place]), proof },
            Err(error) => Took::unknown(&error),
        }
    }

    fn heal(&mut self, cluster: &mut Cluster) -> Healing {
        let Some(place) = self.place else { return Healing::Healed };
        let healed = (|| {
            if let Some(disk) = &mut self.disk {
                stop(cluster, place)?;
                drop(fs::remove_file(disk.at.join(PROBE)));
                disk.away(cluster)?;
            }
            self.disk = None;
            give_back(cluster, place)
        })();
        healed.map_or_else(|error| Healing::NotYet(format!("{error:#}")), |()| Healing::Healed)
    }

    fn spares_others(&self) -> bool {
        true
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

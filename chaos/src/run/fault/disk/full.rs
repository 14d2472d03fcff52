//! A disk that fills to its last byte at once, while the node writes: nothing stops, what can be refused is refused, and all comes
//! back with the room.

use super::{Disk, give_back, moved, stop, take};
use crate::{
    run::{
        cluster::Cluster,
        fault::{Fault, Healing, Took},
    },
    sim::random::Random,
};
use std::{fs, io::Write as _};

struct Full {
    random: Random,
    disk: Option<Disk>,
    place: Option<usize>,
}

/// Of any node.
pub(in super::super) fn any(random: &mut Random) -> Box<dyn Fault> {
    Box::new(Full { random: random.clone(), disk: None, place: None })
}

impl Fault for Full {
    fn about(&self) -> String {
        "the disk of a node is full, to the last byte".to_owned()
    }

    fn install(&mut self, cluster: &mut Cluster) -> Took {
        let place = match take(cluster, &mut self.random, "disk-full") {
            Ok(place) => place,
            Err(took) => return took,
        };
        self.place = Some(place);
        let disk = match moved(cluster, place) {
            Ok(disk) => self.disk.insert(disk),
            Err(took) => return took,
        };
        match fill(disk) {
            Ok(proof) => Took::Installed { nodes: cluster.ids(&[place]), proof },
            Err(error) => Took::unknown(&error),
        }
    }

    fn heal(&mut self, cluster: &mut Cluster) -> Healing {
        let Some(place) = self.place else { return Healing::Healed };
        let healed = (|| {
            if let Some(disk) = &mut self.disk {
                drop(fs::remove_file(disk.at.join(BALLAST)));
                stop(cluster, place)?;
                disk.away(cluster)?;
            }
            self.disk = None;
            give_back(cluster, place)
        })();
        healed.map_or_else(|error| Healing::NotYet(format!("{error:#}")), |()| Healing::Healed)
    }
}

/// What takes the room.
const BALLAST: &str = "ballast";

/// Writes until nothing more can be written.
fn fill(disk: &Disk) -> anyhow::Result<String> {
    let mut ballast = fs::File::options().create(true).append(true).open(disk.at.join(BALLAST))?;
    let mut piece = vec![0xba_u8; 1 << 20];
    let mut written = 0_u64;
    loop {
        match ballast.write(&piece) {
            Ok(bytes) => written += bytes as u64,
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull && piece.len() > 1 => {
                piece.truncate(piece.len() / 16 + 1);
                piece.truncate(if piece.len() == 2 { 1 } else { piece.len() });
            }
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(format!("after {written} bytes of ballast a single one meets ENOSPC; {} bytes free", disk.free()?))
}

//! A disk that fills to its last byte at once, while the node writes: nothing stops, what can be refused is refused, and all comes
//! back with the room.

use super::{Disk, Harm, Harmed};
use crate::{
    run::{cluster::Cluster, fault::Fault},
    sim::random::Random,
};
use std::{fs, io::Write as _};

struct Full;

/// Of any node.
pub(in super::super) fn any(random: &mut Random) -> Box<dyn Fault> {
    Harmed::any(Full, random)
}

impl Harm for Full {
    const NAME: &'static str = "disk-full";
    const ABOUT: &'static str = "the disk of a node is full, to the last byte";

    fn harm(&self, _: &mut Cluster, disk: &mut Disk, _: &mut Random) -> anyhow::Result<String> {
        fill(disk)
    }

    fn ease(&self, disk: &Disk) {
        drop(fs::remove_file(disk.at.join(BALLAST)));
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

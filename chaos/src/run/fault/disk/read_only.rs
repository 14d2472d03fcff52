//! A disk that its kernel makes read-only, as it does after an error: nothing can be written from one instant to the next. The node
//! must stop rather than acknowledge, and what it had acknowledged must be there once the disk is repaired.

use super::{Disk, give_back, moved, run, stop, take};
use crate::{
    run::{
        cluster::Cluster,
        fault::{Fault, Healing, Took},
    },
    sim::random::Random,
};
use anyhow::{Context as _, ensure};
use std::{fs, process::Command};

struct ReadOnly {
    random: Random,
    disk: Option<Disk>,
    place: Option<usize>,
}

/// Of any node.
pub(in super::super) fn any(random: &mut Random) -> Box<dyn Fault> {
    Box::new(ReadOnly { random: random.clone(), disk: None, place: None })
}

impl Fault for ReadOnly {
    fn about(&self) -> String {
        "the disk of a node becomes read-only".to_owned()
    }

    fn install(&mut self, cluster: &mut Cluster) -> Took {
        let place = match take(cluster, &mut self.random, "disk-read-only") {
            Ok(place) => place,
            Err(took) => return took,
        };
        self.place = Some(place);
        let disk = match moved(cluster, place) {
            Ok(disk) => self.disk.insert(disk),
            Err(took) => return took,
        };
        if let Ok(node) = cluster.node_mut(place) {
            node.may_end = true;
        }
        match abort(disk) {
            Ok(proof) => Took::Installed { nodes: cluster.ids(&[place]), proof },
            Err(error) => Took::unknown(&error),
        }
    }

    fn heal(&mut self, cluster: &mut Cluster) -> Healing {
        let Some(place) = self.place else { return Healing::Healed };
        let healed = (|| {
            if let Some(disk) = &mut self.disk {
                stop(cluster, place)?;
                disk.unmount()?;
                repair(disk)?;
                disk.mount()?;
                disk.away(cluster)?;
            }
            self.disk = None;
            give_back(cluster, place)
        })();
        healed.map_or_else(|error| Healing::NotYet(format!("{error:#}")), |()| Healing::Healed)
    }
}

/// As ext4 does it by itself when its journal meets an error.
fn abort(disk: &Disk) -> anyhow::Result<String> {
    run("mount", &["-o".as_ref(), "remount,abort".as_ref(), disk.at.as_ref()])?;
    match fs::write(disk.at.join("probe"), b"x") {
        Err(error) if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem => {
            Ok("the journal is aborted; a write meets EROFS".to_owned())
        }
        Err(error) => Err(error.into()),
        Ok(()) => anyhow::bail!("it can still be written to"),
    }
}

fn repair(disk: &Disk) -> anyhow::Result<()> {
    let code = Command::new("e2fsck").arg("-p").arg(&disk.image).output().context("e2fsck")?.status.code();
    // 1: errors were corrected.
    ensure!(matches!(code, Some(0 | 1)), "e2fsck ended with {code:?}");
    Ok(())
}

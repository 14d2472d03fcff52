//! A disk that its kernel makes read-only, as it does after an error: nothing can be written from one instant to the next. The node
//! must stop rather than acknowledge, and what it had acknowledged must be there once the disk is repaired.

use super::{Disk, Harm, Harmed, run};
use crate::{
    run::{cluster::Cluster, fault::Fault},
    sim::random::Random,
};
use anyhow::{Context as _, ensure};
use std::{fs, process::Command};

struct ReadOnly;

/// Of any node.
pub(in super::super) fn any(random: &mut Random) -> Box<dyn Fault> {
    Harmed::any(ReadOnly, random)
}

impl Harm for ReadOnly {
    const NAME: &'static str = "disk-read-only";
    const ABOUT: &'static str = "the disk of a node becomes read-only";
    const MAY_END: bool = true;

    fn harm(&self, _: &mut Cluster, disk: &mut Disk, _: &mut Random) -> anyhow::Result<String> {
        abort(disk)
    }

    fn mend(&self, disk: &mut Disk) -> anyhow::Result<()> {
        disk.unmount()?;
        repair(disk)?;
        disk.mount()
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

//! Disks that fail. A node's data is moved to a small ext4 in a file of its own, mounted where its data was, so that what happens to it
//! happens to nobody else; afterwards the data moves back. The syncs that a test makes slow or lets fail are in the node (`sync`), and
//! damage to files needs no disk (`damage`).
//!
//! Mounts are removed when a fault is dropped; what a harness that was killed has left is removed by the next one.

pub(super) mod damage;
pub(super) mod full;
pub(super) mod power;
pub(super) mod read_only;
pub(super) mod sync;

use super::{Fault, Healing, Took, Whom};
use crate::{run::cluster::Cluster, sim::random::Random};
use anyhow::{Context as _, bail, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// Room for the log's reserve, a segment, snapshots and sled.
const DISK_BYTES: u64 = 512 << 20;
/// Until a node that was moved is up again, on a busy machine; otherwise the fault is not known to have taken hold.
const UP_PATIENCE: Duration = Duration::from_secs(30);
/// Until no process holds a file of a node that was killed.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(10);

/// A file system of its own where a node's data is.
struct Disk {
    /// The place of the node.
    place: usize,
    /// Where it is mounted.
    at: PathBuf,
    /// What it lies in.
    image: PathBuf,
    mounted: bool,
}

impl Disk {
    /// Stops a node and moves its data to a disk of its own. The node is not started again.
    fn under(cluster: &mut Cluster, place: usize) -> anyhow::Result<Self> {
        let folder = aside(cluster, place)?;
        let at = cluster.node(place)?.data();
        let image = folder.join("disk.img");
        fs::File::create(&image)?.set_len(DISK_BYTES)?;
        run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), image.as_ref()])?;
        stop(cluster, place)?;
        let plain = folder.join("plain");
        fs::rename(&at, &plain)?;
        fs::create_dir(&at)?;
        let mut disk = Self { place, at, image, mounted: false };
        // Synced: what the node itself has synced must not be lost because it was moved.
        let moved = disk.mount().and_then(|()| copy(&plain, &disk.at)).and_then(|()| flush(&disk.at));
        if let Err(error) = moved {
            disk.unmount()?;
            fs::remove_dir(&disk.at)?;
            fs::rename(&plain, &disk.at)?;
            return Err(error);
        }
        fs::remove_dir_all(plain)?;
        Ok(disk)
    }

    fn mount(&mut self) -> anyhow::Result<()> {
        run(
            "mount",
            &["-t".as_ref(), "ext4".as_ref(), "-o".as_ref(), "loop".as_ref(), self.image.as_ref(), self.at.as_ref()],
        )?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.mounted {
            match run("umount", &[self.at.as_ref()]) {
                Ok(()) => self.mounted = false,
                Err(error) if began.elapsed() > UNMOUNT_PATIENCE => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
        Ok(())
    }

    /// Moves the data of the node, which has ended, back to where it was.
    fn away(&mut self, cluster: &mut Cluster) -> anyhow::Result<()> {
        let folder = aside(cluster, self.place)?;
        let plain = folder.join("plain");
        // Of an attempt that did not come to its end.
        drop(fs::remove_dir_all(&plain));
        fs::create_dir(&plain)?;
        copy(&self.at, &plain)?;
        flush(&plain)?;
        drop(fs::remove_dir(plain.join("lost+found")));
        self.unmount()?;
        fs::remove_dir(&self.at)?;
        fs::rename(plain, &self.at)?;
        fs::remove_file(&self.image)?;
        Ok(())
    }

    /// Free bytes, for who is not root.
    fn free(&self) -> anyhow::Result<u64> {
        let room = rustix::fs::statvfs(&self.at)?;
        Ok(room.f_bavail.saturating_mul(room.f_frsize))
    }

    /// What the kernel has done with the device so far: writes, flushes, and what is on its way.
    fn activity(&self) -> anyhow::Result<[u64; 3]> {
        let mounts = fs::read_to_string("/proc/mounts")?;
        let at = self.at.to_str().context("a path is UTF-8")?;
        let line = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some(at)).context("it is mounted")?;
        let device = line.split(' ').next().and_then(|device| device.strip_prefix("/dev/")).context("a device")?;
        let stat = fs::read_to_string(format!("/sys/block/{device}/stat"))?;
        let fields: Vec<u64> = stat.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        let field = |at: usize| fields.get(at).copied().context("the device's statistics");
        Ok([field(4)?, field(15)?, field(8)?])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            drop(run("umount", &["-l".as_ref(), self.at.as_ref()]));
        }
    }
}

/// What one fault does to the disk of a node.
trait Harm: Send {
    /// As [`super::ALL`] names it.
    const NAME: &'static str;
    /// See [`Fault::about`].
    const ABOUT: &'static str;
    /// Whether the node may end of it.
    const MAY_END: bool = false;
    /// See [`Fault::spares_others`].
    const SPARES_OTHERS: bool = false;

    /// Does it, and says how that is known.
    fn harm(&self, cluster: &mut Cluster, disk: &mut Disk, random: &mut Random) -> anyhow::Result<String>;

    /// What has to go before the node is stopped.
    fn ease(&self, _: &Disk) {}

    /// Makes the disk readable and writable again. The node is stopped.
    fn mend(&self, _: &mut Disk) -> anyhow::Result<()> {
        Ok(())
    }
}

/// The fault: a node is moved to a disk of its own, harm is done to that, and afterwards the data moves back.
struct Harmed<H> {
    harm: H,
    random: Random,
    disk: Option<Disk>,
    place: Option<usize>,
}

impl<H: Harm + 'static> Harmed<H> {
    /// Of any node.
    fn any(harm: H, random: &Random) -> Box<dyn Fault> {
        Box::new(Self { harm, random: random.clone(), disk: None, place: None })
    }
}

impl<H: Harm> Fault for Harmed<H> {
    fn about(&self) -> String {
        H::ABOUT.to_owned()
    }

    fn install(&mut self, cluster: &mut Cluster) -> Took {
        let place = match take(cluster, &mut self.random, H::NAME) {
            Ok(place) => place,
            Err(took) => return took,
        };
        self.place = Some(place);
        let disk = match moved(cluster, place) {
            Ok(disk) => self.disk.insert(disk),
            Err(took) => return took,
        };
        if let Ok(node) = cluster.node_mut(place) {
            node.may_end = H::MAY_END;
        }
        match self.harm.harm(cluster, disk, &mut self.random) {
            Ok(proof) => Took::Installed { nodes: cluster.ids(&[place]), proof },
            Err(error) => Took::unknown(&error),
        }
    }

    fn heal(&mut self, cluster: &mut Cluster) -> Healing {
        let Some(place) = self.place else { return Healing::Healed };
        let healed = (|| {
            if let Some(disk) = &mut self.disk {
                self.harm.ease(disk);
                stop(cluster, place)?;
                self.harm.mend(disk)?;
                disk.away(cluster)?;
            }
            self.disk = None;
            give_back(cluster, place)
        })();
        healed.map_or_else(|error| Healing::NotYet(format!("{error:#}")), |()| Healing::Healed)
    }

    fn spares_others(&self) -> bool {
        H::SPARES_OTHERS
    }
}

/// A node for a fault of its disk, which is then its own.
fn take(cluster: &mut Cluster, random: &mut Random, fault: &str) -> Result<usize, Took> {
    sweep();
    let place = Whom::Any.find(cluster, random).map_err(Took::NotNow)?;
    let node = cluster.node_mut(place).map_err(|error| Took::unknown(&error))?;
    node.held_by = Some(fault.to_owned());
    Ok(place)
}

/// The node is anybody's again, and runs.
fn give_back(cluster: &mut Cluster, place: usize) -> anyhow::Result<()> {
    let node = cluster.node_mut(place)?;
    (node.held_by, node.may_end) = (None, false);
    if node.process.is_none() {
        cluster.run(place)?;
    }
    Ok(())
}

/// Gives a node a disk of its own and waits until it is up on it. Without the right to mount, nothing has changed.
fn moved(cluster: &mut Cluster, place: usize) -> Result<Disk, Took> {
    let unknown = |error: anyhow::Error| Took::unknown(&error);
    if let Err(error) = may_mount(cluster, place) {
        let kept = give_back(cluster, place);
        return Err(kept.map_or_else(|error| Took::unknown(&error), |()| Took::Skipped(format!("{error:#}"))));
    }
    let disk = Disk::under(cluster, place).map_err(unknown)?;
    cluster.run(place).map_err(unknown)?;
    wait_up(cluster, place).map_err(unknown)?;
    Ok(disk)
}

/// Tries it with an empty file system, before a node is touched.
fn may_mount(cluster: &Cluster, place: usize) -> anyhow::Result<()> {
    let folder = aside(cluster, place)?;
    let (image, at) = (folder.join("probe.img"), folder.join("probe"));
    fs::create_dir_all(&at)?;
    fs::File::create(&image)?.set_len(8 << 20)?;
    run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), image.as_ref()])?;
    let mut disk = Disk { place, at, image, mounted: false };
    disk.mount()?;
    disk.unmount()
}

/// Until it answers for itself: whether it is ready depends on what other faults do meanwhile.
fn wait_up(cluster: &mut Cluster, place: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    while !is_up(cluster, place) {
        let node = cluster.node_mut(place)?;
        if let Some(ended) = node.process.as_mut().and_then(tests::process::Process::ended) {
            bail!("{} ended instead of coming up: {ended}", node.name);
        }
        ensure!(began.elapsed() < UP_PATIENCE, "{} does not come up on its new disk", node.name);
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Whether a node has read its files and takes part.
fn is_up(cluster: &Cluster, place: usize) -> bool {
    cluster.status(place).is_some_and(|status| status["raft"]["role"].is_string())
}

/// SIGKILL, unless it has ended by itself.
fn stop(cluster: &mut Cluster, place: usize) -> anyhow::Result<()> {
    if cluster.node(place)?.process.is_some() {
        cluster.kill(place)?;
    }
    Ok(())
}

/// A folder for what is not a node's: beside what nodes have written, which is searched for secrets.
fn aside(cluster: &Cluster, place: usize) -> anyhow::Result<PathBuf> {
    let node = cluster.node(place)?;
    let run = node.folder.ancestors().nth(2).context("a node's folder lies in the run's")?;
    let folder = run.join("disks").join(&node.name);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Copies what is in a folder into another.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    run("cp", &["-a".as_ref(), from.join(".").as_ref(), to.as_ref()])
}

/// Makes everything on this file system durable.
fn flush(at: &Path) -> anyhow::Result<()> {
    run("sync", &["-f".as_ref(), at.as_ref()])
}

fn run(program: &str, arguments: &[&std::ffi::OsStr]) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| program.to_owned())?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Unmounts what harnesses that are gone have left.
fn sweep() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for at in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        let run_folder = at.split('/').find_map(|part| part.strip_prefix("quorate-chaos-"));
        let harness = run_folder.and_then(|part| part.rsplit('-').next()?.parse::<u32>().ok());
        if harness.is_some_and(|harness| !tests::process::is_alive(harness)) {
            drop(run("umount", &["-l".as_ref(), at.as_ref()]));
        }
    }
}

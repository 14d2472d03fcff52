//! Bytes of a stopped node that have changed: flipped, zeroed, or cut off at the end. Started on them the node refuses, naming the
//! file, or it recovers what they said from elsewhere (a checkpoint from snapshot and log, a snapshot from the checkpoint). What it
//! serves is judged by the invariants. A node that refused gets its files back as they were.
//!
//! Of the newest segment of the log nothing is touched behind its middle: what was acknowledged last is told from a torn tail only by
//! what was written after it, and no disk that keeps its promises loses that. There, a torn tail is what is put behind its end.

use super::{aside, copy, give_back, is_up, stop, take};
use crate::{
    run::{
        cluster::Cluster,
        fault::{Fault, Healing, Took},
    },
    sim::random::Random,
};
use anyhow::{Context as _, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tests::process::Process;

/// Until a node has refused or answers for itself.
const PATIENCE: Duration = Duration::from_secs(40);

#[derive(Clone, Copy)]
enum How {
    Flipped,
    Torn,
}

struct Damage {
    how: How,
    random: Random,
    place: Option<usize>,
    /// Its files as they were, if it has refused those with damage.
    kept: Option<PathBuf>,
}

/// A bit is another, somewhere.
pub(in super::super) fn flipped(random: &mut Random) -> Box<dyn Fault> {
    Box::new(Damage { how: How::Flipped, random: random.clone(), place: None, kept: None })
}

/// The end of a file is gone, or a part of it zeros, or there is a torn tail behind it.
pub(in super::super) fn torn(random: &mut Random) -> Box<dyn Fault> {
    Box::new(Damage { how: How::Torn, random: random.clone(), place: None, kept: None })
}

impl Fault for Damage {
    fn about(&self) -> String {
        match self.how {
            How::Flipped => "a bit of a file of a stopped node is another".to_owned(),
            How::Torn => "a file of a stopped node is torn".to_owned(),
        }
    }

    fn install(&mut self, cluster: &mut Cluster) -> Took {
        let place = match take(cluster, &mut self.random, "damage") {
            Ok(place) => place,
            Err(took) => return took,
        };
        self.place = Some(place);
        match self.hurt(cluster, place) {
            Ok(proof) => Took::Installed { nodes: cluster.ids(&[place]), proof },
            Err(error) => Took::unknown(&error),
        }
    }

    fn heal(&mut self, cluster: &mut Cluster) -> Healing {
        let Some(place) = self.place else { return Healing::Healed };
        let healed = (|| {
            if let Some(kept) = &self.kept {
                stop(cluster, place)?;
                let data = cluster.node(place)?.data();
                drop(fs::remove_dir_all(&data));
                fs::create_dir(&data)?;
                copy(kept, &data)?;
                fs::remove_dir_all(kept)?;
            }
            self.kept = None;
            give_back(cluster, place)
        })();
        healed.map_or_else(|error| Healing::NotYet(format!("{error:#}")), |()| Healing::Healed)
    }

    fn spares_others(&self) -> bool {
        true
    }
}

impl Damage {
    fn hurt(&mut self, cluster: &mut Cluster, place: usize) -> anyhow::Result<String> {
        stop(cluster, place)?;
        let data = cluster.node(place)?.data();
        let kept = aside(cluster, place)?.join("kept");
        drop(fs::remove_dir_all(&kept));
        fs::create_dir(&kept)?;
        copy(&data, &kept)?;
        self.kept = Some(kept);
        let file = self.pick(&data)?;
        let name = file.strip_prefix(&data).unwrap_or(&file).display().to_string();
        let what = self.change(&file, file_is_newest_segment(&data, &file)?)?;
        let became = self.start(cluster, place, &name)?;
        Ok(format!("{name}: {what}; {became}"))
    }

    /// Each part of the data directory is as likely, whatever the number of its files.
    fn pick(&mut self, data: &Path) -> anyhow::Result<PathBuf> {
        let mut parts: Vec<Vec<PathBuf>> = Vec::new();
        for part in ["log", "checkpoint", "snapshots", "pki"] {
            parts.push(files(&data.join(part))?);
        }
        parts.push(["node.json", "VERSION"].map(|name| data.join(name)).to_vec());
        parts.retain(|files| !files.is_empty());
        let part = self.random.pick(&parts).context("there are files")?;
        self.random.pick(part).cloned().context("there is a file")
    }

    fn change(&mut self, file: &Path, newest_segment: bool) -> anyhow::Result<String> {
        let mut bytes = fs::read(file)?;
        let length = bytes.len() as u64;
        let end = if newest_segment { length / 2 } else { length };
        let at = usize::try_from(self.random.between(0, end.saturating_sub(1)))?;
        let what = match self.how {
            How::Flipped => {
                let bit = 1 << self.random.between(0, 7);
                *bytes.get_mut(at).context("it is empty")? ^= bit;
                format!("a bit of byte {at} of {length} flipped")
            }
            How::Torn if newest_segment => {
                let tail: Vec<u8> = (0..200).map(|_| self.random.next().to_le_bytes()[0]).collect();
                bytes.extend(tail);
                "200 bytes behind its end".to_owned()
            }
            How::Torn if self.random.between(0, 1) == 0 => {
                bytes.truncate(at);
                format!("cut to {at} of {length} bytes")
            }
            How::Torn => {
                let end = (at + 512).min(bytes.len());
                bytes.get_mut(at..end).into_iter().flatten().for_each(|byte| *byte = 0);
                format!("zeros from {at} to {end} of {length}")
            }
        };
        fs::write(file, bytes)?;
        Ok(what)
    }

    /// What the node does with it.
    fn start(&mut self, cluster: &mut Cluster, place: usize, file: &str) -> anyhow::Result<String> {
        let before = fs::read_to_string(cluster.node(place)?.folder.join("run.err")).unwrap_or_default().len();
        cluster.run(place)?;
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if is_up(cluster, place) {
                if let Some(kept) = self.kept.take() {
                    fs::remove_dir_all(kept)?;
                }
                return Ok("it came back".to_owned());
            }
            let node = cluster.node_mut(place)?;
            if let Some(ended) = node.process.as_mut().and_then(Process::ended) {
                let said = node.process.take().map(|process| process.stderr()).unwrap_or_default();
                let said = said.get(before..).unwrap_or_default();
                let last = said.lines().last().unwrap_or_default().to_owned();
                if said.contains("panicked") || !names(said, file) {
                    let name = node.name.clone();
                    cluster
                        .broken
                        .push(format!("{name} ended ({ended}) over damage to {file} without naming it: {said}"));
                }
                return Ok(format!("it refused: {last}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("with damage to {file} it neither comes back nor refuses")
    }
}

/// Whether a refusal names the file, or at least its folder.
fn names(said: &str, file: &str) -> bool {
    let folder = Path::new(file).parent().and_then(Path::to_str).filter(|folder| !folder.is_empty());
    said.contains(file) || folder.is_some_and(|folder| said.contains(&format!("data/{folder}")))
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() && fs::metadata(&path)?.len() > 0 {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn file_is_newest_segment(data: &Path, file: &Path) -> anyhow::Result<bool> {
    Ok(files(&data.join("log"))?.last().is_some_and(|newest| newest == file))
}

//! A disk in memory that behaves as badly as a disk may: it forgets names and contents that were not synced, keeps unsynced writes in
//! any part and order, fills up, and fails to sync in the way of kernels, which then take the lost pages for clean.
//!
//! Deterministic: what survives a power cut follows from a seed. Faults are counted in steps; each operation that changes the disk is one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{File, Fs};

/// Unsynced writes survive in pieces of this size, as sectors of a disk do.
const SECTOR_BYTES: usize = 512;

/// The simulated disk. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct Simulated {
    disk: Arc<Mutex<Disk>>,
}

/// What a power cut does to what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Everything unsynced is gone.
    All,
    /// Everything unsynced happens to be there.
    Nothing,
    /// Any part of it, following from the seed.
    Some(u64),
}

#[derive(Debug, Default)]
struct Disk {
    /// Names as running programs see them.
    names: BTreeMap<PathBuf, usize>,
    /// Names that survive for certain.
    durable_names: BTreeMap<PathBuf, usize>,
    pending_names: Vec<NameChange>,
    contents: Vec<Contents>,
    steps: u64,
    power_ends_at: Option<u64>,
    sync_fails_at: Option<u64>,
    capacity: Option<u64>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, usize),
}

#[derive(Debug, Clone, Default)]
struct Contents {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Writes since the last sync.
    pending: Vec<(usize, Vec<u8>)>,
    /// Up to where room is held. A power cut gives it back.
    reserved: u64,
}

impl Simulated {
    /// An empty disk.
    pub fn new() -> Simulated {
        Simulated::default()
    }

    /// Steps taken so far: each operation that changes the disk, or syncs, is one.
    pub fn steps(&self) -> u64 {
        self.disk().steps
    }

    /// Cuts the power after this many more steps: from then on every operation fails and changes nothing.
    pub fn power_ends_after(&self, steps: u64) {
        let mut disk = self.disk();
        disk.power_ends_at = Some(disk.steps + steps);
    }

    /// Lets the first sync after this many more steps fail. What it should have saved is lost although later syncs succeed.
    pub fn sync_fails_after(&self, steps: u64) {
        let mut disk = self.disk();
        disk.sync_fails_at = Some(disk.steps + steps);
    }

    /// Limits (or, with `None`, frees) the space for file contents.
    pub fn limit(&self, bytes: Option<u64>) {
        self.disk().capacity = bytes;
    }

    /// Bytes in files that have a name.
    pub fn used(&self) -> u64 {
        self.disk().used()
    }

    /// Changes one byte of a file in place, durably, as a failing medium does.
    pub fn damage(&self, path: &Path, offset: u64, change: u8) -> io::Result<()> {
        let mut disk = self.disk();
        let id = disk.find(path)?;
        let contents = disk.contents(id)?;
        for bytes in [&mut contents.now, &mut contents.durable] {
            if let Some(byte) = bytes.get_mut(offset as usize) {
                *byte ^= change;
            }
        }
        Ok(())
    }

    /// The disk as the next start of the machine finds it. The old one is dead: all its open files fail.
    pub fn power_cut(&self, loss: Loss) -> Simulated {
        let mut disk = self.disk();
        disk.power_ends_at = Some(0);
        let mut chance = Chance::new(loss);
        let mut names = disk.durable_names.clone();
        for change in disk.pending_names.iter().filter(|_| chance.survives()) {
            change.apply(&mut names);
        }
        let contents: Vec<Contents> = disk.contents.iter().map(|file| file.after_cut(&mut chance)).collect();
        drop(disk);
        let survivor = Disk { durable_names: names.clone(), names, contents, ..Disk::default() };
        Simulated { disk: Arc::new(Mutex::new(survivor)) }
    }

    /// The disk as the next process finds it after this one was killed with the power on: nothing is lost yet, and nothing synced
    /// either. The old one is dead: all its open files fail.
    pub fn killed(&self) -> Simulated {
        let mut disk = self.disk();
        // Under one lock: nothing may be synced between the copy and the end.
        let survivor = disk.copy();
        disk.power_ends_at = Some(0);
        survivor
    }

    /// Another disk with the same on it, without the faults that were ordered for this one.
    pub fn copy(&self) -> Simulated {
        self.disk().copy()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    fn copy(&self) -> Simulated {
        let copy = Disk {
            names: self.names.clone(),
            durable_names: self.durable_names.clone(),
            pending_names: self.pending_names.clone(),
            contents: self.contents.clone(),
            capacity: self.capacity,
            ..Disk::default()
        };
        Simulated { disk: Arc::new(Mutex::new(copy)) }
    }

    fn step(&mut self) -> io::Result<()> {
        self.powered()?;
        self.steps += 1;
        Ok(())
    }

    fn powered(&self) -> io::Result<()> {
        match self.power_ends_at {
            Some(end) if self.steps >= end => Err(io::Error::other("the power is off")),
            _ => Ok(()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn contents(&mut self, id: usize) -> io::Result<&mut Contents> {
        self.contents.get_mut(id).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn used(&self) -> u64 {
        self.names.values().filter_map(|id| self.contents.get(*id)).map(Contents::takes).sum()
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    /// Whether this sync is the one that fails.
    fn sync_fails(&mut self) -> bool {
        let fails = self.sync_fails_at.is_some_and(|at| self.steps > at);
        if fails {
            self.sync_fails_at = None;
        }
        fails
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            NameChange::Link(path, id) => {
                names.insert(path.clone(), *id);
            }
            NameChange::Unlink(path) => {
                names.remove(path);
            }
            NameChange::Rename(from, to, id) => {
                names.remove(from);
                names.insert(to.clone(), *id);
            }
        }
    }

    fn dir(&self) -> Option<&Path> {
        match self {
            NameChange::Link(path, _) | NameChange::Unlink(path) | NameChange::Rename(_, path, _) => path.parent(),
        }
    }
}

impl Contents {
    /// What it takes of the disk.
    fn takes(&self) -> u64 {
        (self.now.len() as u64).max(self.reserved)
    }

    fn write(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
        let end = offset + written.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        if let Some(place) = bytes.get_mut(offset..end) {
            place.copy_from_slice(written);
        }
    }

    fn after_cut(&self, chance: &mut Chance) -> Contents {
        let mut bytes = self.durable.clone();
        for (offset, written) in &self.pending {
            let mut at = *offset;
            // Pieces end at sector borders of the file, not of the write.
            let mut rest = written.as_slice();
            while !rest.is_empty() {
                let piece = (SECTOR_BYTES - at % SECTOR_BYTES).min(rest.len());
                let (head, tail) = rest.split_at(piece);
                if chance.survives() {
                    Contents::write(&mut bytes, at, head);
                }
                at += piece;
                rest = tail;
            }
        }
        Contents { now: bytes.clone(), durable: bytes, ..Contents::default() }
    }
}

impl Fs for Simulated {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        self.disk().powered()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let disk = self.disk();
        disk.powered()?;
        let inside = disk.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut disk = self.disk();
        disk.step()?;
        let id = disk.contents.len();
        disk.contents.push(Contents::default());
        disk.change_name(NameChange::Link(path.to_owned(), id));
        Ok(Box::new(SimulatedFile { disk: self.clone(), id }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let disk = self.disk();
        disk.powered()?;
        Ok(Box::new(SimulatedFile { disk: self.clone(), id: disk.find(path)? }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        let id = disk.find(from)?;
        disk.change_name(NameChange::Rename(from.to_owned(), to.to_owned(), id));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        disk.find(path)?;
        disk.change_name(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        if disk.sync_fails() {
            return Err(io::Error::other("sync failed (injected)"));
        }
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            std::mem::take(&mut disk.pending_names).into_iter().partition(|change| change.dir() == Some(dir));
        disk.pending_names = elsewhere;
        for change in here {
            change.apply(&mut disk.durable_names);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: Simulated,
    id: usize,
}

impl File for SimulatedFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.disk.disk();
        disk.powered()?;
        let contents = disk.contents(self.id)?;
        let rest = contents.now.get(offset as usize..).unwrap_or_default();
        let read = rest.len().min(into.len());
        if let (Some(to), Some(from)) = (into.get_mut(..read), rest.get(..read)) {
            to.copy_from_slice(from);
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.disk.disk();
        disk.step()?;
        let space = disk.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(disk.used()));
        let contents = disk.contents(self.id)?;
        // Only what lies past the end, and past what is reserved, takes space.
        let inside = contents.takes().saturating_sub(offset);
        let fits = bytes.len().min(inside.saturating_add(space).min(usize::MAX as u64) as usize);
        let written = bytes.get(..fits).unwrap_or_default();
        Contents::write(&mut contents.now, offset as usize, written);
        contents.pending.push((offset as usize, written.to_vec()));
        if fits < bytes.len() { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk.disk();
        disk.step()?;
        let fails = disk.sync_fails();
        let contents = disk.contents(self.id)?;
        let pending = std::mem::take(&mut contents.pending);
        if fails {
            return Err(io::Error::other("sync failed (injected)"));
        }
        for (offset, written) in pending {
            Contents::write(&mut contents.durable, offset, &written);
        }
        Ok(())
    }

    fn forget(&self) -> io::Result<()> {
        let mut disk = self.disk.disk();
        disk.powered()?;
        let contents = disk.contents(self.id)?;
        if contents.pending.is_empty() {
            contents.now = contents.durable.clone();
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let mut disk = self.disk.disk();
        disk.powered()?;
        Ok(disk.contents(self.id)?.now.len() as u64)
    }

    fn cut(&self, len: u64) -> io::Result<()> {
        let mut disk = self.disk.disk();
        disk.step()?;
        let contents = disk.contents(self.id)?;
        contents.now.truncate(len as usize);
        contents.durable = contents.now.clone();
        contents.pending.clear();
        contents.reserved = 0;
        Ok(())
    }

    /// Not a step: a power cut forgets it, whenever it comes.
    fn reserve(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let mut disk = self.disk.disk();
        disk.powered()?;
        let space = disk.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(disk.used()));
        let contents = disk.contents(self.id)?;
        let end = offset.saturating_add(bytes);
        if end.saturating_sub(contents.takes()) > space {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        contents.reserved = contents.reserved.max(end);
        Ok(())
    }

    fn release(&self) -> io::Result<()> {
        let mut disk = self.disk.disk();
        disk.powered()?;
        disk.contents(self.id)?.reserved = 0;
        Ok(())
    }
}

/// A coin for each unsynced piece.
#[derive(Debug)]
struct Chance {
    loss: Loss,
    state: u64,
    /// How likely survival is, in 256ths: some cuts lose nearly all, some nearly nothing.
    odds: u64,
}

impl Chance {
    fn new(loss: Loss) -> Chance {
        let mut chance = Chance { loss, state: if let Loss::Some(seed) = loss { seed } else { 0 }, odds: 128 };
        chance.odds = chance.next() % 257;
        chance
    }

    fn survives(&mut self) -> bool {
        match self.loss {
            Loss::All => false,
            Loss::Nothing => true,
            Loss::Some(_) => self.next() % 256 < self.odds,
        }
    }

    /// SplitMix64: small, and the same everywhere.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

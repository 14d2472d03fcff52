//! A node's disk: one that forgets what was not synced, and takes its time.

use super::{Mutation, seat::lock};
use chaos::sim::random::Random;
use raft::{DiskPause, Ground, Simulated as Stands};
use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use storage::fs::{File, Fs, Loss, Simulated};

/// A node's disk.
#[derive(Debug)]
pub struct Disk {
    files: Mutex<Simulated>,
    /// An older state of it, for a bug.
    image: Mutex<Option<Simulated>>,
    slowest_us: Arc<AtomicU64>,
    random: Arc<Mutex<Random>>,
    mutation: Option<Mutation>,
}

impl Disk {
    pub(super) fn new(seed: u64, slowest_us: u64, mutation: Option<Mutation>) -> Self {
        Self {
            files: Mutex::default(),
            image: Mutex::default(),
            slowest_us: Arc::new(AtomicU64::new(slowest_us)),
            random: Arc::new(Mutex::new(Random::new(seed))),
            mutation,
        }
    }

    /// What a process stands on that starts now.
    pub(super) fn ground(&self) -> Ground {
        let files = lock(&self.files).clone();
        let files: Arc<dyn Fs> = match self.mutation {
            Some(Mutation::SyncLeftOut) => Arc::new(Lying(files)),
            _ => Arc::new(files),
        };
        let (random, slowest_us) = (Arc::clone(&self.random), Arc::clone(&self.slowest_us));
        let pause: DiskPause = Arc::new(move || {
            let most = slowest_us.load(Ordering::Relaxed);
            Duration::from_micros(lock(&random).between(most / 10, most))
        });
        Ground::Simulated(Stands { files, pause })
    }

    /// From now on a write takes at most so long.
    pub(super) fn slow(&self, slowest_us: u64) {
        self.slowest_us.store(slowest_us, Ordering::Relaxed);
    }

    /// Lets the disk die after so many more operations, in the middle of whatever that is.
    pub(super) fn dies_after(&self, steps: u64) {
        lock(&self.files).power_ends_after(steps);
    }

    /// Lets a sync fail.
    pub(super) fn sync_fails(&self, steps: u64) {
        lock(&self.files).sync_fails_after(steps);
    }

    /// The process has ended: the next one finds everything that was written.
    pub(super) fn killed(&self) {
        let mut files = lock(&self.files);
        let next = files.killed();
        *files = self.or_older(next);
    }

    /// The power is off: the next process finds what was synced, and of the rest what chance wants.
    pub(super) fn power_cut(&self, loss: Loss) {
        let mut files = lock(&self.files);
        let next = files.power_cut(loss);
        *files = self.or_older(next);
    }

    /// Remembers the disk as it is now, if the bug is to bring it back.
    pub(super) fn keep_image(&self) {
        if self.mutation == Some(Mutation::OldDisk) {
            *lock(&self.image) = Some(lock(&self.files).copy());
        }
    }

    fn or_older(&self, next: Simulated) -> Simulated {
        lock(&self.image).take().unwrap_or(next)
    }
}

/// A disk that says that it has synced.
#[derive(Debug)]
struct Lying(Simulated);

#[derive(Debug)]
struct LyingFile(Box<dyn File>);

impl Fs for Lying {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(LyingFile(self.0.create(path)?)))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(LyingFile(self.0.open(path)?)))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
}

impl File for LyingFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(into, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn forget(&self) -> io::Result<()> {
        self.0.forget()
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn cut(&self, len: u64) -> io::Result<()> {
        self.0.cut(len)
    }
    fn reserve(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.0.reserve(offset, bytes)
    }
    fn release(&self) -> io::Result<()> {
        self.0.release()
    }
}

//! The operating system's file system. New files and directories are private to their owner.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

use super::{File, Fs, before_sync};

/// The real file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Real;

/// Directories are for the owner alone: they hold key hashes, identities and private keys.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

impl Real {
    /// Opens a file that may be somebody else's, on a disk that may be read-only.
    pub(crate) fn open_to_read(path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(RealFile(OpenOptions::new().read(true).open(path)?)))
    }
}

impl Fs for Real {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(FILE_MODE).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(RealFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        before_sync()?;
        std::fs::File::open(dir)?.sync_all()
    }
}

#[derive(Debug)]
struct RealFile(std::fs::File);

impl File for RealFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = into.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        before_sync()?;
        self.0.sync_data()
    }

    fn forget(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed)?)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn cut(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)?;
        before_sync()?;
        self.0.sync_all()
    }

    fn reserve(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let hold = || rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::KEEP_SIZE, offset, bytes);
        Ok(rustix::io::retry_on_intr(hold)?)
    }

    fn release(&self) -> io::Result<()> {
        // To cut a file to the length that it has frees what is allocated behind it.
        self.0.set_len(self.0.metadata()?.len())
    }
}

//! The map of the data directory, and its lock. What the files hold is known elsewhere.
//!
//! ```text
//! LOCK         locked while a process runs here; holds its pid
//! VERSION      the format of this map
//! node.json    who this node is (written by the node)
//! log/         the write-ahead log: the truth
//! checkpoint/  the applied state in sled: may be deleted while the node is stopped
//! snapshots/   whole states in files
//! pki/         keys and certificates (written by the node)
//! ```

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock, statvfs};

use crate::Error;

/// The format that this release writes, and the newest that it reads.
const FORMAT: u32 = 1;
/// A pid or a version fits well; anything longer is not ours.
const SMALL_FILE_BYTES: u64 = 64;

/// A data directory that this process owns. Clones share the lock; it is released with the last one.
#[derive(Debug, Clone)]
pub struct DataDir {
    path: PathBuf,
    _lock: Arc<File>,
}

impl DataDir {
    /// Makes the directory if it is missing (for its owner alone), locks it, and checks that this release may use it.
    pub fn open(path: impl AsRef<Path>) -> Result<DataDir, Error> {
        let path = path.as_ref().to_owned();
        let new: Vec<&Path> = path.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
        make_dir(&path)?;
        for parent in new.iter().filter_map(|dir| dir.parent()).filter(|dir| !dir.as_os_str().is_empty()) {
            sync_dir(parent)?;
        }
        let lock = lock(&path)?;
        let dir = DataDir { path, _lock: Arc::new(lock) };
        dir.check_version()?;
        for part in [dir.log(), dir.checkpoint(), dir.snapshots(), dir.pki()] {
            make_dir(&part)?;
        }
        sync_dir(&dir.path)?;
        Ok(dir)
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The write-ahead log.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The checkpoint of the applied state.
    pub fn checkpoint(&self) -> PathBuf {
        self.path.join("checkpoint")
    }

    /// Snapshot files.
    pub fn snapshots(&self) -> PathBuf {
        self.path.join("snapshots")
    }

    /// Keys and certificates.
    pub fn pki(&self) -> PathBuf {
        pki(&self.path)
    }

    /// The node's identity.
    pub fn identity(&self) -> PathBuf {
        identity(&self.path)
    }

    /// Bytes that can still be written here.
    pub fn free_bytes(&self) -> Result<u64, Error> {
        free_bytes(&self.path)
    }

    fn check_version(&self) -> Result<(), Error> {
        let file = self.path.join("VERSION");
        let found = match File::open(&file) {
            Ok(mut open) => read_small(&mut open).map_err(|error| Error::io(&file, "read", error))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return self.write_version(&file),
            Err(error) => return Err(Error::io(&file, "open", error)),
        };
        match found.trim().parse::<u32>() {
            Ok(FORMAT) => Ok(()),
            Ok(newer) if newer > FORMAT => Err(Error::Newer { file, found: newer, supported: FORMAT }),
            _ => Err(Error::corrupt(&file, 0, "the format of the data directory should be a number here")),
        }
    }

    fn write_version(&self, file: &Path) -> Result<(), Error> {
        let aside = file.with_extension("new");
        let io = |action| move |error| Error::io(file, action, error);
        let mut open = private().create(true).truncate(true).open(&aside).map_err(io("create"))?;
        writeln!(open, "{FORMAT}").map_err(io("write"))?;
        open.sync_all().map_err(io("sync"))?;
        std::fs::rename(&aside, file).map_err(io("rename"))?;
        sync_dir(&self.path)
    }
}

/// Where a data directory has keys and certificates: for whoever looks at one that it does not own.
pub fn pki(dir: &Path) -> PathBuf {
    dir.join("pki")
}

/// Where a data directory has the node's identity: for whoever looks at one that it does not own.
pub fn identity(dir: &Path) -> PathBuf {
    dir.join("node.json")
}

/// Bytes that an unprivileged process can still write to the file system of this directory.
pub fn free_bytes(dir: &Path) -> Result<u64, Error> {
    let stat = statvfs(dir).map_err(|error| Error::io(dir, "measure the free space of", error.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("LOCK");
    let io = |action| {
        let path = path.clone();
        move |error| Error::io(&path, action, error)
    };
    let mut file = private().create(true).truncate(false).open(&path).map_err(io("open"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let pid = read_small(&mut file).ok().and_then(|text| text.trim().parse().ok());
            return Err(Error::Locked { dir: dir.to_owned(), pid });
        }
        Err(error) => return Err(io("lock")(error.into())),
    }
    file.set_len(0).map_err(io("write"))?;
    file.rewind().map_err(io("write"))?;
    writeln!(file, "{}", std::process::id()).map_err(io("write"))?;
    Ok(file)
}

fn make_dir(dir: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| Error::io(dir, "create", error))
}

fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| Error::io(dir, "sync", error))
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn read_small(file: &mut File) -> std::io::Result<String> {
    let mut text = String::new();
    file.take(SMALL_FILE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn is_made_for_its_owner_alone_and_opens_again() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("new/data");
        let dir = DataDir::open(&path).unwrap();
        for part in [dir.path().to_owned(), dir.log(), dir.checkpoint(), dir.snapshots(), dir.pki()] {
            assert_eq!(part.metadata().unwrap().permissions().mode() & 0o777, 0o700, "{}", part.display());
        }
        assert!(dir.free_bytes().unwrap() > 0);
        drop(dir);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn a_second_owner_is_told_the_pid_of_the_first() {
        let parent = tempfile::tempdir().unwrap();
        let first = DataDir::open(parent.path()).unwrap();
        let clone = first.clone();
        drop(first);
        let error = DataDir::open(parent.path()).unwrap_err();
        let pid = std::process::id();
        assert!(matches!(&error, Error::Locked { pid: Some(found), .. } if *found == pid), "{error}");
        assert!(error.to_string().ends_with(&format!("in use by another process (pid {pid})")), "{error}");
        drop(clone);
        DataDir::open(parent.path()).unwrap();
    }

    #[test]
    fn a_newer_format_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        drop(DataDir::open(parent.path()).unwrap());
        std::fs::write(parent.path().join("VERSION"), "2\n").unwrap();
        let error = DataDir::open(parent.path()).unwrap_err();
        assert!(matches!(error, Error::Newer { found: 2, supported: 1, .. }), "{error}");
        std::fs::write(parent.path().join("VERSION"), "one").unwrap();
        assert!(matches!(DataDir::open(parent.path()).unwrap_err(), Error::Corrupt { .. }));
    }
}

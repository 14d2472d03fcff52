//! The seam between storage and the operating system: the few file operations that durability depends on.
//!
//! [`Real`] is the operating system. [`Simulated`] is a disk in memory that forgets what was not synced, tears writes, fills up and
//! fails to sync, so that tests can cut the power at every step. Policy (what to sync, and when) does not live here.

use std::fmt::Debug;
use std::io;
use std::path::Path;

mod real;
mod simulated;
mod wrong;

pub use real::Real;
pub use simulated::{Loss, Simulated};
pub(crate) use wrong::before_sync;
pub use wrong::{Wrong, go_wrong};

/// A file system. Names are durable only after [`Fs::sync_dir`], contents only after [`File::sync`].
pub trait Fs: Debug + Send + Sync + 'static {
    /// Makes the directory and its missing parents; an existing one is fine.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// The names of the files in a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes an empty file for reading and writing; an existing one is emptied.
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Gives a file another name, atomically replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file's name; open handles still work.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in this directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file, read and written at positions, by several threads at once.
#[expect(clippy::len_without_is_empty, reason = "the length of a file on disk; emptiness has no use here")]
pub trait File: Debug + Send + Sync {
    /// Reads up to `into.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of the bytes, or fails having written some of them.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the contents (and the length) durable.
    fn sync(&self) -> io::Result<()>;
    /// Lets go of what is held in memory and is not waiting to be written, so that the next reads tell what is on the disk.
    fn forget(&self) -> io::Result<()>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Shortens the file, durably. What is reserved behind its new end is given back.
    fn cut(&self, len: u64) -> io::Result<()>;
    /// Holds room for so many bytes from this offset on: writing them will not meet a full disk. The length stays as it is. Not every
    /// file system can.
    fn reserve(&self, offset: u64, bytes: u64) -> io::Result<()>;
    /// Gives back what is reserved behind the end of the file.
    fn release(&self) -> io::Result<()>;
}

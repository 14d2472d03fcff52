//! Reading and writing local files: bounded reads, and writes that are whole and durable or do not happen. What is in
//! the files is the callers' business.

use crate::exit::Failure;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Reads a text file, or standard input for `-`; refuses more than `bytes_max`. The second value is what errors shall
/// call it.
pub fn read_text(path: &Path, bytes_max: u64) -> Result<(String, String), Failure> {
    let (name, source): (String, Box<dyn Read>) = if path == Path::new("-") {
        ("<stdin>".into(), Box::new(io::stdin()))
    } else {
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        (path.display().to_string(), Box::new(file))
    };
    let mut text = String::new();
    source
        .take(bytes_max.saturating_add(1))
        .read_to_string(&mut text)
        .map_err(|error| unreadable(Path::new(&name), &error))?;
    if text.len() as u64 > bytes_max {
        return Err(Failure::usage(format!("{name} is larger than {bytes_max} bytes"), ""));
    }
    Ok((text, name))
}

/// Replaces a file in one step: written aside, synced, renamed. A symbolic link is followed, not replaced.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let aside = Aside::create(&target, mode)?;
    aside.write(bytes)?;
    aside.publish()
}

/// A file being written beside its target. Removed again unless it is published.
pub struct Aside {
    file: File,
    path: PathBuf,
    target: PathBuf,
    published: bool,
}

impl Aside {
    /// Opens the file beside `target`, visible to no one else while it is written.
    pub fn create(target: &Path, mode: u32) -> Result<Self, Failure> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".partial-{}", std::process::id()));
        let path = target.with_file_name(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .map_err(|error| unwritable(&path, &error))?;
        Ok(Self { file, path, target: target.to_owned(), published: false })
    }

    /// Appends.
    pub fn write(&self, bytes: &[u8]) -> Result<(), Failure> {
        (&self.file).write_all(bytes).map_err(|error| unwritable(&self.path, &error))
    }

    /// Makes it durable and gives it its name.
    pub fn publish(mut self) -> Result<(), Failure> {
        let synced = self.file.sync_all().and_then(|()| fs::rename(&self.path, &self.target));
        synced.map_err(|error| unwritable(&self.target, &error))?;
        self.published = true;
        let parent = self.target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|dir| dir.sync_all()).map_err(|error| unwritable(parent, &error))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.published {
            // Nothing else can be done about a leftover that cannot be removed, and the failure that led here is told.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!("{} cannot be read: {error}", path.display()), "")
}

/// A file that cannot be written.
pub fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::local(format!("{} cannot be written: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_replaced_file_is_private_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "old").unwrap();
        replace(&path, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_not_published_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        Aside::create(&dir.path().join("a"), 0o600).unwrap().write(b"half").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_large_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "12345").unwrap();
        assert!(read_text(&path, 5).is_ok());
        assert!(read_text(&path, 4).is_err());
        assert!(read_text(&dir.path().join("b"), 4).is_err());
    }
}

//! Loop devices with ext4 on them. All of it needs root; the reason why not is in the error.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// A loop device; detached when dropped.
pub struct Device {
    path: PathBuf,
}

/// What the device has done so far.
#[derive(Debug, PartialEq, Eq)]
pub struct Activity {
    writes: u64,
    flushes: u64,
    pub in_flight: u64,
}

impl Device {
    pub fn attach(file: &Path) -> Result<Device, String> {
        let file = file.to_str().expect("ascii");
        Ok(Device { path: PathBuf::from(run("losetup", &["--find", "--show", file])?.trim()) })
    }

    /// Makes a file system on it, and mounts it.
    pub fn format(self, at: &Path) -> Result<Mounted, String> {
        run("mkfs.ext4", &["-q", self.path.to_str().expect("ascii")])?;
        self.mount(at)
    }

    pub fn mount(self, at: &Path) -> Result<Mounted, String> {
        std::fs::create_dir_all(at).map_err(|error| error.to_string())?;
        run("mount", &["-t", "ext4", self.path.to_str().expect("ascii"), at.to_str().expect("ascii")])?;
        Ok(Mounted { at: at.to_owned(), device: self })
    }

    pub fn activity(&self) -> Activity {
        let name = self.path.file_name().expect("device").to_str().expect("ascii");
        let stat = std::fs::read_to_string(format!("/sys/block/{name}/stat")).expect("the device's statistics");
        let fields: Vec<u64> = stat.split_whitespace().map(|field| field.parse().expect("number")).collect();
        let field = |at: usize| fields.get(at).copied().unwrap_or_default();
        Activity { writes: field(4), flushes: field(15), in_flight: field(8) }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        drop(run("losetup", &["--detach", self.path.to_str().expect("ascii")]));
    }
}

/// A mounted file system; unmounted when dropped, before its device goes.
pub struct Mounted {
    pub at: PathBuf,
    pub device: Device,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // sled's threads may hold files a little longer than its handle lives.
        let began = Instant::now();
        while run("umount", &[self.at.to_str().expect("ascii")]).is_err() && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

pub fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

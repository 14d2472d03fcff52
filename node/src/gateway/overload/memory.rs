//! How much memory the process uses, and how much it may: what the control group allows, or what the machine has.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Of what there is, what the node may use before it refuses requests: the rest is for buffers that are filled before
/// anybody looks again, and for what else runs on the machine.
const PERCENT: u64 = 80;

/// What this process holds and cannot give back by itself, in bytes: not the pages of files.
pub(super) fn used() -> Option<u64> {
    kib(&fs::read_to_string("/proc/self/status").ok()?, "RssAnon:")
}

/// The watermark where nobody has set one.
pub(crate) fn memory_default() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| kib(&text, "MemTotal:"));
    let group = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| group_limit(&text, Path::new(GROUPS)));
    machine.into_iter().chain(group).min().map_or(u64::MAX, |bytes| bytes / 100 * PERCENT)
}

const GROUPS: &str = "/sys/fs/cgroup";

/// The least that the control group of a process, or one above it, allows (version 2). In a container the path may lead
/// out of what is mounted: then what is mounted is the container's own group.
fn group_limit(membership: &str, root: &Path) -> Option<u64> {
    let path = membership.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or("");
    let own: PathBuf = root.join(path);
    own.ancestors()
        .take_while(|folder| folder.starts_with(root))
        .filter_map(|folder| fs::read_to_string(folder.join("memory.max")).ok()?.trim().parse().ok())
        .min()
}

/// A line such as `MemTotal:  16303428 kB`, in bytes.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_some_and_may_use_more() {
        let used = used().unwrap();
        assert!(used > 100 * 1024, "{used}");
        assert!(memory_default() > used);
    }

    #[test]
    fn the_tightest_group_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        let limit = || group_limit("1:cpu:/x\n0::/a/b\n", root.path());
        assert_eq!(limit(), None);
        fs::write(inner.join("memory.max"), "max\n").unwrap();
        assert_eq!(limit(), None);
        fs::write(inner.join("memory.max"), "5000\n").unwrap();
        fs::write(root.path().join("a/memory.max"), "4000\n").unwrap();
        assert_eq!(limit(), Some(4000));
        assert_eq!(group_limit("0::/elsewhere\n", root.path()), None);
    }
}

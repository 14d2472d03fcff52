//! Processor time: who runs where, and what it used. Times come from the scheduler's own account of each thread (nanoseconds;
//! `/proc/PID/stat` counts hundredths of a second).

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

/// Moves this process to a core: before it has a second thread, so that all of them follow.
pub fn move_to(core: &str) {
    let moved = Command::new("taskset")
        .args(["--all-tasks", "--cpu-list", "--pid", core, &std::process::id().to_string()])
        .stdout(Stdio::null())
        .status();
    assert!(
        moved.is_ok_and(|status| status.success()),
        "taskset could not move this program to core {core}: two cores are needed, choose them with --cores"
    );
}

/// A process and its children, and theirs.
pub fn tree(process: u32) -> Vec<u32> {
    let mut found = vec![process];
    for thread in threads(process) {
        for child in fs::read_to_string(thread.join("children")).unwrap_or_default().split_whitespace() {
            found.extend(child.parse().map(tree).unwrap_or_default());
        }
    }
    found
}

fn threads(process: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

/// What each thread has used so far, in nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct Used(BTreeMap<u32, u64>);

impl Used {
    /// Those of a process.
    pub fn by(process: u32) -> Self {
        Self::by_all(&[process])
    }

    /// Those of a process and of its children.
    pub fn by_tree(process: u32) -> Self {
        Self::by_all(&tree(process))
    }

    fn by_all(processes: &[u32]) -> Self {
        let mut used = Self::default();
        for thread in processes.iter().flat_map(|process| threads(*process)) {
            let number = thread.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            let text = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
            let time = text.split(' ').next().and_then(|word| word.parse().ok());
            if let (Some(number), Some(time)) = (number, time) {
                used.0.insert(number, time);
            }
        }
        used
    }

    /// Seconds used since an earlier reading. Threads that ended in between count with nothing: those of a gateway that is warm stay.
    pub fn since(&self, earlier: &Self) -> f64 {
        let nanoseconds: u64 = self
            .0
            .iter()
            .map(|(thread, time)| time.saturating_sub(earlier.0.get(thread).copied().unwrap_or_default()))
            .sum();
        nanoseconds as f64 / 1e9
    }
}

/// Seconds that a core has been busy since the machine started.
pub fn busy(core: &str) -> f64 {
    let stat = fs::read_to_string("/proc/stat").expect("Linux");
    let line =
        stat.lines().find(|line| line.split(' ').next() == Some(&format!("cpu{core}"))).expect("the core is there");
    // user, nice, system, idle, iowait, irq, softirq, steal, …
    let times: Vec<f64> = line.split_whitespace().skip(1).map(|word| word.parse().expect("a number")).collect();
    // USER_HZ is 100 on every Linux that there is (proc_stat(5)).
    (times[..8].iter().sum::<f64>() - times[3] - times[4]) / 100.0
}

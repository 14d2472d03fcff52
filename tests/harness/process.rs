//! A child process that never outlives the test program: it leads a process group, and a small shell beside it, waiting for the end
//! of a pipe from the test program, kills that group and removes its folder however the test program ends.

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// A child process with its output in files.
#[derive(Debug)]
pub struct Process {
    child: Child,
    reaper: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts a program; its output goes to `<log>.out` and `<log>.err`, appended.
    pub fn start(command: Command, log: &Path) -> Self {
        Self::start_or_remove(command, log, log.parent().expect("logs lie in a folder of the test"))
    }

    /// The same, but what it wrote stays where it is, however the test program ends.
    pub fn start_and_keep(command: Command, log: &Path) -> Self {
        Self::start_or_remove(command, log, Path::new(""))
    }

    fn start_or_remove(mut command: Command, log: &Path, remove: &Path) -> Self {
        let (stdout, stderr) = (log.with_extension("out"), log.with_extension("err"));
        let child = command
            .stdin(Stdio::null())
            .stdout(append(&stdout))
            .stderr(append(&stderr))
            .process_group_leader()
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let reaper = Command::new("sh")
            .args([
                "-c",
                "cat >/dev/null; kill -s TERM -- \"-$1\" && sleep 2 && kill -s KILL -- \"-$1\"; [ -z \"$2\" ] || rm -rf -- \"$2\"",
                "sh",
            ])
            .arg(child.id().to_string())
            .arg(remove)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group_leader()
            .spawn()
            .expect("sh runs");
        Self { child, reaper, stdout, stderr, ended: None }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended, and how. What it leaves behind in its group is killed.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() && self.has_exited() {
            // Until it is waited for, its number is taken: no other group can have it.
            kill_group(self.pid());
            self.ended = Some(self.child.wait().expect("a child can be waited for"));
        }
        self.ended
    }

    /// Whether it has ended or been waited for; leaves it to be waited for.
    fn has_exited(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let child = pid(self.pid()).expect("a process has a number");
        rustix::process::waitid(WaitId::Pid(child), options).expect("a child can be asked for").is_some()
    }

    /// SIGKILL for its whole group, now; waits for its end.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            kill_group(self.pid());
            self.ended = Some(self.child.wait().expect("a child can be waited for"));
        }
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&mut self, signal_: Signal) {
        if self.ended().is_none() {
            signal(self.pid(), signal_);
        }
    }

    /// SIGTERM, and its exit code; kills it and panics if it takes longer than a minute.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.exit_code()
    }

    /// Waits for its end: a minute at most.
    pub fn exit_code(&mut self) -> Option<i32> {
        let started = Instant::now();
        loop {
            match self.ended() {
                Some(status) => return status.code(),
                None if started.elapsed() > Duration::from_secs(60) => {
                    self.kill();
                    panic!("did not end within a minute\n{}", self.tail());
                }
                None => sleep(Duration::from_millis(20)),
            }
        }
    }

    /// What it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// The last lines of what it wrote.
    pub fn tail(&self) -> String {
        let last = |text: String| {
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(40)..].join("\n")
        };
        format!(
            "--- {}\n{}\n--- {}\n{}",
            self.stdout.display(),
            last(self.stdout()),
            self.stderr.display(),
            last(self.stderr())
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.tail());
        }
        self.kill();
        let _ = self.reaper.kill();
        let _ = self.reaper.wait();
    }
}

/// Sends a signal to a process, which may be gone.
pub fn signal(process: u32, signal: Signal) {
    if let Some(process) = pid(process) {
        let _ = rustix::process::kill_process(process, signal);
    }
}

/// Whether a process exists and is not a zombie.
pub fn is_alive(process: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}

/// Resident memory of a process, in bytes.
pub fn resident_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process is alive");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number of kB") * 1024
}

/// User and system time that a process has used, in seconds.
pub fn cpu_seconds(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("the process is alive");
    // After the name, which may hold anything: state is the third field, user and system time are the 14th and 15th.
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name in brackets").split_whitespace().collect();
    let ticks = |field: usize| fields[field - 3].parse::<f64>().expect("a number");
    // USER_HZ is 100 on every Linux that there is (proc_pid_stat(5)).
    (ticks(14) + ticks(15)) / 100.0
}

/// Only for a leader that has not been waited for: afterwards the number may be somebody else's.
fn kill_group(leader: u32) {
    if let Some(group) = pid(leader) {
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
}

fn pid(process: u32) -> Option<Pid> {
    i32::try_from(process).ok().and_then(Pid::from_raw)
}

fn append(path: &Path) -> File {
    File::options().create(true).append(true).open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn read(path: &Path) -> String {
    let mut text = Vec::new();
    if let Ok(mut file) = File::open(path) {
        let _ = file.read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

trait Group {
    fn process_group_leader(&mut self) -> &mut Self;
}

impl Group for Command {
    fn process_group_leader(&mut self) -> &mut Self {
        std::os::unix::process::CommandExt::process_group(self, 0)
    }
}

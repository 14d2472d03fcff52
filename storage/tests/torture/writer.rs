//! The process that is killed: it writes the history as fast as it can and says, on its standard output, what was acknowledged.
//!
//! It is the test's own binary, started again with variables that name the directory and where to go on.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use storage::{Checkpoint, DataDir, Error, Log, Record};

use super::history::{self, History, Step};

const DIR: &str = "QUORATE_TORTURE_DIR";
const STEPS: &str = "QUORATE_TORTURE_STEPS";
const COMMITS: &str = "QUORATE_TORTURE_COMMITS";
/// Calls in flight. With at most eight steps a call, fewer than [`History::matching`] looks at.
const IN_FLIGHT: usize = 64;
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes until killed, if this process was started for that.
pub fn run_if_asked() {
    let Ok(dir) = std::env::var(DIR) else {
        return;
    };
    let number = |name| std::env::var(name).expect(name).parse::<u64>().expect(name);
    let (steps, commits) = (number(STEPS), number(COMMITS));
    let dir = DataDir::open(dir).expect("data directory");
    let checkpoint = dir.checkpoint();
    let committing = std::thread::spawn(move || write_checkpoint(&checkpoint, commits));
    write_log(&dir.log(), steps);
    committing.join().expect("the checkpoint's writer");
}

fn write_log(dir: &Path, steps: u64) {
    let log = Log::open(dir, history::settings()).expect("log");
    let mut history = History::after(steps);
    let (enter, leave) = sync_channel(IN_FLIGHT);
    let leave = Arc::new(Mutex::new(leave));
    let acknowledge = |step: u64| {
        enter.send(()).expect("in flight");
        let leave = leave.clone();
        move |result: Result<(), Error>| {
            result.expect("write");
            say('L', step);
            leave.lock().expect("in flight").recv().expect("in flight");
        }
    };
    let mut together: Vec<Record> = Vec::new();
    loop {
        let before = history.steps;
        let step = history.advance();
        if !together.is_empty() && (together.len() == 8 || before.is_multiple_of(3) || !matches!(step, Step::Append(_)))
        {
            log.append(std::mem::take(&mut together), acknowledge(before));
        }
        let done = history.steps;
        match step {
            Step::Append(record) => together.push(record),
            Step::Vote(vote) => log.save_vote(vote, acknowledge(done)),
            Step::Committed(committed) => log.save_committed(committed),
            Step::Truncate(from) => log.truncate_from(from, acknowledge(done)),
            Step::Purge(to, marker) => log.purge_to(to, marker, acknowledge(done)),
        }
    }
}

fn write_checkpoint(dir: &Path, commits: u64) {
    let mut checkpoint = Checkpoint::open(dir).expect("checkpoint");
    let marker = |commits: u64| Bytes::from(commits.to_le_bytes().to_vec());
    if checkpoint.load(|_| ()).expect("checkpoint").is_none() {
        checkpoint.replace(history::records_after(commits), marker(commits)).expect("replace");
    }
    for commit in commits + 1.. {
        checkpoint.commit(history::changes(commit), marker(commit)).expect("commit");
        say('C', commit);
    }
}

fn say(what: char, number: u64) {
    // One write of a short line to a pipe is not torn.
    let line = format!("{what} {number}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).and_then(|()| std::io::stdout().flush()).expect("say");
}

/// The running process, and what it has acknowledged.
pub struct Writer {
    child: Child,
    heard: Arc<Heard>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Heard {
    steps: AtomicU64,
    commits: AtomicU64,
    lines: AtomicU64,
}

impl Writer {
    /// Starts the test's binary again, to run only the test of this name, which must call [`run_if_asked`].
    pub fn start(test: &str, dir: &Path, steps: u64, commits: u64) -> Writer {
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(DIR, dir)
            .env(STEPS, steps.to_string())
            .env(COMMITS, commits.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the writer");
        let heard = Arc::new(Heard::default());
        heard.steps.store(steps, Ordering::SeqCst);
        heard.commits.store(commits, Ordering::SeqCst);
        let (out, noting) = (child.stdout.take().expect("its output"), heard.clone());
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let Some((what, number)) = line.split_once(' ') else { continue };
                let Ok(number) = number.parse() else { continue };
                match what {
                    "L" => noting.steps.fetch_max(number, Ordering::SeqCst),
                    "C" => noting.commits.fetch_max(number, Ordering::SeqCst),
                    _ => continue,
                };
                noting.lines.fetch_add(1, Ordering::SeqCst);
            }
        });
        Writer { child, heard, reader: Some(reader) }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What has been acknowledged: steps of the log, commits of the checkpoint.
    pub fn acknowledged(&self) -> (u64, u64) {
        (self.heard.steps.load(Ordering::SeqCst), self.heard.commits.load(Ordering::SeqCst))
    }

    /// Waits until this many more acknowledgements have been heard, and then this long.
    pub fn wait(&mut self, acknowledgements: u64, longer: Duration) {
        let enough = self.heard.lines.load(Ordering::SeqCst) + acknowledgements;
        let began = Instant::now();
        while self.heard.lines.load(Ordering::SeqCst) < enough {
            assert!(began.elapsed() < PATIENCE, "the writer acknowledges nothing");
            assert!(self.child.try_wait().expect("the writer").is_none(), "the writer ended by itself");
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(longer);
    }

    /// SIGKILL; returns what it had acknowledged.
    pub fn kill(mut self) -> (u64, u64) {
        self.end();
        self.acknowledged()
    }

    fn end(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.child.kill().expect("kill");
            self.child.wait().expect("wait");
            reader.join().expect("reader");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}

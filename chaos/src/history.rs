//! What happened in a run on real processes: events as JSON lines in the run's folder, written while it runs and judged
//! afterwards by [`crate::invariant`]. Nothing here judges.
//!
//! In a run's folder, by name: `history.jsonl` (the events), `secrets.jsonl` (every secret that the workload ever held,
//! see [`Secret`]), and `written/`, whatever the nodes wrote or answered: logs, access logs, metrics, answers of the admin
//! API but for the one that creates a secret, and the data folders of the nodes.

pub mod event;

pub use event::{
    Admin, AdminOutcome, Arrival, Audited, Credential, Event, Fault, Fenced, FullRate, Limit, Logged, Observed,
    Operation, Per, Phase, REVOKED, Refused, Request, RequestOutcome, Route, Rule, Run, Text, Version, What,
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    fs::File,
    io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

/// The file of the events.
pub const HISTORY_FILE: &str = "history.jsonl";
/// The file of the secrets.
pub const SECRETS_FILE: &str = "secrets.jsonl";
/// The folder of what the nodes wrote.
pub const WRITTEN_FOLDER: &str = "written";
/// Events that wait for the disk. A run that makes more waits: nothing may be missing.
const BUFFER_EVENTS_MAX: usize = 16 * 1024;
/// Bytes of a line: an event is small.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// A secret that the workload held. It stands in a file of its own, never in the history.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// What it is, for people: `key k7#2`, `join token 3`, `authority key`.
    pub name: String,
    /// The secret itself.
    pub text: String,
    /// Parts of paths below `written/` in which it may be, in plain: `/pki/` for the keys of certificates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub may_be_in: Vec<String>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Everything that is known of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In the order in which they were written.
    pub events: Vec<Event>,
    /// Whether the run came to its end: otherwise something may be missing.
    pub complete: bool,
    /// Every secret there was.
    pub secrets: Vec<Secret>,
    /// Where `written/` is, if there is one.
    pub written: Option<PathBuf>,
}

impl History {
    /// Reads a run's folder.
    ///
    /// # Errors
    /// If a file cannot be read, or a line of it is none. A last line that was cut off is no error: the run was killed.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut names = HashSet::new();
        let mut events: Vec<Event> = lines(&folder.join(HISTORY_FILE))?;
        events.iter_mut().for_each(|event| event.share_names(&mut names));
        let secrets = match folder.join(SECRETS_FILE) {
            file if file.exists() => lines(&file)?,
            _ => Vec::new(),
        };
        let written = Some(folder.join(WRITTEN_FOLDER)).filter(|folder| folder.is_dir());
        let complete = events.last().is_some_and(|event| event.what == What::End);
        Ok(Self { events, complete, secrets, written })
    }

    /// A history of these events.
    #[must_use]
    pub fn of(events: Vec<Event>) -> Self {
        let complete = events.last().is_some_and(|event| event.what == What::End);
        Self { events, complete, ..Self::default() }
    }

    /// What runs.
    #[must_use]
    pub fn run(&self) -> Option<&Run> {
        self.events.iter().find_map(|event| match &event.what {
            What::Run(run) => Some(run),
            _ => None,
        })
    }
}

/// Reads one value a line.
fn lines<T: for<'a> Deserialize<'a>>(path: &Path) -> anyhow::Result<Vec<T>> {
    let file = File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    let mut reader = BufReader::new(file);
    let (mut values, mut line) = (Vec::new(), String::new());
    loop {
        line.clear();
        let bytes = reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)?;
        if bytes == 0 {
            return Ok(values);
        }
        let place = || format!("{}:{}", path.display(), values.len() + 1);
        match serde_json::from_str(&line) {
            Ok(value) => values.push(value),
            Err(_) if !line.ends_with('\n') && (bytes as u64) < LINE_BYTES_MAX => return Ok(values),
            Err(error) => return Err(error).with_context(place),
        }
    }
}

/// Writes a history from many threads. Clones write the same one.
#[derive(Clone, Debug)]
pub struct Recorder {
    began: Instant,
    events: SyncSender<Line>,
}

/// The thread that writes a history to its folder.
#[derive(Debug)]
pub struct Writer {
    thread: JoinHandle<anyhow::Result<u64>>,
    events: SyncSender<Line>,
}

#[derive(Debug)]
enum Line {
    Event(Event),
    Secret(Secret),
    Last(u64),
}

impl Recorder {
    /// Begins the history of a run, in a folder that exists.
    ///
    /// # Errors
    /// If the files cannot be made.
    pub fn begin(folder: &Path) -> anyhow::Result<(Self, Writer)> {
        let open = |name: &str| {
            let path = folder.join(name);
            File::create(&path).map(BufWriter::new).with_context(|| format!("{} cannot be made", path.display()))
        };
        let (history, secrets) = (open(HISTORY_FILE)?, open(SECRETS_FILE)?);
        let (events, received) = mpsc::sync_channel(BUFFER_EVENTS_MAX);
        let thread = thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || write_out(&received, history, secrets))
            .context("the history's thread cannot be started")?;
        Ok((Self { began: Instant::now(), events: events.clone() }, Writer { thread, events }))
    }

    /// The history's time: microseconds since it began.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Records something that is over now.
    pub fn record(&self, what: What) {
        self.record_at(self.now_us(), what);
    }

    /// Records something that was over then.
    pub fn record_at(&self, at_us: u64, what: What) {
        // The writer is gone only after a failure of the disk, which its end reports.
        let _ = self.events.send(Line::Event(Event { at_us, what }));
    }

    /// Notes a secret that the workload holds from now on. Before the request that shows it is sent.
    pub fn secret(&self, secret: Secret) {
        let _ = self.events.send(Line::Secret(secret));
    }

    /// Ends the history: writes [`What::End`]. What clones record afterwards is lost.
    ///
    /// # Errors
    /// If the disk failed. Otherwise how many events there were.
    pub fn end(self, writer: Writer) -> anyhow::Result<u64> {
        let _ = writer.events.send(Line::Last(self.now_us()));
        writer.thread.join().map_err(|_| anyhow::anyhow!("the history's thread panicked"))?
    }
}

fn write_out(
    lines: &Receiver<Line>,
    mut history: BufWriter<File>,
    mut secrets: BufWriter<File>,
) -> anyhow::Result<u64> {
    let mut count = 0;
    for line in lines {
        match line {
            Line::Event(event) => {
                write_line(&mut history, &event)?;
                count += 1;
            }
            Line::Secret(secret) => write_line(&mut secrets, &secret)?,
            Line::Last(at_us) => {
                write_line(&mut history, &Event { at_us, what: What::End })?;
                count += 1;
                break;
            }
        }
    }
    history.flush()?;
    secrets.flush()?;
    Ok(count)
}

fn write_line(to: &mut BufWriter<File>, value: &impl Serialize) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *to, value)?;
    to.write_all(b"\n")?;
    Ok(())
}

impl Event {
    /// Lets the events of a long history share the names that they repeat.
    fn share_names(&mut self, names: &mut HashSet<Text>) {
        let mut share = |text: &mut Text| match names.get(&**text) {
            Some(known) => *text = Arc::clone(known),
            None => drop(names.insert(Arc::clone(text))),
        };
        match &mut self.what {
            What::Request(request) => {
                share(&mut request.credential);
                share(&mut request.route);
                match &mut request.outcome {
                    RequestOutcome::Answered { problem, .. } => problem.iter_mut().for_each(share),
                    RequestOutcome::Lost { why, .. } => share(why),
                }
            }
            What::Arrival(arrival) => arrival.consumer.iter_mut().for_each(share),
            What::Logged(logged) => logged.key_id.iter_mut().chain(logged.limit.iter_mut()).for_each(share),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;

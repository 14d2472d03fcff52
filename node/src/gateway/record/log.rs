//! The access log: lines are made in a buffer of the worker and written by a thread of its own, so that no request ever
//! waits for a disk. The buffer is bounded; what does not fit is dropped and counted
//! (`quorate_access_log_dropped_total`), never silently.

use super::meter::decision;
use crate::gateway::{AccessLog, StartError, exchange::Exchange, worker::lock};
use metrics::{Counter, counter};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Bytes of lines that wait for one worker: a second of a busy worker's log.
const BUFFER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A path that is longer is cut in the log.
const PATH_BYTES_MAX: usize = 2048;
/// How often the buffers are written out while there is something in them.
const WRITE_INTERVAL: Duration = Duration::from_millis(20);
/// How often they are looked at while there is not.
const REST_INTERVAL: Duration = Duration::from_millis(100);

/// The lines of one worker that are not written yet.
pub(crate) struct LogBuffer {
    /// None if there is no log.
    lines: Option<Mutex<Lines>>,
    dropped: Counter,
}

#[derive(Default)]
pub(super) struct Lines {
    text: Vec<u8>,
    date: Date,
}

/// The last second that was written: many lines are of the same.
struct Date {
    second: u64,
    text: String,
}

/// The thread that writes.
pub(crate) struct LogWriter {
    order: Arc<Order>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Order {
    stop: AtomicBool,
    reopen: AtomicBool,
}

enum Sink {
    Stdout,
    File(PathBuf, File),
}

impl LogBuffer {
    /// Whether there is a log.
    pub(crate) const fn is_kept(&self) -> bool {
        self.lines.is_some()
    }

    /// Room for a line, or `None` if there is no log or no room.
    pub(super) fn lines(&self) -> Option<MutexGuard<'_, Lines>> {
        let lines = lock(self.lines.as_ref()?);
        if lines.text.len() >= BUFFER_BYTES_MAX {
            self.dropped.increment(1);
            return None;
        }
        Some(lines)
    }
}

impl LogWriter {
    /// Opens the log and starts its thread; one buffer for each worker.
    ///
    /// # Errors
    /// If the file cannot be opened or the thread cannot be started.
    pub(crate) fn start(log: &AccessLog, workers: usize) -> Result<(Self, Vec<Arc<LogBuffer>>), StartError> {
        let sink = match log {
            AccessLog::Off => None,
            AccessLog::Stdout => Some(Sink::Stdout),
            AccessLog::File(path) => {
                Some(Sink::open(path.clone()).map_err(|source| StartError::AccessLog { path: path.clone(), source })?)
            }
        };
        let dropped = counter!("quorate_access_log_dropped_total");
        let buffers: Vec<Arc<LogBuffer>> = (0..workers)
            .map(|_| Arc::new(LogBuffer { lines: sink.is_some().then(Mutex::default), dropped: dropped.clone() }))
            .collect();
        let order = Arc::new(Order::default());
        let thread = match sink {
            None => None,
            Some(sink) => {
                let (order, buffers) = (order.clone(), buffers.clone());
                let name = "access-log".to_owned();
                let run = move || write_out(sink, &order, &buffers, &dropped);
                Some(thread::Builder::new().name(name).spawn(run).map_err(StartError::Worker)?)
            }
        };
        Ok((Self { order, thread: Mutex::new(thread) }, buffers))
    }

    pub(crate) fn reopen(&self) {
        self.order.reopen.store(true, Ordering::Relaxed);
    }

    /// Writes what is there and ends the thread. Blocks as long as the disk does.
    pub(crate) fn stop(&self) {
        self.order.stop.store(true, Ordering::Release);
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.stop();
    }
}

fn write_out(mut sink: Sink, order: &Order, buffers: &[Arc<LogBuffer>], dropped: &Counter) {
    let mut spare = Vec::new();
    let mut failing = false;
    loop {
        // Read before the buffers: what is recorded before `stop` is written.
        let stop = order.stop.load(Ordering::Acquire);
        if order.reopen.swap(false, Ordering::Relaxed) {
            sink.reopen();
        }
        let mut interval = REST_INTERVAL;
        for buffer in buffers {
            let Some(lines) = &buffer.lines else { continue };
            std::mem::swap(&mut lock(lines).text, &mut spare);
            if spare.is_empty() {
                continue;
            }
            interval = WRITE_INTERVAL;
            match sink.write(&spare) {
                Ok(()) => failing = false,
                Err(error) => {
                    let count = spare.iter().filter(|byte| **byte == b'\n').count();
                    dropped.increment(count as u64);
                    if !failing {
                        tracing::error!(%error, "the access log cannot be written; lines are lost until it can");
                    }
                    failing = true;
                }
            }
            spare.clear();
        }
        if stop {
            return;
        }
        thread::park_timeout(interval);
    }
}

impl Sink {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        Ok(Self::File(path, file))
    }

    fn reopen(&mut self) {
        if let Self::File(path, file) = self {
            match OpenOptions::new().create(true).append(true).open(&*path) {
                Ok(new) => *file = new,
                Err(error) => tracing::error!(%error, path = %path.display(), "the access log cannot be opened anew"),
            }
        }
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
            Self::File(_, file) => file.write_all(lines),
        }
    }
}

/// Writes the line of an exchange.
pub(super) fn write(lines: &mut Lines, exchange: &Exchange, now_us: u64) {
    let Lines { text: line, date } = lines;
    let shared = &exchange.connection.worker.shared;
    let total_us = now_us.saturating_sub(exchange.began_us);
    let (at, at_us) = match exchange.decided {
        Some(decided) => (decided, exchange.decided_us),
        None => (shared.clock.time(), now_us),
    };
    // Dated by its beginning.
    let wall_ms = at.wall.0.saturating_sub(at_us.saturating_sub(exchange.began_us) / 1000);
    let since = |from: u64, to: u64| if to > 0 { to.saturating_sub(from) } else { 0 };
    let route = exchange.route.and_then(|route| exchange.serving.plan.compiled.routes.get(route));

    line.extend_from_slice(b"{\"time\":\"");
    date.write(line, wall_ms);
    line.extend_from_slice(b"\",\"tick\":");
    number(line, at.tick.0);
    line.extend_from_slice(b",\"request_id\":\"");
    line.extend_from_slice(exchange.request_id.as_bytes());
    line.extend_from_slice(b"\",\"trace_id\":\"");
    line.extend_from_slice(&exchange.trace_id);
    line.extend_from_slice(b"\",\"node\":");
    number(line, shared.node);
    line.extend_from_slice(b",\"client\":\"");
    let connection = &exchange.connection;
    if exchange.client == connection.peer {
        line.extend_from_slice(connection.peer_header.as_bytes());
    } else {
        let _ = write!(line, "{}", exchange.client);
    }
    line.push(b'"');
    if let Some(client) = exchange.connection.tls.as_ref().and_then(|tls| tls.client.as_deref()) {
        field(line, "client_certificate", Some(&client.subject));
        field(line, "client_certificate_sha256", Some(&hex::encode(client.sha256)));
    }
    field(line, "consumer", exchange.consumer.as_ref().map(machine::Name::as_str));
    match exchange.key {
        Some(key) => drop(write!(line, ",\"key_id\":\"{key}\"")),
        None => field(line, "key_id", None),
    }
    field(line, "route", route.map(|route| route.name.as_str()));
    field(line, "method", Some(exchange.method.as_str()));
    let path = exchange.path();
    let cut = (0..=PATH_BYTES_MAX.min(path.len())).rev().find(|end| path.is_char_boundary(*end)).unwrap_or(0);
    field(line, "path", path.get(..cut));
    line.extend_from_slice(b",\"status\":");
    number(line, u64::from(exchange.status));
    field(line, "decision", Some(decision(exchange.is_admitted())));
    field(line, "stage", Some(exchange.stage.name()));
    let problem = match exchange.problem {
        Some(problem) => Some(problem.name()),
        None if !exchange.finished => Some("incomplete"),
        None => None,
    };
    field(line, "problem", problem);
    field(line, "reason", Some(exchange.reason).filter(|reason| !reason.is_empty()));
    limits(line, exchange);
    field(line, "upstream", exchange.upstream.as_deref());
    line.extend_from_slice(b",\"duration_us\":{\"decide\":");
    number(line, since(exchange.began_us, exchange.decided_us));
    line.extend_from_slice(b",\"waited\":");
    number(line, exchange.limited.waited_us);
    line.extend_from_slice(b",\"upstream\":");
    number(line, since(exchange.decided_us, exchange.answered_us));
    line.extend_from_slice(b",\"total\":");
    number(line, total_us);
    line.extend_from_slice(b"},\"bytes_in\":");
    number(line, exchange.upload.as_ref().map_or(0, |upload| upload.bytes()));
    line.extend_from_slice(b",\"bytes_out\":");
    number(line, exchange.bytes_out);
    line.extend_from_slice(b"}\n");
}

/// The limit that decided, or came nearest to it, and those in shadow that would have refused.
fn limits(line: &mut Vec<u8>, exchange: &Exchange) {
    let limits = exchange.limits();
    let decided_by = limits.and_then(|limits| exchange.limited.decided_by(limits));
    field(line, "limit", decided_by.map(|(name, _)| name.as_str()));
    line.extend_from_slice(b",\"remaining\":");
    match decided_by {
        Some((_, left)) => number(line, left),
        None => line.extend_from_slice(b"null"),
    }
    for (place, name) in limits.iter().flat_map(|limits| exchange.limited.shadowed_by(limits)).enumerate() {
        line.extend_from_slice(if place == 0 { b",\"shadowed\":[\"" } else { b",\"" });
        line.extend_from_slice(name.as_str().as_bytes());
        line.push(b'"');
    }
    if exchange.limited.is_shadowed() {
        line.push(b']');
    }
}

fn field(line: &mut Vec<u8>, name: &str, value: Option<&str>) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
    match value {
        Some(value) => {
            line.push(b'"');
            escape(line, value);
            line.push(b'"');
        }
        None => line.extend_from_slice(b"null"),
    }
}

/// JSON's own escapes: a line stays one line whatever a client sends.
fn escape(line: &mut Vec<u8>, text: &str) {
    if !text.bytes().any(|byte| matches!(byte, b'"' | b'\\' | 0..0x20 | 0x7f)) {
        line.extend_from_slice(text.as_bytes());
        return;
    }
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => line.extend_from_slice(&[b'\\', byte]),
            0..0x20 | 0x7f => drop(write!(line, "\\u{byte:04x}")),
            _ => line.push(byte),
        }
    }
}

fn number(line: &mut Vec<u8>, number: u64) {
    line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

impl Default for Date {
    fn default() -> Self {
        Self { second: u64::MAX, text: String::new() }
    }
}

impl Date {
    /// `2026-01-02T03:04:05.678Z`.
    fn write(&mut self, line: &mut Vec<u8>, ms: u64) {
        if self.second != ms / 1000 {
            self.second = ms / 1000;
            let time = i64::try_from(self.second).ok().and_then(|second| jiff::Timestamp::from_second(second).ok());
            self.text = time.unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S").to_string();
        }
        line.extend_from_slice(self.text.as_bytes());
        let ms = ms % 1000;
        let digit = |number: u64| b'0' + u8::try_from(number % 10).unwrap_or(0);
        line.extend_from_slice(&[b'.', digit(ms / 100), digit(ms / 10), digit(ms), b'Z']);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_of_the_past() {
        let mut date = Date::default();
        let mut timed = |ms: u64| {
            let mut line = Vec::new();
            date.write(&mut line, ms);
            String::from_utf8(line).unwrap()
        };
        assert_eq!(timed(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(timed(951_782_400_001), "2000-02-29T00:00:00.001Z");
        assert_eq!(timed(951_782_400_987), "2000-02-29T00:00:00.987Z");
        assert_eq!(timed(951_782_399_999), "2000-02-28T23:59:59.999Z");
        // Beyond what can be said.
        assert_eq!(timed(u64::MAX), "1970-01-01T00:00:00.615Z");
    }

    proptest! {
        #[test]
        fn any_text_stays_one_json_string(text in "\\PC{0,20}|[\\x00-\\x7f]{0,20}") {
            let mut line = Vec::new();
            field(&mut line, "a", Some(&text));
            let line = String::from_utf8(line).unwrap();
            let json: serde_json::Value = serde_json::from_str(&format!("{{{}}}", &line[1..])).unwrap();
            prop_assert_eq!(json["a"].as_str().unwrap(), text);
            prop_assert!(!line.contains('\n'));
        }
    }
}

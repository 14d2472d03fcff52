//! The node processes. Each holds one end of a pipe as its standard input: if dev dies, however it dies, the pipe closes
//! and the nodes end.

use super::{
    DevError,
    home::{Home, Layout},
};
use std::{collections::BTreeMap, path::PathBuf, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, ChildStdin, Command},
    sync::mpsc,
};

/// How long nodes get to end in good order.
const STOP_TIMEOUT: Duration = Duration::from_millis(2_500);
/// Between two looks at whether a node is ready.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// How long a node may take to say whether it is ready.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// What is shown of the log of a node that failed.
const LOG_LINES_SHOWN: usize = 15;
/// At most this much of the end of a log is read for that.
const LOG_BYTES_SHOWN: usize = 16 * 1024;

/// The node processes.
pub(super) struct Children {
    program: PathBuf,
    folders: BTreeMap<u64, Folder>,
    running: BTreeMap<u64, Running>,
    ends: mpsc::Receiver<Event>,
    tell_end: mpsc::Sender<Event>,
}

struct Folder {
    settings: PathBuf,
    log: PathBuf,
}

struct Running {
    pid: u32,
    /// Closed when it is dropped, which ends the node.
    _stdin: Option<ChildStdin>,
    kill: tokio::sync::oneshot::Sender<()>,
    waiting: tokio::task::JoinHandle<()>,
}

/// A node's process has ended.
pub(super) struct Event {
    pub node: u64,
    /// How, in words.
    pub status: String,
}

impl Children {
    pub(super) fn new(home: &Home) -> Result<Self, DevError> {
        let program = std::env::current_exe()
            .map_err(|source| DevError::System { what: "finding this program's own file", source })?;
        let (tell_end, ends) = mpsc::channel(16);
        let folders =
            (1..=9).map(|id| (id, Folder { settings: home.settings_file(id), log: home.log_file(id) })).collect();
        Ok(Self { program, folders, running: BTreeMap::new(), ends, tell_end })
    }

    /// The process of a node that runs.
    pub(super) fn pid(&self, node: u64) -> Option<u32> {
        self.running.get(&node).map(|running| running.pid)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Runs a command for a node to its end.
    pub(super) async fn perform(&self, node: u64, arguments: &[&str]) -> Result<(), DevError> {
        let folder = self.folder(node)?;
        let output = self
            .command(folder, arguments)
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(|source| DevError::System { what: "starting a node's process", source })?;
        if output.status.success() {
            return Ok(());
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(DevError::Node { node, message })
    }

    /// Starts a node.
    pub(super) fn start(&mut self, node: u64) -> Result<(), DevError> {
        let folder = self.folder(node)?;
        let failed = |source| DevError::File { file: folder.log.clone(), source };
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&folder.log).map_err(failed)?;
        let also_log = log.try_clone().map_err(failed)?;
        let mut child = self
            .command(folder, &["run", "--stop-with-stdin"])
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(also_log)
            // Ctrl-C at the terminal is for dev, which ends the nodes in its own way.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| DevError::System { what: "starting a node's process", source })?;
        let stdin = child.stdin.take();
        let pid = child.id().unwrap_or_default();
        let (kill, killed) = tokio::sync::oneshot::channel();
        let waiting = tokio::spawn(wait(node, child, killed, self.tell_end.clone()));
        self.running.insert(node, Running { pid, _stdin: stdin, kill, waiting });
        Ok(())
    }

    /// Waits until some node's process has ended.
    pub(super) async fn next_end(&mut self) -> Event {
        match self.ends.recv().await {
            Some(event) => {
                self.running.remove(&event.node);
                event
            }
            // This end of the channel is ours, so it cannot be closed.
            None => std::future::pending().await,
        }
    }

    /// Waits until a node says that it is ready.
    pub(super) async fn wait_ready(&mut self, layout: &Layout, node: u64, timeout: Duration) -> Result<(), DevError> {
        let ops = layout
            .nodes
            .iter()
            .find(|known| known.id == node)
            .map(|known| known.ops)
            .ok_or_else(|| DevError::Options(format!("there is no node {node}")))?;
        let deadline = tokio::time::Instant::now() + timeout;
        let mut last = String::from("it does not answer");
        while tokio::time::Instant::now() < deadline {
            if let Ok(event) = self.ends.try_recv() {
                self.running.remove(&event.node);
                let message = format!("its process has ended ({})\n{}", event.status, self.end_of_log(event.node));
                return Err(DevError::Node { node: event.node, message });
            }
            match tokio::time::timeout(ANSWER_TIMEOUT, ask_ready(ops)).await {
                Ok(Ok(Answer::Ready)) => return Ok(()),
                Ok(Ok(Answer::NotReady(why))) => last = why,
                Ok(Err(_)) | Err(_) => {}
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        let message = format!("it was not ready in {} s: {last}\n{}", timeout.as_secs(), self.end_of_log(node));
        Err(DevError::Node { node, message })
    }

    /// Ends all nodes.
    pub(super) async fn stop(mut self) {
        let mut waiting = Vec::new();
        let mut kills = Vec::new();
        for running in std::mem::take(&mut self.running).into_values() {
            waiting.push(running.waiting);
            kills.push(running.kill);
        }
        // Their standard inputs are closed now, and they end by that.
        self.ends.close();
        let all = futures::future::join_all(waiting);
        let mut all = std::pin::pin!(all);
        if tokio::time::timeout(STOP_TIMEOUT, &mut all).await.is_err() {
            for kill in kills {
                let _ = kill.send(());
            }
            all.await;
        }
    }

    fn folder(&self, node: u64) -> Result<&Folder, DevError> {
        self.folders.get(&node).ok_or_else(|| DevError::Options(format!("there is no node {node}")))
    }

    fn command(&self, folder: &Folder, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        // What is set for a real node on this machine is not meant for these.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("QUORATE_")) {
            command.env_remove(name);
        }
        if let Some((verb, rest)) = arguments.split_first() {
            command.arg(verb).arg("--config").arg(&folder.settings).args(rest);
        }
        command
    }

    fn end_of_log(&self, node: u64) -> String {
        let Some(folder) = self.folders.get(&node) else { return String::new() };
        let bytes = std::fs::read(&folder.log).unwrap_or_default();
        let end = bytes.get(bytes.len().saturating_sub(LOG_BYTES_SHOWN)..).unwrap_or_default();
        let text = String::from_utf8_lossy(end);
        let lines: Vec<&str> = text.lines().collect();
        let shown = lines.get(lines.len().saturating_sub(LOG_LINES_SHOWN)..).unwrap_or_default();
        format!("The end of {}:\n  {}", folder.log.display(), shown.join("\n  "))
    }
}

/// Waits for a process to end, or ends it.
async fn wait(node: u64, mut child: Child, killed: tokio::sync::oneshot::Receiver<()>, tell_end: mpsc::Sender<Event>) {
    let ended = tokio::select! {
        ended = child.wait() => ended,
        Ok(()) = killed => {
            let _ = child.start_kill();
            child.wait().await
        }
    };
    let status = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
    let _ = tell_end.send(Event { node, status }).await;
}

enum Answer {
    Ready,
    NotReady(String),
}

/// Asks `/readyz`, in the least HTTP that does it.
async fn ask_ready(ops: std::net::SocketAddr) -> std::io::Result<Answer> {
    const ANSWER_BYTES_MAX: u64 = 4096;
    let mut stream = TcpStream::connect(ops).await?;
    stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
    let status = answer.split_whitespace().nth(1);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim();
    Ok(if status == Some("200") { Answer::Ready } else { Answer::NotReady(body.to_owned()) })
}

//! `quorate dev`: a whole cluster on one machine, to try things out. Each node is a process of its own, made by the same
//! `init`, `join` and `run` as a real one; what is special to dev is only who types these commands. Nothing here is of
//! any use to a real cluster.
//!
//! - `ports`: which ports, and whether they are free.
//! - `home`: what a data directory of dev keeps.
//! - `children`: the node processes.
//! - `operator`: speaks to the cluster as its first operator.
//! - `example`: the configuration that is applied if none is given.
//! - `echo`: an upstream that answers with what it was asked.
//! - `ready`: what is told once everything runs.

mod children;
mod echo;
mod example;
mod home;
mod operator;
mod ports;
mod ready;

use crate::{
    clock::SystemClock,
    command_line,
    config::{Log, value::LogFormat},
    logging,
};
use children::{Children, Event};
use home::{Home, Layout};
use operator::Operator;
use ready::Ready;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};

/// Why dev ended.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// The options do not go together, or not with what is there.
    #[error("{0}")]
    Options(String),
    /// A file or folder.
    #[error("{}: {source}", .file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A port that must be had is taken.
    #[error("{address} is in use: {wanted_by} needs it")]
    PortInUse {
        /// Which.
        address: SocketAddr,
        /// Who needs it.
        wanted_by: String,
    },
    /// There are not enough free ports.
    #[error("no free ports between 10240 and 32000")]
    NoPorts,
    /// A node did not do what it should.
    #[error("node {node}: {message}")]
    Node {
        /// Which.
        node: u64,
        /// What happened, with the end of its log.
        message: String,
    },
    /// The cluster refused something.
    #[error("{0}")]
    Cluster(String),
    /// Keys and certificates.
    #[error(transparent)]
    Pki(#[from] crate::pki::PkiError),
    /// Anything of the operating system.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

/// A cluster on one machine is up in seconds; a machine that is very busy takes longer.
const START_TIMEOUT: Duration = Duration::from_secs(90);
/// Before a node that has ended is started again: one that cannot start must not spin.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// Runs until it is told to stop.
///
/// # Errors
/// [`DevError`]; whatever was started has been ended.
pub async fn run(options: &command_line::Dev) -> Result<(), DevError> {
    logging::start(&Log { level: "warn".to_owned(), format: LogFormat::Text });
    if options.no_echo && options.upstream.is_none() && options.config.is_none() {
        return Err(DevError::Options(
            "--no-echo leaves the example without an upstream: give --upstream URL or --config FILE".to_owned(),
        ));
    }
    let (home, layout) = Home::open(options)?;
    let mut children = Children::new(&home)?;
    let ran = tokio::select! {
        ran = serve(options, &home, layout, &mut children) => ran,
        told = told_to_stop() => told,
    };
    if ran.is_ok() {
        say("Stopping.\n");
    }
    children.stop().await;
    home.close();
    ran
}

async fn told_to_stop() -> Result<(), DevError> {
    let receive = |kind| signal(kind).map_err(|source| DevError::System { what: "receiving signals", source });
    let (mut interrupt, mut terminate, mut hangup) =
        (receive(SignalKind::interrupt())?, receive(SignalKind::terminate())?, receive(SignalKind::hangup())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

/// Brings everything up, tells so, and then looks after the nodes.
async fn serve(
    options: &command_line::Dev,
    home: &Home,
    layout: Option<Layout>,
    children: &mut Children,
) -> Result<(), DevError> {
    let resumes = layout.is_some();
    let layout = match layout {
        Some(layout) => layout.with_free_ports(home).await?,
        None => Layout::new(options)?,
    };
    let echo = match layout.echo {
        Some(address) => Some(
            echo::serve(address)
                .await
                .map_err(|_| DevError::PortInUse { address, wanted_by: "the echo server".to_owned() })?,
        ),
        None => None,
    };
    home.write_settings(&layout)?;
    let operator = if resumes {
        say(&format!("Resuming the cluster of {} nodes in {}\n", layout.nodes.len(), home.path().display()));
        resume(home, &layout, children).await?
    } else {
        say(&format!("Starting {} nodes in {}\n", layout.nodes.len(), home.path().display()));
        begin(home, &layout, children).await?
    };
    operator.wait_until_whole(layout.nodes.len(), layout.voters(), START_TIMEOUT).await?;
    if let Some(file) = &options.config {
        operator.apply(file, &read(file)?).await?;
    } else if !resumes {
        let upstream = options.upstream.clone().or_else(|| layout.echo.map(|address| format!("http://{address}")));
        let text = example::resources(&upstream.unwrap_or_default());
        operator.apply(Path::new("example.yaml"), &text).await?;
    }
    let api_key = match home.api_key()? {
        Some(api_key) => api_key,
        None => {
            let api_key = operator.create_example_key().await?;
            home.save_api_key(&api_key)?;
            api_key
        }
    };
    if !resumes {
        home.save_layout(&layout)?;
    }
    operator.wait_until_whole(layout.nodes.len(), layout.voters(), START_TIMEOUT).await?;

    let mut ready = Ready::new(home, &layout, children, &api_key);
    if let Some(file) = &options.ready_file {
        ready.write(file)?;
    }
    say(&ready.text(home, &operator.status().await?));
    let looked_after = look_after(options, home, &layout, children, &mut ready).await;
    drop(echo);
    looked_after
}

/// Makes a new cluster: node 1 by `init`, the others by `join`.
async fn begin(home: &Home, layout: &Layout, children: &mut Children) -> Result<Operator, DevError> {
    let context = home.context_folder();
    let context_argument = context.display().to_string();
    children.perform(1, &["init", "--operator", "dev", "--context-dir", &context_argument]).await?;
    home.issue_gateway_certificate(SystemClock)?;
    children.start(1)?;
    children.wait_ready(layout, 1, START_TIMEOUT).await?;
    let operator = Operator::of(home, layout)?;
    for node in layout.nodes.iter().skip(1) {
        let token = operator.join_token().await?;
        let token_file = home.write_token(&token)?;
        let token_argument = token_file.display().to_string();
        let peer = layout.address_of_first();
        children.perform(node.id, &["join", "--peer", &peer, "--token-file", &token_argument]).await?;
        home.forget_token()?;
        children.start(node.id)?;
    }
    for node in &layout.nodes {
        children.wait_ready(layout, node.id, START_TIMEOUT).await?;
    }
    // The context that init wrote knows of the first node alone.
    home.write_context(layout)?;
    Operator::of(home, layout)
}

/// Starts the nodes of a cluster that was there before.
async fn resume(home: &Home, layout: &Layout, children: &mut Children) -> Result<Operator, DevError> {
    home.issue_gateway_certificate(SystemClock)?;
    for node in &layout.nodes {
        children.start(node.id)?;
    }
    for node in &layout.nodes {
        children.wait_ready(layout, node.id, START_TIMEOUT).await?;
    }
    Operator::of(home, layout)
}

/// Says when a node's process ends, and starts it again if that was asked for. Ends when none is left.
async fn look_after(
    options: &command_line::Dev,
    home: &Home,
    layout: &Layout,
    children: &mut Children,
    ready: &mut Ready,
) -> Result<(), DevError> {
    loop {
        let Event { node, status } = children.next_end().await;
        say(&format!("Node {node} has ended ({status}).\n"));
        if options.restart {
            tokio::time::sleep(RESTART_PAUSE).await;
            children.start(node)?;
            say(&format!("Node {node} is started again (process {}).\n", children.pid(node).unwrap_or_default()));
            if let Some(file) = &options.ready_file {
                *ready = Ready::new(home, layout, children, ready.api_key());
                ready.write(file)?;
            }
        } else if children.is_empty() {
            return Err(DevError::Cluster("every node has ended".to_owned()));
        } else {
            say("The others go on; with --restart it would be started again.\n");
        }
    }
}

fn read(file: &Path) -> Result<String, DevError> {
    std::fs::read_to_string(file).map_err(|source| DevError::File { file: file.to_owned(), source })
}

/// Tells the person at the terminal. If nobody is there, that is no reason to stop.
fn say(text: &str) {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

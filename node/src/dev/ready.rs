//! What dev tells once everything runs: to programs in a file, to people on the terminal.

use super::{
    DevError,
    children::Children,
    example::{CONSUMER, GUARDED_PATH, OPEN_PATH},
    home::{Home, Layout},
};
use proto::admin::StatusReply;
use serde::Serialize;
use std::{
    fmt::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// The ready file.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Ready {
    nodes: Vec<Node>,
    ca: PathBuf,
    context: PathBuf,
    api_key: String,
    echo: Option<SocketAddr>,
}

#[derive(Clone, Debug, Serialize)]
struct Node {
    id: u64,
    pid: u32,
    gateway: SocketAddr,
    gateway_tls: SocketAddr,
    cluster: SocketAddr,
    ops: SocketAddr,
    data_dir: PathBuf,
}

impl Ready {
    pub(super) fn new(home: &Home, layout: &Layout, children: &Children, api_key: &str) -> Self {
        let nodes = layout
            .nodes
            .iter()
            .map(|node| Node {
                id: node.id,
                pid: children.pid(node.id).unwrap_or_default(),
                gateway: node.gateway,
                gateway_tls: node.gateway_tls,
                cluster: node.cluster,
                ops: node.ops,
                data_dir: home.data_folder(node.id),
            })
            .collect();
        Self { nodes, ca: home.ca_file(), context: home.context_file(), api_key: api_key.to_owned(), echo: layout.echo }
    }

    pub(super) fn api_key(&self) -> &str {
        &self.api_key
    }

    /// Writes the file, whole or not at all. It holds a key, so it is for its owner alone.
    pub(super) fn write(&self, file: &Path) -> Result<(), DevError> {
        let json = serde_json::to_vec_pretty(self).map_err(|error| DevError::Options(error.to_string()))?;
        Ok(crate::pki::store::write(file, &json, crate::pki::store::Permissions::Private)?)
    }

    /// For people.
    pub(super) fn text(&self, home: &Home, status: &StatusReply) -> String {
        let mut text = String::from("\nThe cluster is ready.\n\n");
        for node in &self.nodes {
            let leads = if status.leader == node.id { "  leads" } else { "" };
            let _ = writeln!(
                text,
                "  node {}   http://{}   https://{}   ops http://{}   process {}{leads}",
                node.id, node.gateway, node.gateway_tls, node.ops, node.pid
            );
        }
        if let Some(echo) = self.echo {
            let _ = writeln!(text, "  echo     http://{echo}   (the upstream: answers with what it was asked)");
        }
        let _ = writeln!(text, "\nCall through any node; the key is {CONSUMER}'s:\n");
        for node in &self.nodes {
            let _ = writeln!(text, "  curl -H 'X-Api-Key: {}' http://{}{GUARDED_PATH}", self.api_key, node.gateway);
        }
        if let Some(first) = self.nodes.first() {
            let _ = writeln!(text, "  curl --cacert {} https://{}{OPEN_PATH}", self.ca.display(), first.gateway_tls);
        }
        let ctl = format!("{} --context {}", quoratectl(), self.context.display());
        let key_id = self.api_key.split('_').nth(1).unwrap_or_default();
        let _ = writeln!(
            text,
            "\nAdminister it:\n\n  {ctl} cluster status\n  {ctl} keys create --consumer {CONSUMER}\n  {ctl} keys revoke {key_id}\n"
        );
        if let Some(leader) = self.nodes.iter().find(|node| node.id == status.leader) {
            let _ = writeln!(text, "Kill the leader, and see the others go on:\n\n  kill -9 {}\n", leader.pid);
        }
        let _ = writeln!(text, "Logs are in {}/node-*/. Ctrl-C ends everything.", home.path().display());
        text
    }
}

/// How quoratectl is called from here.
fn quoratectl() -> String {
    let beside = std::env::current_exe().ok().map(|program| program.with_file_name("quoratectl"));
    match beside.filter(|program| program.is_file()) {
        Some(program) => {
            let here = std::env::current_dir().unwrap_or_default();
            program.strip_prefix(&here).unwrap_or(&program).display().to_string()
        }
        None => "cargo run -q --release -p quoratectl --".to_owned(),
    }
}

//! The command line of `quorate`. What the commands do is elsewhere: `init`, `enrol`, `boot`, `dev`, `config::check`, `inspect`,
//! `renew`.

use crate::config::{Written, value::Span};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// An API gateway whose nodes agree.
#[derive(Debug, Parser)]
#[command(name = "quorate", version, max_term_width = 120)]
pub struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a whole cluster on this machine, to try things out.
    Dev(Dev),
    /// Prepare the data directory of a new cluster's first node, and print a join token for the second.
    Init(Box<Init>),
    /// Prepare the data directory of a node that joins a cluster.
    Join(Box<Join>),
    /// Run a node.
    Run(Box<Run>),
    /// Say whether a file of node settings, or a resource file, is in order.
    Check(Check),
    /// Renew the node's certificate, where certificates are signed outside.
    #[command(subcommand)]
    Certificate(CertificateVerb),
    /// Look at backups, without a cluster.
    #[command(subcommand)]
    Snapshot(SnapshotVerb),
}

/// `quorate dev`.
#[derive(Clone, Debug, Args)]
pub struct Dev {
    /// How many nodes. [default: 3]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=9))]
    pub nodes: Option<u8>,
    /// Where to keep everything; a cluster that is there already goes on. Without it, a temporary folder that is
    /// removed at the end.
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// The first of the ports to use, one after the other; 0 picks free ones.
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    pub base_port: u16,
    /// A resource file to apply, instead of the example.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The upstream of the example configuration, instead of the echo server.
    #[arg(long, value_name = "URL")]
    pub upstream: Option<String>,
    /// Do not start the echo server.
    #[arg(long)]
    pub no_echo: bool,
    /// A file to write, as JSON, once all nodes are ready: addresses, process ids, the API key.
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Start a node again when its process ends.
    #[arg(long)]
    pub restart: bool,
}

/// `quorate init`.
#[derive(Clone, Debug, Args)]
pub struct Init {
    /// A file of node settings.
    #[arg(long, env = "QUORATE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The name of the first operator, an admin.
    #[arg(long, env = "QUORATE_INIT_OPERATOR", default_value = "admin", value_name = "NAME")]
    pub operator: String,
    /// Where to write the first operator's context for quoratectl. [default: the folder `operator` of the data directory]
    #[arg(long, env = "QUORATE_INIT_CONTEXT_DIR", value_name = "FOLDER")]
    pub context_dir: Option<PathBuf>,
    /// How long the join token lasts.
    #[arg(long, env = "QUORATE_INIT_TOKEN_TTL", default_value = "1h", value_name = "TIME")]
    pub token_ttl: Span,
    /// The certificate of an authority to use instead of a new one; it must be self-signed, and its own.
    #[arg(long, env = "QUORATE_INIT_CA_CERTIFICATE", requires = "signing", value_name = "FILE")]
    pub ca_certificate: Option<PathBuf>,
    /// The private key of that authority.
    #[arg(long, env = "QUORATE_INIT_CA_KEY", requires = "ca_certificate", group = "signing", value_name = "FILE")]
    pub ca_key: Option<PathBuf>,
    /// Have certificates signed outside, so that no node holds that key: writes the requests to sign into this folder.
    #[arg(long, requires = "ca_certificate", group = "signing", value_name = "FOLDER")]
    pub csr_out: Option<PathBuf>,
    /// The node's certificate, by its request: the second step after --csr-out.
    #[arg(long, requires = "operator_certificate", conflicts_with = "csr_out", value_name = "FILE")]
    pub certificate: Option<PathBuf>,
    /// The first operator's certificate, by its request.
    #[arg(long, requires = "certificate", value_name = "FILE")]
    pub operator_certificate: Option<PathBuf>,
    /// What to print.
    #[arg(short, long, default_value = "text", value_name = "text|json")]
    pub output: Output,
    /// Settings of the node.
    #[command(flatten)]
    pub settings: Written,
}

/// `quorate join`.
#[derive(Clone, Debug, Args)]
pub struct Join {
    /// A file of node settings.
    #[arg(long, env = "QUORATE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How to join.
    #[command(flatten)]
    pub joining: Joining,
    /// Where certificates are signed outside: get a number in the cluster, and write the request to sign into this file.
    #[arg(long, value_name = "FILE")]
    pub csr_out: Option<PathBuf>,
    /// The certificate, by that request: the second step after --csr-out.
    #[arg(long, conflicts_with = "csr_out", value_name = "FILE")]
    pub certificate: Option<PathBuf>,
    /// What to print.
    #[arg(short, long, default_value = "text", value_name = "text|json")]
    pub output: Output,
    /// Settings of the node.
    #[command(flatten)]
    pub settings: Written,
}

/// How to join a cluster.
#[derive(Clone, Debug, Default, Args)]
pub struct Joining {
    /// The cluster listener of a node of the cluster; may be given several times.
    #[arg(long = "peer", env = "QUORATE_JOIN_PEER", value_delimiter = ',', value_name = "HOST:PORT")]
    pub peers: Vec<String>,
    /// The join token. Better in a file or the environment: other users of the machine can read command lines.
    #[arg(long, env = "QUORATE_JOIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// A file that holds the join token.
    #[arg(long, env = "QUORATE_JOIN_TOKEN_FILE", conflicts_with = "token", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Never vote, unless promoted.
    #[arg(long, env = "QUORATE_JOIN_LEARNER")]
    pub learner: bool,
    /// How long to go on trying while no node of the cluster answers.
    #[arg(long, env = "QUORATE_JOIN_TIMEOUT", value_name = "TIME")]
    pub join_timeout: Option<Span>,
}

/// `quorate run`.
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// A file of node settings.
    #[arg(long, env = "QUORATE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How to join first, if the data directory is new.
    #[command(flatten)]
    pub joining: Joining,
    /// Stop when standard input ends: how `quorate dev` makes sure that no node outlives it.
    #[arg(long, hide = true)]
    pub stop_with_stdin: bool,
    /// Get wrong what this file says: for tests of the product, and a danger to everything else.
    #[arg(long, hide = true, value_name = "FILE")]
    pub unsafe_test_faults: Option<PathBuf>,
    /// Settings of the node.
    #[command(flatten)]
    pub settings: Written,
}

/// `quorate check`.
#[derive(Clone, Debug, Args)]
pub struct Check {
    /// Node settings (TOML) or a resource file (YAML or JSON).
    pub file: PathBuf,
}

/// `quorate certificate`.
#[derive(Clone, Debug, Subcommand)]
pub enum CertificateVerb {
    /// Make a new key and write the request to sign it. The node goes on with the certificate that it has.
    Request {
        /// Where to write the request.
        #[arg(long, value_name = "FILE")]
        csr_out: PathBuf,
        /// A file of node settings.
        #[arg(long, env = "QUORATE_CONFIG", value_name = "FILE")]
        config: Option<PathBuf>,
        /// Settings of the node.
        #[command(flatten)]
        settings: Box<Written>,
    },
    /// Check the certificate that was signed and put it into the data directory. SIGHUP makes a running node use it.
    Install {
        /// The certificate.
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
        /// A file of node settings.
        #[arg(long, env = "QUORATE_CONFIG", value_name = "FILE")]
        config: Option<PathBuf>,
        /// Settings of the node.
        #[command(flatten)]
        settings: Box<Written>,
    },
}

/// `quorate snapshot`.
#[derive(Clone, Debug, Subcommand)]
pub enum SnapshotVerb {
    /// Say what a snapshot file holds, and whether it is whole. Reads all of it; exit code 1 if it is damaged.
    Inspect {
        /// The snapshot file.
        file: PathBuf,
        /// What to print.
        #[arg(short, long, default_value = "text", value_name = "text|json")]
        output: Output,
    },
}

/// What a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs: one JSON object.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }

    /// Every setting of the file is also a flag and an environment variable, by one rule.
    #[test]
    fn settings_have_the_same_name_everywhere() {
        let command = CommandLine::command();
        let run = command.find_subcommand("run").unwrap();
        let mut settings = 0;
        for argument in run
            .get_arguments()
            .filter(|argument| argument.get_help_heading().is_some_and(|heading| heading.starts_with("Node settings")))
        {
            let name = argument.get_id().as_str().replace('.', "_");
            assert_eq!(argument.get_long().unwrap(), name.replace('_', "-"));
            assert_eq!(argument.get_env().unwrap().to_str().unwrap(), format!("QUORATE_{}", name.to_uppercase()));
            settings += 1;
        }
        assert!(settings > 25, "{settings}");
    }
}

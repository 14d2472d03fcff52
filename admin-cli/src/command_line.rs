//! The command line as clap reads it: names, arguments and their help. What the commands do is in the noun's file.

use crate::render::Format;
use crate::{duration, moment};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;
use std::time::Duration;

/// Administers a Quorate cluster. Any node takes any command.
#[derive(Debug, Parser)]
#[command(name = "quoratectl", version, propagate_version = true, max_term_width = 100, after_help = EXIT_CODES)]
pub struct CommandLine {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 refused by the cluster, 2 wrong usage, 3 no leader or unreachable,
4 not permitted, 5 conflict (revision, already exists).
Commands that destroy something ask first on a terminal; without one they do not ask.";

/// What holds for every command.
#[derive(Args, Debug)]
pub struct Global {
    /// A context file, or the name of one in $QUORATE_HOME/contexts (~/.config/quorate/contexts).
    #[arg(long, global = true, env = "QUORATE_CONTEXT", hide_env_values = true, value_name = "FILE|NAME")]
    pub context: Option<String>,
    /// Asks these nodes instead of the context's.
    #[arg(long = "endpoint", global = true, value_name = "HOST:PORT", value_delimiter = ',')]
    pub endpoints: Vec<String>,
    /// How to print.
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: Format,
    /// How long the command may take.
    #[arg(long, global = true, value_parser = duration::parse_positive, default_value = "15s", value_name = "DURATION")]
    pub timeout: Duration,
    /// Refuses a write unless the thing was last changed at this revision.
    #[arg(long, global = true, value_name = "REVISION")]
    pub if_revision: Option<u64>,
    /// Does not wait until every node enforces a write.
    #[arg(long, global = true)]
    pub no_wait: bool,
    /// Does not ask before something is destroyed.
    #[arg(short, long, global = true)]
    pub yes: bool,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The cluster as a whole.
    #[command(subcommand)]
    Cluster(ClusterVerb),
    /// The nodes that belong to the cluster.
    #[command(subcommand)]
    Members(MembersVerb),
    /// Who may administer.
    #[command(subcommand)]
    Operators(OperatorsVerb),
    /// The cluster's certificate authorities.
    #[command(subcommand)]
    Ca(CaVerb),
    /// Backups.
    #[command(subcommand)]
    Snapshot(SnapshotVerb),
    /// API keys.
    #[command(subcommand)]
    Keys(KeysVerb),
    /// Who calls.
    #[command(subcommand)]
    Consumers(ConsumersVerb),
    /// Which requests go where.
    #[command(subcommand)]
    Routes(ResourceVerb),
    /// Where requests go.
    #[command(subcommand)]
    Upstreams(ResourceVerb),
    /// How often they may.
    #[command(subcommand)]
    Limits(LimitsVerb),
    /// Who may what, in Cedar.
    #[command(subcommand)]
    Policies(ResourceVerb),
    /// Whose tokens are trusted.
    #[command(subcommand)]
    Issuers(ResourceVerb),
    /// Applies a resource file: all of it in one revision, or nothing.
    Apply(Apply),
    /// Shows what applying a resource file would change.
    Diff(Diff),
    /// Prints all resources as a resource file; applying it changes nothing.
    Export,
    /// Checks a resource file against the cluster.
    Validate(Validate),
    /// Which route, identity, policy and limit decide about a request, without sending it.
    Explain(Explain),
    /// Who changed what, and when.
    Audit(Audit),
    /// Prints a completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// `cluster`.
#[derive(Debug, Subcommand)]
pub enum ClusterVerb {
    /// Role, term, applied index, lag and version of each node, unreachable ones too.
    Status,
    /// Hands leadership over.
    TransferLeader {
        /// The voter that shall lead; without it, whichever is best.
        #[arg(value_name = "NODE")]
        to: Option<u64>,
    },
    /// Makes a token with which one node can join.
    JoinToken {
        /// How long it is good for.
        #[arg(long, value_parser = duration::parse_positive, default_value = "1h", value_name = "DURATION")]
        expires: Duration,
    },
    /// The cluster's clocks, and how far each node's is from them.
    Clock,
    /// The cluster's settings.
    Settings {
        /// What to do with them; without it they are shown.
        #[command(subcommand)]
        verb: Option<SettingsVerb>,
    },
    /// Lets the cluster use what all its nodes support by now. There is no way back to the release before.
    FinalizeUpgrade,
}

/// `cluster settings`.
#[derive(Debug, Subcommand)]
pub enum SettingsVerb {
    /// Shows them.
    Get,
    /// Changes those that are given.
    Set(SettingsSet),
}

/// `cluster settings set`.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub struct SettingsSet {
    /// How many nodes vote: 3, 5 or 7.
    #[arg(long)]
    pub voters: Option<u32>,
    /// How long a learner may be silent before it is removed.
    #[arg(long, value_parser = duration::parse, value_name = "DURATION")]
    pub learner_expiry: Option<Duration>,
    /// How many audit entries are kept.
    #[arg(long, value_name = "N")]
    pub audit_entries: Option<u64>,
}

/// `members`.
#[derive(Debug, Subcommand)]
pub enum MembersVerb {
    /// All of them, with their addresses.
    List,
    /// Lets a node become a voter again.
    Promote(Member),
    /// Makes a voter a learner for good: it serves, and never votes.
    Demote(Member),
    /// Takes a node out of the cluster.
    Remove(Member),
}

/// Which member.
#[derive(Args, Debug)]
pub struct Member {
    /// Its number or its name.
    #[arg(value_name = "NODE")]
    pub member: String,
}

/// What an operator may do.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Changes keys and resources.
    Operator,
    /// Also members, operators and certificates.
    Admin,
}

/// `operators`.
#[derive(Debug, Subcommand)]
pub enum OperatorsVerb {
    /// Makes a key pair here, has it certified, and writes a context file with it.
    Create {
        /// The operator's name.
        name: String,
        /// What it may do.
        #[arg(long, value_enum)]
        role: Role,
        /// How long the certificate is good for.
        #[arg(long, value_parser = duration::parse_positive, default_value = "90d", value_name = "DURATION")]
        expires: Duration,
        /// A certificate that the cluster's authority signed outside, for CN=NAME and OU=operator; its private key stays
        /// where it is.
        #[arg(long, conflicts_with = "expires", value_name = "FILE")]
        certificate: Option<PathBuf>,
        /// The context file to write; without it, NAME.toml here.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// All of them.
    List,
    /// Refuses an operator from now on.
    Revoke {
        /// The operator's name.
        name: String,
    },
}

/// `ca`.
#[derive(Debug, Subcommand)]
pub enum CaVerb {
    /// The authorities, and which one signed each node's certificate.
    Status,
    /// Adds a new authority that signs from now on; the one before stays trusted until --finish.
    Rotate {
        /// Trusts the authority before no more.
        #[arg(long)]
        finish: bool,
        /// Finishes although a node still uses a certificate of the authority before: it will be cut off.
        #[arg(long, requires = "finish")]
        force: bool,
    },
}

/// `snapshot`.
#[derive(Debug, Subcommand)]
pub enum SnapshotVerb {
    /// Saves the whole replicated state as of now.
    Save {
        /// The file to write; it must not exist.
        file: PathBuf,
    },
    /// Says what a snapshot file holds and whether it is whole, without a cluster. The program `quorate` does it, which must lie beside
    /// this one or on the PATH.
    Inspect {
        /// The snapshot file.
        file: PathBuf,
    },
}

/// `keys`.
#[derive(Debug, Subcommand)]
pub enum KeysVerb {
    /// Makes a key and prints it, once.
    Create {
        /// Whose it is.
        #[arg(long)]
        consumer: String,
        /// What people call it.
        #[arg(long, default_value = "", hide_default_value = true)]
        name: String,
        /// What it may be used for.
        #[arg(long, value_delimiter = ',', value_name = "SCOPE,…")]
        scopes: Vec<String>,
        /// How long it lasts; `never` is the default.
        #[arg(long, value_parser = duration::parse_expiry, value_name = "DURATION")]
        expires: Option<Duration>,
    },
    /// All keys, or some.
    List {
        /// Of this consumer alone.
        #[arg(long, default_value = "", hide_default_value = true)]
        consumer: String,
        /// In this state alone.
        #[arg(long, value_enum)]
        state: Option<KeyState>,
        /// At most so many.
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// One key.
    Show {
        /// Its id.
        id: String,
    },
    /// Gives a key a new secret and prints it, once.
    Rotate {
        /// Its id.
        id: String,
        /// How long the secret before stays good; 0 ends it at once.
        #[arg(long, value_parser = duration::parse, value_name = "DURATION")]
        overlap: Duration,
    },
    /// Refuses a key from now on, on every node.
    Revoke {
        /// Its id.
        id: String,
    },
    /// Takes over keys of which only the SHA-256 is known.
    Import {
        /// CSV with the header sha256,consumer,name,scopes,expires (scopes parted by blanks), or JSON lines; `-` is
        /// standard input.
        file: PathBuf,
    },
}

/// What a key may be.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum KeyState {
    /// It is good.
    Active,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
    /// It is good, and so is its secret before.
    Rotating,
}

/// `routes`, `upstreams`, `policies`, `issuers`.
#[derive(Debug, Subcommand)]
pub enum ResourceVerb {
    /// All of them.
    List,
    /// One, as a resource file would say it.
    Get {
        /// Its name.
        name: String,
    },
    /// Deletes one that nothing refers to.
    Delete {
        /// Its name.
        name: String,
    },
}

/// `consumers`.
#[derive(Debug, Subcommand)]
pub enum ConsumersVerb {
    /// What all resources can do.
    #[command(flatten)]
    Resource(ResourceVerb),
    /// Refuses all its keys from now on; they stay as they are.
    Disable {
        /// Its name.
        name: String,
    },
    /// Takes its keys again.
    Enable {
        /// Its name.
        name: String,
    },
}

/// `limits`.
#[derive(Debug, Subcommand)]
pub enum LimitsVerb {
    /// What all resources can do.
    #[command(flatten)]
    Resource(ResourceVerb),
    /// What is left of a limit for one subject, and which nodes hold how much of it.
    Usage(LimitUsage),
}

/// `limits usage`.
#[derive(Args, Debug)]
pub struct LimitUsage {
    /// Its name.
    pub name: String,
    /// Whom it counts: the parts of its `per` in their order, with commas between them, or once for each part. A key is
    /// its id (of a whole key the id alone is used, the secret stays here), a header its value, or nothing where
    /// requests come without it.
    #[arg(long, value_name = "S", allow_hyphen_values = true)]
    pub subject: Vec<String>,
    /// The bucket that all share for whom `max_subjects` has no room.
    #[arg(long, conflicts_with = "subject")]
    pub overflow: bool,
}

/// Which resource file.
#[derive(Args, Debug)]
pub struct ResourceFile {
    /// The resource file, YAML or JSON; `-` is standard input.
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
}

/// `apply`.
#[derive(Args, Debug)]
pub struct Apply {
    /// Which file.
    #[command(flatten)]
    pub file: ResourceFile,
    /// Deletes what the file does not name.
    #[arg(long)]
    pub prune: bool,
    /// Changes nothing: as `diff`.
    #[arg(long)]
    pub dry_run: bool,
}

/// `diff`.
#[derive(Args, Debug)]
pub struct Diff {
    /// Which file.
    #[command(flatten)]
    pub file: ResourceFile,
    /// As `apply --prune`.
    #[arg(long)]
    pub prune: bool,
}

/// `validate`.
#[derive(Args, Debug)]
pub struct Validate {
    /// Which file.
    #[command(flatten)]
    pub file: ResourceFile,
}

/// `explain`.
#[derive(Args, Debug)]
pub struct Explain {
    /// A whole API key; `-` reads it from standard input, where other users do not see it.
    #[arg(long, conflicts_with = "key_id")]
    pub key: Option<String>,
    /// The id of a key.
    #[arg(long, value_name = "ID")]
    pub key_id: Option<String>,
    /// The HTTP method.
    pub method: String,
    /// The URL, or a path.
    pub url: String,
}

/// `audit`.
#[derive(Args, Debug)]
pub struct Audit {
    /// Not before: how long ago, or a time.
    #[arg(long, value_parser = moment::parse_since, value_name = "DURATION|TIME")]
    pub since: Option<u64>,
    /// By this operator alone.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub actor: String,
    /// Goes on with what is changed from now on; one line each.
    #[arg(long)]
    pub follow: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn a_credential_is_named_once() {
        let parse = |line: &str| CommandLine::try_parse_from(line.split(' '));
        assert!(parse("quoratectl explain --key a --key-id b GET /").is_err());
        assert!(parse("quoratectl explain --key-id b GET / -o json").is_ok());
        assert!(parse("quoratectl ca rotate --force").is_err());
        assert!(parse("quoratectl cluster settings set").is_err());
        assert!(parse("quoratectl cluster settings").is_ok());
        assert!(parse("quoratectl keys rotate k --overlap 7x").is_err());
    }
}

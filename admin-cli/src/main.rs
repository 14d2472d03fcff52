//! `quoratectl`: administers a Quorate cluster over its admin API. Here: from the command line to the verb, and from its
//! answer to the exit code. One file a noun; `render.rs` alone prints.

mod audit;
mod ca;
mod client;
mod cluster;
mod command_line;
mod confirm;
mod consumers;
mod context;
mod duration;
mod exit;
mod explain;
mod file;
mod keys;
mod limits;
mod members;
mod moment;
mod operators;
mod render;
mod request;
mod resource_file;
mod resources;
mod session;
mod snapshot;
mod written;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use command_line::{Command, CommandLine, SnapshotVerb};
use exit::{Exit, Failure};
use render::{Format, Printer};
use resources::Kind;
use session::Session;
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => return misused(&error),
    };
    let printer = Printer::new(line.global.output);
    match run(line, printer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            printer.failure(&failure);
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn run(line: CommandLine, printer: Printer) -> Result<(), Failure> {
    let CommandLine { global, command } = line;
    if let Command::Completions { shell } = command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut CommandLine::command(), "quoratectl", &mut script);
        return printer.raw(&String::from_utf8_lossy(&script));
    }
    if let Command::Snapshot(SnapshotVerb::Inspect { file }) = command {
        return snapshot::inspect(&file, printer);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::local(format!("the program cannot start: {error}")))?;
    runtime.block_on(async {
        let session = Session::open(global, printer)?;
        let answer = match command {
            Command::Cluster(verb) => cluster::run(&session, verb).await?,
            Command::Members(verb) => members::run(&session, verb).await?,
            Command::Operators(verb) => operators::run(&session, verb).await?,
            Command::Ca(verb) => ca::run(&session, verb).await?,
            Command::Snapshot(SnapshotVerb::Save { file }) => snapshot::save(&session, file).await?,
            Command::Keys(verb) => keys::run(&session, verb).await?,
            Command::Consumers(verb) => consumers::run(&session, verb).await?,
            Command::Routes(verb) => resources::run(&session, Kind::Route, verb).await?,
            Command::Upstreams(verb) => resources::run(&session, Kind::Upstream, verb).await?,
            Command::Limits(verb) => limits::run(&session, verb).await?,
            Command::Policies(verb) => resources::run(&session, Kind::Policy, verb).await?,
            Command::Issuers(verb) => resources::run(&session, Kind::Issuer, verb).await?,
            Command::Apply(apply) => resource_file::apply(&session, apply).await?,
            Command::Diff(diff) => resource_file::diff(&session, diff).await?,
            Command::Export => return resource_file::export(&session).await,
            Command::Validate(validate) => resource_file::validate(&session, validate).await?,
            Command::Explain(explain) => explain::run(&session, explain).await?,
            Command::Audit(audit) if audit.follow => return audit::follow(&session, audit).await,
            Command::Audit(audit) => audit::read(&session, audit).await?,
            // Answered above, where no cluster is needed.
            Command::Completions { .. } | Command::Snapshot(SnapshotVerb::Inspect { .. }) => return Ok(()),
        };
        printer.answer(&answer)
    })
}

/// Help, the version, or a command line that is wrong.
fn misused(error: &clap::Error) -> ExitCode {
    let format = wanted_format(std::env::args_os());
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) || format == Format::Table {
        // Where the terminal is gone, there is nowhere to say so.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8));
    }
    let text = error.to_string();
    let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    Printer::new(format).failure(&Failure::usage(message, "see quoratectl --help"));
    ExitCode::from(Exit::Usage as u8)
}

/// The format that was asked for on a command line that clap does not understand.
fn wanted_format(arguments: impl Iterator<Item = OsString>) -> Format {
    let arguments: Vec<String> = arguments.map(|argument| argument.to_string_lossy().into_owned()).collect();
    let named = |text: &str| match text {
        "json" => Some(Format::Json),
        "yaml" => Some(Format::Yaml),
        _ => None,
    };
    let following = arguments.iter().skip(1);
    arguments
        .iter()
        .zip(following)
        .filter(|(name, _)| ["-o", "--output"].contains(&name.as_str()))
        .find_map(|(_, value)| named(value))
        .or_else(|| {
            arguments.iter().find_map(|argument| {
                let value = argument.strip_prefix("--output=").or_else(|| argument.strip_prefix("-o"))?;
                named(value.trim_start_matches('='))
            })
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_found_on_a_wrong_command_line() {
        let wanted = |line: &str| wanted_format(line.split(' ').map(OsString::from));
        assert_eq!(wanted("q keys -o json"), Format::Json);
        assert_eq!(wanted("q -oyaml keys"), Format::Yaml);
        assert_eq!(wanted("q --output=json"), Format::Json);
        assert_eq!(wanted("q -o"), Format::Table);
        assert_eq!(wanted("q -o table x"), Format::Table);
    }
}

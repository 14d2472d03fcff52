//! The program `quorate`: parses the command line, and hands over. What the commands do is in the library.

use clap::Parser;
use quorate::{
    boot,
    clock::SystemClock,
    command_line::{Command, CommandLine, SnapshotVerb},
    config::{self, check},
    dev, init, inspect, join, logging,
};
use std::{io::Write, process::ExitCode};

/// Many small allocations on many threads, which come and go with requests.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match perform(CommandLine::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever reads standard error has gone: there is nobody left to tell.
            let _ = writeln!(std::io::stderr(), "quorate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn perform(command: Command) -> anyhow::Result<()> {
    let clock = SystemClock;
    match command {
        Command::Dev(options) => runtime()?.block_on(dev::run(&options))?,
        Command::Init(options) => {
            let settings = config::load(options.config.as_deref(), options.settings)?;
            let new = init::NewCluster::from_options(
                &options.operator,
                options.context_dir,
                options.token_ttl,
                options.ca_certificate.zip(options.ca_key),
            )?;
            let prepared = init::init(&settings, &new, clock)?;
            print(&prepared.report(&settings, options.config.as_deref(), options.output))?;
        }
        Command::Join(options) => {
            let settings = config::load(options.config.as_deref(), options.settings)?;
            logging::start(&settings.log);
            let joined = runtime()?.block_on(join::join(&settings, options.joining, clock))?;
            print(&joined.report(&settings, options.config.as_deref(), options.output))?;
        }
        Command::Run(options) => {
            let settings = config::load(options.config.as_deref(), options.settings)?;
            let join = join::wish(options.joining)?;
            logging::start(&settings.log);
            let running = boot::Running { join, stop_with_stdin: options.stop_with_stdin };
            let runtime = runtime()?;
            let ran = runtime.block_on(boot::run(settings, running));
            // Reading standard input cannot be interrupted: a node that has stopped does not wait for it.
            runtime.shutdown_background();
            ran?;
        }
        Command::Check(options) => match check::check(&options.file) {
            Ok(checked) => print(&format!("{}: {checked}\n", options.file.display()))?,
            Err(wrong) => anyhow::bail!("{wrong}"),
        },
        Command::Snapshot(SnapshotVerb::Inspect { file, output }) => print(&inspect::report(&file, output)?)?,
    }
    Ok(())
}

/// The control plane's threads. The data plane brings its own, so these few never wait behind requests.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(2, 8))
        .thread_name("control")
        .enable_all()
        .build()?;
    Ok(runtime)
}

fn print(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

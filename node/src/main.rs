//! The program `quorate`: parses the command line, and hands over. What the commands do is in the library.

use clap::Parser;
use quorate::{
    boot,
    clock::SystemClock,
    command_line::{CertificateVerb, Command, CommandLine, Init, SnapshotVerb},
    config::{self, check},
    dev, faults, init, inspect, join, logging, renew,
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
        Command::Init(options) => print(&begin(*options, clock)?)?,
        Command::Join(options) => {
            let settings = config::load(options.config.as_deref(), options.settings)?;
            logging::start(&settings.log);
            let joined = match (options.certificate, options.csr_out) {
                (Some(certificate), _) => join::finish(&settings, &certificate, clock)?,
                (None, Some(file)) => runtime()?.block_on(join::request(&settings, options.joining, &file, clock))?,
                (None, None) => runtime()?.block_on(join::join(&settings, options.joining, clock))?,
            };
            print(&joined.report(&settings, options.config.as_deref(), options.output))?;
        }
        Command::Run(options) => {
            let settings = config::load(options.config.as_deref(), options.settings)?;
            let join = join::wish(options.joining)?;
            logging::start(&settings.log);
            if let Some(file) = options.unsafe_test_faults {
                faults::obey(file)?;
            }
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
        Command::Certificate(CertificateVerb::Request { csr_out, config, settings }) => {
            let settings = config::load(config.as_deref(), *settings)?;
            print(&renew::request(&settings, config.as_deref(), &csr_out)?)?;
        }
        Command::Certificate(CertificateVerb::Install { certificate, config, settings }) => {
            let settings = config::load(config.as_deref(), *settings)?;
            print(&renew::install(&settings, &certificate, clock)?)?;
        }
        Command::Snapshot(SnapshotVerb::Inspect { file, output }) => print(&inspect::report(&file, output)?)?,
    }
    Ok(())
}

/// `quorate init`, by whoever signs.
fn begin(options: Init, clock: SystemClock) -> anyhow::Result<String> {
    let config = options.config.as_deref();
    let settings = config::load(config, options.settings)?;
    let inside = options.ca_certificate.clone().zip(options.ca_key);
    let new = init::NewCluster::from_options(&options.operator, options.context_dir, options.token_ttl, inside)?;
    if let Some((authority, folder)) = options.ca_certificate.zip(options.csr_out) {
        let begun = init::outside::request(&settings, &new, &authority, &folder, clock)?;
        return Ok(begun.report(&settings, config, options.output));
    }
    let prepared = match options.certificate.zip(options.operator_certificate) {
        Some((node, operator)) => init::outside::finish(&settings, &new, &node, &operator, clock)?,
        None => init::init(&settings, &new, clock)?,
    };
    Ok(prepared.report(&settings, config, options.output))
}

/// The control plane's threads. The data plane brings its own, so these few never wait behind requests.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(2, 8))
        .thread_name("control")
        .thread_stack_size(quorate::gateway::STACK_BYTES)
        .enable_all()
        .build()?;
    Ok(runtime)
}

fn print(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

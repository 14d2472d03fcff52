//! What a request costs through Quorate and through other gateways, all of them loaded in turn in one run. A program to be run by
//! hand; docs/performance.md says how, `--help` says what can be chosen:
//!
//!     cargo bench -p tests --bench peers                                    # everything
//!     cargo bench -p tests --bench peers -- --rows plain,keys --peers quorate,nginx
//!
//! Core 0 runs a gateway with one worker and all that it needs, core 1 this program: load and upstream. The figure is the processor time
//! of everything that the gateway needs, divided by the requests; for Quorate all three nodes of a cluster, of which one is asked.
//!
//! Rooms: `options`, what to measure; `row`, what is asked of a gateway; `site`, what all gateways get (upstream, keys, certificate);
//! `peer`, the gateways, a file each; `load` and `upstream`, both ends of a request; `cpu`, what it cost; `measure`, the rounds;
//! `report`, the tables; `accuracy`, apart from all that, how exactly one limit over several gateways is kept.
//!
//! `cargo test` runs this program too: then every peer that is installed checks what is generated for it, and nothing is measured.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement fails by panicking and answers on standard output"
)]

mod accuracy;
mod cpu;
mod load;
mod measure;
mod options;
mod peer;
mod report;
mod row;
mod site;
mod upstream;

use options::Options;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        return check(&arguments);
    }
    let options = match Options::parse(&arguments) {
        Ok(options) => options,
        Err(text) => {
            eprintln!("{text}");
            std::process::exit(2);
        }
    };
    cpu::move_to(&options.load_core);
    report::environment(&options);
    let mut all = Vec::new();
    for row in &options.rows {
        let measured = measure::row(row, &options);
        report::table(row, &measured);
        all.push((*row, measured));
        report::write(&options.out, &all);
    }
    if options.accuracy {
        accuracy::run(&options);
    }
    println!("\nEvery round is in {}.", options.out.display());
}

/// What `cargo test` asks for: whether the peers that are here accept what is generated for them.
fn check(arguments: &[String]) {
    if arguments.iter().any(|argument| argument == "--list") {
        println!("configurations: test");
        return;
    }
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    if !filters.is_empty() && !filters.iter().any(|filter| "configurations".contains(filter.as_str())) {
        return;
    }
    let site = site::Site::start();
    let mut failures = Vec::new();
    for peer in peer::all() {
        if peer.version().is_none() {
            eprintln!("{}: not installed", peer.name());
            continue;
        }
        for stack in row::Stack::ALL {
            let Some(solution) = peer.solve(stack, &site) else { continue };
            match solution.check() {
                Ok(()) => println!("{} {stack:?}: ok", peer.name()),
                Err(text) => failures.push(format!("{} {stack:?}: {text}", peer.name())),
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

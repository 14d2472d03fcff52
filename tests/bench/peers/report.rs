//! Tables for people, and a file with every round.

use crate::{
    load::Pace,
    measure::{Measured, Round},
    options::Options,
    row::Row,
};
use serde_json::json;
use std::{fs, path::Path};

/// Whom the others are compared with.
const BARS: [&str; 3] = ["nginx", "haproxy", "nginx-redis"];

/// One figure from all rounds.
type Summary = fn(&[Round], fn(&Round) -> f64) -> f64;

/// What runs, and what does not because it is not there.
pub fn environment(options: &Options) {
    println!("{} rounds of {:.1} s.\n", options.rounds, options.window.as_secs_f64());
    for peer in &options.peers {
        match peer.version() {
            Some(version) => println!("- {}: {version}", peer.name()),
            None => println!("- {}: not installed, left out. {}", peer.name(), peer.install()),
        }
    }
}

/// The table of a row.
pub fn table(row: &Row, measured: &[Measured]) {
    println!("\n## {}\n", row.title);
    match row.pace {
        Pace::Closed => cost_table(measured),
        Pace::Open(_) => latency_table(measured),
    }
    for void in measured.iter().filter(|measured| !is_valid(measured)) {
        println!("\n{}: void: {}", void.peer, void.failure.clone().unwrap_or_else(|| errors(&void.rounds)));
    }
}

fn cost_table(measured: &[Measured]) {
    let (none, valid): (Vec<_>, Vec<_>) =
        measured.iter().filter(|measured| is_valid(measured)).partition(|measured| measured.peer == "none");
    let least = |measured: &Measured| least(&measured.rounds, Round::cost);
    let bars: Vec<&&Measured> =
        BARS.iter().filter_map(|bar| valid.iter().find(|measured| measured.peer == *bar)).collect();
    let heads: String = bars.iter().map(|bar| format!(" × {} |", bar.peer)).collect();
    println!("| | how | CPU µs/request: least | median |{heads} requests/s | core | of which | MiB | foreign |");
    println!("| --- | --- | ---: | ---: |{} ---: | ---: | --- | ---: | ---: |", " ---: |".repeat(bars.len()));
    for one in &valid {
        let ratios: String = bars.iter().map(|bar| format!(" {:.2} |", least(one) / least(bar))).collect();
        let cheapest = one.rounds.iter().min_by(|a, b| a.cost().total_cmp(&b.cost())).expect("a round");
        let parts: Vec<String> = cheapest
            .cpu
            .iter()
            .map(|(name, seconds)| format!("{name} {:.1}", seconds * 1e6 / cheapest.count.done as f64))
            .collect();
        println!(
            "| {} | {} | {:.2} | {:.2} |{ratios} {:.0} | {:.0} % | {} | {} | {:.0} % |",
            one.peer,
            one.how,
            least(one),
            median(&one.rounds, Round::cost),
            fastest(one),
            median(&one.rounds, Round::busy) * 100.0,
            if parts.len() > 1 { parts.join(", ") } else { String::new() },
            one.resident >> 20,
            median(&one.rounds, |round| round.foreign) * 100.0,
        );
    }
    for none in none {
        println!("\nWithout a gateway clients and upstream do {:.0} requests/s.", fastest(none));
    }
}

fn latency_table(measured: &[Measured]) {
    let valid: Vec<&Measured> = measured.iter().filter(|measured| is_valid(measured)).collect();
    let half: fn(&Round) -> f64 = |round| round.latency.map_or(f64::NAN, |latency| latency.0);
    let tail: fn(&Round) -> f64 = |round| round.latency.map_or(f64::NAN, |latency| latency.1);
    let direct = valid.iter().find(|measured| measured.peer == "none");
    println!("| | p50 µs: least | median | added over none: least | median | p99 µs: least | CPU µs/request: least |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for one in &valid {
        let added = |of: Summary| direct.map_or(f64::NAN, |direct| of(&one.rounds, half) - of(&direct.rounds, half));
        println!(
            "| {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} |",
            one.peer,
            least(&one.rounds, half),
            median(&one.rounds, half),
            added(least),
            added(median),
            least(&one.rounds, tail),
            least(&one.rounds, Round::cost),
        );
    }
}

fn is_valid(measured: &Measured) -> bool {
    measured.failure.is_none() && !measured.rounds.is_empty() && measured.rounds.iter().all(Round::is_clean)
}

fn errors(rounds: &[Round]) -> String {
    let refused: u64 = rounds.iter().map(|round| round.count.limited + round.count.refused).sum();
    let failed: u64 = rounds.iter().map(|round| round.count.failed).sum();
    let done: u64 = rounds.iter().map(|round| round.count.done).sum();
    format!("{done} requests were answered with 200, {refused} otherwise, {failed} not at all")
}

fn fastest(measured: &Measured) -> f64 {
    measured.rounds.iter().map(Round::rate).fold(0.0, f64::max)
}

fn least(rounds: &[Round], of: fn(&Round) -> f64) -> f64 {
    rounds.iter().map(of).fold(f64::INFINITY, f64::min)
}

fn median(rounds: &[Round], of: fn(&Round) -> f64) -> f64 {
    let mut all: Vec<f64> = rounds.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Every round of every peer.
pub fn write(file: &Path, all: &[(&Row, Vec<Measured>)]) {
    let rows: Vec<_> = all
        .iter()
        .flat_map(|(row, measured)| {
            measured.iter().map(|measured| {
                json!({
                    "row": row.name, "peer": measured.peer, "how": measured.how, "failure": measured.failure,
                    "resident_bytes": measured.resident,
                    "rounds": measured.rounds.iter().map(Round::to_json).collect::<Vec<_>>(),
                })
            })
        })
        .collect();
    let text = serde_json::to_string_pretty(&rows).expect("numbers and texts");
    fs::write(file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

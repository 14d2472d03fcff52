//! How exactly one limit over three gateways is kept, and what becomes of it when what it rests on is killed or stopped: Redis, or the
//! leader of a cluster.

use crate::{
    load::{Load, Pace, Protocol, Target},
    options::Options,
    peer::{Peer, Rule},
    site::Site,
};
use rustix::process::Signal;
use std::{
    thread::sleep,
    time::{Duration, Instant},
};

const RULE: Rule = Rule { gateways: 3, rate: 100, burst: 10 };
/// Until gateways that count together have found one another.
const SETTLE: Duration = Duration::from_secs(5);
/// Requests a second to all gateways together.
const OFFERED: u32 = 600;
const DURATION: Duration = Duration::from_secs(30);
const FAULT_AT: Duration = Duration::from_secs(10);
const REPAIR_AT: Duration = Duration::from_secs(20);
/// What is still under way then is not waited for.
const GRACE: Duration = Duration::from_secs(1);

/// What happens to what the limit rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Killed,
    Stopped,
}

impl Fault {
    fn text(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Killed => "killed for 10 s",
            Self::Stopped => "stopped for 10 s",
        }
    }
}

/// All peers that keep a limit together, with each fault; prints the table.
pub fn run(options: &Options) {
    let may = RULE.burst + RULE.rate * DURATION.as_secs();
    println!(
        "\n## A limit of {}/s over {} gateways, {OFFERED}/s offered for {} s: {may} may pass\n\n\
         | | fault | admitted | of what may be | neither 200 nor 429 | longest ms |\n\
         | --- | --- | ---: | ---: | ---: | ---: |",
        RULE.rate,
        RULE.gateways,
        DURATION.as_secs()
    );
    for peer in options.peers.iter().filter(|peer| peer.version().is_some()) {
        for fault in [Fault::None, Fault::Killed, Fault::Stopped] {
            match once(peer.as_ref(), fault, &options.gateway_core) {
                None => {}
                Some(Ok((admitted, other, longest))) => println!(
                    "| {} | {} | {admitted} | {:.0} % | {other} | {longest:.0} |",
                    peer.name(),
                    fault.text(),
                    admitted as f64 * 100.0 / may as f64
                ),
                Some(Err(text)) => println!("| {} | {} | void: {text} |", peer.name(), fault.text()),
            }
        }
    }
}

/// What was admitted, what was neither admitted nor limited, and the longest answer in milliseconds.
fn once(peer: &dyn Peer, fault: Fault, core: &str) -> Option<Result<(u64, u64, f64), String>> {
    let site = Site::start();
    let mut gateways = match peer.together(&RULE, &site, core)? {
        Ok(gateways) => gateways,
        Err(text) => return Some(Err(text)),
    };
    if fault != Fault::None && gateways.rests_on().is_none() {
        return None;
    }
    let target = Target {
        addresses: gateways.gateways(),
        protocol: Protocol::Plain,
        keys: site.keys[..1].to_vec(),
        authority: site.certificate.clone(),
    };
    sleep(SETTLE);
    let load = match Load::start(&target, Pace::Open(OFFERED)) {
        Ok(load) => load,
        Err(text) => return Some(Err(text)),
    };
    let began = Instant::now();
    load.record();
    let until = |at: Duration| sleep(at.saturating_sub(began.elapsed()));
    until(FAULT_AT);
    match (fault, gateways.rests_on()) {
        (Fault::Killed, Some(process)) => process.kill(),
        (Fault::Stopped, Some(process)) => process.signal(Signal::STOP),
        _ => {}
    }
    until(REPAIR_AT);
    match (fault, gateways.rests_on()) {
        (Fault::Killed, _) => {
            if let Err(text) = gateways.repair() {
                return Some(Err(text));
            }
        }
        (Fault::Stopped, Some(process)) => process.signal(Signal::CONT),
        _ => {}
    }
    until(DURATION);
    load.hold();
    sleep(GRACE);
    let count = load.count();
    let latencies = load.stop();
    // Refused, lost, or still under way.
    let other = count.offered - count.done - count.limited;
    let longest = latencies.last().map_or(f64::NAN, |nanoseconds| *nanoseconds as f64 / 1e6);
    Some(Ok((count.done, other, longest)))
}

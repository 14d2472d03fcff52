//! The rounds of a row: all its peers run at once and are loaded in turn, round after round, so that what the machine does besides hits
//! each of them alike.

use crate::{
    cpu::{self, Used},
    load::{Count, Load, Pace, Target},
    options::Options,
    peer::Running,
    row::Row,
    site::Site,
};
use serde_json::{Value, json};
use std::{
    thread::sleep,
    time::{Duration, Instant},
};
use tests::{client::get, process::resident_bytes};

/// What a peer did in a row.
pub struct Measured {
    /// The peer.
    pub peer: &'static str,
    /// What it had of what the row asks for.
    pub how: String,
    /// Every time that it was measured.
    pub rounds: Vec<Round>,
    /// Resident memory of its processes, in bytes.
    pub resident: u64,
    /// Why it could not be measured.
    pub failure: Option<String>,
}

/// One time.
#[derive(Debug)]
pub struct Round {
    /// Of the requests.
    pub count: Count,
    /// How long.
    pub elapsed: f64,
    /// Each process by its name, and the seconds that it used.
    pub cpu: Vec<(&'static str, f64)>,
    /// Seconds that clients and upstream used.
    pub load_cpu: f64,
    /// The larger share of one of the two cores that neither side used.
    pub foreign: f64,
    /// In microseconds: at the median, and what 1 in 100 is above. Open loop only.
    pub latency: Option<(f64, f64)>,
}

/// Before each window: until connections are warm.
const WARM_UP: Duration = Duration::from_millis(300);
/// And, where each client has a bucket or a key, until each of them has called so often.
const WARM_UP_CALLS: u64 = 3;
const WARM_UP_MAX: Duration = Duration::from_secs(10);

/// Before the first window of a row: so long at a time, until nobody does anything.
const SETTLE: Duration = Duration::from_secs(1);
const SETTLE_MAX: Duration = Duration::from_secs(20);

struct Contender {
    running: Running,
    target: Target,
    measured: Measured,
}

/// Measures all peers that have an answer to a row.
pub fn row(row: &Row, options: &Options) -> Vec<Measured> {
    let site = Site::start();
    let mut contenders = Vec::new();
    let mut failed = Vec::new();
    for peer in &options.peers {
        if peer.version().is_none() {
            continue;
        }
        let Some(solution) = peer.solve(row.stack, &site) else { continue };
        let mut measured =
            Measured { peer: peer.name(), how: solution.how(), rounds: Vec::new(), resident: 0, failure: None };
        let started = solution.start(&options.gateway_core).and_then(|running| {
            let target = Target {
                addresses: vec![running.address],
                protocol: row.protocol,
                keys: site.keys[..row.callers].to_vec(),
                authority: site.certificate.clone(),
            };
            try_out(row, &running, &target, &site)?;
            Ok((running, target))
        });
        match started {
            Ok((running, target)) => contenders.push(Contender { running, target, measured }),
            Err(text) => {
                eprintln!("{} in {}: {text}", peer.name(), row.name);
                measured.failure = Some(text);
                failed.push(measured);
            }
        }
    }
    settle(&contenders);
    for round in 0..options.rounds {
        for contender in &mut contenders {
            if contender.measured.failure.is_some() {
                continue;
            }
            match measure(row, contender, options) {
                Ok(done) => {
                    eprintln!("{} {round} {}: {}", row.name, contender.measured.peer, done.to_json());
                    contender.measured.rounds.push(done);
                }
                Err(text) => contender.measured.failure = Some(text),
            }
        }
    }
    let measured = contenders.into_iter().map(|mut contender| {
        contender.measured.resident = contender.running.processes.iter().map(|process| resident(process.1)).sum();
        contender.measured
    });
    measured.chain(failed).collect()
}

/// Waits until what starting left behind is done: nobody uses more than a twentieth of the core.
fn settle(contenders: &[Contender]) {
    let used = || -> Vec<Used> {
        let running = contenders.iter().flat_map(|contender| &contender.running.processes);
        running.map(|process| Used::by_tree(process.1)).collect()
    };
    let began = Instant::now();
    let mut before = used();
    while began.elapsed() < SETTLE_MAX {
        sleep(SETTLE);
        let after = used();
        let times = after.iter().zip(&before).map(|(after, before)| after.since(before));
        if times.fold(0.0, f64::max) < SETTLE.as_secs_f64() / 20.0 {
            break;
        }
        before = after;
    }
}

fn resident(process: u32) -> u64 {
    cpu::tree(process).into_iter().map(resident_bytes).sum()
}

/// One request must be answered with 200, and where keys are checked, one with a wrong key with 401.
fn try_out(row: &Row, running: &Running, target: &Target, site: &Site) -> Result<(), String> {
    let mut client = tests::Client::new(&running.address.to_string());
    if row.stack.is_tls() {
        client = client.tls(&site.certificate);
    }
    let key = &site.keys[0];
    let call = || if target.keys.is_empty() { get("/") } else { get("/").key(key) };
    let began = Instant::now();
    loop {
        match client.try_send(call()) {
            Ok(answer) if answer.status == 200 && answer.body.len() == 1024 => break,
            other if began.elapsed() > Duration::from_secs(20) => return Err(format!("a good request got {other:?}")),
            _ => sleep(Duration::from_millis(50)),
        }
    }
    if row.stack.checks_keys() && running.checks_keys {
        let answer = client.try_send(get("/").key("ak_00000000000000000000000000000000"))?;
        if answer.status != 401 {
            return Err(format!("a wrong key got {answer}"));
        }
    }
    Ok(())
}

fn measure(row: &Row, contender: &Contender, options: &Options) -> Result<Round, String> {
    let load = Load::start(&contender.target, row.pace)?;
    let began = Instant::now();
    let calls = contender.target.keys.len() as u64 * WARM_UP_CALLS;
    while began.elapsed() < WARM_UP || (load.count().done < calls && began.elapsed() < WARM_UP_MAX) {
        sleep(Duration::from_millis(20));
    }
    let snapshot = || {
        let processes: Vec<Used> = contender.running.processes.iter().map(|process| Used::by_tree(process.1)).collect();
        let busy = [cpu::busy(&options.gateway_core), cpu::busy(&options.load_core)];
        (load.count(), Instant::now(), processes, Used::by(std::process::id()), busy)
    };
    load.record();
    let before = snapshot();
    sleep(options.window);
    let after = snapshot();
    let latencies = load.stop();
    let elapsed = after.1.duration_since(before.1).as_secs_f64();
    let names = contender.running.processes.iter().map(|process| process.0);
    let times = after.2.iter().zip(&before.2).map(|(after, before)| after.since(before));
    let cpu: Vec<(&'static str, f64)> = names.zip(times).collect();
    let ours = [cpu.iter().map(|process| process.1).sum::<f64>(), after.3.since(&before.3)];
    let foreign = (0..2).map(|core| (after.4[core] - before.4[core] - ours[core]) / elapsed).fold(0.0, f64::max);
    let percentile = |share: f64| {
        let place = (latencies.len() as f64 * share) as usize;
        latencies.get(place).map(|nanoseconds| *nanoseconds as f64 / 1e3)
    };
    let count = Count {
        offered: after.0.offered - before.0.offered,
        done: after.0.done - before.0.done,
        limited: after.0.limited - before.0.limited,
        refused: after.0.refused - before.0.refused,
        failed: after.0.failed - before.0.failed,
    };
    let latency = match row.pace {
        Pace::Closed => None,
        Pace::Open(_) => percentile(0.5).zip(percentile(0.99)),
    };
    Ok(Round { count, elapsed, cpu, load_cpu: ours[1], foreign, latency })
}

impl Round {
    /// Microseconds of processor time for each request.
    pub fn cost(&self) -> f64 {
        self.cpu.iter().map(|process| process.1).sum::<f64>() * 1e6 / self.count.done.max(1) as f64
    }

    /// The share of the core that the gateway used.
    pub fn busy(&self) -> f64 {
        self.cpu.iter().map(|process| process.1).sum::<f64>() / self.elapsed
    }

    /// Requests in a second.
    pub fn rate(&self) -> f64 {
        self.count.done as f64 / self.elapsed
    }

    /// Whether each request was answered with 200.
    pub fn is_clean(&self) -> bool {
        self.count.done > 0 && self.count.limited == 0 && self.count.refused == 0 && self.count.failed == 0
    }

    /// For the file of all rounds.
    pub fn to_json(&self) -> Value {
        let cpu: serde_json::Map<String, Value> =
            self.cpu.iter().map(|(name, seconds)| ((*name).to_owned(), json!(round(*seconds, 6)))).collect();
        json!({
            "requests": self.count.done, "limited": self.count.limited, "refused": self.count.refused, "failed": self.count.failed,
            "seconds": round(self.elapsed, 3), "cpu_seconds": cpu, "cpu_us_per_request": round(self.cost(), 3),
            "load_cpu_us_per_request": round(self.load_cpu * 1e6 / self.count.done.max(1) as f64, 3),
            "requests_per_second": self.rate().round(), "foreign": round(self.foreign, 3),
            "latency_us_p50": self.latency.map(|latency| round(latency.0, 1)),
            "latency_us_p99": self.latency.map(|latency| round(latency.1, 1)),
        })
    }
}

fn round(number: f64, places: i32) -> f64 {
    let scale = 10_f64.powi(places);
    (number * scale).round() / scale
}

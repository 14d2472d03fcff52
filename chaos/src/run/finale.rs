//! How a run ends: the cluster comes back, says that all its nodes are one, serves every key, lets its full rate through; then every
//! object, the audit log and the access logs are read, and everything is stopped. It only asks and writes down.

use super::{
    cluster::Cluster,
    operator::within,
    workload::{Shared, attempt::Asker, client::Line, credentials::Shown, rules},
};
use crate::{
    history::{Audited, FullRate, Logged, What},
    sim::random::Random,
};
use ::tests::client::{Client, get};
use anyhow::Context as _;
use rustix::process::Signal;
use serde_json::Value;
use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// How long a cluster of which nothing is broken any more may take to be one again.
const CONVERGED: Duration = Duration::from_secs(60);
/// The full rate is measured for so long, after its burst is spent.
const MEASURED: Duration = Duration::from_secs(5);
/// What of it must come through in any case: nodes, clients and everything else share a machine.
const LEAST_PERCENT: u64 = 70;
/// A node that is told to stop drains, and ends.
const STOPPED: Duration = Duration::from_secs(40);

/// Waits until all members are ready and have applied the same; whether they did. Says why not if that takes too long.
pub fn converge(cluster: &mut Cluster, broken: &mut Vec<String>) -> bool {
    let began = Instant::now();
    let mut last = None;
    loop {
        let members = cluster.members();
        let state = |place: &usize| {
            let status = cluster.status(*place)?;
            let applied = status["raft"]["applied"].as_u64()?;
            let whole = status["ready"] == true && status["raft"]["enforced"].as_u64() == Some(applied);
            whole.then_some(applied)
        };
        let states: Vec<Option<u64>> = members.iter().map(state).collect();
        let one = states.first().copied().flatten();
        // Twice in a row: nothing is on its way any more.
        if one.is_some() && states.iter().all(|state| *state == one) && last == one {
            cluster.recorder.record(What::Settled { nodes: cluster.ids(&members) });
            return true;
        }
        last = if states.iter().all(|state| *state == one) { one } else { None };
        if began.elapsed() > CONVERGED {
            let statuses: Vec<String> = members
                .iter()
                .map(|place| format!("{:?}", cluster.status(*place).map(|status| status.to_string())))
                .collect();
            broken.push(format!("the cluster does not come back within {CONVERGED:?}: {}", statuses.join("\n")));
            return false;
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Asks for everything that the final state is judged by.
pub fn ask_everything(cluster: &Cluster, shared: &Shared, seed: u64) {
    let mut random = Random::new(seed ^ 0xf1a1);
    let mut asker: Asker<'_> = shared.asker(u32::MAX - 1, cluster, &mut random);
    asker.read_everything();
    measure_full_rate(cluster, shared);
    // Last, for the last answer to a key is what counts.
    show_every_key(cluster, shared);
}

/// Every credential there ever was, to every node, on a route without limits.
fn show_every_key(cluster: &Cluster, shared: &Shared) {
    let all: Vec<Shown> = shared.credentials.keys().iter().flat_map(|key| key.secrets.clone()).collect();
    std::thread::scope(|scope| {
        for place in cluster.members() {
            let all = &all;
            scope.spawn(move || {
                let Some(mut line) = Line::new(shared, place) else { return };
                for shown in all {
                    line.ask(rules::FREE, shown);
                }
            });
        }
    });
}

/// More demand on one bucket, from all nodes, than it admits.
fn measure_full_rate(cluster: &Cluster, shared: &Shared) {
    let (limit, route, rate) = rules::HOT;
    let Some(shown) = shared.credentials.keys().first().and_then(|key| key.secrets.last().cloned()) else { return };
    let (stop, asked, admitted) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let measured = std::thread::scope(|scope| {
        for place in cluster.members() {
            for _ in 0..2 {
                let (shown, stop, asked, admitted) = (&shown, &stop, &asked, &admitted);
                scope.spawn(move || {
                    let Some(mut line) = Line::new(shared, place) else { return };
                    while !stop.load(Ordering::Relaxed) {
                        let answer = line.ask(route, shown);
                        asked.fetch_add(1, Ordering::Relaxed);
                        match answer {
                            Some(200) => drop(admitted.fetch_add(1, Ordering::Relaxed)),
                            _ => std::thread::sleep(Duration::from_millis(10)),
                        }
                    }
                });
            }
        }
        // The burst.
        std::thread::sleep(Duration::from_secs(3));
        let now = || (admitted.load(Ordering::Relaxed), asked.load(Ordering::Relaxed));
        let (before, began) = (now(), Instant::now());
        std::thread::sleep(MEASURED);
        let after = now();
        let measured = (after.0 - before.0, after.1 - before.1, began.elapsed());
        stop.store(true, Ordering::Relaxed);
        measured
    });
    let (admitted, asked, took) = measured;
    let measured_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    // A machine that is too busy to ask for more gets no more.
    let least = (rate * measured_us / 1_000_000).min(asked) * LEAST_PERCENT / 100;
    shared.recorder.record(What::FullRate(FullRate { limit: limit.into(), measured_us, admitted, least }));
}

/// Reads the audit log, and keeps what nodes say of themselves.
pub fn read_audit(cluster: &Cluster, void: &mut Vec<String>) {
    let patience = Duration::from_secs(20);
    let mut entries = None;
    for place in cluster.members() {
        let read = cluster.operator.ask(place, patience, async |channel| {
            let request = within(proto::admin::ReadAuditRequest::default(), patience);
            let mut stream = proto::admin::audit_client::AuditClient::new(channel).read(request).await?.into_inner();
            let mut entries = Vec::new();
            while let Some(entry) = stream.message().await? {
                entries.push(entry);
            }
            Ok(tonic::Response::new(entries))
        });
        if let Ok(read) = read {
            entries = Some(read);
            break;
        }
    }
    let Some(entries) = entries else {
        void.push("the audit log could not be read".to_owned());
        return;
    };
    for entry in entries {
        cluster.recorder.record(What::Audited(Audited {
            number: entry.number,
            action: entry.action,
            subject: entry.subject,
            revision: entry.to_revision,
        }));
    }
}

/// Keeps metrics and status of every node beside its logs.
pub fn keep_metrics(cluster: &Cluster) {
    for place in cluster.members() {
        let (Some(seat), Ok(node)) = (cluster.seats.0.get(place), cluster.node(place)) else { continue };
        for page in ["metrics", "status"] {
            let client = Client::new(&seat.ops).patience(Duration::from_secs(5));
            if let Ok(answer) = client.try_send(get(&format!("/{page}"))) {
                let _ = fs::write(node.folder.join(format!("{page}.txt")), &answer.body);
            }
        }
    }
}

/// SIGTERM for all nodes: what they have to write they write.
pub fn stop(cluster: &mut Cluster, broken: &mut Vec<String>) {
    for node in &mut cluster.nodes {
        if let Some(process) = &mut node.process {
            process.signal(Signal::TERM);
        }
    }
    let began = Instant::now();
    for node in &mut cluster.nodes {
        let Some(process) = &mut node.process else { continue };
        while process.ended().is_none() && began.elapsed() < STOPPED {
            std::thread::sleep(Duration::from_millis(50));
        }
        match process.ended() {
            Some(status) if status.success() => {}
            Some(status) => {
                broken.push(format!("{} was told to stop and ended with {status}\n{}", node.name, process.tail()))
            }
            None => {
                broken.push(format!("{} was told to stop and goes on after {STOPPED:?}\n{}", node.name, process.tail()))
            }
        }
        node.process = None;
    }
}

/// Reads the access logs of all nodes that there were.
///
/// # Errors
/// A file cannot be read.
pub fn read_access_logs(written: &Path, shared: &Shared) -> anyhow::Result<()> {
    for folder in fs::read_dir(written)? {
        let file = folder?.path().join("access.log");
        let Ok(opened) = fs::File::open(&file) else { continue };
        for line in BufReader::new(opened).split(b'\n') {
            let line = line.with_context(|| file.display().to_string())?;
            // The last line of a node that was killed may be half a line.
            if let Some(logged) = serde_json::from_slice(&line).ok().and_then(|line| logged(&line)) {
                shared.count(if logged.allowed { "logged as allowed" } else { "logged as refused" });
                shared.recorder.record(What::Logged(logged));
            }
        }
    }
    Ok(())
}

fn logged(line: &Value) -> Option<Logged> {
    let text = |field: &str| line[field].as_str().map(Into::into);
    Some(Logged {
        node: line["node"].as_u64()?,
        request: line["request_id"].as_str()?.parse().ok()?,
        allowed: line["decision"] == "allowed",
        key_id: text("key_id"),
        limit: text("limit"),
        tick_us: line["tick"].as_u64()?,
        wall_ms: milliseconds(line["time"].as_str()?)?,
        decide_us: line["duration_us"]["decide"].as_u64()?,
    })
}

/// Milliseconds since the epoch of `2026-11-22T18:00:00.123Z`.
fn milliseconds(time: &str) -> Option<u64> {
    let number = |from: usize, to: usize| time.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    // Days from civil (Howard Hinnant): years begin in March, so that the leap day is the last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let seconds = ((days * 24 + number(11, 13)?) * 60 + number(14, 16)?) * 60 + number(17, 19)?;
    u64::try_from(seconds * 1_000 + number(20, 23)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_an_access_log_is_read() {
        assert_eq!(milliseconds("1970-01-01T00:00:00.000Z"), Some(0));
        assert_eq!(milliseconds("2024-02-29T12:34:56.789Z"), Some(1_709_210_096_789));
        assert_eq!(milliseconds("2026-11-22T18:00:00.123Z"), Some(1_795_370_400_123));
        assert_eq!(milliseconds("none"), None);
    }
}

//! What follows from the samples: the last third of them compared with the first, by tolerances that are stated here.

use super::{
    bad::KINDS_COUNT,
    sample::{Node, Sample},
};
use crate::run::{Conclusion, report::say};

/// Fewer samples than this say nothing.
const SAMPLES_MIN: usize = 9;
/// Memory may grow by so much: a tenth, and what allocators keep.
const MEMORY_GROWTH: (f64, u64) = (1.10, 24 << 20);
/// Open files: bad clients come and go, and so do files of the log.
const FILES_GROWTH: (f64, u64) = (1.05, 64);
/// The log and the state on disk: between two snapshots they grow, by a segment and a snapshot at most.
const DISK_GROWTH: (f64, u64) = (1.25, 160 << 20);
/// The median of the latency, and of its 99th percentile: other things run on this machine.
const P50_GROWTH: (f64, u64) = (1.5, 1_000);
const P99_GROWTH: (f64, u64) = (2.0, 20_000);
/// Of a million answers, how many may be others than 200.
const OTHER_ANSWERS_PPM: u64 = 1_000;

/// What the run was to be.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Good connections.
    pub connections: usize,
    /// Bad clients at a time.
    pub bad: usize,
}

/// What is said about one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it is about.
    pub name: &'static str,
    /// How it went.
    pub judged: Judged,
    /// The figures.
    pub why: String,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// As it should.
    Held,
    /// Not as it should.
    Violated,
    /// It was not put to the test.
    Vacuous,
}

/// Judges a run.
#[must_use]
pub fn judge(samples: &[Sample], expected: &Expected) -> Vec<Verdict> {
    if samples.len() < SAMPLES_MIN {
        let why = format!("{} samples: at least {SAMPLES_MIN} are needed", samples.len());
        return vec![Verdict { name: "samples", judged: Judged::Vacuous, why }];
    }
    let thirds = (
        samples.get(..samples.len() / 3).unwrap_or_default(),
        samples.get(samples.len() / 3 * 2..).unwrap_or_default(),
    );
    vec![
        of_nodes("memory", thirds, MEMORY_GROWTH, median, |node| node.resident_bytes),
        of_nodes("files", thirds, FILES_GROWTH, highest, |node| node.files),
        of_nodes("log on disk", thirds, DISK_GROWTH, highest, |node| node.log_bytes),
        of_nodes("state on disk", thirds, DISK_GROWTH, highest, |node| node.state_bytes),
        cut(samples),
        flat("latency p50 (us)", thirds, P50_GROWTH, |sample| u64::from(sample.p50_us)),
        flat("latency p99 (us)", thirds, P99_GROWTH, |sample| u64::from(sample.p99_us)),
        answers(samples),
        connections(samples, expected),
        bad_clients(samples, expected),
    ]
}

/// Says them all, and what follows.
#[must_use]
pub fn print(verdicts: &[Verdict]) -> Conclusion {
    for Verdict { name, judged, why } in verdicts {
        let judged = match judged {
            Judged::Held => "held    ",
            Judged::Violated => "VIOLATED",
            Judged::Vacuous => "vacuous ",
        };
        say(&format!("  {judged} {name}: {why}"));
    }
    let any = |wanted| verdicts.iter().any(|verdict| verdict.judged == wanted);
    match () {
        () if any(Judged::Violated) => Conclusion::Violated,
        () if any(Judged::Vacuous) => Conclusion::Void,
        () => Conclusion::Green,
    }
}

type Thirds<'a> = (&'a [Sample], &'a [Sample]);

fn verdict(name: &'static str, held: bool, why: String) -> Verdict {
    Verdict { name, judged: if held { Judged::Held } else { Judged::Violated }, why }
}

fn allowed(before: u64, (factor, more): (f64, u64)) -> u64 {
    (before as f64 * factor) as u64 + more
}

fn of_nodes(
    name: &'static str,
    (first, last): Thirds<'_>,
    growth: (f64, u64),
    of: fn(Vec<u64>) -> u64,
    figure: fn(&Node) -> u64,
) -> Verdict {
    let nodes = first.iter().chain(last).map(|sample| sample.nodes.len()).min().unwrap_or(0);
    let figures = |samples: &[Sample], node: usize| {
        of(samples.iter().filter_map(|sample| sample.nodes.get(node)).map(figure).collect())
    };
    let all: Vec<(u64, u64)> = (0..nodes).map(|node| (figures(first, node), figures(last, node))).collect();
    // A node of which nothing is seen has ended.
    let held =
        nodes > 0 && all.iter().all(|(before, after)| *before > 0 && *after > 0 && *after <= allowed(*before, growth));
    let listed: Vec<String> = all.iter().map(|(before, after)| format!("{before} -> {after}")).collect();
    verdict(name, held, format!("{} (at most x {} + {})", listed.join(", "), growth.0, growth.1))
}

fn flat(name: &'static str, (first, last): Thirds<'_>, growth: (f64, u64), figure: fn(&Sample) -> u64) -> Verdict {
    let figures = |samples: &[Sample]| median(samples.iter().map(figure).collect());
    let (before, after) = (figures(first), figures(last));
    let held = before > 0 && after > 0 && after <= allowed(before, growth);
    verdict(name, held, format!("{before} -> {after} (at most x {} + {})", growth.0, growth.1))
}

/// That the log stays small says something only if it was cut.
fn cut(samples: &[Sample]) -> Verdict {
    let snapshots =
        |sample: Option<&Sample>| sample.map_or(0, |sample| sample.nodes.iter().map(|node| node.snapshot).sum::<u64>());
    let (before, after) = (snapshots(samples.first()), snapshots(samples.last()));
    let judged = if after > before { Judged::Held } else { Judged::Vacuous };
    Verdict { name: "snapshots", judged, why: format!("entries in them, of all nodes: {before} -> {after}") }
}

fn answers(samples: &[Sample]) -> Verdict {
    let count = |is: fn(u16) -> bool| {
        samples
            .iter()
            .flat_map(|sample| &sample.answers)
            .filter(|(status, _)| is(**status))
            .map(|(_, count)| count)
            .sum::<u64>()
    };
    let (good, other) = (count(|status| status == 200), count(|status| status != 200));
    let mut by_status = std::collections::BTreeMap::new();
    for (status, count) in samples.iter().flat_map(|sample| &sample.answers) {
        *by_status.entry(*status).or_insert(0_u64) += count;
    }
    let held = good > 0 && other * 1_000_000 <= good * OTHER_ANSWERS_PPM;
    verdict(
        "answers",
        held,
        format!("by status, 0 for lost: {by_status:?} (at most {OTHER_ANSWERS_PPM} in a million others than 200)"),
    )
}

fn connections(samples: &[Sample], expected: &Expected) -> Verdict {
    let fewest = samples.iter().map(|sample| sample.open).min().unwrap_or(0);
    let broken: u64 = samples.iter().map(|sample| sample.broken).sum();
    // At any moment a few are being made again.
    let held = fewest * 100 >= expected.connections * 99;
    verdict("connections", held, format!("{fewest} of {} at the least; {broken} broke", expected.connections))
}

fn bad_clients(samples: &[Sample], expected: &Expected) -> Verdict {
    let Some(last) = samples.last().filter(|_| expected.bad > 0) else {
        return Verdict { name: "bad clients", judged: Judged::Vacuous, why: "there were none".to_owned() };
    };
    let endless: u64 = last.bad.values().map(|ended| ended.endless).sum();
    let ended: Vec<String> = last.bad.iter().map(|(kind, ended)| format!("{kind} {}", ended.ended)).collect();
    let seen = last.bad.values().filter(|ended| ended.ended > 0).count();
    let judged = match () {
        () if endless > 0 => Judged::Violated,
        () if seen < KINDS_COUNT => Judged::Vacuous,
        () => Judged::Held,
    };
    Verdict { name: "bad clients", judged, why: format!("ended: {}; endless: {endless}", ended.join(", ")) }
}

fn median(mut figures: Vec<u64>) -> u64 {
    figures.sort_unstable();
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

fn highest(figures: Vec<u64>) -> u64 {
    figures.into_iter().max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::bad::Ended;

    const EXPECTED: Expected = Expected { connections: 100, bad: 8 };

    fn flat_run() -> Vec<Sample> {
        let bad = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|kind| (kind, Ended { ended: 3, endless: 0 }));
        let node =
            Node { resident_bytes: 200 << 20, files: 500, log_bytes: 90 << 20, state_bytes: 9 << 20, snapshot: 0 };
        let sample = |number: u64| Sample {
            at_ms: number * 1_000,
            nodes: vec![Node { snapshot: number, ..node }; 3],
            p50_us: 900 + number as u32 % 7,
            p99_us: 4_000,
            answers: [(200, 10_000), (503, 1)].into(),
            open: 100,
            broken: 0,
            bad: bad.into(),
        };
        (0..30).map(sample).collect()
    }

    fn violated(samples: &[Sample]) -> Vec<&'static str> {
        let all = judge(samples, &EXPECTED);
        all.into_iter().filter(|verdict| verdict.judged == Judged::Violated).map(|verdict| verdict.name).collect()
    }

    #[test]
    fn what_is_flat_holds() {
        assert!(judge(&flat_run(), &EXPECTED).iter().all(|verdict| verdict.judged == Judged::Held));
    }

    /// Each thing that can go wrong, and the verdict that says so.
    #[test]
    fn what_grows_is_seen() {
        type Spoil = fn(u64, &mut Sample);
        let wrong: [(&str, Spoil); 9] = [
            ("memory", |number, sample| sample.nodes[1].resident_bytes += number * (4 << 20)),
            ("files", |number, sample| sample.nodes[2].files += number * 10),
            ("log on disk", |number, sample| sample.nodes[0].log_bytes += number * (12 << 20)),
            ("state on disk", |number, sample| sample.nodes[0].state_bytes += number * (12 << 20)),
            ("latency p50 (us)", |number, sample| sample.p50_us += number as u32 * 100),
            ("latency p99 (us)", |number, sample| sample.p99_us += number as u32 * 2_000),
            ("answers", |_, sample| sample.answers.extend([(503, 12)])),
            ("connections", |number, sample| sample.open -= usize::from(number == 20) * 3),
            ("bad clients", |number, sample| sample.bad.values_mut().for_each(|bad| bad.endless = number / 29)),
        ];
        for (name, spoil) in wrong {
            let mut samples = flat_run();
            (0..).zip(&mut samples).for_each(|(number, sample)| spoil(number, sample));
            assert_eq!(violated(&samples), [name]);
        }
    }

    #[test]
    fn what_was_not_put_to_the_test_did_not_hold() {
        let mut samples = flat_run();
        samples.iter_mut().for_each(|sample| sample.nodes.iter_mut().for_each(|node| node.snapshot = 7));
        assert_eq!(print(&judge(&samples, &EXPECTED)), Conclusion::Void);
        assert_eq!(print(&judge(&samples[..8], &EXPECTED)), Conclusion::Void);
        samples.iter_mut().for_each(|sample| sample.nodes[0].resident_bytes = 0);
        assert_eq!(print(&judge(&samples, &EXPECTED)), Conclusion::Violated, "a node has ended");
    }
}

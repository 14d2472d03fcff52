//! An endless history of writes in which each is known from its number alone, so that whoever looks at the files afterwards knows what
//! they must hold without having been told.

use std::collections::BTreeMap;

use bytes::Bytes;
use storage::{Checkpoint, Log, LogSettings, Record};

/// Segments are small, so that they come and go.
pub fn settings() -> LogSettings {
    LogSettings { segment_bytes: 64 << 10, cache_bytes: 32 << 10, ..LogSettings::default() }
}

/// What one step of the history does to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Append(Record),
    Vote(Bytes),
    Committed(Bytes),
    Truncate(u64),
    Purge(u64, Bytes),
}

/// The log after the first so many steps. Contents are represented by the step that wrote them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    pub steps: u64,
    entries: BTreeMap<u64, u64>,
    vote: Option<u64>,
    committed: Option<u64>,
    purged: Option<(u64, u64)>,
}

impl History {
    pub fn after(steps: u64) -> History {
        let mut history = History::default();
        while history.steps < steps {
            history.advance();
        }
        history
    }

    /// Takes the next step.
    pub fn advance(&mut self) -> Step {
        self.steps += 1;
        let step = self.steps;
        let chance = mixed(step);
        let purged = self.purged.map_or(0, |(index, _)| index);
        let next = self.entries.keys().last().map_or(purged + 1, |last| last + 1);
        let kind = chance % 100;
        match kind {
            0..4 => {
                self.vote = Some(step);
                Step::Vote(body(step))
            }
            4..8 => {
                self.committed = Some(step);
                Step::Committed(body(step))
            }
            8..10 if next > purged + 6 => {
                let from = next - chance / 100 % 5;
                self.entries.split_off(&from);
                Step::Truncate(from)
            }
            10..12 if next > purged + 700 => {
                let to = next - 200 - chance / 100 % 300;
                self.entries = self.entries.split_off(&(to + 1));
                self.purged = Some((to, step));
                Step::Purge(to, body(step))
            }
            _ => {
                self.entries.insert(next, step);
                Step::Append(Record { index: next, bytes: body(step) })
            }
        }
    }

    /// The log as found, every byte of it compared.
    pub fn found(log: &Log) -> History {
        let writer = |bytes: Bytes| {
            let step = u64::from_le_bytes(*bytes.first_chunk().expect("a body begins with its step"));
            assert_eq!(bytes, body(step), "step {step}");
            step
        };
        let entries = log.read(0..u64::MAX, usize::MAX).expect("entries");
        History {
            steps: 0,
            entries: entries.into_iter().map(|record| (record.index, writer(record.bytes))).collect(),
            vote: log.vote().map(writer),
            committed: log.committed().map(writer),
            purged: log.purged().map(|(index, marker)| (index, writer(marker))),
        }
    }

    /// The number of steps after which the log looks as found, among those that include everything acknowledged and could have begun.
    pub fn matching(found: &History, acknowledged: u64) -> Option<u64> {
        let mut history = History::after(acknowledged);
        for _ in 0..=BEGUN_MAX {
            if (History { steps: 0, ..history.clone() }) == *found {
                return Some(history.steps);
            }
            history.advance();
        }
        None
    }
}

/// More steps than the writer ever has in flight.
const BEGUN_MAX: u64 = 5000;

fn body(step: u64) -> Bytes {
    let chance = mixed(!step);
    let length = if chance.is_multiple_of(50) { chance % 20_000 } else { chance % 700 };
    let mut bytes = step.to_le_bytes().to_vec();
    bytes.extend((0..length).map(|at| (step + at) as u8));
    Bytes::from(bytes)
}

/// What one commit changes.
pub type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;
/// The records after some commits.
pub type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// What this commit changes in the checkpoint.
pub fn changes(commit: u64) -> Changes {
    let count = if commit.is_multiple_of(40) { 2000 } else { 1 + mixed(commit) % 60 };
    (0..count)
        .map(|at| {
            let chance = mixed(commit << 16 | at);
            let key = format!("record {}", chance % 3000).into_bytes();
            let length = if chance.is_multiple_of(97) { chance % 90_000 } else { chance / 7 % 400 };
            let value = (!chance.is_multiple_of(5)).then(|| (0..length).map(|at| (chance + at) as u8).collect());
            (key, value)
        })
        .collect()
}

/// The records after so many commits.
pub fn records_after(commits: u64) -> Records {
    let mut records = Records::new();
    for commit in 1..=commits {
        for (key, value) in changes(commit) {
            match value {
                Some(value) => records.insert(key, value),
                None => records.remove(&key),
            };
        }
    }
    records
}

/// The number of commits in a checkpoint, every record of it compared; `Err` with the reason if it was thrown away.
pub fn commits_found(checkpoint: &mut Checkpoint) -> Result<u64, String> {
    let loaded = checkpoint.load(|loading| {
        let commits = u64::from_le_bytes(*loading.marker.first_chunk().expect("a marker is a number"));
        (commits, loading.records.by_ref().collect::<Records>())
    });
    let Some((commits, records)) = loaded.expect("the checkpoint's folder") else {
        return Err(checkpoint.discarded().unwrap_or("there is none").to_owned());
    };
    assert!(records == records_after(commits), "the checkpoint is not what commit {commits} left");
    Ok(commits)
}

fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

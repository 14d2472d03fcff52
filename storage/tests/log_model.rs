//! The log against a model, on a disk whose power goes off at any step and keeps any part of what was not synced.
//!
//! After each cut the log must hold what the model held after some prefix of the operations, and that prefix must include everything
//! acknowledged. What it then holds must survive the next cut.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use storage::fs::{Loss, Simulated};
use storage::{Error, Log, LogSettings, Record};

#[derive(Debug, Clone)]
enum Op {
    Append {
        entries: u8,
        size: u16,
    },
    Vote(u8),
    Committed(u8),
    /// How far from the end.
    Truncate(u8),
    /// How far from the last purge.
    Purge(u8),
    /// Waits for everything.
    Sync,
    Reopen,
    /// The power goes off this many steps from now.
    Cut(u8),
    /// The disk fills up after this many more bytes.
    Full(u16),
    /// The first sync this many steps from now fails.
    SyncFails(u8),
    /// Comes up again, possibly losing power this many steps into that.
    Recover {
        seed: u64,
        again: Option<u8>,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (1u8..6, prop_oneof![0u16..40, 0u16..2000]).prop_map(|(entries, size)| Op::Append { entries, size }),
        2 => any::<u8>().prop_map(Op::Vote),
        2 => any::<u8>().prop_map(Op::Committed),
        2 => (0u8..8).prop_map(Op::Truncate),
        2 => (1u8..30).prop_map(Op::Purge),
        2 => Just(Op::Sync),
        1 => Just(Op::Reopen),
        2 => (0u8..12).prop_map(Op::Cut),
        1 => (0u16..3000).prop_map(Op::Full),
        1 => (0u8..12).prop_map(Op::SyncFails),
        2 => (any::<u64>(), proptest::option::weighted(0.3, 0u8..8)).prop_map(|(seed, again)| Op::Recover { seed, again }),
    ]
}

#[derive(Clone, Default, PartialEq)]
struct Model {
    entries: BTreeMap<u64, Bytes>,
    vote: Option<Bytes>,
    committed: Option<Bytes>,
    purged: Option<(u64, Bytes)>,
}

impl Model {
    fn of(log: &Log) -> Result<Model, Error> {
        let entries = log.read(0..u64::MAX, usize::MAX)?;
        assert_eq!(entries.first().map(|record| record.index), log.first_index());
        assert_eq!(entries.last().map(|record| record.index), log.last_index());
        Ok(Model {
            entries: entries.into_iter().map(|record| (record.index, record.bytes)).collect(),
            vote: log.vote(),
            committed: log.committed(),
            purged: log.purged(),
        })
    }

    fn next(&self) -> u64 {
        let purged = self.purged.as_ref().map(|(index, _)| index + 1).unwrap_or(1);
        self.entries.keys().last().map_or(purged, |last| last + 1)
    }
}

type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let serials = self
            .entries
            .iter()
            .map(|(index, bytes)| (index, bytes.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))));
        f.debug_map().entries(serials).finish()?;
        write!(f, " vote {:?} committed {:?} purged {:?}", self.vote, self.committed, self.purged)
    }
}

struct Bench {
    disk: Simulated,
    log: Option<Log>,
    /// What the model held after each operation since the last start.
    states: Vec<Model>,
    acknowledged: Arc<AtomicUsize>,
    /// Makes every body different.
    serial: u64,
    /// Whether the power may be off: only then may anything be refused.
    cut: Arc<AtomicBool>,
    refused: Arc<Mutex<Option<Error>>>,
}

const DIR: &str = "/log";

fn open(disk: &Simulated) -> Result<Log, Error> {
    let settings = LogSettings {
        segment_bytes: 1500,
        cache_bytes: 300,
        queue_bytes: 4000,
        idle_mark: Duration::from_millis(1),
        reserve_bytes: 800,
    };
    Log::open_on(Arc::new(disk.clone()), Path::new(DIR), settings)
}

impl Bench {
    fn new() -> Bench {
        let disk = Simulated::new();
        let log = Some(open(&disk).unwrap());
        Bench {
            disk,
            log,
            states: vec![Model::default()],
            acknowledged: Arc::default(),
            serial: 0,
            cut: Arc::default(),
            refused: Arc::default(),
        }
    }

    /// Notes the model's next state; the result acknowledges it.
    fn step(&mut self, change: impl FnOnce(&mut Model)) -> Done {
        let mut model = self.states.last().unwrap().clone();
        change(&mut model);
        self.states.push(model);
        let (acknowledged, number) = (self.acknowledged.clone(), self.states.len() - 1);
        let (cut, refused) = (self.cut.clone(), self.refused.clone());
        Box::new(move |result| match result {
            Ok(()) => drop(acknowledged.fetch_max(number, Ordering::SeqCst)),
            Err(_) if cut.load(Ordering::SeqCst) => {}
            Err(error) => *refused.lock().unwrap() = Some(error),
        })
    }

    fn cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst)
    }

    fn body(&mut self, size: usize) -> Bytes {
        self.serial += 1;
        let mut bytes = self.serial.to_le_bytes().to_vec();
        bytes.resize(8 + size, self.serial as u8);
        Bytes::from(bytes)
    }

    fn run(&mut self, op: Op) {
        let log = self.log.clone().unwrap();
        let now = self.states.last().unwrap().clone();
        match op {
            Op::Append { entries, size } => {
                let records: Vec<Record> = (0..u64::from(entries))
                    .map(|at| Record { index: now.next() + at, bytes: self.body(usize::from(size)) })
                    .collect();
                // A cut may keep a part of them: each is a state of its own.
                for Record { index, bytes } in &records[..records.len() - 1] {
                    drop(self.step(|model| drop(model.entries.insert(*index, bytes.clone()))));
                }
                let Record { index, bytes } = records[records.len() - 1].clone();
                let done = self.step(|model| drop(model.entries.insert(index, bytes)));
                log.append(records, done);
            }
            Op::Vote(vote) => {
                let vote = Bytes::from(vec![vote; 3]);
                let done = self.step(|model| model.vote = Some(vote.clone()));
                log.save_vote(vote, done);
            }
            Op::Committed(committed) => {
                let committed = Bytes::from(vec![committed; 3]);
                drop(self.step(|model| model.committed = Some(committed.clone())));
                log.save_committed(committed);
            }
            Op::Truncate(back) => {
                let first = now.purged.as_ref().map_or(1, |(index, _)| index + 1);
                let from = now.next().saturating_sub(u64::from(back)).max(first);
                let done = self.step(|model| drop(model.entries.split_off(&from)));
                log.truncate_from(from, done);
            }
            Op::Purge(on) => {
                let to = now.purged.as_ref().map_or(0, |(index, _)| *index) + u64::from(on);
                let marker = Bytes::from(format!("purged {to}"));
                let done = self.step(|model| {
                    model.entries = model.entries.split_off(&(to + 1));
                    model.purged = Some((to, marker.clone()));
                });
                log.purge_to(to, marker, done);
            }
            Op::Sync => {
                let synced = log.sync();
                if !self.cut() {
                    synced.unwrap();
                }
            }
            Op::Reopen if !self.cut() => {
                self.log = None;
                drop(log);
                self.log = Some(open(&self.disk).unwrap());
            }
            Op::Cut(_) | Op::Full(_) | Op::SyncFails(_) if !self.cut() => {
                // From here on refusals are expected, not before.
                log.sync().unwrap();
                self.cut.store(true, Ordering::SeqCst);
                match op {
                    Op::Full(bytes) => self.disk.limit(Some(self.disk.used() + u64::from(bytes))),
                    Op::SyncFails(steps) => self.disk.sync_fails_after(u64::from(steps)),
                    Op::Cut(steps) => self.disk.power_ends_after(u64::from(steps)),
                    _ => {}
                }
            }
            Op::Recover { seed, again } => return self.recover(log, seed, again),
            Op::Reopen | Op::Cut(_) | Op::Full(_) | Op::SyncFails(_) => {}
        }
        self.look();
    }

    /// What can be read is always the latest.
    fn look(&self) {
        let log = self.log.as_ref().unwrap();
        if log.failure().is_none() {
            match Model::of(log) {
                Ok(found) if log.failure().is_none() => assert_eq!(&found, self.states.last().unwrap()),
                Ok(_) => {}
                Err(error) => assert!(self.cut(), "{error}"),
            }
        }
    }

    fn recover(&mut self, log: Log, seed: u64, again: Option<u8>) {
        self.log = None;
        let loss = match seed % 8 {
            0 => Loss::All,
            1 => Loss::Nothing,
            _ => Loss::Some(seed),
        };
        self.cut.store(true, Ordering::SeqCst);
        // Before the log can finish its queue in peace.
        self.disk = if matches!(seed % 8, 2 | 3) { self.disk.killed() } else { self.disk.power_cut(loss) };
        self.disk.limit(None);
        drop(log);
        if let Some(steps) = again {
            self.disk.power_ends_after(u64::from(steps));
            drop(open(&self.disk));
            self.disk = self.disk.power_cut(Loss::Some(seed / 8));
        }
        let log = open(&self.disk).unwrap_or_else(|error| panic!("{error}"));
        let found = Model::of(&log).unwrap();
        assert!(self.refused.lock().unwrap().is_none(), "refused with the power on: {:?}", self.refused);
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        let prefix = self.states.iter().enumerate().skip(acknowledged).find(|(_, state)| **state == found);
        assert!(
            prefix.is_some(),
            "acknowledged: {acknowledged} of {}, {:?}\nfound: {found:?}",
            self.states.len() - 1,
            self.states[acknowledged]
        );
        self.states = vec![found];
        self.acknowledged = Arc::default();
        self.cut = Arc::default();
        self.log = Some(log);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_acknowledged_is_lost(ops in proptest::collection::vec(op(), 1..80), seed: u64) {
        let mut bench = Bench::new();
        for op in ops {
            bench.run(op);
        }
        bench.run(Op::Recover { seed, again: None });
        bench.run(Op::Append { entries: 3, size: 10 });
        bench.run(Op::Sync);
    }
}

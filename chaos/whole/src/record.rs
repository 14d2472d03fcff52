//! What happened in a run, as a history and, with the true times that only a simulation has, for the exact checks.

use super::{clock::now_us, seat::lock};
use chaos::history::{Event, What};
use machine::{View, limit::Rule};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::{Arc, Mutex},
};

/// A request that was admitted.
#[derive(Clone, Debug)]
pub struct Admit {
    /// The instant that counts, in true time.
    pub real_us: u64,
    /// When it started.
    pub started_us: u64,
    /// Who admitted it.
    pub node: u64,
    /// The index of the View that decided.
    pub view: u64,
    /// The key that it showed.
    pub key: usize,
    /// The limits that it took a token of.
    pub limits: &'static [&'static str],
}

/// A write that was acknowledged, and enforced everywhere.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    /// The number of its log entry.
    pub index: u64,
    /// When the client heard of it.
    pub at_us: u64,
    /// Whether the fence waited for every member.
    pub fenced: bool,
}

/// A read that everybody may rely on.
#[derive(Clone, Debug)]
pub struct Read {
    /// When it was asked for.
    pub began_us: u64,
    /// The number of the last log entry that it saw.
    pub index: u64,
}

macro_rules! figures {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Figures of a run.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Figures {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Figures {
            /// All of them, with their names.
            #[must_use]
            pub fn numbers(&self) -> [(&'static str, u64); [$(stringify!($name)),+].len()] {
                [$((stringify!($name), self.$name)),+]
            }

            /// Adds to the one with this name, if there is one.
            pub fn add(&mut self, name: &str, number: u64) {
                match name {
                    $(stringify!($name) => self.$name += number,)+
                    _ => {}
                }
            }
        }
    };
}

figures! {
    /// Requests admitted.
    admitted,
    /// Requests refused: by a limit, or because the key is not good.
    refused,
    /// Requests that found no authority.
    isolated,
    /// Requests that waited in vain for an allowance.
    unavailable,
    /// Admin operations that were done.
    writes,
    /// Those that were refused or failed.
    not_done,
    /// Those of which nobody knows.
    unknown,
    /// Reads answered.
    reads,
    /// Faults of every kind that took hold.
    faults,
    /// Links of a node or between two sides cut.
    cuts,
    /// Cut in one direction.
    one_way_cuts,
    /// Links made slow.
    slow_links,
    /// Processes killed.
    kills,
    /// Machines without power.
    power_cuts,
    /// Disks that were to die in the middle of a write.
    dying_disks,
    /// Disks that were to fail a sync.
    failing_syncs,
    /// Disks made slow.
    slow_disks,
    /// Clocks made to run too fast or slow.
    wrong_rates,
    /// Dates made wrong.
    wrong_dates,
    /// Leadership sent elsewhere.
    transfers,
    /// Votes taken and given, and members told to leave.
    standings,
    /// Nodes told to join.
    joins,
    /// Processes told to stop.
    stops,
    /// Processes that ended by themselves: after a failed write or sync, or because they were told to.
    ended,
    /// Tasks that died of a bug of openraft in a process that was ending: see `run`.
    asked_too_late,
    /// States of a node compared with those of others at the same index.
    states,
    /// The last log entry.
    entries,
    /// Leaders that there were.
    leaders,
    /// Starts of nodes.
    starts,
    /// Snapshots, of every node.
    snapshots,
}

/// What is known of a run.
#[derive(Debug, Default)]
pub struct Known {
    /// The history.
    pub events: Vec<Event>,
    /// In the order of decision.
    pub admits: Vec<Admit>,
    /// See there.
    pub acknowledged: Vec<Acknowledged>,
    /// See there.
    pub reads: Vec<Read>,
    /// What each limit was, from the first on.
    pub rules: BTreeMap<&'static str, Vec<Rule>>,
    /// The newest state that any node had.
    pub latest: Arc<View>,
    /// What each request id came to.
    pub outcomes: BTreeMap<u128, String>,
    /// Which state some node had at an index.
    digests: BTreeMap<u64, (u64, u64)>,
    /// What each node showed last: many looks are at the same state.
    shown: BTreeMap<u64, (Arc<View>, u64)>,
    /// Who led in which term.
    leaders: BTreeSet<(u64, u64)>,
    /// See there.
    pub figures: Figures,
    /// What was seen at once to be wrong.
    pub violations: Vec<String>,
    hash: u64,
}

/// What is known of a run, as it becomes known.
#[derive(Debug, Default)]
pub struct Record(Mutex<Known>);

impl Record {
    /// Notes an event, now.
    pub fn event(&self, what: What) {
        let event = Event { at_us: now_us(), what };
        let mut known = lock(&self.0);
        known.trace(format_args!("{event:?}"));
        known.events.push(event);
    }

    /// Notes something else.
    pub fn note<T>(&self, note: impl FnOnce(&mut Known) -> T) -> T {
        note(&mut lock(&self.0))
    }

    /// Notes that something is wrong.
    pub fn violated(&self, what: String) {
        let mut known = lock(&self.0);
        known.trace(format_args!("{what}"));
        known.violations.push(format!("at {}.{:06} s: {what}", now_us() / 1_000_000, now_us() % 1_000_000));
    }

    /// Notes a state that a node has, and returns its digest.
    pub fn state(&self, node: u64, view: &Arc<View>) -> u64 {
        let shown = self.note(|known| {
            known.shown.get(&node).filter(|(shown, _)| Arc::ptr_eq(shown, view)).map(|(_, digest)| *digest)
        });
        if let Some(digest) = shown {
            return digest;
        }
        let mut hash = Fnv::default();
        // The hasher takes everything.
        let _: Result<(), _> = write!(hash, "{:?} {:?}", view.at, view.registry);
        let mut known = lock(&self.0);
        known.figures.entries = known.figures.entries.max(view.index);
        known.shown.insert(node, (Arc::clone(view), hash.0));
        if known.latest.index < view.index {
            known.latest = Arc::clone(view);
        }
        known.figures.states += 1;
        let (first, digest) = *known.digests.entry(view.index).or_insert((node, hash.0));
        drop(known);
        if digest != hash.0 {
            self.violated(format!("nodes {first} and {node} have different states at index {}", view.index));
        }
        hash.0
    }

    /// Notes who leads. A term can have several leaders, one after another: votes are ordered by term and node, and what a leader is
    /// known by is both. One that comes back says that it leads until it hears of the next.
    pub fn leads(&self, node: u64, term: u64) {
        let mut known = lock(&self.0);
        known.leaders.insert((term, node));
        known.figures.leaders = known.leaders.len() as u64;
    }

    /// Everything, at the end.
    pub fn take(&self) -> Known {
        std::mem::take(&mut lock(&self.0))
    }
}

impl Known {
    /// Whether something was seen to be wrong.
    pub fn is_broken(&self) -> bool {
        !self.violations.is_empty()
    }

    /// Notes something that is no event, so that two runs in which it differs are not the same.
    pub fn traced(&mut self, what: &impl std::fmt::Debug) {
        self.trace(format_args!("{what:?}"));
    }

    fn trace(&mut self, what: std::fmt::Arguments<'_>) {
        let mut hash = Fnv(self.hash ^ now_us());
        let _: Result<(), _> = hash.write_fmt(what);
        self.hash = hash.0;
    }

    /// A number that two runs share only if the same happened in them.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

/// FNV-1a: the same everywhere and always.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl std::fmt::Write for Fnv {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

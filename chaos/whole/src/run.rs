//! One seed, from its plan to its verdict. A run depends on its seed alone, if the process has asked nobody else for chance: `main` sees
//! to that.

use super::{Mutation, record::Figures, world::World};
use std::{
    panic::PanicHookInfo,
    sync::atomic::{AtomicBool, Ordering},
};

static PANICKED: AtomicBool = AtomicBool::new(false);
static ASKED_TOO_LATE: AtomicBool = AtomicBool::new(false);

/// openraft's `join_core_task` does not bear to be dropped while it waits for a core that is ending: whoever asks next, while the process is
/// on its way out, panics with the first of these, and whoever asks after that with the second, because the lock was held. Such a task dies
/// as it would a moment later with the process; nothing is acknowledged by it.
const KNOWN_PANICS: [&str; 2] = ["RaftCore should have already quit", "PoisonError"];
/// Where they come from.
const KNOWN_PLACE: &str = "raft_inner.rs";

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// What there was.
    pub(crate) figures: Figures,
    /// Two runs with the same number were the same.
    pub(crate) trace: u64,
    /// What does not hold.
    pub(crate) violations: Vec<String>,
}

/// Runs one seed. Once in a process: a second run would not begin as the first did.
pub(crate) fn run(seed: u64, mutation: Option<Mutation>) -> Outcome {
    // A task that panics is otherwise a task that ends.
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let is_known = panic.location().is_some_and(|place| place.file().ends_with(KNOWN_PLACE))
            && said(panic).is_some_and(|said| KNOWN_PANICS.iter().any(|known| said.contains(known)));
        if is_known {
            ASKED_TOO_LATE.store(true, Ordering::Relaxed);
            return;
        }
        PANICKED.store(true, Ordering::Relaxed);
        before(panic);
    }));
    let known = World::new(seed, mutation).run();
    Outcome { trace: known.hash(), figures: known.figures, violations: known.violations }
}

fn said<'a>(panic: &'a PanicHookInfo<'_>) -> Option<&'a str> {
    let payload = panic.payload();
    payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

/// The line that repeats a run.
pub(crate) fn repeat_line(seed: u64, mutation: Option<Mutation>) -> String {
    let mutation = mutation.map(|mutation| format!(" --mutation {}", mutation.as_str())).unwrap_or_default();
    format!("cargo run -p whole --features simulation -- --seed {seed}{mutation}")
}

/// Whether anything has panicked.
pub(crate) fn panicked() -> bool {
    PANICKED.load(Ordering::Relaxed)
}

/// Whether a task has died of the one panic that is known, since this was last asked.
pub(crate) fn asked_too_late() -> bool {
    ASKED_TOO_LATE.swap(false, Ordering::Relaxed)
}

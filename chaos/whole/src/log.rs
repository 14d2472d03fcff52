//! What nodes say, on standard error, for whoever watches a run. Ours, because the usual one keeps hash maps, whose keys come from the same
//! chance as everything in a run. Not enough: some seeds are still other runs while they are watched.

#![allow(clippy::print_stderr, reason = "a log goes there")]

use std::fmt::{self, Write as _};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Who is heard, and up to which level: the first of these whose name the target begins with.
struct Log(Vec<(String, Level)>);

/// Begins to write down what is said, by `RUST_LOG`: `raft=debug,openraft=info`, or a level alone for all.
pub(super) fn begin(targets: &str) {
    let wanted = targets.split(',').filter_map(|part| match part.split_once('=') {
        Some((target, level)) => Some((target.to_owned(), level.parse().ok()?)),
        None => Some((String::new(), part.parse().ok()?)),
    });
    // There is no other.
    let _ = tracing::subscriber::set_global_default(Log(wanted.collect()));
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let wanted = self.0.iter().find(|(target, _)| metadata.target().starts_with(target.as_str()));
        wanted.is_some_and(|(_, level)| metadata.is_event() && metadata.level() <= level)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut said = Said(String::new());
        event.record(&mut said);
        let metadata = event.metadata();
        eprintln!("{} {} {}:{}", super::clock::now_us(), metadata.level(), metadata.target(), said.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Said(String);

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A string takes everything.
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

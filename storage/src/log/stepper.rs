//! The log's writer without a thread of its own. When to write is the caller's; what, and in which order, is as ever.

use super::writer::{End, Writer};
use std::fmt;

/// Writes what is queued when it is told to. Dropped, it writes nothing any more, and whoever waits hears that the log is closed: as a
/// crash does, not as closing does.
pub struct Stepper {
    writer: Writer,
    _end: End,
}

impl Stepper {
    pub(super) fn new(writer: Writer) -> Stepper {
        let end = writer.end();
        Stepper { writer, _end: end }
    }

    /// Writes a batch of what is queued, makes it durable and completes it. `false`: nothing is queued.
    pub fn step(&mut self) -> bool {
        self.writer.step()
    }

    /// What a log does that has been idle for [`LogSettings::idle_mark`](super::LogSettings::idle_mark).
    pub fn rest(&mut self) {
        self.writer.rest();
    }
}

impl fmt::Debug for Stepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stepper").finish_non_exhaustive()
    }
}

//! Waiting for a condition, with a deadline that is generous because nobody waits for it unless something is broken.

use std::{
    fmt::Display,
    thread::sleep,
    time::{Duration, Instant},
};

/// Long enough for a busy machine with two cores.
const DEADLINE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(25);

/// Asks until the answer is `Ok`, for a minute at most; then panics with the last reason.
pub fn eventually<T, E: Display>(what: &str, condition: impl FnMut() -> Result<T, E>) -> T {
    eventually_within(DEADLINE, what, condition)
}

/// Asks until the answer is `Ok` or the deadline has passed; then panics with the last reason.
pub fn eventually_within<T, E: Display>(
    deadline: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<T, E>,
) -> T {
    let started = Instant::now();
    loop {
        match condition() {
            Ok(value) => return value,
            Err(reason) if started.elapsed() > deadline => panic!("{what}: not within {deadline:?}: {reason}"),
            Err(_) => sleep(PAUSE),
        }
    }
}

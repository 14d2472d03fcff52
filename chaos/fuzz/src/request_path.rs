//! Paths of requests: refused, or brought into the one form that they have.

/// A path.
pub fn run(bytes: &[u8]) {
    quorate::fuzzing::path(bytes);
}

/// What paths are made of.
pub const WORDS: &[&str] =
    &["/", "//", "/.", "/..", "%2e", "%2F", "%5c", "%25", "%40", "%c3%bc", "%c0%af", "%3B", ";", "+", "|", "\\", "@"];

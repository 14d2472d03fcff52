//! How the program ends: the exit codes that scripts rely on, and the failure that every verb may answer with. How a
//! failure looks is `render.rs`'s business; how a gRPC status becomes one is `client/problem.rs`'s.

use proto::admin::Place;

/// Exit codes. Public: scripts rely on the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Refused by the cluster, or by this machine (a file that cannot be written).
    Refused = 1,
    /// Wrong usage: the command line, the context or a local input file.
    Usage = 2,
    /// No leader, no node reachable, or no answer in time. A write may have happened if the failure says so.
    Unreachable = 3,
    /// The operator may not do this.
    NotPermitted = 4,
    /// The thing has changed meanwhile, or exists already.
    Conflict = 5,
}

/// Why a command did not do its work.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// What the process exits with.
    pub exit: Exit,
    /// A stable name, for scripts.
    pub kind: String,
    /// What happened.
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
    /// Places in an input file.
    pub places: Vec<Place>,
}

impl Failure {
    /// A failure without places.
    pub fn new(exit: Exit, kind: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { exit, kind: kind.to_owned(), message: message.into(), hint: hint.into(), places: Vec::new() }
    }

    /// The command line, the context or an input file is wrong.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message, hint)
    }

    /// This machine could not do its part.
    pub fn local(message: impl Into<String>) -> Self {
        Self::new(Exit::Refused, "local", message, "")
    }

    /// An answer that breaks the protocol.
    pub fn malformed(what: &str) -> Self {
        Self::new(
            Exit::Refused,
            "malformed_answer",
            format!("the cluster's answer has no {what}"),
            "compare the versions of quoratectl and of the nodes (quoratectl cluster status)",
        )
    }

    /// Adds to the hint.
    pub fn with_hint(mut self, hint: &str) -> Self {
        if !self.hint.is_empty() {
            self.hint.push_str("; ");
        }
        self.hint.push_str(hint);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_public() {
        let all = [Exit::Refused, Exit::Usage, Exit::Unreachable, Exit::NotPermitted, Exit::Conflict];
        assert_eq!(all.map(|exit| exit as u8), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn hints_add_up() {
        let failure = Failure::local("x").with_hint("a").with_hint("b");
        assert_eq!(failure.hint, "a; b");
    }
}

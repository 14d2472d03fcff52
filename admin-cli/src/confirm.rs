//! Asks before something is destroyed: only where a person can answer. A script has said what it wants by calling, and
//! is not asked.

use crate::exit::Failure;
use crate::render::Printer;
use std::io::{self, BufRead, IsTerminal};

/// Whether a person would be asked.
pub fn asks(yes: bool) -> bool {
    !yes && io::stdin().is_terminal()
}

/// Goes on, or fails if a person was asked and did not say yes.
pub fn confirm(yes: bool, printer: &Printer, question: &str) -> Result<(), Failure> {
    if !asks(yes) {
        return Ok(());
    }
    printer.question(question);
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && agrees(&answer) {
        return Ok(());
    }
    Err(Failure::usage("not confirmed; nothing was done", "--yes goes on without asking"))
}

fn agrees(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        assert!(agrees("y\n") && agrees(" YES \n"));
        assert!(!agrees("\n") && !agrees("yeah\n") && !agrees(""));
    }
}

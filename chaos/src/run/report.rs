//! What a run says: as it goes, and at its end.

use super::{
    Conclusion, Options,
    schedule::{Ended, Went},
};
use crate::invariant::Verdict;
use std::{collections::BTreeMap, io::Write as _, path::Path};

/// A line for who watches.
pub fn say(line: &str) {
    // Nobody watches any more: the run goes on.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// What is known at the end of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// Every fault of the plan.
    pub faults: Vec<Went>,
    /// Things that happened, by what they are: requests by answer, arrivals, admin operations.
    pub counts: BTreeMap<String, u64>,
    /// What each invariant says.
    pub verdicts: Vec<(&'static str, Verdict)>,
    /// What the harness itself saw that must not be: a node that ended by itself, a cluster that does not come back.
    pub broken: Vec<String>,
    /// Why nothing follows from the run, beside faults that did not take hold.
    pub void: Vec<String>,
}

impl Report {
    /// What follows.
    #[must_use]
    pub fn conclusion(&self) -> Conclusion {
        let violated = |(_, verdict): &(_, Verdict)| matches!(verdict, Verdict::Violated { .. });
        if !self.broken.is_empty() || self.verdicts.iter().any(violated) {
            return Conclusion::Violated;
        }
        let unknown = |fault: &Went| matches!(fault.ended, Ended::Unknown(_));
        let undecided = |(_, verdict): &(_, Verdict)| matches!(verdict, Verdict::Undecided { .. });
        let void = !self.void.is_empty() || self.faults.iter().any(unknown) || self.verdicts.iter().any(undecided);
        if void { Conclusion::Void } else { Conclusion::Green }
    }

    /// Says it all.
    pub fn print(&self, options: &Options, folder: &Path) {
        say("\nfaults: kind, how many took hold, were skipped, are not known to have taken hold");
        let mut kinds: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
        for fault in &self.faults {
            let [took, skipped, unknown] = kinds.entry(fault.kind).or_default();
            match &fault.ended {
                Ended::Healed(_) => *took += 1,
                Ended::Skipped(_) => *skipped += 1,
                Ended::Unknown(_) => *unknown += 1,
            }
        }
        for (kind, [took, skipped, unknown]) in kinds {
            say(&format!("  {kind:<20} {took:>4} {skipped:>4} {unknown:>4}"));
        }
        for fault in &self.faults {
            match &fault.ended {
                Ended::Healed(_) => {}
                Ended::Skipped(why) => say(&format!("  SKIPPED {}: {why}", fault.kind)),
                Ended::Unknown(why) => say(&format!("  UNKNOWN {} ({}): {why}", fault.kind, fault.about)),
            }
        }
        say("what happened");
        for (what, count) in &self.counts {
            say(&format!("  {what:<48} {count:>9}"));
        }
        say("invariants");
        for (name, verdict) in &self.verdicts {
            say(&format!("  {name:<34} {verdict}"));
        }
        for broken in &self.broken {
            say(&format!("  BROKEN: {broken}"));
        }
        for void in &self.void {
            say(&format!("  VOID: {void}"));
        }
        let conclusion = self.conclusion();
        say(&format!("{conclusion:?}; repeat it with\n  {}", options.repeat_line()));
        if conclusion != Conclusion::Green || options.keep {
            say(&format!("history and logs: {}", folder.display()));
        }
    }
}

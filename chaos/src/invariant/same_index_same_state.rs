//! Two nodes that have applied the same log index are in the same state: the same digest, whatever restarts, snapshots and
//! checkpoints lie between.

use super::{Invariant, Verdict};
use crate::history::{Event, History, What};
use std::collections::{BTreeMap, BTreeSet};

/// See above.
#[derive(Clone, Copy, Debug)]
pub struct SameIndexSameState;

/// What was said of an index first, and who has said the same: nodes with the number of their process.
struct Said<'a> {
    digest: &'a str,
    first: (u64, u64),
    by: BTreeSet<(u64, u64)>,
}

impl Invariant for SameIndexSameState {
    fn name(&self) -> &'static str {
        "same_index_same_state"
    }

    fn check(&self, history: &History) -> Verdict {
        let mut said: BTreeMap<u64, Said<'_>> = BTreeMap::new();
        for Event { at_us, what } in &history.events {
            let What::Observed(observed) = what else { continue };
            let who = (observed.node, observed.incarnation);
            for (index, digest) in &observed.digests {
                let known = said.entry(*index).or_insert_with(|| Said { digest, first: who, by: BTreeSet::new() });
                if known.digest != digest {
                    let why = format!(
                        "at index {index} node {} (its process {}) is in the state {digest}, and node {} (its process {}) \
                         in {}",
                        who.0, who.1, known.first.0, known.first.1, known.digest
                    );
                    return Verdict::Violated { at_us: *at_us, why };
                }
                known.by.insert(who);
            }
        }
        match said.values().map(|said| said.by.len().saturating_sub(1) as u64).sum() {
            0 => Verdict::Vacuous { why: "no two nodes said the digest of one index".to_owned() },
            checked => Verdict::Held { checked },
        }
    }
}

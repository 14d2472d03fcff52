//! The audit log: one entry for each change. Bounded; the oldest go first, so export what must be kept.

use crate::{
    cap::{AUDIT_SUBJECT_BYTES_MAX, PUSHED_OUT_MAX},
    command::{Actor, Proposal},
    state::State,
    time::Wall,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Who changed what, when, from which revision to which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When, by the cluster's clock.
    pub at: Wall,
    /// Who.
    pub actor: Actor,
    /// What was done, as `noun.verb`: `key.revoke`.
    pub action: String,
    /// To what: the name or id; for a resource file, what it touched, bounded.
    pub subject: String,
    /// The revision that the subject had, if it existed.
    pub from_revision: Option<u64>,
    /// The cluster revision that the change made.
    pub to_revision: u64,
}

impl State {
    /// Writes an entry for the change that made the present revision.
    pub(crate) fn record_change(&mut self, proposal: &Proposal, subject: &str, from_revision: Option<u64>) {
        let entry = AuditEntry {
            at: self.at.wall,
            actor: proposal.actor.clone(),
            action: proposal.command.action().to_owned(),
            subject: shorten(subject),
            from_revision,
            to_revision: self.registry.revision,
        };
        self.audit.insert(self.next_audit, Arc::new(entry));
        self.next_audit = self.next_audit.saturating_add(1);
        self.trim_audit(PUSHED_OUT_MAX);
    }

    /// Drops at most `most` entries, oldest first, while there are more than the settings allow.
    pub(crate) fn trim_audit(&mut self, most: usize) {
        let kept = usize::try_from(self.registry.settings.audit_entries_max).unwrap_or(usize::MAX);
        for _ in 0..self.audit.len().saturating_sub(kept).min(most) {
            let Some(oldest) = self.audit.get_min().map(|(number, _)| *number) else { return };
            self.audit.remove(&oldest);
        }
    }
}

/// The text, or as much of it as an entry holds.
fn shorten(subject: &str) -> String {
    const ELLIPSIS: char = '…';
    if subject.len() <= AUDIT_SUBJECT_BYTES_MAX {
        return subject.to_owned();
    }
    let mut shortened = String::new();
    for letter in subject.chars() {
        if shortened.len() + letter.len_utf8() + ELLIPSIS.len_utf8() > AUDIT_SUBJECT_BYTES_MAX {
            break;
        }
        shortened.push(letter);
    }
    shortened.push(ELLIPSIS);
    shortened
}

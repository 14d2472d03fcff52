//! Settings of the whole cluster.

use crate::{
    apply::Effect,
    cap::AUDIT_ENTRIES_MAX,
    command::Precondition,
    outcome::{Field, Noun, Refusal},
    registry::Registry,
};
use serde::{Deserialize, Serialize};

/// Settings that hold for every node and change at run time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// How many nodes vote: 1, 3, 5 or 7. More nodes stay learners.
    pub voters: u8,
    /// A learner that was not heard of for longer is removed; in milliseconds, 0 for never.
    pub learner_expiry_ms: u64,
    /// How many audit entries are kept; at most [`crate::cap::AUDIT_ENTRIES_MAX`].
    pub audit_entries_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { voters: 3, learner_expiry_ms: 24 * 60 * 60 * 1000, audit_entries_max: 100_000 }
    }
}

impl Settings {
    /// Refuses values that a cluster cannot run with.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        if !matches!(self.voters, 1 | 3 | 5 | 7) {
            return Err(Refusal::OutOfBounds { what: Field::Voters, max: 7 });
        }
        if self.audit_entries_max > AUDIT_ENTRIES_MAX {
            return Err(Refusal::OutOfBounds { what: Field::AuditEntries, max: AUDIT_ENTRIES_MAX });
        }
        Ok(())
    }
}

/// Changes the settings, as a whole.
pub(crate) fn put(registry: &mut Registry, settings: &Settings, precondition: Precondition) -> Result<Effect, Refusal> {
    settings.check()?;
    let from = registry.settings_revision;
    precondition.check(Noun::Settings, from)?;
    if registry.settings == *settings {
        return Ok(Effect::Unchanged);
    }
    registry.settings = settings.clone();
    registry.settings_revision = registry.revision;
    Ok(Effect::changed("settings", Some(from)))
}

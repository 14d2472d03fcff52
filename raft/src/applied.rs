//! The state after one log entry, with where it stands: what apply hands to everybody else. Immutable and shared; the
//! state in it shares its maps with the one that apply goes on with, so it costs a few pointers.

use crate::codec::form::{LogIdForm, PlaceForm, StoredMembershipForm};
use machine::{State, View};
use std::sync::Arc;

/// The state after one log entry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Applied {
    /// The state.
    pub(crate) state: State,
    /// The last entry in it.
    pub(crate) last: Option<LogIdForm>,
    /// Raft's membership as of then.
    pub(crate) membership: StoredMembershipForm,
    /// What readers get.
    pub(crate) view: Arc<View>,
    /// The last entry in it that did more than to serve allowances, which no worker need be told of.
    pub(crate) news: u64,
}

impl Applied {
    pub(crate) fn new(state: State, last: Option<LogIdForm>, membership: StoredMembershipForm) -> Self {
        let index = last.map_or(0, |last| last.index);
        let view = Arc::new(View { index, at: state.at, registry: state.registry.clone() });
        Self { state, last, membership, view, news: index }
    }

    /// The number of the last entry; 0 before the first.
    pub(crate) fn index(&self) -> u64 {
        self.view.index
    }

    /// Where it stands, for a marker or a head.
    pub(crate) fn place(&self) -> PlaceForm {
        PlaceForm {
            last: self.last,
            membership: self.membership.clone(),
            cluster: self.state.registry.cluster,
            revision: self.state.registry.revision,
            at: self.state.at,
        }
    }
}

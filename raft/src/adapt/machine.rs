//! openraft's state machine over [`machine::State`]: applies entries in order, answers their proposers, and hands out
//! the state after each batch. The disk is the vault's.

use crate::{
    applied::Applied,
    codec::form::{LogIdForm, MembershipForm, StoredMembershipForm},
    digest::Marks,
    mutation::{self, Mutation},
    types::{Done, Payload, SnapshotMeta, StoredMembership, TypeConfig},
    vault::{Held, Offered, Vault},
};
use futures::{Stream, TryStreamExt};
use machine::{Effects, State, View};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot,
    storage::{EntryResponder, RaftStateMachine},
};
use std::{io, sync::Arc};
use tokio::sync::watch;

/// Entries applied before readers see them, when many come at once.
const BATCH_ENTRIES_MAX: usize = 256;

/// The state, and everybody who watches it.
pub(crate) struct Machine {
    state: State,
    last: Option<LogIdForm>,
    membership: StoredMembershipForm,
    news: u64,
    applied: watch::Sender<Arc<Applied>>,
    views: watch::Sender<Arc<View>>,
    vault: Arc<Vault>,
    marks: Arc<Marks>,
    /// For [`Mutation::SkipsAnEntryAfterAStart`].
    began_at: u64,
    has_skipped: bool,
}

impl Machine {
    pub(crate) fn new(applied: &Applied, vault: Arc<Vault>, marks: Arc<Marks>) -> Self {
        Self {
            state: applied.state.clone(),
            last: applied.last,
            membership: applied.membership.clone(),
            news: applied.index(),
            applied: watch::Sender::new(Arc::new(applied.clone())),
            views: watch::Sender::new(Arc::clone(&applied.view)),
            vault,
            marks,
            began_at: applied.index(),
            has_skipped: false,
        }
    }

    /// The state after each batch, and what readers get of it; some are skipped when they come fast.
    pub(crate) fn watch(&self) -> (watch::Receiver<Arc<Applied>>, watch::Receiver<Arc<View>>) {
        (self.applied.subscribe(), self.views.subscribe())
    }

    fn apply_one(&mut self, id: LogIdForm, payload: &Payload) -> Done {
        let entry = match payload {
            EntryPayload::Normal(gathered) => &gathered.0,
            EntryPayload::Blank => {
                self.news = id.index;
                return Done::default();
            }
            EntryPayload::Membership(membership) => {
                self.news = id.index;
                let membership = MembershipForm::from(membership);
                self.membership = StoredMembershipForm { set_by: Some(id), membership };
                return Done::default();
            }
        };
        if !entry.proposals.is_empty() {
            self.news = id.index;
        }
        if mutation::is(Mutation::SkipsAnEntryAfterAStart) && self.began_at > 100 && !self.has_skipped {
            self.has_skipped = true;
            return Done::default();
        }
        let Effects { applied, answers } = self.state.apply_entry(id.index, entry);
        if mutation::is(Mutation::ForgetsRequests) {
            self.state.requests = imbl::OrdMap::new();
        }
        if mutation::is(Mutation::AppliesInItsOwnWay) {
            self.state.at.wall.0 += u64::from(std::process::id() % 7);
        }
        Done { outcomes: applied.into_iter().map(|applied| (applied.outcome, applied.index)).collect(), answers }
    }

    fn hand_out(&self) {
        let applied = Applied::new(self.state.clone(), self.last, self.membership.clone());
        let applied = Applied { news: self.news, ..applied };
        let view = Arc::clone(&applied.view);
        self.applied.send_replace(Arc::new(applied));
        self.views.send_replace(view);
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Offered;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<crate::types::LogId>, StoredMembership)> {
        Ok((self.last.map(Into::into), self.membership.clone().try_into()?))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut answers = Vec::new();
        let mut applied = 0_usize;
        loop {
            let next = entries.try_next().await?;
            let is_last = next.is_none();
            if let Some((entry, responder)) = next {
                let id = LogIdForm::from(&entry.log_id);
                let done = self.apply_one(id, &entry.payload);
                self.last = Some(id);
                self.marks.note(id.index, &self.state);
                applied += 1;
                if let Some(responder) = responder {
                    answers.push((responder, done));
                }
            }
            if applied > 0 && (is_last || applied >= BATCH_ENTRIES_MAX) {
                // Readers before proposers: who was answered finds its own write.
                self.hand_out();
                for (responder, done) in answers.drain(..) {
                    responder.send(done);
                }
                applied = 0;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let applied = Arc::clone(&self.applied.borrow());
        Builder { applied, vault: Arc::clone(&self.vault) }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, offered: Offered) -> io::Result<()> {
        let last = meta.last_log_id.as_ref().map(LogIdForm::from);
        let vault = Arc::clone(&self.vault);
        let applied = vault.blocking().run(move || vault.install(offered, last)).await??;
        self.state = applied.state;
        self.last = applied.last;
        self.membership = applied.membership;
        self.news = self.last.map_or(0, |last| last.index);
        self.marks.note(self.news, &self.state);
        self.hand_out();
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<openraft::type_config::alias::SnapshotOf<TypeConfig, Offered>>> {
        self.vault.newest().map(offer).transpose()
    }
}

/// Writes a snapshot of the state as it was when it was asked for.
pub(crate) struct Builder {
    applied: Arc<Applied>,
    vault: Arc<Vault>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Offered;

    async fn build_snapshot(&mut self) -> io::Result<openraft::type_config::alias::SnapshotOf<TypeConfig, Offered>> {
        let (applied, vault) = (Arc::clone(&self.applied), Arc::clone(&self.vault));
        let held = vault.blocking().run(move || vault.deliver(&applied)).await??;
        offer(held)
    }
}

fn offer(held: Held) -> io::Result<openraft::type_config::alias::SnapshotOf<TypeConfig, Offered>> {
    Ok(Snapshot { meta: held.place.clone().try_into()?, snapshot: Offered::Held(held) })
}

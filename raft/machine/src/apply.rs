//! What happens to a proposal, in order: the time, the request id, who asks, and the command itself, one line each. What
//! a command does lives in the file of its noun.

use crate::{
    allowance::{Acquire, Answer},
    authority,
    bucket::Terms,
    cap::{BUCKETS_MAX, CROWDED_SWEEP_PER_ENTRY_MAX, PUSHED_OUT_MAX, SWEEP_PER_ENTRY_MAX},
    cluster,
    command::{Command, Proposal},
    consumer,
    key::{
        KeyOrigin,
        lifecycle::{self as key, NewKey},
    },
    member::{self, NodeId},
    operator,
    outcome::{Applied, Outcome, Refusal},
    registry::Registry,
    resource, settings,
    state::State,
    time::At,
    token,
};

/// What a command did to the registry.
pub(crate) enum Effect {
    /// There was nothing to change.
    Unchanged,
    /// It changed something.
    Changed {
        /// What, for the audit log.
        subject: String,
        /// The revision that it had before.
        from_revision: Option<u64>,
        /// The number of a member that it made.
        admitted: Option<NodeId>,
    },
}

impl Effect {
    pub(crate) fn changed(subject: impl ToString, from_revision: Option<u64>) -> Self {
        Self::Changed { subject: subject.to_string(), from_revision, admitted: None }
    }
}

/// Applies one proposal; see [`State::apply`].
pub(crate) fn apply(state: &mut State, index: u64, at: At, proposal: &Proposal) -> Applied {
    state.at = state.at.max(at);
    if let Some(remembered) = state.requests.get(&proposal.request) {
        return Applied { outcome: remembered.outcome.clone(), index: remembered.index };
    }
    let outcome = match admit(state, proposal) {
        Ok(()) => {
            let outcome = carry_out(state, proposal).unwrap_or_else(Outcome::Refused);
            state.remember(index, proposal, &outcome);
            outcome
        }
        Err(refusal) => Outcome::Refused(refusal),
    };
    Applied { outcome, index }
}

/// Whether the proposal may be looked at: its request id is in time, there is a cluster, and who asks may ask.
fn admit(state: &mut State, proposal: &Proposal) -> Result<(), Refusal> {
    state.check_request(proposal)?;
    match (&proposal.command, state.registry.is_initialized()) {
        (Command::Initialize(_), true) => return Err(Refusal::AlreadyInitialized),
        (Command::Initialize(_), false) | (_, true) => {}
        (_, false) => return Err(Refusal::NotInitialized),
    }
    operator::permit(&state.registry, state.at.wall, &proposal.actor, &proposal.command)
}

/// Carries out a command on a copy of the registry, which takes the place of the old one only if all went well: all or
/// nothing, whatever the command does. The copy shares everything that is not touched.
fn carry_out(state: &mut State, proposal: &Proposal) -> Result<Outcome, Refusal> {
    let mut registry = state.registry.clone();
    registry.revision = registry.revision.saturating_add(1);
    match change(&mut registry, state.at, &proposal.command)? {
        Effect::Unchanged => Ok(Outcome::Done { revision: state.registry.revision }),
        Effect::Changed { subject, from_revision, admitted } => {
            let revision = registry.revision;
            state.registry = registry;
            if let Command::ForgetMember { id } = &proposal.command {
                state.buckets.forget(*id);
            }
            state.record_change(proposal, &subject, from_revision);
            Ok(match admitted {
                Some(id) => Outcome::Admitted { revision, id },
                None => Outcome::Done { revision },
            })
        }
    }
}

/// One line a command. `registry.revision` is already the one that the change makes.
fn change(registry: &mut Registry, at: At, command: &Command) -> Result<Effect, Refusal> {
    let now = at.wall;
    match command {
        Command::Initialize(first) => cluster::initialize(registry, now, first),
        Command::ApplyResources { validated_against, changes } => {
            resource::apply(registry, at.tick, *validated_against, changes)
        }
        Command::SetConsumerEnabled { name, enabled, precondition } => {
            consumer::set_enabled(registry, name, *enabled, *precondition)
        }
        Command::CreateKey { id, consumer, label, scopes, hash, not_after } => {
            let (id, hash, not_after, origin) = (*id, *hash, *not_after, KeyOrigin::Issued);
            key::create(
                registry,
                now,
                &NewKey { id, consumer, label: label.as_deref(), scopes, hash, not_after, origin },
            )
        }
        Command::RotateKey { id, hash, overlap_ms, not_after, precondition } => {
            key::rotate(registry, now, *id, *hash, *overlap_ms, *not_after, *precondition)
        }
        Command::RevokeKey { id, precondition } => key::revoke(registry, now, *id, *precondition),
        Command::ImportKeys(keys) => key::import(registry, now, keys),
        Command::CreateOperator { name, role, certificate_sha256, not_after } => {
            operator::create(registry, now, name, *role, *certificate_sha256, *not_after)
        }
        Command::RevokeOperator { name } => operator::revoke(registry, now, name),
        Command::CreateJoinToken { hash, not_after } => token::create(registry, now, *hash, *not_after),
        Command::AdmitMember { token_hash, spec, learner } => member::admit(registry, now, token_hash, spec, *learner),
        Command::UpdateMember { id, spec } => member::update(registry, *id, spec),
        Command::SetStanding { id, standing } => member::set_standing(registry, *id, *standing),
        Command::ForgetMember { id } => member::forget(registry, *id),
        Command::PutSettings { settings, precondition } => settings::put(registry, settings, *precondition),
        Command::RaiseFeatureLevel { level } => cluster::raise_feature_level(registry, *level),
        Command::AddAuthority { sha256, certificate_pem } => authority::add(registry, now, *sha256, certificate_pem),
        Command::SetAuthorityPhase { sha256, phase } => authority::set_phase(registry, sha256, *phase),
        Command::RemoveAuthority { sha256 } => authority::remove(registry, sha256),
        Command::Nothing => Ok(Effect::Unchanged),
    }
}

impl State {
    /// Serves the requests of nodes. What a node that is no member any more, or is on its way out, reports is booked:
    /// it only gives back. It gets nothing.
    pub(crate) fn acquire(&mut self, terms: Terms, acquires: &[Acquire]) -> Vec<Answer> {
        if acquires.is_empty() {
            return Vec::new();
        }
        let (at, registry) = (self.at, &self.registry);
        let may_have = |acquire: &Acquire| {
            acquire.wants.is_empty() || registry.members.get(&acquire.node).is_some_and(|member| !member.is_leaving())
        };
        if acquires.iter().all(may_have) {
            return self.buckets.acquire(&registry.limits, at, terms, acquires);
        }
        let only_reports = |acquire: &Acquire| Acquire { wants: Vec::new(), ..acquire.clone() };
        let acquires: Vec<Acquire> = acquires
            .iter()
            .map(|acquire| if may_have(acquire) { acquire.clone() } else { only_reports(acquire) })
            .collect();
        self.buckets.acquire(&registry.limits, at, terms, &acquires)
    }

    /// Goes on looking for buckets that are full again: at more than this entry has made, so that they cannot pile up.
    fn sweep_buckets(&mut self, buckets_before: usize) {
        let count = self.buckets.buckets.len();
        let least = if count > BUCKETS_MAX / 2 { CROWDED_SWEEP_PER_ENTRY_MAX } else { SWEEP_PER_ENTRY_MAX };
        let most = least.saturating_add(count.saturating_sub(buckets_before).saturating_mul(PUSHED_OUT_MAX));
        let after = self.swept.take();
        self.swept = self.buckets.sweep(&self.registry.limits, self.at, after.as_ref(), most);
    }

    /// Removes a bounded number of things that have ended. `before` is the time before the entry, and `buckets_before`
    /// how many buckets there were.
    pub(crate) fn sweep(&mut self, before: At, buckets_before: usize) {
        self.sweep_buckets(buckets_before);
        self.forget_requests(SWEEP_PER_ENTRY_MAX);
        self.trim_audit(SWEEP_PER_ENTRY_MAX);
        // Looking through all tokens costs more than the rest, so it happens once in a minute of cluster time.
        if before.wall.minute() != self.at.wall.minute() {
            token::forget_ended(&mut self.registry, self.at.wall, SWEEP_PER_ENTRY_MAX);
        }
    }
}

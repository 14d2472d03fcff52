//! What must hold after every `apply`. Tests and simulations ask after each command, and records from a file or another
//! node are asked once before they become a state; the running node does not ask.

use crate::{
    authority::Phase,
    cap::{
        AUDIT_ENTRIES_MAX, AUDIT_SUBJECT_BYTES_MAX, AUTHORITIES_MAX, BUCKETS_MAX, CERTIFICATE_BYTES_MAX, CONSUMERS_MAX,
        DOCUMENT_BYTES_MAX, DOCUMENTS_PER_KIND_MAX, JOIN_TOKENS_MAX, KEYS_MAX, LABEL_BYTES_MAX, LABELS_MAX,
        MEMBER_TEXT_BYTES_MAX, MEMBERS_MAX, OPERATORS_MAX, REQUEST_AHEAD_MAX_MS, REQUESTS_MAX, SUBJECT_BYTES_MAX,
    },
    key::KeyOrigin,
    member::Standing,
    operator::Role,
    registry::{Filed, Registry},
    resource::Kind,
    state::State,
};
use std::{collections::BTreeSet, fmt::Debug, sync::Arc};

/// Checks the state against itself.
///
/// # Errors
/// The first thing that does not hold, in words.
pub fn check(state: &State) -> Result<(), String> {
    find_broken(state)
        .map_err(|Broken { rule, of }| if of.is_empty() { rule.to_owned() } else { format!("{rule}: {of}") })
}

/// A rule that does not hold.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) rule: &'static str,
    /// What it does not hold for.
    pub(crate) of: String,
}

/// The first rule that does not hold.
fn find_broken(state: &State) -> Result<(), Broken> {
    find_broken_record(state)?;
    key_indexes(&state.registry)
}

/// The first rule that records break. What follows from them is not looked at: whoever makes a state of records makes that.
pub(crate) fn find_broken_record(state: &State) -> Result<(), Broken> {
    let registry = &state.registry;
    if !registry.is_initialized() {
        let untouched = State { at: state.at, ..State::default() };
        return rule("before the first entry there is nothing", *state == untouched, &"");
    }
    let highest = registry.revision.max(registry.next_member).max(state.next_audit);
    rule("no counter is near its end", highest < u64::MAX / 2, &highest)?;
    cluster(registry)?;
    consumers(registry)?;
    keys(registry)?;
    documents(registry)?;
    operators(registry)?;
    members(registry)?;
    authorities_and_tokens(registry)?;
    audit(state)?;
    requests(state)?;
    limits(registry)?;
    buckets(state)
}

fn rule(rule: &'static str, holds: bool, of: &dyn Debug) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { rule, of: format!("{of:?}") }) }
}

fn revision(registry: &Registry, revision: u64, of: &dyn Debug) -> Result<(), Broken> {
    rule("nothing is newer than the cluster, or older than it", (1..=registry.revision).contains(&revision), of)
}

fn cap(what: &'static str, count: usize, cap: usize) -> Result<(), Broken> {
    rule(what, count <= cap, &count)
}

fn cluster(registry: &Registry) -> Result<(), Broken> {
    rule("the settings are valid", registry.settings.check().is_ok(), &registry.settings)?;
    revision(registry, registry.settings_revision, &"settings")?;
    rule("the resources are not newer than the cluster", registry.resources_revision <= registry.revision, &"")
}

fn consumers(registry: &Registry) -> Result<(), Broken> {
    cap("there are not too many consumers", registry.consumers.len(), CONSUMERS_MAX)?;
    registry.consumers.iter().try_for_each(|(name, consumer)| {
        rule("a consumer is filed under its name", consumer.name == *name, name)?;
        revision(registry, consumer.revision, name)?;
        rule("the resources are as new as each consumer", consumer.revision <= registry.resources_revision, name)?;
        let labels = consumer.roles.len().max(consumer.attributes.len());
        let longest = consumer.attributes.values().map(String::len).max().unwrap_or(0);
        rule("a consumer has no more than its bounds", labels <= LABELS_MAX && longest <= LABEL_BYTES_MAX, name)
    })
}

/// What keys have in common is looked at once for those that share it and follow one another.
fn keys(registry: &Registry) -> Result<(), Broken> {
    cap("there are not too many keys", registry.keys.len(), KEYS_MAX)?;
    let mut seen = BTreeSet::new();
    registry.keys.iter().try_for_each(|key| {
        revision(registry, key.revision, &key.id)?;
        if seen.insert(Arc::as_ptr(key.owner())) {
            rule("a key has a consumer", registry.consumers.contains_key(key.consumer()), &key.id)?;
            let scopes = key.scopes().map_or(1, |scopes| scopes.len());
            rule("no scopes are stored as none", scopes > 0, &key.id)?;
            rule("a key has no more than its bounds", scopes <= LABELS_MAX, &key.id)?;
        }
        let label = key.label().map_or(0, str::len);
        rule("a key has no more than its bounds", label <= LABEL_BYTES_MAX, &key.id)?;
        let ends = key.previous().is_none_or(|previous| previous.not_after.is_some());
        rule("the secret before has an end", ends, &key.id)
    })
}

/// Every key is in the indexes it belongs to, and the indexes hold nothing else.
fn key_indexes(registry: &Registry) -> Result<(), Broken> {
    let mut hashes = 0;
    registry.keys.iter().try_for_each(|key| {
        let listed = registry.keys_by_consumer.contains_key(&Filed::under(key.consumer(), key.id));
        rule("a key is listed under its consumer", listed, &key.id)?;
        if key.origin == KeyOrigin::Issued {
            return Ok(());
        }
        key.secrets().try_for_each(|secret| {
            hashes += 1;
            let found = registry.key_of_hash(&secret.hash).map(|key| key.id);
            rule("an imported key is found by its hash", found == Some(key.id), &key.id)
        })
    })?;
    let listed = registry.keys_by_consumer.len();
    rule("no key is listed under a consumer that is not its own", listed == registry.keys.len(), &listed)?;
    rule("no hash finds a key that is not its own", registry.keys_by_hash.len() == hashes, &hashes)
}

fn documents(registry: &Registry) -> Result<(), Broken> {
    for kind in Kind::ALL {
        cap("there are not too many documents", registry.documents_of(kind).count(), DOCUMENTS_PER_KIND_MAX)?;
    }
    registry.documents.iter().try_for_each(|(name, document)| {
        revision(registry, document.revision, name)?;
        rule("the resources are as new as each document", document.revision <= registry.resources_revision, name)?;
        rule("a document is not too long", document.bytes.len() <= DOCUMENT_BYTES_MAX, name)
    })
}

fn operators(registry: &Registry) -> Result<(), Broken> {
    cap("there are not too many operators", registry.operators.len(), OPERATORS_MAX)?;
    registry.operators.iter().try_for_each(|(name, operator)| {
        rule("an operator is filed under its name", operator.name == *name, name)?;
        revision(registry, operator.revision, name)?;
        let found = registry.operators_by_certificate.get(&operator.certificate_sha256) == Some(name);
        rule("an operator is found by its certificate", found, name)
    })?;
    let found = registry.operators_by_certificate.len();
    rule("no certificate finds an operator that is not its own", found == registry.operators.len(), &found)?;
    let mut present = registry.operators.values().filter(|operator| operator.revoked_at.is_none());
    rule("there is an admin", present.any(|operator| operator.role == Role::Admin), &"")
}

fn members(registry: &Registry) -> Result<(), Broken> {
    cap("there are not too many members", registry.members.len(), MEMBERS_MAX)?;
    let mut names = BTreeSet::new();
    registry.members.iter().try_for_each(|(id, member)| {
        rule("a member is filed under its number", member.id == *id, id)?;
        revision(registry, member.revision, id)?;
        rule("a number is not used again", *id > 0 && *id < registry.next_member, id)?;
        rule("members have names of their own", member.is_leaving() || names.insert(&member.name), id)?;
        let supports = member.is_leaving() || member.feature_level_max >= registry.feature_level;
        rule("every member supports the feature level", supports, id)?;
        let zone = member.zone.as_deref().unwrap_or_default();
        let texts = [&member.address, &member.gateway_address, &member.gateway_tls_address, &member.ops_address];
        let mut texts = texts.map(String::as_str).into_iter().chain([zone, member.version.as_str()]);
        rule("a member's texts are not too long", texts.all(|text| text.len() <= MEMBER_TEXT_BYTES_MAX), id)
    })?;
    let mut members = registry.members.values();
    rule("there is a member that may vote", members.any(|member| member.standing == Standing::Eligible), &"")
}

fn authorities_and_tokens(registry: &Registry) -> Result<(), Broken> {
    cap("there are not too many authorities", registry.authorities.len(), AUTHORITIES_MAX)?;
    registry.authorities.iter().try_for_each(|(sha256, authority)| {
        rule("an authority is filed under its hash", authority.sha256 == *sha256, sha256)?;
        revision(registry, authority.revision, sha256)?;
        let bytes = authority.certificate_pem.len();
        rule("a certificate is not too long", bytes <= CERTIFICATE_BYTES_MAX, sha256)
    })?;
    let active = registry.authorities.values().filter(|authority| authority.phase == Phase::Active).count();
    rule("exactly one authority is active", active == 1, &active)?;
    cap("there are not too many join tokens", registry.join_tokens.len(), JOIN_TOKENS_MAX)?;
    registry.join_tokens.iter().try_for_each(|(hash, token)| {
        rule("a join token is filed under its hash", token.hash == *hash, hash)?;
        let used_by_a_member = token.used_by.is_none_or(|by| by > 0 && by < registry.next_member);
        rule("a join token was used by a node", used_by_a_member, hash)
    })
}

fn audit(state: &State) -> Result<(), Broken> {
    let most = usize::try_from(AUDIT_ENTRIES_MAX).unwrap_or(usize::MAX);
    cap("the audit log is not too long", state.audit.len(), most)?;
    let first = state.next_audit.checked_sub(state.audit.len() as u64);
    rule("audit entries are counted", first.is_some(), &state.next_audit)?;
    let mut last_revision = 0;
    for ((number, entry), expected) in state.audit.iter().zip(first.unwrap_or(0)..) {
        rule("the audit log has no gap", *number == expected, number)?;
        rule("each change has one audit entry", entry.to_revision > last_revision, number)?;
        rule("the audit log is not newer than the cluster", entry.to_revision <= state.registry.revision, number)?;
        let before = entry.from_revision.is_none_or(|from| from < entry.to_revision);
        rule("a change makes a later revision", before, number)?;
        rule("an audit entry is not too long", entry.subject.len() <= AUDIT_SUBJECT_BYTES_MAX, number)?;
        last_revision = entry.to_revision;
    }
    Ok(())
}

fn requests(state: &State) -> Result<(), Broken> {
    cap("not too many requests are remembered", state.requests.len(), REQUESTS_MAX)?;
    let latest = state.at.wall.plus_ms(REQUEST_AHEAD_MAX_MS);
    let is_ahead = state.requests.get_max().is_some_and(|(request, _)| request.issued > latest);
    rule("no remembered request is far ahead of the cluster", !is_ahead, &"")
}

/// Every limit has its document and its rule.
fn limits(registry: &Registry) -> Result<(), Broken> {
    let documents = registry.documents_of(Kind::Limit).map(|(name, _)| name);
    rule("every limit has a document and a rule", registry.limits.keys().eq(documents), &"")?;
    registry.limits.iter().try_for_each(|(name, limit)| {
        rule("a limit's rule is one", limit.rule.check().is_ok(), name)?;
        let generation = (1..=registry.revision).contains(&limit.generation);
        rule("each generation of a limit took a revision", generation, name)
    })
}

/// A bucket whose limit is gone is swept away some entries later; until then it is sound by itself.
fn buckets(state: &State) -> Result<(), Broken> {
    let buckets = &state.buckets;
    cap("there are not too many buckets", buckets.buckets.len(), BUCKETS_MAX)?;
    rule("no allowance number is near its end", buckets.next_allowance < u64::MAX / 2, &buckets.next_allowance)?;
    buckets.buckets.iter().try_for_each(|(id, bucket)| {
        rule("a bucket's subject is not too long", id.subject.len() <= SUBJECT_BYTES_MAX, id)?;
        rule("a bucket holds no more than its burst", bucket.check(buckets.next_allowance, state.at), id)?;
        rule("a bucket is of a rule that there was", bucket.generation() <= state.registry.revision, id)
    })?;
    buckets.sessions.keys().try_for_each(|id| {
        rule("only members are known to ask for allowances", state.registry.members.contains_key(id), id)
    })
}

//! The cluster as a whole: how it begins, and which behaviour of `apply` it uses.

use crate::{
    apply::Effect,
    authority::{self, Phase},
    command::Initialize,
    member::{self, Standing},
    operator::{self, Role},
    outcome::Refusal,
    registry::Registry,
    text::Hex,
    time::Wall,
    token,
};

/// The first entry: a cluster with one member, one admin, one authority and one join token.
pub(crate) fn initialize(registry: &mut Registry, now: Wall, first: &Initialize) -> Result<Effect, Refusal> {
    first.settings.check()?;
    registry.cluster = first.cluster;
    registry.settings = first.settings.clone();
    registry.settings_revision = registry.revision;
    registry.feature_level = first.feature_level;
    registry.next_member = 1;
    let id = registry.next_member;
    member::add(registry, now, &first.member, Standing::Eligible)?;
    authority::insert(registry, now, first.authority_sha256, &first.authority_pem, Phase::Active)?;
    let (certificate, end) = (first.operator_certificate_sha256, first.operator_not_after);
    operator::create(registry, now, &first.operator, Role::Admin, certificate, end)?;
    token::create(registry, now, first.join_token_hash, first.join_token_not_after)?;
    Ok(Effect::Changed { subject: Hex(&first.cluster).to_string(), from_revision: None, admitted: Some(id) })
}

/// Raises the behaviour of `apply`, never lowers it. What counts is what the members say of themselves: this release's own
/// limit would be a different one on each side of an upgrade.
pub(crate) fn raise_feature_level(registry: &mut Registry, level: u32) -> Result<Effect, Refusal> {
    let present = registry.feature_level;
    if level == present {
        return Ok(Effect::Unchanged);
    }
    let members = registry.members.values().filter(|member| !member.is_leaving());
    if let Some(least) = members.min_by_key(|member| (member.feature_level_max, member.id))
        && (level < present || least.feature_level_max < level)
    {
        return Err(Refusal::FeatureLevel { level, node: least.id, supported: least.feature_level_max });
    }
    registry.feature_level = level;
    Ok(Effect::changed(format_args!("feature level {level}"), None))
}

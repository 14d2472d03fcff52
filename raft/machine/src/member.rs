//! Members: the nodes of the cluster, with addresses and versions. Who votes is raft's own membership; this is what
//! else the cluster must know of a node, and it outlives removal until the node can hold no authority.

use crate::{
    apply::Effect,
    cap::{MEMBER_TEXT_BYTES_MAX, MEMBERS_MAX},
    name::Name,
    outcome::{Field, Noun, Refusal},
    registry::Registry,
    time::Wall,
    token,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The number of a node, never used again in the life of a cluster.
pub type NodeId = u64;

/// A node, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Never used again.
    pub id: NodeId,
    /// Unique among the members.
    pub name: Name,
    /// `host:port` of the cluster listener, as the other nodes reach it.
    pub address: String,
    /// `host:port` of the other listeners, for status pages; empty where there is none.
    pub gateway_address: String,
    /// See `gateway_address`.
    pub gateway_tls_address: String,
    /// See `gateway_address`.
    pub ops_address: String,
    /// Failure domain, free text.
    pub zone: Option<String>,
    /// The release that the node runs.
    pub version: String,
    /// The newest behaviour of `apply` that the node's release knows.
    pub feature_level_max: u32,
    /// What the operator wants of it.
    pub standing: Standing,
    /// When it joined.
    pub joined_at: Wall,
    /// The cluster revision of the last change.
    pub revision: u64,
}

/// What the operator wants of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Becomes a voter by itself while there are fewer than the cluster wants.
    Eligible,
    /// Never votes unless promoted.
    Learner,
    /// On its way out: refused by the others, but counted by fences until it is forgotten.
    Leaving,
}

/// What a node tells of itself when it joins or starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberSpec {
    /// See [`Member::name`].
    pub name: Name,
    /// See [`Member::address`].
    pub address: String,
    /// See [`Member::gateway_address`].
    pub gateway_address: String,
    /// See [`Member::gateway_address`].
    pub gateway_tls_address: String,
    /// See [`Member::gateway_address`].
    pub ops_address: String,
    /// See [`Member::zone`].
    pub zone: Option<String>,
    /// See [`Member::version`].
    pub version: String,
    /// See [`Member::feature_level_max`].
    pub feature_level_max: u32,
}

impl MemberSpec {
    /// Refuses a newcomer (or a changed member) that cannot be one; `id` is the number that it has or would get.
    pub(crate) fn check(&self, registry: &Registry, id: NodeId) -> Result<(), Refusal> {
        let zone = self.zone.as_deref().unwrap_or_default();
        let listeners = [&self.gateway_address, &self.gateway_tls_address, &self.ops_address];
        for text in listeners.map(String::as_str).into_iter().chain([self.address.as_str(), zone, &self.version]) {
            Refusal::if_beyond(Field::MemberText, text.len(), MEMBER_TEXT_BYTES_MAX)?;
        }
        let (level, supported) = (registry.feature_level, self.feature_level_max);
        if supported < level {
            return Err(Refusal::FeatureLevel { level, node: id, supported });
        }
        let mut others = registry.members.values().filter(|member| member.id != id && !member.is_leaving());
        if others.any(|member| member.name == self.name) {
            return Err(Refusal::already_exists(Noun::Member, &self.name));
        }
        Ok(())
    }

    fn into_member(self, id: NodeId, standing: Standing, joined_at: Wall, revision: u64) -> Member {
        let Self { name, address, gateway_address, gateway_tls_address, ops_address, zone, version, feature_level_max } =
            self;
        Member {
            id,
            name,
            address,
            gateway_address,
            gateway_tls_address,
            ops_address,
            zone,
            version,
            feature_level_max,
            standing,
            joined_at,
            revision,
        }
    }
}

impl Member {
    /// Whether it is on its way out.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.standing == Standing::Leaving
    }
}

/// Uses a join token: the newcomer gets a number.
pub(crate) fn admit(
    registry: &mut Registry,
    now: Wall,
    token_hash: &[u8; 32],
    spec: &MemberSpec,
    learner: bool,
) -> Result<Effect, Refusal> {
    let id = registry.next_member;
    token::consume(registry, now, token_hash, id)?;
    add(registry, now, spec, if learner { Standing::Learner } else { Standing::Eligible })?;
    Ok(Effect::Changed { subject: format!("{id} {}", spec.name), from_revision: None, admitted: Some(id) })
}

/// Adds a member under the next number.
pub(crate) fn add(registry: &mut Registry, now: Wall, spec: &MemberSpec, standing: Standing) -> Result<(), Refusal> {
    let id = registry.next_member;
    Refusal::if_full(Noun::Member, registry.members.len(), MEMBERS_MAX)?;
    spec.check(registry, id)?;
    let member = spec.clone().into_member(id, standing, now, registry.revision);
    registry.next_member = id.saturating_add(1);
    registry.members.insert(id, Arc::new(member));
    Ok(())
}

/// Takes in what a member tells of itself.
pub(crate) fn update(registry: &mut Registry, id: NodeId, spec: &MemberSpec) -> Result<Effect, Refusal> {
    let member = find(registry, id)?;
    if member.is_leaving() {
        return Err(Refusal::MemberLeaving { id });
    }
    spec.check(registry, id)?;
    let as_it_is = spec.clone().into_member(id, member.standing, member.joined_at, member.revision);
    if as_it_is == *member {
        return Ok(Effect::Unchanged);
    }
    registry.members.insert(id, Arc::new(Member { revision: registry.revision, ..as_it_is }));
    Ok(Effect::changed(id, Some(member.revision)))
}

/// Changes what the operator wants of a member.
pub(crate) fn set_standing(registry: &mut Registry, id: NodeId, standing: Standing) -> Result<Effect, Refusal> {
    let member = find(registry, id)?;
    match (member.standing, standing) {
        (present, asked) if present == asked => return Ok(Effect::Unchanged),
        (Standing::Leaving, _) => return Err(Refusal::MemberLeaving { id }),
        (_, Standing::Eligible) => {}
        (_, Standing::Learner | Standing::Leaving) => {
            let mut others = registry.members.values().filter(|other| other.id != id);
            if !others.any(|other| other.standing == Standing::Eligible) {
                return Err(Refusal::LastEligible { id });
            }
        }
    }
    let changed = Member { standing, revision: registry.revision, ..Member::clone(&member) };
    registry.members.insert(id, Arc::new(changed));
    Ok(Effect::changed(id, Some(member.revision)))
}

/// Forgets a member that was leaving.
pub(crate) fn forget(registry: &mut Registry, id: NodeId) -> Result<Effect, Refusal> {
    let member = find(registry, id)?;
    if !member.is_leaving() {
        return Err(Refusal::MemberNotLeaving { id });
    }
    registry.members.remove(&id);
    Ok(Effect::changed(id, Some(member.revision)))
}

fn find(registry: &Registry, id: NodeId) -> Result<Arc<Member>, Refusal> {
    registry.members.get(&id).cloned().ok_or_else(|| Refusal::not_found(Noun::Member, &id))
}

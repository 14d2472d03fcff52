//! Operators: the people and programs that administer the cluster, known by their client certificates.

use crate::{
    apply::Effect,
    cap::OPERATORS_MAX,
    command::{Actor, Command},
    name::Name,
    outcome::{Noun, Refusal},
    registry::Registry,
    time::Wall,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What an operator may do; each role includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Reads everything but secrets.
    Viewer,
    /// Changes keys, consumers and resources.
    Operator,
    /// Changes members, operators, settings and the cluster's certificates.
    Admin,
}

impl Role {
    /// As the command line and JSON name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// An operator, as stored. A revoked operator is kept: the name shows in the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// Unique in the cluster.
    pub name: Name,
    /// What it may do.
    pub role: Role,
    /// SHA-256 of the DER of its certificate: a certificate that the cluster signed but that is not named here is
    /// nobody's.
    pub certificate_sha256: [u8; 32],
    /// When the certificate ends.
    pub not_after: Wall,
    /// When it was created.
    pub created_at: Wall,
    /// When it was revoked.
    pub revoked_at: Option<Wall>,
    /// The cluster revision of the last change.
    pub revision: u64,
}

impl Operator {
    /// Whether it may act at this instant.
    #[must_use]
    pub fn is_in_force(&self, now: Wall) -> bool {
        self.revoked_at.is_none() && now < self.not_after
    }
}

/// Whether this actor may ask for this command now.
pub(crate) fn permit(registry: &Registry, now: Wall, actor: &Actor, command: &Command) -> Result<(), Refusal> {
    let needed = command.role_needed();
    let may = match actor {
        Actor::Operator(name) => {
            let operator = registry.operators.get(name);
            operator.is_some_and(|operator| operator.is_in_force(now) && operator.role >= needed)
        }
        Actor::Node(id) => command.is_for_nodes() && registry.members.contains_key(id),
        Actor::Bootstrap => matches!(command, Command::Initialize(_)),
    };
    if may { Ok(()) } else { Err(Refusal::NotPermitted { needed }) }
}

/// Names a new operator.
pub(crate) fn create(
    registry: &mut Registry,
    now: Wall,
    name: &Name,
    role: Role,
    certificate_sha256: [u8; 32],
    not_after: Wall,
) -> Result<Effect, Refusal> {
    if registry.operators.contains_key(name) {
        return Err(Refusal::already_exists(Noun::Operator, name));
    }
    Refusal::if_full(Noun::Operator, registry.operators.len(), OPERATORS_MAX)?;
    if let Some(holder) = registry.operators_by_certificate.insert(certificate_sha256, name.clone()) {
        return Err(Refusal::already_exists(Noun::Operator, &holder));
    }
    let revision = registry.revision;
    let operator = Operator {
        name: name.clone(),
        role,
        certificate_sha256,
        not_after,
        created_at: now,
        revoked_at: None,
        revision,
    };
    registry.operators.insert(name.clone(), Arc::new(operator));
    Ok(Effect::changed(name, None))
}

/// Takes an operator's access.
pub(crate) fn revoke(registry: &mut Registry, now: Wall, name: &Name) -> Result<Effect, Refusal> {
    let operator = registry.operators.get(name).ok_or_else(|| Refusal::not_found(Noun::Operator, name))?;
    if operator.revoked_at.is_some() {
        return Ok(Effect::Unchanged);
    }
    // An admin whose certificate has ended can help nobody, so it does not count.
    let is_other_admin = |other: &Operator| other.role == Role::Admin && other.is_in_force(now) && other.name != *name;
    if operator.role == Role::Admin && !registry.operators.values().any(|other| is_other_admin(other)) {
        return Err(Refusal::LastAdmin { name: name.clone() });
    }
    let from = operator.revision;
    let revoked = Operator { revoked_at: Some(now), revision: registry.revision, ..Operator::clone(operator) };
    registry.operators.insert(name.clone(), Arc::new(revoked));
    Ok(Effect::changed(name, Some(from)))
}

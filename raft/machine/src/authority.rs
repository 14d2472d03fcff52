//! Certificate authorities of the cluster: their public certificates. Private keys never come here.

use crate::{
    apply::Effect,
    cap::{AUTHORITIES_MAX, CERTIFICATE_BYTES_MAX},
    outcome::{Field, Noun, Refusal},
    registry::Registry,
    text::Hex,
    time::Wall,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A certificate authority, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// SHA-256 of the DER of its certificate.
    pub sha256: [u8; 32],
    /// Its certificate.
    pub certificate_pem: String,
    /// Where it stands in a rotation.
    pub phase: Phase,
    /// When it was added.
    pub added_at: Wall,
    /// The cluster revision of the last change.
    pub revision: u64,
}

/// Where an authority stands in a rotation. Certificates of every listed authority are trusted; one signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Trusted, not yet signing: every member must know it first.
    Incoming,
    /// Signs new certificates. Exactly one is active.
    Active,
    /// Trusted until no certificate of it is in use.
    Retiring,
}

/// Adds an authority. It signs nothing before every member knows it.
pub(crate) fn add(
    registry: &mut Registry,
    now: Wall,
    sha256: [u8; 32],
    certificate_pem: &str,
) -> Result<Effect, Refusal> {
    insert(registry, now, sha256, certificate_pem, Phase::Incoming)?;
    Ok(Effect::changed(Hex(&sha256), None))
}

/// Adds an authority in a phase.
pub(crate) fn insert(
    registry: &mut Registry,
    now: Wall,
    sha256: [u8; 32],
    certificate_pem: &str,
    phase: Phase,
) -> Result<(), Refusal> {
    Refusal::if_beyond(Field::CertificateBytes, certificate_pem.len(), CERTIFICATE_BYTES_MAX)?;
    if registry.authorities.contains_key(&sha256) {
        return Err(Refusal::already_exists(Noun::Authority, &Hex(&sha256)));
    }
    Refusal::if_full(Noun::Authority, registry.authorities.len(), AUTHORITIES_MAX)?;
    let certificate_pem = certificate_pem.to_owned();
    let authority = Authority { sha256, certificate_pem, phase, added_at: now, revision: registry.revision };
    registry.authorities.insert(sha256, Arc::new(authority));
    Ok(())
}

/// Lets an incoming authority sign; the one that signed before is retiring. No other step can be asked for.
pub(crate) fn set_phase(registry: &mut Registry, sha256: &[u8; 32], phase: Phase) -> Result<Effect, Refusal> {
    let authority = find(registry, sha256)?;
    let former = registry.active_authority().cloned();
    match (authority.phase, phase) {
        (present, asked) if present == asked => Ok(Effect::Unchanged),
        (Phase::Incoming, Phase::Active) => {
            if let Some(former) = former {
                move_on(registry, &former, Phase::Retiring);
            }
            move_on(registry, &authority, Phase::Active);
            Ok(Effect::changed(Hex(sha256), Some(authority.revision)))
        }
        (_, _) => Err(Refusal::AuthorityPhase),
    }
}

/// Trusts an authority no more.
pub(crate) fn remove(registry: &mut Registry, sha256: &[u8; 32]) -> Result<Effect, Refusal> {
    let authority = find(registry, sha256)?;
    if authority.phase == Phase::Active {
        return Err(Refusal::AuthorityPhase);
    }
    registry.authorities.remove(sha256);
    Ok(Effect::changed(Hex(sha256), Some(authority.revision)))
}

fn find(registry: &Registry, sha256: &[u8; 32]) -> Result<Arc<Authority>, Refusal> {
    registry.authorities.get(sha256).cloned().ok_or_else(|| Refusal::not_found(Noun::Authority, &Hex(sha256)))
}

fn move_on(registry: &mut Registry, authority: &Authority, phase: Phase) {
    let moved = Authority { phase, revision: registry.revision, ..authority.clone() };
    registry.authorities.insert(moved.sha256, Arc::new(moved));
}

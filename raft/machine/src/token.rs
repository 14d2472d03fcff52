//! Join tokens: single use, with an end, stored as a hash.

use crate::{
    apply::Effect,
    cap::{JOIN_TOKEN_KEPT_MS, JOIN_TOKENS_MAX},
    member::NodeId,
    outcome::{Noun, Refusal},
    registry::Registry,
    text::Hex,
    time::Wall,
};
use serde::{Deserialize, Serialize};

/// A join token, as stored. A used one is kept until its end, so that a second use is told apart from a wrong one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// SHA-256 of the secret part.
    pub hash: [u8; 32],
    /// The first instant at which it is refused.
    pub not_after: Wall,
    /// The node that used it.
    pub used_by: Option<u64>,
}

/// Makes a join token.
pub(crate) fn create(registry: &mut Registry, now: Wall, hash: [u8; 32], not_after: Wall) -> Result<Effect, Refusal> {
    if registry.join_tokens.contains_key(&hash) {
        return Err(Refusal::already_exists(Noun::JoinToken, &shown(&hash)));
    }
    if registry.join_tokens.len() >= JOIN_TOKENS_MAX {
        make_room(registry, now);
    }
    Refusal::if_full(Noun::JoinToken, registry.join_tokens.len(), JOIN_TOKENS_MAX)?;
    registry.join_tokens.insert(hash, JoinToken { hash, not_after, used_by: None });
    Ok(Effect::changed(shown(&hash), None))
}

/// Uses a token for the member that gets this number.
pub(crate) fn consume(registry: &mut Registry, now: Wall, hash: &[u8; 32], id: NodeId) -> Result<(), Refusal> {
    let token = registry.join_tokens.get(hash).ok_or(Refusal::TokenUnknown)?;
    if let Some(by) = token.used_by {
        return Err(Refusal::TokenUsed { by });
    }
    if now >= token.not_after {
        return Err(Refusal::TokenExpired);
    }
    let used = JoinToken { used_by: Some(id), ..token.clone() };
    registry.join_tokens.insert(*hash, used);
    Ok(())
}

/// Forgets at most `most` tokens that ended long enough ago.
pub(crate) fn forget_ended(registry: &mut Registry, now: Wall, most: usize) {
    let is_over = |token: &&JoinToken| token.not_after.plus_ms(JOIN_TOKEN_KEPT_MS) < now;
    let over: Vec<[u8; 32]> =
        registry.join_tokens.values().filter(is_over).map(|token| token.hash).take(most).collect();
    for hash in over {
        registry.join_tokens.remove(&hash);
    }
}

/// Forgets the token that ended first, if one has ended.
fn make_room(registry: &mut Registry, now: Wall) {
    let first = registry.join_tokens.values().min_by_key(|token| (token.not_after, token.hash));
    if let Some(hash) = first.filter(|token| now >= token.not_after).map(|token| token.hash) {
        registry.join_tokens.remove(&hash);
    }
}

/// Enough of a token's hash to tell it from others.
fn shown(hash: &[u8; 32]) -> String {
    Hex(hash.first_chunk::<8>().map_or(&[], |start| start.as_slice())).to_string()
}

//! API keys: the hash of a secret, whose it is and until when. The secret itself never comes here.

pub(crate) mod lifecycle;
mod stored;

pub use stored::Key;
pub(crate) use stored::Owner;

use crate::{name::Name, time::Wall};
use serde::{Deserialize, Serialize};
use std::{cmp::Ordering, collections::BTreeSet, fmt, sync::Arc};

/// The public part of a key: random, unique in the cluster, and safe to log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyId(pub [u8; 10]);

impl Ord for KeyId {
    /// The order of the bytes, as one number: a search compares some dozen, for each request.
    fn cmp(&self, other: &Self) -> Ordering {
        self.number().cmp(&other.number())
    }
}

impl PartialOrd for KeyId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl KeyId {
    fn number(&self) -> u128 {
        let [a, b, c, d, e, f, g, h, i, j] = self.0;
        u128::from_be_bytes([0, 0, 0, 0, 0, 0, a, b, c, d, e, f, g, h, i, j])
    }
}

/// SHA-256 of a secret (of the whole credential text for an imported key).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SecretHash(pub [u8; 32]);

/// How a presented credential finds its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyOrigin {
    /// Made by the cluster: the credential carries the id.
    Issued,
    /// Brought from elsewhere as a hash: found by the SHA-256 of the whole credential. Once it is rotated, the new
    /// credential may carry the id as well, so a credential with an id finds a key of either origin.
    Imported,
}

/// One secret of a key and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// What is compared, in constant time.
    pub hash: SecretHash,
    /// The first instant at which it is refused.
    pub not_after: Option<Wall>,
}

/// An API key, field by field: how it is made and written. A node holds a million of them as [`Key`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFields {
    /// Unique in the cluster.
    pub id: KeyId,
    /// Whose it is.
    pub consumer: Name,
    /// For people.
    pub label: Option<Arc<str>>,
    /// What policies know as `context.scopes`.
    pub scopes: Option<Arc<BTreeSet<Name>>>,
    /// How a credential finds it.
    pub origin: KeyOrigin,
    /// The secret in force.
    pub current: Secret,
    /// The secret before the last rotation, while it overlaps.
    pub previous: Option<Box<Secret>>,
    /// When it was made.
    pub created_at: Wall,
    /// When it was revoked. A revoked key is kept, so that it cannot come back, until its consumer is deleted.
    pub revoked_at: Option<Wall>,
    /// The cluster revision of the last change.
    pub revision: u64,
}

/// What `keys list` calls the state of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Accepted.
    Active,
    /// Two secrets are accepted until the overlap ends.
    Rotating,
    /// Past its end.
    Expired,
    /// Refused for good.
    Revoked,
}

impl Secret {
    /// Whether the secret is refused at this instant.
    #[must_use]
    pub fn has_ended(&self, now: Wall) -> bool {
        self.not_after.is_some_and(|end| now >= end)
    }
}

/// A key brought from another gateway as a hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedKey {
    /// Made by the node that takes the import.
    pub id: KeyId,
    /// Whose it is; it must exist.
    pub consumer: Name,
    /// For people.
    pub label: Option<String>,
    /// See [`KeyFields::scopes`].
    pub scopes: BTreeSet<Name>,
    /// SHA-256 of the whole credential.
    pub hash: SecretHash,
    /// When it ends.
    pub not_after: Option<Wall>,
}

/// The alphabet of key ids: RFC 4648 base32, lower case.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written at once: requests are counted by it.
        let mut number = self.0.iter().fold(0_u128, |number, byte| (number << 8) | u128::from(*byte));
        let mut text = [b'a'; 16];
        for letter in text.iter_mut().rev() {
            let digit = usize::try_from(number & 31).unwrap_or(0);
            *letter = ALPHABET.get(digit).copied().unwrap_or(b'a');
            number >>= 5;
        }
        f.write_str(str::from_utf8(&text).unwrap_or_default())
    }
}

impl std::str::FromStr for KeyId {
    type Err = InvalidKeyId;
    fn from_str(text: &str) -> Result<Self, InvalidKeyId> {
        if text.len() != 16 {
            return Err(InvalidKeyId);
        }
        let mut number = 0_u128;
        for byte in text.bytes() {
            let digit = ALPHABET.iter().position(|letter| *letter == byte).ok_or(InvalidKeyId)?;
            number = (number << 5) | digit as u128;
        }
        let mut id = [0; 10];
        for (place, byte) in id.iter_mut().rev().enumerate() {
            *byte = u8::try_from((number >> (place * 8)) & 0xff).unwrap_or(0);
        }
        Ok(Self(id))
    }
}

/// A text that is not the id of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key id is 16 characters of a-z and 2-7, the part between the two underscores of the key")]
pub struct InvalidKeyId;

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Every listing and every snapshot is in this order.
        #[test]
        fn ids_are_in_the_order_of_their_bytes(one: [u8; 10], other: [u8; 10], shared in 0..10_usize) {
            let mut near = other;
            near[..shared].copy_from_slice(&one[..shared]);
            prop_assert_eq!(KeyId(one).cmp(&KeyId(near)), one.cmp(&near));
        }
    }
}

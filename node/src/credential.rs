//! The text of an API key: `qk_<id>_<secret>`. Sixteen characters name the key and are safe to log; the secret carries
//! 256 random bits and a checksum over both parts, so that a typo (or what a scanner finds in a log) is told from a
//! wrong key without asking the cluster. Only hashes leave this file; which keys exist is the registry's business.

use aws_lc_rs::rand;
use data_encoding::{Encoding, Specification};
use machine::key::{KeyId, SecretHash};
use sha2::{Digest, Sha256};
use std::{fmt, sync::LazyLock};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// What every key begins with.
pub const PREFIX: &str = "qk_";
/// Random bytes of a secret.
const SECRET_BYTES: usize = 32;
/// The secret and its checksum.
const TAIL_BYTES: usize = SECRET_BYTES + 4;
/// Characters of an id.
const ID_CHARS: usize = 16;
/// Characters of the secret and its checksum.
const TAIL_CHARS: usize = 58;
/// Characters of a whole key.
pub const TEXT_CHARS: usize = PREFIX.len() + ID_CHARS + 1 + TAIL_CHARS;

/// RFC 4648 base32 in lower case without padding: the alphabet of ids too, and one that a double click selects whole.
static BASE32: LazyLock<Option<Encoding>> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.encoding().ok()
});

/// A whole credential, as it is made or presented. Its secret is wiped when it is dropped and never printed.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Credential {
    #[zeroize(skip)]
    id: KeyId,
    secret: [u8; SECRET_BYTES],
}

/// A text that is not a key of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It does not look like one at all: it may be an imported key, or another kind of token.
    #[error("this is not a key of the form qk_<id>_<secret>")]
    Foreign,
    /// It looks like one, but its length, alphabet or checksum is wrong: a typo, or a part is missing.
    #[error("this key is mistyped or cut off: its checksum does not fit")]
    Mistyped,
}

/// The system's source of random bytes failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct NoRandomness;

impl Credential {
    /// Makes a new credential with a random id and secret.
    ///
    /// # Errors
    /// [`NoRandomness`] if the system gives none.
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut id = [0; 10];
        rand::fill(&mut id).map_err(|_| NoRandomness)?;
        Self::generate_for(KeyId(id))
    }

    /// Makes a new secret for a key that exists: a rotation.
    ///
    /// # Errors
    /// [`NoRandomness`] if the system gives none.
    pub fn generate_for(id: KeyId) -> Result<Self, NoRandomness> {
        let mut secret = [0; SECRET_BYTES];
        rand::fill(&mut secret).map_err(|_| NoRandomness)?;
        Ok(Self { id, secret })
    }

    /// Reads a presented text.
    ///
    /// # Errors
    /// [`Malformed`] tells a typo from something else; a client is told neither.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let rest = text.strip_prefix(PREFIX).ok_or(Malformed::Foreign)?;
        let (id_text, tail) = rest.split_once('_').ok_or(Malformed::Mistyped)?;
        let id = id_text.parse().map_err(|_| Malformed::Mistyped)?;
        if tail.len() != TAIL_CHARS {
            return Err(Malformed::Mistyped);
        }
        let mut bytes = Zeroizing::new([0; TAIL_BYTES]);
        let base32 = BASE32.as_ref().ok_or(Malformed::Mistyped)?;
        base32.decode_mut(tail.as_bytes(), bytes.as_mut()).map_err(|_| Malformed::Mistyped)?;
        let (secret, checksum) = bytes.split_first_chunk::<SECRET_BYTES>().ok_or(Malformed::Mistyped)?;
        if checksum != checksum_of(id, secret) {
            return Err(Malformed::Mistyped);
        }
        Ok(Self { id, secret: *secret })
    }

    /// The public part.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// What the cluster stores: SHA-256 of the secret.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(self.secret).into())
    }

    /// The whole text, to be shown once.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        let mut tail = Zeroizing::new(Vec::with_capacity(TAIL_BYTES));
        tail.extend_from_slice(&self.secret);
        tail.extend_from_slice(&checksum_of(self.id, &self.secret));
        let encoded = Zeroizing::new(BASE32.as_ref().map(|base32| base32.encode(&tail)).unwrap_or_default());
        Zeroizing::new(format!("{PREFIX}{}_{}", self.id, encoded.as_str()))
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({PREFIX}{}_…)", self.id)
    }
}

/// What finds an imported key: SHA-256 of the whole text.
#[must_use]
pub fn hash_of_text(text: &str) -> SecretHash {
    SecretHash(Sha256::digest(text.as_bytes()).into())
}

/// Whether two hashes are the same, in a time that does not tell where they differ.
#[must_use]
pub fn same(one: &SecretHash, other: &SecretHash) -> bool {
    one.0.ct_eq(&other.0).into()
}

fn checksum_of(id: KeyId, secret: &[u8; SECRET_BYTES]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&id.0);
    hasher.update(secret);
    hasher.finalize().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fixed() -> Credential {
        Credential { id: KeyId([7; 10]), secret: [0xab; SECRET_BYTES] }
    }

    #[test]
    fn the_text_is_frozen() {
        // Keys in the hands of callers must be readable by every later release.
        assert_eq!(
            fixed().text().as_str(),
            "qk_a4dqobyha4dqobyh_vov2xk5lvov2xk5lvov2xk5lvov2xk5lvov2xk5lvov2xk5lvov4uzufye"
        );
    }

    #[test]
    fn a_debug_text_and_an_error_hold_no_secret() {
        let text = format!("{:?}", fixed());
        assert_eq!(text, "Credential(qk_a4dqobyha4dqobyh_…)");
    }

    #[test]
    fn two_keys_differ() {
        assert_ne!(Credential::generate().unwrap().text(), Credential::generate().unwrap().text());
    }

    #[test]
    fn another_token_is_foreign() {
        for text in ["", "eyJhbGciOiJIUzI1NiJ9.e30.x", "QK_A_B", "secret"] {
            assert_eq!(Credential::parse(text).unwrap_err(), Malformed::Foreign);
        }
    }

    #[test]
    fn a_cut_or_padded_key_is_mistyped() {
        let text = fixed().text();
        for length in PREFIX.len()..text.len() {
            assert_eq!(Credential::parse(&text[..length]).unwrap_err(), Malformed::Mistyped);
        }
        assert_eq!(Credential::parse(&format!("{}a", text.as_str())).unwrap_err(), Malformed::Mistyped);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(id: [u8; 10], secret: [u8; SECRET_BYTES]) {
            let credential = Credential { id: KeyId(id), secret };
            let text = credential.text();
            prop_assert_eq!(text.len(), TEXT_CHARS);
            let read = Credential::parse(&text).unwrap();
            prop_assert_eq!(read.id(), credential.id());
            prop_assert!(same(&read.hash(), &credential.hash()));
        }

        #[test]
        fn one_wrong_character_is_a_typo(place in PREFIX.len()..TEXT_CHARS, letter in "[a-z2-7]") {
            let text = fixed().text();
            let mut changed = text.as_str().to_owned();
            changed.replace_range(place..=place, &letter);
            prop_assume!(changed != *text);
            prop_assert!(matches!(Credential::parse(&changed), Err(Malformed::Mistyped)));
        }
    }
}

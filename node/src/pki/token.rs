//! Join tokens: what a newcomer shows to be let in. A token is a secret of 32 bytes, and the hash of the authority by
//! which the newcomer knows that it shows the secret to the right cluster. The cluster keeps only a hash of the secret.

use super::{PkiError, random, sha256};
use data_encoding::BASE64URL_NOPAD;
use std::{fmt, str::FromStr};
use zeroize::Zeroizing;

/// How long a join token lasts unless asked otherwise.
pub const TOKEN_LIFE_MS: u64 = 60 * 60 * 1000;
/// The longest that a join token may last.
pub const TOKEN_LIFE_MAX_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// A join token.
#[derive(Clone)]
pub struct JoinToken {
    secret: Zeroizing<[u8; 32]>,
    /// The first half of the SHA-256 of an authority's certificate.
    authority: [u8; 16],
}

/// A text that is not a join token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is not a join token: it begins with qj_ and is printed by `quorate init` and `quoratectl cluster join-token`; copy all of it"
)]
pub struct InvalidToken;

impl JoinToken {
    /// Makes a token for a cluster whose signing authority has this fingerprint.
    ///
    /// # Errors
    /// No random bytes.
    pub fn create(authority_sha256: [u8; 32]) -> Result<Self, PkiError> {
        let secret = Zeroizing::new(random()?);
        let mut authority = [0; 16];
        authority.iter_mut().zip(authority_sha256).for_each(|(to, from)| *to = from);
        Ok(Self { secret, authority })
    }

    /// What the cluster keeps of it.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        sha256(&*self.secret)
    }

    /// Whether it names this authority.
    #[must_use]
    pub fn names_authority(&self, sha256: &[u8; 32]) -> bool {
        sha256.starts_with(&self.authority)
    }

    /// The authority that it names, as messages show it.
    #[must_use]
    pub fn authority(&self) -> String {
        hex::encode(self.authority)
    }

    /// The text that is shown once.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(BASE64URL_NOPAD.encode(&*self.secret));
        Zeroizing::new(format!("qj_{}.{}", &*secret, hex::encode(self.authority)))
    }
}

impl FromStr for JoinToken {
    type Err = InvalidToken;
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let (secret, authority) =
            text.trim().strip_prefix("qj_").and_then(|rest| rest.split_once('.')).ok_or(InvalidToken)?;
        let bytes = Zeroizing::new(BASE64URL_NOPAD.decode(secret.as_bytes()).map_err(|_| InvalidToken)?);
        let secret = Zeroizing::new(<[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| InvalidToken)?);
        let mut bytes = [0; 16];
        hex::decode_to_slice(authority, &mut bytes).map_err(|_| InvalidToken)?;
        Ok(Self { secret, authority: bytes })
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("authority", &self.authority()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let token = JoinToken::create([0xab; 32]).unwrap();
        let text = token.text();
        assert_eq!(text.len(), 3 + 43 + 1 + 32);
        let again: JoinToken = text.parse().unwrap();
        assert_eq!(again.hash(), token.hash());
        assert!(again.names_authority(&[0xab; 32]));
        assert!(!again.names_authority(&[0xac; 32]));
        let with_newline: JoinToken = format!("{}\n", *text).parse().unwrap();
        assert_eq!(with_newline.hash(), token.hash());
    }

    #[test]
    fn the_secret_is_not_printed() {
        let token = JoinToken::create([0xab; 32]).unwrap();
        let secret = token.text()[3..46].to_owned();
        assert!(!format!("{token:?}").contains(&secret));
    }

    #[test]
    fn texts_that_are_no_tokens() {
        let good = JoinToken::create([1; 32]).unwrap().text();
        for bad in [
            "",
            "qj_",
            "qj_.",
            "qk_abc",
            &good[1..],
            &good[..good.len() - 1],
            &good.replace('.', ""),
            &format!("{}0", *good),
        ] {
            assert!(bad.parse::<JoinToken>().is_err(), "{bad}");
        }
    }
}

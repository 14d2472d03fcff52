//! A node that waits for its certificate from outside: who it is to be, and the keys that were made for it. Kept in one
//! private file of a data directory that is otherwise new, until the certificate is there.

use super::{
    PkiError,
    identity::Identity,
    outside::Holder,
    store::{Permissions, Store, write},
};
use machine::Name;
use serde::{Deserialize, Serialize};
use std::{fmt, path::Path};
use zeroize::{Zeroize, Zeroizing};

/// What waits.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// Who the node is to be.
    pub identity: Identity,
    /// Who is to sign, in PEM.
    pub authorities_pem: String,
    /// The node's private key.
    key_pem: String,
    /// The first operator, if the node is a cluster's first.
    pub operator: Option<PendingOperator>,
    /// The hash of the token that the node joined with, if it is not.
    pub token_hash: Option<String>,
}

/// A cluster's first operator.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingOperator {
    /// Its name.
    pub name: Name,
    /// Its private key.
    key_pem: String,
}

impl Pending {
    /// A node with a key, of a cluster whose authority is this one.
    #[must_use]
    pub fn new(identity: Identity, authorities_pem: String, key_pem: &str) -> Self {
        let identity = identity.with_certificates_from_outside();
        Self { identity, authorities_pem, key_pem: key_pem.to_owned(), operator: None, token_hash: None }
    }

    /// What waits in this store, if anything does.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn load(store: &Store) -> Result<Option<Self>, PkiError> {
        let Some(text) = store.pending()? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|error| PkiError::Damaged {
            file: store.pending_file(),
            // Where, and not what: it holds keys.
            what: format!("it is damaged (line {}, column {})", error.line(), error.column()),
        })
    }

    /// Keeps it.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn save(&self, store: &Store) -> Result<(), PkiError> {
        let text = serde_json::to_string(self)
            .map(Zeroizing::new)
            .map_err(|error| PkiError::Damaged { file: store.pending_file(), what: error.to_string() })?;
        store.save_pending(&text)
    }

    /// The node's private key.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Whom its certificate must name.
    #[must_use]
    pub const fn holder(&self) -> Holder<'_> {
        Holder::Node { cluster: &self.identity.cluster, id: self.identity.node }
    }

    /// Writes the request for the node's certificate.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn write_request(&self, file: &Path) -> Result<(), PkiError> {
        write_request(file, &self.holder().request(&self.key_pem)?)
    }
}

impl PendingOperator {
    /// An operator with a key.
    #[must_use]
    pub fn new(name: Name, key_pem: &str) -> Self {
        Self { name, key_pem: key_pem.to_owned() }
    }

    /// Its private key.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Whom its certificate must name.
    #[must_use]
    pub const fn holder(&self) -> Holder<'_> {
        Holder::Operator(&self.name)
    }

    /// Writes the request for its certificate.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn write_request(&self, file: &Path) -> Result<(), PkiError> {
        write_request(file, &self.holder().request(&self.key_pem)?)
    }
}

/// Writes a request to sign. There is nothing secret in it.
///
/// # Errors
/// [`PkiError::File`].
pub fn write_request(file: &Path, request_pem: &str) -> Result<(), PkiError> {
    write(file, request_pem.as_bytes(), Permissions::Readable)
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.key_pem.zeroize();
    }
}

impl Drop for PendingOperator {
    fn drop(&mut self) {
        self.key_pem.zeroize();
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("identity", &self.identity).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{authority, identity::Origin};

    #[test]
    fn file_and_back_without_a_word_of_the_keys() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("pki")).unwrap();
        assert!(Pending::load(&store).unwrap().is_none());
        let (key, _) = authority::request().unwrap();
        let identity = Identity::new([9; 16], 4, Name::new("n4").unwrap(), Origin::Join, Vec::new());
        let pending = Pending::new(identity, "authorities".to_owned(), &key);
        pending.save(&store).unwrap();
        let again = Pending::load(&store).unwrap().unwrap();
        assert_eq!(again.key_pem(), &*key);
        assert!(again.identity.signed_outside);
        assert!(!format!("{again:?}").contains("PRIVATE"));

        std::fs::write(store.pending_file(), "{\"key_pem\": \"secret\", ").unwrap();
        let error = Pending::load(&store).unwrap_err().to_string();
        assert!(error.contains("pending.json: it is damaged") && !error.contains("secret"), "{error}");
    }
}

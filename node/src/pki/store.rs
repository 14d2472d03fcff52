//! The files of keys and certificates in a data directory. Each is written aside, synced and renamed, so that it is
//! there whole or not at all; what is private can be read by the node's user alone.

use super::{
    PkiError,
    authority::Authority,
    trust::{TrustedAuthority, authorities_from_pem},
};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};
use zeroize::Zeroizing;

/// The folder `pki` of a data directory.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

/// A node's private key and certificate chain. One file holds both, so that they are exchanged at once.
pub struct NodeCertificate {
    /// The leaf.
    pub leaf: CertificateDer<'static>,
    /// The private key.
    pub key: PrivateKeyDer<'static>,
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permissions {
    /// The node's user alone.
    Private,
    /// Everybody.
    Readable,
}

const NODE: &str = "node.pem";
const AUTHORITIES: &str = "authorities.pem";
const JOINING: &str = "joining.pem";
const PENDING: &str = "pending.json";
const RENEWING: &str = "renewing.pem";
/// Keys and certificates are small.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

impl Store {
    /// The store of a data directory; makes the folder.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn open(folder: PathBuf) -> Result<Self, PkiError> {
        private_folder(&folder)?;
        Ok(Self { folder })
    }

    /// The node's key and certificate; `None` if there is none.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn node(&self) -> Result<Option<NodeCertificate>, PkiError> {
        let file = self.folder.join(NODE);
        let Some(text) = read(&file)? else { return Ok(None) };
        let damaged = |what: &str| PkiError::Damaged { file: file.clone(), what: what.to_owned() };
        let leaf = CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| damaged("holds no certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| damaged("holds no private key"))?;
        Ok(Some(NodeCertificate { leaf, key }))
    }

    /// The node's private key alone, in PEM; `None` if there is none.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn node_key_pem(&self) -> Result<Option<Zeroizing<String>>, PkiError> {
        let Some(text) = read(&self.folder.join(NODE))? else { return Ok(None) };
        Ok(text.find("-----BEGIN PRIVATE KEY").and_then(|at| text.get(at..)).map(|key| Zeroizing::new(key.to_owned())))
    }

    /// Keeps the node's key and certificate.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn save_node(&self, key_pem: &str, certificate_pem: &str) -> Result<(), PkiError> {
        let text = Zeroizing::new(format!("{certificate_pem}{key_pem}"));
        write(&self.folder.join(NODE), text.as_bytes(), Permissions::Private)
    }

    /// The authorities that the node trusted last, in PEM; empty if there are none.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn authorities(&self) -> Result<String, PkiError> {
        Ok(read(&self.folder.join(AUTHORITIES))?.map(|text| text.to_string()).unwrap_or_default())
    }

    /// The same, read; each can be trusted.
    ///
    /// # Errors
    /// [`PkiError::File`] and [`PkiError::Damaged`].
    pub fn trusted(&self) -> Result<Vec<TrustedAuthority>, PkiError> {
        let damaged = |what: String| PkiError::Damaged { file: self.folder.join(AUTHORITIES), what };
        let trusted = authorities_from_pem(&self.authorities()?).map_err(|error| damaged(error.to_string()))?;
        for authority in &trusted {
            RootCertStore::empty().add(authority.certificate.clone()).map_err(|error| damaged(error.to_string()))?;
        }
        Ok(trusted)
    }

    /// That the node's certificate and key cannot be used.
    pub(super) fn unusable_node(&self, error: &PkiError) -> PkiError {
        PkiError::Damaged { file: self.folder.join(NODE), what: error.to_string() }
    }

    /// Keeps the authorities that the node trusts.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn save_authorities(&self, pem: &str) -> Result<(), PkiError> {
        write(&self.folder.join(AUTHORITIES), pem.as_bytes(), Permissions::Readable)
    }

    /// An authority whose private key is here; `None` if it is not.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn authority(&self, sha256: &[u8; 32]) -> Result<Option<Arc<Authority>>, PkiError> {
        let file = self.authority_file(sha256);
        let Some(text) = read(&file)? else { return Ok(None) };
        let authority = Authority::from_pem(&text, &text)
            .map_err(|error| PkiError::Damaged { file: file.clone(), what: error.to_string() })?;
        if authority.sha256() != *sha256 {
            return Err(PkiError::Damaged { file, what: "holds another authority than its name says".to_owned() });
        }
        Ok(Some(Arc::new(authority)))
    }

    /// Keeps an authority with its private key.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn save_authority(&self, authority: &Authority) -> Result<(), PkiError> {
        let text = Zeroizing::new(format!("{}{}", authority.certificates_pem(), &*authority.key_pem()));
        write(&self.authority_file(&authority.sha256()), text.as_bytes(), Permissions::Private)
    }

    /// Removes the private key of an authority that is trusted no more.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn forget_authority(&self, sha256: &[u8; 32]) -> Result<(), PkiError> {
        remove(&self.authority_file(sha256))
    }

    /// The authorities whose private keys are here, by the beginnings of their fingerprints.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn authority_files(&self) -> Result<Vec<String>, PkiError> {
        let unreadable = |source| PkiError::File { file: self.folder.clone(), source };
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(unreadable)? {
            let name = entry.map_err(unreadable)?.file_name();
            let name = name.to_string_lossy();
            if let Some(fingerprint) = name.strip_prefix("authority-").and_then(|rest| rest.strip_suffix(".pem")) {
                found.push(fingerprint.to_owned());
            }
        }
        found.sort();
        Ok(found)
    }

    /// The key of a join that was begun and not finished, so that trying again is the same request.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn joining(&self) -> Result<Option<Zeroizing<String>>, PkiError> {
        read(&self.folder.join(JOINING))
    }

    /// Keeps the key of a join that begins.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn save_joining(&self, text: &str) -> Result<(), PkiError> {
        write(&self.folder.join(JOINING), text.as_bytes(), Permissions::Private)
    }

    /// The join is finished.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn forget_joining(&self) -> Result<(), PkiError> {
        remove(&self.folder.join(JOINING))
    }

    /// What waits for certificates from outside.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn pending(&self) -> Result<Option<Zeroizing<String>>, PkiError> {
        read(&self.pending_file())
    }

    /// Keeps what waits for certificates from outside.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub(super) fn save_pending(&self, text: &str) -> Result<(), PkiError> {
        write(&self.pending_file(), text.as_bytes(), Permissions::Private)
    }

    /// Nothing waits any more.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn forget_pending(&self) -> Result<(), PkiError> {
        remove(&self.pending_file())
    }

    /// Where that is.
    pub(super) fn pending_file(&self) -> PathBuf {
        self.folder.join(PENDING)
    }

    /// The private key that a certificate from outside was requested for, to follow the one in use.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn renewing(&self) -> Result<Option<Zeroizing<String>>, PkiError> {
        read(&self.folder.join(RENEWING))
    }

    /// Keeps the key that is to follow the one in use.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn save_renewing(&self, key_pem: &str) -> Result<(), PkiError> {
        write(&self.folder.join(RENEWING), key_pem.as_bytes(), Permissions::Private)
    }

    /// No key is to follow any more.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn forget_renewing(&self) -> Result<(), PkiError> {
        remove(&self.folder.join(RENEWING))
    }

    fn authority_file(&self, sha256: &[u8; 32]) -> PathBuf {
        let beginning: String = hex::encode(sha256).chars().take(16).collect();
        self.folder.join(format!("authority-{beginning}.pem"))
    }
}

/// Makes a folder, and those above it, that only the node's user can enter.
///
/// # Errors
/// [`PkiError::File`].
pub fn private_folder(folder: &Path) -> Result<(), PkiError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| PkiError::File { file: folder.to_owned(), source })
}

/// Writes a file, whole or not at all.
///
/// # Errors
/// [`PkiError::File`].
pub fn write(file: &Path, bytes: &[u8], permissions: Permissions) -> Result<(), PkiError> {
    let failed = |source| PkiError::File { file: file.to_owned(), source };
    let aside = file.with_extension("new");
    remove(&aside)?;
    let mode = match permissions {
        Permissions::Private => 0o600,
        Permissions::Readable => 0o644,
    };
    let mut writer = OpenOptions::new().write(true).create_new(true).mode(mode).open(&aside).map_err(failed)?;
    writer.write_all(bytes).and_then(|()| writer.sync_all()).map_err(failed)?;
    fs::rename(&aside, file).map_err(failed)?;
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    }
    Ok(())
}

fn read(file: &Path) -> Result<Option<Zeroizing<String>>, PkiError> {
    let failed = |source| PkiError::File { file: file.to_owned(), source };
    match fs::metadata(file) {
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
            Err(PkiError::Damaged { file: file.to_owned(), what: "is larger than 1 MiB".to_owned() })
        }
        Ok(_) => fs::read_to_string(file).map(|text| Some(Zeroizing::new(text))).map_err(failed),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Removes a file if it is there.
///
/// # Errors
/// [`PkiError::File`].
pub fn remove(file: &Path) -> Result<(), PkiError> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(PkiError::File { file: file.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::trust::Trust;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn private_files_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("pki")).unwrap();
        let authority = Authority::create([1; 16], 1_800_000_000_000).unwrap();
        store.save_authority(&authority).unwrap();
        let (key, request) = crate::pki::authority::request().unwrap();
        let signed = authority.sign_node(&request, [1; 16], 1, 1_800_000_000_000).unwrap();
        store.save_node(&key, &signed.pem).unwrap();
        for entry in fs::read_dir(folder.path().join("pki")).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let mode = fs::metadata(folder.path().join("pki")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(store.node().unwrap().is_some());
        assert_eq!(store.authority(&authority.sha256()).unwrap().unwrap().sha256(), authority.sha256());
        assert_eq!(store.authority_files().unwrap().len(), 1);
        store.forget_authority(&authority.sha256()).unwrap();
        assert!(store.authority(&authority.sha256()).unwrap().is_none());
    }

    #[test]
    fn damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_owned()).unwrap();
        fs::write(folder.path().join(NODE), "nonsense").unwrap();
        let error = store.node().err().unwrap().to_string();
        assert!(error.ends_with("node.pem: holds no certificate"), "{error}");
    }

    /// Whatever bit of the two files a node starts by is wrong: it is refused by the file's name, or what is loaded can be used.
    #[test]
    fn a_flipped_bit_is_named_or_does_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_owned()).unwrap();
        let authority = Authority::create([1; 16], 1_800_000_000_000).unwrap();
        let (key, request) = crate::pki::authority::request().unwrap();
        store.save_node(&key, &authority.sign_node(&request, [1; 16], 1, 1_800_000_000_000).unwrap().pem).unwrap();
        store.save_authorities(authority.certificates_pem()).unwrap();
        let mut refused = 0;
        for name in [NODE, AUTHORITIES] {
            let file = folder.path().join(name);
            let sound = fs::read(&file).unwrap();
            // An odd step, so that all eight bits come.
            for place in (0..sound.len() * 8).step_by(13) {
                let mut bytes = sound.clone();
                bytes[place / 8] ^= 1 << (place % 8);
                fs::write(&file, &bytes).unwrap();
                if let Err(error) = Trust::load(store.clone()) {
                    assert!(error.to_string().contains(&format!("{name}: ")), "bit {place} of {name}: {error}");
                    refused += 1;
                }
            }
            fs::write(&file, &sound).unwrap();
        }
        assert!(refused > 100, "{refused}");
        Trust::load(store).unwrap();
    }
}

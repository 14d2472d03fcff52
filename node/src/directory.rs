//! A data directory as the commands find it: new, or of a node of some cluster. Who may do what with which is decided
//! here, so that nothing is ever overwritten by mistake.

use crate::{
    config::Settings,
    pki::{
        PkiError,
        identity::{Identity, Origin},
        pending::Pending,
        store::{Permissions, Store, remove, write},
    },
};
use machine::command::Initialize;
use std::path::{Path, PathBuf};
use storage::layout::DataDir;

/// A data directory that this process owns.
#[derive(Debug)]
pub struct Directory {
    /// The lock on it, and its map.
    pub data: DataDir,
    /// Its keys.
    pub store: Store,
    /// Whose it is; `None` for a new one.
    pub identity: Option<Identity>,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another process has it.
    #[error("{0}: a node runs there; stop it first, or use another data_dir")]
    InUse(storage::Error),
    /// It cannot be opened.
    #[error(transparent)]
    Storage(storage::Error),
    /// A file in it.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// It belongs to somebody else.
    #[error("{}: {message}", .folder.display())]
    NotOurs {
        /// Which.
        folder: PathBuf,
        /// Whose it is, and what to do.
        message: String,
    },
}

/// The first entry of a cluster, until it has been applied.
const FIRST_ENTRY: &str = "first-entry.json";

impl Directory {
    /// Opens and locks the data directory of these settings; makes it if there is none.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub fn open(settings: &Settings) -> Result<Self, DirectoryError> {
        let data = DataDir::open(&settings.data_dir).map_err(|error| match error {
            storage::Error::Locked { .. } => DirectoryError::InUse(error),
            error => DirectoryError::Storage(error),
        })?;
        let store = Store::open(data.pki())?;
        let identity = Identity::load(&data.identity())?;
        if let Some(identity) = identity.as_ref().filter(|identity| identity.name != settings.name) {
            return Err(DirectoryError::NotOurs {
                folder: data.path().to_owned(),
                message: format!(
                    "it belongs to node {} with the name {}, and the settings say {}: a node keeps its name; correct the \
                     setting `name`, or use another data_dir",
                    identity.node, identity.name, settings.name
                ),
            });
        }
        Ok(Self { data, store, identity })
    }

    /// Refuses to make anything else of a directory that waits for certificates from outside.
    ///
    /// # Errors
    /// [`DirectoryError::NotOurs`] if it does.
    pub fn refuse_if_pending(&self) -> Result<(), DirectoryError> {
        self.pending()?.map_or(Ok(()), |pending| Err(self.waits(&pending)))
    }

    /// What waits here for certificates from outside; nothing in a directory that is whole.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn pending(&self) -> Result<Option<Pending>, PkiError> {
        if self.identity.is_some() {
            // Whoever made it whole was interrupted at the very end.
            self.store.forget_pending()?;
            return Ok(None);
        }
        Pending::load(&self.store)
    }

    /// What to do about what waits.
    #[must_use]
    pub fn waits(&self, pending: &Pending) -> DirectoryError {
        let how = match pending.identity.origin {
            Origin::Init => "quorate init --certificate FILE --operator-certificate FILE",
            Origin::Join => "quorate join --certificate FILE",
        };
        DirectoryError::NotOurs {
            folder: self.path().to_owned(),
            message: format!(
                "it waits for the certificate of node {} of cluster {}: give it with `{how}`, or use another data_dir",
                pending.identity.node,
                hex::encode(pending.identity.cluster)
            ),
        }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.data.path()
    }

    /// The first entry of a new cluster, if it is still to be proposed.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn first_entry(&self) -> Result<Option<Initialize>, PkiError> {
        let file = self.path().join(FIRST_ENTRY);
        match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| PkiError::Damaged {
                file,
                what: format!("it is not the first entry of a cluster: {error}"),
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(PkiError::File { file, source }),
        }
    }

    /// Keeps the first entry of a new cluster.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn save_first_entry(&self, entry: &Initialize) -> Result<(), PkiError> {
        let file = self.path().join(FIRST_ENTRY);
        let bytes = serde_json::to_vec(entry)
            .map_err(|error| PkiError::Damaged { file: file.clone(), what: error.to_string() })?;
        write(&file, &bytes, Permissions::Private)
    }

    /// The first entry has been applied.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn forget_first_entry(&self) -> Result<(), PkiError> {
        remove(&self.path().join(FIRST_ENTRY))
    }
}

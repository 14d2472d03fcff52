//! `quorate join`: prepares the data directory of a node that joins a cluster. A directory that has joined already stays
//! as it is. Where certificates are signed outside, it takes two steps: a number and a request to sign, then the certificate.

use crate::{
    clock::SystemClock,
    command_line::{Joining, Output},
    config::Settings,
    directory::{Directory, DirectoryError},
    enrol::newcomer::{self, Join, JoinError},
    pki::{
        PkiError,
        identity::{Identity, Origin},
        token::{InvalidToken, JoinToken},
    },
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use zeroize::Zeroizing;

/// How long to go on trying while no node answers, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(30);
/// A token has 79 characters; a larger file is something else.
const TOKEN_FILE_BYTES_MAX: u64 = 4096;

/// Why a node did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinCommandError {
    /// What was given does not make sense.
    #[error("{0}")]
    Request(String),
    /// The token.
    #[error(transparent)]
    Token(#[from] InvalidToken),
    /// The token's file.
    #[error("{}: {source}", .file.display())]
    TokenFile {
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The data directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Keys and certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The cluster.
    #[error(transparent)]
    Join(#[from] JoinError),
}

/// What `join` has to tell.
#[derive(Debug)]
pub struct Joined {
    /// Who the node is.
    pub identity: Identity,
    /// Whether it was a member before.
    pub already: bool,
    /// The request to sign, if its certificate is to come from outside.
    pub request: Option<PathBuf>,
}

/// How a node wants to join; `None` if nothing was said about it.
///
/// # Errors
/// The token is none, or half of what is needed is missing.
pub fn wish(joining: Joining) -> Result<Option<Join>, JoinCommandError> {
    // A variable that is set and empty is how some tools say that there is none.
    let token = match (joining.token.filter(|token| !token.is_empty()), joining.token_file) {
        (Some(token), _) => Zeroizing::new(token),
        (None, Some(file)) => read_token(file)?,
        (None, None) => return Ok(None),
    };
    let token: JoinToken = token.parse()?;
    if joining.peers.is_empty() {
        return Err(JoinCommandError::Request(
            "a join token alone does not say where the cluster is: give --peer HOST:PORT too".to_owned(),
        ));
    }
    let patience = joining.join_timeout.map_or(PATIENCE, |span| span.0);
    Ok(Some(Join { peers: joining.peers, token, learner: joining.learner, patience }))
}

/// Joins, unless the directory has already.
///
/// # Errors
/// [`JoinCommandError`].
pub async fn join(settings: &Settings, joining: Joining, clock: SystemClock) -> Result<Joined, JoinCommandError> {
    let join = needed(joining)?;
    let directory = Directory::open(settings)?;
    if let Some(identity) = &directory.identity {
        return already(&directory, identity, &join);
    }
    directory.refuse_if_pending()?;
    let identity = newcomer::join(settings, &directory.store, &directory.data.identity(), &join, clock).await?;
    Ok(Joined { identity, already: false, request: None })
}

/// Gets a number in a cluster whose certificates are signed outside, and writes the request to sign into this file. Done
/// again with the same token, it writes the same request.
///
/// # Errors
/// [`JoinCommandError`].
pub async fn request(
    settings: &Settings,
    joining: Joining,
    file: &Path,
    clock: SystemClock,
) -> Result<Joined, JoinCommandError> {
    let join = needed(joining)?;
    let directory = Directory::open(settings)?;
    if let Some(identity) = &directory.identity {
        return already(&directory, identity, &join);
    }
    let pending = match directory.pending()? {
        Some(pending) if pending.token_hash == Some(hex::encode(join.token.hash())) => pending,
        Some(pending) => return Err(directory.waits(&pending).into()),
        None => newcomer::reserve(settings, &directory.store, &join, clock).await?,
    };
    pending.write_request(file)?;
    Ok(Joined { identity: pending.identity.clone(), already: false, request: Some(file.to_owned()) })
}

/// Makes the directory whole with the certificate that was requested.
///
/// # Errors
/// [`JoinCommandError`]; the directory stays as it was.
pub fn finish(settings: &Settings, certificate: &Path, clock: SystemClock) -> Result<Joined, JoinCommandError> {
    let directory = Directory::open(settings)?;
    let folder = directory.path().display();
    match &directory.identity {
        Some(identity) if identity.origin == Origin::Join && identity.signed_outside => {
            return Ok(Joined { identity: identity.clone(), already: true, request: None });
        }
        Some(identity) => {
            return Err(JoinCommandError::Request(format!(
                "{folder}: this is node {} already, and no join waits for a certificate here",
                identity.node
            )));
        }
        None => {}
    }
    let Some(pending) = directory.pending()? else {
        return Err(JoinCommandError::Request(format!(
            "{folder}: no certificate was requested here yet: begin with `quorate join --peer HOST:PORT --token TOKEN \
             --csr-out FILE`"
        )));
    };
    if pending.identity.origin != Origin::Join {
        return Err(directory.waits(&pending).into());
    }
    if pending.identity.name != settings.name {
        return Err(JoinCommandError::Request(format!(
            "{folder}: it joined with the name {}, and the settings say {}",
            pending.identity.name, settings.name
        )));
    }
    let authorities_pem = &pending.authorities_pem;
    let signed = pending.holder().take_file(certificate, Some(pending.key_pem()), authorities_pem, clock.utc_ms())?;
    directory.store.save_authorities(authorities_pem)?;
    directory.store.save_node(pending.key_pem(), &signed.pem)?;
    pending.identity.save(&directory.data.identity())?;
    directory.store.forget_pending()?;
    Ok(Joined { identity: pending.identity.clone(), already: false, request: None })
}

fn needed(joining: Joining) -> Result<Join, JoinCommandError> {
    wish(joining)?.ok_or_else(|| {
        JoinCommandError::Request("a join token is needed: --token, --token-file or QUORATE_JOIN_TOKEN".to_owned())
    })
}

fn already(directory: &Directory, identity: &Identity, join: &Join) -> Result<Joined, JoinCommandError> {
    let not_ours = |message: String| {
        JoinCommandError::Directory(DirectoryError::NotOurs { folder: directory.path().to_owned(), message })
    };
    let who = format!("node {} of cluster {}", identity.node, hex::encode(identity.cluster));
    if identity.origin == Origin::Init {
        return Err(not_ours(format!(
            "it belongs to {who}, which began there: it cannot join a cluster; use another data_dir"
        )));
    }
    let trusted = directory.store.trusted()?;
    let same_cluster = trusted.iter().any(|authority| join.token.names_authority(&authority.sha256))
        || join.peers.iter().any(|peer| identity.peers.iter().any(|known| known.address == *peer));
    if !same_cluster {
        return Err(not_ours(format!(
            "it belongs to {who}, and the join token is of another cluster: use another data_dir"
        )));
    }
    Ok(Joined { identity: identity.clone(), already: true, request: None })
}

fn read_token(file: PathBuf) -> Result<Zeroizing<String>, JoinCommandError> {
    let failed = |source| JoinCommandError::TokenFile { file: file.clone(), source };
    if std::fs::metadata(&file).map_err(failed)?.len() > TOKEN_FILE_BYTES_MAX {
        return Err(InvalidToken.into());
    }
    std::fs::read_to_string(&file).map(Zeroizing::new).map_err(failed)
}

impl Joined {
    /// What is printed.
    #[must_use]
    pub fn report(&self, settings: &Settings, config: Option<&Path>, output: Output) -> String {
        let (id, cluster) = (self.identity.node, hex::encode(self.identity.cluster));
        match (output, &self.request) {
            (Output::Json, _) => format!(
                "{}\n",
                serde_json::json!({
                    "cluster": cluster,
                    "node": id,
                    "name": self.identity.name.as_str(),
                    "data_dir": settings.data_dir,
                    "already": self.already,
                    "certificate_request": self.request,
                })
            ),
            (Output::Text, Some(request)) => format!(
                "This is to be node {id} ({name}) of cluster {cluster}.\n\n\
                 Have this signed by the cluster's authority, with the subject, names and usages that it asks for:\n\n  \
                 {request}\n\nThen:\n\n  quorate join{config} --certificate node.pem\n",
                name = self.identity.name,
                request = request.display(),
                config = config_flag(config),
            ),
            (Output::Text, None) => {
                let how = if self.already { "is already" } else { "is now" };
                format!(
                    "This {how} node {id} ({name}) of cluster {cluster}; its data are in {folder}\n\n  quorate run{config}\n",
                    name = self.identity.name,
                    folder = settings.data_dir.display(),
                    config = config_flag(config),
                )
            }
        }
    }
}

/// As it is typed.
pub(crate) fn config_flag(config: Option<&Path>) -> String {
    config.map(|file| format!(" --config {}", file.display())).unwrap_or_default()
}

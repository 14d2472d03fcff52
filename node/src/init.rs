//! `quorate init`: prepares the data directory of a new cluster's first node. Nothing runs yet: the cluster begins when
//! the node is run, with the first entry that is written here. `node.json` is written last, so a directory is either
//! new or whole.
//!
//! - `outside`: the two steps of a cluster whose certificates are signed outside.

pub mod outside;

use crate::{
    clock::SystemClock,
    command_line::Output,
    config::{Settings, value::Span},
    directory::{Directory, DirectoryError},
    enrol::member_spec,
    join::config_flag,
    pki::{
        OPERATOR_LIFE, PkiError,
        authority::{self, Authority, Signed},
        identity::{Identity, Origin},
        random, sha256,
        store::{Permissions, private_folder, write},
        token::{JoinToken, TOKEN_LIFE_MAX_MS},
        trust::authorities_from_pem,
    },
};
use machine::{Name, Wall, command::Initialize};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use zeroize::Zeroizing;

/// What a new cluster is to be.
#[derive(Clone, Debug)]
pub struct NewCluster {
    /// The name of the first operator, an admin.
    pub operator: Name,
    /// Where its context goes; by default into the data directory.
    pub context_dir: Option<PathBuf>,
    /// How long the first join token lasts.
    pub token_life: Duration,
    /// An authority to use: the files of its certificate and key.
    pub authority: Option<(PathBuf, PathBuf)>,
}

/// What `init` has to tell.
#[derive(Debug)]
pub struct Prepared {
    /// The new cluster.
    pub cluster: [u8; 16],
    /// The first operator's context; not known if the directory had been prepared before.
    pub context: Option<PathBuf>,
    /// The first join token, shown once; not known if the directory had been prepared before.
    pub token: Option<Zeroizing<String>>,
    /// When it ends.
    pub token_not_after_ms: u64,
    /// Whether certificates are signed outside.
    pub signed_outside: bool,
}

impl NewCluster {
    /// As the command line says it.
    ///
    /// # Errors
    /// The operator's name is none.
    pub fn from_options(
        operator: &str,
        context_dir: Option<PathBuf>,
        token_life: Span,
        authority: Option<(PathBuf, PathBuf)>,
    ) -> Result<Self, InitError> {
        let operator =
            Name::new(operator).map_err(|error| InitError::Request(format!("the operator {operator:?}: {error}")))?;
        Ok(Self { operator, context_dir, token_life: token_life.0, authority })
    }
}

impl Prepared {
    /// What is printed.
    #[must_use]
    pub fn report(&self, settings: &Settings, config: Option<&Path>, output: Output) -> String {
        let cluster = hex::encode(self.cluster);
        match output {
            Output::Json => format!(
                "{}\n",
                serde_json::json!({
                    "cluster": cluster,
                    "node": FIRST_NODE,
                    "name": settings.name.as_str(),
                    "data_dir": settings.data_dir,
                    "context": self.context,
                    "join_token": self.token.as_ref().map(|token| token.as_str()),
                    "join_token_expires_at_ms": self.token.as_ref().map(|_| self.token_not_after_ms),
                    "already": self.token.is_none(),
                })
            ),
            Output::Text => self.report_text(settings, &cluster, &config_flag(config)),
        }
    }

    fn report_text(&self, settings: &Settings, cluster: &str, config: &str) -> String {
        let folder = settings.data_dir.display();
        let address = &settings.cluster.advertise;
        let context = self.context.as_ref().map_or_else(String::new, |context| {
            format!(
                "\nThe first operator's context (keep it: it administers the cluster):\n\n  {}\n",
                context.display()
            )
        });
        match &self.token {
            Some(token) if self.signed_outside => format!(
                "A new cluster is prepared in {folder}: cluster {cluster}, node {FIRST_NODE} ({name}); its certificates are \
                 signed outside\n{context}\nStart its first node:\n\n  quorate run{config}\n\n\
                 Then, on the second node (the token works once, until it expires):\n\n  \
                 quorate join --config node.toml --peer {address} --token {token} --csr-out node.csr\n  \
                 (have node.csr signed)\n  \
                 quorate join --config node.toml --certificate node.pem\n  quorate run --config node.toml\n\n\
                 A token for each further node: quoratectl cluster join-token\n",
                name = settings.name,
                token = token.as_str(),
            ),
            Some(token) => format!(
                "A new cluster is prepared in {folder}: cluster {cluster}, node {FIRST_NODE} ({name})\n{context}\n\
                 Start its first node:\n\n  quorate run{config}\n\n\
                 Then, on the second node (the token works once, until it expires):\n\n  \
                 quorate join --config node.toml --peer {address} --token {token}\n  quorate run --config node.toml\n\n\
                 A token for each further node: quoratectl cluster join-token\n",
                name = settings.name,
                token = token.as_str(),
            ),
            None => format!(
                "This is already prepared: cluster {cluster}, node {FIRST_NODE} ({name}), in {folder}\n{context}\n  \
                 quorate run{config}\n\nThe join token was shown when it was made; another one: quoratectl cluster \
                 join-token\n",
                name = settings.name,
            ),
        }
    }
}

/// Why there is no new cluster.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The data directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Keys and certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Request(String),
}

/// Prepares the data directory. One that was prepared by an `init` before stays as it is.
///
/// # Errors
/// [`InitError`]; a directory that was new stays new.
pub fn init(settings: &Settings, new: &NewCluster, clock: SystemClock) -> Result<Prepared, InitError> {
    let directory = Directory::open(settings)?;
    if let Some(identity) = &directory.identity {
        return already(&directory, identity);
    }
    directory.refuse_if_pending()?;
    let now_ms = clock.utc_ms();
    let token_ms = token_life_ms(new)?;
    let cluster: [u8; 16] = random()?;
    let authority = match &new.authority {
        Some((certificate, key)) => authority_from_files(certificate, key)?,
        None => Authority::create(cluster, now_ms)?,
    };

    let (node_key, node_request) = authority::request()?;
    let node = authority.sign_node(&node_request, cluster, FIRST_NODE, now_ms)?;
    let (operator_key, operator_request) = authority::request()?;
    let operator = authority.sign_operator(&operator_request, &new.operator, OPERATOR_LIFE, now_ms)?;
    directory.store.save_authority(&authority)?;
    establish(
        &directory,
        settings,
        new,
        &Beginning {
            identity: Identity::new(cluster, FIRST_NODE, settings.name.clone(), Origin::Init, Vec::new()),
            authority_sha256: authority.sha256(),
            authorities_pem: authority.certificates_pem(),
            node_pem: &node.pem,
            node_key: &node_key,
            operator: &new.operator,
            operator_key: &operator_key,
            operator_certificate: &operator,
            token_not_after_ms: now_ms.saturating_add(token_ms),
        },
    )
}

/// All that a new cluster begins with.
struct Beginning<'a> {
    identity: Identity,
    authority_sha256: [u8; 32],
    authorities_pem: &'a str,
    node_pem: &'a str,
    node_key: &'a str,
    operator: &'a Name,
    operator_key: &'a str,
    operator_certificate: &'a Signed,
    token_not_after_ms: u64,
}

/// Writes the directory; `node.json` last.
fn establish(
    directory: &Directory,
    settings: &Settings,
    new: &NewCluster,
    beginning: &Beginning<'_>,
) -> Result<Prepared, InitError> {
    let cluster = beginning.identity.cluster;
    let token_not_after_ms = beginning.token_not_after_ms;
    let token = JoinToken::create(beginning.authority_sha256)?;
    directory.store.save_authorities(beginning.authorities_pem)?;
    directory.store.save_node(beginning.node_key, beginning.node_pem)?;
    let context_dir = new.context_dir.clone().unwrap_or_else(|| directory.path().join("operator"));
    let context_dir = std::path::absolute(&context_dir).unwrap_or(context_dir);
    let context = write_context(
        &context_dir,
        &Context {
            cluster,
            operator: beginning.operator,
            endpoint: &settings.cluster.advertise,
            ca_pem: beginning.authorities_pem,
            certificate_pem: &beginning.operator_certificate.pem,
            key_pem: beginning.operator_key,
        },
    )?;
    directory.save_first_entry(&Initialize {
        cluster,
        feature_level: machine::FEATURE_LEVEL_MAX,
        settings: machine::settings::Settings { voters: settings.voters, ..machine::settings::Settings::default() },
        authority_sha256: beginning.authority_sha256,
        authority_pem: beginning.authorities_pem.to_owned(),
        member: member_spec(settings),
        operator: beginning.operator.clone(),
        operator_certificate_sha256: beginning.operator_certificate.sha256,
        operator_not_after: Wall(beginning.operator_certificate.not_after_ms),
        join_token_hash: token.hash(),
        join_token_not_after: Wall(token_not_after_ms),
    })?;
    beginning.identity.save(&directory.data.identity())?;
    Ok(Prepared {
        cluster,
        context: Some(context),
        token: Some(token.text()),
        token_not_after_ms,
        signed_outside: beginning.identity.signed_outside,
    })
}

fn token_life_ms(new: &NewCluster) -> Result<u64, InitError> {
    let token_ms = u64::try_from(new.token_life.as_millis()).unwrap_or(u64::MAX);
    if token_ms == 0 || token_ms > TOKEN_LIFE_MAX_MS {
        return Err(InitError::Request("a join token lasts between 1 second and 30 days".to_owned()));
    }
    Ok(token_ms)
}

/// The number of a cluster's first member.
const FIRST_NODE: u64 = 1;

fn already(directory: &Directory, identity: &Identity) -> Result<Prepared, InitError> {
    if identity.origin != Origin::Init {
        return Err(InitError::Directory(DirectoryError::NotOurs {
            folder: directory.path().to_owned(),
            message: format!(
                "it belongs to node {} of cluster {}, which it joined: init would make a new cluster; use another data_dir",
                identity.node,
                hex::encode(identity.cluster)
            ),
        }));
    }
    let context = directory.path().join("operator").join(CONTEXT);
    Ok(Prepared {
        cluster: identity.cluster,
        context: context.exists().then_some(context),
        token: None,
        token_not_after_ms: 0,
        signed_outside: identity.signed_outside,
    })
}

fn authority_from_files(certificate: &Path, key: &Path) -> Result<Authority, InitError> {
    let read = |file: &Path| {
        std::fs::read_to_string(file)
            .map(Zeroizing::new)
            .map_err(|source| PkiError::File { file: file.to_owned(), source })
    };
    let certificate_pem = read(certificate)?;
    let authority = Authority::from_pem(&certificate_pem, &read(key)?)
        .map_err(|error| InitError::Request(format!("{}: {error}", certificate.display())))?;
    let trusted = authorities_from_pem(authority.certificates_pem())?;
    let is_self_signed = trusted.first().is_some_and(|authority| {
        trusted.len() == 1 && crate::pki::certificate::is_signed_by(&authority.certificate, &authority.certificate)
    });
    if !is_self_signed || trusted.first().is_none_or(|one| sha256(&one.certificate) != authority.sha256()) {
        return Err(InitError::Request(format!(
            "{}: the cluster's authority must be one self-signed certificate",
            certificate.display()
        )));
    }
    Ok(authority)
}

/// The file that quoratectl is pointed at.
const CONTEXT: &str = "context.toml";

/// What an operator's tools need.
#[derive(Clone, Copy, Debug)]
struct Context<'a> {
    cluster: [u8; 16],
    operator: &'a Name,
    endpoint: &'a str,
    ca_pem: &'a str,
    certificate_pem: &'a str,
    key_pem: &'a str,
}

/// Writes a context and its files into a folder that only its owner can enter.
fn write_context(folder: &Path, context: &Context<'_>) -> Result<PathBuf, PkiError> {
    private_folder(folder)?;
    write(&folder.join("ca.pem"), context.ca_pem.as_bytes(), Permissions::Readable)?;
    write(&folder.join("operator.pem"), context.certificate_pem.as_bytes(), Permissions::Readable)?;
    write(&folder.join("operator.key"), context.key_pem.as_bytes(), Permissions::Private)?;
    let text = format!(
        "cluster = \"{}\"\noperator = \"{}\"\nendpoints = [\"{}\"]\nca = \"ca.pem\"\ncertificate = \"operator.pem\"\nkey = \
         \"operator.key\"\n",
        hex::encode(context.cluster),
        context.operator,
        context.endpoint
    );
    let file = folder.join(CONTEXT);
    write(&file, text.as_bytes(), Permissions::Readable)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{parse, settle};

    fn settings(folder: &Path, name: &str) -> Settings {
        let text = format!("name = '{name}'\ndata_dir = '{}'\n[cluster]\nbind = '127.0.0.1:7400'", folder.display());
        settle(parse(Path::new("node.toml"), &text).unwrap()).unwrap()
    }

    fn new() -> NewCluster {
        NewCluster {
            operator: Name::new("admin").unwrap(),
            context_dir: None,
            token_life: Duration::from_secs(3600),
            authority: None,
        }
    }

    #[test]
    fn a_new_directory_is_prepared_once() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path(), "n1");
        let prepared = init(&settings, &new(), SystemClock).unwrap();
        let token: JoinToken = prepared.token.unwrap().parse().unwrap();
        let directory = Directory::open(&settings).unwrap();
        let entry = directory.first_entry().unwrap().unwrap();
        assert_eq!(entry.cluster, prepared.cluster);
        assert_eq!(entry.join_token_hash, token.hash());
        assert!(token.names_authority(&entry.authority_sha256));
        assert!(prepared.context.unwrap().ends_with("operator/context.toml"));
        crate::pki::trust::Trust::load(directory.store.clone()).unwrap();
        drop(directory);

        let again = init(&settings, &new(), SystemClock).unwrap();
        assert_eq!(again.cluster, prepared.cluster);
        assert!(again.token.is_none());
    }

    #[test]
    fn a_directory_in_use_and_one_of_another_node_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = settings(folder.path(), "n1");
        init(&first, &new(), SystemClock).unwrap();
        let error = init(&settings(folder.path(), "n2"), &new(), SystemClock).unwrap_err().to_string();
        assert!(error.contains("it belongs to node 1 with the name n1"), "{error}");
        let _running = Directory::open(&first).unwrap();
        let error = init(&first, &new(), SystemClock).unwrap_err().to_string();
        assert!(error.contains("in use by another process") && error.contains("stop it first"), "{error}");
    }

    #[test]
    fn an_authority_from_outside() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create([3; 16], SystemClock.utc_ms()).unwrap();
        let (certificate, key) = (folder.path().join("ca.pem"), folder.path().join("ca.key"));
        std::fs::write(&certificate, authority.certificates_pem().replace('\n', "\r\n")).unwrap();
        std::fs::write(&key, authority.key_pem().as_bytes()).unwrap();
        let data = folder.path().join("data");
        let cluster = NewCluster { authority: Some((certificate.clone(), key.clone())), ..new() };
        init(&settings(&data, "n1"), &cluster, SystemClock).unwrap();
        let entry = Directory::open(&settings(&data, "n1")).unwrap().first_entry().unwrap().unwrap();
        assert_eq!(entry.authority_sha256, authority.sha256());

        let other = Authority::create([3; 16], SystemClock.utc_ms()).unwrap();
        std::fs::write(&key, other.key_pem().as_bytes()).unwrap();
        let data = folder.path().join("other");
        let error = init(&settings(&data, "n1"), &cluster, SystemClock).unwrap_err().to_string();
        assert!(error.contains("does not belong to the certificate"), "{error}");
    }
}

//! `init` of a cluster whose certificates are signed outside, in two steps: first keys and the requests to sign them are
//! made, and once the certificates are there, the directory is made whole. Each step can be repeated.

use super::{Beginning, FIRST_NODE, InitError, NewCluster, Prepared, already, establish, token_life_ms};
use crate::{
    clock::SystemClock,
    command_line::Output,
    config::Settings,
    directory::Directory,
    join::config_flag,
    pki::{
        authority,
        certificate::to_pem,
        identity::{Identity, Origin},
        outside::authority_file,
        pending::{Pending, PendingOperator},
        random,
        store::private_folder,
        trust::authorities_from_pem,
    },
};
use machine::Name;
use std::path::{Path, PathBuf};

/// What the first step came to.
#[derive(Debug)]
pub enum Begun {
    /// These wait to be signed.
    Requested(Requested),
    /// The directory was whole before.
    Already(Prepared),
}

/// Requests that wait to be signed.
#[derive(Debug)]
pub struct Requested {
    identity: Identity,
    operator: Name,
    node_request: PathBuf,
    operator_request: PathBuf,
}

/// Makes the keys of the first node and the first operator, and writes the requests to sign them into this folder. Done
/// again, it writes requests for the same keys.
///
/// # Errors
/// [`InitError`].
pub fn request(
    settings: &Settings,
    new: &NewCluster,
    authority: &Path,
    folder: &Path,
    clock: SystemClock,
) -> Result<Begun, InitError> {
    let directory = Directory::open(settings)?;
    if let Some(identity) = &directory.identity {
        return Ok(Begun::Already(already(&directory, identity)?));
    }
    token_life_ms(new)?;
    let authorities_pem = to_pem(&authority_file(authority, clock.utc_ms())?.certificate);
    let before = directory.pending()?;
    if let Some(pending) = before.as_ref().filter(|pending| pending.identity.origin != Origin::Init) {
        return Err(directory.waits(pending).into());
    }
    let pending = match before {
        Some(mut pending) => {
            pending.authorities_pem = authorities_pem;
            pending.operator = match pending.operator.take() {
                Some(operator) => Some(PendingOperator::new(new.operator.clone(), operator.key_pem())),
                None => Some(PendingOperator::new(new.operator.clone(), &authority::request()?.0)),
            };
            pending
        }
        None => {
            let identity = Identity::new(random()?, FIRST_NODE, settings.name.clone(), Origin::Init, Vec::new());
            let mut pending = Pending::new(identity, authorities_pem, &authority::request()?.0);
            pending.operator = Some(PendingOperator::new(new.operator.clone(), &authority::request()?.0));
            pending
        }
    };
    // The keys first: a request whose key is lost is of no use.
    pending.save(&directory.store)?;
    private_folder(folder)?;
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let (node_request, operator_request) = (folder.join("node.csr"), folder.join("operator.csr"));
    pending.write_request(&node_request)?;
    if let Some(operator) = &pending.operator {
        operator.write_request(&operator_request)?;
    }
    let (identity, operator) = (pending.identity.clone(), new.operator.clone());
    Ok(Begun::Requested(Requested { identity, operator, node_request, operator_request }))
}

/// Makes the directory whole with the certificates of its node and of the first operator.
///
/// # Errors
/// [`InitError`]; the directory stays as it was.
pub fn finish(
    settings: &Settings,
    new: &NewCluster,
    certificate: &Path,
    operator_certificate: &Path,
    clock: SystemClock,
) -> Result<Prepared, InitError> {
    let directory = Directory::open(settings)?;
    if let Some(identity) = &directory.identity {
        return already(&directory, identity);
    }
    let now_ms = clock.utc_ms();
    let token_ms = token_life_ms(new)?;
    let pending = directory.pending()?;
    if let Some(pending) = pending.as_ref().filter(|pending| pending.operator.is_none()) {
        return Err(directory.waits(pending).into());
    }
    let Some((pending, operator)) = pending.as_ref().and_then(|pending| Some((pending, pending.operator.as_ref()?)))
    else {
        return Err(InitError::Request(format!(
            "{}: no certificate was requested here yet: begin with `quorate init --ca-certificate FILE --csr-out FOLDER`",
            directory.path().display()
        )));
    };
    if pending.identity.name != settings.name {
        return Err(InitError::Request(format!(
            "{}: certificates were requested for the node name {}, and the settings say {}",
            directory.path().display(),
            pending.identity.name,
            settings.name
        )));
    }
    let authorities_pem = &pending.authorities_pem;
    let node = pending.holder().take_file(certificate, Some(pending.key_pem()), authorities_pem, now_ms)?;
    let operator_certificate =
        operator.holder().take_file(operator_certificate, Some(operator.key_pem()), authorities_pem, now_ms)?;
    let authorities = authorities_from_pem(authorities_pem)?;
    let Some(authority) = authorities.first() else {
        return Err(InitError::Request("there is no certificate of an authority".to_owned()));
    };
    let prepared = establish(
        &directory,
        settings,
        new,
        &Beginning {
            identity: pending.identity.clone(),
            authority_sha256: authority.sha256,
            authorities_pem,
            node_pem: &node.pem,
            node_key: pending.key_pem(),
            operator: &operator.name,
            operator_key: operator.key_pem(),
            operator_certificate: &operator_certificate,
            token_not_after_ms: now_ms.saturating_add(token_ms),
        },
    )?;
    directory.store.forget_pending()?;
    Ok(prepared)
}

impl Begun {
    /// What is printed.
    #[must_use]
    pub fn report(&self, settings: &Settings, config: Option<&Path>, output: Output) -> String {
        match self {
            Self::Requested(requested) => requested.report(settings, config, output),
            Self::Already(prepared) => prepared.report(settings, config, output),
        }
    }
}

impl Requested {
    fn report(&self, settings: &Settings, config: Option<&Path>, output: Output) -> String {
        let cluster = hex::encode(self.identity.cluster);
        match output {
            Output::Json => format!(
                "{}\n",
                serde_json::json!({
                    "cluster": cluster,
                    "node": self.identity.node,
                    "name": self.identity.name.as_str(),
                    "data_dir": settings.data_dir,
                    "certificate_request": self.node_request,
                    "operator_certificate_request": self.operator_request,
                    "already": false,
                })
            ),
            Output::Text => format!(
                "A new cluster is begun in {folder}: cluster {cluster}, node {FIRST_NODE} ({name})\n\n\
                 Have these signed by the authority, with the subject, names and usages that they ask for:\n\n  \
                 {node}\n  {operator} (the first operator, {operator_name})\n\n\
                 Then:\n\n  quorate init{config} --certificate node.pem --operator-certificate operator.pem\n",
                folder = settings.data_dir.display(),
                name = self.identity.name,
                node = self.node_request.display(),
                operator = self.operator_request.display(),
                operator_name = self.operator,
                config = config_flag(config),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{parse, settle},
        pki::authority::Authority,
    };
    use machine::Name;
    use std::{fs, time::Duration};

    struct Corner {
        folder: tempfile::TempDir,
        authority: Authority,
        settings: Settings,
        new: NewCluster,
    }

    impl Corner {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let authority = Authority::create([3; 16], SystemClock.utc_ms()).unwrap();
            fs::write(folder.path().join("ca.pem"), authority.certificates_pem()).unwrap();
            let text = format!(
                "name = 'n1'\ndata_dir = '{}/data'\n[cluster]\nbind = '127.0.0.1:7400'",
                folder.path().display()
            );
            let settings = settle(parse(Path::new("node.toml"), &text).unwrap()).unwrap();
            let new = NewCluster {
                operator: Name::new("ann").unwrap(),
                context_dir: None,
                token_life: Duration::from_secs(3600),
                authority: None,
            };
            Self { folder, authority, settings, new }
        }

        fn file(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn request(&self) -> Result<Begun, InitError> {
            request(&self.settings, &self.new, &self.file("ca.pem"), &self.file("csr"), SystemClock)
        }

        /// Signs both requests, the node's for this cluster.
        fn sign(&self, cluster: [u8; 16]) {
            let now_ms = SystemClock.utc_ms();
            let node = fs::read_to_string(self.file("csr/node.csr")).unwrap();
            let node = self.authority.sign_node(&node, cluster, FIRST_NODE, now_ms).unwrap();
            fs::write(self.file("node.pem"), node.pem).unwrap();
            let operator = fs::read_to_string(self.file("csr/operator.csr")).unwrap();
            let life = Duration::from_secs(86_400);
            let operator = self.authority.sign_operator(&operator, &self.new.operator, life, now_ms).unwrap();
            fs::write(self.file("operator.pem"), operator.pem).unwrap();
        }

        fn finish(&self) -> Result<Prepared, InitError> {
            finish(&self.settings, &self.new, &self.file("node.pem"), &self.file("operator.pem"), SystemClock)
        }

        fn cluster(&self) -> [u8; 16] {
            Directory::open(&self.settings).unwrap().pending().unwrap().unwrap().identity.cluster
        }
    }

    #[test]
    fn two_steps_make_a_directory_without_the_authoritys_key() {
        let corner = Corner::new();
        assert!(corner.finish().unwrap_err().to_string().contains("no certificate was requested here yet"));
        assert!(matches!(corner.request().unwrap(), Begun::Requested(_)));
        let cluster = corner.cluster();
        corner.request().unwrap();
        assert_eq!(corner.cluster(), cluster, "done again, it is the same cluster");
        let error = super::super::init(&corner.settings, &corner.new, SystemClock).unwrap_err().to_string();
        assert!(error.contains("it waits for the certificate of node 1"), "{error}");

        corner.sign(cluster);
        let prepared = corner.finish().unwrap();
        assert!(prepared.signed_outside && prepared.token.is_some());
        let directory = Directory::open(&corner.settings).unwrap();
        assert!(directory.identity.as_ref().unwrap().signed_outside);
        assert!(directory.store.authority_files().unwrap().is_empty());
        assert!(directory.pending().unwrap().is_none());
        assert_eq!(directory.first_entry().unwrap().unwrap().authority_sha256, corner.authority.sha256());
        crate::pki::trust::Trust::load(directory.store.clone()).unwrap();
        drop(directory);
        assert!(corner.finish().unwrap().token.is_none(), "done again, nothing changes");
        assert!(matches!(corner.request().unwrap(), Begun::Already(_)));
    }

    #[test]
    fn what_is_wrong_is_named_and_nothing_is_written() {
        let corner = Corner::new();
        corner.request().unwrap();
        let cluster = corner.cluster();
        corner.sign([9; 16]);
        let error = corner.finish().unwrap_err().to_string();
        assert!(error.contains("node.pem: it must be for CN=node-1"), "{error}");
        corner.sign(cluster);
        fs::copy(corner.file("node.pem"), corner.file("operator.pem")).unwrap();
        let error = corner.finish().unwrap_err().to_string();
        assert!(error.contains("operator.pem: it must be for CN=ann, OU=operator"), "{error}");
        let directory = Directory::open(&corner.settings).unwrap();
        assert!(directory.identity.is_none() && directory.first_entry().unwrap().is_none());
        assert!(directory.store.node().unwrap().is_none());
        drop(directory);
        corner.sign(cluster);
        corner.finish().unwrap();
    }
}

//! `quorate certificate`: renews the certificate of a node where certificates are signed outside. Beside a node that runs:
//! nothing here takes the lock of the data directory, and what a running node reads is exchanged whole.

use crate::{
    clock::SystemClock,
    config::Settings,
    join::config_flag,
    pki::{
        PkiError, authority,
        identity::Identity,
        outside::{Holder, time},
        pending::write_request,
        store::Store,
    },
};
use std::path::{Path, PathBuf};
use storage::layout;

/// Why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// Keys, certificates, and the files of both.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// There is no node.
    #[error("{}: is not the data directory of a node", .0.display())]
    NoNode(PathBuf),
    /// The cluster does it itself.
    #[error(
        "{}: this cluster signs the certificates of its nodes itself, and they renew themselves while they run: there is \
         nothing to have signed",
        .0.display()
    )]
    SignedInside(PathBuf),
}

/// Makes the key that is to follow, or takes the one that was made and not used yet, and writes the request to sign it.
/// What is printed.
///
/// # Errors
/// [`RenewError`].
pub fn request(settings: &Settings, config: Option<&Path>, file: &Path) -> Result<String, RenewError> {
    let (identity, store) = node(settings)?;
    let key = match store.renewing()? {
        Some(key) => key,
        None => authority::request()?.0,
    };
    let request = holder(&identity).request(&key)?;
    store.save_renewing(&key)?;
    write_request(file, &request)?;
    Ok(format!(
        "Have this signed by the cluster's authority, with the subject, names and usages that it asks for:\n\n  {}\n\nThen:\n\n  \
         quorate certificate install{} --certificate node.pem\n",
        file.display(),
        config_flag(config)
    ))
}

/// Checks a certificate and puts it into the data directory with its key: the one that was requested last, or the one in
/// use. What is printed.
///
/// # Errors
/// [`RenewError`]; nothing has changed.
pub fn install(settings: &Settings, certificate: &Path, clock: SystemClock) -> Result<String, RenewError> {
    let (identity, store) = node(settings)?;
    let (authorities_pem, now_ms) = (store.authorities()?, clock.utc_ms());
    let key = match store.renewing()? {
        Some(key) => key,
        None => store.node_key_pem()?.ok_or_else(|| RenewError::NoNode(settings.data_dir.clone()))?,
    };
    let signed = holder(&identity).take_file(certificate, Some(&key), &authorities_pem, now_ms)?;
    store.save_node(&key, &signed.pem)?;
    store.forget_renewing()?;
    Ok(format!(
        "Node {} has a certificate until {}. A node that runs uses it after SIGHUP.\n",
        identity.node,
        time(signed.not_after_ms)
    ))
}

fn holder(identity: &Identity) -> Holder<'_> {
    Holder::Node { cluster: &identity.cluster, id: identity.node }
}

/// The node of a data directory, and its keys.
fn node(settings: &Settings) -> Result<(Identity, Store), RenewError> {
    let folder = &settings.data_dir;
    let identity = Identity::load(&layout::identity(folder))?.ok_or_else(|| RenewError::NoNode(folder.clone()))?;
    if !identity.signed_outside {
        return Err(RenewError::SignedInside(folder.clone()));
    }
    Ok((identity, Store::open(layout::pki(folder))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{parse, settle},
        pki::{authority::Authority, certificate::validity, identity::Origin, trust::Trust},
    };
    use machine::Name;
    use std::fs;

    const CLUSTER: [u8; 16] = [5; 16];

    #[test]
    fn a_certificate_is_exchanged_only_for_a_good_one() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let text = format!("name = 'n1'\ndata_dir = '{}'\n[cluster]\nbind = '127.0.0.1:7400'", data.display());
        let settings = settle(parse(Path::new("node.toml"), &text).unwrap()).unwrap();
        let (csr, pem) = (folder.path().join("node.csr"), folder.path().join("node.pem"));
        let refusal = || install(&settings, &pem, SystemClock).unwrap_err().to_string();
        assert!(refusal().contains("is not the data directory of a node"));
        assert!(!data.exists(), "looking makes nothing");

        let now_ms = SystemClock.utc_ms();
        let outside = Authority::create(CLUSTER, now_ms).unwrap();
        let store = Store::open(layout::pki(&data)).unwrap();
        let (key, request_pem) = authority::request().unwrap();
        store.save_node(&key, &outside.sign_node(&request_pem, CLUSTER, 1, now_ms - 86_400_000).unwrap().pem).unwrap();
        store.save_authorities(outside.certificates_pem()).unwrap();
        let identity = Identity::new(CLUSTER, 1, Name::new("n1").unwrap(), Origin::Init, Vec::new());
        identity.save(&layout::identity(&data)).unwrap();
        let error = request(&settings, None, &csr).unwrap_err().to_string();
        assert!(error.contains("renew themselves"), "{error}");
        identity.with_certificates_from_outside().save(&layout::identity(&data)).unwrap();

        let before = fs::read(layout::pki(&data).join("node.pem")).unwrap();
        request(&settings, None, &csr).unwrap();
        request(&settings, None, &csr).unwrap();
        let request_pem = fs::read_to_string(&csr).unwrap();
        let sign =
            |authority: &Authority, request: &str, id| authority.sign_node(request, CLUSTER, id, now_ms).unwrap().pem;
        fs::write(&pem, sign(&outside, &request_pem, 2)).unwrap();
        assert!(refusal().contains("node.pem: it must be for CN=node-1"));
        fs::write(&pem, sign(&outside, &authority::request().unwrap().1, 1)).unwrap();
        assert!(refusal().contains("it is for another key"));
        fs::write(&pem, sign(&Authority::create(CLUSTER, now_ms).unwrap(), &request_pem, 1)).unwrap();
        assert!(refusal().contains("the cluster's authority did not sign it"));
        assert_eq!(fs::read(layout::pki(&data).join("node.pem")).unwrap(), before);

        fs::write(&pem, sign(&outside, &request_pem, 1)).unwrap();
        install(&settings, &pem, SystemClock).unwrap();
        let trust = Trust::load(store.clone()).unwrap();
        let shown = validity(&store.node().unwrap().unwrap().leaf).unwrap();
        assert_eq!(trust.shown().unwrap().not_after_ms, shown.not_after_ms);
        assert!(shown.not_after_ms > now_ms + 29 * 86_400_000, "it is the new one");
        assert!(store.renewing().unwrap().is_none());
        install(&settings, &pem, SystemClock).unwrap();
    }
}

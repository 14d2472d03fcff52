//! Certificates that are signed outside: what is asked for, and whether what came back is what the cluster needs. All of
//! it is asked before anything is written, and what is wrong is said, because whoever signs has never seen this cluster.

use super::{
    ANY_NODE, PkiError,
    authority::{Signed, read_key},
    certificate::{Speaker, Validity, dns_names, has_name, is_signed_by, parse, read_all, speaker, to_pem, validity},
    node_server_name, sha256,
    trust::{TrustedAuthority, authorities_from_pem, provider},
};
use machine::{Name, member::NodeId};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    server::WebPkiClientVerifier,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::{path::Path, sync::Arc, time::Duration};
use zeroize::Zeroizing;

/// Certificates with what is above them, and whatever a tool writes around them.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Whom a certificate from outside is for.
#[derive(Clone, Copy, Debug)]
pub enum Holder<'a> {
    /// A node of a cluster.
    Node {
        /// The cluster.
        cluster: &'a [u8; 16],
        /// Its number.
        id: NodeId,
    },
    /// An operator.
    Operator(&'a Name),
}

impl Holder<'_> {
    /// The request to sign a key for this holder, which says all that the certificate must say.
    ///
    /// # Errors
    /// The key cannot be read.
    pub fn request(&self, key_pem: &str) -> Result<String, PkiError> {
        let mut subject = DistinguishedName::new();
        let mut params = match self {
            Self::Node { cluster, id } => {
                subject.push(DnType::CommonName, format!("node-{id}"));
                subject.push(DnType::OrganizationName, hex::encode(cluster));
                let mut params = CertificateParams::new(vec![ANY_NODE.to_owned(), node_server_name(*id)])?;
                params.extended_key_usages =
                    vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
                params
            }
            Self::Operator(name) => {
                subject.push(DnType::CommonName, name.as_str());
                subject.push(DnType::OrganizationalUnitName, "operator");
                let mut params = CertificateParams::default();
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                params
            }
        };
        params.distinguished_name = subject;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.serialize_request(&read_key(key_pem)?)?.pem().map_err(PkiError::from)
    }

    /// Whether a certificate is this holder's, for this key (if it is known), and good at this instant by these
    /// authorities. When it begins and ends.
    ///
    /// # Errors
    /// [`PkiError::Certificate`]: what is wrong with it.
    pub fn check(
        &self,
        leaf: &CertificateDer<'_>,
        key: Option<&PrivateKeyDer<'_>>,
        authorities: &[TrustedAuthority],
        now_ms: u64,
    ) -> Result<Validity, PkiError> {
        let (_, parsed) = parse(leaf)?;
        let subject = parsed.subject().to_string();
        match (self, speaker(leaf)) {
            (Self::Node { cluster, id }, Some(Speaker::Node { cluster: of, id: named }))
                if of == **cluster && named == *id => {}
            (Self::Operator(name), Some(Speaker::Operator { name: named })) if named == **name => {}
            _ => {
                let names = dns_names(&parsed).join(" and ");
                let names = if names.is_empty() { "without DNS names".to_owned() } else { format!("with {names}") };
                return wrong(format!("it must be for {}; it is for {subject:?}, {names}", self.wanted()));
            }
        }
        if matches!(self, Self::Node { .. }) && !has_name(&parsed, ANY_NODE) {
            return wrong(format!("it must be for {}; the name {ANY_NODE} is missing", self.wanted()));
        }
        if parsed.is_ca() {
            return wrong("it is the certificate of an authority (CA)".to_owned());
        }
        if let Some(key) = key {
            let key = KeyPair::try_from(key)
                .map_err(|_| PkiError::Certificate("the private key cannot be read".to_owned()))?;
            if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
                return wrong(
                    "it is for another key: it must be signed from the request that was written last".to_owned(),
                );
            }
        }
        if !authorities.iter().any(|authority| is_signed_by(leaf, &authority.certificate)) {
            return wrong(format!(
                "the cluster's authority did not sign it (its issuer is {:?})",
                parsed.issuer().to_string()
            ));
        }
        let validity = validity(leaf)?;
        if now_ms < validity.not_before_ms {
            return wrong(format!("it is not good yet, only from {} on", time(validity.not_before_ms)));
        }
        if now_ms >= validity.not_after_ms {
            return wrong(format!("it has expired at {}", time(validity.not_after_ms)));
        }
        self.shake(leaf, authorities, now_ms)?;
        Ok(validity)
    }

    /// What the other side of a connection will ask.
    fn shake(&self, leaf: &CertificateDer<'_>, authorities: &[TrustedAuthority], now_ms: u64) -> Result<(), PkiError> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority.certificate.clone())?;
        }
        let roots = Arc::new(roots);
        let now = UnixTime::since_unix_epoch(Duration::from_millis(now_ms));
        let refused = |role: &str, why: &dyn std::fmt::Display| {
            PkiError::Certificate(format!("it cannot be used as a {role}'s certificate: {why}"))
        };
        let client = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
            .build()
            .map_err(|error| refused("client", &error))?;
        client.verify_client_cert(leaf, &[], now).map_err(|error| refused("client", &error))?;
        if let Self::Node { id, .. } = self {
            let server = WebPkiServerVerifier::builder_with_provider(roots, provider())
                .build()
                .map_err(|error| refused("server", &error))?;
            for name in [node_server_name(*id), ANY_NODE.to_owned()] {
                let name = ServerName::try_from(name).map_err(|error| refused("server", &error))?;
                server.verify_server_cert(leaf, &[], &name, &[], now).map_err(|error| refused("server", &error))?;
            }
        }
        Ok(())
    }

    /// What its certificate says.
    fn wanted(&self) -> String {
        match self {
            Self::Node { cluster, id } => format!(
                "CN=node-{id}, O={}, without OU, with the DNS names {} and {ANY_NODE}",
                hex::encode(cluster),
                node_server_name(*id)
            ),
            Self::Operator(name) => format!("CN={name}, OU=operator"),
        }
    }

    /// The certificate in a text, checked as by [`Holder::check`]; what stands behind it in the text is passed over.
    ///
    /// # Errors
    /// As there.
    pub fn take(
        &self,
        pem: &str,
        key_pem: Option<&str>,
        authorities_pem: &str,
        now_ms: u64,
    ) -> Result<Signed, PkiError> {
        let leaf = read_all(pem)?
            .into_iter()
            .next()
            .ok_or_else(|| PkiError::Certificate("there is no certificate in it".to_owned()))?;
        let key = key_pem.map(read_key).transpose()?.map(|key| PrivateKeyDer::Pkcs8(key.serialize_der().into()));
        let validity = self.check(&leaf, key.as_ref(), &authorities_from_pem(authorities_pem)?, now_ms)?;
        Ok(Signed { pem: to_pem(&leaf), sha256: sha256(&leaf), not_after_ms: validity.not_after_ms })
    }

    /// The same of a file, which is named if it is no good.
    ///
    /// # Errors
    /// As there, or the file cannot be read.
    pub fn take_file(
        &self,
        file: &Path,
        key_pem: Option<&str>,
        authorities_pem: &str,
        now_ms: u64,
    ) -> Result<Signed, PkiError> {
        let text = read_file(file)?;
        self.take(&text, key_pem, authorities_pem, now_ms)
            .map_err(|error| PkiError::Damaged { file: file.to_owned(), what: error.to_string() })
    }
}

/// The certificate of an authority whose key is elsewhere: one, self-signed, and good at this instant.
///
/// # Errors
/// What is wrong with the file.
pub fn authority_file(file: &Path, now_ms: u64) -> Result<TrustedAuthority, PkiError> {
    let damaged = |what: String| PkiError::Damaged { file: file.to_owned(), what };
    let authorities = authorities_from_pem(&read_file(file)?).map_err(|error| damaged(error.to_string()))?;
    let [authority] = authorities.as_slice() else {
        return Err(damaged("the cluster's authority must be one certificate, and here are several".to_owned()));
    };
    let (_, parsed) = parse(&authority.certificate)?;
    if !authority.bridges.is_empty() || !is_signed_by(&authority.certificate, &authority.certificate) {
        return Err(damaged("the cluster's authority must be one self-signed certificate".to_owned()));
    }
    if !parsed.is_ca() {
        return Err(damaged("the certificate is not that of an authority (CA)".to_owned()));
    }
    let validity = validity(&authority.certificate)?;
    if now_ms < validity.not_before_ms || now_ms >= validity.not_after_ms {
        return Err(damaged(format!(
            "the authority is good from {} to {}, and not now",
            time(validity.not_before_ms),
            time(validity.not_after_ms)
        )));
    }
    Ok(authority.clone())
}

fn read_file(file: &Path) -> Result<Zeroizing<String>, PkiError> {
    let failed = |source| PkiError::File { file: file.to_owned(), source };
    if std::fs::metadata(file).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(PkiError::Damaged {
            file: file.to_owned(),
            what: "it is too large to be a certificate".to_owned(),
        });
    }
    std::fs::read_to_string(file).map(Zeroizing::new).map_err(failed)
}

fn wrong<T>(what: String) -> Result<T, PkiError> {
    Err(PkiError::Certificate(what))
}

/// An instant, for people.
pub(crate) fn time(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| "the end of time".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests;

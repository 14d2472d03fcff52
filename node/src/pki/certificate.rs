//! Reads who a certificate speaks for. Only the shape is judged here: that an authority of the cluster signed it is TLS'
//! business, that its holder is still welcome is the cluster port's.

use super::{PkiError, node_server_name};
use data_encoding::BASE64;
use machine::{Name, member::NodeId};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

/// Whom a certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// A node of a cluster.
    Node {
        /// Of this cluster.
        cluster: [u8; 16],
        /// Its number.
        id: NodeId,
    },
    /// An operator.
    Operator {
        /// As the registry knows it.
        name: Name,
    },
}

/// When a certificate begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first instant.
    pub not_before_ms: u64,
    /// The last instant.
    pub not_after_ms: u64,
}

/// Whom a certificate names; nobody if it is neither a node's nor an operator's.
#[must_use]
pub fn speaker(der: &CertificateDer<'_>) -> Option<Speaker> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let subject = certificate.subject();
    let common_name = subject.iter_common_name().next()?.as_str().ok()?;
    let unit = subject.iter_organizational_unit().next().and_then(|unit| unit.as_str().ok());
    match unit {
        Some("operator") => Some(Speaker::Operator { name: Name::new(common_name).ok()? }),
        Some(_) => None,
        None => {
            let id: NodeId = common_name.strip_prefix("node-")?.parse().ok()?;
            let organization = subject.iter_organization().next()?.as_str().ok()?;
            let cluster: [u8; 16] = hex::decode(organization).ok()?.try_into().ok()?;
            has_name(&certificate, &node_server_name(id)).then_some(Speaker::Node { cluster, id })
        }
    }
}

pub(super) fn has_name(certificate: &X509Certificate<'_>, wanted: &str) -> bool {
    dns_names(certificate).contains(&wanted)
}

/// The DNS names that a certificate carries.
pub(super) fn dns_names<'a>(certificate: &'a X509Certificate<'_>) -> Vec<&'a str> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let dns = |name: &GeneralName<'a>| if let GeneralName::DNSName(name) = name { Some(*name) } else { None };
    names.value.general_names.iter().filter_map(dns).collect()
}

/// When a certificate begins and ends.
///
/// # Errors
/// It cannot be read.
pub fn validity(der: &CertificateDer<'_>) -> Result<Validity, PkiError> {
    let (_, certificate) = parse(der)?;
    let ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
    Ok(Validity {
        not_before_ms: ms(certificate.validity().not_before.timestamp()),
        not_after_ms: ms(certificate.validity().not_after.timestamp()),
    })
}

/// Whether this authority signed this certificate.
#[must_use]
pub fn is_signed_by(der: &CertificateDer<'_>, authority: &CertificateDer<'_>) -> bool {
    let (Ok((_, certificate)), Ok((_, authority))) = (parse(der), parse(authority)) else { return false };
    certificate.issuer() == authority.subject() && certificate.verify_signature(Some(authority.public_key())).is_ok()
}

pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<(&'a [u8], X509Certificate<'a>), PkiError> {
    x509_parser::parse_x509_certificate(der)
        .map_err(|_| PkiError::Certificate("the certificate cannot be read".to_owned()))
}

/// The certificates in a text, in order; anything else in it is passed over.
///
/// # Errors
/// One of them cannot be read.
pub fn read_all(pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| PkiError::Certificate(format!("the certificates cannot be read: {error}")))
}

/// A certificate as text.
#[must_use]
pub fn to_pem(der: &CertificateDer<'_>) -> String {
    let encoded = BASE64.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at_checked(64).unwrap_or((rest, ""));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

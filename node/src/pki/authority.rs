//! A certificate authority with its private key: makes itself and signs for others. What it signs says only what the
//! signer decided: of a request to sign, nothing but the public key is taken.

use super::{
    ANY_NODE, AUTHORITY_LIFE, BACKDATE, NODE_LIFE, PEM_BYTES_MAX, PkiError,
    certificate::{read_all, to_pem, validity},
    node_server_name, random, sha256,
};
use machine::{Name, member::NodeId};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SerialNumber, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{fmt, net::IpAddr, time::Duration};
use zeroize::Zeroizing;

/// An authority that can sign.
pub struct Authority {
    /// Its certificate; behind it, if it followed another one, the same key certified by that one.
    certificates_pem: String,
    der: CertificateDer<'static>,
    sha256: [u8; 32],
    not_after_ms: u64,
    key: KeyPair,
}

/// A certificate that was just signed.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The certificate in PEM, without its authority.
    pub pem: String,
    /// SHA-256 of its DER.
    pub sha256: [u8; 32],
    /// When it ends.
    pub not_after_ms: u64,
}

impl Authority {
    /// Makes the first authority of a cluster.
    ///
    /// # Errors
    /// [`PkiError::Crypto`].
    pub fn create(cluster: [u8; 16], now_ms: u64) -> Result<Self, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let params = authority_params(cluster, now_ms, random()?, 1)?;
        let certificate = params.self_signed(&key)?;
        Self::new(vec![certificate.into()], key)
    }

    /// Makes the authority that follows this one. The one before certifies its key too, so that whoever knows only the
    /// one before (a node that was away, an operator's context) still accepts what the new one signs.
    ///
    /// # Errors
    /// [`PkiError::Crypto`].
    pub fn create_next(&self, cluster: [u8; 16], now_ms: u64) -> Result<Self, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let label = random()?;
        let certificate = authority_params(cluster, now_ms, label, 1)?.self_signed(&key)?;
        let mut bridge = authority_params(cluster, now_ms, label, 0)?;
        let not_after_ms = self.not_after_ms.min(plus(now_ms, AUTHORITY_LIFE));
        set_validity(&mut bridge, now_ms.saturating_sub(millis(BACKDATE)), not_after_ms);
        bridge.use_authority_key_identifier_extension = true;
        let bridge = bridge.signed_by(&key, &self.issuer()?)?;
        Self::new(vec![certificate.into(), bridge.into()], key)
    }

    /// An authority from its certificate (the first in the text, bridges behind it) and private key. One text may hold
    /// both.
    ///
    /// # Errors
    /// They cannot be read, do not belong together, or are not those of an authority.
    pub fn from_pem(certificates_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        Self::new(read_all(certificates_pem)?, read_key(key_pem)?)
    }

    fn new(certificates: Vec<CertificateDer<'static>>, key: KeyPair) -> Result<Self, PkiError> {
        let certificates_pem = certificates.iter().map(to_pem).collect();
        let der = certificates
            .into_iter()
            .next()
            .ok_or_else(|| PkiError::Certificate("there is no certificate of an authority".to_owned()))?;
        let not_after_ms = {
            let (_, parsed) = x509_parser::parse_x509_certificate(&der)
                .map_err(|_| PkiError::Certificate("the certificate of the authority cannot be read".to_owned()))?;
            if !parsed.is_ca() {
                return Err(PkiError::Certificate("the certificate is not that of an authority (CA)".to_owned()));
            }
            if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
                return Err(PkiError::Certificate(
                    "the private key does not belong to the certificate of the authority".to_owned(),
                ));
            }
            u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0).saturating_mul(1000)
        };
        Ok(Self { sha256: sha256(&der), certificates_pem, der, not_after_ms, key })
    }

    /// SHA-256 of the DER of its certificate: how everything else names it.
    #[must_use]
    pub const fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Its certificate in PEM, and behind it the bridge from the authority before, if there was one.
    #[must_use]
    pub fn certificates_pem(&self) -> &str {
        &self.certificates_pem
    }

    /// Its private key in PEM.
    #[must_use]
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.key.serialize_pem())
    }

    /// Signs a node's request.
    ///
    /// # Errors
    /// [`PkiError::Request`] if it cannot be read or is not signed by its own key.
    pub fn sign_node(&self, request_pem: &str, cluster: [u8; 16], id: NodeId, now_ms: u64) -> Result<Signed, PkiError> {
        let mut params = CertificateParams::new(vec![ANY_NODE.to_owned(), node_server_name(id)])?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("node-{id}"));
        params.distinguished_name.push(DnType::OrganizationName, hex::encode(cluster));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, &public_key(request_pem)?, now_ms, NODE_LIFE)
    }

    /// Signs an operator's request. The certificate opens nothing until the registry names it.
    ///
    /// # Errors
    /// [`PkiError::Request`] if it cannot be read or is not signed by its own key.
    pub fn sign_operator(
        &self,
        request_pem: &str,
        name: &Name,
        life: Duration,
        now_ms: u64,
    ) -> Result<Signed, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        params.distinguished_name.push(DnType::OrganizationalUnitName, "operator");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, &public_key(request_pem)?, now_ms, life)
    }

    /// Makes a key and a certificate for a server that is no node, as a gateway listener on a developer's machine.
    ///
    /// # Errors
    /// [`PkiError::Crypto`].
    pub fn issue_server(
        &self,
        names: &[&str],
        addresses: &[IpAddr],
        now_ms: u64,
    ) -> Result<(Signed, Zeroizing<String>), PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let names: Vec<String> =
            names.iter().map(ToString::to_string).chain(addresses.iter().map(ToString::to_string)).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "gateway");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let signed = self.sign(params, &key, now_ms, Duration::from_secs(365 * 24 * 60 * 60))?;
        Ok((signed, Zeroizing::new(key.serialize_pem())))
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        public_key: &impl PublicKeyData,
        now_ms: u64,
        life: Duration,
    ) -> Result<Signed, PkiError> {
        let not_after_ms = plus(now_ms, life).min(self.not_after_ms) / 1000 * 1000;
        set_validity(&mut params, now_ms.saturating_sub(millis(BACKDATE)), not_after_ms);
        params.serial_number = Some(serial()?);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(public_key, &self.issuer()?)?;
        Ok(Signed { pem: to_pem(certificate.der()), sha256: sha256(certificate.der()), not_after_ms })
    }

    fn issuer(&self) -> Result<Issuer<'static, &KeyPair>, PkiError> {
        Ok(Issuer::from_ca_cert_der(&self.der, &self.key)?)
    }
}

impl Signed {
    /// What was signed elsewhere.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        let der = read_all(pem)?
            .into_iter()
            .next()
            .ok_or_else(|| PkiError::Certificate("there is no certificate".to_owned()))?;
        Ok(Self { pem: pem.to_owned(), sha256: sha256(&der), not_after_ms: validity(&der)?.not_after_ms })
    }
}

/// Whether a request can be signed.
///
/// # Errors
/// [`PkiError::Request`] if it cannot be read or is not signed by its own key.
pub fn check_request(request_pem: &str) -> Result<(), PkiError> {
    public_key(request_pem).map(drop)
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("sha256", &hex::encode(self.sha256)).finish_non_exhaustive()
    }
}

/// Makes a private key and the request to sign its public half. The request asks for nothing: the signer decides.
///
/// # Errors
/// [`PkiError::Crypto`].
pub fn request() -> Result<(Zeroizing<String>, String), PkiError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let request = request_for(&key)?;
    Ok((Zeroizing::new(key.serialize_pem()), request))
}

/// The request to sign the public half of a key that was made before.
///
/// # Errors
/// [`PkiError::Certificate`] if the key cannot be read.
pub fn request_again(key_pem: &str) -> Result<String, PkiError> {
    request_for(&read_key(key_pem)?)
}

pub(super) fn read_key(pem: &str) -> Result<KeyPair, PkiError> {
    let unreadable = || PkiError::Certificate("the private key cannot be read".to_owned());
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| unreadable())?;
    KeyPair::try_from(&der).map_err(|_| unreadable())
}

fn request_for(key: &KeyPair) -> Result<String, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "quorate");
    params.serialize_request(key)?.pem().map_err(PkiError::from)
}

/// The public key of a request, once the request has shown that it holds the private one.
fn public_key(request_pem: &str) -> Result<rcgen::PublicKey, PkiError> {
    if request_pem.len() > PEM_BYTES_MAX {
        return Err(PkiError::Request("it is too long".to_owned()));
    }
    let request =
        CertificateSigningRequestParams::from_pem(request_pem).map_err(|error| PkiError::Request(error.to_string()))?;
    Ok(request.public_key)
}

fn authority_params(
    cluster: [u8; 16],
    now_ms: u64,
    label: [u8; 4],
    intermediates: u8,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("Quorate cluster authority {}", hex::encode(label)));
    params.distinguished_name.push(DnType::OrganizationName, hex::encode(cluster));
    set_validity(&mut params, now_ms.saturating_sub(millis(BACKDATE)), plus(now_ms, AUTHORITY_LIFE));
    params.serial_number = Some(serial()?);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(intermediates));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

fn serial() -> Result<SerialNumber, PkiError> {
    let mut bytes: [u8; 16] = random()?;
    // A serial number is positive and has no leading zero byte.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn plus(ms: u64, duration: Duration) -> u64 {
    ms.saturating_add(millis(duration))
}

/// Certificates count whole seconds.
fn set_validity(params: &mut CertificateParams, from_ms: u64, to_ms: u64) {
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(from_ms / 1000);
    params.not_after = epoch + Duration::from_secs(to_ms / 1000);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::certificate::{Speaker, speaker};

    const NOW: u64 = 1_800_000_000_000;

    #[test]
    fn an_authority_survives_its_files() {
        let authority = Authority::create([7; 16], NOW).unwrap();
        let again = Authority::from_pem(authority.certificates_pem(), &authority.key_pem()).unwrap();
        assert_eq!(again.sha256(), authority.sha256());
    }

    #[test]
    fn a_key_of_another_authority_is_refused() {
        let one = Authority::create([7; 16], NOW).unwrap();
        let other = Authority::create([7; 16], NOW).unwrap();
        assert!(Authority::from_pem(one.certificates_pem(), &other.key_pem()).is_err());
    }

    #[test]
    fn what_is_signed_says_what_the_signer_decided() {
        let authority = Authority::create([7; 16], NOW).unwrap();
        let (_, request) = request().unwrap();
        let node = authority.sign_node(&request, [7; 16], 3, NOW).unwrap();
        let der = CertificateDer::from_pem_slice(node.pem.as_bytes()).unwrap();
        assert_eq!(speaker(&der), Some(Speaker::Node { cluster: [7; 16], id: 3 }));
        assert_eq!(node.sha256, sha256(&der));
        assert_eq!(node.not_after_ms, NOW + 30 * 24 * 60 * 60 * 1000);

        let name = Name::new("node-3").unwrap();
        let operator = authority.sign_operator(&request, &name, Duration::from_secs(60), NOW).unwrap();
        let der = CertificateDer::from_pem_slice(operator.pem.as_bytes()).unwrap();
        assert_eq!(speaker(&der), Some(Speaker::Operator { name }));
    }

    #[test]
    fn requests_that_are_none() {
        let authority = Authority::create([7; 16], NOW).unwrap();
        let (_, good) = request().unwrap();
        let mut broken: Vec<String> = good.lines().map(str::to_owned).collect();
        broken[2] = broken[2].chars().rev().collect();
        for bad in ["", "hello", &broken.join("\n"), &"x".repeat(20_000)] {
            assert!(matches!(authority.sign_node(bad, [7; 16], 1, NOW), Err(PkiError::Request(_))), "{bad}");
        }
    }

    #[test]
    fn nothing_outlives_its_authority() {
        let authority = Authority::create([7; 16], NOW).unwrap();
        let (_, request) = request().unwrap();
        let late = NOW + millis(AUTHORITY_LIFE) - 1000;
        let node = authority.sign_node(&request, [7; 16], 3, late).unwrap();
        assert_eq!(node.not_after_ms, NOW + millis(AUTHORITY_LIFE));
    }
}

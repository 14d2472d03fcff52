//! Each thing that can be wrong with a certificate from outside is refused, and what a request asks for is taken.

use super::*;
use crate::pki::{authority, authority::Authority};
use rcgen::{BasicConstraints, CertificateSigningRequestParams, IsCa, Issuer, date_time_ymd};

const NOW: u64 = 1_800_000_000_000;
const CLUSTER: [u8; 16] = [7; 16];
const NODE: Holder<'static> = Holder::Node { cluster: &CLUSTER, id: 3 };

/// An authority outside, which signs whatever a request asks for.
struct Outside(Authority);

impl Outside {
    fn new() -> Self {
        Self(Authority::create([1; 16], NOW).unwrap())
    }

    fn sign(&self, request: &str, change: impl FnOnce(&mut CertificateParams)) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(request).unwrap();
        request.params.not_before = date_time_ymd(2027, 1, 1);
        request.params.not_after = date_time_ymd(2028, 1, 1);
        change(&mut request.params);
        let key = KeyPair::from_pem(&self.0.key_pem()).unwrap();
        let issuer = Issuer::from_ca_cert_pem(self.0.certificates_pem(), &key).unwrap();
        to_pem(request.signed_by(&issuer).unwrap().der())
    }

    fn refusal(&self, holder: Holder<'_>, key: &str, change: impl FnOnce(&mut CertificateParams)) -> String {
        let pem = self.sign(&holder.request(key).unwrap(), change);
        holder.take(&pem, Some(key), self.0.certificates_pem(), NOW).unwrap_err().to_string()
    }
}

fn key() -> Zeroizing<String> {
    authority::request().unwrap().0
}

#[test]
fn what_a_request_asks_for_is_what_is_needed() {
    let (outside, key) = (Outside::new(), key());
    let name = Name::new("ann").unwrap();
    for holder in [NODE, Holder::Operator(&name)] {
        let pem = outside.sign(&holder.request(&key).unwrap(), |_| {});
        let bundle = format!("text around it\n{pem}{}", outside.0.certificates_pem());
        let signed = holder.take(&bundle, Some(&key), outside.0.certificates_pem(), NOW).unwrap();
        assert_eq!(signed.pem, pem, "the leaf alone is kept");
        assert_eq!(signed.not_after_ms, 1_830_297_600_000);
    }
}

#[test]
fn another_holder_is_refused() {
    let (outside, key) = (Outside::new(), key());
    let name = Name::new("ann").unwrap();
    let other = Name::new("bob").unwrap();
    let authorities = outside.0.certificates_pem();
    let others = [
        (Holder::Node { cluster: &CLUSTER, id: 4 }, NODE, "CN=node-3"),
        (Holder::Node { cluster: &[8; 16], id: 3 }, NODE, "O=07070707"),
        (Holder::Operator(&name), NODE, "CN=node-3"),
        (NODE, Holder::Operator(&name), "CN=ann, OU=operator"),
        (Holder::Operator(&other), Holder::Operator(&name), "CN=ann, OU=operator"),
    ];
    for (signed, wanted, says) in others {
        let pem = outside.sign(&signed.request(&key).unwrap(), |_| {});
        let error = wanted.take(&pem, Some(&key), authorities, NOW).unwrap_err().to_string();
        assert!(error.contains("it must be for ") && error.contains(says), "{error}");
    }
}

#[test]
fn a_node_needs_both_names_and_no_unit() {
    let (outside, key) = (Outside::new(), key());
    for (kept, says) in [(0, "node-3.quorate.internal"), (1, "the name node.quorate.internal is missing")] {
        let error = outside
            .refusal(NODE, &key, |params| params.subject_alt_names = vec![params.subject_alt_names[kept].clone()]);
        assert!(error.contains(says), "{error}");
    }
    let error = outside.refusal(NODE, &key, |params| params.subject_alt_names.clear());
    assert!(error.contains("with the DNS names"), "{error}");
    let error =
        outside.refusal(NODE, &key, |params| params.distinguished_name.push(DnType::OrganizationalUnitName, "it"));
    assert!(error.contains("without OU"), "{error}");
}

#[test]
fn another_key_another_authority_and_no_certificate_are_refused() {
    let (outside, key, another) = (Outside::new(), key(), key());
    let pem = outside.sign(&NODE.request(&key).unwrap(), |_| {});
    let authorities = outside.0.certificates_pem();
    let error = NODE.take(&pem, Some(&another), authorities, NOW).unwrap_err().to_string();
    assert!(error.contains("it is for another key"), "{error}");
    let stranger = Outside::new();
    let error = NODE.take(&pem, Some(&key), stranger.0.certificates_pem(), NOW).unwrap_err().to_string();
    assert!(error.contains("the cluster's authority did not sign it"), "{error}");
    let error = NODE.take("hello", Some(&key), authorities, NOW).unwrap_err().to_string();
    assert!(error.contains("there is no certificate in it"), "{error}");
    let error = NODE.take(authorities, Some(&key), authorities, NOW).unwrap_err().to_string();
    assert!(error.contains("it must be for CN=node-3"), "{error}");
}

#[test]
fn certificates_of_another_time_or_use_are_refused() {
    let (outside, key) = (Outside::new(), key());
    let error = outside.refusal(NODE, &key, |params| params.not_after = date_time_ymd(2027, 1, 2));
    assert!(error.contains("it has expired at 2027-01-02T00:00:00Z"), "{error}");
    let error = outside.refusal(NODE, &key, |params| params.not_before = date_time_ymd(2027, 12, 1));
    assert!(error.contains("it is not good yet, only from 2027-12-01T00:00:00Z on"), "{error}");
    let only = |usage| move |params: &mut CertificateParams| params.extended_key_usages = vec![usage];
    let error = outside.refusal(NODE, &key, only(ExtendedKeyUsagePurpose::ServerAuth));
    assert!(error.contains("cannot be used as a client's certificate"), "{error}");
    let error = outside.refusal(NODE, &key, only(ExtendedKeyUsagePurpose::ClientAuth));
    assert!(error.contains("cannot be used as a server's certificate"), "{error}");
    let error = outside.refusal(NODE, &key, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert!(error.contains("of an authority"), "{error}");
}

#[test]
fn an_authority_is_one_self_signed_certificate_that_is_good_now() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let outside = Outside::new();
    let refusal = |text: &str, now_ms| {
        std::fs::write(&file, text).unwrap();
        authority_file(&file, now_ms).unwrap_err().to_string()
    };
    let good = outside.0.certificates_pem();
    let leaf = outside.sign(&NODE.request(&key()).unwrap(), |_| {});
    for (text, says) in [
        (String::new(), "there is no certificate"),
        (leaf, "one self-signed certificate"),
        (format!("{good}{}", Outside::new().0.certificates_pem()), "here are several"),
    ] {
        let error = refusal(&text, NOW);
        assert!(error.contains("ca.pem: ") && error.contains(says), "{error}");
    }
    assert!(refusal(good, NOW * 2).contains("and not now"));
    assert_eq!(authority_file(&file, NOW).unwrap().sha256, outside.0.sha256());
}

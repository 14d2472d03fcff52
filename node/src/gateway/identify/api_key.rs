//! API keys, in `X-Api-Key` or `Authorization: Bearer`. With both, `X-Api-Key` is the credential and `Authorization` is the
//! upstream's business. Whatever is wrong, the client gets the same 401: it learns neither whether a key exists nor
//! whether it is revoked, expired or of a disabled consumer. The access log says which.

use super::{Caller, CredentialPlace};
use crate::{
    credential::{self, Credential, Malformed},
    gateway::{
        forward::headers::API_KEY,
        problem::{Problem, Refusal},
    },
};
use http::{HeaderMap, header};
use machine::{
    View, Wall,
    key::{Key, KeyOrigin, SecretHash},
};
use std::sync::Arc;

/// Longer than any credential that is worth hashing.
const CREDENTIAL_BYTES_MAX: usize = 4096;

/// Why a credential is refused, for operators.
pub(crate) mod reason {
    pub(crate) const NONE: &str = "no-credential";
    pub(crate) const SEVERAL: &str = "several-credentials";
    pub(crate) const MISTYPED: &str = "mistyped-key";
    pub(crate) const UNKNOWN: &str = "unknown-key";
    pub(crate) const WRONG_SECRET: &str = "wrong-secret";
    pub(crate) const REVOKED: &str = "revoked-key";
    pub(crate) const EXPIRED: &str = "expired-key";
    pub(crate) const DISABLED: &str = "disabled-consumer";
}

/// Finds the key that is shown and its consumer.
pub(super) fn identify(
    view: &View,
    headers: &HeaderMap,
    now: impl FnOnce() -> Wall,
) -> Result<(Caller, CredentialPlace), Refusal> {
    let (text, place) = presented(headers)?;
    match find(view, text, now) {
        Ok(caller) => Ok((caller, place)),
        Err(reason) => Err(refuse(reason)),
    }
}

/// Finds the caller that a credential stands for.
///
/// # Errors
/// One of [`reason`].
pub(crate) fn find(view: &View, text: &str, now: impl FnOnce() -> Wall) -> Result<Caller, &'static str> {
    let registry = &view.registry;
    let (key, shown) = match Credential::parse(text) {
        Ok(credential) => {
            // Hashed before it is looked up: the time does not tell whether the id exists.
            let shown = credential.hash();
            let key = registry.keys.get(&credential.id()).filter(|key| key.origin == KeyOrigin::Issued);
            (key, shown)
        }
        Err(Malformed::Mistyped) => return Err(reason::MISTYPED),
        Err(Malformed::Foreign) => {
            let shown = credential::hash_of_text(text);
            (registry.key_of_hash(&shown), shown)
        }
    };
    let key = key.ok_or(reason::UNKNOWN)?;
    check(view, key, Some(&shown), now)
}

/// Whether a key is in force: its secret (if one is shown), its end, its consumer. Most keys have no end: the time is asked
/// for where there is one.
pub(crate) fn check(
    view: &View,
    key: &Key,
    shown: Option<&SecretHash>,
    now: impl FnOnce() -> Wall,
) -> Result<Caller, &'static str> {
    let mut fitting = key.secrets().filter(|secret| shown.is_none_or(|shown| credential::same(shown, &secret.hash)));
    let Some(secret) = fitting.next() else { return Err(reason::WRONG_SECRET) };
    if key.revoked_at().is_some() {
        return Err(reason::REVOKED);
    }
    if secret.not_after.is_some() && secret.has_ended(now()) {
        return Err(reason::EXPIRED);
    }
    match view.registry.consumers.get(key.consumer()) {
        Some(consumer) if consumer.enabled => {
            Ok(Caller { consumer: Arc::clone(consumer), key: key.clone(), shown: secret })
        }
        _ => Err(reason::DISABLED),
    }
}

/// Where one of our own keys stands in a request that needs none: it is kept from the upstream all the same.
pub(super) fn place_of_ours(headers: &HeaderMap) -> CredentialPlace {
    let is_ours = |text: &str| text.starts_with(credential::PREFIX);
    match presented(headers) {
        Ok((text, place)) if is_ours(text) => place,
        _ => CredentialPlace::Nowhere,
    }
}

fn presented(headers: &HeaderMap) -> Result<(&str, CredentialPlace), Refusal> {
    let mut keys = headers.get_all(API_KEY).iter();
    let (value, place) = match (keys.next(), keys.next()) {
        (Some(value), None) => (value.as_bytes(), CredentialPlace::ApiKey),
        (Some(_), Some(_)) => return Err(refuse(reason::SEVERAL)),
        (None, _) => {
            let mut values = headers.get_all(header::AUTHORIZATION).iter();
            match (values.next(), values.next()) {
                (Some(value), None) => {
                    (bearer(value.as_bytes()).ok_or_else(|| refuse(reason::NONE))?, CredentialPlace::Authorization)
                }
                (Some(_), Some(_)) => return Err(refuse(reason::SEVERAL)),
                (None, _) => return Err(refuse(reason::NONE)),
            }
        }
    };
    let text = std::str::from_utf8(value.trim_ascii()).unwrap_or_default();
    match text.len() {
        0 => Err(refuse(reason::NONE)),
        1..=CREDENTIAL_BYTES_MAX => Ok((text, place)),
        _ => Err(refuse(reason::UNKNOWN)),
    }
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(rest)
}

const fn refuse(reason: &'static str) -> Refusal {
    Refusal::new(Problem::Unauthenticated, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::{
        Name,
        consumer::Consumer,
        key::{KeyFields, KeyId, Secret},
    };
    use std::collections::{BTreeMap, BTreeSet};

    fn view(keys: Vec<KeyFields>, enabled: bool) -> View {
        let mut view = View::default();
        let name = Name::new("acme").unwrap();
        let consumer =
            Consumer { name: name.clone(), roles: BTreeSet::new(), attributes: BTreeMap::new(), enabled, revision: 1 };
        view.registry.consumers.insert(name, Arc::new(consumer));
        for key in keys {
            view.registry.add_key(key.into());
        }
        view
    }

    fn key(id: KeyId, hash: SecretHash, not_after: Option<Wall>) -> KeyFields {
        KeyFields {
            id,
            consumer: Name::new("acme").unwrap(),
            label: None,
            scopes: None,
            origin: KeyOrigin::Issued,
            current: Secret { hash, not_after },
            previous: None,
            created_at: Wall(0),
            revoked_at: None,
            revision: 1,
        }
    }

    fn told(view: &View, text: &str, now: u64) -> &'static str {
        match find(view, text, || Wall(now)) {
            Ok(caller) => {
                assert_eq!(caller.consumer.name.as_str(), "acme");
                "accepted"
            }
            Err(reason) => reason,
        }
    }

    #[test]
    fn a_key_is_accepted_until_it_ends() {
        let credential = Credential::generate().unwrap();
        let view = view(vec![key(credential.id(), credential.hash(), Some(Wall(100)))], true);
        assert_eq!(told(&view, &credential.text(), 99), "accepted");
        assert_eq!(told(&view, &credential.text(), 100), reason::EXPIRED);
        let other = Credential::generate_for(credential.id()).unwrap();
        assert_eq!(told(&view, &other.text(), 99), reason::WRONG_SECRET);
        assert_eq!(told(&view, &Credential::generate().unwrap().text(), 99), reason::UNKNOWN);
        assert_eq!(told(&view, &credential.text()[..40], 99), reason::MISTYPED);
        assert_eq!(told(&view, "something else", 99), reason::UNKNOWN);
    }

    #[test]
    fn both_secrets_are_accepted_while_a_rotation_overlaps() {
        let before = Credential::generate().unwrap();
        let after = Credential::generate_for(before.id()).unwrap();
        let mut key = key(before.id(), after.hash(), None);
        key.previous = Some(Box::new(Secret { hash: before.hash(), not_after: Some(Wall(100)) }));
        let view = view(vec![key], true);
        assert_eq!(told(&view, &before.text(), 99), "accepted");
        assert_eq!(told(&view, &before.text(), 100), reason::EXPIRED);
        assert_eq!(told(&view, &after.text(), 1_000), "accepted");
    }

    #[test]
    fn revocation_and_disabled_consumers_count() {
        let credential = Credential::generate().unwrap();
        let mut revoked = key(credential.id(), credential.hash(), None);
        revoked.revoked_at = Some(Wall(5));
        assert_eq!(told(&view(vec![revoked], true), &credential.text(), 1), reason::REVOKED);
        let fine = key(credential.id(), credential.hash(), None);
        assert_eq!(told(&view(vec![fine], false), &credential.text(), 1), reason::DISABLED);
    }

    #[test]
    fn an_imported_key_is_found_by_its_whole_text() {
        let mut imported = key(KeyId([1; 10]), credential::hash_of_text("legacy-key"), None);
        imported.origin = KeyOrigin::Imported;
        let view = view(vec![imported], true);
        assert_eq!(told(&view, "legacy-key", 1), "accepted");
        assert_eq!(told(&view, "legacy-kez", 1), reason::UNKNOWN);
    }

    #[test]
    fn credentials_stand_in_two_places() {
        let shown = |fields: &[(&str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
            }
            match presented(&headers) {
                Ok((text, place)) => format!("{text} {place:?}"),
                Err(refusal) => refusal.reason.to_owned(),
            }
        };
        assert_eq!(shown(&[("x-api-key", " k ")]), "k ApiKey");
        assert_eq!(shown(&[("authorization", "bEaReR k")]), "k Authorization");
        assert_eq!(shown(&[("x-api-key", "k"), ("authorization", "Bearer b")]), "k ApiKey");
        assert_eq!(shown(&[("authorization", "Basic k")]), reason::NONE);
        assert_eq!(shown(&[("authorization", "Bearer ")]), reason::NONE);
        assert_eq!(shown(&[("x-api-key", "a"), ("x-api-key", "b")]), reason::SEVERAL);
        assert_eq!(shown(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]), reason::SEVERAL);
        assert_eq!(shown(&[]), reason::NONE);
    }
}

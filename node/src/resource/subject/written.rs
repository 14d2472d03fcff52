//! A subject as operators write it, part by part.

use super::{Part, encode_parts};
use crate::resource::document::{Limit, Per};
use machine::{Name, Registry, key::KeyId, resource::Kind};
use std::net::IpAddr;

/// A subject that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// What the bucket is named by.
    pub(crate) bytes: Vec<u8>,
    /// The parts in canonical form, with commas between them; a header's value is its hash.
    pub(crate) text: String,
}

/// Why a text names no subject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WrongSubject {
    /// There are too few or too many parts.
    #[error("the limit counts by {per}: a subject of it has {wanted} {}, not {given}", if *wanted == 1 { "part" } else { "parts" })]
    Count { per: String, wanted: usize, given: usize },
    /// A part is not what the limit counts by.
    #[error("{0}")]
    Part(String),
    /// A part names something that is not there.
    #[error("there is no {what} {name:?}")]
    NotFound { what: &'static str, name: String },
}

/// Reads a subject of a limit. What was written is in no message unless it is surely no secret: somebody may have given a
/// whole key where its id belongs.
pub(crate) fn read(limit: &Limit, written: &[String], registry: &Registry) -> Result<Named, WrongSubject> {
    if written.len() != limit.per.len() {
        let (wanted, given) = (limit.per.len(), written.len());
        return Err(WrongSubject::Count { per: limit.per_text(), wanted, given });
    }
    let named =
        limit.per.iter().zip(written).map(|(per, text)| known(per, text, registry)).collect::<Result<Vec<_>, _>>()?;
    let parts = || named.iter().map(Known::part);
    let mut bytes = Vec::new();
    encode_parts(parts(), &mut bytes);
    let texts: Vec<String> = parts().map(|part| part.to_string()).collect();
    Ok(Named { bytes, text: texts.join(",") })
}

/// A part that has been read.
enum Known<'a> {
    Absent,
    Key(KeyId),
    Name(Name),
    Ip(IpAddr),
    Header(&'a str),
}

impl Known<'_> {
    fn part(&self) -> Part<'_> {
        match self {
            Self::Absent => Part::Absent,
            Self::Key(id) => Part::Key(*id),
            Self::Name(name) => Part::Name(name),
            Self::Ip(address) => Part::Ip(*address),
            Self::Header(value) => Part::Header(value.as_bytes()),
        }
    }
}

fn known<'a>(per: &Per, text: &'a str, registry: &Registry) -> Result<Known<'a>, WrongSubject> {
    let named = |what: &'static str, is_there: &dyn Fn(&Name) -> bool| {
        let name = Name::new(text).map_err(|error| WrongSubject::Part(format!("the name of a {what}: {error}")))?;
        if is_there(&name) {
            Ok(Known::Name(name))
        } else {
            Err(WrongSubject::NotFound { what, name: name.to_string() })
        }
    };
    match per {
        Per::Key => {
            let id: KeyId =
                text.parse().map_err(|error: machine::key::InvalidKeyId| WrongSubject::Part(error.to_string()))?;
            let not_found = || WrongSubject::NotFound { what: "key", name: id.to_string() };
            registry.keys.contains_key(&id).then_some(Known::Key(id)).ok_or_else(not_found)
        }
        Per::Consumer => named("consumer", &|name| registry.consumers.contains_key(name)),
        Per::Route => named("route", &|name| registry.document(Kind::Route, name).is_some()),
        Per::Ip => {
            let wrong = || WrongSubject::Part("an IP address is 192.0.2.1 or 2001:db8::1".to_owned());
            text.parse().map(Known::Ip).map_err(|_| wrong())
        }
        // A request without the header, and one with an empty value, are not the same; nobody sends the latter.
        Per::Header(_) if text.is_empty() => Ok(Known::Absent),
        Per::Header(_) => Ok(Known::Header(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{
        document::{Resource, Scope},
        subject::{Traits, encode},
        whole,
    };
    use http::{HeaderMap, HeaderValue};
    use machine::{consumer::Consumer, resource::Document};
    use std::{collections::BTreeSet, sync::Arc};

    fn limit(per: &str) -> Limit {
        let json = format!(r#"{{"quota":"5/day","per":{per},"scope":"node"}}"#);
        let document = Document { bytes: json.into_bytes().into(), revision: 1 };
        match whole::stored(Kind::Limit, &Name::new("l").unwrap(), &document).unwrap() {
            Resource::Limit(limit) => limit,
            other => panic!("{other:?}"),
        }
    }

    fn registry() -> Registry {
        let mut registry = Registry::default();
        let acme = Name::new("acme").unwrap();
        let consumer =
            Consumer { name: acme.clone(), roles: BTreeSet::new(), attributes: [].into(), enabled: true, revision: 1 };
        registry.consumers.insert(acme, Arc::new(consumer));
        let document = Document { bytes: Arc::from(*b"{}"), revision: 1 };
        registry.documents.insert((Kind::Route, Name::new("orders").unwrap()), document);
        registry
    }

    fn read_texts(per: &str, written: &[&str]) -> Result<Named, String> {
        let written: Vec<String> = written.iter().map(|text| (*text).to_owned()).collect();
        read(&limit(per), &written, &registry()).map_err(|error| error.to_string())
    }

    /// What an operator asks for is the bucket that a request is counted in.
    #[test]
    fn what_is_written_names_the_bucket_of_a_request() {
        let per = r#"["consumer","route","ip","header:X-Tenant","header:x-absent"]"#;
        let named = read_texts(per, &["acme", "orders", "::ffff:192.0.2.7", "blue, and more", ""]).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-tenant", HeaderValue::from_static("blue, and more"));
        let (acme, orders) = (Name::new("acme").unwrap(), Name::new("orders").unwrap());
        let client = IpAddr::from([192, 0, 2, 7]);
        let traits = Traits { key: None, consumer: Some(&acme), route: &orders, client, headers: &headers };
        let mut bytes = Vec::new();
        encode(&limit(per).per, &traits, &mut bytes);
        assert_eq!(named.bytes, bytes);
        assert_eq!(named.text, "acme,orders,192.0.2.7,1b596119749aaef66d04b827da6e92e4,");
        assert_eq!(limit(per).scope, Scope::Node);
    }

    #[test]
    fn what_names_nobody_is_told_without_repeating_it() {
        for (per, written, says) in [
            (r#""consumer""#, vec![], "counts by consumer: a subject of it has 1 part, not 0"),
            (r#"["consumer","ip"]"#, vec!["acme"], "counts by consumer,ip: a subject of it has 2 parts, not 1"),
            (r#""consumer""#, vec!["emca"], "there is no consumer \"emca\""),
            (r#""route""#, vec!["order"], "there is no route \"order\""),
            (r#""key""#, vec!["aaaaaaaaaaaaaaaa"], "there is no key \"aaaaaaaaaaaaaaaa\""),
            (r#""ip""#, vec!["localhost"], "an IP address is"),
        ] {
            let said = read_texts(per, &written).unwrap_err();
            assert!(said.contains(says), "{said}");
        }
        for per in [r#""key""#, r#""consumer""#, r#""ip""#] {
            let said = read_texts(per, &["sesame, open"]).unwrap_err();
            assert!(!said.contains("sesame"), "{said}");
        }
    }
}

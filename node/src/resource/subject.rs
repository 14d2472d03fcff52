//! Whom a limit counts, as bytes: what `per:` makes of a request. The cluster's buckets are named by these bytes, so every
//! node must make the same of the same caller, in every release: nothing here may change.
//!
//! The parts stand in the order of `per`, with a byte between them that none of them holds. A key is its id, a consumer or
//! route its name, an address its canonical text (an IPv4 address in IPv6 clothes is the IPv4 address), and a header the
//! beginning of the SHA-256 of its value in hexadecimal: a header may be a secret, and buckets are seen by operators. What
//! a request does not have (a header that is absent) is the empty part. A subject that would be longer than the core takes
//! is the SHA-256 of itself.

mod written;

pub(crate) use written::{Named, WrongSubject, read};

use super::document::Per;
use http::{HeaderMap, HeaderName};
use machine::{Name, cap::SUBJECT_BYTES_MAX, key::KeyId};
use sha2::{Digest, Sha256};
use std::{fmt, io::Write as _, net::IpAddr};

/// Between two parts.
const SEPARATOR: u8 = 0x1f;
/// The whole subject of those who found no room among `max_subjects`.
pub(crate) const OVERFLOW: &[u8] = &[0x1e];
/// Before the hash of a subject that is too long.
const HASHED: u8 = 0x1d;
/// Bytes of a header value's hash that are kept: two of a thousand million values are the same once in 10^20.
const HEADER_HASH_BYTES: usize = 16;

/// What a request brings to be counted by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traits<'a> {
    /// Of a caller who is identified.
    pub(crate) key: Option<KeyId>,
    /// Of a caller who is identified.
    pub(crate) consumer: Option<&'a Name>,
    pub(crate) route: &'a Name,
    pub(crate) client: IpAddr,
    pub(crate) headers: &'a HeaderMap,
}

/// One part of a subject.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part<'a> {
    /// The request has none.
    Absent,
    Key(KeyId),
    /// Of a consumer or a route.
    Name(&'a Name),
    Ip(IpAddr),
    /// The value of a header.
    Header(&'a [u8]),
}

impl<'a> Traits<'a> {
    fn part(&self, per: &Per) -> Part<'a> {
        match per {
            Per::Key => self.key.map_or(Part::Absent, Part::Key),
            Per::Consumer => self.consumer.map_or(Part::Absent, Part::Name),
            Per::Route => Part::Name(self.route),
            Per::Ip => Part::Ip(self.client),
            Per::Header(name) => header(self.headers, name),
        }
    }
}

/// The first value where a header stands several times.
fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Part<'a> {
    headers.get(name).map_or(Part::Absent, |value| Part::Header(value.as_bytes()))
}

/// Writes whom a limit counts for a request. The buffer's old content goes; nothing is allocated once it is large enough.
pub(crate) fn encode(per: &[Per], traits: &Traits<'_>, buffer: &mut Vec<u8>) {
    encode_parts(per.iter().map(|per| traits.part(per)), buffer);
}

/// Writes a subject of these parts.
pub(crate) fn encode_parts<'a>(parts: impl Iterator<Item = Part<'a>>, buffer: &mut Vec<u8>) {
    buffer.clear();
    for (index, part) in parts.enumerate() {
        if index > 0 {
            buffer.push(SEPARATOR);
        }
        part.write(buffer);
    }
    if buffer.len() > SUBJECT_BYTES_MAX {
        let hash = Sha256::digest(buffer.as_slice());
        buffer.clear();
        buffer.push(HASHED);
        write_hex(&hash, buffer);
    }
}

impl Part<'_> {
    fn write(self, buffer: &mut Vec<u8>) {
        // Writing to a buffer in memory cannot fail.
        match self {
            Self::Absent => {}
            Self::Key(id) => drop(write!(buffer, "{id}")),
            Self::Name(name) => buffer.extend_from_slice(name.as_str().as_bytes()),
            Self::Ip(address) => drop(write!(buffer, "{}", address.to_canonical())),
            Self::Header(value) => {
                let hash = Sha256::digest(value);
                write_hex(hash.get(..HEADER_HASH_BYTES).unwrap_or_default(), buffer);
            }
        }
    }
}

/// As operators read it: a header's value is its hash.
impl fmt::Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = Vec::new();
        self.write(&mut buffer);
        f.write_str(&String::from_utf8_lossy(&buffer))
    }
}

fn write_hex(bytes: &[u8], buffer: &mut Vec<u8>) {
    for byte in bytes {
        drop(write!(buffer, "{byte:02x}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn tenant() -> Per {
        Per::Header(HeaderName::from_static("x-tenant"))
    }

    fn encoded(per: &[Per], client: &str, tenant: Option<&'static str>) -> String {
        let (consumer, route) = (name("acme"), name("orders"));
        let mut headers = HeaderMap::new();
        headers.extend(tenant.map(|value| (HeaderName::from_static("x-tenant"), HeaderValue::from_static(value))));
        let traits = Traits {
            key: Some(KeyId([0xff; 10])),
            consumer: Some(&consumer),
            route: &route,
            client: client.parse().unwrap(),
            headers: &headers,
        };
        let mut buffer = b"what was there before".to_vec();
        encode(per, &traits, &mut buffer);
        String::from_utf8(buffer).unwrap()
    }

    /// These bytes name buckets in the replicated state: another encoding would begin every count anew.
    #[test]
    fn subjects_are_what_they_always_were() {
        let ip = "2001:db8::1";
        for (per, expected) in [
            (vec![Per::Key], "7777777777777777"),
            (vec![Per::Consumer], "acme"),
            (vec![Per::Route, Per::Consumer], "orders\u{1f}acme"),
            (vec![Per::Ip], "2001:db8::1"),
            (vec![tenant()], "16477688c0e00699c6cfa4497a3612d7"),
            (
                vec![Per::Key, tenant(), Per::Ip],
                "7777777777777777\u{1f}16477688c0e00699c6cfa4497a3612d7\u{1f}2001:db8::1",
            ),
        ] {
            assert_eq!(encoded(&per, ip, Some("blue")), expected);
        }
    }

    #[test]
    fn one_address_has_one_text() {
        for (address, canonical) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:0DB8:0:0::0001", "2001:db8::1"),
            ("::1", "::1"),
        ] {
            assert_eq!(encoded(&[Per::Ip], address, None), canonical);
        }
    }

    #[test]
    fn a_header_that_is_absent_is_empty_and_one_that_is_empty_is_not() {
        assert_eq!(encoded(&[Per::Consumer, tenant()], "::1", None), "acme\u{1f}");
        assert_ne!(encoded(&[tenant()], "::1", Some("")), "");
    }

    #[test]
    fn the_longest_names_fit_as_a_hash() {
        let (consumer, route) = (name(&"c".repeat(Name::BYTES_MAX)), name(&"r".repeat(Name::BYTES_MAX)));
        let traits = Traits {
            key: None,
            consumer: Some(&consumer),
            route: &route,
            client: IpAddr::from([0; 16]),
            headers: &HeaderMap::new(),
        };
        let mut buffer = Vec::new();
        encode(&[Per::Consumer, Per::Route], &traits, &mut buffer);
        assert_eq!((buffer.len(), buffer.first()), (65, Some(&HASHED)));
        let first = buffer.clone();
        encode(&[Per::Route, Per::Consumer], &traits, &mut buffer);
        assert_ne!(first, buffer);
        encode(&[Per::Consumer], &traits, &mut buffer);
        assert_eq!(buffer.len(), Name::BYTES_MAX);
    }

    #[test]
    fn nothing_is_allocated_once_the_buffer_is_large_enough() {
        let mut buffer = Vec::with_capacity(SUBJECT_BYTES_MAX);
        let before = buffer.as_ptr();
        encode_parts([Part::Ip(IpAddr::from([1; 16])), Part::Header(b"x"), Part::Absent].into_iter(), &mut buffer);
        assert_eq!((buffer.as_ptr(), buffer.capacity()), (before, SUBJECT_BYTES_MAX));
    }

    proptest! {
        /// Nobody can take another's bucket by choosing a header or an address.
        #[test]
        fn different_callers_have_different_subjects(
            callers in prop::collection::vec(("[a-z]{1,3}", any::<[u8; 4]>(), prop::option::of("[ -~]{0,3}")), 2..40)
        ) {
            let mut seen: HashMap<Vec<u8>, (String, IpAddr, Option<String>)> = HashMap::new();
            for (consumer, address, header) in callers {
                let (named, client) = (name(&consumer), IpAddr::from(address));
                let value = header.as_ref().map_or(Part::Absent, |value| Part::Header(value.as_bytes()));
                let mut buffer = Vec::new();
                encode_parts([Part::Name(&named), Part::Ip(client), value].into_iter(), &mut buffer);
                prop_assert!(buffer != OVERFLOW && buffer.len() <= SUBJECT_BYTES_MAX);
                let whose = (consumer, client, header);
                if let Some(other) = seen.insert(buffer, whose.clone()) {
                    prop_assert_eq!(other, whose);
                }
            }
        }
    }
}

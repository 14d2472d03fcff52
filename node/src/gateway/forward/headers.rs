//! Header fields on their way through: what belongs to one connection stays behind, what a client may not claim is
//! removed, and what the upstream may rely on is added.

use crate::gateway::identify::CredentialPlace;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::SmallVec;
use std::net::IpAddr;

/// Set by the gateway for the upstream.
pub(crate) const CONSUMER: HeaderName = HeaderName::from_static("x-quorate-consumer");
/// On every response.
pub(crate) const NODE: HeaderName = HeaderName::from_static("x-quorate-node");
/// On every request and response.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Where a key may be shown.
pub(crate) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Bytes of a request id that is kept.
const REQUEST_ID_BYTES_MAX: usize = 128;
/// Addresses of `X-Forwarded-For` that are looked at.
const HOPS_MAX: usize = 32;

/// What is said to the upstream of a request.
pub(crate) struct Facts<'a> {
    /// Whether the other side of the connection may say where a request came from.
    pub(crate) is_trusted: bool,
    pub(crate) peer: &'a HeaderValue,
    pub(crate) scheme: &'static str,
    /// As the client named the host, port included.
    pub(crate) host: &'a HeaderValue,
    pub(crate) credential: CredentialPlace,
    pub(crate) consumer: Option<&'a str>,
    pub(crate) request_id: &'a HeaderValue,
    pub(crate) trace: Trace,
}

type Names = SmallVec<[HeaderName; 8]>;

/// What one look at the fields of a message found: nearly always nothing, and then nothing is searched for again.
#[derive(Default)]
struct Look {
    /// What does not go on.
    unwanted: Names,
    has_connection: bool,
    takes_trailers: bool,
    has_expect: bool,
    /// What a trusted proxy may say, of whom the request comes from.
    has_forwarded: bool,
    has_tracestate: bool,
}

impl Look {
    fn at(headers: &HeaderMap, is_unwanted: impl Fn(&HeaderName) -> bool) -> Self {
        let mut look = Self::default();
        for name in headers.keys() {
            match *name {
                header::CONNECTION => look.has_connection = true,
                header::TE => look.takes_trailers = takes_trailers(headers),
                header::EXPECT => look.has_expect = true,
                _ => {}
            }
            look.has_forwarded |= name.as_str().starts_with("x-forwarded-");
            look.has_tracestate |= *name == TRACESTATE;
            if is_of_connection(name) || is_unwanted(name) {
                look.unwanted.push(name.clone());
            }
        }
        if look.has_connection {
            look.unwanted.extend(named_by_connection(headers));
        }
        look
    }
}

/// Makes the header of a request what the upstream may see.
pub(crate) fn for_upstream(headers: &mut HeaderMap, facts: Facts<'_>) {
    let look = Look::at(headers, |name| is_claimed(name, facts.is_trusted) || is_misleading(name));
    remove(headers, &look.unwanted);
    match facts.credential {
        CredentialPlace::ApiKey => drop(headers.remove(API_KEY)),
        CredentialPlace::Authorization => drop(headers.remove(header::AUTHORIZATION)),
        CredentialPlace::Nowhere => {}
    }
    if look.has_expect {
        // It was for this gateway, which has decided to take the body.
        headers.remove(header::EXPECT);
    }
    if look.takes_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }

    let is_given = |headers: &HeaderMap, name: HeaderName| look.has_forwarded && headers.contains_key(name);
    let forwarded_for =
        if is_given(headers, FORWARDED_FOR) { appended(headers, facts.peer) } else { facts.peer.clone() };
    headers.insert(FORWARDED_FOR, forwarded_for);
    if !is_given(headers, FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(facts.scheme));
    }
    if !is_given(headers, FORWARDED_HOST) {
        headers.insert(FORWARDED_HOST, facts.host.clone());
    }
    headers.insert(header::HOST, facts.host.clone());
    headers.insert(REQUEST_ID, facts.request_id.clone());
    headers.insert(TRACEPARENT, facts.trace.parent);
    if look.has_tracestate && !facts.trace.continues {
        headers.remove(TRACESTATE);
    }
    if let Some(consumer) = facts.consumer.and_then(|name| HeaderValue::from_str(name).ok()) {
        headers.insert(CONSUMER, consumer);
    }
}

/// Makes the header of a response what the client may see.
pub(crate) fn for_client(headers: &mut HeaderMap, request_id: &HeaderValue, node: Option<&HeaderValue>) {
    let look = Look::at(headers, |name| name.as_str().starts_with("x-quorate-"));
    remove(headers, &look.unwanted);
    headers.insert(REQUEST_ID, request_id.clone());
    if let Some(node) = node {
        headers.insert(NODE, node.clone());
    }
}

/// Whether the client takes trailers: it must have said so before an upstream may send any.
fn takes_trailers(headers: &HeaderMap) -> bool {
    headers.get_all(header::TE).iter().any(|value| {
        value.as_bytes().split(|byte| *byte == b',').any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    })
}

/// Whether a field belongs to one connection.
fn is_of_connection(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Fields that `Connection` names.
fn named_by_connection(headers: &HeaderMap) -> Names {
    let mut names = Names::new();
    for value in headers.get_all(header::CONNECTION) {
        for token in value.as_bytes().split(|byte| *byte == b',') {
            if let Ok(name) = HeaderName::from_bytes(token.trim_ascii())
                && !is_kept(&name)
            {
                names.push(name);
            }
        }
    }
    names
}

/// Whether `Connection` cannot take it away: what frames the message, says where it goes and who sends it, and what a
/// trusted proxy says of its client, who may have written the `Connection` that the proxy passes on.
fn is_kept(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "host" | "content-length" | "content-type" | "content-encoding" | "authorization" | "cookie" | "forwarded"
    ) || (name.as_str().starts_with("x-") && is_claimed(name, false))
}

/// Whether a field would make an upstream see another request than the one that was judged: another method, another
/// path, another length, a proxy of the attacker's (`Proxy` becomes `HTTP_PROXY` under CGI); or is written with
/// underscores to be taken for one of ours. Nobody's is believed.
fn is_misleading(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    match name.first() {
        Some(b'x') => {
            [
                &b"x-http-method-override"[..],
                b"x-http-method",
                b"x-method-override",
                b"x-original-url",
                b"x-rewrite-url",
                b"x-http-host-override",
            ]
            .iter()
            .any(|misleading| same(name, misleading))
                || (name.contains(&b'_')
                    && (begins_with(name, b"x-forwarded-")
                        || [&b"x-request-id"[..], b"x-api-key", b"x-real-ip", b"x-client-ip"]
                            .iter()
                            .any(|ours| same(name, ours))))
        }
        Some(b'p') => name == b"proxy" || begins_with(name, b"proxy-"),
        Some(b'c') => same(name, b"content-length") && name.contains(&b'_'),
        Some(b't') => name == b"trailer" || same(name, b"transfer-encoding"),
        Some(b'k') => same(name, b"keep-alive"),
        _ => false,
    }
}

/// Whether a field claims something that only this gateway, or a trusted proxy before it, may say. Underscores count as
/// hyphens: some upstreams read them so.
fn is_claimed(name: &HeaderName, is_trusted: bool) -> bool {
    let name = name.as_str().as_bytes();
    match name.first() {
        Some(b'x') => {
            begins_with(name, b"x-quorate-")
                || (!is_trusted
                    && (begins_with(name, b"x-forwarded-") || same(name, b"x-real-ip") || same(name, b"x-client-ip")))
        }
        Some(b'f') => !is_trusted && name == b"forwarded",
        _ => false,
    }
}

fn begins_with(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len()).is_some_and(|beginning| same(beginning, prefix))
}

fn same(name: &[u8], plain: &[u8]) -> bool {
    name.len() == plain.len()
        && name.iter().zip(plain).all(|(one, other)| one == other || (*one == b'_' && *other == b'-'))
}

fn remove(headers: &mut HeaderMap, names: &Names) {
    for name in names {
        headers.remove(name);
    }
}

/// What a trusted proxy said, and the proxy itself.
fn appended(headers: &HeaderMap, peer: &HeaderValue) -> HeaderValue {
    let mut list: Vec<u8> = Vec::new();
    for value in headers.get_all(FORWARDED_FOR) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(peer.as_bytes());
    HeaderValue::from_bytes(&list).unwrap_or_else(|_| peer.clone())
}

/// Where a request came from: the last address that no trusted proxy has.
pub(crate) fn client_address(headers: &HeaderMap, peer: IpAddr, is_trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut client = peer;
    if !is_trusted(peer) {
        return client;
    }
    let mut hops: SmallVec<[IpAddr; 8]> = SmallVec::new();
    for value in headers.get_all(FORWARDED_FOR) {
        for hop in value.to_str().unwrap_or_default().split(',') {
            let Some(address) = address(hop.trim()) else {
                // What stands before something unreadable cannot be told apart from an invention.
                hops.clear();
                continue;
            };
            hops.push(address);
        }
    }
    for hop in hops.into_iter().rev().take(HOPS_MAX) {
        client = hop;
        if !is_trusted(hop) {
            break;
        }
    }
    client
}

/// `192.0.2.1`, `2001:db8::1`, `[2001:db8::1]:443`, `192.0.2.1:443`.
fn address(text: &str) -> Option<IpAddr> {
    let address =
        text.parse::<IpAddr>().ok().or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|both| both.ip()));
    address
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
        .map(|address: IpAddr| address.to_canonical())
}

/// The id that a trusted proxy gave the request, if it can be kept.
pub(crate) fn kept_request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(REQUEST_ID)?;
    let is_fine = (1..=REQUEST_ID_BYTES_MAX).contains(&value.len())
        && value
            .as_bytes()
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'='));
    is_fine.then(|| value.clone())
}

/// 32 hexadecimal digits.
pub(crate) type TraceId = [u8; 32];

/// A trace that goes on, or a new one (W3C Trace Context, version 00).
pub(crate) struct Trace {
    pub(crate) id: TraceId,
    /// What the upstream is told.
    pub(crate) parent: HeaderValue,
    /// Whether it is the client's.
    pub(crate) continues: bool,
}

/// Continues the trace of a request under a new span, or begins one.
pub(crate) fn trace(headers: &HeaderMap, random: impl Fn() -> u64) -> Trace {
    let given = headers.get(TRACEPARENT).and_then(|value| read_traceparent(value.as_bytes()));
    let (id, flags, continues) = match given {
        Some((id, flags)) => (id, flags, true),
        None => {
            let mut id = [0; 32];
            write_hex(&mut id, &[random(), random() | 1]);
            (id, *b"00", false)
        }
    };
    let mut span = [0; 16];
    write_hex(&mut span, &[random() | 1]);
    let mut text: [u8; 55] = *b"00-________________________________-________________-__";
    for (range, part) in [(3..35, id.as_slice()), (36..52, &span), (53..55, &flags)] {
        if let Some(place) = text.get_mut(range) {
            place.copy_from_slice(part);
        }
    }
    let parent = HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static(""));
    Trace { id, parent, continues }
}

fn read_traceparent(text: &[u8]) -> Option<([u8; 32], [u8; 2])> {
    let (version, rest) = text.split_first_chunk::<3>()?;
    let (id, rest) = rest.split_first_chunk::<32>()?;
    let (span, rest) = rest.strip_prefix(b"-")?.split_first_chunk::<16>()?;
    let (flags, rest) = rest.strip_prefix(b"-")?.split_first_chunk::<2>()?;
    let is_hex = |bytes: &[u8]| bytes.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == b'0');
    // Later versions may say more after what this one knows; `ff` is no version.
    let is_whole = if version == b"00-" { rest.is_empty() } else { rest.is_empty() || rest.starts_with(b"-") };
    let is_fine = version.ends_with(b"-")
        && is_hex(version.get(..2)?)
        && !version.starts_with(b"ff")
        && is_whole
        && is_hex(id)
        && is_hex(span)
        && is_hex(flags)
        && !is_zero(id)
        && !is_zero(span);
    is_fine.then_some((*id, *flags))
}

/// Writes numbers as hexadecimal digits, sixteen each.
pub(crate) fn write_hex(out: &mut [u8], numbers: &[u64]) {
    for (place, number) in out.chunks_exact_mut(16).zip(numbers) {
        // The places are as long as the digits.
        let _ = hex::encode_to_slice(number.to_be_bytes(), place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn sent(fields: &[(&str, &str)], is_trusted: bool, credential: CredentialPlace) -> Vec<String> {
        let mut headers = map(fields);
        let facts = Facts {
            is_trusted,
            peer: &HeaderValue::from_static("192.0.2.9"),
            scheme: "https",
            host: &HeaderValue::from_static("api.example.com:8443"),
            credential,
            consumer: Some("acme"),
            request_id: &HeaderValue::from_static("id-1"),
            trace: Trace { id: [b'0'; 32], parent: HeaderValue::from_static("00-t-s-01"), continues: false },
        };
        for_upstream(&mut headers, facts);
        let mut lines: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    const ADDED: [&str; 7] = [
        "host: api.example.com:8443",
        "traceparent: 00-t-s-01",
        "x-forwarded-for: 192.0.2.9",
        "x-forwarded-host: api.example.com:8443",
        "x-forwarded-proto: https",
        "x-quorate-consumer: acme",
        "x-request-id: id-1",
    ];

    #[test]
    fn what_belongs_to_the_connection_stays_behind() {
        let lines = sent(
            &[
                ("connection", "close, X-Custom , host, content-length, x-forwarded-for, authorization"),
                ("connection", "keep-alive"),
                ("keep-alive", "5"),
                ("x-custom", "1"),
                ("proxy-authorization", "secret"),
                ("te", "gzip"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "h2c"),
                ("expect", "100-continue"),
            ],
            false,
            CredentialPlace::Nowhere,
        );
        assert_eq!(lines, ADDED);
    }

    #[test]
    fn trailers_are_asked_for_if_the_client_takes_them() {
        let lines = sent(&[("te", "gzip, Trailers"), ("connection", "te")], false, CredentialPlace::Nowhere);
        assert!(
            lines.contains(&"te: trailers".to_owned()) && lines.contains(&"connection: te".to_owned()),
            "{lines:?}"
        );
    }

    #[test]
    fn nobody_shows_the_upstream_another_request() {
        let fields = [
            ("x-http-method-override", "DELETE"),
            ("x_http_method_override", "DELETE"),
            ("x-http-method", "DELETE"),
            ("x-method-override", "DELETE"),
            ("x-method_override", "DELETE"),
            ("x-original-url", "/admin"),
            ("x-rewrite-url", "/admin"),
            ("x-http-host-override", "admin"),
            ("content_length", "3"),
            ("transfer_encoding", "chunked"),
            ("keep_alive", "1"),
            ("proxy", "http://elsewhere"),
            ("proxy_authorization", "secret"),
            ("proxy-anything", "1"),
            ("x_request_id", "mine"),
            ("x_api_key", "k"),
            ("x_forwarded_for", "10.0.0.1"),
            ("x_real_ip", "10.0.0.1"),
            ("trailer", "x-quorate-consumer"),
        ];
        for is_trusted in [false, true] {
            assert_eq!(sent(&fields, is_trusted, CredentialPlace::Nowhere), ADDED);
        }
    }

    #[test]
    fn what_a_proxy_says_cannot_be_taken_away_by_its_client() {
        let fields = [
            (
                "connection",
                "x-forwarded-for, X-Forwarded-Proto, x-real-ip, forwarded, cookie, x-own, x-quorate-consumer",
            ),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "gopher"),
            ("x-real-ip", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("cookie", "c"),
            ("x-own", "1"),
        ];
        let lines = sent(&fields, true, CredentialPlace::Nowhere);
        for line in [
            "x-forwarded-for: 10.0.0.1, 192.0.2.9",
            "x-forwarded-proto: gopher",
            "x-real-ip: 10.0.0.1",
            "forwarded: for=10.0.0.1",
            "cookie: c",
            "x-quorate-consumer: acme",
        ] {
            assert!(lines.contains(&line.to_owned()), "{line}: {lines:?}");
        }
        assert!(!lines.iter().any(|line| line.starts_with("x-own") || line.starts_with("connection")), "{lines:?}");
    }

    #[test]
    fn what_a_client_may_not_claim_is_removed() {
        let claims = [
            ("host", "elsewhere"),
            ("x-quorate-consumer", "admin"),
            ("x_quorate_consumer", "admin"),
            ("x-quorate-anything", "1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded_for", "10.0.0.1"),
            ("x-forwarded-proto", "gopher"),
            ("x-forwarded-host", "elsewhere"),
            ("x-forwarded-prefix", "/x"),
            ("x-real-ip", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("x-request-id", "mine"),
            ("traceparent", "mine"),
            ("tracestate", "a=b"),
        ];
        assert_eq!(sent(&claims, false, CredentialPlace::Nowhere), ADDED);
        let trusted = sent(&claims, true, CredentialPlace::Nowhere);
        for line in [
            "x-forwarded-for: 10.0.0.1, 192.0.2.9",
            "x-forwarded-proto: gopher",
            "x-forwarded-host: elsewhere",
            "x-forwarded-prefix: /x",
            "x-quorate-consumer: acme",
        ] {
            assert!(trusted.contains(&line.to_owned()), "{line}: {trusted:?}");
        }
        assert!(!trusted.iter().any(|line| line.contains("admin")));
    }

    #[test]
    fn the_credential_goes_and_nothing_else() {
        let both = [("x-api-key", "k"), ("authorization", "Bearer app"), ("cookie", "c")];
        let lines = sent(&both, false, CredentialPlace::ApiKey);
        assert!(
            lines.contains(&"authorization: Bearer app".to_owned())
                && !lines.iter().any(|line| line.starts_with("x-api-key"))
        );
        let lines = sent(&both, false, CredentialPlace::Authorization);
        assert!(!lines.iter().any(|line| line.starts_with("authorization")));
        assert!(lines.contains(&"cookie: c".to_owned()));
    }

    #[test]
    fn a_response_keeps_its_own() {
        let mut headers = map(&[
            ("connection", "x-a"),
            ("x-a", "1"),
            ("set-cookie", "a"),
            ("set-cookie", "b"),
            ("x-quorate-node", "7"),
            ("x-request-id", "u"),
        ]);
        for_client(&mut headers, &HeaderValue::from_static("id"), Some(&HeaderValue::from_static("1")));
        assert_eq!(
            headers,
            map(&[("set-cookie", "a"), ("set-cookie", "b"), ("x-request-id", "id"), ("x-quorate-node", "1")])
        );
    }

    #[test]
    fn the_client_is_the_last_that_no_trusted_proxy_is() {
        let trusted = |address: IpAddr| address.to_string().starts_with("10.");
        let client = |lines: &[&str], peer: &str| {
            let fields: Vec<(&str, &str)> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            client_address(&map(&fields), peer.parse().unwrap(), trusted).to_string()
        };
        assert_eq!(client(&["1.1.1.1"], "9.9.9.9"), "9.9.9.9");
        assert_eq!(client(&[], "10.0.0.1"), "10.0.0.1");
        assert_eq!(client(&["6.6.6.6, 1.1.1.1"], "10.0.0.1"), "1.1.1.1");
        assert_eq!(client(&["6.6.6.6, 1.1.1.1, 10.0.0.2"], "10.0.0.1"), "1.1.1.1");
        assert_eq!(client(&["6.6.6.6", "1.1.1.1:4711, 10.0.0.2"], "10.0.0.1"), "1.1.1.1");
        assert_eq!(client(&["[2001:db8::1]:80"], "10.0.0.1"), "2001:db8::1");
        assert_eq!(client(&["6.6.6.6, unknown, 10.0.0.3"], "10.0.0.1"), "10.0.0.3");
        assert_eq!(client(&["6.6.6.6, unknown"], "10.0.0.1"), "10.0.0.1");
    }

    #[test]
    fn traces_go_on_or_begin() {
        let random = || 7;
        let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace_of = |text: &str| trace(&map(&[("traceparent", text)]), random);
        let kept = trace_of(given);
        assert!(kept.continues);
        assert_eq!(kept.parent, "00-0af7651916cd43dd8448eb211c80319c-0000000000000007-01");
        assert!(trace_of("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more").continues);
        for wrong in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        ] {
            let begun = trace_of(wrong);
            assert!(!begun.continues, "{wrong}");
            assert!(read_traceparent(begun.parent.as_bytes()).is_some());
        }
    }

    #[test]
    fn request_ids_are_kept_if_they_are_plain() {
        let kept = |text: &str| kept_request_id(&map(&[("x-request-id", text)])).is_some();
        assert!(kept("01J-abc_9.z="));
        assert!(!kept("") && !kept("a b") && !kept("a\"b") && !kept(&"a".repeat(129)));
    }
}

//! What must hold of any request head that passes the rules, whatever its fields: for tests and fuzzing alone.

use super::{Caps, forward::headers, identify::CredentialPlace, route};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version};

/// A head of any bytes: method, target and fields, a line each. Nothing if they are no HTTP at all.
fn head(bytes: &[u8]) -> Option<http::request::Parts> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let first = lines.next()?;
    let version = if first.first()? & 1 == 0 { Version::HTTP_11 } else { Version::HTTP_2 };
    let mut request = Request::new(());
    *request.version_mut() = version;
    *request.method_mut() = http::Method::from_bytes(lines.next()?).ok()?;
    *request.uri_mut() = Uri::try_from(lines.next()?).ok()?;
    for line in lines.take(64) {
        let colon = line.iter().skip(1).position(|byte| *byte == b':')? + 1;
        let (name, value) = line.split_at(colon);
        let name = HeaderName::from_bytes(name).ok()?;
        let value = HeaderValue::from_bytes(value.get(1..)?.trim_ascii()).ok()?;
        request.headers_mut().append(name, value);
    }
    Some(request.into_parts().0)
}

/// Checks what a request asks for.
pub(crate) fn asked(bytes: &[u8]) {
    let Some(parts) = head(bytes) else { return };
    let Ok(asked) = route::read(&parts, &Caps::default()) else { return };
    assert!(
        !asked.host.bytes().any(|byte| byte.is_ascii_uppercase() || byte <= b' ' || byte == b'@'),
        "{}",
        asked.host
    );
    let target = route::target(&parts.uri, &asked.path);
    let target = target.as_ref().and_then(Uri::path_and_query).map(http::uri::PathAndQuery::as_str);
    let target = target.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    assert_eq!(path, asked.path, "what is forwarded is what was judged");
    assert_eq!(query, parts.uri.query().unwrap_or_default(), "the query goes as it came");
    assert!(!target.bytes().any(|byte| byte <= b' ' || byte == 0x7f), "{target:?}");
}

/// Checks what an upstream gets.
pub(crate) fn forwarded(bytes: &[u8]) {
    let Some(parts) = head(bytes) else { return };
    let sent = parts.headers;
    for is_trusted in [false, true] {
        let mut headers = sent.clone();
        let request_id = HeaderValue::from_static("the-request-id");
        let trace = headers::trace(&headers, || 7);
        let facts = headers::Facts {
            is_trusted,
            peer: &HeaderValue::from_static("192.0.2.1"),
            scheme: "https",
            host: &HeaderValue::from_static("api.test"),
            credential: CredentialPlace::ApiKey,
            consumer: Some("acme"),
            request_id: &request_id,
            trace,
        };
        headers::for_upstream(&mut headers, facts);
        check(&headers, is_trusted);
    }
}

fn check(headers: &HeaderMap, is_trusted: bool) {
    let only = |name: &str, value: &str| {
        let all: Vec<&[u8]> = headers
            .iter()
            .filter(|(of, _)| of.as_str().replace('_', "-") == name)
            .map(|(_, value)| value.as_bytes())
            .collect();
        assert_eq!(all, [value.as_bytes()], "{name}: {headers:?}");
    };
    only("host", "api.test");
    only("x-request-id", "the-request-id");
    only("x-quorate-consumer", "acme");
    if !is_trusted {
        only("x-forwarded-for", "192.0.2.1");
        only("x-forwarded-proto", "https");
        only("x-forwarded-host", "api.test");
    }
    for name in headers.keys() {
        let plain = name.as_str().replace('_', "-");
        let is_ours = plain.starts_with("x-quorate-") && plain != "x-quorate-consumer";
        let is_hop = matches!(
            plain.as_str(),
            "transfer-encoding" | "upgrade" | "keep-alive" | "trailer" | "proxy" | "proxy-authorization" | "x-api-key"
        );
        let is_override = matches!(plain.as_str(), "x-http-method-override" | "x-http-method" | "x-method-override");
        assert!(!is_ours && !is_hop && !is_override, "{name}: {headers:?}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// Lines of a head, made of what the rules look at.
    fn head() -> impl Strategy<Value = String> {
        let target = prop_oneof![
            "(/[a-zA-Z0-9.%;+@~|]{0,4}|/%[0-9a-fA-F]{2}){0,4}(\\?[a-z%/.]{0,6})?",
            "http://[a-zA-Z@:.0-9]{1,6}(/[a-z.%]{0,4})?",
        ];
        let name = prop::sample::select(vec![
            "host",
            "connection",
            "Connection",
            "x-quorate-consumer",
            "x_quorate_consumer",
            "x-quorate_node",
            "x-forwarded-for",
            "x_forwarded-for",
            "x-forwarded-proto",
            "x_forwarded_host",
            "x-request-id",
            "x_request-id",
            "x-api-key",
            "x_api_key",
            "x-http-method-override",
            "x_http-method",
            "x-original-url",
            "transfer-encoding",
            "transfer_encoding",
            "keep-alive",
            "keep_alive",
            "upgrade",
            "trailer",
            "te",
            "proxy",
            "proxy_authorization",
            "expect",
        ]);
        let value = prop::sample::select(vec![
            "a",
            "A:80",
            "close",
            "te, x-quorate-consumer, host",
            "x-forwarded-for, x-forwarded-host,x-request-id",
            "chunked",
            "trailers",
            "u@a",
            "a, b",
            "",
        ]);
        let fields = prop::collection::vec((name, value).prop_map(|(name, value)| format!("{name}:{value}")), 0..8);
        ("[01]", "(GET|POST|get|DELETE)", target, fields).prop_map(|(version, method, target, fields)| {
            format!("{version}\n{method}\n{target}\n{}", fields.join("\n"))
        })
    }

    proptest! {
        #[test]
        fn what_is_forwarded_is_what_was_judged(head in head()) {
            super::asked(head.as_bytes());
            super::forwarded(head.as_bytes());
        }
    }
}

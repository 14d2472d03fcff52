//! What is asked for, and which route takes it. Here a request becomes one host, one path and one method; what is
//! ambiguous about them is refused before anything else looks at it.

use super::{
    Caps,
    problem::{Problem, Refusal},
};
use crate::{
    listen::http1::{Fault, is_method, is_token},
    resource::{compile::Compiled, path, table::Found},
};
use http::{HeaderMap, HeaderValue, Method, Uri, header, request::Parts, uri::Authority};
use hyper::Version;
use std::borrow::Cow;

/// What is asked for.
pub(crate) struct Asked<'r> {
    /// As the client named it, port included.
    pub(crate) authority: HeaderValue,
    /// Lower case, without port: what routes are found by.
    pub(crate) host: Cow<'r, str>,
    /// The one form of the path.
    pub(crate) path: Cow<'r, str>,
}

/// Reads what is asked for.
pub(crate) fn read<'r>(parts: &'r Parts, caps: &Caps) -> Result<Asked<'r>, Refusal> {
    check_size(parts, caps)?;
    check_framing(&parts.headers)?;
    check_form(parts)?;
    check_expectation(&parts.headers)?;
    if parts.method == Method::TRACE || parts.method == Method::CONNECT {
        return Err(Refusal::new(Problem::MethodNotAllowed, "method"));
    }
    let path = path::canonical(parts.uri.path())
        .map_err(|error| Refusal::new(Problem::BadRequest, "path").telling(error.to_string()))?;
    let (authority, host) = authority(parts)?;
    Ok(Asked { authority, host, path })
}

/// What is said of a message that must not be read.
pub(crate) fn malformed(fault: Fault) -> Refusal {
    let problem = if fault.is_too_large() { Problem::HeadersTooLarge } else { Problem::BadRequest };
    Refusal::new(problem, fault.reason()).telling(fault.detail())
}

/// Finds the route.
pub(crate) fn find(compiled: &Compiled, asked: &Asked<'_>, method: &Method) -> Result<usize, Refusal> {
    match compiled.find(&asked.host, &asked.path, method) {
        Found::Route(index) => Ok(index),
        Found::OtherMethods(slot) => {
            Err(Refusal::new(Problem::MethodNotAllowed, "other-methods").allowing(slot.methods()))
        }
        Found::Nothing => Err(Refusal::new(Problem::NoRoute, "no-match")),
    }
}

/// What the upstream is asked for: the path that was routed, and the query as it came.
pub(crate) fn target(uri: &Uri, canonical: &str) -> Option<Uri> {
    let path_and_query = uri.path_and_query()?;
    if path_and_query.path() == canonical {
        return Some(Uri::from(path_and_query.clone()));
    }
    match path_and_query.query() {
        Some(query) => format!("{canonical}?{query}").parse().ok(),
        None => canonical.parse().ok(),
    }
}

fn check_size(parts: &Parts, caps: &Caps) -> Result<(), Refusal> {
    let too_large = |reason| Err(Refusal::new(Problem::HeadersTooLarge, reason));
    if parts.headers.len() > caps.header_count_max {
        return too_large("too-many-fields");
    }
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let fields: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if target + fields > caps.header_bytes_max {
        return too_large("fields-too-long");
    }
    Ok(())
}

/// Requests whose length or end two readers could see differently are refused. hyper has refused differing
/// `Content-Length`s before, and reads a chunked body as chunked whatever else is said.
fn check_framing(headers: &HeaderMap) -> Result<(), Refusal> {
    let bad = |reason, detail: &'static str| Err(Refusal::new(Problem::BadRequest, reason).telling(detail));
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (encodings.next(), encodings.next()) {
        (None, _) => {}
        (Some(one), None) if one.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => {
            if headers.contains_key(header::CONTENT_LENGTH) {
                return bad("framing", "both Transfer-Encoding and Content-Length are given");
            }
        }
        _ => return bad("framing", "the only transfer encoding that is understood is chunked, once"),
    }
    if headers.get_all(header::CONTENT_LENGTH).iter().count() > 1 {
        return bad("framing", "Content-Length is given twice");
    }
    Ok(())
}

/// What the wire has checked of HTTP/1 already, and the parser of HTTP/2 has not.
fn check_form(parts: &Parts) -> Result<(), Refusal> {
    // It would be a target without a path.
    if parts.uri.path_and_query().is_some_and(|target| target.as_str().starts_with('?')) {
        return Err(malformed(Fault::Target));
    }
    if parts.version != Version::HTTP_2 {
        return Ok(());
    }
    if !is_method(parts.method.as_str().as_bytes()) {
        return Err(malformed(Fault::Method));
    }
    if parts.headers.keys().any(|name| !name.as_str().bytes().all(is_token)) {
        return Err(malformed(Fault::FieldName));
    }
    Ok(())
}

/// There is one thing that a client may expect.
fn check_expectation(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_known = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if headers.get_all(header::EXPECT).iter().all(is_known) {
        return Ok(());
    }
    Err(Refusal::new(Problem::ExpectationFailed, "expect").telling("the only expectation that is met is 100-continue"))
}

fn authority(parts: &Parts) -> Result<(HeaderValue, Cow<'_, str>), Refusal> {
    let bad = |detail: &'static str| Refusal::new(Problem::BadRequest, "host").telling(detail);
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let field = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("Host is given twice"));
    }
    let field_text = match field {
        Some(field) => Some(field.to_str().map_err(|_| bad("Host is not a host"))?),
        None => None,
    };
    let text = match (parts.uri.authority(), field_text) {
        (Some(authority), Some(text)) if !authority.as_str().eq_ignore_ascii_case(text) => {
            return Err(bad("the request names two hosts"));
        }
        (Some(authority), _) => authority.as_str(),
        (None, Some(text)) => text,
        // HTTP/1.0 may leave it out.
        (None, None) if parts.version == Version::HTTP_10 => "",
        (None, None) => return Err(bad("Host is missing")),
    };
    let value = match field {
        Some(field) => field.clone(),
        None => HeaderValue::from_str(text).map_err(|_| bad("Host is not a host"))?,
    };
    if text.is_empty() && parts.version == Version::HTTP_10 {
        return Ok((value, Cow::Borrowed("")));
    }
    Ok((value, host_of(text).ok_or_else(|| bad("Host is not a host"))?))
}

/// The host of an authority: lower case, without its port and without the dot that ends an absolute name.
pub(crate) fn host_of(text: &str) -> Option<Cow<'_, str>> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    let host = if is_plain {
        text
    } else {
        // The rare forms: a port, an IPv6 address. Neither user names nor escapes.
        let authority: Authority = text.parse().ok()?;
        let end = authority.host().len();
        let rest = text.get(end..)?;
        let port_is_fine = rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
        let host = text.get(..end)?;
        let is_host = host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'[' | b']' | b':'));
        if !port_is_fine || !is_host {
            return None;
        }
        host
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() {
        None
    } else if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Some(Cow::Owned(host.to_ascii_lowercase()))
    } else {
        Some(Cow::Borrowed(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn asked(uri: &str, fields: &[(&str, &str)], version: Version) -> String {
        let mut request = Request::builder().uri(uri).version(version);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        match read(&parts, &Caps::default()) {
            Ok(asked) => format!("{} {} {}", asked.host, asked.path, asked.authority.to_str().unwrap()),
            Err(refusal) => format!("{} {}", refusal.problem.name(), refusal.reason),
        }
    }

    #[test]
    fn one_host_or_none() {
        let h1 = Version::HTTP_11;
        assert_eq!(asked("/a", &[("host", "API.Example.com:8080")], h1), "api.example.com /a API.Example.com:8080");
        assert_eq!(asked("/a", &[("host", "a.b.")], h1), "a.b /a a.b.");
        assert_eq!(asked("/a", &[("host", "[::1]:80")], h1), "[::1] /a [::1]:80");
        assert_eq!(asked("/a", &[], Version::HTTP_10), " /a ");
        assert_eq!(asked("http://a/x", &[("host", "A")], h1), "a /x A");
        assert_eq!(asked("http://a/x", &[], Version::HTTP_2), "a /x a");
        for fields in [
            vec![],
            vec![("host", "a"), ("host", "a")],
            vec![("host", "")],
            vec![("host", "u@a")],
            vec![("host", "a b")],
            vec![("host", "a:port")],
            vec![("host", "a:99999")],
            vec![("host", "a/b")],
            vec![("host", "a%2eb")],
            vec![("host", ".")],
        ] {
            assert_eq!(asked("/a", &fields, h1), "bad-request host", "{fields:?}");
        }
        assert_eq!(asked("http://a/x", &[("host", "b")], h1), "bad-request host");
        assert_eq!(asked("http://a/x", &[("host", "b")], Version::HTTP_2), "bad-request host");
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        let h1 = Version::HTTP_11;
        let with = |fields: &[(&'static str, &'static str)]| {
            let mut all = vec![("host", "a")];
            all.extend_from_slice(fields);
            asked("/", &all, h1)
        };
        assert_eq!(with(&[("transfer-encoding", "chunked")]), "a / a");
        assert_eq!(with(&[("content-length", "3")]), "a / a");
        for fields in [
            vec![("transfer-encoding", "gzip, chunked")],
            vec![("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            vec![("transfer-encoding", "chunked"), ("content-length", "3")],
            vec![("content-length", "3"), ("content-length", "3")],
        ] {
            assert_eq!(with(&fields), "bad-request framing", "{fields:?}");
        }
    }

    #[test]
    fn what_the_parser_of_http_2_lets_pass_is_refused() {
        let of = |method: &str, uri: &str, field: &str| {
            let name = http::HeaderName::from_lowercase(field.as_bytes()).unwrap();
            let request = Request::builder().version(Version::HTTP_2).method(method).uri(uri).header(name, "1");
            let (parts, ()) = request.body(()).unwrap().into_parts();
            read(&parts, &Caps::default()).map(|_| ()).map_err(|refusal| refusal.reason)
        };
        assert_eq!(of("GET", "http://a/x?y", "b"), Ok(()));
        assert_eq!(of("get", "http://a/x?y", "b"), Err("method"));
        assert_eq!(of("GET", "http://a?y", "b"), Err("target"));
        assert_eq!(of("GET", "http://a/x?y", "b\"c"), Err("field-name"));
    }

    #[test]
    fn one_expectation_is_met() {
        let h1 = Version::HTTP_11;
        assert_eq!(asked("/", &[("host", "a"), ("expect", "100-Continue")], h1), "a / a");
        for fields in [
            vec![("expect", "200-ok")],
            vec![("expect", "100-continue, x")],
            vec![("expect", "100-continue"), ("expect", "")],
        ] {
            let mut all = vec![("host", "a")];
            all.extend(fields);
            assert_eq!(asked("/", &all, h1), "expectation-failed expect");
        }
    }

    #[test]
    fn too_much_header_is_refused() {
        let many: Vec<(String, String)> = (0..100).map(|number| (format!("x-{number}"), "1".to_owned())).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(asked("/", &many, Version::HTTP_11), "headers-too-large too-many-fields");
        let long = "a".repeat(40_000);
        assert_eq!(asked("/", &[("x", long.as_str())], Version::HTTP_11), "headers-too-large fields-too-long");
        assert_eq!(asked(&format!("/{long}"), &[("host", "a")], Version::HTTP_11), "headers-too-large fields-too-long");
    }

    #[test]
    fn the_path_that_is_routed_is_forwarded() {
        let sent = |uri: &str| {
            let uri: Uri = uri.parse().unwrap();
            let canonical = path::canonical(uri.path()).unwrap().into_owned();
            target(&uri, &canonical).unwrap().to_string()
        };
        assert_eq!(sent("http://a/x?y=/../z"), "/x?y=/../z");
        assert_eq!(sent("/%61?q=%61"), "/a?q=%61");
        assert_eq!(sent("/%61"), "/a");
    }
}

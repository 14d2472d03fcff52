//! Which requests a route takes: patterns of hosts and paths, and what "more specific" means between them.

use super::path;
use std::fmt;

/// Bytes of one pattern: longer ones are not written by people.
const PATTERN_BYTES_MAX: usize = 1024;
/// Segments of one pattern; bounds how many tables a lookup may try.
const SEGMENTS_MAX: usize = 32;

/// A path pattern: segments are literal, `{name}` (exactly one segment) or, at the end, `{*name}` (all the rest, also
/// none of it: `/a/{*rest}` takes `/a/`, but not `/a`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathPattern {
    text: String,
    /// The same with the names of parameters taken out: patterns of equal shape take the same paths.
    shape: String,
    /// Segments before a catch-all.
    catch_all: Option<usize>,
}

impl PathPattern {
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(format!("a path has at most {PATTERN_BYTES_MAX} bytes"));
        }
        let Some(inner) = text.strip_prefix('/') else {
            return Err("a path begins with '/'".to_owned());
        };
        let segments: Vec<&str> = inner.split('/').collect();
        if segments.len() > SEGMENTS_MAX {
            return Err(format!("a path has at most {SEGMENTS_MAX} segments"));
        }
        let mut shape = String::with_capacity(text.len());
        let mut catch_all = None;
        let mut names: Vec<&str> = Vec::new();
        for (place, segment) in segments.iter().enumerate() {
            let last = place + 1 == segments.len();
            shape.push('/');
            if let Some(parameter) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                let name = parameter.strip_prefix('*').unwrap_or(parameter);
                if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                    return Err(format!(
                        "{segment:?} is not a parameter: write {{name}} for one segment, {{*name}} for the rest"
                    ));
                }
                if names.contains(&name) {
                    return Err(format!("the parameter {name:?} is there twice"));
                }
                names.push(name);
                if parameter.starts_with('*') {
                    if !last {
                        return Err(format!("{segment:?} takes all the rest, so nothing can follow it"));
                    }
                    catch_all = Some(place);
                    shape.push_str("{*r}");
                } else {
                    shape.push_str("{p}");
                }
            } else if segment.contains(['{', '}']) {
                return Err(format!("{segment:?}: a parameter is a whole segment"));
            } else if segment.contains(['?', '#']) {
                return Err("a path holds neither '?' nor '#': routes do not look at the query".to_owned());
            } else {
                shape.push_str(segment);
            }
        }
        let literal = shape.replace("{p}", "p").replace("{*r}", "r");
        match path::canonical(&literal) {
            Ok(canonical) if canonical == literal => {}
            Ok(_) => {
                return Err("write letters, digits and -._~!$&'()*,=:@ plainly, and all else as escapes in upper case"
                    .to_owned());
            }
            Err(error) => return Err(format!("no request can have this path: {error}")),
        }
        Ok(Self { text: text.to_owned(), shape, catch_all })
    }

    pub(crate) fn shape(&self) -> &str {
        &self.shape
    }

    /// How many segments come before the catch-all, if there is one.
    pub(crate) const fn catch_all(&self) -> Option<usize> {
        self.catch_all
    }

    /// What the table of paths is given: parameters need distinct names.
    pub(crate) fn for_table(&self) -> String {
        let mut text = String::with_capacity(self.shape.len() + 8);
        for (place, segment) in self.shape.split('/').skip(1).enumerate() {
            match segment {
                "{p}" => text.push_str(&format!("/{{p{place}}}")),
                literal => text.push_str(&format!("/{literal}")),
            }
        }
        text
    }

    /// The path that the catch-all takes when there is nothing left: `/a/` of `/a/{*rest}`.
    pub(crate) fn without_rest(&self) -> Option<String> {
        self.catch_all.and_then(|_| self.for_table().strip_suffix("{*r}").map(str::to_owned))
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A host pattern: a whole name, or `*.` and a domain, for every name below it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HostPattern {
    Exact(String),
    /// The domain without `*.`.
    Below(String),
}

impl HostPattern {
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let (domain, below) = lower.strip_prefix("*.").map_or((lower.as_str(), false), |domain| (domain, true));
        if domain.contains('*') {
            return Err("a wildcard is the first label alone: *.example.com".to_owned());
        }
        let is_name = !domain.is_empty()
            && domain.len() <= 253
            && domain.split('.').all(|label| {
                !label.is_empty()
                    && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            });
        let is_v6 = !below
            && domain
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
                .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
        match (is_name || is_v6, below) {
            (true, false) => Ok(Self::Exact(lower)),
            (true, true) => Ok(Self::Below(domain.to_owned())),
            (false, _) => Err("a host is a name or address without port: api.example.com, *.example.com".to_owned()),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(domain) => write!(f, "*.{domain}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_no_request_can_meet_are_refused() {
        for text in [
            "",
            "a",
            "*",
            "/a//b",
            "/../a",
            "/a/%2e",
            "/%61",
            "/a%2f",
            "/a b",
            "/{",
            "/{}",
            "/{*}",
            "/{a}{b}",
            "/a{b}",
            "/{a}.json",
            "/{*a}/b",
            "/{a}/{a}",
            "/{a b}",
            "/a?b",
            "/a#b",
            "/ü",
        ] {
            assert!(PathPattern::new(text).is_err(), "{text}");
        }
        assert!(PathPattern::new(&"/a".repeat(SEGMENTS_MAX + 1)).is_err());
    }

    #[test]
    fn names_of_parameters_do_not_count() {
        let shape = |text| PathPattern::new(text).unwrap().shape().to_owned();
        assert_eq!(shape("/a/{id}/b/{*rest}"), shape("/a/{x}/b/{*y}"));
        assert_ne!(shape("/a/{id}"), shape("/a/{*id}"));
        assert_eq!(PathPattern::new("/a/{id}/{*rest}").unwrap().without_rest().unwrap(), "/a/{p1}/");
    }

    #[test]
    fn hosts() {
        for text in ["a.b", "*.a.b", "LOCALHOST", "10.0.0.1", "[::1]", "a_b"] {
            assert_eq!(HostPattern::new(text).unwrap().to_string(), text.to_ascii_lowercase());
        }
        for text in ["", "*", "*.", "a.*.b", "a b", "a:80", "http://a", ".a", "a.", "[::1", "*.[::1]"] {
            assert!(HostPattern::new(text).is_err(), "{text}");
        }
    }
}

//! What a path may look like, in a request and in a route's pattern. One form is routed, authorized, logged and
//! forwarded, so that no two of them can disagree about which resource a request means.
//!
//! The rule, for the part before `?`:
//! - it begins with `/`, and holds no empty segment (`//`) except a trailing `/`;
//! - no segment is `.` or `..`, also not written as `%2e` or followed by `;…`;
//! - no backslash, control character, space or byte outside ASCII, plain or percent-encoded; no `%2F` (an encoded
//!   slash is a slash to some upstreams and not to others);
//! - a percent sign is followed by two hexadecimal digits.
//!
//! What breaks it is refused (400). Percent-encoded letters, digits, `-`, `.`, `_` and `~` are decoded and other escapes
//! get upper-case digits (RFC 3986, 6.2.2): the same path, in the one form that is used from there on.

use std::borrow::Cow;

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// `*`, or empty.
    #[error("the path does not begin with a slash")]
    NotRooted,
    /// `//`.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// `.` or `..`.
    #[error("the path has a dot segment")]
    DotSegment,
    /// A backslash, a control character, `%2F`, …
    #[error("the path has a character that is not allowed there, plain or encoded")]
    Character,
    /// `%` without two digits.
    #[error("the path has a broken percent-encoding")]
    Encoding,
}

/// Checks a path and gives the one form of it: itself, nearly always.
///
/// # Errors
/// [`PathError`] says which rule is broken.
pub fn canonical(raw: &str) -> Result<Cow<'_, str>, PathError> {
    if !raw.starts_with('/') {
        return Err(PathError::NotRooted);
    }
    let mut before = 0_u8;
    let mut has_dot = false;
    for &byte in raw.as_bytes() {
        match byte {
            b'%' => return decode(raw).map(Cow::Owned),
            b'/' if before == b'/' => return Err(PathError::EmptySegment),
            b'\\' | 0..=b' ' | 0x7f.. => return Err(PathError::Character),
            _ => has_dot |= byte == b'.' && before == b'/',
        }
        before = byte;
    }
    if has_dot {
        check_segments(raw)?;
    }
    Ok(Cow::Borrowed(raw))
}

fn decode(raw: &str) -> Result<String, PathError> {
    let mut path = String::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            path.push(char::from(byte));
            continue;
        }
        let (Some(high), Some(low)) = (bytes.next().and_then(digit), bytes.next().and_then(digit)) else {
            return Err(PathError::Encoding);
        };
        match high << 4 | low {
            b'/' | b'\\' | 0..b' ' | 0x7f => return Err(PathError::Character),
            plain @ (b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~') => {
                path.push(char::from(plain))
            }
            _ => {
                path.push('%');
                for half in [high, low] {
                    path.push(char::from_digit(u32::from(half), 16).unwrap_or('0').to_ascii_uppercase());
                }
            }
        }
    }
    // Not ASCII before: `char::from` would have widened it.
    if raw.is_ascii() { check_segments(&path).map(|()| path) } else { Err(PathError::Character) }
}

fn check_segments(path: &str) -> Result<(), PathError> {
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Err(PathError::EmptySegment);
        }
        if matches!(segment.split(';').next(), Some("." | "..")) {
            return Err(PathError::DotSegment);
        }
        if segment.bytes().any(|byte| matches!(byte, b'\\' | 0..=b' ' | 0x7f..)) {
            return Err(PathError::Character);
        }
    }
    Ok(())
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_paths_stay_as_they_are() {
        for path in ["/", "/a", "/a/", "/a/b.c/.hidden/..x/x..", "/a;v=1/@b:c,d+e!$&'()*", "/a/...", "/%20%3B%2C"] {
            assert_eq!(canonical(path).unwrap(), path);
        }
    }

    #[test]
    fn escapes_get_their_one_form() {
        assert_eq!(canonical("/%61dmin/%7Eu%2d%5F").unwrap(), "/admin/~u-_");
        assert_eq!(canonical("/a%c3%bc%3b").unwrap(), "/a%C3%BC%3B");
        assert_eq!(canonical("/%2541").unwrap(), "/%2541");
    }

    #[test]
    fn what_upstreams_read_differently_is_refused() {
        use PathError::*;
        for (path, error) in [
            ("", NotRooted),
            ("*", NotRooted),
            ("a/b", NotRooted),
            ("//", EmptySegment),
            ("/a//b", EmptySegment),
            ("/a/%2e//b", EmptySegment),
            ("/.", DotSegment),
            ("/a/../b", DotSegment),
            ("/a/..", DotSegment),
            ("/a/./b", DotSegment),
            ("/a/%2e%2E/b", DotSegment),
            ("/a/.%2e", DotSegment),
            ("/a/..;x=1/b", DotSegment),
            ("/a/.;/b", DotSegment),
            ("/a%2fb", Character),
            ("/a%2Fb", Character),
            ("/a%5cb", Character),
            ("/a\\b", Character),
            ("/.a\\b", Character),
            ("/a%00", Character),
            ("/a%0d%0aX: y", Character),
            ("/a%7f", Character),
            ("/a b", Character),
            ("/ü", Character),
            ("/%61ü", Character),
            ("/a%", Encoding),
            ("/a%4", Encoding),
            ("/a%zz", Encoding),
            ("/a%+1", Encoding),
        ] {
            let refused = canonical(path);
            assert!(refused.is_err(), "{path}");
            if path != "/a/%2e//b" {
                assert_eq!(refused.unwrap_err(), error, "{path}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_one_form_is_a_fixed_point(path in "/[a-z%0-9A-F./;~]{0,24}") {
            if let Ok(once) = canonical(&path) {
                let twice = canonical(&once);
                prop_assert_eq!(twice.as_deref(), Ok(once.as_ref()));
                let decoded: Vec<u8> = percent_encoding::percent_decode_str(&once).collect();
                prop_assert_eq!(decoded, percent_encoding::percent_decode_str(&path).collect::<Vec<u8>>());
            }
        }

        #[test]
        fn any_text_is_judged(path in ".{0,40}") {
            let _ = canonical(&path);
        }
    }
}

//! What a path may look like, in a request and in a route's pattern. One form is routed, authorized, logged and
//! forwarded, so that no two of them can disagree about which resource a request means.
//!
//! Refused (400), in the part before `?`:
//! - what does not begin with `/`, or holds an empty segment (`//`) except a trailing `/`;
//! - a segment `.` or `..`, also written as `%2e` or followed by `%3B`;
//! - a backslash, a control character, a space or a byte outside ASCII, and `;`: some upstreams cut a segment there;
//! - `%2F`, `%5C` and encoded control characters: an encoded slash is a slash to some upstreams and not to others;
//! - a percent sign without two hexadecimal digits, escapes that are not UTF-8 (overlong forms among them), and an encoded
//!   percent sign that two digits follow: decoded twice it would be something else.
//!
//! Normalised: what RFC 3986 lets stand plainly in a segment does, whether it was encoded or not, and everything else is
//! encoded, with upper-case digits. Two ways of writing one path are one path from there on. The exceptions are `+` and
//! `;`: `%2B` and `%3B` stay as they are, because to some upstreams they differ from the plain character.

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
    /// `%` without two digits, or bytes that are not UTF-8.
    #[error("the path has a broken percent-encoding")]
    Encoding,
    /// `%25` before two digits.
    #[error("the path is percent-encoded twice")]
    EncodedTwice,
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
            b'/' if before == b'/' => return Err(PathError::EmptySegment),
            b'/' => {}
            b'.' => has_dot |= before == b'/',
            _ if is_plain(byte) => {}
            _ => return rewrite(raw).map(Cow::Owned),
        }
        before = byte;
    }
    if has_dot {
        check_segments(raw)?;
    }
    Ok(Cow::Borrowed(raw))
}

/// What stands plainly in a segment (RFC 3986, `pchar`), but for `;`.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b'='
                | b':'
                | b'@'
        )
}

fn rewrite(raw: &str) -> Result<String, PathError> {
    let mut path = String::with_capacity(raw.len() + 16);
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'/' => {
                path.push('/');
                decoded.push(byte);
            }
            b'%' => {
                let (Some(high), Some(low)) = (bytes.next().and_then(digit), bytes.next().and_then(digit)) else {
                    return Err(PathError::Encoding);
                };
                let byte = high << 4 | low;
                match byte {
                    b'/' | b'\\' | 0..b' ' | 0x7f => return Err(PathError::Character),
                    b'+' => escape(&mut path, byte),
                    _ if is_plain(byte) => path.push(char::from(byte)),
                    _ => escape(&mut path, byte),
                }
                decoded.push(byte);
            }
            b'\\' | b';' | 0..=b' ' | 0x7f.. => return Err(PathError::Character),
            _ => {
                if is_plain(byte) {
                    path.push(char::from(byte));
                } else {
                    escape(&mut path, byte);
                }
                decoded.push(byte);
            }
        }
    }
    if std::str::from_utf8(&decoded).is_err() {
        return Err(PathError::Encoding);
    }
    // Only now: escapes of digits have become digits.
    if path.split("%25").skip(1).any(|rest| rest.bytes().take(2).filter_map(digit).count() == 2) {
        return Err(PathError::EncodedTwice);
    }
    check_segments(&path).map(|()| path)
}

fn escape(path: &mut String, byte: u8) {
    path.push('%');
    for half in [byte >> 4, byte & 15] {
        path.push(char::from_digit(u32::from(half), 16).unwrap_or('0').to_ascii_uppercase());
    }
}

fn check_segments(path: &str) -> Result<(), PathError> {
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Err(PathError::EmptySegment);
        }
        if matches!(segment.split("%3B").next(), Some("." | "..")) {
            return Err(PathError::DotSegment);
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
        for path in
            ["/", "/a", "/a/", "/a/b.c/.hidden/..x/x..", "/a/@b:c,d+e!$&'()*=~", "/a/...", "/%20%3B%2B", "/100%25"]
        {
            assert_eq!(canonical(path).unwrap(), path);
        }
    }

    #[test]
    fn escapes_get_their_one_form() {
        assert_eq!(canonical("/%61dmin/%7Eu%2d%5F").unwrap(), "/admin/~u-_");
        assert_eq!(canonical("/a%c3%bc%3b").unwrap(), "/a%C3%BC%3B");
        // What may stand plainly does, and nothing else: a rule for the one is a rule for the other.
        assert_eq!(canonical("/%40me/%21%24%26%27%28%29%2A%2C%3D%3a").unwrap(), "/@me/!$&'()*,=:");
        assert_eq!(canonical("/a|b\"{}[]^").unwrap(), "/a%7Cb%22%7B%7D%5B%5D%5E");
        assert_eq!(canonical("/a%7cb").unwrap(), canonical("/a|b").unwrap());
        assert_eq!(canonical("/50%25%20off").unwrap(), "/50%25%20off");
        // But these two differ to somebody.
        assert_eq!(canonical("/a+b%2b%3b").unwrap(), "/a+b%2B%3B");
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
            ("/a/..;x=1/b", Character),
            ("/a/.;/b", Character),
            ("/a;v=1/b", Character),
            ("/a;", Character),
            ("/a/..%3Bx=1/b", DotSegment),
            ("/a/%2e%3b/b", DotSegment),
            ("/%252e%252e/a", EncodedTwice),
            ("/a%252Fb", EncodedTwice),
            ("/a%25%32%66b", EncodedTwice),
            ("/a%2500", EncodedTwice),
            ("/a%c0%afb", Encoding),
            ("/a%c0%ae%c0%ae", Encoding),
            ("/a%e0%80%af", Encoding),
            ("/a%ff", Encoding),
            ("/a%c3/%bc", Encoding),
            ("/a%u002f", Encoding),
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
        fn the_one_form_is_a_fixed_point(path in "/([a-z0-9A-F./;~+@|]|%[0-9a-fA-F]{2}|%25|%){0,16}") {
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

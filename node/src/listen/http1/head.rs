//! The head of a request: its lines, and what they say about the end of the message. One look at each byte, eight at a
//! time for most of them, and no memory asked for.

use super::{Body, Bounds, Fault};

/// The longest method: the longest registered one has 17 characters.
const METHOD_BYTES_MAX: usize = 32;
/// The longest name of a field.
pub(super) const NAME_BYTES_MAX: usize = 256;
/// What the parser takes for a target.
const TARGET_BYTES_MAX: usize = u16::MAX as usize - 1;
/// Digits of a length: below 2^60, so that no sum overflows.
const LENGTH_DIGITS_MAX: usize = 18;

/// A head that is not whole yet. Places count from its first byte.
#[derive(Debug)]
pub(super) struct Head {
    /// What is before it has been looked at.
    at: usize,
    /// Where the line begins that is being looked at.
    line: usize,
    /// Where the request line ended; 0 before that.
    request_line: usize,
    is_http_1_0: bool,
    fields: usize,
    length: Option<u64>,
    is_chunked: bool,
}

pub(super) enum Progress {
    /// More is needed.
    Partial,
    /// It is so long, and this follows.
    Whole {
        bytes: usize,
        body: Body,
    },
    Wrong(Fault),
}

impl Head {
    pub(super) const fn new() -> Self {
        Self { at: 0, line: 0, request_line: 0, is_http_1_0: false, fields: 0, length: None, is_chunked: false }
    }

    /// How many bytes there are up to the end of the request line, if that was good.
    pub(super) const fn request_line(&self) -> usize {
        self.request_line
    }

    /// Goes on with a head of which so much has come. Whatever the pieces in which it comes, the outcome is the same: a
    /// line is judged when it is whole, and what lies beyond the bound is not looked at.
    pub(super) fn advance(&mut self, head: &[u8], bounds: &Bounds) -> Progress {
        let seen = head.get(..bounds.head_bytes_max).unwrap_or(head);
        let partial = || {
            if seen.len() < bounds.head_bytes_max { Progress::Partial } else { Progress::Wrong(Fault::HeadTooLong) }
        };
        loop {
            let Some(end) = control_byte(seen, self.at) else {
                self.at = seen.len();
                return partial();
            };
            self.at = end;
            match (seen.get(end), seen.get(end + 1)) {
                (Some(b'\r'), Some(b'\n')) => {}
                (Some(b'\r'), None) => return partial(),
                (Some(b'\r' | b'\n'), _) => return Progress::Wrong(Fault::LineEnd),
                _ => return Progress::Wrong(Fault::ControlByte),
            }
            let line = seen.get(self.line..end).unwrap_or_default();
            let next = end + 2;
            let judged = if self.request_line > 0 {
                if line.is_empty() {
                    return self.whole(next);
                }
                self.field(line, bounds)
            } else if line.is_empty() && self.line == 0 {
                // One empty line before a request is to be borne (RFC 9112, 2.2).
                Ok(())
            } else {
                self.request(line).map(|()| self.request_line = next)
            };
            if let Err(fault) = judged {
                return Progress::Wrong(fault);
            }
            self.line = next;
            self.at = next;
        }
    }

    fn whole(&self, bytes: usize) -> Progress {
        let body = match (self.length, self.is_chunked) {
            (Some(_), true) => return Progress::Wrong(Fault::TwoLengths),
            (None, true) => Body::Chunked,
            (Some(0) | None, false) => Body::None,
            (Some(length), false) => Body::Length(length),
        };
        Progress::Whole { bytes, body }
    }

    fn request(&mut self, line: &[u8]) -> Result<(), Fault> {
        let space = |bytes: &[u8]| bytes.iter().position(|byte| *byte == b' ');
        let method_end = space(line).ok_or(Fault::RequestLine)?;
        let (method, rest) = line.split_at(method_end);
        let rest = rest.get(1..).unwrap_or_default();
        let (target, version) = rest.split_at(space(rest).ok_or(Fault::RequestLine)?);
        if method.is_empty() || target.is_empty() || version.get(1..).is_some_and(|version| version.contains(&b' ')) {
            return Err(Fault::RequestLine);
        }
        if !is_method(method) {
            return Err(Fault::Method);
        }
        if target.len() > TARGET_BYTES_MAX {
            return Err(Fault::TargetTooLong);
        }
        if !is_target(method, target) {
            return Err(Fault::Target);
        }
        self.is_http_1_0 = match version {
            b" HTTP/1.1" => false,
            b" HTTP/1.0" => true,
            _ => return Err(Fault::Version),
        };
        Ok(())
    }

    fn field(&mut self, line: &[u8], bounds: &Bounds) -> Result<(), Fault> {
        let (name, value) = split_field(line)?;
        self.fields += 1;
        if self.fields > bounds.fields_max {
            return Err(Fault::TooManyFields);
        }
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.length.is_some() {
                    return Err(Fault::ContentLength);
                }
                self.length = Some(number(value).ok_or(Fault::ContentLength)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.is_http_1_0 || self.is_chunked || trim(value) != b"chunked" {
                    return Err(Fault::TransferEncoding);
                }
                self.is_chunked = true;
            }
            _ => {}
        }
        Ok(())
    }
}

/// The name and the value of a field line.
fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    let end = line.iter().position(|byte| !is_token(*byte)).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    match rest.split_first() {
        Some((b':', value)) if (1..=NAME_BYTES_MAX).contains(&end) => Ok((name, value)),
        Some((b' ' | b'\t', _)) if end == 0 => Err(Fault::FoldedLine),
        _ => Err(Fault::FieldName),
    }
}

/// Upper-case letters, digits, `-` and `_`: a method is case-sensitive, but not every upstream knows.
pub(crate) fn is_method(method: &[u8]) -> bool {
    method.len() <= METHOD_BYTES_MAX
        && method.first().is_some_and(u8::is_ascii_uppercase)
        && method.iter().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_'))
}

/// Whether the parser understands it, and all of it: it drops what follows `#`.
fn is_target(method: &[u8], target: &[u8]) -> bool {
    let is_sound = if target.first() == Some(&b'/') {
        let end = target.iter().position(|byte| CLASSES.get(usize::from(*byte)).is_none_or(|class| class & PATH == 0));
        match end {
            None => true,
            Some(end) => {
                let (_, query) = target.split_at(end);
                query.first() == Some(&b'?')
                    && query.iter().all(|byte| CLASSES.get(usize::from(*byte)).is_some_and(|class| class & QUERY != 0))
            }
        }
    } else {
        // The rare forms.
        !target.contains(&b'#')
            && match http::Uri::try_from(target) {
                Ok(uri) => match uri.scheme_str() {
                    // `http://a?b` would leave a target without a path.
                    Some(scheme) => {
                        (scheme == "http" || scheme == "https")
                            && uri.path_and_query().is_some_and(|path| path.as_str().starts_with('/'))
                    }
                    None => method == b"CONNECT" || target == b"*",
                },
                Err(_) => false,
            }
    };
    is_sound && (target.is_ascii() || std::str::from_utf8(target).is_ok())
}

/// One number and nothing else.
fn number(value: &[u8]) -> Option<u64> {
    let digits = trim(value);
    if !(1..=LENGTH_DIGITS_MAX).contains(&digits.len()) {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0')))
}

/// Without the blanks that may surround a value.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The place of the first control byte from there on: below space but for the tab, and DEL.
fn control_byte(bytes: &[u8], mut from: usize) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES * 0x80;
    loop {
        let mut rest = bytes.get(from..)?;
        // The lowest byte that is marked is one, and those above it do not matter: a borrow only comes from below.
        while let Some((chunk, behind)) = rest.split_first_chunk::<8>() {
            let word = u64::from_le_bytes(*chunk);
            let del = word ^ (ONES * 0x7f);
            let marked = ((word.wrapping_sub(ONES * 0x20) & !word) | (del.wrapping_sub(ONES) & !del)) & HIGH;
            if marked != 0 {
                from += marked.trailing_zeros() as usize / 8;
                break;
            }
            from += 8;
            rest = behind;
        }
        if rest.len() < 8 {
            from += rest.iter().position(|byte| is_control(*byte))?;
        }
        if bytes.get(from) != Some(&b'\t') {
            return Some(from);
        }
        from += 1;
    }
}

const fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7f
}

/// Whether a byte may stand in the name of a field (RFC 9110, 5.6.2).
pub(crate) fn is_token(byte: u8) -> bool {
    CLASSES.get(usize::from(byte)).is_some_and(|class| class & TOKEN != 0)
}

const TOKEN: u8 = 1;
/// In the path of a target.
const PATH: u8 = 2;
/// In its query, the question mark before it included.
const QUERY: u8 = 4;

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = 0_u8;
    loop {
        let mut class = 0;
        if byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            )
        {
            class |= TOKEN;
        }
        // What the parser takes; the rules of paths are stricter, and answer in their own words.
        if matches!(byte, 0x21..=0x7e | 0x80..) && !matches!(byte, b'#' | b'<' | b'>' | b'`' | b'?') {
            class |= PATH;
        }
        if matches!(byte, 0x21..=0x7e | 0x80..) && !matches!(byte, b'"' | b'#' | b'<' | b'>') {
            class |= QUERY;
        }
        #[expect(clippy::indexing_slicing, reason = "a byte is a place in a table of 256")]
        {
            classes[byte as usize] = class;
        }
        if byte == u8::MAX {
            return classes;
        }
        byte += 1;
    }
}

//! The parser behind the scanner, asked what it understood: for tests and fuzzing alone.

use super::{Bounds, Messages, Place, Scanned};
use http_body_util::BodyExt;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

/// A request as somebody understood it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Understood {
    pub(crate) method: String,
    pub(crate) target: String,
    /// None if it did not come to its end.
    pub(crate) body: Option<Vec<u8>>,
}

/// What a scanner lets pass, the bytes coming in pieces of these lengths, and then the rest; and what it said at last.
pub(crate) fn passed(bytes: &[u8], bounds: Bounds, pieces: &[usize]) -> (Vec<u8>, Scanned) {
    let mut messages = Messages::new(bounds);
    let mut out = Vec::new();
    let mut held: Vec<u8> = Vec::new();
    let mut rest = bytes;
    let mut lengths = pieces.iter().copied().chain(std::iter::once(usize::MAX));
    loop {
        let length = lengths.next().unwrap_or(usize::MAX).min(rest.len());
        let (piece, behind) = rest.split_at(length);
        rest = behind;
        held.extend_from_slice(piece);
        let scanned = messages.scan(&held);
        assert!(scanned.passed <= held.len(), "no more passes than came");
        out.extend(held.drain(..scanned.passed));
        if scanned.wrong.is_some() || rest.is_empty() {
            let passed = out.len();
            return (out, Scanned { passed, wrong: scanned.wrong });
        }
    }
}

/// The requests that the parser finds in some bytes.
pub(crate) async fn understood(bytes: Vec<u8>, bounds: Bounds) -> Vec<Understood> {
    let found = Arc::new(Mutex::new(Vec::new()));
    let lock = |found: &Mutex<Vec<Understood>>, change: &dyn Fn(&mut Vec<Understood>)| {
        if let Ok(mut found) = found.lock() {
            change(&mut found);
        }
    };
    let service = service_fn(|request: Request<Incoming>| {
        let found = Arc::clone(&found);
        async move {
            let (parts, body) = request.into_parts();
            let (method, target) = (parts.method.to_string(), parts.uri.to_string());
            lock(&found, &|found| {
                found.push(Understood { method: method.clone(), target: target.clone(), body: None });
            });
            if let Ok(body) = body.collect().await {
                let body = body.to_bytes().to_vec();
                lock(&found, &|found| {
                    if let Some(last) = found.last_mut() {
                        last.body = Some(body.clone());
                    }
                });
            }
            Ok::<_, Infallible>(Response::new(http_body_util::Empty::<bytes::Bytes>::new()))
        }
    });
    let mut builder = http1::Builder::new();
    builder.max_buf_size((bounds.head_bytes_max * 4).max(64 * 1024)).half_close(true).header_read_timeout(None);
    if bounds.fields_max >= 100 {
        builder.max_headers(bounds.fields_max * 2);
    }
    let io = hyper_util::rt::TokioIo::new(Replay { bytes, at: 0 });
    let _ = builder.serve_connection(io, service).await;
    found.lock().map(|found| found.clone()).unwrap_or_default()
}

/// Gives some bytes to read, and takes what is written.
struct Replay {
    bytes: Vec<u8>,
    at: usize,
}

impl tokio::io::AsyncRead for Replay {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let count = rest.len().min(buf.remaining());
        buf.put_slice(rest.get(..count).unwrap_or_default());
        self.at += count;
        Poll::Ready(Ok(()))
    }
}

impl tokio::io::AsyncWrite for Replay {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The messages that the scanner lets pass, read by a second reader that knows nothing of it and takes them for well
/// formed: where they begin and end must follow from what they say. Up to the one that says that it is the last.
fn read(bytes: &[u8], bounds: Bounds) -> (Vec<Understood>, bool) {
    let mut found = Vec::new();
    let mut rest = bytes;
    while let Some(end) = rest.windows(4).position(|window| window == b"\r\n\r\n") {
        let (head, behind) = rest.split_at(end + 4);
        assert!(head.len() <= bounds.head_bytes_max, "a head within its bound");
        let text = String::from_utf8_lossy(head).into_owned();
        let text = text.strip_prefix("\r\n").unwrap_or(&text);
        let mut lines = text.lines();
        let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
        let mut request = Understood {
            method: words.next().unwrap_or_default(),
            target: words.next().unwrap_or_default(),
            body: None,
        };
        let fields: Vec<(String, &str)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_lowercase(), value.trim_matches([' ', '\t'])))
            .collect();
        assert!(fields.len() <= bounds.fields_max, "fields within their bound");
        let value = |name: &str| fields.iter().find(|(of, _)| of == name).map(|(_, value)| *value);
        // As the parser reads it: what is not ASCII says nothing.
        let says = |word: &str| {
            fields
                .iter()
                .filter(|(of, value)| of == "connection" && value.is_ascii())
                .any(|(_, value)| value.split(',').any(|token| token.trim().eq_ignore_ascii_case(word)))
        };
        let is_last = request.method == "CONNECT"
            || says("close")
            || (words.next().as_deref() == Some("HTTP/1.0") && !says("keep-alive"));
        let (body, after) = if value("transfer-encoding").is_some() {
            chunks(behind)
        } else {
            let length = value("content-length").map_or(0, |length| length.parse().unwrap_or(usize::MAX));
            match behind.split_at_checked(length) {
                Some((body, after)) => (Some(body.to_vec()), after),
                None => (None, Default::default()),
            }
        };
        request.body = body;
        let is_whole = request.body.is_some();
        found.push(request);
        rest = after;
        if is_last || !is_whole {
            return (found, is_last);
        }
    }
    (found, false)
}

fn chunks(mut rest: &[u8]) -> (Option<Vec<u8>>, &[u8]) {
    let mut body = Vec::new();
    let line = |bytes: &[u8]| bytes.windows(2).position(|window| window == b"\r\n");
    loop {
        let Some(end) = line(rest) else { return (None, &[]) };
        let (size, behind) = rest.split_at(end);
        let size = String::from_utf8_lossy(size).into_owned();
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16).unwrap_or(usize::MAX);
        rest = behind.get(2..).unwrap_or_default();
        if size == 0 {
            break;
        }
        let Some((data, behind)) = rest.split_at_checked(size) else { return (None, &[]) };
        body.extend_from_slice(data);
        let Some(behind) = behind.strip_prefix(b"\r\n") else { return (None, &[]) };
        rest = behind;
    }
    loop {
        let Some(end) = line(rest) else { return (None, &[]) };
        let is_last = end == 0;
        rest = rest.get(end + 2..).unwrap_or_default();
        if is_last {
            return (Some(body), rest);
        }
    }
}

/// Everything that must hold of any bytes, in any pieces.
pub(crate) async fn check(bytes: &[u8], bounds: Bounds, pieces: &[usize]) {
    let (whole, verdict) = passed(bytes, bounds, &[]);
    let (split, same) = passed(bytes, bounds, pieces);
    assert_eq!((&whole, verdict), (&split, same), "the verdict does not depend on how the bytes come");
    assert!(bytes.starts_with(&whole), "what passes is what came, in order");
    let (good, ends) = read(&whole, bounds);
    if let Some(wrong) = verdict.wrong
        && !ends
    {
        let of_body = u64::from(wrong.place == Place::Body);
        assert_eq!(good.len() as u64, wrong.request + of_body, "heads before the fault have passed, no other");
        assert!(of_body == 0 || good.last().is_some_and(|last| last.body.is_none()), "a wrong body has no end");
    }
    let parsed = understood(whole, bounds).await;
    assert_eq!(parsed.len(), good.len(), "the parser finds what passed: {parsed:?} {good:?}");
    for (one, other) in parsed.iter().zip(&good) {
        // As the parser writes a target again: the forms of it differ in their case and in an empty path.
        let (target, asked) = (one.target.to_lowercase(), other.target.to_lowercase());
        let is_same = target == asked || target.strip_suffix('/') == Some(asked.as_str());
        assert!(one.method == other.method && is_same && one.body == other.body, "{one:?} {other:?}");
    }
}

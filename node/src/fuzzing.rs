//! Doors for fuzzing: what strangers and operators send, taken through what reads it here. Only built with the feature
//! `fuzzing`; the targets, and what they check of what comes out, are in `chaos/fuzz`; those of requests check by
//! themselves what must hold, because it is about what only this crate sees.

pub use crate::admin::fuzzing::{ADMIN_VERBS, admin_command};

use crate::{
    gateway::rules,
    listen::http1::{Bounds, oracle},
    resource::path,
};

/// HTTP/1 on the wire: the first bytes say in which pieces the others come. The verdict must not depend on that, and the
/// parser must find the very requests that the scanner let pass.
pub fn messages(bytes: &[u8]) {
    let Some((count, rest)) = bytes.split_first() else { return };
    let (pieces, stream) = rest.split_at(rest.len().min(usize::from(count % 16)));
    let pieces: Vec<usize> = pieces.iter().map(|length| usize::from(*length)).collect();
    let bounds = Bounds { head_bytes_max: 4096, fields_max: 16 };
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() {
        runtime.block_on(oracle::check(stream, bounds, &pieces));
    }
}

/// The one form of a path: reached at once, and the same resource as what was asked for.
pub fn path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(once) = path::canonical(text) else { return };
    assert_eq!(path::canonical(&once).as_deref(), Ok(once.as_ref()), "the one form is its own");
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
    assert_eq!(decoded(text), decoded(&once), "the same resource");
    assert!(once.starts_with('/') && once.is_ascii(), "{once}");
    let segments: Vec<&str> = once.split('/').skip(1).collect();
    for (place, segment) in segments.iter().enumerate() {
        assert!(!matches!(*segment, "." | ".."), "{once}");
        assert!(!segment.is_empty() || place + 1 == segments.len(), "{once}");
    }
}

/// What a request asks for, by a head that the wire let pass or that came over HTTP/2.
pub fn asked(bytes: &[u8]) {
    rules::asked(bytes);
}

/// The header fields that an upstream gets.
pub fn forwarded(bytes: &[u8]) {
    rules::forwarded(bytes);
}

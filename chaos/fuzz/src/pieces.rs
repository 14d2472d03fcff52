//! How a target's bytes become several things: pieces with their length before them. Whatever the bytes are, they are
//! pieces, so that no mutation is wasted.

/// More pieces than this are not looked at: the time of a run is bounded.
pub const PIECES_MAX: usize = 512;

/// The pieces in these bytes: each with its length in two bytes, little endian; the last may be cut short.
pub fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (piece, rest) = rest.split_at(length);
        bytes = rest;
        Some(piece)
    })
    .take(PIECES_MAX)
}

/// Bytes that hold these pieces.
#[must_use]
pub fn join<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        let length = u16::try_from(piece.len()).expect("a piece has at most 65535 bytes");
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(piece);
    }
    bytes
}

/// The first byte, and the rest: which of several things the rest is.
#[must_use]
pub fn choice(bytes: &[u8]) -> (u8, &[u8]) {
    bytes.split_first().map_or((0, bytes), |(first, rest)| (*first, rest))
}

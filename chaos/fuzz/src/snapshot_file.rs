//! Snapshot files, by their bytes: read to the end or refused, whatever they say of lengths and counts. As they are, or
//! with the checksums put right, so that what lies behind those is reached.

use crate::pieces::choice;
use std::{path::Path, sync::Arc};
use storage::{
    fs::{Fs, Simulated},
    snapshot::{Reader, Snapshots},
};

/// A file as a disk holds it, and as a peer sends it: both are taken in, or neither.
pub fn run(bytes: &[u8]) {
    let (how, bytes) = choice(bytes);
    let mut bytes = bytes.to_vec();
    if how & 1 == 1 {
        put_right(&mut bytes);
    }
    let fs = Simulated::new();
    let path = Path::new("/there.snapshot");
    let file = fs.create(path).expect("a file");
    file.write_at(&bytes, 0).expect("bytes");
    let read = Reader::open_on(&fs, path).and_then(Reader::verify);
    let records = Reader::open_on(&fs, path).map(|reader| reader.filter_map(Result::ok).count() as u64);
    if let Ok(verified) = &read {
        assert_eq!(records.ok(), Some(*verified), "what was verified is what is read");
    }
    let snapshots = Snapshots::open_on(Arc::new(fs), Path::new("/snapshots")).expect("a folder");
    let mut incoming = snapshots.receive().expect("room");
    for piece in bytes.chunks(64 * (usize::from(how) + 1)) {
        incoming.append(piece).expect("bytes");
    }
    let stored = incoming.finish();
    assert_eq!(stored.is_ok(), read.is_ok(), "{stored:?}, {read:?}");
    if let Ok(stored) = stored {
        assert_eq!(snapshots.list().expect("a folder"), [stored]);
    }
}

/// Puts the checksums right, by the format as `storage/src/snapshot.rs` describes it.
fn put_right(bytes: &mut [u8]) {
    const HEADER: usize = 24;
    let Some(head) = number(bytes, 12) else { return };
    let Some(mut at) = HEADER.checked_add(head).filter(|end| *end <= bytes.len()) else { return };
    let crc = crc32fast::hash(bytes.get(..at).unwrap_or_default());
    put(bytes, at, crc);
    at += 4;
    while let Some(length) = number(bytes, at) {
        if length == 0 {
            let whole = crc32fast::hash(bytes.get(..at).unwrap_or_default());
            put(bytes, at + 12, whole);
            let trailer = bytes.get(at..at + 16).map(crc32fast::hash).unwrap_or_default();
            put(bytes, at + 16, trailer);
            return;
        }
        let Some(end) = at.checked_add(12 + length).filter(|end| *end <= bytes.len()) else { return };
        let mut crc = crc32fast::Hasher::new();
        crc.update(&(at as u64).to_le_bytes());
        crc.update(bytes.get(at..at + 8).unwrap_or_default());
        crc.update(bytes.get(at + 12..end).unwrap_or_default());
        put(bytes, at + 8, crc.finalize());
        at = end;
    }
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize)
}

fn put(bytes: &mut [u8], at: usize, crc: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

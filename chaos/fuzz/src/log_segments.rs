//! Segments of the log, by their bytes: a log opens and then holds what it says, or it is refused, whatever the records
//! say of indexes, ranges and lengths. As they are, or with the checksums put right, so that what lies behind is reached.

use crate::pieces::{choice, pieces};
use bytes::Bytes;
use std::{path::Path, sync::Arc, sync::mpsc::channel, time::Duration};
use storage::{
    Error, Log, LogSettings, Record,
    fs::{Fs, Simulated},
};

const SEGMENTS_MAX: usize = 4;
const HEADER: usize = 64;
const RECORD_HEADER: usize = 32;

/// The segments of a log, in order, numbered from 1.
pub fn run(bytes: &[u8]) {
    let (how, rest) = choice(bytes);
    let fs = Simulated::new();
    let dir = Path::new("/log");
    fs.create_dir(dir).expect("a folder");
    for (number, piece) in (1_u64..).zip(pieces(rest)).take(SEGMENTS_MAX) {
        let mut segment = piece.to_vec();
        if how & 1 == 1 {
            put_right(&mut segment, number);
        }
        let file = fs.create(&dir.join(format!("{number:016}.log"))).expect("a file");
        file.write_at(&segment, 0).expect("bytes");
    }
    let open = || Log::open_on(Arc::new(fs.clone()), dir, settings());
    let Ok(log) = open() else { return };
    let (first, next) = match (log.first_index(), log.last_index()) {
        (Some(first), Some(last)) => (first, last.saturating_add(1)),
        _ => return,
    };
    let held = log.read(first..next, usize::MAX).expect("a log that opened gives what it holds");
    assert_eq!(held.len() as u64, log.size().entries);
    let vote = log.vote();
    let more = Record { index: next, bytes: Bytes::from_static(b"more") };
    let appended = asked(|done| log.append(vec![more.clone()], done));
    drop(log);
    if appended.is_err() {
        return;
    }
    let log = open().expect("a log that was written to opens again");
    assert_eq!(log.vote(), vote);
    let again = log.read(first..next + 1, usize::MAX).expect("a log that opened gives what it holds");
    assert!(again.iter().eq(held.iter().chain([&more])), "a log gives something else than before");
}

fn settings() -> LogSettings {
    LogSettings {
        segment_bytes: 1024,
        idle_mark: Duration::from_secs(3600),
        reserve_bytes: 0,
        ..LogSettings::default()
    }
}

fn asked(call: impl FnOnce(Box<dyn FnOnce(Result<(), Error>) + Send>)) -> Result<(), Error> {
    let (done, wait) = channel();
    call(Box::new(move |result| drop(done.send(result))));
    wait.recv().expect("a log answers")
}

/// Puts number and checksums right, by the format as `storage/src/log/format.rs` describes it.
fn put_right(bytes: &mut [u8], number: u64) {
    if bytes.len() < HEADER {
        return;
    }
    put(bytes, 16, &number.to_le_bytes());
    let crc = crc32fast::hash(bytes.get(..HEADER - 4).unwrap_or_default());
    put(bytes, HEADER - 4, &crc.to_le_bytes());
    let salt = bytes.get(24..32).map(<[u8]>::to_vec).unwrap_or_default();
    let mut at = HEADER;
    while at + RECORD_HEADER <= bytes.len() {
        let length = bytes.get(at + 8..at + 12).and_then(|length| length.first_chunk()).copied().unwrap_or_default();
        let body = (u32::from_le_bytes(length) as usize).next_multiple_of(8);
        let Some(end) = (at + RECORD_HEADER).checked_add(body).filter(|end| *end <= bytes.len()) else { return };
        let crc = crc32fast::hash(bytes.get(at + RECORD_HEADER..end).unwrap_or_default());
        put(bytes, at + 4, &crc.to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&salt);
        crc.update(&(at as u64).to_le_bytes());
        crc.update(bytes.get(at + 4..at + RECORD_HEADER).unwrap_or_default());
        put(bytes, at, &crc.finalize().to_le_bytes());
        at = end;
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

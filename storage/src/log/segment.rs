//! One file of the log: its name, how it is begun, and reading records back with their checksums verified.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::contents::Markers;
use super::format::{self, Heading, Kind, RECORD_HEADER, SEGMENT_HEADER, SegmentHeader, Stamp, footprint};
use crate::Error;
use crate::fs::{File, Fs};

const SUFFIX: &str = ".log";
/// A segment under this name was not finished and holds nothing acknowledged.
pub(crate) const UNFINISHED: &str = ".new";

/// A segment that exists under its final name.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    pub(crate) salt: u64,
    pub(crate) file: Box<dyn File>,
}

pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016}{SUFFIX}"))
}

/// The number in a segment's file name; `None` for other files.
pub(crate) fn number(name: &str) -> Option<u64> {
    name.strip_suffix(SUFFIX)?.parse().ok()
}

impl Segment {
    /// Begins a segment: what earlier segments said and must outlive them is written at its head, synced, and only then named. With a
    /// reserve, so much room is held in it.
    ///
    /// [`Error::Full`] means that nothing has changed: what came before may go on.
    pub(crate) fn begin(
        fs: &dyn Fs,
        dir: &Path,
        number: u64,
        held: Option<(u64, u64)>,
        markers: &Markers,
        reserve: Option<u64>,
    ) -> Result<(Segment, u64), Error> {
        // Not a secret: it only keeps bytes of other files and places from passing for records of this one.
        let salt = RandomState::new().build_hasher().finish();
        let mut records = Vec::new();
        let mut put = |kind, index, body: &[u8]| {
            let offset = SEGMENT_HEADER + records.len() as u64;
            format::encode(&mut records, Stamp { salt, offset, synced: 0 }, kind, index, body);
        };
        match held {
            Some((first, last)) => put(Kind::Held, first, &last.to_le_bytes()),
            None => put(Kind::Held, 0, &[]),
        }
        if let Some((index, marker)) = &markers.purged {
            put(Kind::Purge, *index, marker);
        }
        if let Some(vote) = &markers.vote {
            put(Kind::Vote, 0, vote);
        }
        if let Some(committed) = &markers.committed {
            put(Kind::Committed, 0, committed);
        }
        let durable = SEGMENT_HEADER + records.len() as u64;
        let mut bytes = SegmentHeader { number, salt, durable }.encode();
        bytes.append(&mut records);

        let path = path(dir, number);
        let unfinished = path.with_extension(UNFINISHED.trim_start_matches('.'));
        let file = fs.create(&unfinished).map_err(|error| Error::io(&unfinished, "create", error))?;
        if let Some(reserve) = reserve
            && let Err(error) = file.reserve(0, reserve)
        {
            // It would only be in the way.
            drop(fs.remove(&unfinished));
            return Err(Error::io(&unfinished, "hold room for", error));
        }
        file.write_at(&bytes, 0).map_err(|error| Error::io(&unfinished, "write", error))?;
        file.sync().map_err(|error| Error::io(&unfinished, "sync", error))?;
        fs.rename(&unfinished, &path).map_err(|error| Error::io(&unfinished, "rename", error))?;
        // Never "full": from the rename on, nothing may be written to the segment before.
        let sync = |error| Error::Io { file: dir.to_owned(), action: "sync", source: Arc::new(error) };
        fs.sync_dir(dir).map_err(sync)?;
        Ok((Segment { number, path, salt, file }, durable))
    }

    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        self.file.write_at(bytes, offset).map_err(|error| Error::io(&self.path, "write", error))
    }

    /// Holds room for so many bytes from here on.
    pub(crate) fn reserve(&self, offset: u64, bytes: u64) -> Result<(), Error> {
        self.file.reserve(offset, bytes).map_err(|error| Error::io(&self.path, "hold room for", error))
    }

    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file.sync().map_err(|error| Error::io(&self.path, "sync", error))
    }

    /// Reads entries that lie close together with one read: `(index, offset, body length)`, ascending.
    pub(crate) fn read_run(&self, run: &[(u64, u64, u32)]) -> Result<Vec<(u64, Bytes)>, Error> {
        let (Some((_, start, _)), Some((_, last, len))) = (run.first(), run.last()) else {
            return Ok(Vec::new());
        };
        let end = last + footprint(*len as usize);
        let mut bytes = vec![0; (end - start) as usize];
        let read = self.file.read_at(&mut bytes, *start).map_err(|error| Error::io(&self.path, "read", error))?;
        bytes.truncate(read);
        let mut entries = Vec::with_capacity(run.len());
        for (index, offset, _) in run {
            let record = bytes.get((offset - start) as usize..).unwrap_or_default();
            let heading = Heading::decode(record, self.salt, *offset)
                .filter(|heading| heading.kind == Some(Kind::Entry) && heading.index == *index);
            let Some(body) = heading.and_then(|heading| heading.body(record)) else {
                return Err(Error::corrupt(&self.path, *offset, format!("entry {index} does not match its checksum")));
            };
            entries.push((*index, Bytes::copy_from_slice(body)));
        }
        Ok(entries)
    }
}

/// Entries of one segment closer together than this are read at once.
const RUN_GAP: u64 = 4096;
const RUN_BYTES_MAX: u64 = 1 << 20;

/// Collects neighbouring entries for [`Segment::read_run`].
#[derive(Debug, Default)]
pub(crate) struct Run {
    segment: Option<Arc<Segment>>,
    entries: Vec<(u64, u64, u32)>,
}

impl Run {
    pub(crate) fn takes(&self, segment: &Arc<Segment>, offset: u64) -> bool {
        match (&self.segment, self.entries.first(), self.entries.last()) {
            (Some(own), Some((_, start, _)), Some((_, last, len))) => {
                let end = last + RECORD_HEADER + u64::from(*len);
                own.number == segment.number
                    && offset >= end
                    && offset - end < RUN_GAP
                    && offset - start < RUN_BYTES_MAX
            }
            _ => true,
        }
    }

    pub(crate) fn add(&mut self, segment: Arc<Segment>, index: u64, offset: u64, len: u32) {
        self.segment = Some(segment);
        self.entries.push((index, offset, len));
    }

    pub(crate) fn read(&mut self) -> Result<Vec<(u64, Bytes)>, Error> {
        let entries = std::mem::take(&mut self.entries);
        self.segment.take().map_or(Ok(Vec::new()), |segment| segment.read_run(&entries))
    }
}

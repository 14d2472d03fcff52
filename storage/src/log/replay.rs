//! Opening a log: reading every segment in order, cutting a torn tail, and refusing everything else that does not check.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::INDEX_MAX;
use super::contents::{Contents, Place};
use super::format::{self, HeaderFault, Heading, Kind, SEGMENT_HEADER, SegmentHeader, footprint};
use super::segment::{self, Segment, UNFINISHED};
use crate::Error;
use crate::fs::Fs;

/// The log as found on disk, with everything in it durable.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) contents: Contents,
    /// In order; the last one is written on.
    pub(crate) segments: Vec<Found>,
    /// The length of the last segment.
    pub(crate) end: u64,
    /// Bytes of an unacknowledged batch that a crash had left behind and that were cut off.
    pub(crate) torn_bytes: u64,
}

#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) segment: Arc<Segment>,
    pub(crate) bytes: u64,
    /// The highest index of any entry in it: purged to there, it can go.
    pub(crate) highest: Option<u64>,
}

pub(crate) fn replay(fs: &dyn Fs, dir: &Path) -> Result<Replayed, Error> {
    let numbers = tidy(fs, dir)?;
    let mut contents = Contents::default();
    let mut segments = Vec::with_capacity(numbers.len());
    let (mut end, mut torn_bytes) = (0, 0);
    for (at, number) in numbers.iter().enumerate() {
        let path = segment::path(dir, *number);
        if at > 0 && numbers.get(at - 1).is_some_and(|before| before + 1 != *number) {
            return Err(Error::corrupt(&path, 0, "the segment before this one is missing"));
        }
        let file = fs.open(&path).map_err(|error| Error::io(&path, "open", error))?;
        let newest = at + 1 == numbers.len();
        if newest {
            // After a mere crash of the process, its last writes may be in the kernel's memory alone: they must not be taken for
            // durable. And after a sync that failed, that memory may hold what the disk never got, and call it clean.
            file.sync().map_err(|error| Error::io(&path, "sync", error))?;
            file.forget().map_err(|error| Error::io(&path, "read", error))?;
        }
        let length = file.len().map_err(|error| Error::io(&path, "read", error))?;
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| Error::corrupt(&path, 0, "impossible length"))?];
        let read = file.read_at(&mut bytes, 0).map_err(|error| Error::io(&path, "read", error))?;
        bytes.truncate(read);

        let header = SegmentHeader::decode(&bytes).map_err(|fault| match fault {
            HeaderFault::NotASegment => Error::corrupt(&path, 0, "not a log segment"),
            HeaderFault::Damaged => Error::corrupt(&path, 0, "the segment's header does not match its checksum"),
            HeaderFault::Newer(found) => Error::Newer { file: path.clone(), found, supported: format::FORMAT },
        })?;
        if header.number != *number {
            return Err(Error::corrupt(&path, 16, format!("the header says that this is segment {}", header.number)));
        }
        let segment = Arc::new(Segment { number: *number, path, salt: header.salt, file });
        let mut reading =
            Reading { segment: &segment, header, contents: &mut contents, oldest: at == 0, highest: None };
        end = reading.read(&bytes, newest)?;
        let highest = reading.highest;
        if end < bytes.len() as u64 {
            torn_bytes = bytes.len() as u64 - end;
            segment.file.cut(end).map_err(|error| Error::io(&segment.path, "cut the torn tail of", error))?;
        }
        segments.push(Found { segment, bytes: end, highest });
    }
    if let (Some((first, last)), Some(oldest)) = (contents.missing(), segments.first()) {
        let what = format!("entries {first} to {last} should be in an earlier segment, which is missing");
        return Err(Error::corrupt(&oldest.segment.path, SEGMENT_HEADER, what));
    }
    if !segments.is_empty() {
        fs.sync_dir(dir).map_err(|error| Error::io(dir, "sync", error))?;
    }
    Ok(Replayed { contents, segments, end, torn_bytes })
}

/// Removes unfinished segments, and lists the others in order.
fn tidy(fs: &dyn Fs, dir: &Path) -> Result<Vec<u64>, Error> {
    let names = fs.list(dir).map_err(|error| Error::io(dir, "list", error))?;
    let mut numbers = BTreeMap::new();
    for name in names {
        if name.ends_with(UNFINISHED) {
            let path = dir.join(&name);
            fs.remove(&path).map_err(|error| Error::io(&path, "remove", error))?;
        } else if let Some(number) = segment::number(&name) {
            numbers.insert(number, ());
        }
    }
    Ok(numbers.into_keys().collect())
}

struct Reading<'a> {
    segment: &'a Segment,
    header: SegmentHeader,
    contents: &'a mut Contents,
    oldest: bool,
    highest: Option<u64>,
}

impl Reading<'_> {
    /// Applies the records of the segment, and returns where they end.
    fn read(&mut self, bytes: &[u8], newest: bool) -> Result<u64, Error> {
        let mut offset = SEGMENT_HEADER;
        while offset < bytes.len() as u64 {
            let record = bytes.get(offset as usize..).unwrap_or_default();
            let heading = Heading::decode(record, self.header.salt, offset);
            let (Some(heading), Some(body)) = (heading, heading.and_then(|heading| heading.body(record))) else {
                let durable = offset < self.header.durable || format::was_durable(bytes, self.header.salt, offset);
                if newest && !durable {
                    return Ok(offset);
                }
                return Err(self.corrupt(offset, "the record does not match its checksum"));
            };
            self.apply(offset, &heading, body)?;
            offset += footprint(heading.len as usize);
        }
        if offset < self.header.durable {
            return Err(self.corrupt(offset, "the segment is cut short"));
        }
        Ok(offset)
    }

    fn apply(&mut self, offset: u64, heading: &Heading, body: &[u8]) -> Result<(), Error> {
        let index = heading.index;
        let Some(kind) = heading.kind else {
            return Err(self.corrupt(offset, "a record of a kind that this release does not know"));
        };
        if index > INDEX_MAX {
            return Err(self.corrupt(offset, format!("an impossible index: {index}")));
        }
        match kind {
            Kind::Entry => {
                if self.contents.next().is_some_and(|next| next != index) {
                    let next = self.contents.next().unwrap_or_default();
                    return Err(self.corrupt(offset, format!("entry {index} where entry {next} should be")));
                }
                let place = Place::Stored { segment: self.segment.number as u32, len: heading.len, offset };
                self.contents.push(index, place, None);
                self.highest = self.highest.max(Some(index));
            }
            Kind::Vote => self.contents.markers.vote = Some(Bytes::copy_from_slice(body)),
            Kind::Committed => self.contents.markers.committed = Some(Bytes::copy_from_slice(body)),
            Kind::Truncate => self.contents.truncate_from(index),
            Kind::Purge => self.contents.purge_to(index, Bytes::copy_from_slice(body)),
            Kind::Held => self.held(offset, index, body)?,
            Kind::Mark => {}
        }
        Ok(())
    }

    /// The oldest segment tells what the removed ones held; each later one must continue where the one before it ends.
    fn held(&mut self, offset: u64, first: u64, body: &[u8]) -> Result<(), Error> {
        let held = format::u64_at(body, 0).map(|last| (first, last));
        if self.oldest {
            match held {
                Some((first, last)) if first > last || last > INDEX_MAX => {
                    return Err(self.corrupt(offset, format!("an impossible range of entries: {first} to {last}")));
                }
                Some((first, last)) if self.contents.first().is_none() => self.contents.begin_unfound(first, last),
                Some(_) => return Err(self.corrupt(offset, "what the segment began with stands behind its entries")),
                None => {}
            }
            return Ok(());
        }
        let found = self.contents.first().zip(self.contents.last());
        if found == held {
            return Ok(());
        }
        let told =
            |range: Option<(u64, u64)>| range.map_or("none".to_owned(), |(first, last)| format!("{first} to {last}"));
        let what = format!("this segment began when the log held entries {}; found {}", told(held), told(found));
        Err(self.corrupt(offset, what))
    }

    fn corrupt(&self, offset: u64, what: impl Into<String>) -> Error {
        Error::corrupt(&self.segment.path, offset, what)
    }
}

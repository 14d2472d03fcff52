//! What the log holds, in memory: a position for each entry, the latest entries themselves, and the vote, committed and purged markers.
//!
//! Entries are a contiguous run of indexes. No I/O here.

use std::collections::VecDeque;

use bytes::Bytes;

/// Where an entry lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a segment. The segment's number modulo 2³² is enough: more segments than that never live at once.
    Stored { segment: u32, len: u32, offset: u64 },
    /// Not written yet; the ticket tells it from an earlier entry of the same index that was truncated in the queue.
    Queued { ticket: u64 },
}

/// The single-valued part of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Markers {
    pub(crate) vote: Option<Bytes>,
    pub(crate) committed: Option<Bytes>,
    pub(crate) purged: Option<(u64, Bytes)>,
}

#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) markers: Markers,
    first: u64,
    /// How many entries, from the first on, are in segments before the oldest one found. Counted, not listed: a segment says how many
    /// there were, and that may be anything.
    unfound: u64,
    places: VecDeque<Place>,
    /// The last entries; everything that is still queued is among them.
    recent: VecDeque<Bytes>,
    recent_bytes: usize,
}

impl Contents {
    pub(crate) fn first(&self) -> Option<u64> {
        (self.unfound > 0 || !self.places.is_empty()).then_some(self.first)
    }

    pub(crate) fn last(&self) -> Option<u64> {
        Some(self.first()? + self.unfound + self.places.len() as u64 - 1)
    }

    /// How many can be read.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// The only index that can be appended next; `None` if any can.
    pub(crate) fn next(&self) -> Option<u64> {
        match self.last() {
            Some(last) => Some(last + 1),
            None => self.markers.purged.as_ref().map(|(purged, _)| purged + 1),
        }
    }

    /// Adds an entry. The caller has checked that it is the next one.
    pub(crate) fn push(&mut self, index: u64, place: Place, bytes: Option<Bytes>) {
        if self.first().is_none() {
            self.first = index;
        }
        self.places.push_back(place);
        match bytes {
            Some(bytes) => {
                self.recent_bytes += bytes.len();
                self.recent.push_back(bytes);
            }
            // The recent entries are the last ones without a gap.
            None => self.forget_recent(),
        }
    }

    /// Begins with entries that were held when the oldest segment found was begun, and that are in others.
    pub(crate) fn begin_unfound(&mut self, first: u64, last: u64) {
        (self.first, self.unfound) = (first, last - first + 1);
    }

    pub(crate) fn truncate_from(&mut self, index: u64) {
        let keep = index.saturating_sub(self.first);
        self.unfound = self.unfound.min(keep);
        let keep = (keep - self.unfound).min(self.places.len() as u64) as usize;
        for _ in keep..self.places.len() {
            self.places.pop_back();
            self.recent_bytes -= self.recent.pop_back().map_or(0, |bytes| bytes.len());
        }
    }

    pub(crate) fn purge_to(&mut self, index: u64, marker: Bytes) {
        if self.unfound > 0 && self.first <= index {
            let gone = self.unfound.min(index - self.first + 1);
            self.unfound -= gone;
            self.first += gone;
        }
        while self.first().is_some_and(|first| first <= index) {
            if self.recent.len() == self.places.len() {
                self.recent_bytes -= self.recent.pop_front().map_or(0, |bytes| bytes.len());
            }
            self.places.pop_front();
            self.first += 1;
        }
        self.markers.purged = Some((index, marker));
    }

    /// Notes where a queued entry was written, if it is still the one.
    pub(crate) fn stored(&mut self, index: u64, ticket: u64, stored: Place) {
        if let Some(place) = self.slot(index).and_then(|slot| self.places.get_mut(slot))
            && *place == (Place::Queued { ticket })
        {
            *place = stored;
        }
    }

    /// Forgets the oldest recent entries beyond this many bytes, except queued ones and the last.
    pub(crate) fn shrink_recent(&mut self, bytes_max: usize) {
        while self.recent_bytes > bytes_max && self.recent.len() > 1 {
            let oldest = self.places.len() - self.recent.len();
            if let Some(Place::Queued { .. }) = self.places.get(oldest) {
                break;
            }
            self.recent_bytes -= self.recent.pop_front().map_or(0, |bytes| bytes.len());
        }
    }

    pub(crate) fn place(&self, index: u64) -> Option<Place> {
        self.places.get(self.slot(index)?).copied()
    }

    pub(crate) fn recent(&self, index: u64) -> Option<Bytes> {
        let slot = self.slot(index)?;
        let before = self.places.len() - self.recent.len();
        self.recent.get(slot.checked_sub(before)?).cloned()
    }

    /// The entries whose segment was not found.
    pub(crate) fn missing(&self) -> Option<(u64, u64)> {
        (self.unfound > 0).then(|| (self.first, self.first + self.unfound - 1))
    }

    fn slot(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.first)?.checked_sub(self.unfound)?).ok()
    }

    fn forget_recent(&mut self) {
        self.recent.clear();
        self.recent_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Option<Bytes> {
        Some(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn an_entry_written_after_it_was_truncated_does_not_stand_in_for_its_successor() {
        let stored = Place::Stored { segment: 1, len: 3, offset: 64 };
        let mut contents = Contents::default();
        contents.push(5, Place::Queued { ticket: 0 }, bytes("old"));
        contents.truncate_from(5);
        contents.push(5, Place::Queued { ticket: 1 }, bytes("new"));
        contents.stored(5, 0, stored);
        contents.shrink_recent(0);
        assert_eq!((contents.place(5), contents.recent(5)), (Some(Place::Queued { ticket: 1 }), bytes("new")));
        contents.stored(5, 1, stored);
        assert_eq!(contents.place(5), Some(stored));
    }

    #[test]
    fn entries_that_were_not_found_go_with_the_others() {
        let stored = Place::Stored { segment: 1, len: 3, offset: 64 };
        let most = u64::MAX - 1;
        let mut contents = Contents::default();
        contents.begin_unfound(5, most - 1);
        contents.push(most, stored, None);
        assert_eq!((contents.first(), contents.last(), contents.missing()), (Some(5), Some(most), Some((5, most - 1))));
        assert_eq!((contents.place(most - 1), contents.place(most)), (None, Some(stored)));
        contents.purge_to(9, Bytes::new());
        assert_eq!(contents.missing(), Some((10, most - 1)));
        contents.truncate_from(20);
        assert_eq!((contents.missing(), contents.last(), contents.place(most)), (Some((10, 19)), Some(19), None));
        contents.push(20, stored, None);
        contents.purge_to(19, Bytes::new());
        assert_eq!((contents.missing(), contents.first(), contents.place(20)), (None, Some(20), Some(stored)));
        contents.truncate_from(0);
        assert_eq!((contents.first(), contents.next()), (None, Some(20)));
    }

    #[test]
    fn what_is_queued_is_never_forgotten() {
        let mut contents = Contents::default();
        for index in 1..=4 {
            contents.push(index, Place::Queued { ticket: index }, bytes("12345"));
        }
        for index in 1..=2 {
            contents.stored(index, index, Place::Stored { segment: 1, len: 5, offset: 64 * index });
        }
        contents.shrink_recent(0);
        let recent: Vec<bool> = (1..=4).map(|index| contents.recent(index).is_some()).collect();
        assert_eq!(recent, [false, false, true, true]);
        contents.purge_to(3, Bytes::new());
        contents.truncate_from(0);
        assert_eq!((contents.len(), contents.recent_bytes, contents.next()), (0, 0, Some(4)));
    }
}

//! Digests of the replicated state at some log indexes: two nodes that have applied the same index say the same. Only
//! where [`crate::Upkeep::digest_entries`] asks for them: apply then sets a state aside now and then, which costs a few
//! pointers, and whoever asks pays for the rest.

use crate::{codec, types::lock};
use machine::State;
use sha2::{Digest as _, Sha256};
use std::{collections::VecDeque, io, sync::Mutex};

/// States that are set aside: enough for all nodes to be asked while the newest is the newest.
const MARKS_MAX: usize = 16;

/// SHA-256 of all records of a state.
pub type Digest = [u8; 32];

/// What was set aside, oldest first.
#[derive(Debug)]
pub(crate) struct Marks {
    every: u64,
    kept: Mutex<VecDeque<(u64, Mark)>>,
    /// The index at which the state was when it was asked for last, and its digest once it was asked for twice.
    standing: Mutex<(u64, Option<Digest>)>,
}

#[derive(Clone, Debug)]
enum Mark {
    State(Box<State>),
    Digest(Digest),
}

impl Marks {
    /// Sets a state aside at every index that this divides; none if it is 0.
    pub(crate) fn new(every: u64) -> Self {
        Self { every, kept: Mutex::default(), standing: Mutex::default() }
    }

    /// Whether states are set aside.
    pub(crate) const fn are_kept(&self) -> bool {
        self.every > 0
    }

    /// The state at this index.
    pub(crate) fn note(&self, index: u64, state: &State) {
        if self.every == 0 || !index.is_multiple_of(self.every) {
            return;
        }
        let mut kept = lock(&self.kept);
        kept.push_back((index, Mark::State(Box::new(state.clone()))));
        while kept.len() > MARKS_MAX {
            kept.pop_front();
        }
    }

    /// The digest of the state as it is, if it was asked for at this index before: one that goes on all the time is not
    /// read each time that somebody looks.
    pub(crate) fn standing(&self, index: u64, state: &State) -> io::Result<Option<Digest>> {
        let mut standing = lock(&self.standing);
        match *standing {
            (last, Some(known)) if last == index => Ok(Some(known)),
            (last, None) if last == index => {
                let now = digest(state)?;
                *standing = (index, Some(now));
                Ok(Some(now))
            }
            _ => {
                *standing = (index, None);
                Ok(None)
            }
        }
    }

    /// The digests at the last of these indexes. Reads whole states: not for a thread that others wait for.
    pub(crate) fn digests(&self) -> io::Result<Vec<(u64, Digest)>> {
        let mut kept = lock(&self.kept).clone();
        for (_, mark) in &mut kept {
            if let Mark::State(state) = mark {
                *mark = Mark::Digest(digest(state)?);
            }
        }
        let known = |(index, mark): &(u64, Mark)| match mark {
            Mark::Digest(digest) => Some((*index, *digest)),
            Mark::State(_) => None,
        };
        let digests: Vec<(u64, Digest)> = kept.iter().filter_map(known).collect();
        // Each is computed once, and its state let go. One that was read again from the log meanwhile has its own.
        let mut marks = lock(&self.kept);
        for (place, (index, mark)) in marks.iter_mut().enumerate() {
            let computed = kept.get(place).filter(|(other, _)| other == index);
            if let (Mark::State(_), Some((_, Mark::Digest(digest)))) = (&*mark, computed) {
                *mark = Mark::Digest(*digest);
            }
        }
        Ok(digests)
    }
}

/// The digest of a state: of its records in the order of their keys, which is the same on every node.
fn digest(state: &State) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    for record in state.records() {
        let bytes = codec::encode_plain(&record)?;
        hasher.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(&bytes);
    }
    Ok(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::{At, Tick, Wall};

    fn state(tick: u64) -> State {
        State { at: At { tick: Tick(tick), wall: Wall(0) }, ..State::default() }
    }

    #[test]
    fn digests_differ_as_states_do() {
        assert_eq!(digest(&state(1)).unwrap(), digest(&state(1)).unwrap());
        assert_ne!(digest(&state(1)).unwrap(), digest(&state(2)).unwrap());
    }

    #[test]
    fn the_last_few_are_kept() {
        let marks = Marks::new(10);
        (1..=500).for_each(|index| marks.note(index, &state(index)));
        let first = marks.digests().unwrap();
        assert_eq!(first.len(), MARKS_MAX);
        assert_eq!(first.last(), Some(&(500, digest(&state(500)).unwrap())));
        assert_eq!(marks.digests().unwrap(), first);
        marks.note(510, &state(510));
        assert_eq!(marks.digests().unwrap().last(), Some(&(510, digest(&state(510)).unwrap())));
        assert_eq!(marks.standing(511, &state(511)).unwrap(), None);
        assert_eq!(marks.standing(511, &state(511)).unwrap(), Some(digest(&state(511)).unwrap()));
        assert_eq!(marks.standing(511, &state(511)).unwrap(), Some(digest(&state(511)).unwrap()));
        assert_eq!(marks.standing(512, &state(512)).unwrap(), None);
        let off = Marks::new(0);
        off.note(0, &state(0));
        assert!(!off.are_kept() && off.digests().unwrap().is_empty());
    }
}

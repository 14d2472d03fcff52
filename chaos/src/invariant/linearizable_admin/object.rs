//! One object of the admin API, as far as its operations tell: a value and the revision of its last change. What is not
//! known is a set of possibilities, so that each operation has one next state or none.

use crate::history::{REVOKED, Refused, Version};

/// What an operation is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed<'a> {
    Read,
    Create { value: &'a str },
    Put { value: &'a str, expected: Option<u64> },
    Change { value: &'a str, expected: Option<u64> },
    Delete { expected: Option<u64> },
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    Found(Option<&'a Version>),
    Done(u64),
    Refused(Refused),
    Unknown,
}

/// What is known of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Object<'a> {
    there: There<'a>,
    /// The largest cluster revision that was seen: what changes from now on gets a larger one.
    floor: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum There<'a> {
    /// Nothing is known: it is older than the history.
    Anything,
    /// There is none.
    Absent,
    /// There is one.
    Present {
        /// What it holds, if that is known.
        value: Option<&'a str>,
        /// Its revision is not below this,
        low: u64,
        /// and not above this.
        high: u64,
    },
}

use There::{Absent, Anything, Present};

impl<'a> Deed<'a> {
    /// What a write makes of the object.
    pub(super) const fn value(self) -> Option<&'a str> {
        match self {
            Self::Create { value } | Self::Put { value, .. } | Self::Change { value, .. } => Some(value),
            Self::Read | Self::Delete { .. } => None,
        }
    }

    /// The revision that it expects.
    pub(super) const fn expected(self) -> Option<u64> {
        match self {
            Self::Put { expected, .. } | Self::Change { expected, .. } | Self::Delete { expected } => expected,
            Self::Read | Self::Create { .. } => None,
        }
    }
}

impl<'a> Object<'a> {
    /// An object that is older than the history.
    pub(super) const UNSEEN: Self = Self { there: Anything, floor: 0 };

    /// The state after an operation with this answer; `None` if the answer is wrong in this state. Where revisions say
    /// little (`loose`), they are not looked at.
    pub(super) fn after(self, deed: Deed<'a>, answer: Answer<'a>, loose: bool) -> Option<Self> {
        let next = match answer {
            Answer::Found(found) => self.found(found, loose),
            Answer::Done(revision) => self.done(deed, revision),
            Answer::Refused(refused) => self.refused(deed, refused),
            Answer::Unknown => self.perhaps(deed),
        };
        if loose { next.map(Self::loosened) } else { next }
    }

    fn loosened(self) -> Self {
        let there = match self.there {
            Present { value, .. } => Present { value, low: 0, high: u64::MAX },
            other => other,
        };
        Self { there, floor: 0 }
    }

    const fn is(self, there: There<'a>) -> Self {
        Self { there, ..self }
    }

    fn found(self, found: Option<&'a Version>, loose: bool) -> Option<Self> {
        let Some(version) = found else {
            return matches!(self.there, Anything | Absent).then(|| self.is(Absent));
        };
        let fits = match self.there {
            Anything => true,
            Absent => false,
            Present { value, low, high } => {
                value.is_none_or(|value| value == version.value) && ((low..=high).contains(&version.revision) || loose)
            }
        };
        let there = Present { value: Some(&version.value), low: version.revision, high: version.revision };
        fits.then(|| Self { there, floor: self.floor.max(version.revision) })
    }

    /// The same, now that its revision is known to be this.
    fn at(self, expected: Option<u64>) -> Option<Self> {
        let Some(revision) = expected else { return Some(self) };
        let value = match self.there {
            Present { value, low, high } if (low..=high).contains(&revision) => value,
            Anything => None,
            Present { .. } | Absent => return None,
        };
        let there = Present { value, low: revision, high: revision };
        Some(Self { there, floor: self.floor.max(revision) })
    }

    /// The state once it holds this since this revision, which no other change has had.
    fn made(self, value: &'a str, revision: u64) -> Option<Self> {
        let there = Present { value: Some(value), low: revision, high: revision };
        (revision > self.floor).then_some(Self { there, floor: revision })
    }

    fn done(self, deed: Deed<'a>, revision: u64) -> Option<Self> {
        let object = self.at(deed.expected())?;
        match (deed, object.there) {
            (Deed::Read, _) => None,
            (Deed::Create { value }, Anything | Absent) | (Deed::Put { value, .. }, Absent) => {
                object.made(value, revision)
            }
            (Deed::Create { .. }, Present { .. }) | (Deed::Change { .. } | Deed::Delete { .. }, Absent) => None,
            (Deed::Put { value, .. } | Deed::Change { value, .. }, _) => object.replaced(value, revision),
            (Deed::Delete { .. }, Anything | Present { .. }) => {
                (revision > object.floor).then_some(Self { there: Absent, floor: revision })
            }
        }
    }

    /// What is there is replaced, or was this already: then its revision stays, and the answer is the cluster's.
    fn replaced(self, new: &'a str, revision: u64) -> Option<Self> {
        let there = match self.there {
            Absent => return None,
            // Revoked is for good.
            Present { value: Some(REVOKED), .. } if new != REVOKED => return None,
            Present { value: Some(value), .. } if value != new => return self.made(new, revision),
            Present { value: Some(_), low, high } => Present { value: Some(new), low, high: high.min(revision) },
            Present { value: None, low, .. } => Present { value: Some(new), low, high: revision },
            Anything => Present { value: Some(new), low: 0, high: revision },
        };
        (revision >= self.floor).then_some(Self { there, floor: revision })
    }

    fn refused(self, deed: Deed<'a>, refused: Refused) -> Option<Self> {
        let something = Present { value: None, low: 0, high: u64::MAX };
        match (refused, self.there) {
            (Refused::AlreadyExists, Anything) => Some(self.is(something)),
            (Refused::AlreadyExists, Present { .. }) => Some(self),
            (Refused::AlreadyExists | Refused::Revoked, Absent) => None,
            (Refused::NotFound, Anything | Absent) => Some(self.is(Absent)),
            (Refused::NotFound, Present { .. }) => None,
            // An object that is gone is at no revision, or at none.
            (Refused::Conflict { actual }, Absent) => actual.is_none_or(|actual| actual == 0).then_some(self),
            (Refused::Conflict { actual: Some(actual) }, Anything | Present { .. }) => {
                (deed.expected() != Some(actual)).then(|| self.at(Some(actual))).flatten()
            }
            (Refused::Conflict { actual: None }, Anything) => Some(self.is(something)),
            (Refused::Conflict { actual: None }, Present { low, high, .. }) => {
                (low != high || deed.expected() != Some(low)).then_some(self)
            }
            (Refused::Revoked, Anything) => Some(self.is(Present { value: Some(REVOKED), low: 0, high: u64::MAX })),
            (Refused::Revoked, Present { value, low, high }) => {
                value.is_none_or(|value| value == REVOKED).then(|| self.is(Present { value: Some(REVOKED), low, high }))
            }
        }
    }

    /// The operation took effect, and nobody knows at which revision.
    fn perhaps(self, deed: Deed<'a>) -> Option<Self> {
        let object = self.at(deed.expected())?;
        let floor = object.floor.saturating_add(1);
        let made = |value| Some(Self { there: Present { value: Some(value), low: floor, high: u64::MAX }, floor });
        match (deed, object.there) {
            (Deed::Read, _) => None,
            (Deed::Create { value }, Anything | Absent) | (Deed::Put { value, .. }, Absent) => made(value),
            (Deed::Create { .. }, Present { .. }) | (Deed::Change { .. } | Deed::Delete { .. }, Absent) => None,
            (Deed::Delete { .. }, Anything | Present { .. }) => Some(Self { there: Absent, floor }),
            // It changed nothing, which is as if it had not been done.
            (Deed::Put { value, .. } | Deed::Change { value, .. }, Present { value: Some(before), .. })
                if before == value || before == REVOKED =>
            {
                None
            }
            (Deed::Put { value, .. } | Deed::Change { value, .. }, Present { value: Some(_), .. }) => made(value),
            (Deed::Put { value, .. } | Deed::Change { value, .. }, Present { value: None, low, .. }) => {
                Some(object.is(Present { value: Some(value), low, high: u64::MAX }))
            }
            (Deed::Put { value, .. } | Deed::Change { value, .. }, Anything) => {
                Some(object.is(Present { value: Some(value), low: 0, high: u64::MAX }))
            }
        }
    }
}

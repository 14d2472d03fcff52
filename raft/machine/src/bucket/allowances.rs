//! The allowances of one bucket: a sorted list, because there are few of them, and of buckets there are millions.

use super::{Allowance, AllowanceId};
use serde::{Deserialize, Serialize};

/// Allowances by number, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowances(Vec<(AllowanceId, Allowance)>);

impl Allowances {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The allowance with this number.
    #[must_use]
    pub fn get(&self, id: AllowanceId) -> Option<&Allowance> {
        self.0.get(self.place(id).ok()?).map(|(_, allowance)| allowance)
    }

    /// Whether there is one with this number.
    #[must_use]
    pub fn contains_key(&self, id: &AllowanceId) -> bool {
        self.place(*id).is_ok()
    }

    /// All with their numbers, in order.
    pub fn iter(&self) -> impl Iterator<Item = (AllowanceId, &Allowance)> {
        self.0.iter().map(|(id, allowance)| (*id, allowance))
    }

    /// All of them.
    pub fn values(&self) -> impl Iterator<Item = &Allowance> {
        self.0.iter().map(|(_, allowance)| allowance)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Allowance> {
        self.0.iter_mut().map(|(_, allowance)| allowance)
    }

    pub(super) fn get_mut(&mut self, id: AllowanceId) -> Option<&mut Allowance> {
        let place = self.place(id).ok()?;
        self.0.get_mut(place).map(|(_, allowance)| allowance)
    }

    pub(super) fn insert(&mut self, id: AllowanceId, allowance: Allowance) {
        // Most buckets have one at a time: room for more would cost more than all else.
        self.0.reserve_exact(1);
        match self.place(id) {
            Ok(place) => {
                if let Some(there) = self.0.get_mut(place) {
                    there.1 = allowance;
                }
            }
            Err(place) => self.0.insert(place, (id, allowance)),
        }
    }

    pub(super) fn remove(&mut self, id: AllowanceId) {
        if let Ok(place) = self.place(id) {
            self.0.remove(place);
        }
    }

    pub(super) fn retain(&mut self, keeps: impl Fn(&Allowance) -> bool) {
        self.0.retain(|(_, allowance)| keeps(allowance));
    }

    /// Forgets the oldest expired ones beyond so many.
    pub(super) fn forget_expired(&mut self, most: usize) {
        let expired = self.values().filter(|allowance| allowance.expired).count();
        let mut too_many = expired.saturating_sub(most);
        self.0.retain(|(_, allowance)| {
            let forget = allowance.expired && too_many > 0;
            too_many -= usize::from(forget);
            !forget
        });
    }

    /// Whether the numbers are in order, each once, and all below `next`.
    pub(super) fn are_in_order(&self, next: AllowanceId) -> bool {
        self.0.is_sorted_by(|(one, _), (other, _)| one < other) && self.0.last().is_none_or(|(last, _)| *last < next)
    }

    fn place(&self, id: AllowanceId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&id, |(number, _)| *number)
    }
}

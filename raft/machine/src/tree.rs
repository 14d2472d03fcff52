//! A persistent ordered tree of small records that carry their own keys: a million of them must not cost many times
//! their size. Leaves are slices of exactly the length they need, so there is no slack however they came to be, and a
//! record lies in its leaf, without a pointer to it. A clone costs one pointer and shares everything; a change copies
//! the leaf it is in and the branches above it, as far as they are shared.
//!
//! How to walk over it is in `iter.rs`, how two of them differ in `difference.rs`, how many records at once become one in
//! `builder.rs`, and how many go at once in `removal.rs`.

mod builder;
mod difference;
mod iter;
mod removal;

pub(crate) use builder::Builder;
pub(crate) use difference::{Difference, differences};
pub use iter::Iter;

use std::{fmt, sync::Arc};

/// The most records of a leaf: a change copies some kilobytes, and a leaf's share of what is above it is small.
const LEAF_MAX: usize = 32;
/// The most children of a branch.
const BRANCH_MAX: usize = 64;

/// A record that knows its key. The key is small: it is compared and copied.
pub trait Keyed: Clone {
    /// What orders the records.
    type Key: Ord + Copy;
    /// The record's own.
    fn key(&self) -> Self::Key;
}

/// Records by their keys, each key once.
pub struct Tree<T: Keyed> {
    root: Node<T>,
    len: usize,
}

/// A part of the tree. All leaves are equally deep.
enum Node<T: Keyed> {
    Leaf(Arc<[T]>),
    Branch(Arc<[Child<T>]>),
}

/// A part of the tree in its branch. No record in it is less than `least`, and none before it is as large.
struct Child<T: Keyed> {
    least: T::Key,
    node: Node<T>,
}

/// What came of putting a record into a node.
enum Put<T: Keyed> {
    Added,
    Replaced(T),
    /// Added, and the upper half of the node is one of its own now.
    Split(Child<T>),
}

impl<T: Keyed> Tree<T> {
    /// How many records there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether both are one: then nothing has changed between them. The other way round says nothing.
    #[must_use]
    pub fn ptr_eq(&self, other: &Self) -> bool {
        self.root.is(&other.root)
    }

    /// The record with this key.
    #[must_use]
    pub fn get(&self, key: &T::Key) -> Option<&T> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(records) => {
                    let place = records.binary_search_by(|record| record.key().cmp(key)).ok()?;
                    return records.get(place);
                }
                Node::Branch(children) => node = &children.get(place_of(children, key))?.node,
            }
        }
    }

    /// Whether there is a record with this key.
    #[must_use]
    pub fn contains_key(&self, key: &T::Key) -> bool {
        self.get(key).is_some()
    }

    /// Adds a record. Returns the one that had its key.
    pub fn insert(&mut self, record: T) -> Option<T> {
        match self.root.put(record) {
            Put::Replaced(before) => return Some(before),
            Put::Added => {}
            Put::Split(right) => {
                let left = std::mem::replace(&mut self.root, Node::Leaf(Arc::default()));
                if let Some(least) = left.least() {
                    self.root = Node::Branch(Arc::new([Child { least, node: left }, right]));
                }
            }
        }
        self.len = self.len.saturating_add(1);
        None
    }

    /// Removes the record with this key, and returns it.
    pub fn remove(&mut self, key: &T::Key) -> Option<T> {
        // Looked for first: what is not there must not unshare anything.
        self.get(key)?;
        let removed = self.root.take(key)?;
        self.len = self.len.saturating_sub(1);
        self.lower_root();
        Some(removed)
    }

    /// The records, by their keys.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, T> {
        Iter::new(&self.root)
    }

    /// The records whose keys are not less than this one, by their keys.
    #[must_use]
    pub fn from(&self, key: &T::Key) -> Iter<'_, T> {
        Iter::from(&self.root, key)
    }

    /// Branches above all others with one child are of no use.
    fn lower_root(&mut self) {
        while let Node::Branch(children) = &self.root
            && let [only] = &**children
        {
            self.root = only.node.clone();
        }
    }
}

impl<T: Keyed> Node<T> {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Leaf(one), Self::Leaf(other)) => Arc::ptr_eq(one, other),
            (Self::Branch(one), Self::Branch(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// A bound on its records; `None` if there are none.
    fn least(&self) -> Option<T::Key> {
        match self {
            Self::Leaf(records) => records.first().map(T::key),
            Self::Branch(children) => children.first().map(|child| child.least),
        }
    }

    fn put(&mut self, record: T) -> Put<T> {
        let key = record.key();
        match self {
            Self::Leaf(records) => match records.binary_search_by(|other| other.key().cmp(&key)) {
                Ok(place) => match Arc::make_mut(records).get_mut(place) {
                    Some(there) => Put::Replaced(std::mem::replace(there, record)),
                    None => Put::Added,
                },
                Err(place) => match insert(records, place, record, LEAF_MAX) {
                    Some((least, right)) => Put::Split(Child { least: least.key(), node: Self::Leaf(right) }),
                    None => Put::Added,
                },
            },
            Self::Branch(children) => {
                let place = place_of(children, &key);
                let put = match Arc::make_mut(children).get_mut(place) {
                    Some(child) => {
                        child.least = child.least.min(key);
                        child.node.put(record)
                    }
                    None => return Put::Added,
                };
                let Put::Split(right) = put else { return put };
                match insert(children, place.saturating_add(1), right, BRANCH_MAX) {
                    Some((Child { least, .. }, right)) => Put::Split(Child { least, node: Self::Branch(right) }),
                    None => Put::Added,
                }
            }
        }
    }

    fn take(&mut self, key: &T::Key) -> Option<T> {
        match self {
            Self::Leaf(records) => {
                let place = records.binary_search_by(|other| other.key().cmp(key)).ok()?;
                let (before, rest) = records.split_at_checked(place)?;
                let (removed, after) = rest.split_first()?;
                let removed = removed.clone();
                *records = before.iter().chain(after).cloned().collect();
                Some(removed)
            }
            Self::Branch(children) => {
                let place = place_of(children, key);
                let child = Arc::make_mut(children).get_mut(place)?;
                let removed = child.node.take(key)?;
                if child.node.is_small() {
                    merge_at(children, place);
                }
                Some(removed)
            }
        }
    }

    /// Whether it should become a part of another one.
    fn is_small(&self) -> bool {
        match self {
            Self::Leaf(records) => records.len() < LEAF_MAX / 4,
            Self::Branch(children) => children.len() < BRANCH_MAX / 4,
        }
    }

    /// Both in one node, this one's first, if that is not too many.
    fn joined(&self, next: &Self) -> Option<Self> {
        match (self, next) {
            (Self::Leaf(one), Self::Leaf(next)) if one.len() + next.len() <= LEAF_MAX => {
                Some(Self::Leaf(one.iter().chain(&**next).cloned().collect()))
            }
            (Self::Branch(one), Self::Branch(next)) if one.len() + next.len() <= BRANCH_MAX => {
                Some(Self::Branch(one.iter().chain(&**next).cloned().collect()))
            }
            _ => None,
        }
    }
}

/// The child in which a key belongs.
fn place_of<T: Keyed>(children: &[Child<T>], key: &T::Key) -> usize {
    children.partition_point(|child| child.least <= *key).saturating_sub(1)
}

/// Inserts. What goes over `most` is split in halves, and the upper one and a copy of its first are returned.
fn insert<X: Clone>(slice: &mut Arc<[X]>, place: usize, new: X, most: usize) -> Option<(X, Arc<[X]>)> {
    let count = slice.len() + 1;
    let (before, after) = slice.split_at_checked(place).unwrap_or((slice, &[]));
    if count <= most {
        *slice = before.iter().cloned().chain(std::iter::once(new)).chain(after.iter().cloned()).collect();
        return None;
    }
    let all: Vec<X> = before.iter().cloned().chain(std::iter::once(new)).chain(after.iter().cloned()).collect();
    let (left, right) = all.split_at_checked(count / 2)?;
    let first = right.first()?.clone();
    let right = Arc::from(right);
    *slice = Arc::from(left);
    Some((first, right))
}

/// Puts the small child at a place together with one beside it, or leaves it out if nothing is left of it.
fn merge_at<T: Keyed>(children: &mut Arc<[Child<T>]>, place: usize) {
    let Some(child) = children.get(place) else { return };
    if child.node.least().is_none() {
        *children = children.iter().take(place).chain(children.iter().skip(place + 1)).cloned().collect();
        return;
    }
    for first in [place.checked_sub(1), Some(place)].into_iter().flatten() {
        if let (Some(one), Some(next)) = (children.get(first), children.get(first + 1))
            && let Some(node) = one.node.joined(&next.node)
        {
            let joined = Child { least: one.least, node };
            let (before, after) = (children.iter().take(first), children.iter().skip(first + 2));
            *children = before.cloned().chain(std::iter::once(joined)).chain(after.cloned()).collect();
            return;
        }
    }
}

impl<T: Keyed> Clone for Tree<T> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone(), len: self.len }
    }
}

impl<T: Keyed> Clone for Node<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Leaf(records) => Self::Leaf(Arc::clone(records)),
            Self::Branch(children) => Self::Branch(Arc::clone(children)),
        }
    }
}

impl<T: Keyed> Clone for Child<T> {
    fn clone(&self) -> Self {
        Self { least: self.least, node: self.node.clone() }
    }
}

impl<T: Keyed> Default for Tree<T> {
    fn default() -> Self {
        Self { root: Node::Leaf(Arc::default()), len: 0 }
    }
}

impl<T: Keyed> FromIterator<T> for Tree<T> {
    fn from_iter<I: IntoIterator<Item = T>>(records: I) -> Self {
        let mut builder = Builder::default();
        for record in records {
            builder.push(record);
        }
        builder.finish()
    }
}

impl<'a, T: Keyed> IntoIterator for &'a Tree<T> {
    type Item = &'a T;
    type IntoIter = Iter<'a, T>;
    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T: Keyed + PartialEq> PartialEq for Tree<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && (self.ptr_eq(other) || self.iter().eq(other))
    }
}

impl<T: Keyed + Eq> Eq for Tree<T> {}

impl<T: Keyed + fmt::Debug> fmt::Debug for Tree<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self).finish()
    }
}

#[cfg(test)]
mod tests;

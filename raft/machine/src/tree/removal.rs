//! Takes many records out of a tree at once. What is left of a leaf or branch is written once, however many go, and what
//! none of them is in stays shared: a million records take some hundredths of a second, where one by one they take more
//! than one.

use super::{Child, Keyed, Node, Tree};
use std::sync::Arc;

impl<T: Keyed> Tree<T> {
    /// Removes the records with these keys, as far as there are any and they are meant: each is asked about once, in
    /// order. The keys are in order, too; one that is not is passed over.
    pub(crate) fn remove_all(&mut self, keys: &[T::Key], mut is_meant: impl FnMut(&T) -> bool) {
        let Some((root, removed)) = self.root.without(keys, &mut is_meant) else { return };
        self.len = self.len.saturating_sub(removed);
        self.root = if root.least().is_none() { Node::Leaf(Arc::default()) } else { root };
        self.lower_root();
    }
}

impl<T: Keyed> Node<T> {
    /// What is left, and how many records are gone; `None` if none is.
    fn without(&self, keys: &[T::Key], is_meant: &mut dyn FnMut(&T) -> bool) -> Option<(Self, usize)> {
        match self {
            Self::Leaf(records) => leaf_without(records, keys, is_meant),
            Self::Branch(children) => branch_without(children, keys, is_meant),
        }
    }
}

fn leaf_without<T: Keyed>(
    records: &[T],
    mut keys: &[T::Key],
    is_meant: &mut dyn FnMut(&T) -> bool,
) -> Option<(Node<T>, usize)> {
    let mut kept = Vec::with_capacity(records.len());
    for record in records {
        let key = record.key();
        while let Some((first, rest)) = keys.split_first()
            && *first < key
        {
            keys = rest;
        }
        if keys.first() != Some(&key) || !is_meant(record) {
            kept.push(record);
        }
    }
    let removed = records.len().saturating_sub(kept.len());
    (removed > 0).then(|| (Node::Leaf(kept.into_iter().cloned().collect()), removed))
}

fn branch_without<T: Keyed>(
    children: &[Child<T>],
    mut keys: &[T::Key],
    is_meant: &mut dyn FnMut(&T) -> bool,
) -> Option<(Node<T>, usize)> {
    let mut kept: Vec<Child<T>> = Vec::with_capacity(children.len());
    let mut removed: usize = 0;
    for (place, child) in children.iter().enumerate() {
        let next = children.get(place.saturating_add(1));
        let count = next.map_or(keys.len(), |next| keys.partition_point(|key| *key < next.least));
        let (its, rest) = keys.split_at_checked(count).unwrap_or((keys, &[]));
        keys = rest;
        let without = if its.is_empty() { None } else { child.node.without(its, is_meant) };
        let child = match without {
            Some((node, gone)) => {
                removed = removed.saturating_add(gone);
                Child { least: child.least, node }
            }
            None => child.clone(),
        };
        if child.node.least().is_none() {
            continue;
        }
        match kept.last_mut() {
            Some(before)
                if (before.node.is_small() || child.node.is_small())
                    && let Some(joined) = before.node.joined(&child.node) =>
            {
                before.node = joined;
            }
            _ => kept.push(child),
        }
    }
    (removed > 0).then(|| (Node::Branch(kept.into()), removed))
}

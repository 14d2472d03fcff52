//! How two trees differ. What they share is skipped, so the cost follows the number of changes.

use super::{Child, Keyed, Node, Tree};
use std::cmp::Ordering;

/// One difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Difference<'a, T> {
    /// The record is new, or another one than before.
    Put(&'a T),
    /// The record is gone.
    Gone(&'a T),
}

/// What leads from one tree to another, by the keys.
pub(crate) fn differences<'a, T: Keyed + PartialEq>(
    then: &'a Tree<T>,
    now: &'a Tree<T>,
    mut each: impl FnMut(Difference<'a, T>),
) {
    if then.ptr_eq(now) {
        return;
    }
    let (mut then, mut now) = (Cursor::new(&then.root), Cursor::new(&now.root));
    loop {
        let order = match (then.head(), now.head()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(one), Some(other)) => {
                if one.is(&other) {
                    then.skip();
                    now.skip();
                    continue;
                }
                one.key().cmp(&other.key()).then_with(|| match (&one, &other) {
                    (Head::Record(_), Head::Record(_)) => Ordering::Equal,
                    // Whoever is higher is opened, or both are.
                    _ => other.height().cmp(&one.height()),
                })
            }
        };
        // What comes first is a record that only one side has, or a part of a tree that must be looked into.
        match (order, then.head(), now.head()) {
            (Ordering::Less, Some(Head::Record(gone)), _) => {
                each(Difference::Gone(gone));
                then.skip();
            }
            (Ordering::Less, ..) => then.open(),
            (Ordering::Greater, _, Some(Head::Record(new))) => {
                each(Difference::Put(new));
                now.skip();
            }
            (Ordering::Greater, ..) => now.open(),
            (Ordering::Equal, Some(Head::Record(before)), Some(Head::Record(after))) => {
                if before != after {
                    each(Difference::Put(after));
                }
                then.skip();
                now.skip();
            }
            (Ordering::Equal, ..) => {
                then.open();
                now.open();
            }
        }
    }
}

/// A place in a tree: before a record, or before a part that has not been looked into.
pub(super) struct Cursor<'a, T: Keyed> {
    /// What is to come in each branch, outermost first, and how high its children are.
    branches: Vec<(&'a [Child<T>], usize)>,
    leaf: &'a [T],
}

/// What comes next.
pub(super) enum Head<'a, T: Keyed> {
    Record(&'a T),
    Part { child: &'a Child<T>, height: usize },
}

impl<T: Keyed> Head<'_, T> {
    /// Not more than the key of any record that is to come.
    fn key(&self) -> T::Key {
        match self {
            Self::Record(record) => record.key(),
            Self::Part { child, .. } => child.least,
        }
    }

    fn height(&self) -> usize {
        match self {
            Self::Record(_) => 0,
            Self::Part { height, .. } => *height,
        }
    }

    /// Whether both are the same part of both trees.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Part { child: one, .. }, Self::Part { child: other, .. }) => one.node.is(&other.node),
            _ => false,
        }
    }
}

impl<'a, T: Keyed> Cursor<'a, T> {
    pub(super) fn new(root: &'a Node<T>) -> Self {
        let mut height: usize = 0;
        let mut node = root;
        while let Node::Branch(children) = node
            && let Some(first) = children.first()
        {
            height = height.saturating_add(1);
            node = &first.node;
        }
        let mut cursor = Self { branches: Vec::new(), leaf: &[] };
        cursor.enter(root, height);
        cursor
    }

    fn enter(&mut self, node: &'a Node<T>, height: usize) {
        match node {
            Node::Leaf(records) => self.leaf = records,
            Node::Branch(children) => self.branches.push((children, height)),
        }
    }

    pub(super) fn head(&mut self) -> Option<Head<'a, T>> {
        if let Some(record) = self.leaf.first() {
            return Some(Head::Record(record));
        }
        while let Some((children, height)) = self.branches.last() {
            match children.first() {
                Some(child) => return Some(Head::Part { child, height: *height }),
                None => drop(self.branches.pop()),
            }
        }
        None
    }

    /// Goes past what comes next.
    pub(super) fn skip(&mut self) {
        if let Some((_, rest)) = self.leaf.split_first() {
            self.leaf = rest;
        } else if let Some((children, _)) = self.branches.last_mut() {
            *children = children.get(1..).unwrap_or_default();
        }
    }

    /// Looks into the part that comes next. A record stays where it is.
    pub(super) fn open(&mut self) {
        if let Some(Head::Part { child, height }) = self.head() {
            self.skip();
            self.enter(&child.node, height.saturating_sub(1));
        }
    }
}

//! Walks over the records of a tree, by their keys.

use super::{Child, Keyed, Node, place_of};
use std::slice;

/// The records of a tree, by their keys.
pub struct Iter<'a, T: Keyed> {
    /// What is to come in each branch on the way to the leaf, outermost first.
    branches: Vec<slice::Iter<'a, Child<T>>>,
    leaf: slice::Iter<'a, T>,
}

impl<'a, T: Keyed> Iter<'a, T> {
    pub(super) fn new(root: &'a Node<T>) -> Self {
        let mut iter = Self { branches: Vec::new(), leaf: [].iter() };
        iter.enter(root);
        iter
    }

    pub(super) fn from(root: &'a Node<T>, key: &T::Key) -> Self {
        let mut iter = Self { branches: Vec::new(), leaf: [].iter() };
        let mut node = Some(root);
        while let Some(within) = node.take() {
            match within {
                Node::Leaf(records) => {
                    let first = records.partition_point(|record| record.key() < *key);
                    iter.leaf = records.get(first..).unwrap_or_default().iter();
                }
                Node::Branch(children) => {
                    let mut rest = children.get(place_of(children, key)..).unwrap_or_default().iter();
                    node = rest.next().map(|child| &child.node);
                    iter.branches.push(rest);
                }
            }
        }
        iter
    }

    /// Goes to the first leaf of this part.
    fn enter(&mut self, mut node: &'a Node<T>) {
        loop {
            match node {
                Node::Leaf(records) => {
                    self.leaf = records.iter();
                    return;
                }
                Node::Branch(children) => {
                    let mut rest = children.iter();
                    let Some(first) = rest.next() else { return };
                    self.branches.push(rest);
                    node = &first.node;
                }
            }
        }
    }
}

impl<'a, T: Keyed> Iterator for Iter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        loop {
            if let Some(record) = self.leaf.next() {
                return Some(record);
            }
            match self.branches.last_mut()?.next() {
                Some(child) => self.enter(&child.node),
                None => drop(self.branches.pop()),
            }
        }
    }
}

//! Makes a tree of many records at once. Records that come by their keys, as they do from a file, are laid down leaf by
//! leaf; the first that does not makes it go on one by one.

use super::{BRANCH_MAX, Child, Keyed, LEAF_MAX, Node, Tree};
use std::sync::Arc;

/// How full it makes leaves and branches: the first changes after a start must not split every leaf they touch.
const LEAF_FILL: usize = LEAF_MAX / 4 * 3;
const BRANCH_FILL: usize = BRANCH_MAX / 4 * 3;

/// A tree in the making.
pub(crate) struct Builder<T: Keyed> {
    /// Once a record came out of order.
    tree: Option<Tree<T>>,
    leaves: Vec<Child<T>>,
    /// The records of the leaf in the making, which are greater than all in the leaves.
    leaf: Vec<T>,
    len: usize,
}

impl<T: Keyed> Builder<T> {
    /// Adds a record. Returns the one that had its key.
    pub(crate) fn push(&mut self, record: T) -> Option<T> {
        if self.tree.is_none() {
            // A full leaf stays until the next record, so that the last one is always here.
            if self.leaf.last().is_none_or(|last| last.key() < record.key()) {
                if self.leaf.len() >= LEAF_FILL {
                    self.finish_leaf();
                }
                self.leaf.push(record);
                self.len = self.len.saturating_add(1);
                return None;
            }
            self.tree = Some(self.laid_down());
        }
        self.tree.as_mut().and_then(|tree| tree.insert(record))
    }

    /// The tree of all that were added.
    pub(crate) fn finish(mut self) -> Tree<T> {
        match self.tree.take() {
            Some(tree) => tree,
            None => self.laid_down(),
        }
    }

    fn finish_leaf(&mut self) {
        if let Some(least) = self.leaf.first().map(T::key) {
            let records: Arc<[T]> = self.leaf.drain(..).collect();
            self.leaves.push(Child { least, node: Node::Leaf(records) });
        }
    }

    /// Puts branches above the leaves until one is left.
    fn laid_down(&mut self) -> Tree<T> {
        self.finish_leaf();
        let mut level = std::mem::take(&mut self.leaves);
        while level.len() > 1 {
            let mut above = Vec::with_capacity(level.len().div_ceil(BRANCH_FILL));
            let mut children = level.into_iter();
            loop {
                let some: Arc<[Child<T>]> = children.by_ref().take(BRANCH_FILL).collect();
                let Some(least) = some.first().map(|child| child.least) else { break };
                above.push(Child { least, node: Node::Branch(some) });
            }
            level = above;
        }
        match level.pop() {
            Some(root) => Tree { root: root.node, len: self.len },
            None => Tree::default(),
        }
    }
}

impl<T: Keyed> Default for Builder<T> {
    fn default() -> Self {
        Self { tree: None, leaves: Vec::new(), leaf: Vec::with_capacity(LEAF_FILL), len: 0 }
    }
}

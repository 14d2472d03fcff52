//! Against `BTreeMap`, which knows what an ordered map is.

use super::difference::{Cursor, Head};
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// The second counts versions of the first.
type Pair = (u16, u32);

impl Keyed for Pair {
    type Key = u16;
    fn key(&self) -> u16 {
        self.0
    }
}

/// What is done to a tree. Many keys at a time, in order, so that leaves and branches split and merge.
#[derive(Clone, Debug)]
enum Step {
    Insert {
        first: u16,
        count: u16,
        stride: u16,
    },
    Remove {
        first: u16,
        count: u16,
        stride: u16,
    },
    /// At once, but for those with a key that this divides.
    RemoveAll {
        first: u16,
        count: u16,
        stride: u16,
        unless: u16,
    },
    Keep,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let run = || (any::<u16>(), 1..3_000_u16, prop_oneof![Just(1), Just(7), Just(40_503)]);
    let step = prop_oneof![
        3 => run().prop_map(|(first, count, stride)| Step::Insert { first, count, stride }),
        3 => run().prop_map(|(first, count, stride)| Step::Remove { first, count, stride }),
        3 => (run(), 2..9_u16).prop_map(|((first, count, stride), unless)| Step::RemoveAll { first, count, stride, unless }),
        1 => Just(Step::Keep),
    ];
    proptest::collection::vec(step, 1..12)
}

fn keys(first: u16, count: u16, stride: u16) -> impl Iterator<Item = u16> {
    (0..count).map(move |number| first.wrapping_add(number.wrapping_mul(stride)))
}

fn follow(then: &Tree<Pair>, now: &Tree<Pair>) -> BTreeMap<u16, u32> {
    let mut map: BTreeMap<u16, u32> = then.iter().copied().collect();
    let mut last = None;
    differences(then, now, |difference| {
        let key = match difference {
            Difference::Put((key, version)) => {
                assert_ne!(map.insert(*key, *version), Some(*version), "it is a difference");
                *key
            }
            Difference::Gone((key, version)) => {
                assert_eq!(map.remove(key), Some(*version), "it was there");
                *key
            }
        };
        assert!(last < Some(key), "by the keys, each once");
        last = Some(key);
    });
    map
}

/// Every leaf is equally deep, nothing is empty or too large, and bounds are bounds.
fn check(tree: &Tree<Pair>) {
    fn depth(node: &Node<Pair>, is_root: bool) -> usize {
        match node {
            Node::Leaf(records) => {
                assert!((is_root || !records.is_empty()) && records.len() <= LEAF_MAX);
                assert!(records.is_sorted_by(|one, next| one.0 < next.0));
                0
            }
            Node::Branch(children) => {
                assert!(children.len() <= BRANCH_MAX && children.len() > usize::from(is_root));
                assert!(children.is_sorted_by(|one, next| one.least < next.least));
                let depths: Vec<_> = children.iter().map(|child| depth(&child.node, false)).collect();
                assert!(depths.iter().all(|depth| *depth == depths[0]), "all leaves are equally deep");
                for (child, next) in children.iter().zip(children.iter().skip(1)) {
                    assert!(Iter::new(&child.node).all(|record| (child.least..next.least).contains(&record.0)));
                }
                depths[0] + 1
            }
        }
    }
    depth(&tree.root, true);
    assert_eq!(tree.iter().count(), tree.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_does_what_a_map_does(steps in steps(), probes in proptest::collection::vec(any::<u16>(), 20)) {
        let (mut tree, mut map) = (Tree::default(), BTreeMap::new());
        let mut kept = (tree.clone(), map.clone());
        let mut version = 0;
        for step in steps {
            match step {
                Step::Insert { first, count, stride } => {
                    for key in keys(first, count, stride) {
                        version += 1;
                        prop_assert_eq!(tree.insert((key, version)).map(|(_, version)| version), map.insert(key, version));
                    }
                }
                Step::Remove { first, count, stride } => {
                    for key in keys(first, count, stride) {
                        prop_assert_eq!(tree.remove(&key).map(|(_, version)| version), map.remove(&key));
                    }
                }
                Step::RemoveAll { first, count, stride, unless } => {
                    let mut keys: Vec<u16> = keys(first, count, stride).collect();
                    keys.sort_unstable();
                    keys.dedup();
                    let mut asked = Vec::new();
                    tree.remove_all(&keys, |record| {
                        asked.push(record.0);
                        record.0 % unless != 0
                    });
                    prop_assert!(keys.iter().filter(|key| map.contains_key(key)).eq(&asked), "each once, in order");
                    map.retain(|key, _| key % unless == 0 || keys.binary_search(key).is_err());
                }
                Step::Keep => kept = (tree.clone(), map.clone()),
            }
            check(&tree);
            prop_assert!(tree.iter().copied().eq(map.clone()));
        }
        // What was kept has not changed, and the differences lead there and back.
        prop_assert!(kept.0.iter().copied().eq(kept.1.clone()));
        prop_assert_eq!(follow(&kept.0, &tree), map.clone());
        prop_assert_eq!(follow(&tree, &kept.0), kept.1);
        for probe in probes {
            prop_assert_eq!(tree.get(&probe).map(|(_, version)| version), map.get(&probe));
            prop_assert!(tree.from(&probe).copied().eq(map.range(probe..).map(|(key, version)| (*key, *version))));
        }
    }

    #[test]
    fn built_at_once_it_is_the_same(first in any::<u16>(), count in 0..6_000_u16, stride in prop_oneof![Just(1), Just(7), Just(40_503)]) {
        let records: Vec<Pair> = keys(first, count, stride).map(|key| (key, u32::from(key))).collect();
        let mut sorted = records.clone();
        sorted.sort_unstable();
        sorted.dedup();
        let mut one_by_one = Tree::default();
        for record in &records {
            one_by_one.insert(*record);
        }
        for way in [records, sorted] {
            let built: Tree<Pair> = way.into_iter().collect();
            check(&built);
            prop_assert_eq!(&built, &one_by_one);
        }
    }
}

/// What is not touched stays shared, and nothing at all changes where nothing goes.
#[test]
fn removal_at_once_leaves_the_rest_shared() {
    let then: Tree<Pair> = (0..60_000).map(|key| (key, 0)).collect();
    let mut now = then.clone();
    now.remove_all(&[5, 60_001], |_| false);
    now.remove_all(&[60_001, 60_002], |_| true);
    assert!(now.ptr_eq(&then), "nothing has changed");
    let keys: Vec<u16> = (20_000..50_000).collect();
    now.remove_all(&keys, |_| true);
    check(&now);
    assert!(now.iter().map(|record| record.0).eq((0..20_000).chain(50_000..60_000)));
    for key in [5, 59_000] {
        assert!(std::ptr::eq(then.get(&key).unwrap(), now.get(&key).unwrap()), "its leaf is the same");
    }
    let keys: Vec<u16> = (0..60_000).collect();
    now.remove_all(&keys, |_| true);
    check(&now);
    assert!(now.is_empty() && now.insert((1, 1)).is_none() && now.get(&1) == Some(&(1, 1)));
}

/// A change of one record among many is found by looking at a few.
#[test]
fn shared_parts_are_skipped() {
    let then: Tree<Pair> = (0..60_000).map(|key| (key, 0)).collect();
    let mut now = then.clone();
    assert!(now.ptr_eq(&then) && now.remove(&60_001).is_none() && now.ptr_eq(&then), "nothing has changed");
    now.insert((30_000, 1));
    now.insert((60_500, 1));
    now.remove(&5);
    let (mut one, mut other) = (Cursor::new(&then.root), Cursor::new(&now.root));
    let mut opened = 0;
    // As `differences` goes, counting.
    while let (Some(before), Some(after)) = (one.head(), other.head()) {
        opened += 1;
        if before.is(&after) {
            one.skip();
            other.skip();
        } else if matches!((&before, &after), (Head::Record(_), _) | (_, Head::Record(_))) {
            break;
        } else {
            one.open();
            other.open();
        }
    }
    assert!(opened < 10, "{opened}");
    let mut found = Vec::new();
    differences(&then, &now, |difference| found.push(difference));
    let expected = [Difference::Gone(&(5, 0)), Difference::Put(&(30_000, 1)), Difference::Put(&(60_500, 1))];
    assert_eq!(found, expected);
}

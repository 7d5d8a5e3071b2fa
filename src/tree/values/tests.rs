//! Multimaps over a `Vec` of pages that forgives nothing, against a map of sets.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound;

use crate::ids::{PageId, TreeId};
use crate::page::value_set::Shape;
use crate::tree::tests::pages::VecPages;
use crate::tree::values::load::PairsBulk;
use crate::tree::verify::check::{check, TreeStats, Visit};
use crate::tree::{drop_tree, measure, seal, Finding, Pairs, Side, Tree, TreeMut, TreeRoot, ValueHint};

/// A multimap and the map of sets that it must equal.
struct Model {
    pages: VecPages,
    root: TreeRoot,
    model: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
    hint: ValueHint,
}

type Pair = (Vec<u8>, Vec<u8>);

impl Model {
    fn new(page_size: usize, shape: Shape) -> Model {
        let root = TreeRoot { shape, ..TreeRoot::empty(TreeId(16)) };
        Model { pages: VecPages::new(page_size), root, model: BTreeMap::new(), hint: ValueHint::default() }
    }

    fn tree(&self) -> Tree<'_, VecPages> {
        Tree::new(&self.pages, &self.root)
    }

    fn tree_mut(&mut self) -> TreeMut<'_, VecPages> {
        TreeMut::new(&mut self.pages, &mut self.root)
    }

    fn insert(&mut self, key: &[u8], value: &[u8]) {
        let tree = TreeMut::new(&mut self.pages, &mut self.root);
        let is_new = tree.insert_value(key, value, &mut self.hint).unwrap();
        assert_eq!(is_new, self.model.entry(key.to_vec()).or_default().insert(value.to_vec()), "insert");
    }

    fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.hint = ValueHint::default();
        let had = self.tree_mut().remove_value(key, value).unwrap();
        assert_eq!(had, self.model.get_mut(key).is_some_and(|values| values.remove(value)), "remove");
        self.model.retain(|_, values| !values.is_empty());
    }

    fn remove_values(&mut self, key: &[u8]) {
        self.hint = ValueHint::default();
        let count = self.tree_mut().remove_values(key).unwrap();
        assert_eq!(count, self.model.remove(key).map_or(0, |values| values.len() as u64), "remove all");
    }

    fn remove_range(&mut self, low: &[u8], high: Option<&[u8]>) {
        self.hint = ValueHint::default();
        self.tree_mut().remove_range(Some(low), high, &mut |_| Ok(())).unwrap();
        self.model.retain(|key, _| key.as_slice() < low || high.is_some_and(|high| key.as_slice() >= high));
    }

    fn pairs(&self) -> Vec<Pair> {
        self.model.iter().flat_map(|(key, values)| values.iter().map(|value| (key.clone(), value.clone()))).collect()
    }

    /// Commits, then proves that tree, model and page accounting agree.
    fn verify(&mut self) -> TreeStats {
        seal(&mut self.pages, &mut self.root).unwrap();
        self.pages.commit();
        self.hint = ValueHint::default();
        let (findings, reached, stats) = check_all(&self.pages, &self.root);
        assert!(findings.is_empty(), "{findings:?}");
        assert_eq!(reached, self.pages.in_use(), "reachable + free = all");
        let mut measured = HashSet::new();
        let mut visit = |id: PageId, pages: u64| (0..pages).all(|at| measured.insert(PageId(id.0 + at)));
        assert_eq!((measure(&self.pages, &self.root, &mut visit).unwrap(), measured), (stats, reached));
        self.compare();
        stats
    }

    fn compare(&self) {
        let expected = self.pairs();
        assert_eq!((self.root.entries, self.root.pairs), (self.model.len() as u64, expected.len() as u64));
        let all = || Pairs::new(self.tree(), Bound::Unbounded, Bound::Unbounded);
        let own = |pair: crate::error::Result<(&[u8], &[u8])>| pair.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap();
        assert!(all().map(own).eq(expected.iter().cloned()), "forwards");
        assert!(all().rev().map(own).eq(expected.iter().rev().cloned()), "backwards");
        let (mut both, mut ends) = (all(), (0, expected.len()));
        for step in 0.. {
            let found = if step % 3 == 0 { both.next_back() } else { both.next() };
            let Some(found) = found.map(own) else { break };
            let at = if step % 3 == 0 { ends.1 - 1 } else { ends.0 };
            assert_eq!(found, expected[at]);
            if step % 3 == 0 {
                ends.1 -= 1
            } else {
                ends.0 += 1
            }
        }
        assert_eq!(ends.0, ends.1, "both ends meet");
        let first = self.tree().outermost_pair(Side::First).unwrap().map(|pair| own(Ok(pair)));
        let last = self.tree().outermost_pair(Side::Last).unwrap().map(|pair| own(Ok(pair)));
        assert_eq!((first.as_ref(), last.as_ref()), (expected.first(), expected.last()));
    }

    /// The values of a key between each two of some bounds.
    fn compare_values(&self, key: &[u8], bounds: &[Vec<u8>]) {
        let values = self.model.get(key).cloned().unwrap_or_default();
        assert_eq!(self.tree().value_count(key).unwrap(), values.len() as u64);
        for value in bounds {
            assert_eq!(self.tree().has_value(key, value).unwrap(), values.contains(value));
        }
        let each = |value: &Vec<u8>| [Bound::Included(value.clone()), Bound::Excluded(value.clone())];
        let all: Vec<_> = bounds.iter().flat_map(each).chain([Bound::Unbounded]).collect();
        for low in &all {
            for high in &all {
                let above = |value: &Vec<u8>| match low {
                    Bound::Included(low) => value >= low,
                    Bound::Excluded(low) => value > low,
                    Bound::Unbounded => true,
                };
                let below = |value: &Vec<u8>| match high {
                    Bound::Included(high) => value <= high,
                    Bound::Excluded(high) => value < high,
                    Bound::Unbounded => true,
                };
                let expected: Vec<&Vec<u8>> = values.iter().filter(|&value| above(value) && below(value)).collect();
                let found = || self.tree().values_of(key, low.clone(), high.clone()).unwrap().1;
                let forwards: Vec<&[u8]> = found().map(|value| value.unwrap()).collect();
                let mut backwards: Vec<&[u8]> = found().rev().map(|value| value.unwrap()).collect();
                backwards.reverse();
                assert!(forwards.iter().eq(expected.iter()) && forwards == backwards, "{low:?} {high:?}");
                for turns in [0b01_u64, 0b0011, 0x5f00_ff0f_0f01_33f7] {
                    let (mut range, mut left) = (found(), expected.iter().map(|value| value.as_slice()));
                    for step in 0..=expected.len() {
                        let (given, wanted) = match turns >> (step % 64) & 1 {
                            0 => (range.next(), left.next()),
                            _ => (range.next_back(), left.next_back()),
                        };
                        assert_eq!(given.map(|value| value.unwrap()), wanted, "{turns:x} {step}: {low:?} {high:?}");
                    }
                }
            }
        }
    }
}

fn check_all(pages: &VecPages, root: &TreeRoot) -> (Vec<Finding>, HashSet<PageId>, TreeStats) {
    let mut reached = HashSet::new();
    let mut findings = Vec::new();
    let mut visit = |id: PageId, pages: u64| match (0..pages.min(1 << 16)).all(|at| reached.insert(PageId(id.0 + at))) {
        true => Visit::First,
        false => Visit::Again,
    };
    let stats = check(pages, root, &mut visit, &mut |finding| findings.push(finding));
    (findings, reached, stats)
}

struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// A value of a number, with the size that the shape says, or of a length that depends on the
/// number.
fn value_of(shape: Shape, number: u64, page_size: usize) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    match shape.width() {
        Some(width) if width <= 8 => bytes[8 - width..].to_vec(),
        Some(width) => [&bytes[..], &vec![number as u8; width - 8]].concat(),
        None => {
            let most = page_size / 4 - 24;
            let len = match number % 7 {
                0 => 3,
                1 if number.is_multiple_of(5) => most,
                _ => 8 + (number as usize * 37) % 60,
            };
            let mut value = bytes[2..].to_vec();
            value.resize(len.max(6), b'v');
            value
        }
    }
}

const SHAPES: [Shape; 5] = [Shape::Variable, Shape::Fixed(8), Shape::Fixed(2), Shape::Fixed(33), Shape::Fixed(1000)];

#[test]
fn random_changes_of_all_shapes_and_page_sizes_agree_with_a_map_of_sets() {
    for page_size in [4096, 8192, 32768] {
        for shape in SHAPES {
            let mut random = Random(page_size as u64 + shape.width().unwrap_or(0) as u64);
            let mut model = Model::new(page_size, shape);
            for round in 0..24 {
                // A few keys get many values, so that some have value trees of several levels.
                let keys = if round % 3 == 0 { 3 } else { 40 };
                for _ in 0..120 {
                    let key = format!("key {}", random.below(keys)).into_bytes();
                    let number = random.below(if round < 12 { 60_000 } else { 900 });
                    let value = value_of(shape, number, page_size);
                    match (round < 14, random.below(10)) {
                        (true, 0) | (false, 0..=6) => {
                            match model.model.get(&key).and_then(|it| it.range(value.clone()..).next()) {
                                Some(there) => {
                                    let there = there.clone();
                                    model.remove(&key, &there);
                                }
                                None => model.remove(&key, &value),
                            }
                        }
                        (false, 7) if random.below(4) == 0 => model.remove_values(&key),
                        (_, 8) if random.below(20) == 0 => model.remove_values(&key),
                        (_, 9) if random.below(60) == 0 => {
                            let other = format!("key {}", random.below(keys)).into_bytes();
                            model.remove_range(&key, Some(&other));
                        }
                        // A run of ascending values.
                        _ => (0..1 + random.below(8)).for_each(|more| {
                            model.insert(&key, &value_of(shape, number + more, page_size));
                        }),
                    }
                }
                model.verify();
                let key = format!("key {}", random.below(keys)).into_bytes();
                let bounds: Vec<Vec<u8>> = (0..4).map(|_| value_of(shape, random.below(60_000), page_size)).collect();
                model.compare_values(&key, &bounds);
            }
            drop_tree(&mut model.pages, &mut model.root).unwrap();
            model.model.clear();
            model.verify();
            assert!(model.pages.in_use().is_empty(), "every page was freed");
        }
    }
}

#[test]
fn ascending_values_fill_the_packed_leaves_and_the_leaves_of_the_table() {
    let mut model = Model::new(4096, Shape::Fixed(8));
    for number in 0..20_000u64 {
        model.insert(b"key", &number.to_be_bytes());
    }
    let stats = model.verify();
    // 508 values of 8 bytes fill a page.
    assert_eq!(stats.leaf_pages, 1 + 20_000u64.div_ceil(508));
    let mut model = Model::new(4096, Shape::Fixed(8));
    for number in 0..40_000u64 {
        model.insert(&(number / 100).to_be_bytes(), &number.to_be_bytes());
    }
    let stats = model.verify();
    assert!(stats.leaf_pages <= 101, "{stats:?}");
}

#[test]
fn pairs_in_order_are_loaded_after_the_last_key_and_fill_the_pages() {
    for shape in SHAPES {
        let mut model = Model::new(4096, shape);
        model.insert(b"a", &value_of(shape, 1, 4096));
        let mut bulk = PairsBulk::begin(model.tree()).unwrap();
        assert!(!bulk.takes(model.tree(), b"a", &value_of(shape, 2, 4096)).unwrap());
        for key in 0..60u32 {
            let key = key.to_be_bytes();
            let key = [b"b", &key[..]].concat();
            let count = if key.ends_with(&[7]) { 3000 } else { 1 + u64::from(key[4] % 30) };
            for number in 0..count {
                let value = value_of(shape, number, 4096);
                let is_next = model.model.get(&key).and_then(BTreeSet::last).is_none_or(|last| *last < value);
                assert_eq!(bulk.takes(model.tree(), &key, &value).unwrap(), is_next);
                let values = model.model.entry(key.clone()).or_default();
                if is_next {
                    values.insert(value.clone());
                    bulk.push(TreeMut::new(&mut model.pages, &mut model.root), &key, &value).unwrap();
                }
            }
        }
        bulk.finish(model.tree_mut()).unwrap();
        model.verify();
        model.insert(b"c", &value_of(shape, 1, 4096));
        model.verify();
    }
}

#[test]
fn wrong_values_are_refused_and_change_nothing() {
    let mut model = Model::new(4096, Shape::Fixed(8));
    model.insert(b"key", &[1; 8]);
    let mut hint = ValueHint::default();
    let before = model.root;
    let error = model.tree_mut().insert_value(b"key", &[1; 7], &mut hint).unwrap_err().to_string();
    assert!(error.contains("7 bytes") && error.contains("has 8"), "{error}");
    let mut other = Model::new(4096, Shape::Variable);
    other.insert(b"key", &[1; 1000]);
    let error = other.tree_mut().insert_value(b"key", &[1; 1001], &mut hint).unwrap_err().to_string();
    assert!(error.contains("1001") && error.contains("1000"), "{error}");
    assert_eq!(model.root, before);
    model.verify();
    other.verify();
}

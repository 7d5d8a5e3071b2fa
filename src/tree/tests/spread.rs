//! Estimates, separators and samples against the entries of the tree.

use std::cell::Cell;
use std::ops::Bound;

use super::*;
use crate::error::Result;
use crate::ids::PagePtr;
use crate::page::leaf::Leaf;
use crate::pager::{PageRead, Residency};
use crate::tree::scan::sample::Random;

/// The pages of a tree, of which only branches can be read. Counts the reads.
struct OnlyBranches<'a> {
    pages: &'a VecPages,
    reads: Cell<u64>,
}

impl Residency for OnlyBranches<'_> {}

impl PageRead for OnlyBranches<'_> {
    fn page_size(&self) -> usize {
        self.pages.page_size()
    }

    fn page(&self, ptr: PagePtr) -> Result<&[u8]> {
        let page = self.pages.page(ptr)?;
        assert_eq!(Header::read(page, ptr.id).unwrap().kind, PageKind::Branch, "page {} is read", ptr.id);
        self.reads.set(self.reads.get() + 1);
        Ok(page)
    }

    fn extent(&self, ptr: PagePtr, _pages: u64) -> Result<&[u8]> {
        panic!("extent {} is read", ptr.id)
    }
}

impl ModelTree {
    fn only_branches(&self) -> OnlyBranches<'_> {
        OnlyBranches { pages: &self.pages, reads: Cell::new(0) }
    }

    /// The entries of each leaf.
    fn leaf_counts(&self) -> Vec<usize> {
        let pages = self.pages.in_use();
        let mut leaves: Vec<(Vec<u8>, usize)> = pages
            .iter()
            .filter_map(|&id| Leaf::parse(self.pages.raw(id), id).ok())
            .map(|leaf| (leaf.first_key().unwrap().bytes.to_vec(), leaf.count()))
            .collect();
        leaves.sort();
        leaves.into_iter().map(|(_, count)| count).collect()
    }

    fn estimate(&self, low: Bound<&[u8]>, high: Bound<&[u8]>) -> Spread {
        let pages = self.only_branches();
        let spread = Tree::new(&pages, &self.root).estimate(low, high).unwrap();
        assert!(spread.least <= spread.entries && spread.entries <= spread.most, "{spread:?}");
        // SPREAD-3.
        assert!(pages.reads.get() <= 2 * 64 * 16 * u64::from(self.root.height), "{} pages", pages.reads.get());
        spread
    }

    fn counted(&self, low: Bound<&[u8]>, high: Bound<&[u8]>) -> u64 {
        let inside = |key: &[u8]| std::ops::RangeBounds::<[u8]>::contains(&(low, high), key);
        self.model.keys().filter(|key| inside(key)).count() as u64
    }

    fn separators(&self, parts: usize) -> Vec<Vec<u8>> {
        let pages = self.only_branches();
        let separators = Tree::new(&pages, &self.root).separators(parts).unwrap();
        assert!(pages.reads.get() <= 64 * parts as u64 + 64, "{} pages for {parts} parts", pages.reads.get());
        separators
    }

    /// Number of entries of each part.
    fn parts(&self, separators: &[Vec<u8>]) -> Vec<u64> {
        let mut counts = vec![0; separators.len() + 1];
        for key in self.model.keys() {
            counts[separators.partition_point(|separator| separator <= key)] += 1;
        }
        counts
    }
}

/// A key of which the separators are long, so that a few leaves make a deep tree.
fn deep_key(number: u32, len: usize) -> Vec<u8> {
    let mut key = (number >> 4).to_be_bytes().to_vec();
    key.resize(len - 4, b'k');
    key.extend(number.to_be_bytes());
    key
}

/// Trees of all page sizes, with names: put at random, loaded, appended and thinned out.
fn trees() -> Vec<(String, ModelTree)> {
    let mut trees = Vec::new();
    for page_size in [4096, 8192, 16384, 32768] {
        let count = 3 * page_size as u32;
        let mut named = |name: &str, mut tree: ModelTree| {
            tree.commit();
            trees.push((format!("{name}, pages of {page_size}"), tree));
        };
        let mut random = ModelTree::new(page_size);
        for number in 0..count {
            random.put(&long_key(number.wrapping_mul(0x9E37_79B1), 12), &[1; 20]);
        }
        let mut thinned = random.clone();
        for number in (0..count).filter(|number| number % 5 != 0) {
            thinned.delete(&long_key(number.wrapping_mul(0x9E37_79B1), 12));
        }
        named("random", random);
        named("thinned out", thinned);
        let mut loaded = ModelTree::new(page_size);
        loaded.load((0..count).map(|number| (long_key(number, 12), vec![1; 20])).collect());
        named("loaded", loaded);
        let mut deep = ModelTree::new(page_size);
        let len = crate::limits::max_inline_key_bytes(page_size);
        for number in 0..700u32 {
            deep.put(&deep_key(number, len), &vec![1; len * 9 / 10]);
        }
        named("deep", deep);
    }
    trees
}

/// Bounds of random ranges of keys, some absent.
fn random_bounds(tree: &ModelTree, random: &mut Random) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let keys: Vec<&Vec<u8>> = tree.model.keys().collect();
    let mut key = || {
        let mut key = keys[random.below(keys.len() as u64) as usize].clone();
        if random.below(2) == 0 {
            key.push(0);
        }
        key
    };
    let mut ends = [key(), key()];
    ends.sort();
    let [low, high] = ends;
    let low = match random.below(4) {
        0 => Bound::Unbounded,
        1 => Bound::Excluded(low),
        _ => Bound::Included(low),
    };
    let high = match random.below(4) {
        0 => Bound::Unbounded,
        1 => Bound::Included(high),
        _ => Bound::Excluded(high),
    };
    (low, high)
}

fn as_slices((low, high): &(Bound<Vec<u8>>, Bound<Vec<u8>>)) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (low.as_ref().map(Vec::as_slice), high.as_ref().map(Vec::as_slice))
}

/// The bounds hold for every tree. Where the leaves of a tree could be counted (few branches), the
/// estimate is off by at most what the fill of leaves explains, and one leaf for the ends.
#[test]
fn estimates_lie_between_their_bounds_and_are_as_good_as_the_leaves_are_even() {
    for (name, tree) in trees() {
        let counts = tree.leaf_counts();
        let (fewest, most) = (*counts.iter().min().unwrap() as f64, *counts.iter().max().unwrap() as f64);
        let mean = tree.model.len() as f64 / counts.len() as f64;
        let mut random = Random::from_seed(7);
        for _ in 0..300 {
            let bounds = random_bounds(&tree, &mut random);
            let (low, high) = as_slices(&bounds);
            let (spread, counted) = (tree.estimate(low, high), tree.counted(low, high));
            assert!(spread.least <= counted && counted <= spread.most, "{name}: {spread:?} of {counted}");
            let leaves = spread.entries as f64 / mean;
            let (from, to) = ((leaves - 1.1) * fewest, (leaves + 1.1) * most);
            let slack = if tree.root.height > 3 { 0.5 * counted as f64 } else { 0.0 };
            assert!(from - slack <= counted as f64 && counted as f64 <= to + slack, "{name}: {spread:?} of {counted}");
            // `least` and `most` leave out at most the leaves with bounds, if all were counted.
            if tree.root.height <= 3 {
                let inside = counted as f64 / most - 2.0;
                assert!(spread.least as f64 >= inside.floor(), "{name}: {spread:?} of {counted}");
            }
        }
    }
}

/// The root has just got a second child, below which are few leaves. It must not count like the
/// first.
#[test]
fn the_estimate_of_a_lean_subtree_is_small() {
    let mut tree = ModelTree::new(4096);
    for number in 0.. {
        tree.append(&deep_key(number, 900), b"");
        if tree.root.height == 5 {
            break;
        }
    }
    tree.commit();
    let keys: Vec<Vec<u8>> = tree.model.keys().cloned().collect();
    for at in [keys.len() - 3, keys.len() - 10, keys.len() / 2, 10] {
        let (after, counted) = (tree.estimate(Bound::Included(&keys[at]), Bound::Unbounded), keys.len() - at);
        let off = after.entries.abs_diff(counted as u64);
        assert!(off as f64 <= 10.0 + 0.15 * counted as f64, "{after:?} of {counted}");
        let before = tree.estimate(Bound::Unbounded, Bound::Excluded(&keys[at]));
        assert!(before.entries.abs_diff(at as u64) as f64 <= 10.0 + 0.15 * at as f64, "{before:?} of {at}");
    }
}

#[test]
fn estimates_of_empty_whole_and_single_ranges_are_exact() {
    for (name, tree) in trees() {
        let all = tree.model.len() as u64;
        let key = tree.model.keys().nth(5).unwrap().as_slice();
        let exactly = |entries| Spread { entries, least: entries, most: entries };
        assert_eq!(tree.estimate(Bound::Unbounded, Bound::Unbounded), exactly(all), "{name}");
        assert_eq!(tree.estimate(Bound::Included(key), Bound::Excluded(key)), exactly(0), "{name}");
        assert_eq!(tree.estimate(Bound::Excluded(key), Bound::Excluded(key)), exactly(0), "{name}");
        assert_eq!(tree.estimate(Bound::Included(b"\xff\xff"), Bound::Excluded(b"")), exactly(0), "{name}");
        assert_eq!(tree.estimate(Bound::Included(key), Bound::Included(key)).most, 1, "{name}");
    }
    let empty = ModelTree::new(4096);
    let none = Spread { entries: 0, least: 0, most: 0 };
    assert_eq!(empty.estimate(Bound::Unbounded, Bound::Excluded(b"x")), none);
    assert_eq!(empty.estimate(Bound::Included(b"x"), Bound::Included(b"x")), none);
    assert_eq!(empty.separators(5), Vec::<Vec<u8>>::new());
}

#[test]
fn the_estimate_from_the_first_key_grows_with_the_bound() {
    for (name, tree) in trees() {
        let mut last = 0;
        for key in tree.model.keys() {
            let spread = tree.estimate(Bound::Unbounded, Bound::Excluded(key));
            assert!(spread.entries + 1 >= last, "{name}: {spread:?} after {last}");
            last = spread.entries;
        }
    }
}

#[test]
fn a_tree_of_one_leaf_has_no_separators_and_rough_estimates() {
    let mut tree = ModelTree::new(4096);
    for number in 0..50 {
        tree.put(&long_key(number, 8), b"value");
    }
    tree.commit();
    assert_eq!(tree.root.height, 1);
    assert_eq!(tree.separators(4), Vec::<Vec<u8>>::new());
    let spread = tree.estimate(Bound::Included(&long_key(10, 8)), Bound::Unbounded);
    assert_eq!((spread.entries, spread.least, spread.most), (25, 0, 50));
}

/// Parts have the same number of leaves, give or take one, as long as there are branches enough to
/// count them; else of subtrees.
#[test]
fn separators_ascend_and_divide_the_leaves_evenly() {
    for (name, tree) in trees() {
        let counts = tree.leaf_counts();
        let most = *counts.iter().max().unwrap() as u64;
        for parts in [0, 1, 2, 3, 4, 7, 16, 100, 1_000_000] {
            let separators = tree.separators(parts);
            assert_eq!(separators.len() + 1, parts.clamp(1, counts.len()), "{name}, {parts} parts");
            assert!(separators.windows(2).all(|pair| pair[0] < pair[1]), "{name}, {parts} parts");
            let entries = tree.parts(&separators);
            assert!(entries.iter().all(|&entries| entries > 0), "{name}, {parts} parts: {entries:?}");
            let mean = tree.model.len() as u64 / entries.len() as u64;
            let fair = |&entries: &u64| entries <= 2 * mean + most && 3 * entries + 3 * most >= mean;
            assert!(entries.iter().all(fair), "{name}, {parts} parts: {entries:?}");
        }
    }
}

#[test]
fn separators_come_from_upper_levels_if_these_have_enough_children() {
    let mut tree = ModelTree::new(4096);
    for number in 0..6000u32 {
        tree.append(&deep_key(number, 900), b"");
    }
    tree.commit();
    let branches = (tree.pages.in_use().len() - tree.leaf_counts().len()) as u64;
    let pages = tree.only_branches();
    assert_eq!(Tree::new(&pages, &tree.root).separators(2).unwrap().len(), 1);
    assert!(pages.reads.get() * 2 < branches, "{} of {branches} branches are read", pages.reads.get());
}

#[test]
fn a_sample_has_as_many_different_entries_as_asked_for() {
    for (name, tree) in trees() {
        for wanted in [0, 1, 5, 60, tree.model.len() - 1, tree.model.len(), usize::MAX] {
            let sample = tree.handle().sample(wanted, &mut Random::from_seed(wanted as u64)).unwrap();
            assert_eq!(sample.len(), wanted.min(tree.model.len()), "{name}");
            assert!(sample.iter().all(|(key, value)| tree.model[*key] == *value), "{name}");
            let different: HashSet<&[u8]> = sample.iter().map(|(key, _)| *key).collect();
            assert_eq!(different.len(), sample.len(), "{name}");
        }
        let sample = |seed| tree.handle().sample(20, &mut Random::from_seed(seed)).unwrap();
        assert_eq!(sample(3), sample(3), "{name}: the seed decides");
        assert_ne!(sample(3), sample(4), "{name}");
    }
    let empty = ModelTree::new(4096);
    assert_eq!(empty.handle().sample(3, &mut Random::from_seed(1)).unwrap(), []);
}

/// Half of the entries lie in leaves of four, the others in leaves of some thirty. A way that takes
/// random children would find the former seven times as often as the latter.
#[test]
fn entries_of_full_and_of_lean_leaves_are_sampled_equally_often() {
    let mut tree = ModelTree::new(4096);
    for number in 0..3000u32 {
        let value = vec![1; if number < 1500 { 900 } else { 90 }];
        tree.put(&long_key(number, 12), &value);
    }
    tree.commit();
    let (mut lean, mut parts) = (0, [0u32; 10]);
    let (runs, wanted) = (40, 100);
    for seed in 0..runs {
        for (key, _) in tree.handle().sample(wanted, &mut Random::from_seed(seed)).unwrap() {
            let number = u32::from_be_bytes(key[..4].try_into().unwrap());
            lean += u32::from(number < 1500);
            parts[number as usize / 300] += 1;
        }
    }
    let all = (runs * wanted as u64) as f64;
    // Six standard deviations of a fair choice.
    assert!((f64::from(lean) - all / 2.0).abs() < 6.0 * (all / 4.0).sqrt(), "{lean} of {all}");
    let fair = |&part: &u32| (f64::from(part) - all / 10.0).abs() < 6.0 * (all * 0.09).sqrt();
    assert!(parts.iter().all(fair), "{parts:?}");
}

/// The root of a damaged tree may name more entries than the tree has.
#[test]
fn a_sample_of_fewer_entries_than_the_root_says_ends() {
    let mut tree = ModelTree::new(4096);
    for number in 0..500 {
        tree.put(&long_key(number, 100), b"value");
    }
    tree.commit();
    tree.root.entries = u64::MAX;
    let sample = tree.handle().sample(600, &mut Random::from_seed(1)).unwrap();
    assert!(sample.len() <= 500);
    tree.estimate(Bound::Included(b"\x00"), Bound::Unbounded);
}

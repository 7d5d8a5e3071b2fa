//! Cursors and ranges, both ways, at every boundary.

use std::ops::Bound;

use proptest::prelude::*;

use super::*;

/// Even numbers as keys, a few to a leaf, some with large values.
fn even_tree(count: u32) -> ModelTree {
    let mut tree = ModelTree::new(4096);
    for number in 0..count {
        tree.put(&long_key(number * 2, 700), &vec![number as u8; if number % 5 == 0 { 2000 } else { 30 }]);
    }
    tree.verify();
    tree
}

fn number(entry: Option<Entry<'_>>) -> Option<u32> {
    entry.map(|(key, _)| u32::from_be_bytes(key[..4].try_into().unwrap()))
}

#[test]
fn seeks_find_the_neighbours_of_every_key() {
    let tree = even_tree(50);
    let mut cursor = Cursor::new(tree.handle());
    for probe in 0..100u32 {
        for key in [long_key(probe, 700), long_key(probe, 4)] {
            let at = if key.len() == 4 || probe % 2 == 0 { probe.div_ceil(2) * 2 } else { probe + 1 };
            let expected = Some(at).filter(|&at| at < 100);
            let below = if at == 0 { None } else { Some(at.min(100) - 2) };
            assert_eq!(number(cursor.seek(&key).unwrap()), expected);
            assert_eq!(number(cursor.current().unwrap()), expected);
            assert_eq!(number(cursor.prev().unwrap()), below);
            assert_eq!(number(cursor.seek_before(&key).unwrap()), below);
            assert_eq!(number(cursor.next().unwrap()), expected);
        }
    }
}

#[test]
fn a_cursor_past_either_end_stays_there_until_it_moves_back() {
    let tree = even_tree(20);
    let mut cursor = Cursor::new(tree.handle());
    assert!(cursor.current().unwrap().is_none());
    assert_eq!(number(cursor.prev().unwrap()), Some(38));
    for _ in 0..3 {
        assert_eq!(cursor.next().unwrap(), None);
        assert_eq!(cursor.current().unwrap(), None);
    }
    assert_eq!(number(cursor.prev().unwrap()), Some(38));
    assert_eq!(number(cursor.seek_first().unwrap()), Some(0));
    for _ in 0..3 {
        assert_eq!(cursor.prev().unwrap(), None);
    }
    assert_eq!(number(cursor.next().unwrap()), Some(0));
    assert_eq!(number(cursor.seek_last().unwrap()), Some(38));
    assert_eq!(number(cursor.seek(&long_key(100, 4)).unwrap()), None);
    assert_eq!(number(cursor.prev().unwrap()), Some(38));
    assert_eq!(number(cursor.seek_before(b"").unwrap()), None);
    assert_eq!(number(cursor.next().unwrap()), Some(0));
}

#[test]
fn cursors_and_ranges_of_an_empty_tree_find_nothing() {
    let tree = ModelTree::new(4096);
    let mut cursor = Cursor::new(tree.handle());
    assert!(cursor.next().unwrap().is_none() && cursor.prev().unwrap().is_none());
    assert!(cursor.seek_first().unwrap().is_none() && cursor.seek_last().unwrap().is_none());
    assert!(cursor.seek(b"a").unwrap().is_none() && cursor.seek_before(b"a").unwrap().is_none());
    let mut range = Range::all(tree.handle());
    assert!(range.next().is_none() && range.next_back().is_none());
}

#[test]
fn cursors_return_values_of_overflow_extents_whole() {
    let tree = even_tree(11);
    let mut cursor = Cursor::new(tree.handle());
    assert!(cursor.seek(&long_key(10, 700)).unwrap().unwrap().1 == [5; 2000]);
    assert!(tree.handle().last().unwrap().unwrap().1 == [10; 2000]);
    assert_eq!(number(tree.handle().first().unwrap()), Some(0));
}

fn bounds(kind: u8, at: u32) -> Bound<Vec<u8>> {
    match kind % 5 {
        0 => Bound::Unbounded,
        1 => Bound::Included(long_key(at, 700)),
        2 => Bound::Excluded(long_key(at, 700)),
        3 => Bound::Included(long_key(at, 4)),
        _ => Bound::Excluded(long_key(at, 4)),
    }
}

fn slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

/// The flat index of a tree with few leaves.
fn flat_leaves(tree: &ModelTree) -> FlatIndex {
    let flat_index = FlatIndex::build(tree.handle(), PAGES_MAX[1]).unwrap().unwrap();
    assert_eq!(flat_index.level(), 0);
    flat_index
}

/// The keys that the range should yield. `BTreeMap::range` panics on inverted bounds, which here
/// are an empty range.
fn expected(tree: &ModelTree, low: &Bound<Vec<u8>>, high: &Bound<Vec<u8>>) -> Vec<Vec<u8>> {
    let inside = (slice(low), slice(high));
    tree.model.keys().filter(|key| std::ops::RangeBounds::<[u8]>::contains(&inside, key.as_slice())).cloned().collect()
}

#[test]
fn every_range_agrees_with_a_map_from_each_end_and_from_both() {
    let tree = even_tree(12);
    let flat_index = flat_leaves(&tree);
    for (low_kind, high_kind) in (0..25).map(|kinds| (kinds / 5, kinds % 5)) {
        for (from, to, flat) in (0..2 * 26 * 26).map(|at| (at / 52, at / 2 % 26, at % 2 == 0)) {
            let (low, high) = (bounds(low_kind, from), bounds(high_kind, to));
            let flat_index = flat.then_some(&flat_index);
            let range = || Range::new(tree.handle(), flat_index, low.clone(), high.clone());
            let expected = expected(&tree, &low, &high);
            let key = |item: crate::error::Result<Entry<'_>>| item.unwrap().0.to_vec();
            assert!(range().map(key).eq(expected.iter().cloned()), "{low:?} {high:?}");
            assert!(range().rev().map(key).eq(expected.iter().rev().cloned()), "{low:?} {high:?}");
            let mut both = range();
            let (mut front, mut back) = (Vec::new(), Vec::new());
            while let Some(item) = both.next() {
                front.push(key(item));
                back.extend(both.next_back().map(key));
            }
            assert!(both.next_back().is_none() && both.next().is_none());
            back.reverse();
            assert_eq!([front, back].concat(), expected);
        }
    }
}

#[test]
fn a_range_that_stops_filling_the_cache_midway_misses_no_entry() {
    let tree = even_tree(100);
    let flat_index = flat_leaves(&tree);
    for given in 0..20 {
        let low = Bound::Included(long_key(30, 700));
        let mut range = Range::new(tree.handle(), Some(&flat_index), low.clone(), Bound::Unbounded);
        let mut keys: Vec<Vec<u8>> = range.by_ref().take(given).map(|item| item.unwrap().0.to_vec()).collect();
        range.fill_cache(false);
        keys.extend(range.map(|item| item.unwrap().0.to_vec()));
        assert_eq!(keys, expected(&tree, &low, &Bound::Unbounded), "after {given} entries");
    }
}

/// A walk that has come from another leaf prefetches all of the next leaf. A walk in its first leaf
/// prefetches only the front of the next one.
#[test]
fn a_range_prefetches_the_whole_next_leaf_from_its_second_leaf_on() {
    let mut tree = ModelTree::new(4096);
    (0..400).for_each(|number| tree.put(&long_key(number, 40), &[7; 60]));
    tree.verify();
    let mut leaf_of = std::collections::HashMap::new();
    for id in tree.pages.in_use() {
        if let Ok(leaf) = crate::page::leaf::Leaf::parse(tree.pages.raw(id), id) {
            leaf_of.extend((0..leaf.count()).map(|at| (leaf.key(at).unwrap().bytes.to_vec(), id)));
        }
    }
    for forwards in [true, false] {
        tree.pages.asked_for();
        let mut range = Range::all(tree.handle());
        let (mut leaves, mut asked_for) = (Vec::new(), std::collections::HashMap::new());
        for _ in 0..400 {
            let entry = if forwards { range.next() } else { range.next_back() };
            let leaf = leaf_of[entry.unwrap().unwrap().0];
            for (id, _, bytes) in tree.pages.asked_for() {
                *asked_for.entry(id).or_insert(0) += bytes;
            }
            if leaves.last() != Some(&leaf) {
                leaves.push(leaf);
            }
        }
        assert!(leaves.len() > 8);
        let asked_for = |leaf| asked_for.get(leaf).copied().unwrap_or(0);
        assert!(asked_for(&leaves[1]) < 1000, "the second leaf: {}", asked_for(&leaves[1]));
        for leaf in &leaves[2..] {
            assert!(asked_for(leaf) >= 4096, "leaf {leaf}: {}", asked_for(leaf));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn cursor_steps_and_seeks_in_any_order_agree_with_an_index(steps in prop::collection::vec((0..6u8, 0..210u32), 1..300), flat: bool) {
        let tree = even_tree(100);
        let flat_index = flat_leaves(&tree);
        let mut cursor = Cursor::with_flat_index(tree.handle(), flat.then_some(&flat_index));
        // Index among the entries plus one; none while the cursor is in no place.
        let mut place: Option<i64> = None;
        for (what, to) in steps {
            let next = match what {
                0 | 1 => (place.unwrap_or(0) + 1).min(101),
                2 | 3 => (place.unwrap_or(101) - 1).max(0),
                4 => i64::from(to.div_ceil(2)).min(100) + 1,
                _ => i64::from(to.div_ceil(2)).min(100),
            };
            let key = long_key(to, 4);
            let found = match what {
                0 | 1 => cursor.next(),
                2 | 3 => cursor.prev(),
                4 => cursor.seek(&key),
                _ => cursor.seek_before(&key),
            };
            let expected = if (1..=100).contains(&next) { Some((next as u32 - 1) * 2) } else { None };
            prop_assert_eq!(number(found.unwrap()), expected);
            place = Some(next);
        }
    }

    #[test]
    fn steps_from_both_ends_of_a_range_yield_each_entry_once(
        low in (0..5u8, 0..210u32),
        high in (0..5u8, 0..210u32),
        turns: Vec<bool>,
        flat: bool,
    ) {
        let tree = even_tree(100);
        let flat_index = flat_leaves(&tree);
        let (low, high) = (bounds(low.0, low.1), bounds(high.0, high.1));
        let mut expected = std::collections::VecDeque::from(expected(&tree, &low, &high));
        let mut range = Range::new(tree.handle(), flat.then_some(&flat_index), low.clone(), high.clone());
        for front in turns.iter().cycle().take(if turns.is_empty() { 0 } else { 110 }) {
            let (found, expected) = match front {
                true => (range.next(), expected.pop_front()),
                false => (range.next_back(), expected.pop_back()),
            };
            prop_assert_eq!(found.map(|item| item.unwrap().0.to_vec()), expected);
        }
    }

    /// The same with the steps that give what can be given at once, among the others.
    #[test]
    fn fast_and_slow_steps_from_both_ends_yield_each_entry_once(
        low in (0..5u8, 0..210u32),
        high in (0..5u8, 0..210u32),
        turns: Vec<(bool, bool)>,
        flat: bool,
        runs_one_of in 1..7u32,
    ) {
        let mut tree = ModelTree::new(4096);
        for number in 0..100 {
            let value_bytes = if number % runs_one_of == 0 { 2000 } else { 3 };
            tree.put(&long_key(number * 2, if number % 3 == 0 { 700 } else { 10 }), &vec![number as u8; value_bytes]);
        }
        let flat_index = flat_leaves(&tree);
        let (low, high) = (bounds(low.0, low.1), bounds(high.0, high.1));
        let mut expected = std::collections::VecDeque::from(expected(&tree, &low, &high));
        let mut range = Range::new(tree.handle(), flat.then_some(&flat_index), low.clone(), high.clone());
        for &(front, at_once) in turns.iter().cycle().take(if turns.is_empty() { 0 } else { 110 }) {
            let given = match (front, at_once) {
                (true, true) => range.next_fast(),
                (false, true) => range.next_back_fast(),
                _ => None,
            };
            let (found, expected) = match front {
                true => (given.map(Ok).or_else(|| range.next()), expected.pop_front()),
                false => (given.map(Ok).or_else(|| range.next_back()), expected.pop_back()),
            };
            prop_assert_eq!(found.map(|item| item.unwrap().0.to_vec()), expected);
        }
    }
}

#[test]
fn a_tree_that_claims_more_entries_than_it_has_gets_a_flat_index() {
    for count in 4..20 {
        let tree = even_tree(count);
        let root = TreeRoot { entries: u64::MAX, ..tree.root };
        assert!(FlatIndex::build(Tree::new(&tree.pages, &root), PAGES_MAX[1]).is_ok());
    }
}

//! Damaged pages whose checksums are right: every operation ends in an answer or an error (R3).

use std::ops::Bound;

use proptest::prelude::*;

use super::*;
use crate::ids::PagePtr;
use crate::page::branch::{Branch, BranchMut};
use crate::page::checksum;
use crate::page::header::PageStamp;
use crate::page::header::{page_level, Header, PageKind};
use crate::page::leaf::{Leaf, LeafValue};
use crate::pager::{PageRead, PageWrite};

fn sample() -> ModelTree {
    let mut tree = ModelTree::new(4096);
    for number in 0..120 {
        let len = if number % 3 == 0 { 600 } else { 20 };
        tree.put(&long_key(number * 7, len), &vec![number as u8; if number % 10 == 0 { 5000 } else { 25 }]);
    }
    tree.verify();
    tree
}

/// Changes bytes of a page and repairs all checksums, so that only the structure is damaged.
fn damaged(tree: &ModelTree, change: impl FnOnce(&mut VecPages)) -> ModelTree {
    // Children before parents, in the order of the undamaged tree.
    let mut ids = [pages_of(tree, PageKind::Leaf), pages_of(tree, PageKind::Branch)].concat();
    ids.sort_by_key(|&id| page_level(tree.pages.raw(id)));
    let mut tree = ModelTree { pages: tree.pages.clone().lenient(), ..tree.clone() };
    change(&mut tree.pages);
    for &id in &ids {
        repoint_children(&mut tree.pages, id, &ids);
        checksum::seal(tree.pages.raw_mut(id));
    }
    tree.root.ptr.crc = checksum::stored(tree.pages.raw(tree.root.ptr.id));
    tree
}

fn repoint_children(pages: &mut VecPages, id: PageId, ids: &[PageId]) {
    let sums: std::collections::HashMap<_, _> = ids.iter().map(|&id| (id, checksum::stored(pages.raw(id)))).collect();
    let Ok(mut branch) = BranchMut::open(pages.raw_mut(id), id) else { return };
    for at in 0..branch.as_branch().count() {
        if let Ok(child) = branch.as_branch().child(at) {
            if let Some(&crc) = sums.get(&child.id) {
                branch.set_child(at, PagePtr { id: child.id, crc }).unwrap();
            }
        }
    }
}

/// Every kind of operation; none may panic, and walks end after a bounded number of reads.
fn exercise(tree: &ModelTree) {
    let before = tree.pages.reads();
    for number in (0..840).step_by(3) {
        tolerate(tree.handle().get(&long_key(number, 600)));
    }
    walk(tree, |cursor| cursor.next());
    walk(tree, |cursor| cursor.prev());
    let range = || {
        let (low, high) = (Bound::Included(vec![0]), Bound::Excluded(vec![0, 0, 1]));
        Range::new(tree.handle(), None, low, high)
    };
    let (_, _) = (range().count(), range().rev().count());
    tolerate((tree.handle().first(), tree.handle().last()));
    check_all(&tree.pages, &tree.root);
    assert!(tree.pages.reads() - before < 20_000, "walks are bounded");
    change_all(tree);
}

/// A cursor comes to an end however often it meets damage.
fn walk(tree: &ModelTree, step: for<'a> fn(&mut Cursor<'a, VecPages>) -> crate::error::Result<Option<Entry<'a>>>) {
    let mut cursor = Cursor::new(tree.handle());
    let steps = std::iter::from_fn(|| step(&mut cursor).transpose()).take(10_000).count();
    assert!(steps < 10_000);
}

/// Accepts any result: the test only checks that the call returns.
fn tolerate<T>(_answer: T) {}

fn change_all(tree: &ModelTree) {
    let mut clone = tree.clone();
    tolerate(drop_tree(&mut clone.pages, &mut clone.root));
    let mut clone = tree.clone();
    for number in (0..840).step_by(40) {
        let (pages, root) = (&mut clone.pages, &mut clone.root);
        tolerate(TreeMut::new(pages, root).put(
            &long_key(number + 1, 600),
            &[1; 400],
            &mut PutHint::default(),
            Some(&mut Vec::new()),
        ));
        tolerate(TreeMut::new(pages, root).delete(&long_key(number, 600), Some(&mut Vec::new())));
        tolerate(TreeMut::new(pages, root).delete(&long_key(number, 20), None));
        tolerate(TreeMut::new(pages, root).append(
            &long_key(1000 + number, 500),
            &[1; 400],
            &mut AppendHint::default(),
        ));
    }
    tolerate(seal(&mut clone.pages, &mut clone.root));
}

/// Ids of the pages of a kind, lowest first.
fn pages_of(tree: &ModelTree, kind: PageKind) -> Vec<PageId> {
    let mut ids: Vec<_> = tree.pages.in_use().into_iter().collect();
    ids.retain(|&id| Header::read(tree.pages.raw(id), id).is_ok_and(|header| header.kind == kind));
    ids.sort();
    ids
}

#[test]
fn repairing_an_undamaged_tree_changes_nothing() {
    let tree = sample();
    let same = damaged(&tree, |_| {});
    assert_eq!(same.root, tree.root);
    check_clean(&same.pages, &same.root);
}

#[test]
fn no_wrong_byte_of_a_header_makes_an_operation_panic() {
    let tree = sample();
    let (leaf, branch) = (pages_of(&tree, PageKind::Leaf)[1], pages_of(&tree, PageKind::Branch)[0]);
    for (id, bytes) in [(leaf, 32), (branch, 40), (tree.root.ptr.id, 40)] {
        for (at, value) in (4..bytes).flat_map(|at| [0, 1, 2, 0x7F, 0x80, 0xFF].map(|value| (at, value))) {
            let tree = damaged(&tree, |pages| pages.raw_mut(id)[at] = value);
            exercise(&tree);
        }
    }
}

#[test]
fn every_kind_of_damage_is_found_and_named() {
    let tree = sample();
    let leaf = pages_of(&tree, PageKind::Leaf)[2];
    let findings_of = |change: &dyn Fn(&mut VecPages)| {
        let tree = damaged(&tree, change);
        check_all(&tree.pages, &tree.root).0
    };
    let other_tree = findings_of(&|pages| pages.raw_mut(leaf)[28] ^= 1);
    assert_eq!(other_tree.len(), 1);
    assert_eq!((other_tree[0].page, other_tree[0].what.as_str()), (leaf, "belongs to tree 17, expected tree 16"));
    assert!(other_tree[0].low.is_some() && other_tree[0].high > other_tree[0].low);
    for (at, what) in
        [(4, "page kind"), (5, "level"), (6, "lower"), (8, "prefix length"), (16, "page id"), (32, "head")]
    {
        let findings = findings_of(&|pages| pages.raw_mut(leaf)[at] ^= 0x15);
        assert!(findings.iter().any(|found| found.page == leaf && found.what.contains(what)), "{at}: {findings:?}");
    }
    let unsealed = {
        let mut tree = ModelTree { pages: tree.pages.clone().lenient(), ..tree.clone() };
        tree.pages.raw_mut(leaf)[2000] ^= 1;
        check_all(&tree.pages, &tree.root).0
    };
    assert!(unsealed.iter().any(|found| found.page == leaf && found.what.contains("checksum")), "{unsealed:?}");
    let wrong_count = check_all(&tree.pages, &TreeRoot { entries: 5, ..tree.root }).0;
    assert_eq!(wrong_count.len(), 1);
    assert_eq!(wrong_count[0].what, "entry count of the tree is 5, found 120");
}

/// A page that is sound by itself, on a level where it does not belong. Lookups count levels
/// themselves, so that only a look at the header tells.
#[test]
fn a_branch_of_another_level_is_found_and_named() {
    use crate::page::layout::LEVEL;
    let tree = sample();
    let (branch, root) = (pages_of(&tree, PageKind::Branch)[0], tree.root.ptr.id);
    for id in [branch, root] {
        let level = page_level(tree.pages.raw(id));
        for wrong in [level + 1, level + 2] {
            let tree = damaged(&tree, |pages| pages.raw_mut(id)[LEVEL] = wrong);
            let findings = check_all(&tree.pages, &tree.root).0;
            let what = format!("is Branch of level {wrong}, expected Branch of level {level}");
            assert!(findings.iter().any(|found| found.page == id && found.what == what), "{what}: {findings:?}");
            assert!(id != root || tree.handle().get(b"any").is_err());
        }
    }
}

/// The overflow extents of a leaf are freed once: keys that descend may be those of a leaf that was
/// met before.
#[test]
fn a_tree_whose_keys_descend_is_not_dropped() {
    let tree = sample();
    let leaf = pages_of(&tree, PageKind::Leaf)[1];
    let keys: Vec<_> = tree.model.keys().filter(|key| holds(tree.pages.raw(leaf), key)).cloned().collect();
    let last = keys.last().unwrap();
    assert!(keys.len() > 1);
    let mut tree = damaged(&tree, |pages| {
        let page = pages.raw_mut(leaf);
        let at = page.windows(last.len()).position(|bytes| bytes == last).unwrap();
        page[at..at + last.len()].fill(0);
    });
    assert!(drop_tree(&mut tree.pages, &mut tree.root).is_err());
}

fn holds(page: &[u8], key: &[u8]) -> bool {
    page.windows(key.len()).any(|bytes| bytes == key)
}

/// The outer children of a branch are bounded by the separators above it.
#[test]
fn keys_outside_the_separators_two_levels_above_are_found() {
    use crate::page::branch::{build, Child};
    for (last, first, misplaced) in [("f", "n", None), ("x", "n", Some(0)), ("f", "b", Some(1))] {
        let mut pages = VecPages::new(4096);
        let (tree, txn) = (TreeId(16), pages.txn());
        let leaf = |pages: &mut VecPages, key: &str| {
            let id = pages.alloc(1).unwrap();
            let page = pages.page_mut(id).unwrap();
            let entry = (key.as_bytes(), LeafValue::Inline(b"value"));
            crate::page::leaf::build(page, PageStamp::new(id, tree, txn), [entry].into_iter()).unwrap();
            PagePtr { id, crc: checksum::seal(page) }
        };
        let branch = |pages: &mut VecPages, level: u8, children: [(&str, PagePtr); 2]| {
            let id = pages.alloc(1).unwrap();
            let page = pages.page_mut(id).unwrap();
            let children = children.map(|(sep, ptr)| Child { sep: Vec::from(sep).into(), ptr });
            assert!(build(page, PageStamp::new(id, tree, txn), level, &children).unwrap());
            PagePtr { id, crc: checksum::seal(page) }
        };
        let outer = [leaf(&mut pages, last), leaf(&mut pages, first)];
        let (lowest, highest) = (leaf(&mut pages, "a"), leaf(&mut pages, "z"));
        let low = branch(&mut pages, 1, [("", lowest), ("c", outer[0])]);
        let high = branch(&mut pages, 1, [("", outer[1]), ("p", highest)]);
        let root = branch(&mut pages, 2, [("", low), ("m", high)]);
        pages.commit();
        let findings = check_all(&pages, &TreeRoot { ptr: root, height: 3, entries: 4, tree, ..TreeRoot::default() }).0;
        let found: Vec<_> = findings.iter().map(|found| (found.page, found.what.as_str())).collect();
        let expected = misplaced.map(|at: usize| (outer[at].id, "a key lies outside the separators of its leaf"));
        assert_eq!(found, Vec::from_iter(expected));
    }
}

#[test]
fn a_damaged_overflow_extent_is_found_with_its_key() {
    let tree = sample();
    let extent = pages_of(&tree, PageKind::Overflow)[3];
    let mut tree = ModelTree { pages: tree.pages.clone().lenient(), ..tree };
    tree.pages.raw_mut(extent)[100] ^= 1;
    let (findings, _, stats) = check_all(&tree.pages, &tree.root);
    assert_eq!((findings.len(), findings[0].page, stats.entries), (1, extent, 120));
    let key = findings[0].low.as_ref().unwrap();
    assert!(tree.model.contains_key(key));
    assert!(tree.handle().get(key).is_err());
    // A range gives the error in its place and goes on.
    let range = Range::all(tree.handle());
    let results: Vec<_> = range.map(|item| item.is_ok()).collect();
    assert_eq!((results.len(), results.iter().filter(|ok| !**ok).count()), (120, 1));
}

#[test]
fn operations_end_although_branches_point_in_circles() {
    let tree = sample();
    let branches = pages_of(&tree, PageKind::Branch);
    for (&from, at) in branches.iter().flat_map(|from| (0..4).map(move |at| (from, at))) {
        for to in tree.pages.in_use() {
            let tree = damaged(&tree, |pages| {
                let mut branch = BranchMut::open(pages.raw_mut(from), from).unwrap();
                let at = at % branch.as_branch().count();
                branch.set_child(at, PagePtr { id: to, crc: 0 }).unwrap();
            });
            exercise(&tree);
        }
    }
}

/// Thirty-two levels whose branches all point at the same child many times over: a walk of all ways
/// would not end.
#[test]
fn check_visits_each_page_once_although_branches_share_children() {
    let mut pages = VecPages::new(4096).lenient();
    let tree = TreeId(16);
    let leaf = pages.alloc(1).unwrap();
    let entry = (&b"key"[..], LeafValue::Inline(b"value"));
    let txn = pages.txn();
    crate::page::leaf::build(pages.page_mut(leaf).unwrap(), PageStamp::new(leaf, tree, txn), [entry].into_iter())
        .unwrap();
    let mut child = PagePtr { id: leaf, crc: checksum::seal(pages.page_mut(leaf).unwrap()) };
    for level in 1..32u8 {
        let id = pages.alloc(1).unwrap();
        let children: Vec<_> =
            (0..100u8).map(|at| crate::page::branch::Child { sep: vec![at].into(), ptr: child }).collect();
        let txn = pages.txn();
        crate::page::branch::build(pages.page_mut(id).unwrap(), PageStamp::new(id, tree, txn), level, &children)
            .unwrap();
        child = PagePtr { id, crc: checksum::seal(pages.page_mut(id).unwrap()) };
    }
    pages.commit();
    let root = TreeRoot { ptr: child, height: 32, entries: 1, tree, ..TreeRoot::default() };
    let (findings, reached, stats) = check_all(&pages, &root);
    assert_eq!((reached.len(), stats.entries), (32, 1));
    assert!(findings.iter().any(|found| found.what.contains("second time")));
    assert_eq!(Range::all(Tree::new(&pages, &root)).filter(|item| item.is_err()).count(), 1);
    let mut cursor = Cursor::new(Tree::new(&pages, &root));
    assert!(cursor.prev().unwrap().is_some() && cursor.prev().is_err() && cursor.prev().unwrap().is_none());
    assert!(drop_tree(&mut pages, &mut root.clone()).is_err());
    let too_high = TreeRoot { height: 33, ..root };
    assert!(Tree::new(&pages, &too_high).get(b"key").is_err());
    assert_eq!(check_all(&pages, &too_high).0.len(), 1);
    assert!(pages.reads() < 10_000);
}

/// A tree of two levels with these keys in its leaves, which need not be in order. The separators
/// are the first keys of `ordered`, in which leaves stand as they should.
fn two_levels(ordered: &[[u64; 2]], leaves: &[[u64; 2]]) -> ModelTree {
    let mut tree = ModelTree { pages: VecPages::new(4096).lenient(), ..ModelTree::new(4096) };
    let (pages, id_of_tree) = (&mut tree.pages, tree.root.tree);
    let txn = pages.txn();
    let mut children = Vec::new();
    for (ordered, keys) in ordered.iter().zip(leaves) {
        let id = pages.alloc(1).unwrap();
        let keys = keys.map(u64::to_be_bytes);
        let entries = keys.iter().map(|key| (&key[..], LeafValue::Inline(b"value")));
        crate::page::leaf::build(pages.page_mut(id).unwrap(), PageStamp::new(id, id_of_tree, txn), entries).unwrap();
        let ptr = PagePtr { id, crc: checksum::seal(pages.page_mut(id).unwrap()) };
        children.push(crate::page::branch::Child { sep: ordered[0].to_be_bytes().to_vec().into(), ptr });
    }
    children[0].sep.clear();
    let root = pages.alloc(1).unwrap();
    crate::page::branch::build(pages.page_mut(root).unwrap(), PageStamp::new(root, id_of_tree, txn), 1, &children)
        .unwrap();
    let ptr = PagePtr { id: root, crc: checksum::seal(pages.page_mut(root).unwrap()) };
    pages.commit();
    let entries = 2 * leaves.len() as u64;
    tree.root = TreeRoot { ptr, height: 2, entries, tree: id_of_tree, ..TreeRoot::default() };
    tree
}

/// Leaves with keys that are some hundreds apart from leaf to leaf.
fn ordered_leaves(count: u64) -> Vec<[u64; 2]> {
    (1..=count).map(|number| [number * 1000, number * 1000 + 500]).collect()
}

fn number_of(entry: Entry<'_>) -> u64 {
    u64::from_be_bytes(entry.0.try_into().unwrap())
}

/// Neighbours are compared at their near ends, which a leaf that is not in order can satisfy for
/// ever.
#[test]
fn a_walk_over_a_leaf_that_is_not_in_order_ends_there() {
    let ordered = ordered_leaves(100);
    let mut shared = two_levels(&ordered, &vec![[900, 100]; 100]);
    // All children are the first leaf.
    let root = shared.root.ptr.id;
    let first = Branch::parse(shared.pages.raw(root), root).unwrap().child(0).unwrap();
    let mut branch = BranchMut::open(shared.pages.raw_mut(root), root).unwrap();
    (0..100).for_each(|at| branch.set_child(at, first).unwrap());
    shared.root.ptr.crc = checksum::seal(shared.pages.raw_mut(root));
    let mut forwards = Cursor::new(shared.handle());
    let mut backwards = Cursor::new(shared.handle());
    let walks: [Vec<bool>; 2] = [
        std::iter::from_fn(|| forwards.next().transpose()).take(9).map(|item| item.is_ok()).collect(),
        std::iter::from_fn(|| backwards.prev().transpose()).take(9).map(|item| item.is_ok()).collect(),
    ];
    for walk in walks {
        assert!(walk.len() <= 5 && walk.last() == Some(&false), "an error ends it: {walk:?}");
    }
    let range = || Range::all(shared.handle());
    assert!(range().count() <= 5 && range().rev().count() <= 5);
}

/// Where a cursor stands is found again by a key of its leaf. If that key belongs elsewhere, so
/// would the next leaf.
#[test]
fn a_leaf_with_the_keys_of_another_one_is_damage_and_no_entry_is_passed_over() {
    let ordered = ordered_leaves(12);
    // As many leaves as a walk takes without the branches lie between it and the end that the walk
    // begins at.
    for (wrong, keys) in [(3, [6100, 6200]), (8, [5600, 5700])] {
        let mut leaves = ordered.clone();
        leaves[wrong] = keys;
        let tree = two_levels(&ordered, &leaves);
        let flat_index = FlatIndex::build(tree.handle(), PAGES_MAX[1]).unwrap().unwrap();
        let mut cursor = Cursor::with_flat_index(tree.handle(), Some(&flat_index));
        let mut walk = Vec::new();
        let mut next = match wrong {
            3 => cursor.seek(&ordered[0][0].to_be_bytes()),
            _ => cursor.seek_before(&(ordered[11][1] + 1).to_be_bytes()),
        };
        while let Ok(Some(entry)) = next {
            walk.push(number_of(entry));
            next = if wrong == 3 { cursor.next() } else { cursor.prev() };
        }
        assert_eq!(next.unwrap_err().kind(), crate::error::ErrorKind::Corrupt);
        assert_eq!(walk.len(), 8, "four leaves: {walk:?}");
    }
}

#[test]
fn a_cursor_that_met_damage_has_no_position_until_the_next_seek() {
    let tree = sample();
    let leaves = {
        let root = Branch::parse(tree.pages.raw(tree.root.ptr.id), tree.root.ptr.id).unwrap();
        assert_eq!(tree.root.height, 2, "the children of the root are the leaves");
        (0..root.count()).map(|at| root.child(at).unwrap().id).collect::<Vec<_>>()
    };
    let keys_of = |id: PageId| {
        let leaf = Leaf::parse(tree.pages.raw(id), id).unwrap();
        [leaf.first_key().unwrap().bytes.to_vec(), leaf.last_key().unwrap().bytes.to_vec()]
    };
    let (middle, last) = (leaves.len() / 2, leaves.len() - 1);
    type Way = for<'a> fn(&mut Cursor<'a, VecPages>, &[Vec<u8>; 2]) -> crate::error::Result<Option<Entry<'a>>>;
    let ways: [(usize, usize, Way); 6] = [
        (middle, middle, |cursor, keys| cursor.seek(&keys[0])),
        (middle, middle, |cursor, keys| cursor.seek_before(&keys[1])),
        (middle, middle - 1, |cursor, keys| cursor.seek(&keys[1]).and_then(|_| cursor.next())),
        (middle, middle + 1, |cursor, keys| cursor.seek(&keys[0]).and_then(|_| cursor.prev())),
        (0, 0, |cursor, _| cursor.next()),
        (last, last, |cursor, _| cursor.prev()),
    ];
    for (bad, from, way) in ways {
        let damaged = damaged(&tree, |pages| pages.raw_mut(leaves[bad])[4] ^= 0x15);
        let mut cursor = Cursor::new(damaged.handle());
        assert!(way(&mut cursor, &keys_of(leaves[from])).is_err(), "leaf {bad} from {from}");
        for _ in 0..2 {
            assert_eq!(cursor.next().unwrap(), None, "leaf {bad} from {from}");
            assert_eq!(cursor.prev().unwrap(), None, "leaf {bad} from {from}");
            assert_eq!(cursor.current().unwrap(), None, "leaf {bad} from {from}");
        }
        let [good, _] = keys_of(leaves[1]);
        assert_eq!(cursor.seek(&good).unwrap().unwrap().0, good);
        assert!(cursor.next().unwrap().is_some());
    }
}

#[test]
fn a_range_that_met_damage_is_over_at_both_ends() {
    let tree = sample();
    let bounds = [Vec::new(), tree.model.keys().next_back().unwrap().clone()].map(Bound::Included);
    for id in pages_of(&tree, PageKind::Leaf) {
        let count = Leaf::parse(tree.pages.raw(id), id).unwrap().count();
        // The leaf itself, and the slot of the entry by which the far end of the range is found in
        // it.
        let (first_slot, last_slot) = (32 + 4 * count, 32 + 4 * count + 2 * (count - 1));
        for (at, forwards) in [(4, true), (4, false), (last_slot, true), (first_slot, false)] {
            let damaged = damaged(&tree, |pages| pages.raw_mut(id)[at..at + 2].fill(0xff));
            let [low, high] = bounds.clone();
            let mut range = Range::new(damaged.handle(), None, low, high);
            let mut given = 0;
            while if forwards { range.next() } else { range.next_back() }.expect("damage").is_ok() {
                given += 1;
            }
            assert!(given < tree.model.len());
            assert!(range.next_back().is_none() && range.next().is_none(), "leaf {id}, byte {at}, after {given}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bytes_never_panic(flips in prop::collection::vec((any::<u16>(), 0..4096usize, any::<u8>()), 1..12), low: bool) {
        thread_local!(static TREE: ModelTree = sample());
        TREE.with(|tree| {
            let mut ids: Vec<_> = tree.pages.in_use().into_iter().collect();
            ids.sort();
            let damaged = damaged(tree, |pages| {
                for (page, at, value) in flips {
                    let id = ids[usize::from(page) % ids.len()];
                    // Headers and arrays, where most of the meaning is, are hit as often as all the
                    // rest.
                    pages.raw_mut(id)[if low { at % 300 } else { at }] = value;
                }
            });
            exercise(&damaged);
        });
    }
}

#[test]
fn pages_store_keys_whole() {
    // The other tests rely on this: pages store keys whole, so a changed byte of a key in a page
    // changes the key.
    let tree = sample();
    let id = pages_of(&tree, PageKind::Leaf)[0];
    let ptr = PagePtr { id, crc: checksum::stored(tree.pages.raw(id)) };
    let leaf = Leaf::parse(tree.pages.page(ptr).unwrap(), id).unwrap();
    assert!((0..leaf.count()).all(|at| tree.model.contains_key(leaf.key(at).unwrap().bytes)));
}

#[test]
fn wrong_hints_of_a_branch_do_not_make_a_put_change_another_key() {
    use crate::page::layout::{HINTS, HINTS_BYTES};
    let mut tree = ModelTree::new(8192);
    let mut number = 0u32;
    let children =
        |tree: &ModelTree| Branch::parse(tree.pages.raw(tree.root.ptr.id), tree.root.ptr.id).unwrap().count();
    while tree.root.height < 2 || children(&tree) < 252 {
        number += 1;
        tree.append(&(number << 8).to_be_bytes(), &[7; 900]);
    }
    tree.commit();
    let root = tree.root.ptr.id;
    let lying = damaged(&tree, |pages| pages.raw_mut(root)[HINTS..HINTS + HINTS_BYTES].fill(0));
    for key in tree.model.keys() {
        let mut clone = lying.clone();
        let values = |tree: &ModelTree| -> Vec<Vec<u8>> {
            Range::all(tree.handle()).map_while(|entry| entry.ok().map(|(k, v)| [k, v].concat())).collect()
        };
        let done = clone.handle_mut().put(key, &[9; 10], &mut PutHint::default(), None);
        if done.is_ok_and(|replaced| replaced) {
            let (before, after) = (values(&lying), values(&clone));
            let changed: Vec<_> = before.iter().zip(&after).filter(|(a, b)| a != b).map(|(a, _)| &a[..4]).collect();
            assert!(changed == [&key[..]], "put of {key:?} said that it replaced, and changed {changed:?}");
        }
    }
}

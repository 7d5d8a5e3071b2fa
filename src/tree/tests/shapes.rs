//! The shapes that trees take: exhaustive small sequences, sequential puts, prefixes that get lost,
//! fan-out.

use super::*;
use crate::ids::PagePtr;
use crate::limits::{max_inline_key_bytes, max_inline_value_bytes};
use crate::page::branch::Branch;
use crate::page::layout::HEADER_BYTES;
use crate::page::leaf::Leaf;
use crate::pager::PageRead;

/// Entries of this size fill a 4 KiB leaf four to a page, and a branch five or so: a few keys make
/// a deep tree.
const LONG: usize = 1000;

/// A long key whose neighbours share its beginning but for every sixteenth: separators are long,
/// and branches of them have little in common, so a few leaves make a deep tree.
fn deep_key(number: u32) -> Vec<u8> {
    let mut key = (number >> 4).to_be_bytes().to_vec();
    key.resize(LONG - 4, b'k');
    key.extend(number.to_be_bytes());
    key
}

/// Numbers that repeat after a long time and look random.
fn scrambled(number: u32) -> u64 {
    let mixed = (u64::from(number) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed ^ mixed >> 27
}

/// Every order of putting `count` long keys, each followed by deleting them in every order of a few
/// kinds.
#[test]
fn a_tree_is_valid_after_puts_and_deletes_in_every_order() {
    let mut orders = Vec::new();
    permute(&mut (0..6).collect(), 0, &mut orders);
    for order in &orders {
        let mut tree = ModelTree::new(4096);
        for number in 0..12 {
            tree.put(&deep_key(number * 4), &[1; 900]);
        }
        tree.commit();
        for number in order {
            tree.put(&deep_key(number * 8 + 2), &[2; 900]);
        }
        let mut clone = tree.clone();
        clone.verify();
        for number in order {
            tree.delete(&deep_key(number * 8 + 2));
            tree.delete(&deep_key(number * 8));
        }
        tree.verify();
    }
}

fn permute(items: &mut Vec<u32>, at: usize, orders: &mut Vec<Vec<u32>>) {
    if at == items.len() {
        orders.push(items.clone());
    }
    for other in at..items.len() {
        items.swap(at, other);
        permute(items, at + 1, orders);
        items.swap(at, other);
    }
}

/// All sequences of seven operations on few large entries: put small, put large, delete, for three
/// keys between entries that are there, with a commit in between or not.
#[test]
fn a_tree_is_valid_after_every_short_sequence_of_operations() {
    let mut base = ModelTree::new(4096);
    for number in 0..9 {
        base.put(&deep_key(number * 10), &[0; 500]);
    }
    base.commit();
    let keys = [deep_key(15), deep_key(40), deep_key(81)];
    let choices = 9usize;
    for sequence in 0..choices.pow(4) {
        let mut tree = base.clone();
        let mut rest = sequence;
        for step in 0..4 {
            let (key, what) = (&keys[rest % 3], rest / 3 % 3);
            rest /= choices;
            match what {
                0 => tree.put(key, b"small"),
                1 => tree.put(key, &[1; 976]),
                _ => tree.delete(key),
            }
            if step == 1 && sequence % 2 == 0 {
                tree.commit();
            }
        }
        tree.verify();
        for number in (0..9).rev() {
            tree.delete(&deep_key(number * 10));
        }
        tree.verify();
    }
}

#[test]
fn a_deep_tree_is_valid_after_the_delete_of_any_range() {
    let mut full = ModelTree::new(4096);
    for number in 0..120 {
        full.put(&deep_key(number * 5), &[0; 600]);
    }
    let stats = full.verify();
    assert!(stats.depth >= 4, "{stats:?}");
    for start in 0..120 {
        for len in [1, 3, 7, 20, 120] {
            let mut tree = full.clone();
            for number in start..(start + len).min(120) {
                tree.delete(&deep_key(number * 5));
            }
            tree.verify();
        }
    }
}

/// Keys whose separators cannot be truncated: they differ only in their last bytes.
#[test]
fn long_separators_make_deep_trees() {
    for page_size in [4096, 8192, 32768] {
        let limit = max_inline_key_bytes(page_size);
        let mut tree = ModelTree::new(page_size);
        let key = |number: u32| [vec![(number % 3) as u8; limit - 4], number.to_be_bytes().to_vec()].concat();
        for number in 0..200 {
            tree.put(&key(number * 77 % 200), &vec![1; max_inline_value_bytes(page_size)]);
        }
        assert!(tree.verify().depth >= 3);
        for number in 0..200 {
            tree.delete(&key(number * 31 % 200));
            if number % 20 == 0 {
                tree.verify();
            }
        }
        tree.verify();
    }
}

/// A branch whose separators share 500 bytes loses the prefix by one separator that does not: one
/// page becomes many.
#[test]
fn a_separator_without_the_common_prefix_splits_its_branch() {
    for odd in [&b"a"[..], b"pp", b"q"] {
        let mut tree = ModelTree::new(4096);
        // Pairs of a large entry and a small one, so that separators keep all bytes and there is
        // one per leaf.
        let key = |number: u32| [vec![b'p'; 500], number.to_be_bytes().to_vec()].concat();
        for number in 0..400 {
            tree.append(&key(number), &[0; 900]);
        }
        let before = tree.verify();
        let wide = before.branch_pages;
        assert!(before.depth == 2 && wide == 1, "{before:?}");
        for number in 0..6 {
            tree.put(&[odd, &[number]].concat(), &[0; 900]);
        }
        let after = tree.verify();
        assert!(after.branch_pages > wide, "{after:?}");
        for number in 0..400 {
            tree.get(&key(number));
        }
        for number in 0..400 {
            tree.delete(&key(number * 7 % 400));
        }
        tree.verify();
    }
}

/// How full the leaves are, in per cent of what a leaf holds.
fn leaf_fill(stats: &TreeStats, page_size: usize) -> u64 {
    stats.leaf_bytes * 100 / (stats.leaf_pages * (page_size - HEADER_BYTES) as u64)
}

#[test]
fn sequential_puts_fill_their_leaves_anywhere_in_the_tree() {
    for up in [true, false] {
        let mut tree = ModelTree::new(4096);
        for number in 0..20 {
            tree.put(&(number * 100_000u32).to_be_bytes(), &[0; 100]);
        }
        for part in [3, 11, 0, 19] {
            for number in 1..2000 {
                let number = if up { number } else { 2000 - number };
                tree.put(&(part * 100_000u32 + number).to_be_bytes(), &[0; 20]);
            }
        }
        let stats = tree.verify();
        // Downwards, a short separator sends what is below it to the next leaf before this one is
        // full.
        assert!(leaf_fill(&stats, 4096) >= if up { 95 } else { 70 }, "up {up}: {stats:?}");
    }
}

#[test]
fn random_puts_leave_leaves_fuller_than_splits_only_would() {
    let mut tree = ModelTree::new(4096);
    for number in 0..20_000u32 {
        tree.put(&scrambled(number).to_be_bytes(), &[0; 30]);
    }
    let stats = tree.verify();
    // With splits only it is ln 2 of a page.
    assert!((72..=85).contains(&leaf_fill(&stats, 4096)), "{}", leaf_fill(&stats, 4096));
}

/// Two leaves, the left or the right one full to the last entry, the other one half full; the
/// numbers that the full one is for.
fn two_leaves(left_is_full: bool) -> (ModelTree, std::ops::Range<u32>) {
    let mut tree = ModelTree::new(4096);
    // Twenty entries fill a leaf.
    let mut count = 0;
    while tree.root.height < 2 {
        count += 1;
        tree.put(&(count * 7 % 31 * 1000u32).to_be_bytes(), &[0; 180]);
    }
    let leaves = children(&tree.pages, tree.root.ptr);
    let number_of = |key: &[u8]| u32::from_be_bytes(key.try_into().unwrap());
    let border = number_of(leaf_of(&tree, leaves[1]).first_key().unwrap().bytes);
    let (full, numbers) = if left_is_full { (leaves[0], 0..border - 1000) } else { (leaves[1], border..31_000) };
    for number in numbers.clone().step_by(1000).flat_map(|number| [number + 500, number + 250]) {
        if leaf_of(&tree, full).count() < 20 {
            tree.put(&number.to_be_bytes(), &[0; 180]);
        }
    }
    assert_eq!(leaf_of(&tree, full).count(), 20);
    assert_eq!(tree.clone().verify().leaf_pages, 2);
    tree.put_hint = PutHint::default();
    (tree, numbers)
}

fn leaf_of(tree: &ModelTree, ptr: PagePtr) -> Leaf<'_> {
    Leaf::parse(tree.pages.page(ptr).unwrap(), ptr.id).unwrap()
}

#[test]
fn a_full_leaf_shares_with_a_dirty_neighbour_that_has_room() {
    for left_is_full in [true, false] {
        let (full, numbers) = two_leaves(left_is_full);
        let there: Vec<u32> = full.model.keys().map(|key| u32::from_be_bytes(key[..].try_into().unwrap())).collect();
        for number in numbers.clone().step_by(333) {
            // A new entry at every place, or a longer value in place of one.
            let mut tree = full.clone();
            tree.put(&number.to_be_bytes(), &[1; 900]);
            assert_eq!(tree.verify().leaf_pages, 2, "left {left_is_full}, {number}");
            let mut committed = full.clone();
            committed.commit();
            committed.put(&number.to_be_bytes(), &[1; 900]);
            assert_eq!(committed.verify().leaf_pages, 3, "a neighbour that is not dirty is left alone");
        }
        for number in there.into_iter().filter(|number| numbers.contains(number)) {
            let mut tree = full.clone();
            tree.put(&number.to_be_bytes(), &[1; 900]);
            assert_eq!(tree.verify().leaf_pages, 2, "left {left_is_full}, {number} replaced");
        }
    }
}

#[test]
fn random_deletes_keep_leaves_a_third_full() {
    let mut tree = ModelTree::new(4096);
    for number in 0..20_000u32 {
        tree.put(&scrambled(number).to_be_bytes(), &[0; 30]);
    }
    tree.commit();
    for number in 0..19_000u32 {
        tree.delete(&scrambled(number).to_be_bytes());
        if number % 1000 == 0 {
            tree.verify();
        }
    }
    let stats = tree.verify();
    assert!(leaf_fill(&stats, 4096) >= 34, "{}", leaf_fill(&stats, 4096));
}

#[test]
fn appended_pages_are_full_and_ascend() {
    let mut tree = ModelTree::new(4096);
    for number in 0..30_000u32 {
        tree.append(&number.to_be_bytes(), &[1; 20]);
    }
    tree.append(&5u32.to_be_bytes(), b"is refused");
    let stats = tree.verify();
    assert!(leaf_fill(&stats, 4096) >= 98);
    let mut before = PageId(0);
    let root = Branch::parse(tree.pages.page(tree.root.ptr).unwrap(), tree.root.ptr.id).unwrap();
    let first = root.child(0).unwrap();
    assert!(Branch::parse(tree.pages.page(first).unwrap(), first.id).unwrap().free_bytes() < 64);
    for at in 0..root.count() {
        for leaf in children(&tree.pages, root.child(at).unwrap()) {
            assert!(leaf.id > before);
            before = leaf.id;
        }
    }
}

/// A branch whose children have more in common than those to come has to be built anew before it is
/// full.
#[test]
fn loaded_branches_are_as_full_as_appended_ones() {
    let text = |number: u32| format!("user:{number:08}:name").into_bytes();
    let random = |number: u32| (scrambled(number) | 1 << 63).to_be_bytes().to_vec();
    type Key<'a> = &'a dyn Fn(u32) -> Vec<u8>;
    let kinds: [(&str, u32, Key<'_>); 3] =
        [("text", 60_000, &text), ("random", 60_000, &random), ("long", 1500, &deep_key)];
    for (kind, count, key) in kinds {
        let mut keys: Vec<Vec<u8>> = (0..count).map(key).collect();
        keys.sort();
        let (mut loaded, mut appended) = (ModelTree::new(4096), ModelTree::new(4096));
        for part in keys.chunks(keys.len() / 3) {
            loaded.load_after_all(part.iter().map(|key| (key.clone(), vec![7; 150])).collect());
            loaded.commit();
        }
        keys.iter().for_each(|key| appended.append(key, &[7; 150]));
        let (loaded, appended) = (loaded.verify(), appended.verify());
        println!("{kind}: {loaded:?}, {appended:?}");
        assert!(loaded.branch_pages <= appended.branch_pages + appended.branch_pages / 20 + 1, "{kind}");
        assert!(loaded.leaf_pages <= appended.leaf_pages + 3, "{kind}");
    }
}

fn children(pages: &VecPages, ptr: PagePtr) -> Vec<PagePtr> {
    let branch = Branch::parse(pages.page(ptr).unwrap(), ptr.id).unwrap();
    (0..branch.count()).map(|at| branch.child(at).unwrap()).collect()
}

#[test]
fn appends_among_commits_puts_and_deletes_agree_with_a_map() {
    let mut tree = ModelTree::new(4096);
    for number in 0..3000u32 {
        tree.append(&(number * 2).to_be_bytes(), &[1; 40]);
        if number % 97 == 0 {
            tree.commit();
        }
        if number % 61 == 0 {
            tree.delete(&(number * 2).to_be_bytes());
            tree.put(&(number * 2 + 1).to_be_bytes(), b"between");
        }
    }
    tree.verify();
}

#[test]
fn a_stale_append_hint_does_not_admit_a_key_out_of_order() {
    let mut tree = ModelTree::new(4096);
    let (mut hint, value) = (AppendHint::default(), [0; 100]);
    for number in 0..100u32 {
        tree.handle_mut().append(&number.to_be_bytes(), &value, &mut hint).unwrap();
    }
    for number in 100..200u32 {
        tree.handle_mut().put(&number.to_be_bytes(), &value, &mut PutHint::default(), None).unwrap();
    }
    let e = tree.handle_mut().append(&150u32.to_be_bytes(), &value, &mut hint).unwrap_err();
    assert_eq!(e.kind(), crate::error::ErrorKind::Usage);
}

#[test]
fn a_full_disk_in_any_allocation_can_be_aborted() {
    let mut base = ModelTree::new(4096);
    for number in 0..40 {
        base.put(&deep_key(number * 2), &[0; 900]);
    }
    base.verify();
    for allowed in 0..30 {
        let mut tree = base.clone();
        tree.pages.limit_allocations(Some(allowed));
        let mut failed = false;
        for number in 0..10 {
            let key = deep_key(number * 8 + 1);
            let result = tree.handle_mut().put(&key, &[1; 3000], &mut PutHint::default(), None);
            failed |= result.is_err();
            if failed {
                assert_eq!(result.unwrap_err().kind(), crate::error::ErrorKind::DiskFull);
                break;
            }
        }
        assert!(failed);
        tree.pages.abort();
        tree.pages.limit_allocations(None);
        tree.root = base.root;
        tree.verify();
    }
}

#[test]
fn leaves_built_by_splits_ascend_in_address() {
    let mut tree = ModelTree::new(4096);
    for number in 0..3u32 {
        tree.put(&long_key(number * 2, 900), &[0; 400]);
    }
    tree.put(&long_key(3, 900), &[0; 400]);
    tree.commit();
    for ptr in children(&tree.pages, tree.root.ptr) {
        let leaf = Leaf::parse(tree.pages.page(ptr).unwrap(), ptr.id).unwrap();
        let addresses: Vec<_> = (0..leaf.count()).map(|at| leaf.key(at).unwrap().bytes.as_ptr()).collect();
        assert!(addresses.is_sorted(), "{addresses:?}");
    }
}

#[test]
fn leaves_that_would_merge_into_one_leave_their_branch_two_children() {
    let mut tree = ModelTree::new(4096);
    (0..6u32).for_each(|n| tree.put(&n.to_be_bytes(), &[1; 900]));
    assert_eq!(tree.root.height, 2);
    (0..6u32).for_each(|n| tree.put(&n.to_be_bytes(), b"short"));
    tree.load((0..12u32).map(|n| (n.to_be_bytes().to_vec(), b"new".to_vec())).collect());
    let stats = tree.verify();
    assert_eq!((stats.leaf_pages, stats.branch_pages), (2, 1));
}

#[test]
fn a_put_into_a_full_leaf_reads_no_neighbour_that_is_not_dirty() {
    let mut tree = ModelTree::new(4096);
    for number in 0..200u32 {
        tree.put(&(number * 71 % 200 * 1000).to_be_bytes(), &[0; 180]);
    }
    tree.commit();
    let leaves = children(&tree.pages, tree.root.ptr);
    assert!(leaves.len() > 3);
    for beside in [0, 2] {
        let mut tree = ModelTree { pages: tree.pages.clone().lenient(), ..tree.clone() };
        let first = u32::from_be_bytes(leaf_of(&tree, leaves[1]).first_key().unwrap().bytes.try_into().unwrap());
        tree.pages.raw_mut(leaves[beside].id)[2000] ^= 1;
        for more in 1..40 {
            let key = (first + more).to_be_bytes();
            let done = tree.handle_mut().put(&key, &[1; 180], &mut PutHint::default(), None);
            assert!(done.is_ok(), "beside {beside}, {more}: {done:?}");
        }
    }
}

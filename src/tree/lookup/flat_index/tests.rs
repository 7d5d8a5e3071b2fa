//! Flat indexes against the descent through the branches.

use proptest::prelude::*;

use crate::ids::{PageId, TreeId};
use crate::page::branch;
use crate::page::branch::Child;
use crate::page::header::PageStamp;
use crate::page::heads::{with_each_width, Search};
use crate::page::lookup;
use crate::pager::PageWrite as _;
use crate::tree::lookup::flat_index::*;
use crate::tree::lookup::search::child_checked;
use crate::tree::tests::pages::VecPages;
use crate::tree::TreeRoot;

/// A tree of only branches, with as many levels as the separators need. Its leaves are only numbers
/// of pages; no test reads them.
fn tree_of(separators: &[Vec<u8>], fan_out: usize) -> (VecPages, TreeRoot) {
    let mut pages = VecPages::new(4096);
    let mut level: Vec<Child> = std::iter::once(&Vec::new())
        .chain(separators)
        .zip(1000..)
        .map(|(sep, id)| Child { sep: sep.clone().into(), ptr: PagePtr { id: PageId(id), crc: 7 } })
        .collect();
    let mut height = 1;
    while level.len() > 1 {
        let mut above = Vec::new();
        let mut rest = &level[..];
        while !rest.is_empty() {
            let mut take = fan_out.min(rest.len());
            let id = pages.alloc(1).unwrap();
            let txn = pages.txn();
            loop {
                let mut children = rest[..take].to_vec();
                let first = std::mem::take(&mut children[0].sep);
                if branch::build(pages.page_mut(id).unwrap(), PageStamp::new(id, TreeId(16), txn), height, &children)
                    .unwrap()
                {
                    above.push(Child { sep: first, ptr: PagePtr { id, crc: 0 } });
                    break;
                }
                take /= 2;
            }
            rest = &rest[take..];
        }
        (level, height) = (above, height + 1);
    }
    (pages, TreeRoot { ptr: level[0].ptr, height, tree: TreeId(16), ..TreeRoot::default() })
}

struct Ask<'a>(&'a FlatIndex, &'a [u8]);

impl Search for Ask<'_> {
    type Answer = Option<(PagePtr, usize)>;

    fn with<V: Vectors>(self, vectors: V) -> Self::Answer {
        Some((self.0.child(vectors, self.1, lookup::first_word(self.1)?)?, self.0.level()))
    }
}

/// FLAT-1 for a key, with vectors of each width; whether there was an answer.
fn check(pages: &VecPages, root: &TreeRoot, flat_index: &FlatIndex, key: &[u8]) -> bool {
    let answers = with_each_width(|| Ask(flat_index, key));
    assert!(answers.iter().all(|answer| *answer == answers[0]), "the width of vectors makes no difference");
    let Some((found, level)) = answers[0] else { return false };
    let mut ptr = root.ptr;
    for level in (level + 1..usize::from(root.height)).rev() {
        ptr = child_checked(Tree::new(pages, root), ptr, level, key).unwrap();
    }
    assert_eq!(found, ptr, "{key:?}");
    true
}

/// The keys, and those around them.
fn around(keys: &[Vec<u8>]) -> impl Iterator<Item = Vec<u8>> + '_ {
    keys.iter().flat_map(|key| {
        let mut near = vec![
            key.clone(),
            key[..key.len() - 1].to_vec(),
            [key, &[0][..]].concat(),
            [key, &b"~~~~~~~~~~~~~~~~"[..]].concat(),
        ];
        for at in 0..key.len() {
            for change in [1, 0xff] {
                let mut other = key.clone();
                other[at] = other[at].wrapping_add(change);
                other.resize(key.len().max(30), b'5');
                near.push(other);
            }
        }
        near
    })
}

/// Checks keys around the separators; how many of the separators' own keys, made long, got an
/// answer.
fn check_all(separators: &[Vec<u8>], fan_out: usize, pages_max: usize) -> Option<usize> {
    let (pages, root) = tree_of(separators, fan_out);
    let flat_index = FlatIndex::build(Tree::new(&pages, &root), pages_max).unwrap()?;
    for key in around(separators).chain([vec![], vec![0; 40], vec![0xff; 40]]) {
        check(&pages, &root, &flat_index, &key);
    }
    // As keys of that kind go on after a separator.
    let rest: &[u8] = if separators[0].starts_with(b"t0") { b"t000/item/000000000000" } else { &[b'0'; 25] };
    let long = |key: &Vec<u8>| [key, rest.get(key.len()..).unwrap_or(&[])].concat();
    Some(separators.iter().filter(|key| check(&pages, &root, &flat_index, &long(key))).count())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn a_flat_index_of_any_separators_agrees_with_the_tree(
        mut separators in prop::collection::vec(prop_oneof![
            prop::collection::vec(prop_oneof![Just(0u8), Just(b'a'), Just(b'b'), Just(0xff)], 1..14),
            "user:00[0-9]{2,6}".prop_map(String::into_bytes),
            "t[0-9]{1,3}(/item/000[0-9]{0,9})?".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 1..40),
            "aaaaaaaaaaaaaaaa(b|c)ddddd[0-9]{1,10}".prop_map(String::into_bytes),
        ], 1..400),
        same_kind: bool,
        fan_out in 2usize..40,
        pages_max in prop_oneof![2usize..60, Just(PAGES_MAX[1])],
    ) {
        if same_kind {
            let kind = separators[0].len() % 4;
            separators.retain(|separator| separator.len() % 4 == kind);
        }
        separators.sort();
        separators.dedup();
        check_all(&separators, fan_out, pages_max);
    }
}

#[test]
fn a_key_is_not_taken_for_a_separator_with_zeros_after_it() {
    let separators = [&b"aaaa"[..], b"bbbb\0", b"cccc", b"dddd\0\0"].map(<[u8]>::to_vec);
    let (pages, root) = tree_of(&separators, 2);
    let flat_index = FlatIndex::build(Tree::new(&pages, &root), PAGES_MAX[0]).unwrap().expect("worth it");
    for key in [&b"bbbb"[..], b"bbbb\0", b"cccc", b"dddd", b"dddd\0", b"dddd\0\0"] {
        check(&pages, &root, &flat_index, key);
    }
}

#[test]
fn a_flat_index_answers_for_keys_of_common_forms() {
    let user: Vec<Vec<u8>> = (1..900u32).map(|n| format!("user:{:08}", n * 3000).into_bytes()).collect();
    // Of one tenant or two a page, separators as short as splits make them.
    let tenants = |n: u32| match n % 2 {
        0 => format!("t{:03}", n / 2),
        _ => format!("t{:03}/item/00000000{:04}", n / 2, 1000 + n % 7 * 311),
    };
    let mut tenants: Vec<Vec<u8>> = (1..400).map(|n| tenants(n).into_bytes()).collect();
    tenants.sort();
    let random: Vec<Vec<u8>> =
        (1..3000u32).map(|n| (n * 1_000_003).to_be_bytes()[..3 + n as usize % 2].to_vec()).collect();
    let mut random: Vec<Vec<u8>> = random;
    random.sort();
    random.dedup();
    let numbers: Vec<Vec<u8>> = (1..3000u64).map(|n| (n * 5000).to_be_bytes().to_vec()).collect();
    for separators in [user, tenants, random, numbers] {
        for pages_max in [separators.len() / 2, PAGES_MAX[1]] {
            let answered = check_all(&separators, 100, pages_max).expect("worth it");
            assert_eq!(answered, separators.len(), "{}", String::from_utf8_lossy(&separators[0]));
        }
    }
}

#[test]
fn the_lowest_level_with_few_enough_pages_is_made_flat() {
    let [small, large, huge, _] = PAGES_MAX;
    for leaves in [3, 16, 17, 300, small, small + 1, 3 * small, large, large + 1, 3 * large, huge, huge + 1] {
        let separators: Vec<Vec<u8>> = (1..leaves as u32).map(|n| n.to_be_bytes().to_vec()).collect();
        let (tree, root) = tree_of(&separators, 40);
        for pages_max in [small, large, huge, usize::MAX] {
            let flat_index = FlatIndex::build(Tree::new(&tree, &root), pages_max).unwrap().unwrap();
            assert_eq!(flat_index.level == 0, leaves <= pages_max, "{leaves} of {pages_max}");
            assert!(flat_index.page_count <= pages_max);
            for key in separators.iter().step_by(leaves / 60 + 1).chain(separators.last()) {
                let key = [key, &b"0000"[..]].concat();
                assert!(check(&tree, &root, &flat_index, &key), "{leaves} of {pages_max}: {key:?}");
            }
        }
    }
    let (tree, root) = tree_of(&[], 100);
    assert!(
        FlatIndex::build(Tree::new(&tree, &TreeRoot { height: 1, ..root }), 100).unwrap().is_none(),
        "one leaf gains nothing"
    );
    assert!(FlatIndex::build(Tree::new(&tree, &TreeRoot::default()), 100).unwrap().is_none());
}

#[test]
fn a_flat_index_does_not_store_long_common_prefixes() {
    let separators: Vec<Vec<u8>> = (1..4000u32).map(|n| [&[b'p'; 900][..], &n.to_be_bytes()].concat()).collect();
    let (tree, root) = tree_of(&separators, 40);
    let mut parts = Parts::default();
    parts.push(root.ptr);
    let mut level = height_of(&root).unwrap() - 1;
    while level > 0 {
        parts = children(&tree, &parts, level, PAGES_MAX[2]).unwrap().unwrap().0;
        level -= 1;
    }
    assert!(parts.bytes.len() <= parts.pages.len() * 32, "{} bytes for {} pages", parts.bytes.len(), parts.pages.len());
}

#[test]
fn a_branch_whose_page_was_used_again_is_not_copied() {
    let separators: Vec<Vec<u8>> = (1..1000u32).map(|n| n.to_be_bytes().to_vec()).collect();
    let (tree, root) = tree_of(&separators, 40);
    let tree = Tree::new(&tree, &root);
    let built = FlatIndex::build(tree, PAGES_MAX[1]).unwrap().unwrap();
    let pages = |flat_index: &FlatIndex| (0..1000).map(|at| flat_index.page(at).unwrap()).collect::<Vec<_>>();
    let mut stale = FlatIndex::build(tree, PAGES_MAX[1]).unwrap().unwrap();
    let start = stale.sources[3].start;
    stale.pages[start / WORDS].children[start % WORDS] = packed(PagePtr { id: PageId(1), crc: 1 });
    let copied = stale.renew(tree, PAGES_MAX[1]).unwrap().unwrap();
    assert_eq!(copied.page(start).unwrap().id, PageId(1), "the branch has not changed");
    stale.sources[3].born = stale.sources[3].born.next();
    let renewed = stale.renew(tree, PAGES_MAX[1]).unwrap().unwrap();
    assert_eq!(pages(&renewed), pages(&built));
}

#[test]
fn a_renewal_is_refused_for_a_separator_that_other_bytes_decide() {
    let named = |tenant: u8, n: u32| [&b"tenant-"[..], &[tenant], &n.to_be_bytes()].concat();
    let first: Vec<Vec<u8>> = (1..500).map(|n| named(b'a', n)).collect();
    let (tree, root) = tree_of(&first, 40);
    let flat_index = FlatIndex::build(Tree::new(&tree, &root), PAGES_MAX[1]).unwrap().unwrap();
    let both: Vec<Vec<u8>> = first.iter().cloned().chain((1..500).map(|n| named(b'b', n))).collect();
    let (tree, root) = tree_of(&both, 40);
    assert!(flat_index.renew(Tree::new(&tree, &root), PAGES_MAX[1]).unwrap().is_none());
    assert!(flat_index.renew(Tree::new(&tree, &root), 30).unwrap().is_none(), "too many pages");
}

//! Fuzzing of pages: takes any bytes as a page, and builds pages from any entries. Nothing may
//! panic, a decoded page must encode to the same entries, and each search must agree with a scan of
//! all entries.
//!
//! Floor: testing. The first byte chooses the kind of test; see [`fuzz_page`].

use std::collections::BTreeMap;

use crate::ids::{PageId, PagePtr, TreeId, TxnId, MAX_U48};
use crate::limits::{max_inline_key_bytes, max_inline_value_bytes, MAX_VALUE_BYTES};
use crate::page::branch::{self, Branch, BranchMut, Child};
use crate::page::header::{Header, PageStamp};
use crate::page::key::{PageKey, PageKeyBuf, WholeKeys};
use crate::page::layout::{self, meta as at};
use crate::page::leaf::{self, Leaf, LeafMut, LeafValue, OverflowPtr};
use crate::page::lookup;
use crate::page::meta::MetaPage;
use crate::page::packed::Packed;
use crate::page::value_set::{SetChange, Shape, ValueSet};
use crate::page::{free_list, overflow};
use crate::testing::input::{filled, Input};
use crate::testing::long_keys::{self, Known, Zeros};

const ID: PageId = PageId(7);
const TREE: TreeId = TreeId(5);
const TXN: TxnId = TxnId(9);
const STAMP: PageStamp = PageStamp::new(ID, TREE, TXN);

/// The two lowest bits of the first byte choose the page size, the next two bits the kind of test.
/// 0: decodes the other bytes as a page. 1: corrects fields first, so that decoding does not only
/// refuse them. 2 builds and changes a leaf, 3 a branch, from the other bytes.
pub fn fuzz_page(data: &[u8]) {
    let mut input = Input::new(data);
    let what = input.byte();
    let page_size = 4096 << (what & 3);
    match what >> 2 & 3 {
        0 => decode(&raw_page(&mut input, page_size), &[]),
        1 => {
            let mut page = raw_page(&mut input, page_size);
            correct_fields(&mut page);
            let probes: Vec<Vec<u8>> = (0..4).map(|_| input.key(max_inline_key_bytes(page_size))).collect();
            decode(&page, &probes);
        }
        2 => leaf_of_entries(&mut input, page_size),
        _ => branch_of_children(&mut input, page_size),
    }
}

/// A page that begins with some of the bytes and ends with others, because a page has its content
/// at both ends.
fn raw_page(input: &mut Input<'_>, page_size: usize) -> Vec<u8> {
    let mut page = vec![0; page_size];
    let front_bytes = input.u16() % (page_size + 1);
    let front = input.take(front_bytes);
    page[..front.len()].copy_from_slice(front);
    let back_bytes = input.u16() % (page_size + 1);
    let back = input.take(back_bytes);
    page[page_size - back.len()..].copy_from_slice(back);
    page
}

/// Corrects the fields that follow from others: id, flags and the end of the arrays; in a meta page
/// magic, version and checksum.
fn correct_fields(page: &mut [u8]) {
    if page[layout::KIND] > 6 {
        page[..8].copy_from_slice(&at::MAGIC_BYTES);
        layout::put_u32(page, at::VERSION, 1);
        layout::put_u64(page, at::REQUIRED, 0);
        let crc = crc32fast::hash(&page[..at::CHECKSUM]);
        layout::put_u32(page, at::CHECKSUM, crc);
        return;
    }
    layout::put_u48(page, layout::ID, ID.0);
    let flags = layout::get_u16(page, layout::FLAGS);
    layout::put_u16(page, layout::FLAGS, flags & layout::LONG_KEYS_FLAG);
    let count = usize::from(layout::get_u16(page, layout::COUNT));
    let lower = match page[layout::KIND] {
        1 => layout::LEAF_HEADS + layout::LEAF_ARRAY_BYTES * count,
        2 => layout::BRANCH_HEADS + layout::BRANCH_ARRAY_BYTES * count,
        6 => {
            let upper = page.len() as u16;
            layout::put_u16(page, layout::UPPER, upper);
            layout::PACKED_VALUES + usize::from(layout::get_u16(page, layout::VALUE_BYTES)) * count
        }
        _ => return,
    };
    layout::put_u16(page, layout::LOWER, lower as u16);
}

/// Decodes a page as every kind. A page that verifies must mean the same after it is encoded again.
fn decode(page: &[u8], probes: &[Vec<u8>]) {
    let id = PageId(layout::get_u48(page, layout::ID));
    let _header = Header::read(page, id);
    if let Ok(leaf) = Leaf::parse(page, id) {
        decode_leaf(page, leaf, probes);
    }
    if let Ok(branch) = Branch::parse(page, id) {
        decode_branch(page, branch, probes);
    }
    decode_packed(page, id, probes);
    if let Ok(items) = free_list::read(page, id) {
        let mut again = vec![0xee; page.len()];
        free_list::write(&mut again, page.len(), id, TXN, &items);
        assert_eq!(free_list::read(&again, id), Ok(items));
    }
    for len in [0, 100, page.len() as u64 - 32, page.len() as u64, u64::MAX] {
        if let Ok(value) = overflow::value(page, id, len) {
            // A page may claim to be an overflow extent of several pages.
            if overflow::overflow_pages(page.len(), len) == 1 {
                let mut again = vec![0xee; page.len()];
                overflow::write(&mut again, page.len(), PageStamp { id, ..STAMP }, value);
                assert_eq!(overflow::value(&again, id, len), Ok(value));
            }
        }
    }
    if let Ok(meta) = MetaPage::decode_copy(page) {
        let mut again = vec![0xee; meta.page_size as usize];
        meta.encode_slot(&mut again);
        assert_eq!(MetaPage::decode_copy(&again), Ok(meta));
        assert_eq!(MetaPage::decode_copy(&again[again.len() / 2..]), Ok(meta));
    }
}

/// Decodes a page as a packed leaf of the size that it says. One that verifies finds each value.
fn decode_packed(page: &[u8], id: PageId, probes: &[Vec<u8>]) {
    let width = usize::from(layout::get_u16(page, layout::VALUE_BYTES));
    let Ok(leaf) = Packed::parse(page, id, width) else { return };
    probes.iter().for_each(|value| assert!(leaf.search(value).0 <= leaf.count()));
    assert!(leaf.get(leaf.count()).is_err());
    if leaf.verify().is_ok() {
        for index in 0..leaf.count() {
            assert_eq!(leaf.search(leaf.get(index).expect("a value")), (index, true));
        }
    }
}

/// Reads the bytes of an entry as a value set of all shapes, and changes it.
fn decode_set(bytes: &[u8], probes: &[Vec<u8>]) {
    for shape in [Shape::Variable, Shape::Fixed(1), Shape::Fixed(4), Shape::Fixed(7), Shape::Fixed(8)] {
        let set = ValueSet::new(bytes, shape);
        let is_sound = set.verify().is_ok();
        for value in probes.iter().filter(|value| shape.width().is_none_or(|width| width == value.len())) {
            let (at, found) = set.search(value);
            let change = if found { SetChange::Remove(at) } else { SetChange::Insert(at, value) };
            if let (true, Some(changed)) = (is_sound, change.apply(&set)) {
                let changed = ValueSet::new(&changed, shape);
                assert!(changed.count() == 0 || changed.verify().is_ok(), "{shape:?}");
                assert_eq!(changed.search(value).1, !found);
            }
        }
    }
}

type Entry<'a> = (PageKey<'a>, LeafValue<'a>);

fn decode_leaf(page: &[u8], leaf: Leaf<'_>, probes: &[Vec<u8>]) {
    let verified = leaf.verify().is_ok();
    for index in 0..leaf.count() {
        if let Ok(LeafValue::Set(bytes)) = leaf.value(index) {
            decode_set(bytes, probes);
        }
    }
    let entries: Vec<Entry<'_>> = (0..leaf.count()).map_while(|index| leaf.entry(index).ok()).collect();
    let keys: Vec<&[u8]> = entries.iter().take(64).map(|entry| entry.0.bytes).collect();
    for key in probes.iter().map(Vec::as_slice).chain(keys) {
        let _bounds = leaf.lower_bound(&Zeros, key);
        leaf_lookup(page, leaf, &Zeros, key);
    }
    if verified {
        assert_eq!(entries.len(), leaf.count(), "a leaf that verifies has all its entries");
        if entries.iter().all(|entry| entry.0.long.is_none()) {
            search_leaf(page, leaf, &Known::default(), &entries, probes);
        }
        let mut again = vec![0xee; page.len()];
        let built = leaf::build(&mut again, PageStamp { id: leaf.id(), ..STAMP }, entries.iter().copied());
        assert_eq!(built, Ok(true), "what is in a page fits a page");
        let built = Leaf::parse(&again, leaf.id()).expect("a leaf that was built");
        assert_eq!(built.verify(), Ok(()));
        let decoded: Vec<Entry<'_>> = (0..built.count()).map_while(|index| built.entry(index).ok()).collect();
        assert_eq!(decoded, entries);
    }
}

/// FIND-1: if the fast lookup answers, its answer is that of `Leaf`.
fn leaf_lookup<K: WholeKeys>(page: &[u8], leaf: Leaf<'_>, keys: &K, key: &[u8])
where
    K::Error: std::fmt::Debug,
{
    let at = leaf.find(keys, key);
    if let Some(value) = lookup::testing::leaf(page, key) {
        let at = at.expect("answered, so it finds");
        assert_eq!(at.map(|at| leaf.value(at)), value.map(|value| Ok(LeafValue::Inline(value))), "{key:?}");
    }
}

/// Keys near the given ones: the keys, with a byte more, with a byte less, with the last byte
/// changed.
fn around<'a>(keys: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let mut probes = vec![vec![], vec![0xff; 40]];
    for key in keys {
        probes.extend([key.to_vec(), [key, &[0]].concat(), key[..key.len().saturating_sub(1)].to_vec()]);
        for change in [1, 0xff] {
            let mut near = key.to_vec();
            if let Some(last) = near.last_mut() {
                *last = last.wrapping_add(change);
            }
            probes.push(near);
        }
    }
    probes
}

/// Compares each search in a sound leaf with a scan of all entries.
fn search_leaf(page: &[u8], leaf: Leaf<'_>, known: &Known, entries: &[Entry<'_>], probes: &[Vec<u8>]) {
    let wholes: Vec<&[u8]> = entries.iter().map(|entry| known.whole(&entry.0)).collect();
    let some = wholes.iter().step_by(1 + entries.len() / 32).copied();
    for key in around(some).iter().chain(probes) {
        let below = wholes.iter().filter(|whole| **whole < key.as_slice()).count();
        let equal = wholes.get(below).is_some_and(|whole| *whole == key.as_slice());
        assert_eq!(leaf.lower_bound(known, key), Ok((below, equal)), "{key:?}");
        assert_eq!(leaf.find(known, key), Ok(equal.then_some(below)), "{key:?}");
        leaf_lookup(page, leaf, known, key);
    }
    for (index, &(key, value)) in entries.iter().enumerate() {
        assert_eq!(leaf.key(index), Ok(key));
        let inline = match value {
            LeafValue::Inline(value) if key.long.is_none() => Some((key.bytes, value)),
            _ => None,
        };
        assert_eq!(leaf.inline_entry(index), inline);
    }
}

fn children_of(branch: Branch<'_>) -> Option<Vec<Child>> {
    let child = |index| {
        let mut sep = PageKeyBuf::default();
        branch.separator_into(index, &mut sep).ok()?;
        Some(Child { sep, ptr: branch.child(index).ok()? })
    };
    (0..branch.count()).map(child).collect()
}

fn decode_branch(page: &[u8], branch: Branch<'_>, probes: &[Vec<u8>]) {
    let verified = branch.verify().is_ok();
    let id = PageId(layout::get_u48(page, layout::ID));
    let mut separator = PageKeyBuf::default();
    for index in 0..branch.count().min(64) {
        let _child = branch.child(index);
        if branch.separator_into(index, &mut separator).is_ok() {
            branch_lookup(page, branch, &Zeros, &separator.bytes);
        }
    }
    probes.iter().for_each(|key| branch_lookup(page, branch, &Zeros, key));
    if verified {
        let children = children_of(branch).expect("a branch that verifies has all its children");
        if children.iter().all(|child| child.sep.long.is_none()) {
            search_branch(page, branch, &Known::default(), &children, probes);
        }
        let mut again = vec![0xee; page.len()];
        let built = branch::build(&mut again, PageStamp { id, ..STAMP }, branch.level(), &children);
        let possible = children.iter().all(|child| child.sep.bytes.len() <= max_inline_key_bytes(page.len()));
        assert!(built == Ok(true) || (built == Ok(false) && !possible), "what is in a page fits a page: {built:?}");
        if built == Ok(true) {
            let built = Branch::parse(&again, id).expect("a branch that was built");
            assert_eq!(built.verify(), Ok(()));
            assert_eq!((children_of(built), built.level()), (Some(children), branch.level()));
        }
    }
}

/// FIND-1: if the fast lookup answers, its answer is that of `Branch`.
fn branch_lookup<K: WholeKeys>(page: &[u8], branch: Branch<'_>, keys: &K, key: &[u8])
where
    K::Error: std::fmt::Debug,
{
    let level = usize::from(branch.level());
    let found = branch.find(keys, key);
    // Other code refuses pointers to the meta pages.
    if let Some((answer, _)) = lookup::testing::branch(page, level, key).filter(|(answer, _)| answer.id.0 >= 2) {
        assert_eq!(branch.child(found.expect("answered, so it finds")), Ok(answer), "{key:?}");
    }
}

/// Compares each search in a sound branch with a scan of all separators.
fn search_branch(page: &[u8], branch: Branch<'_>, known: &Known, children: &[Child], probes: &[Vec<u8>]) {
    let wholes: Vec<&[u8]> = children.iter().map(|child| known.whole(&child.sep.as_key())).collect();
    let some = wholes.iter().step_by(1 + children.len() / 32).copied();
    for key in around(some).iter().chain(probes) {
        let not_above = wholes.iter().skip(1).filter(|whole| **whole <= key.as_slice()).count();
        assert_eq!(branch.find(known, key), Ok(not_above), "{key:?}");
        branch_lookup(page, branch, known, key);
    }
}

/// A value that owns its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Owned {
    Inline(Vec<u8>),
    Overflow(OverflowPtr),
}

impl Owned {
    fn read(input: &mut Input<'_>, page_size: usize) -> Owned {
        let kind = input.byte();
        match kind % 8 {
            0 => Owned::Overflow(OverflowPtr {
                ptr: PagePtr { id: PageId(2 + input.u32() as u64 % (MAX_U48 - 1)), crc: input.u32() as u32 },
                len: (input.u32() as u64) << (kind >> 3) & MAX_VALUE_BYTES,
            }),
            1 => Owned::Inline(filled(kind, input.u16() % (max_inline_value_bytes(page_size) + 1))),
            _ => Owned::Inline(filled(kind, usize::from(kind >> 3))),
        }
    }

    fn value(&self) -> LeafValue<'_> {
        match self {
            Owned::Inline(value) => LeafValue::Inline(value),
            Owned::Overflow(ptr) => LeafValue::Overflow(*ptr),
        }
    }
}

/// A key that is long now and then. A long one begins with the key that the input has.
fn page_key(input: &mut Input<'_>, prefix: &[u8], page_size: usize, known: &mut Known) -> PageKeyBuf {
    let key = input.key_with_prefix(prefix, max_inline_key_bytes(page_size));
    let what = input.byte();
    match what % 8 {
        0 => {
            let bytes = long_keys::inline_bytes(page_size) + 1 + input.u16() % (long_keys::BYTES_MAX - page_size);
            known.add([key.as_slice(), &filled(what, bytes)].concat(), page_size)
        }
        _ => PageKeyBuf::from(key),
    }
}

/// Changes a leaf entry by entry, and builds another one from all entries. Both must hold the
/// entries.
fn leaf_of_entries(input: &mut Input<'_>, page_size: usize) {
    let prefix = input.prefix();
    let mut page = vec![0xee; page_size];
    let mut leaf = LeafMut::init(&mut page, STAMP);
    let (mut known, mut model) = (Known::default(), BTreeMap::<Vec<u8>, (PageKeyBuf, Owned)>::new());
    while !input.is_empty() {
        let what = input.byte();
        let key = page_key(input, &prefix, page_size, &mut known);
        let whole = known.whole(&key.as_key()).to_vec();
        let (at, found) = leaf.as_leaf().lower_bound(&known, &whole).expect("a sound leaf");
        assert_eq!((at, found), (model.range(..whole.clone()).count(), model.contains_key(&whole)));
        match (what % 4, found) {
            (0, true) => {
                leaf.remove(at).expect("a sound leaf");
                model.remove(&whole);
            }
            (0, false) => {}
            (_, found) => {
                let value = Owned::read(input, page_size);
                let done = if found { leaf.replace(at, value.value()) } else { leaf.insert(at, &key, value.value()) };
                if done.expect("a sound leaf") {
                    match model.get_mut(&whole) {
                        Some((_, old)) => *old = value,
                        None => drop(model.insert(whole, (key, value))),
                    }
                }
            }
        }
    }
    let entries: Vec<Entry<'_>> = model.values().map(|(key, value)| (key.as_key(), value.value())).collect();
    let mut built = vec![0xee; page_size];
    let fits = leaf::build(&mut built, STAMP, entries.iter().copied());
    assert_eq!(fits, Ok(true), "what is in a page fits a page");
    for page in [&page, &built] {
        let leaf = Leaf::parse(page, ID).expect("a sound leaf");
        assert_eq!(leaf.verify(), Ok(()));
        let decoded: Vec<Entry<'_>> = (0..leaf.count()).map_while(|index| leaf.entry(index).ok()).collect();
        assert_eq!(decoded, entries);
        search_leaf(page, leaf, &known, &entries, &[]);
    }
}

/// Builds a branch, and changes it child by child. It must hold the children.
fn branch_of_children(input: &mut Input<'_>, page_size: usize) {
    let level = 1 + input.byte() % 31;
    let prefix = input.prefix();
    let pointer = |input: &mut Input<'_>| PagePtr { id: PageId(2 + input.u32() as u64), crc: input.u32() as u32 };
    let (mut known, mut separators) = (Known::default(), BTreeMap::<Vec<u8>, Child>::new());
    for _ in 0..input.byte() {
        let sep = page_key(input, &prefix, page_size, &mut known);
        separators.insert(known.whole(&sep.as_key()).to_vec(), Child { sep, ptr: pointer(input) });
    }
    separators.remove(&vec![]);
    let mut children = vec![Child { sep: PageKeyBuf::default(), ptr: pointer(input) }];
    children.extend(separators.into_values());
    let mut page = vec![0xee; page_size];
    while branch::build(&mut page, STAMP, level, &children) == Ok(false) {
        assert!(
            branch::built_bytes(page_size, crate::page::order::Order::Bytewise, &children) > page_size
                && children.len() > 3,
            "three always fit"
        );
        children.truncate(children.len() / 2 + 1);
    }
    let mut branch = BranchMut::open(&mut page, ID).expect("a sound branch");
    while !input.is_empty() {
        let what = input.byte();
        let key = page_key(input, &prefix, page_size, &mut known);
        let whole = known.whole(&key.as_key());
        let at = branch.as_branch().find(&known, whole).expect("a sound branch");
        match what % 4 {
            0 if at > 0 && children.len() > 1 => {
                branch.remove(at).expect("a sound branch");
                children.remove(at);
            }
            1 if children.len() > 1 => {
                branch.remove_first().expect("a sound branch");
                children.remove(0);
                children[0].sep.clear();
            }
            2 => {
                children[at].ptr = pointer(input);
                branch.set_child(at, children[at].ptr).expect("a sound branch");
            }
            _ if !whole.is_empty() && known.whole(&children[at].sep.as_key()) != whole => {
                let ptr = pointer(input);
                if branch.insert(at + 1, &key, ptr).expect("a sound branch") {
                    children.insert(at + 1, Child { sep: key, ptr });
                }
            }
            _ => {}
        }
    }
    let branch = Branch::parse(&page, ID).expect("a sound branch");
    assert_eq!(branch.verify(), Ok(()));
    assert_eq!((children_of(branch).as_ref(), branch.level()), (Some(&children), level));
    search_branch(&page, branch, &known, &children, &[]);
}

//! Leaves against a sorted `Vec` of entries.

use proptest::prelude::*;

use super::*;
use crate::ids::PageId;
use crate::limits::{max_inline_key_bytes, max_inline_value_bytes};
use crate::page::header::PageStamp;
use crate::page::key::NoLongKeys;
use crate::page::tests::{any_key, key_set, ptr, ID, STAMP};

/// An owned value: inline bytes, or a pointer.
#[derive(Clone, PartialEq, Debug)]
enum Value {
    Inline(Vec<u8>),
    Overflow(OverflowPtr),
}

impl Value {
    fn stored(&self) -> LeafValue<'_> {
        match self {
            Value::Inline(bytes) => LeafValue::Inline(bytes),
            Value::Overflow(to) => LeafValue::Overflow(*to),
        }
    }
}

type Model = Vec<(Vec<u8>, Value)>;

fn any_value(max_bytes: usize) -> impl Strategy<Value = Value> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::Inline),
        1 => (0..=max_bytes, any::<u8>()).prop_map(|(len, byte)| Value::Inline(vec![byte; len])),
        1 => (2u64..1 << 48, 0u64..1 << 40).prop_map(|(id, len)| Value::Overflow(OverflowPtr { ptr: ptr(id), len })),
    ]
}

fn model_bytes(model: &Model) -> usize {
    model.iter().map(|(key, value)| entry_size(key, value.stored())).sum()
}

/// Checks that the page is sound and has exactly the entries of the model, and that searches find
/// what the model finds.
fn check(leaf: Leaf<'_>, model: &Model, probes: &[Vec<u8>]) {
    assert_eq!(leaf.verify(), Ok(()));
    assert_eq!((leaf.count(), leaf.used_bytes()), (model.len(), model_bytes(model)));
    assert_eq!(leaf.free_bytes(), leaf.page().len() - 32 - model_bytes(model));
    for (index, (key, value)) in model.iter().enumerate() {
        assert_eq!(leaf.entry(index), Ok((PageKey::from(key), value.stored())));
        assert_eq!(leaf.entry_bytes(index), Ok(entry_size(key, value.stored())));
    }
    assert_eq!(leaf.first_key().ok(), model.first().map(|(key, _)| PageKey::from(key)));
    assert_eq!(leaf.last_key().ok(), model.last().map(|(key, _)| PageKey::from(key)));
    for probe in probes.iter().chain(model.iter().map(|(key, _)| key)) {
        let expected = model.binary_search_by(|(key, _)| key.cmp(probe));
        assert_eq!(leaf.find(&NoLongKeys, probe), Ok(expected.ok()), "find {probe:?}");
        let bound = expected.map_or_else(|at| (at, false), |at| (at, true));
        assert_eq!(leaf.lower_bound(&NoLongKeys, probe), Ok(bound), "lower bound of {probe:?}");
    }
}

fn ascending_addresses(leaf: Leaf<'_>) -> bool {
    (1..leaf.count()).all(|index| leaf.slot(index - 1) < leaf.slot(index))
}

/// Longest common prefix of all keys, by brute force.
fn shared(model: &Model) -> usize {
    let first = model.first().map_or(&[][..], |(key, _)| key);
    (0..=first.len()).rev().find(|len| model.iter().all(|(key, _)| key.starts_with(&first[..*len]))).unwrap_or(0)
}

/// Inserts or replaces; the page must refuse exactly if there is no room.
fn put(leaf: &mut LeafMut<'_>, model: &mut Model, key: Vec<u8>, value: Value) {
    let room = leaf.as_leaf().page().len() - 32 - model_bytes(model);
    let before = leaf.as_leaf().page().to_vec();
    let fitted = match model.binary_search_by(|(at, _)| at.cmp(&key)) {
        Ok(at) => {
            let old = entry_size(&key, model[at].1.stored());
            let fits = entry_size(&key, value.stored()) <= room + old;
            assert_eq!(leaf.replace(at, value.stored()), Ok(fits));
            if fits {
                model[at].1 = value;
            }
            fits
        }
        Err(at) => {
            let fits = entry_size(&key, value.stored()) <= room;
            assert_eq!(leaf.insert(at, &key, value.stored()), Ok(fits));
            if fits {
                model.insert(at, (key, value));
            }
            fits
        }
    };
    assert!(fitted || leaf.as_leaf().page() == before, "a refused change leaves the page untouched");
}

fn apply(page_size: usize, ops: Vec<(Vec<u8>, Option<Value>)>, probes: &[Vec<u8>], cut: prop::sample::Index) {
    let mut page = vec![0xee; page_size];
    let mut model = Model::new();
    let mut leaf = LeafMut::init(&mut page, STAMP);
    for (step, (key, value)) in ops.into_iter().enumerate() {
        match value {
            Some(value) => put(&mut leaf, &mut model, key, value),
            None if model.is_empty() => assert!(leaf.remove(0).is_err()),
            None => {
                let at = model.partition_point(|(at, _)| *at < key).min(model.len() - 1);
                assert_eq!(leaf.remove(at), Ok(()));
                model.remove(at);
            }
        }
        if step % 5 == 0 {
            check(leaf.as_leaf(), &model, probes);
        }
    }
    check(leaf.as_leaf(), &model, probes);
    // Parse again: check the header, not the fields of `LeafMut`.
    let reread = Leaf::parse(&page, ID).unwrap();
    check(reread, &model, probes);

    let cut = cut.index(model.len() + 1);
    for range in [0..cut, cut..model.len()] {
        let part = model[range.clone()].to_vec();
        let other = PageId(ID.0 + 1);
        let mut built = vec![0x11; page_size];
        let entries = part.iter().map(|(key, value)| (key.as_slice(), value.stored()));
        assert_eq!(build(&mut built, PageStamp { id: other, ..STAMP }, entries), Ok(true));
        let copied = Leaf::parse(&built, other).unwrap();
        check(copied, &part, probes);
        assert!(ascending_addresses(copied));
        assert_eq!(copied.prefix_bytes(), shared(&part));
    }
}

fn any_ops(page_size: usize, most: usize) -> impl Strategy<Value = Vec<(Vec<u8>, Option<Value>)>> {
    let value = prop::option::weighted(0.75, any_value(max_inline_value_bytes(page_size)));
    prop::collection::vec((any_key(max_inline_key_bytes(page_size)), value), 0..most)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_leaf_of_4k_agrees_with_a_vec(ops in any_ops(4096, 150), probes in prop::collection::vec(any_key(1000), 0..20), cut: prop::sample::Index) {
        apply(4096, ops, &probes, cut);
    }

    #[test]
    fn a_leaf_of_32k_agrees_with_a_vec(ops in any_ops(32768, 400), probes in prop::collection::vec(any_key(8168), 0..10), cut: prop::sample::Index) {
        apply(32768, ops, &probes, cut);
    }

    #[test]
    fn a_built_leaf_finds_its_keys_and_no_others(keys in key_set(1000, 400), probes in prop::collection::vec(any_key(1000), 0..40), large: bool) {
        let page_size = if large { 32768 } else { 4096 };
        let model: Model = keys.into_iter().map(|key| (key, Value::Inline(vec![1]))).collect();
        let mut page = vec![0xee; page_size];
        let entries = model.iter().map(|(key, value)| (key.as_slice(), value.stored()));
        let fits = model_bytes(&model) <= page_size - 32;
        prop_assert_eq!(build(&mut page, STAMP, entries), Ok(fits));
        if fits {
            check(Leaf::parse(&page, ID).unwrap(), &model, &probes);
        } else {
            prop_assert!(page.iter().all(|byte| *byte == 0xee), "a refused change leaves the page untouched");
        }
    }
}

#[test]
fn keys_with_equal_heads_are_told_apart() {
    // All heads are equal after the prefix, so only whole keys tell them apart.
    let keys: Vec<Vec<u8>> = (0..30).map(|zeros| [b"a".to_vec(), vec![0; zeros]].concat()).collect();
    for skipped in [0, 1, 2, 7] {
        let model: Model =
            keys.iter().skip(skipped).step_by(2).map(|k| (k.clone(), Value::Inline(k.clone()))).collect();
        let mut page = vec![0; 4096];
        build(&mut page, STAMP, model.iter().map(|(k, v)| (k.as_slice(), v.stored()))).unwrap();
        let probes = [keys.clone(), vec![vec![], vec![0], vec![b'a', 1], vec![b'b'], vec![0xff; 50]]].concat();
        check(Leaf::parse(&page, ID).unwrap(), &model, &probes);
    }
}

#[test]
fn an_inserted_key_shortens_the_prefix_only_to_the_bytes_that_it_shares() {
    let mut page = vec![0; 4096];
    let mut leaf = LeafMut::init(&mut page, STAMP);
    for (key, prefix_bytes) in [("user:0010", 9), ("user:0011", 8), ("user:0001", 7), ("user:0012", 7), ("us", 2)] {
        let (at, _) = leaf.as_leaf().lower_bound(&NoLongKeys, key.as_bytes()).unwrap();
        assert_eq!(leaf.insert(at, key.as_bytes(), LeafValue::Inline(b"")), Ok(true));
        assert_eq!(leaf.as_leaf().prefix_bytes(), prefix_bytes, "{key}");
        assert_eq!(leaf.as_leaf().verify(), Ok(()));
    }
    for _ in 0..5 {
        leaf.remove(0).unwrap();
    }
    leaf.insert(0, b"other", LeafValue::Inline(b"")).unwrap();
    assert_eq!(leaf.as_leaf().prefix_bytes(), 5, "an empty leaf starts again");
}

#[test]
fn entries_that_do_not_fit_and_indexes_past_the_end_are_refused() {
    let mut page = vec![0; 32768];
    let mut leaf = LeafMut::init(&mut page, STAMP);
    assert_eq!(leaf.insert(0, &vec![1; 16384], LeafValue::Inline(b"")), Ok(false), "longer than 14 bits");
    assert_eq!(leaf.insert(0, b"", LeafValue::Inline(&vec![1; 32768 - 42])), Ok(true), "fills the page");
    assert_eq!(leaf.insert(1, b"k", LeafValue::Inline(b"")), Ok(false));
    assert_eq!(leaf.insert(2, b"k", LeafValue::Inline(b"")).unwrap_err().field, "entry index");
    assert_eq!(leaf.remove(1).unwrap_err().field, "entry index");
    assert_eq!(leaf.as_leaf().verify(), Ok(()));
}

#[test]
fn value_kinds_that_point_elsewhere_need_a_pointer() {
    let mut page = vec![0; 4096];
    LeafMut::init(&mut page, STAMP).insert(0, b"key", LeafValue::Inline(b"value")).unwrap();
    let at = 4096 - 12 + 1;
    page[at] = 2 << 6;
    let leaf = Leaf::parse(&page, ID).unwrap();
    assert_eq!(leaf.find(&NoLongKeys, b"key"), Ok(Some(0)));
    assert_eq!(leaf.value(0), Ok(LeafValue::Set(b"value")));
    page[at] = 3 << 6;
    let error = Leaf::parse(&page, ID).unwrap().value(0).unwrap_err();
    assert_eq!((error.field, error.found), ("length of the pointer to a value tree", 5));
    page[at] = 1 << 6;
    assert_eq!(Leaf::parse(&page, ID).unwrap().value(0).unwrap_err().field, "overflow pointer length");
}

#[test]
fn verify_names_the_damaged_field() {
    let mut good = vec![0; 4096];
    let keys: [&[u8]; 3] = [b"key-a-long", b"key-b-long", b"key-c-long"];
    build(&mut good, STAMP, keys.iter().map(|key| (*key, LeafValue::Inline(b"v")))).unwrap();
    let upper = Leaf::parse(&good, ID).unwrap().upper();
    for (at, flip, field) in [
        (8, 1, "prefix length"),
        (8, 0x40, "prefix length"),
        (32, 1, "head"),
        (44, 1, "entry length"),
        (upper + 15 + 4, 1, "order of keys at entry"),
        (upper + 15 + 8, 3, "order of keys at entry"),
    ] {
        let mut page = good.clone();
        page[at] ^= flip;
        let error = Leaf::parse(&page, ID).unwrap().verify().unwrap_err();
        assert_eq!((error.page, error.field), (ID, field), "byte {at}");
    }
}

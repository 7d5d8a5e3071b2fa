//! Steps of multimaps: of values of any size, of 8 and of 24 bytes. Few keys have many values, so
//! that value sets become value trees and the other way round.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Range};

use mapleaf::WriteTxn;
use proptest::collection::vec;
use proptest::prelude::*;

use super::KeyOf;
use crate::kinds::{pair_value, same_pairs, Bytes, Pairs, PairsTable, SIZES};

/// The numbers of multimaps.
pub(super) const MULTIS: Range<u8> = 4..7;

/// For each number the size of its values, if they have one, and the pairs.
pub(super) type Multis = BTreeMap<u8, (Option<usize>, Pairs)>;

/// The name of a multimap.
pub(super) fn name_of(number: u8) -> String {
    format!("multi {number}")
}

#[derive(Clone, Debug)]
pub(super) enum PairOp {
    /// Inserts this many values, from this number on.
    Insert(KeyOf, u16, u8),
    Remove(KeyOf, u16),
    /// Removes this many values of the key with this index, from a number on.
    RemoveSome(u16, u16, u8),
    RemoveAll(KeyOf),
    /// Removes all of the key with this index.
    RemoveAllAt(u16),
    RemoveRange(KeyOf, KeyOf),
    Clear,
    /// Loads this many values of each key, in order or as they come, by one of two ways.
    Load(Vec<KeyOf>, u16, u16, u8),
    Append(KeyOf, u16),
    /// Reads the values of the key with this index between two numbers, from both ends.
    Values(u16, u16, u16),
    Contains(KeyOf, u16),
    /// Compares all of it.
    Compare,
}

fn any_pair_key() -> impl Strategy<Value = KeyOf> {
    let nasty = prop_oneof![Just(0u8), Just(0xff), Just(b'a')];
    prop_oneof![
        4 => (0..8u16).prop_map(KeyOf::Number),
        2 => (0..200u16).prop_map(KeyOf::Text),
        2 => (nasty.clone(), 0..4u16, 0..3u8).prop_map(|(byte, count, tail)| KeyOf::Repeated(byte, count, tail)),
        1 => (nasty.clone(), 0..2u8, 0..4u8).prop_map(|(byte, less, tail)| KeyOf::Limit(byte, less, tail)),
        1 => (nasty, 0..4u8, 0..3u8).prop_map(|(byte, len, tail)| KeyOf::Long(byte, len, tail)),
    ]
}

pub(super) fn any_pair_op() -> impl Strategy<Value = PairOp> {
    let number = || 0..6000u16;
    prop_oneof![
        9 => (any_pair_key(), number(), 1..200u8).prop_map(|(key, first, count)| PairOp::Insert(key, first, count)),
        2 => (any_pair_key(), number()).prop_map(|(key, number)| PairOp::Remove(key, number)),
        6 => (any::<u16>(), number(), 1..255u8).prop_map(|(at, first, count)| PairOp::RemoveSome(at, first, count)),
        1 => any_pair_key().prop_map(PairOp::RemoveAll),
        1 => any::<u16>().prop_map(PairOp::RemoveAllAt),
        1 => (any_pair_key(), any_pair_key()).prop_map(|(a, b)| PairOp::RemoveRange(a, b)),
        1 => Just(PairOp::Clear),
        3 => (vec(any_pair_key(), 1..5), number(), 1..1500u16, any::<u8>())
            .prop_map(|(keys, first, count, way)| PairOp::Load(keys, first, count, way)),
        2 => (any_pair_key(), number()).prop_map(|(key, number)| PairOp::Append(key, number)),
        3 => (any::<u16>(), number(), number()).prop_map(|(at, low, high)| PairOp::Values(at, low, high)),
        2 => (any_pair_key(), number()).prop_map(|(key, number)| PairOp::Contains(key, number)),
        2 => Just(PairOp::Compare),
    ]
}

/// Opens a multimap, which is made if it does not exist, and its model.
pub(super) fn open<'t, 'm>(
    txn: &'t WriteTxn,
    multis: &'m mut Multis,
    t: u8,
) -> (PairsTable<'t>, &'m mut (Option<usize>, Pairs)) {
    let fresh = || (SIZES[usize::from(t - MULTIS.start)], Pairs::new());
    let model = multis.entry(t).or_insert_with(fresh);
    (txn.create_multi_table(&name_of(t), "bytes", "bytes", model.0).expect("a multimap"), model)
}

/// Makes steps of one multimap. `limit` is the longest key that lies in its page.
pub(super) fn steps(txn: &WriteTxn, multis: &mut Multis, t: u8, ops: &[PairOp], limit: usize) {
    let (mut table, (size, pairs)) = open(txn, multis, t);
    ops.iter().for_each(|op| step(&mut table, *size, pairs, op, limit));
}

/// One step of a multimap, and what is stored with the table after it.
pub(super) fn step(table: &mut PairsTable<'_>, size: Option<usize>, pairs: &mut Pairs, op: &PairOp, limit: usize) {
    let page_size = (limit + 24) * 4;
    let value = |number: u16| pair_value(u64::from(number), size, page_size);
    let at = |pairs: &Pairs, at: u16| pairs.keys().nth(usize::from(at) % pairs.len().max(1)).cloned();
    match op {
        PairOp::Insert(key, first, count) => {
            let key = key.bytes(limit);
            let values = pairs.entry(key.clone()).or_default();
            for number in *first..first + u16::from(*count) {
                let is_new = table.insert(&key, &value(number)).expect("inserted");
                assert_eq!(is_new, values.insert(value(number)), "value {number}");
            }
        }
        PairOp::Remove(key, number) => remove(table, pairs, &key.bytes(limit), &value(*number)),
        PairOp::RemoveSome(index, first, count) => {
            let Some(key) = at(pairs, *index) else { return };
            let some: Vec<Bytes> = pairs[&key].range(value(*first)..).take(usize::from(*count)).cloned().collect();
            some.iter().for_each(|value| remove(table, pairs, &key, value));
        }
        PairOp::RemoveAll(key) => remove_all(table, pairs, &key.bytes(limit)),
        PairOp::RemoveAllAt(index) => at(pairs, *index).iter().for_each(|key| remove_all(table, pairs, key)),
        PairOp::RemoveRange(a, b) => {
            let (a, b) = (a.bytes(limit), b.bytes(limit));
            let (low, high) = if a <= b { (a, b) } else { (b, a) };
            let before = count(pairs);
            pairs.retain(|key, _| *key < low || *key >= high);
            let removed = table.remove_range(low.as_slice()..high.as_slice()).expect("removed");
            assert_eq!(removed, before - count(pairs));
        }
        PairOp::Clear => {
            assert_eq!(table.clear().expect("cleared"), count(pairs));
            pairs.clear();
        }
        PairOp::Load(keys, first, many, way) => {
            let keys = keys.iter().map(|key| key.bytes(limit));
            let mut given: Vec<(Bytes, Bytes)> =
                keys.flat_map(|key| (0..*many).map(move |more| (key.clone(), value(first + more)))).collect();
            if way % 2 == 0 {
                given.sort();
            }
            let slices = given.iter().map(|(key, value)| (&key[..], &value[..]));
            let new = if way % 4 < 2 { table.load(slices) } else { table.insert_all(slices) };
            let is_new = |(key, value)| pairs.entry(key).or_default().insert(value);
            assert_eq!(new.expect("stored"), given.into_iter().map(is_new).filter(|&is_new| is_new).count() as u64);
        }
        PairOp::Append(key, number) => {
            let (key, value) = (key.bytes(limit), value(*number));
            let last = pairs.last_key_value().and_then(|(key, values)| Some((key, values.last()?)));
            let fits = last.is_none_or(|last| last < (&key, &value));
            assert_eq!(table.append(&key, &value).is_ok(), fits);
            if fits {
                pairs.entry(key).or_default().insert(value);
            }
        }
        PairOp::Values(index, low, high) => {
            let Some(key) = at(pairs, *index) else { return };
            values(table, &key, &pairs[&key], value(*low.min(high)), value(*low.max(high)));
        }
        PairOp::Contains(key, number) => {
            let (key, value) = (key.bytes(limit), value(*number));
            let values = pairs.get(&key);
            let has = values.is_some_and(|values| values.contains(&value));
            assert_eq!(table.contains(&key, &value).expect("looked up"), has);
            assert_eq!(table.contains_key(&key).expect("looked up"), values.is_some());
            assert_eq!(table.count(&key).expect("a count"), values.map_or(0, BTreeSet::len) as u64);
        }
        PairOp::Compare => same_pairs(&**table, pairs),
    }
    pairs.retain(|_, values| !values.is_empty());
    assert_eq!((table.len(), table.key_count()), (count(pairs), pairs.len() as u64), "after {op:?}");
    let own = |(key, value): (&[u8], &[u8])| (key.to_vec(), value.to_vec());
    let first = pairs.first_key_value().and_then(|(key, values)| Some((key.clone(), values.first()?.clone())));
    let last = pairs.last_key_value().and_then(|(key, values)| Some((key.clone(), values.last()?.clone())));
    assert!(table.first().expect("first").map(own) == first && table.last().expect("last").map(own) == last);
}

/// Number of all pairs.
fn count(pairs: &Pairs) -> u64 {
    pairs.values().map(BTreeSet::len).sum::<usize>() as u64
}

fn remove(table: &mut PairsTable<'_>, pairs: &mut Pairs, key: &Bytes, value: &Bytes) {
    let had = pairs.get_mut(key).is_some_and(|values| values.remove(value));
    assert_eq!(table.remove(key, value).expect("removed"), had);
}

fn remove_all(table: &mut PairsTable<'_>, pairs: &mut Pairs, key: &Bytes) {
    let count = pairs.remove(key).map_or(0, |values| values.len());
    assert_eq!(table.remove_all(key).expect("removed"), count as u64);
}

/// The values of a key between two, in both directions and from both ends by turns.
fn values(table: &PairsTable<'_>, key: &[u8], model: &BTreeSet<Bytes>, low: Bytes, high: Bytes) {
    let (low, high) = if low <= high { (low, high) } else { (high, low) };
    let bounds = (Bound::Included(low.as_slice()), Bound::Included(high.as_slice()));
    let found = || table.values_range(key, bounds).expect("values").map(|value| value.expect("a value"));
    let expected = || model.range::<[u8], _>(bounds).map(Vec::as_slice);
    assert!(found().eq(expected()), "values forwards");
    assert!(found().rev().eq(expected().rev()), "values backwards");
    let (mut found, mut expected) = (found(), expected());
    while let Some(value) = expected.next() {
        assert_eq!((found.next(), found.next_back()), (Some(value), expected.next_back()));
    }
    assert!(found.next().is_none() && found.next_back().is_none());
}

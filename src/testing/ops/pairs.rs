//! Steps of multimaps, with values of any size and of two fixed ones. Keys are few, so that many
//! values come together and value sets become value trees. Floor: testing.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Result;
use crate::table::{MultiTableMut, ReadMultiTable, ReadableMultiTable};
use crate::testing::input::Input;
use crate::txn::write::shared::WriteTxn;

/// Names of multimaps, and the size of their values if they have one.
pub(super) const MULTIS: [(&str, Option<usize>); 3] = [("ferns", None), ("grasses", Some(8)), ("herbs", Some(24))];

pub(super) type Pairs = BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>;
pub(super) type Multis = BTreeMap<&'static str, Pairs>;
type Table<'t> = MultiTableMut<'t, &'static [u8], &'static [u8]>;

/// A value with a number. Those of any size are sometimes empty, or as long as a value may be.
fn value(number: usize, size: Option<usize>, max: usize) -> Vec<u8> {
    let mut value = (number as u64).to_be_bytes().to_vec();
    match size {
        Some(size) => value.resize(size, number as u8),
        None if number == 0 => value.clear(),
        None if number.is_multiple_of(101) => value.resize(max, b'v'),
        None => value.resize(8 + number % 30, b'v'),
    }
    value
}

/// One of few keys, short or long.
fn key(input: &mut Input<'_>, max: usize) -> Vec<u8> {
    match input.byte() % 32 {
        0 => super::key(input, max),
        1 => vec![b'k'; max],
        2 => vec![b'k'; max + 1],
        few => vec![few % 6],
    }
}

fn count(pairs: &Pairs) -> u64 {
    pairs.values().map(BTreeSet::len).sum::<usize>() as u64
}

/// One step of a multimap.
pub(super) fn step(txn: &mut WriteTxn, multis: &mut Multis, input: &mut Input<'_>, max: usize) -> Result<()> {
    let (name, size) = MULTIS[usize::from(input.byte()) % MULTIS.len()];
    let (what, key, number) = (input.byte(), key(input, max), input.u16() % 8000);
    let mut table = txn.create_multi_table(name, "bytes", "bytes", size)?;
    let pairs = multis.entry(name).or_default();
    match what % 24 {
        0..=4 => {
            let values = pairs.get(&key).into_iter().flatten();
            let some: Vec<Vec<u8>> = values.skip(number % 64).take(usize::from(input.byte())).cloned().collect();
            for value in &some {
                assert!(table.remove(&key, value)?);
                assert!(pairs.get_mut(&key).is_some_and(|values| values.remove(value)));
            }
        }
        5 => {
            let removed = pairs.remove(&key).map_or(0, |values| values.len());
            assert_eq!(table.remove_all(&key)?, removed as u64);
        }
        6 => remove_range(&mut table, pairs, key, self::key(input, max))?,
        7 if number.is_multiple_of(4) => {
            assert_eq!(table.clear()?, count(pairs));
            pairs.clear();
        }
        8..=10 => {
            let (other, many, way) = (self::key(input, max), usize::from(input.byte()) * 8, input.byte());
            let keys = if way & 4 == 0 { vec![key.clone()] } else { vec![key.clone(), other] };
            let mut given: Vec<(Vec<u8>, Vec<u8>)> = (number..number + many)
                .flat_map(|number| keys.iter().map(move |key| (key.clone(), value(number, size, max))))
                .collect();
            if way & 1 == 0 {
                given.sort();
            }
            let slices = given.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
            let new = if way & 2 == 0 { table.load(slices)? } else { table.insert_all(slices)? };
            let is_new = |(key, value)| pairs.entry(key).or_default().insert(value);
            assert_eq!(new, given.into_iter().map(is_new).filter(|&is_new| is_new).count() as u64);
        }
        11 => {
            let value = value(number, size, max);
            let last = pairs.last_key_value().and_then(|(key, values)| Some((key, values.last()?)));
            let fits = last.is_none_or(|last| last < (&key, &value));
            assert_eq!(table.append(&key, &value).is_ok(), fits);
            if fits {
                pairs.entry(key.clone()).or_default().insert(value);
            }
        }
        12 | 13 => read(&table, pairs, &key, [value(number, size, max), value(input.u16() % 8000, size, max)])?,
        _ => {
            for number in number..number + 1 + usize::from(input.byte()) {
                let value = value(number, size, max);
                assert_eq!(table.insert(&key, &value)?, pairs.entry(key.clone()).or_default().insert(value));
            }
        }
    }
    pairs.retain(|_, values| !values.is_empty());
    assert_eq!((table.len(), table.key_count()), (count(pairs), pairs.len() as u64));
    Ok(())
}

fn remove_range(table: &mut Table<'_>, pairs: &mut Pairs, a: Vec<u8>, b: Vec<u8>) -> Result<()> {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    let before = count(pairs);
    pairs.retain(|key, _| *key < low || *key >= high);
    assert_eq!(table.remove_range(low.as_slice()..high.as_slice())?, before - count(pairs));
    Ok(())
}

/// What a key has: how many values, one of them, and those between two, from both ends by turns.
fn read(table: &Table<'_>, pairs: &Pairs, key: &[u8], [a, b]: [Vec<u8>; 2]) -> Result<()> {
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    let nothing = BTreeSet::new();
    let values = pairs.get(key).unwrap_or(&nothing);
    assert_eq!(table.count(key)?, values.len() as u64);
    assert_eq!(table.contains(key, &low)?, values.contains(&low));
    let mut found = table.values_range(key, low.as_slice()..=high.as_slice())?;
    let mut expected = values.range(low..=high).map(Vec::as_slice);
    loop {
        let (front, back) = (found.next().transpose()?, found.next_back().transpose()?);
        assert_eq!((front, back), (expected.next(), expected.next_back()));
        if front.is_none() || back.is_none() {
            return Ok(());
        }
    }
}

/// Compares all pairs with the model, in both directions, and the count of some keys.
pub(super) fn compare(table: &ReadMultiTable<&'static [u8], &'static [u8]>, pairs: &Pairs) -> Result<()> {
    assert_eq!((ReadableMultiTable::len(table), table.key_count()), (count(pairs), pairs.len() as u64));
    let all = || pairs.iter().flat_map(|(key, values)| values.iter().map(move |value| (&key[..], &value[..])));
    let found = table.iter().collect::<Result<Vec<_>>>()?;
    assert!(found.into_iter().eq(all()), "{} differs forwards", table.name());
    let found = table.iter().rev().collect::<Result<Vec<_>>>()?;
    assert!(found.into_iter().eq(all().rev()), "{} differs backwards", table.name());
    for (key, values) in pairs.iter().step_by(1 + pairs.len() / 8) {
        assert_eq!(table.count(key)?, values.len() as u64);
        assert!(table.values(key)?.rev().collect::<Result<Vec<_>>>()?.into_iter().eq(values.iter().rev()));
    }
    Ok(())
}

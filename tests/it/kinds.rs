//! Tables of all kinds with their model: tables of single values, multimaps of values of any size
//! and of two fixed sizes, all with short and long keys. A name may be dropped and made again with
//! another kind.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use mapleaf::{MultiTableMut, ReadMultiTable, ReadTxn, ReadableMultiTable, ReadableTable, Result, TableMut, WriteTxn};

use crate::support::{bytes, Rng};

pub(crate) type Bytes = Vec<u8>;
pub(crate) type Rows = BTreeMap<Bytes, Bytes>;
pub(crate) type Pairs = BTreeMap<Bytes, BTreeSet<Bytes>>;
pub(crate) type BytesTable<'t> = TableMut<'t, &'static [u8], &'static [u8]>;
pub(crate) type PairsTable<'t> = MultiTableMut<'t, &'static [u8], &'static [u8]>;

/// What a table holds. A multimap has the size of its values, or `None`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Contents {
    Single(Rows),
    Multi(Option<usize>, Pairs),
}

/// All tables by name.
pub(crate) type State = BTreeMap<String, Contents>;

const NAMES: [&str; 5] = ["apples", "birches", "cedars", "elms", "firs"];

/// Values of a multimap that have one size.
pub(crate) const SIZES: [Option<usize>; 3] = [None, Some(8), Some(24)];

/// The longest key and value that a page of this size keeps.
pub(crate) fn inline_limit(page_size: usize) -> usize {
    page_size / 4 - 24
}

/// A key: short, around the limit of a page, or long. Many long ones differ only at their end.
pub(crate) fn key(rng: &mut Rng, page_size: usize) -> Bytes {
    let limit = inline_limit(page_size);
    let at_end = |len: usize, last: u64| {
        let mut key = vec![b'k'; len];
        key[len - 1] = b'0' + last as u8;
        key
    };
    match rng.below(10) {
        0 => at_end(limit - rng.below(2) as usize, rng.below(3)),
        1 => at_end([limit + 1, 2 * limit, 65_536][rng.below(3) as usize], rng.below(4)),
        2 => {
            let mut key = vec![b'l'; limit + 1 + rng.below(9) as usize];
            key[rng.below(8) as usize] = b'0' + rng.below(9) as u8;
            key
        }
        3 => Bytes::new(),
        _ => format!("key {:03}", rng.below(30)).into_bytes(),
    }
}

/// A value of a multimap. With `None`, a few are as long as a value may be, or empty.
pub(crate) fn pair_value(number: u64, size: Option<usize>, page_size: usize) -> Bytes {
    match size {
        Some(8) => number.to_be_bytes().to_vec(),
        Some(size) => {
            let mut value = vec![number as u8; size];
            value[..4].copy_from_slice(&(number as u32).to_be_bytes());
            value
        }
        None if number == 0 => Bytes::new(),
        None => {
            let mut value = (number as u32).to_be_bytes().to_vec();
            let len = if number.is_multiple_of(97) { inline_limit(page_size) } else { 4 + number as usize % 40 };
            value.resize(len, b'v');
            value
        }
    }
}

/// A value of a table of single values: nothing, a little, about the limit of a page, many pages.
pub(crate) fn row_value(rng: &mut Rng, page_size: usize) -> Bytes {
    let len = match rng.below(20) {
        0 => page_size + rng.below(3 * page_size as u64) as usize,
        1 => inline_limit(page_size) - 1 + rng.below(3) as usize,
        2 => 0,
        _ => rng.below(150) as usize,
    };
    bytes(rng.next(), len)
}

/// Makes one change to a table of any kind, in the transaction and in the model.
pub(crate) fn change(txn: &mut WriteTxn, state: &mut State, rng: &mut Rng, page_size: usize) {
    let name = NAMES[rng.below(5) as usize];
    match rng.below(40) {
        0 => assert_eq!(txn.drop_table(name).expect("dropped"), state.remove(name).is_some(), "{name}"),
        1 => {
            let to = NAMES[rng.below(5) as usize];
            let possible = state.contains_key(name) && (name == to || !state.contains_key(to));
            assert_eq!(txn.rename_table(name, to).is_ok(), possible, "{name} to {to}");
            if possible {
                let contents = state.remove(name).expect("there");
                state.insert(to.to_string(), contents);
            }
        }
        _ => {
            let kind = rng.below(4) as usize;
            let fresh = || match kind.checked_sub(1) {
                None => Contents::Single(Rows::new()),
                Some(size) => Contents::Multi(SIZES[size], Pairs::new()),
            };
            match state.entry(name.to_string()).or_insert_with(fresh) {
                Contents::Single(rows) => {
                    change_rows(&mut txn.bytes_table(name).expect("a table"), rows, rng, page_size);
                }
                Contents::Multi(size, pairs) => {
                    let mut table = txn.create_multi_table(name, "bytes", "bytes", *size).expect("a multimap");
                    change_pairs(&mut table, *size, pairs, rng, page_size);
                }
            }
        }
    }
}

/// A key of the model, or any.
fn near<V>(model: &BTreeMap<Bytes, V>, rng: &mut Rng, page_size: usize) -> Bytes {
    let any = key(rng, page_size);
    match rng.below(3) {
        0 => any,
        _ => model.range(any.clone()..).next().map_or(any, |(key, _)| key.clone()),
    }
}

/// Two keys in order.
fn ends<V>(model: &BTreeMap<Bytes, V>, rng: &mut Rng, page_size: usize) -> (Bytes, Bytes) {
    let (a, b) = (near(model, rng, page_size), near(model, rng, page_size));
    if a <= b {
        (a, b)
    } else {
        (b, a)
    }
}

/// Makes one change to a table of single values.
pub(crate) fn change_rows(table: &mut BytesTable<'_>, rows: &mut Rows, rng: &mut Rng, page_size: usize) {
    let at = near(rows, rng, page_size);
    match rng.below(24) {
        0..=5 => assert!(table.remove(&at).expect("removed") == rows.remove(&at), "the old value"),
        6 => {
            let (low, high) = ends(rows, rng, page_size);
            let before = rows.len();
            rows.retain(|key, _| *key < low || *key >= high);
            let removed = table.remove_range(low.as_slice()..high.as_slice()).expect("removed");
            assert_eq!(removed, (before - rows.len()) as u64);
        }
        7 if rng.below(3) == 0 => {
            assert_eq!(table.clear().expect("cleared"), rows.len() as u64);
            rows.clear();
        }
        8 | 9 => {
            let mut entries: Vec<_> =
                (0..rng.below(120)).map(|_| (key(rng, page_size), row_value(rng, page_size))).collect();
            if rng.below(2) == 0 {
                entries.sort();
            }
            let given = entries.iter().map(|(key, value)| (&key[..], &value[..]));
            match rng.below(2) {
                0 => drop(table.load(given).expect("loaded")),
                _ => drop(table.put_all(given).expect("put")),
            }
            rows.extend(entries);
        }
        10 | 11 => {
            let value = row_value(rng, page_size);
            let stored = table.entry(&at).expect("an entry").or_insert(&value).expect("stored");
            assert!(stored == rows.entry(at).or_insert(value).as_slice(), "the value of an entry");
        }
        12 => {
            let value = row_value(rng, page_size);
            let entry = table.entry(&at).expect("an entry").and_modify(|_| &value).expect("changed");
            assert!(entry.or_insert(b"new").is_ok());
            rows.entry(at).and_modify(|old| old.clone_from(&value)).or_insert_with(|| b"new".to_vec());
        }
        _ => {
            let value = row_value(rng, page_size);
            assert!(table.insert(&at, &value).expect("inserted") == rows.insert(at, value), "the old value");
        }
    }
    assert_eq!(table.len(), rows.len() as u64);
}

/// Makes one change to a multimap.
pub(crate) fn change_pairs(
    table: &mut PairsTable<'_>,
    size: Option<usize>,
    pairs: &mut Pairs,
    rng: &mut Rng,
    page_size: usize,
) {
    let (at, number) = (near(pairs, rng, page_size), rng.below(6000));
    let value = |number: u64| pair_value(number, size, page_size);
    match rng.below(24) {
        0..=5 => {
            // Several values that the key has, from one on.
            let values = pairs.entry(at.clone()).or_default();
            let some: Vec<Bytes> = values.range(value(number)..).take(1 + rng.below(90) as usize).cloned().collect();
            for value in some.iter().chain([&value(number)]) {
                assert_eq!(table.remove(&at, value).expect("removed"), values.remove(value));
            }
        }
        6 => {
            let count = table.remove_all(&at).expect("removed");
            assert_eq!(count, pairs.remove(&at).map_or(0, |values| values.len() as u64));
        }
        7 => {
            let (low, high) = ends(pairs, rng, page_size);
            let before: usize = pairs.values().map(BTreeSet::len).sum();
            pairs.retain(|key, _| *key < low || *key >= high);
            let removed = table.remove_range(low.as_slice()..high.as_slice()).expect("removed");
            assert_eq!(removed, (before - pairs.values().map(BTreeSet::len).sum::<usize>()) as u64);
        }
        8 if rng.below(3) == 0 => {
            let all: usize = pairs.values().map(BTreeSet::len).sum();
            assert_eq!(table.clear().expect("cleared"), all as u64);
            pairs.clear();
        }
        9..=11 => {
            // Many pairs of a few keys, in order or not, before or after all others.
            let keys: Vec<Bytes> = (0..1 + rng.below(3)).map(|_| key(rng, page_size)).collect();
            let count = [20, 300, 1500][rng.below(3) as usize];
            let mut given: Vec<(Bytes, Bytes)> = (0..count)
                .map(|_| (keys[rng.below(keys.len() as u64) as usize].clone(), value(rng.below(6000))))
                .collect();
            if rng.below(3) > 0 {
                given.sort();
                given.dedup();
            }
            let slices = given.iter().map(|(key, value)| (&key[..], &value[..]));
            let new = if rng.below(2) == 0 { table.load(slices) } else { table.insert_all(slices) };
            let is_new = |(key, value)| pairs.entry(key).or_default().insert(value);
            let expected = given.into_iter().map(is_new).filter(|&is_new| is_new).count();
            assert_eq!(new.expect("stored"), expected as u64);
        }
        12 => {
            let greatest = pairs.last_key_value().and_then(|(key, values)| Some((key, values.last()?)));
            let fits = greatest.is_none_or(|last| last < (&at, &value(number)));
            assert_eq!(table.append(&at, &value(number)).is_ok(), fits);
            if fits {
                pairs.entry(at.clone()).or_default().insert(value(number));
            }
        }
        _ => {
            for more in 0..1 + rng.below(60) {
                let is_new = table.insert(&at, &value(number + more)).expect("inserted");
                assert_eq!(is_new, pairs.entry(at.clone()).or_default().insert(value(number + more)));
            }
        }
    }
    pairs.retain(|_, values| !values.is_empty());
    assert_eq!(table.key_count(), pairs.len() as u64);
    assert_eq!(table.len(), pairs.values().map(BTreeSet::len).sum::<usize>() as u64);
    assert_eq!(table.count(&at).expect("a count"), pairs.get(&at).map_or(0, BTreeSet::len) as u64);
}

/// Compares a table of single values with its model.
#[track_caller]
pub(crate) fn same_rows(table: &impl ReadableTable<&'static [u8], &'static [u8]>, rows: &Rows) {
    assert_eq!(table.len(), rows.len() as u64, "entries of {}", table.name());
    let expected = rows.iter().map(|(key, value)| (&key[..], &value[..]));
    assert!(table.iter().map(|entry| entry.expect("an entry")).eq(expected.clone()), "{} forwards", table.name());
    assert!(table.iter().rev().map(|entry| entry.expect("an entry")).eq(expected.rev()), "{} backwards", table.name());
    for (key, value) in rows.iter().step_by(1 + rows.len() / 16) {
        assert!(table.get(key).expect("get") == Some(&value[..]));
        let longer = [&key[..], b"0"].concat();
        if longer.len() <= mapleaf::MAX_KEY_BYTES {
            assert!(table.get(&longer).expect("get") == rows.get(&longer).map(Vec::as_slice));
        }
    }
}

/// Compares a multimap with its model, from both ends.
#[track_caller]
pub(crate) fn same_pairs(table: &impl ReadableMultiTable<&'static [u8], &'static [u8]>, pairs: &Pairs) {
    let all = || pairs.iter().flat_map(|(key, values)| values.iter().map(move |value| (&key[..], &value[..])));
    assert_eq!((table.len(), table.key_count()), (all().count() as u64, pairs.len() as u64), "{}", table.name());
    assert!(table.iter().map(|pair| pair.expect("a pair")).eq(all()), "{} forwards", table.name());
    assert!(table.iter().rev().map(|pair| pair.expect("a pair")).eq(all().rev()), "{} backwards", table.name());
    for (key, values) in pairs.iter().step_by(1 + pairs.len() / 12) {
        assert_eq!(table.count(key).expect("a count"), values.len() as u64);
        let found: Result<Vec<&[u8]>> = table.values(key).expect("values").collect();
        assert!(found.expect("values").into_iter().eq(values.iter().map(Vec::as_slice)), "values forwards");
        let found: Result<Vec<&[u8]>> = table.values(key).expect("values").rev().collect();
        assert!(found.expect("values").into_iter().eq(values.iter().rev().map(Vec::as_slice)), "values backwards");
        let middle = values.iter().nth(values.len() / 2).expect("a value");
        assert!(table.contains(key, middle).expect("looked up"));
        // The values between two bounds, from both ends by turns.
        let bounds = (Bound::Excluded(middle.as_slice()), Bound::Unbounded);
        let mut above = table.values_range(key, bounds).expect("values");
        let mut expected = values.range::<[u8], _>(bounds);
        loop {
            let (front, back) = (above.next(), above.next_back());
            assert_eq!(front.map(|value| value.expect("a value")), expected.next().map(Vec::as_slice));
            assert_eq!(back.map(|value| value.expect("a value")), expected.next_back().map(Vec::as_slice));
            if expected.clone().next().is_none() {
                assert!(above.next().is_none() && above.next_back().is_none());
                break;
            }
        }
    }
}

/// Compares owned pairs, and the owned values of each key, from both ends by turns.
#[track_caller]
pub(crate) fn same_owned(table: &ReadMultiTable<&'static [u8], &'static [u8]>, pairs: &Pairs) {
    let all: Vec<(Bytes, Bytes)> =
        pairs.iter().flat_map(|(key, values)| values.iter().map(|value| (key.clone(), value.clone()))).collect();
    let ends = [pairs.keys().nth(pairs.len() / 4), pairs.keys().nth(pairs.len() / 2)];
    by_turns(table.range_owned(..).expect("a range"), all.iter().cloned());
    if let [Some(low), Some(high)] = ends {
        let inside = all.iter().filter(|(key, _)| low <= key && key <= high).cloned().collect::<Vec<_>>();
        by_turns(table.range_owned(&low[..]..=&high[..]).expect("a range"), inside.into_iter());
        by_turns(table.values_owned(low).expect("values"), pairs[low].iter().cloned());
        let longest = pairs.iter().max_by_key(|(_, values)| values.len()).expect("a key");
        by_turns(table.values_owned(longest.0).expect("values"), longest.1.iter().cloned());
    }
}

/// Compares two iterators: two items from the front, one from the back, and so on.
fn by_turns<T: PartialEq>(
    mut found: impl DoubleEndedIterator<Item = Result<T>>,
    mut expected: impl DoubleEndedIterator<Item = T>,
) {
    for turn in 0.. {
        let (found, expected) = match turn % 3 {
            2 => (found.next_back(), expected.next_back()),
            _ => (found.next(), expected.next()),
        };
        let found = found.map(|item| item.expect("an item"));
        assert!(found == expected, "item {turn} from both ends by turns");
        if found.is_none() {
            break;
        }
    }
    assert!(found.next().is_none() && found.next_back().is_none());
}

/// Compares everything that a read transaction sees with the model.
#[track_caller]
pub(crate) fn assert_holds(txn: &ReadTxn, state: &State) {
    let names: Vec<_> = txn.tables().expect("tables").into_iter().map(|table| table.name).collect();
    assert!(names.iter().eq(state.keys()), "{names:?}");
    for (name, contents) in state {
        match contents {
            Contents::Single(rows) => same_rows(&txn.bytes_table(name).expect("a table"), rows),
            Contents::Multi(_, pairs) => {
                let table = txn.multi_bytes_table(name).expect("a multimap");
                same_pairs(&table, pairs);
                same_owned(&table, pairs);
            }
        }
    }
}

/// Compares everything that a write transaction sees with the model.
#[track_caller]
pub(crate) fn assert_sees(txn: &WriteTxn, state: &State) {
    let names: Vec<_> = txn.tables().expect("tables").into_iter().map(|table| table.name).collect();
    assert!(names.iter().eq(state.keys()), "{names:?}");
    for (name, contents) in state {
        match contents {
            Contents::Single(rows) => same_rows(&*txn.bytes_table(name).expect("a table"), rows),
            Contents::Multi(_, pairs) => same_pairs(&*txn.multi_bytes_table(name).expect("a multimap"), pairs),
        }
    }
}

/// The state that a transaction sees, as it reads it.
pub(crate) fn read(txn: &ReadTxn) -> Result<State> {
    let mut state = State::new();
    for info in txn.tables()? {
        let contents = match info.is_multimap {
            false => {
                let table = txn.bytes_table(&info.name)?;
                let rows: Result<Rows> =
                    table.iter().map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect();
                Contents::Single(rows?)
            }
            true => {
                let (table, mut pairs) = (txn.multi_bytes_table(&info.name)?, Pairs::new());
                for pair in table.iter() {
                    let (key, value) = pair?;
                    pairs.entry(key.to_vec()).or_default().insert(value.to_vec());
                }
                Contents::Multi(info.value_bytes, pairs)
            }
        };
        state.insert(info.name, contents);
    }
    Ok(state)
}

//! Changes of many entries, pops and cursors that write, compared with a map after every step:
//! ranges, retain, extract_if, clear, merge_from, with all page sizes, in memory and in files, over
//! commits, aborts, reopening and replays of the log. Some keys are long.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::panic::{catch_unwind, AssertUnwindSafe};

use mapleaf::testing::{set_mutant, Mutant};
use mapleaf::{CursorMut, Db, Durability, ErrorKind, Options, Position, Result, Table, TableMut};

use crate::support::{bytes, long, mix, seed, Rng, TestDb, BYTES};

type Key = Vec<u8>;
type Model = BTreeMap<Key, Vec<u8>>;
type Handle<'t> = TableMut<'t, &'static [u8], &'static [u8]>;
type Cursor<'h, 't> = CursorMut<'h, 't, &'static [u8], &'static [u8]>;

/// A position in the model.
#[derive(Clone, Debug)]
enum Place {
    Start,
    At(Key),
    End,
}

fn key(rng: &mut Rng, page_size: u64) -> Key {
    match rng.below(11) {
        0 => Vec::new(),
        10 => long_key(rng, page_size),
        1..=4 => format!("user:{:08}:name", rng.below(3000)).into_bytes(),
        5 | 6 => (rng.below(4000) as u16).to_be_bytes().to_vec(),
        7 => vec![b'k'; rng.below(page_size / 4 - 24) as usize],
        _ => bytes(rng.below(700), 1 + rng.below(page_size / 4 - 24) as usize),
    }
}

/// A key that lies in an overflow extent. Many differ only in their last byte.
fn long_key(rng: &mut Rng, page_size: u64) -> Key {
    let lengths = [page_size / 4 - 23, page_size / 2, 2 * page_size, 60_001, 65_536];
    let mut key = vec![b'l'; lengths[rng.below(5) as usize] as usize];
    if let Some(last) = key.last_mut() {
        *last = rng.next() as u8;
    }
    if rng.below(3) == 0 {
        key[rng.below(4) as usize] = rng.next() as u8;
    }
    key
}

fn value(rng: &mut Rng, page_size: u64) -> Vec<u8> {
    let len = match rng.below(40) {
        0 => page_size / 4 + rng.below(4 * page_size),
        1..=8 => rng.below(page_size / 4 - 23),
        _ => rng.below(120),
    };
    bytes(rng.next(), len as usize)
}

fn some_key(model: &Model, rng: &mut Rng, page_size: u64) -> Key {
    let count = model.len() as u64;
    match rng.below(4) {
        0 => key(rng, page_size),
        _ => model.keys().nth(rng.below(count.max(1)) as usize).cloned().unwrap_or_default(),
    }
}

fn bounds(model: &Model, rng: &mut Rng, page_size: u64) -> (Bound<Key>, Bound<Key>) {
    let (a, b) = (some_key(model, rng, page_size), some_key(model, rng, page_size));
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    let mut bound = |key: Key| match rng.below(5) {
        0 => Bound::Unbounded,
        1 | 2 => Bound::Excluded(key),
        _ => Bound::Included(key),
    };
    (bound(low), bound(high))
}

fn slices((low, high): &(Bound<Key>, Bound<Key>)) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (low.as_ref().map(Vec::as_slice), high.as_ref().map(Vec::as_slice))
}

fn inside(range: &(Bound<Key>, Bound<Key>), key: &[u8]) -> bool {
    std::ops::RangeBounds::<[u8]>::contains(&slices(range), key)
}

fn same(table: &Handle<'_>, model: &Model) {
    assert_eq!(table.len(), model.len() as u64);
    let entries = table.iter().map(|entry| entry.expect("an entry"));
    assert!(entries.eq(model.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))), "the entries");
}

/// One change of many entries, or a pop of several.
fn change(table: &mut Handle<'_>, model: &mut Model, rng: &mut Rng, page_size: u64) -> Result<()> {
    let range = bounds(model, rng, page_size);
    let (salt, one_of) = (rng.next(), 1 + rng.below(9));
    let invert = rng.below(2) == 0;
    let hit = |key: &[u8]| {
        let mixed = mix(salt ^ key.iter().fold(1, |hash, &byte| mix(hash ^ u64::from(byte))));
        mixed.is_multiple_of(one_of) != invert
    };
    match rng.below(12) {
        0 => {
            let before = model.len();
            model.retain(|key, _| !inside(&range, key));
            assert_eq!(table.remove_range(slices(&range))?, (before - model.len()) as u64);
        }
        1 if rng.below(4) == 0 => {
            assert_eq!(table.clear()?, model.len() as u64);
            model.clear();
        }
        1 | 2 => {
            let before = model.len();
            model.retain(|key, _| !hit(key));
            assert_eq!(table.retain(|key, _| !hit(key))?, (before - model.len()) as u64);
        }
        3 => {
            let before = model.len();
            model.retain(|key, _| !inside(&range, key) || !hit(key));
            assert_eq!(table.retain_in(slices(&range), |key, _| !hit(key))?, (before - model.len()) as u64);
        }
        4 | 5 => {
            let most = rng.below(200) as usize;
            let expected: Vec<(Key, Vec<u8>)> = model
                .iter()
                .filter(|(key, _)| inside(&range, key) && hit(key))
                .take(most)
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            let found: Vec<_> =
                table.extract_if_in(slices(&range), |key, _| hit(key))?.take(most).collect::<Result<_>>()?;
            assert!(found == expected, "the extracted entries");
            found.iter().for_each(|(key, _)| drop(model.remove(key)));
        }
        6 | 7 => {
            for _ in 0..rng.below(300) {
                match rng.below(8) {
                    0 => assert_eq!(table.pop_last()?, model.pop_last()),
                    _ => assert_eq!(table.pop_first()?, model.pop_first()),
                }
            }
        }
        8 => {
            let entries: Model = (0..rng.below(400)).map(|_| (key(rng, page_size), value(rng, page_size))).collect();
            let new = entries.keys().filter(|key| !model.contains_key(*key)).count();
            let sorted = entries.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
            assert_eq!(table.merge_from(sorted)?, new as u64);
            model.extend(entries);
        }
        _ => {
            for _ in 0..rng.below(400) {
                let (key, value) = (key(rng, page_size), value(rng, page_size));
                assert_eq!(table.insert(&key, &value)?, model.insert(key, value));
            }
        }
    }
    Ok(())
}

type Found<'a> = Option<(&'a [u8], &'a [u8])>;

fn after<'m>(model: &'m Model, place: &Place) -> Found<'m> {
    let low = match place {
        Place::Start => Bound::Unbounded,
        Place::At(key) => Bound::Excluded(key.as_slice()),
        Place::End => return None,
    };
    model.range::<[u8], _>((low, Bound::Unbounded)).next().map(|(key, value)| (key.as_slice(), value.as_slice()))
}

fn before<'m>(model: &'m Model, place: &Place) -> Found<'m> {
    let high = match place {
        Place::Start => return None,
        Place::At(key) => Bound::Excluded(key.as_slice()),
        Place::End => Bound::Unbounded,
    };
    model.range::<[u8], _>((Bound::Unbounded, high)).next_back().map(|(key, value)| (key.as_slice(), value.as_slice()))
}

fn moved(found: Found<'_>, otherwise: Place) -> Place {
    found.map_or(otherwise, |(key, _)| Place::At(key.to_vec()))
}

/// One step of a cursor and of the place in the model.
fn step(
    cursor: &mut Cursor<'_, '_>,
    place: &mut Place,
    model: &mut Model,
    rng: &mut Rng,
    page_size: u64,
) -> Result<()> {
    let probe = some_key(model, rng, page_size);
    let at = |model: &Model, key: &Key| model.get(key).cloned();
    match rng.below(16) {
        0..=2 => {
            let expected = after(model, place);
            assert!(cursor.next()? == expected, "next of {place:?}");
            *place = moved(expected, Place::End);
        }
        3..=5 => {
            let expected = before(model, place);
            assert!(cursor.prev()? == expected, "prev of {place:?}");
            *place = moved(expected, Place::Start);
        }
        6 => {
            assert!(cursor.seek(&probe)?.map(|(_, value)| value.to_vec()) == at(model, &probe));
            *place = Place::At(probe);
        }
        7 => {
            let expected = model.range(probe.clone()..).next().map(|(key, value)| (key.as_slice(), value.as_slice()));
            assert!(cursor.seek_at_or_after(&probe)? == expected);
            *place = moved(expected, Place::End);
        }
        8 => {
            let expected = model.range(..=probe.clone()).next_back().map(|(key, value)| (&key[..], &value[..]));
            assert!(cursor.seek_at_or_before(&probe)? == expected);
            *place = moved(expected, Place::Start);
        }
        9 if rng.below(4) == 0 => {
            let expected = after(model, &Place::Start);
            assert!(cursor.first()? == expected);
            *place = moved(expected, Place::End);
        }
        9 if rng.below(4) == 0 => {
            let expected = before(model, &Place::End);
            assert!(cursor.last()? == expected);
            *place = moved(expected, Place::Start);
        }
        9 | 10 => {
            let (next, prev) = (after(model, place), before(model, place));
            assert!(cursor.peek_next()? == next && cursor.peek_prev()? == prev, "the neighbours of {place:?}");
        }
        11 => {
            let value = value(rng, page_size);
            assert!(cursor.insert(&probe, &value)? == model.insert(probe.clone(), value));
            *place = Place::At(probe);
        }
        12 => {
            let value = value(rng, page_size);
            let entry = match place {
                Place::At(key) => model.get_mut(key),
                _ => None,
            };
            assert_eq!(cursor.replace(&value)?, entry.is_some(), "an entry at {place:?}");
            if let Some(old) = entry {
                *old = value;
            }
        }
        13 | 14 => {
            let expected = match place {
                Place::At(key) => model.remove(key),
                _ => None,
            };
            assert!(cursor.remove()? == expected, "the entry at {place:?}");
        }
        _ => {
            let expected = match place {
                Place::At(key) => model.get_key_value(key).map(|(key, value)| (key.as_slice(), value.as_slice())),
                _ => None,
            };
            assert!(cursor.current()? == expected, "the entry at {place:?}");
        }
    }
    Ok(())
}

/// A transaction of random steps. Several positions live through all of them.
fn transaction(db: &Db, model: &mut Model, rng: &mut Rng, page_size: u64) -> Result<bool> {
    let mut txn = db.begin_write()?;
    txn.set_durability(if rng.below(2) == 0 { Durability::Immediate } else { Durability::Eventual });
    let mut table = txn.table(BYTES)?;
    let mut kept: Vec<(Position, Place)> = (0..4).map(|_| (table.cursor().position(), Place::Start)).collect();
    let before = model.clone();
    for _ in 0..1 + rng.below(12) {
        if rng.below(2) == 0 {
            change(&mut table, model, rng, page_size)?;
            same(&table, model);
        }
        let (position, place) = &mut kept[rng.below(4) as usize];
        let mut cursor = table.cursor_at(position.clone());
        for _ in 0..rng.below(40) {
            step(&mut cursor, place, model, rng, page_size)?;
        }
        *position = cursor.position();
        same(&table, model);
    }
    match rng.below(5) {
        0 => {
            *model = before;
            Ok(false)
        }
        _ => txn.commit().map(|()| true),
    }
}

#[test]
fn random_edits_and_cursors_agree_with_a_map() {
    let mut rng = Rng::new(seed("random_edits_and_cursors"));
    for round in 0..6 * long() {
        let page_size = [4096, 8192, 32768][round as usize % 3];
        let options = Options::new().page_size(page_size as u32);
        for mut db in TestDb::both(&options) {
            let mut model = Model::new();
            for _ in 0..25 {
                transaction(&db, &mut model, &mut rng, page_size).expect("steps within the limits succeed");
                if rng.below(6) == 0 {
                    db.reopen();
                }
                let txn = db.begin_read().expect("begins");
                let found = txn.table(BYTES).expect("the table");
                assert!(found
                    .iter()
                    .map(|entry| entry.expect("an entry"))
                    .eq(model.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))));
                drop((found, txn));
                db.assert_clean();
            }
        }
    }
}

/// A copy of the file is opened after each commit. It replays the log.
#[test]
fn a_replay_repeats_removals_pops_and_edits_of_cursors() {
    let mut rng = Rng::new(seed("a_replay_repeats_removals"));
    let db = TestDb::file(Options::new());
    let mut model = Model::new();
    let dir = tempfile::tempdir().expect("a directory");
    for round in 0..30 {
        if !transaction(&db, &mut model, &mut rng, 4096).expect("steps within the limits succeed") {
            continue;
        }
        db.sync().expect("synced");
        let copy = dir.path().join(format!("copy {round}"));
        std::fs::copy(db.path(), &copy).expect("copied");
        let copied = Db::open_existing(&copy).expect("replays");
        let txn = copied.begin_read().expect("begins");
        let found = txn.table(BYTES).expect("the table");
        let entries = found.iter().map(|entry| entry.expect("an entry"));
        assert!(entries.eq(model.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))), "round {round}");
    }
}

/// Puts, overwrites and removals of ranges over many transactions, whose pages come and go.
fn ranges_over_reused_pages(rounds: u64, seed: u64) -> std::result::Result<(), String> {
    let db = Options::new().in_memory().expect("a database");
    let (mut rng, mut model) = (Rng::new(seed), BTreeMap::new());
    for round in 0..rounds {
        let txn = db.begin_write().expect("begins");
        let mut table = txn.table(Table::<u64, &[u8]>::new("numbers")).expect("the table");
        for _ in 0..2000 {
            let number = rng.below(6000);
            table.put(number, &bytes(number, rng.below(60) as usize)).expect("put");
            model.insert(number, ());
        }
        // In every third transaction all of it: whole branches, with leaves that it has changed.
        let (low, high) = if round % 3 == 2 { (0, 6000) } else { (rng.below(5000), 6000) };
        let expected = model.range(low..high).count() as u64;
        let removed = if low == 0 { table.clear() } else { table.remove_range(low..high) };
        let removed = removed.map_err(|e| e.to_string())?;
        model.retain(|number, ()| !(low..high).contains(number));
        if (removed, table.len()) != (expected, model.len() as u64) {
            return Err(format!("round {round}: removed {removed} entries of {expected}"));
        }
        txn.commit().map_err(|e| e.to_string())?;
        let report = db.check().expect("checks");
        if !report.is_clean() {
            return Err(format!("round {round}: {report:?}"));
        }
    }
    Ok(())
}

/// The pass has built many leaves, and nothing that it would have to remove is left when it ends.
#[test]
fn a_pass_that_ends_early_after_many_rewritten_leaves_loses_none_of_them() {
    let table = Table::<u64, &[u8]>::new("numbers");
    for leak in [false, true] {
        let db = Options::new().in_memory().expect("a database");
        db.write(|txn| txn.table(&table)?.load((0..60_000).map(|n| (n, &[7; 100][..]))).map(drop)).expect("written");
        let txn = db.begin_write().expect("begins");
        let mut numbers = txn.table(&table).expect("the table");
        let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut pass = numbers.extract_if(|n, _| match n {
                50_000 => panic!("a predicate that fails"),
                n => n < 20_000 && n % 2 == 0,
            });
            let taken = pass.by_ref().take(10_000).map(|entry| entry.expect("an entry").0).sum::<u64>();
            assert_eq!(taken, (0..10_000).map(|n| 2 * n).sum::<u64>());
            match leak {
                true => std::mem::forget(pass),
                false => drop(pass.next()),
            }
        }));
        assert_eq!(end.is_err(), !leak);
        drop(numbers);
        // A pass that was leaked may have to be aborted.
        match txn.commit() {
            Ok(()) => {
                let numbers = db.begin_read().expect("begins").table(&table).expect("the table");
                let expected = (0..60_000).filter(|n| *n >= 20_000 || n % 2 == 1);
                assert!(leak || numbers.iter().map(|entry| entry.expect("an entry").0).eq(expected));
            }
            Err(e) => assert!(leak, "{e}"),
        }
        assert!(db.check().expect("checks").is_clean());
    }
}

#[test]
fn what_is_remembered_of_leaves_counts_only_while_they_are_sealed() {
    assert_eq!(ranges_over_reused_pages(12, 7), Ok(()));
    set_mutant(Some(Mutant::StaleLeafFact));
    let found = (7..17).any(|seed| ranges_over_reused_pages(24, seed).is_err());
    set_mutant(None);
    assert!(found, "the mutant was not found");
}

const NUMBERS: Table<u64, u64> = Table::new("numbers");
const ODD: Table<u64, u64> = Table::new("odd");

#[test]
fn a_predicate_may_use_the_other_tables_of_its_transaction() {
    let db = TestDb::memory(Options::new());
    let txn = db.begin_write().expect("begins");
    let (mut numbers, mut odd) = (txn.table(NUMBERS).expect("a table"), txn.table(ODD).expect("a table"));
    numbers.put_all((0..20_000).map(|number| (number, number * number))).expect("put");
    let mut moved = |number, square| {
        if number % 2 == 1 {
            odd.append(number, square).expect("append");
        }
        number % 2 == 0
    };
    assert_eq!(numbers.retain_in(..10_000, &mut moved).expect("retain"), 5000);
    let extracted = numbers.extract_if(|number, square| !moved(number, square));
    assert_eq!(extracted.map(|entry| entry.expect("an entry").0).filter(|number| number % 2 == 1).count(), 5000);
    assert_eq!((numbers.len(), odd.len()), (10_000, 10_000));
    assert!(odd.iter().all(|entry| entry.is_ok_and(|(number, square)| number % 2 == 1 && square == number * number)));
    assert!(numbers.iter().all(|entry| entry.is_ok_and(|(number, _)| number % 2 == 0)));
    txn.commit().expect("commit");
}

#[test]
fn a_panic_of_a_predicate_leaves_a_table_that_can_be_committed() {
    let db = TestDb::memory(Options::new());
    let txn = db.begin_write().expect("begins");
    let mut numbers = txn.table(NUMBERS).expect("a table");
    numbers.put_all((0..50_000).map(|number| (number, 0))).expect("put");
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        numbers.retain(|number, _| {
            assert!(number < 30_000, "that far and no further");
            number % 3 == 0
        })
    }));
    assert!(panicked.is_err());
    let removed = 30_000 - 10_000;
    assert_eq!(numbers.len(), 50_000 - removed);
    let expected = (0..50_000).filter(|&number| number >= 30_000 || number % 3 == 0);
    assert!(numbers.iter().map(|entry| entry.expect("an entry").0).eq(expected));
    txn.commit().expect("commit");
}

#[test]
fn an_iterator_that_is_never_dropped_keeps_its_transaction_from_being_committed() {
    let db = TestDb::memory(Options::new());
    let txn = db.begin_write().expect("begins");
    let mut numbers = txn.table(NUMBERS).expect("a table");
    numbers.put_all((0..50_000).map(|number| (number, 0))).expect("put");
    let mut extracted = numbers.extract_if(|number, _| number % 2 == 0);
    assert_eq!(extracted.nth(1000).expect("an entry").expect("an entry").0, 2000);
    std::mem::forget(extracted);
    assert!(numbers
        .insert(1, 1)
        .expect_err("unfinished")
        .to_string()
        .contains("a removal of entries was not finished"));
    assert!(txn.commit().is_err());
}

#[test]
fn an_entry_that_does_not_decode_stays_and_is_reported() {
    let db = TestDb::memory(Options::new());
    let txn = db.begin_write().expect("begins");
    let mut raw = txn.create_table("numbers", "u64", "u64").expect("a table");
    for number in [1u64, 2, 3, 4] {
        let value: &[u8] = if number == 3 { b"short" } else { &[0; 8] };
        raw.insert(&number.to_be_bytes(), value).expect("insert");
    }
    drop(raw);
    let mut numbers = txn.table(NUMBERS).expect("a table");
    let e = numbers.retain(|number, _| number == 1).expect_err("an entry that does not decode");
    assert_eq!((e.kind(), numbers.len()), (ErrorKind::Decode, 3), "{e}");
    assert!(e.to_string().contains("numbers"), "{e}");
    let extracted: Vec<Result<(u64, u64)>> = numbers.extract_if(|_, _| true).collect();
    assert!(matches!(&extracted[..], [Ok((1, 0)), Err(_), Ok((4, 0))]), "{extracted:?}");
    assert_eq!((numbers.pop_first().expect_err("it stays").kind(), numbers.len()), (ErrorKind::Decode, 1));
    assert_eq!(numbers.merge_from([(5, 0), (5, 0)]).expect_err("unsorted").kind(), ErrorKind::Usage);
    assert_eq!(numbers.merge_from([(3, 7), (6, 0)]).expect("sorted"), 1);
    assert_eq!(numbers.pop_first().expect("it decodes now"), Some((3, 7)));
    txn.commit().expect("commit");
}

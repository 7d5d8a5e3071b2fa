//! Multimap tables: random changes against a map of sets, with all page sizes, through savepoints,
//! aborts, replays, copies and damage.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use mapleaf::testing::{self, set_log_shape, with_mutant, Mutant};
use mapleaf::{Db, ErrorKind, MultiTable, MultiTableMut, Options, ReadableMultiTable, Result, Table};

use crate::support::{assert_clean, long, seed, Rng, TestDb};
use crate::workload::fast_dir;

pub(crate) type Bytes = Vec<u8>;
pub(crate) type Model = BTreeMap<Bytes, BTreeSet<Bytes>>;

/// A multimap of bytes of any length, and of numbers, and of eight numbers.
const WORDS: MultiTable<&[u8], &[u8]> = MultiTable::new("words");
const NUMBERS: MultiTable<&[u8], u64> = MultiTable::new("numbers");
const PARTS: MultiTable<&[u8], (u32, [u8; 20])> = MultiTable::new("parts");
pub(crate) const NAMES: [&str; 3] = ["words", "numbers", "parts"];

/// Makes the tables with their types.
pub(crate) fn make(db: &Db) {
    let txn = db.begin_write().expect("a transaction");
    drop(txn.multi_table(WORDS).expect("words"));
    drop(txn.multi_table(NUMBERS).expect("numbers"));
    drop(txn.multi_table(PARTS).expect("parts"));
    txn.commit().expect("committed");
}

/// A value of a table.
pub(crate) fn value(table: usize, number: u64, page_size: usize) -> Bytes {
    match table {
        0 => {
            let len = match number % 11 {
                0 => 0,
                1 if number.is_multiple_of(7) => page_size / 4 - 24,
                _ => number as usize % 50,
            };
            let mut value = number.to_be_bytes()[5..].to_vec();
            value.resize(len.max(3), b'.');
            value.truncate(if len == 0 { 0 } else { len.max(3) });
            value
        }
        1 => number.to_be_bytes().to_vec(),
        _ => [&(number as u32).to_be_bytes()[..], &[number as u8; 20]].concat(),
    }
}

pub(crate) fn key(number: u64) -> Bytes {
    let mut key = format!("key{number:03}").into_bytes();
    key.resize(key.len() + if number % 5 == 2 { number as usize * 3 } else { 0 }, b'k');
    key
}

pub(crate) type BytesTable<'t> = MultiTableMut<'t, &'static [u8], &'static [u8]>;

/// One random change of a table and of its model.
pub(crate) fn step(rng: &mut Rng, table: usize, page_size: usize, open: &mut BytesTable<'_>, model: &mut Model) {
    let keys = [4, 60][rng.below(2) as usize];
    let at = key(rng.below(keys));
    let number = rng.below(8000);
    match rng.below(40) {
        0..=9 => {
            // A value that is there, if the key has one.
            let near = value(table, number, page_size);
            let there = model.get(&at).and_then(|values| values.range(near.clone()..).next().cloned()).unwrap_or(near);
            let had = open.remove(at.as_slice(), there.as_slice()).expect("removed");
            assert_eq!(had, model.get_mut(&at).is_some_and(|values| values.remove(&there)));
        }
        10 => {
            let count = open.remove_all(at.as_slice()).expect("removed");
            assert_eq!(count, model.remove(&at).map_or(0, |values| values.len() as u64));
        }
        11 if rng.below(4) == 0 => {
            let end = key(rng.below(keys));
            let (low, high) = (at.clone().min(end.clone()), at.max(end));
            let before: usize = model.values().map(BTreeSet::len).sum();
            let removed = open.remove_range(low.as_slice()..high.as_slice()).expect("removed");
            model.retain(|key, _| *key < low || *key >= high);
            assert_eq!(removed, (before - model.values().map(BTreeSet::len).sum::<usize>()) as u64);
        }
        12 if rng.below(40) == 0 => {
            let all: usize = model.values().map(BTreeSet::len).sum();
            assert_eq!(open.clear().expect("cleared"), all as u64);
            model.clear();
        }
        13 | 14 => {
            // Many pairs at once, in order or not.
            let mut pairs: Vec<(Bytes, Bytes)> = (0..rng.below(200))
                .map(|_| (key(keys + rng.below(3)), value(table, rng.below(8000), page_size)))
                .collect();
            if rng.below(2) == 0 {
                pairs.sort();
            }
            let given = pairs.iter().map(|(key, value)| (&key[..], &value[..]));
            let new = if rng.below(2) == 0 { open.load(given) } else { open.insert_all(given) }.expect("stored");
            let is_new = |(key, value)| model.entry(key).or_default().insert(value);
            assert_eq!(new, pairs.into_iter().map(is_new).filter(|&is_new| is_new).count() as u64);
        }
        _ => {
            for more in 0..1 + rng.below(30) {
                let value = value(table, number + more, page_size);
                let is_new = open.insert(&at, &value).expect("inserted");
                assert_eq!(is_new, model.entry(at.clone()).or_default().insert(value));
            }
        }
    }
    model.retain(|_, values| !values.is_empty());
}

pub(crate) fn pairs_of(model: &Model) -> Vec<(Bytes, Bytes)> {
    model.iter().flat_map(|(key, values)| values.iter().map(|value| (key.clone(), value.clone()))).collect()
}

/// Compares everything that can be read of a table with its model.
pub(crate) fn compare(table: &impl ReadableMultiTable<&'static [u8], &'static [u8]>, model: &Model, rng: &mut Rng) {
    let expected = pairs_of(model);
    assert_eq!((table.len(), table.key_count()), (expected.len() as u64, model.len() as u64), "{}", table.name());
    let own = |pair: Result<(&[u8], &[u8])>| pair.map(|(key, value)| (key.to_vec(), value.to_vec())).expect("a pair");
    assert!(table.iter().map(own).eq(expected.iter().cloned()), "{} forwards", table.name());
    assert!(table.iter().rev().map(own).eq(expected.iter().rev().cloned()), "{} backwards", table.name());
    assert_eq!(table.first().expect("first").map(|pair| own(Ok(pair))), expected.first().cloned());
    assert_eq!(table.last().expect("last").map(|pair| own(Ok(pair))), expected.last().cloned());
    for _ in 0..3 {
        let (low, high) = (key(rng.below(70)), key(rng.below(70)));
        let inside = |pair: &&(Bytes, Bytes)| low <= pair.0 && pair.0 < high;
        let found = table.range(low.as_slice()..high.as_slice()).expect("a range").map(own);
        assert!(found.eq(expected.iter().filter(inside).cloned()));
        let copied = table.range_owned(low.as_slice()..high.as_slice()).expect("a range").rev();
        assert!(copied.map(|pair| pair.expect("a pair")).eq(expected.iter().filter(inside).rev().cloned()));
        let none = BTreeSet::new();
        let values = model.get(&low).unwrap_or(&none);
        assert_eq!(table.count(low.as_slice()).expect("a count"), values.len() as u64);
        assert_eq!(table.contains_key(low.as_slice()).expect("found"), !values.is_empty());
        let found: Vec<Bytes> =
            table.values(low.as_slice()).expect("values").map(|it| it.expect("a value").to_vec()).collect();
        assert!(found.iter().eq(values.iter()));
        if let Some(middle) = found.get(found.len() / 2) {
            let bounds = (Bound::Excluded(middle.as_slice()), Bound::Unbounded);
            let above = table.values_range(low.as_slice(), bounds).expect("values").rev();
            let expected = values.range((Bound::Excluded(middle.clone()), Bound::Unbounded)).rev();
            assert!(above.map(|value| value.expect("a value")).eq(expected.map(Vec::as_slice)));
            assert!(table.contains(low.as_slice(), middle.as_slice()).expect("found"));
            let other = [middle, &b"0"[..]].concat();
            assert_eq!(table.contains(low.as_slice(), &other).expect("looked up"), values.contains(&other));
        }
    }
}

fn compare_all(db: &Db, models: &[Model; 3], rng: &mut Rng) {
    let txn = db.begin_read().expect("a transaction");
    for (name, model) in NAMES.iter().zip(models) {
        compare(&txn.multi_bytes_table(name).expect("a table"), model, rng);
    }
}

/// Opens a copy of an open file: what its log has is replayed.
pub(crate) fn replayed(db: &TestDb) -> (tempfile::TempDir, Db) {
    let dir = fast_dir();
    let copy = dir.path().join("copy.mapleaf");
    std::fs::copy(db.path(), &copy).expect("copied");
    let db = Db::open_existing(&copy).expect("replays");
    (dir, db)
}

/// A transaction of random changes, of which some are taken back.
fn change(db: &Db, models: &mut [Model; 3], rng: &mut Rng, page_size: usize) {
    let mut txn = db.begin_write().expect("a transaction");
    for _ in 0..1 + rng.below(6) {
        let table = rng.below(3) as usize;
        let goes_back = rng.below(5) == 0;
        let before = models[table].clone();
        let savepoint = goes_back.then(|| txn.savepoint().expect("a savepoint"));
        {
            let mut open = txn.multi_bytes_table(NAMES[table]).expect("a table");
            for _ in 0..1 + rng.below(12) {
                step(rng, table, page_size, &mut open, &mut models[table]);
            }
            compare(&*open, &models[table], rng);
        }
        if let Some(savepoint) = savepoint {
            txn.rollback_to(&savepoint).expect("gone back");
            models[table] = before;
            let open = txn.multi_bytes_table(NAMES[table]).expect("a table");
            compare(&*open, &models[table], rng);
        }
    }
    txn.commit().expect("committed");
}

#[test]
fn random_changes_agree_with_a_map_of_sets_with_all_page_sizes() {
    let seed = seed("multimap");
    for page_size in [4096, 8192, 16384, 32768] {
        let mut rng = Rng::new(seed + page_size as u64);
        set_log_shape(Some((0, 1 << 20)));
        let mut db = TestDb::file(Options::new().page_size(page_size as u32));
        make(&db);
        let mut models: [Model; 3] = Default::default();
        for round in 0..20 * long() {
            let before = models.clone();
            change(&db, &mut models, &mut rng, page_size);
            if rng.below(6) == 0 {
                // An aborted transaction leaves nothing.
                let txn = db.begin_write().expect("a transaction");
                let table = rng.below(3) as usize;
                let mut other = models[table].clone();
                step(
                    &mut rng,
                    table,
                    page_size,
                    &mut txn.multi_bytes_table(NAMES[table]).expect("a table"),
                    &mut other,
                );
                drop(txn);
            }
            compare_all(&db, &models, &mut rng);
            db.assert_clean();
            if round % 5 == 4 {
                let (_dir, copy) = replayed(&db);
                compare_all(&copy, &models, &mut rng);
                assert_clean(&copy);
                let compact = _dir.path().join("compact.mapleaf");
                let report = db.compact_to(&compact).expect("compacted");
                let entries: usize = models.iter().flat_map(|model| model.values()).map(BTreeSet::len).sum();
                assert_eq!(report.entries, entries as u64);
                let compact = Db::open_existing(&compact).expect("opens");
                compare_all(&compact, &models, &mut rng);
                assert_clean(&compact);
            }
            if rng.below(4) == 0 {
                db.reopen();
                compare_all(&db, &models, &mut rng);
            }
            drop(before);
        }
        set_log_shape(None);
    }
}

#[test]
fn typed_values_come_back_in_order_and_owned() {
    let db = Db::in_memory().expect("a database");
    db.write(|txn| {
        let mut numbers = txn.multi_table(NUMBERS)?;
        for number in (0..5000).rev() {
            assert!(numbers.insert(b"many", number)?);
        }
        numbers.insert_all((0..100).map(|number| (&b"few"[..], number * 7)))?;
        assert_eq!(numbers.values(b"few")?.next_back().transpose()?, Some(693));
        Ok::<_, mapleaf::Error>(())
    })
    .expect("written");
    let numbers = db.begin_read().and_then(|txn| txn.multi_table(NUMBERS)).expect("a table");
    assert!(numbers.values(b"many").expect("values").map(|it| it.expect("a number")).eq(0..5000));
    let mut owned = numbers.values_owned(b"many").expect("values");
    let (mut low, mut high) = (0, 5000);
    while low < high {
        if low % 3 == 0 {
            high -= 1;
            assert_eq!(owned.next_back().expect("a value").expect("read"), high);
            if low == high {
                break;
            }
        }
        assert_eq!(owned.next().expect("a value").expect("read"), low);
        low += 1;
    }
    assert!(owned.next().is_none() && owned.next_back().is_none());
    let pairs: Vec<(Bytes, u64)> = numbers.range_owned(..).expect("a range").map(|it| it.expect("a pair")).collect();
    let borrowed: Vec<(Bytes, u64)> =
        numbers.iter().map(|it| it.map(|(key, value)| (key.to_vec(), value)).expect("a pair")).collect();
    assert_eq!((pairs.len(), pairs), (5100, borrowed));
    std::thread::spawn(move || assert_eq!(numbers.count(b"few").expect("a count"), 100)).join().expect("no panic");
}

#[test]
fn a_table_of_another_kind_is_refused_by_name_with_the_remedy() {
    let db = Db::in_memory().expect("a database");
    let plain: Table<&[u8], u64> = Table::new("plain");
    db.write(|txn| {
        txn.table(&plain)?.insert(b"a", 1)?;
        txn.multi_table(NUMBERS)?.insert(b"a", 1)
    })
    .expect("written");
    let txn = db.begin_write().expect("a transaction");
    let read = db.begin_read().expect("a transaction");
    let as_plain: Table<&[u8], u64> = Table::new("numbers");
    let as_multi: MultiTable<&[u8], u64> = MultiTable::new("plain");
    let as_words: MultiTable<&[u8], &[u8]> = MultiTable::new("numbers");
    let as_other: MultiTable<&[u8], i64> = MultiTable::new("numbers");
    let of_multi = ["'numbers' is a multimap table", "as a table", "open it with multi_table"];
    let of_plain = ["'plain' is a table", "as a multimap table", "open it with table"];
    let refused: [(Option<mapleaf::Error>, &[&str]); 9] = [
        (txn.table(&as_plain).err(), &of_multi),
        (txn.read_table(&as_plain).err(), &of_multi),
        (txn.bytes_table("numbers").err(), &["'numbers' is a multimap table", "multi_bytes_table"]),
        (read.table(&as_plain).err(), &of_multi),
        (read.bytes_table("numbers").err(), &["'numbers' is a multimap table", "multi_bytes_table"]),
        (txn.multi_table(&as_multi).err(), &of_plain),
        (read.multi_table(&as_multi).err(), &of_plain),
        (
            txn.multi_table(&as_words).err(),
            &["'numbers' is a multimap table of values of 8 bytes", "as a multimap table"],
        ),
        (read.multi_table(&as_other).err(), &["'numbers' was made as <bytes, u64>", "<bytes, i64>"]),
    ];
    for (number, (error, texts)) in refused.into_iter().enumerate() {
        let error = error.unwrap_or_else(|| panic!("{number} was not refused"));
        assert_eq!(error.kind(), ErrorKind::Usage);
        let text = error.to_string();
        assert!(texts.iter().all(|part| text.contains(part)), "{number}: {text}");
    }
    let too_long: MultiTable<u8, [u8; 1001]> = MultiTable::new("too long");
    let text = txn.multi_table(&too_long).expect_err("too long").to_string();
    assert!(text.contains("1001") && text.contains("1000"), "{text}");
    let mut words = txn.multi_table(WORDS).expect("a table");
    let text = words.insert(b"a", &[0; 1001]).expect_err("too long").to_string();
    assert!(text.contains("1001") && text.contains("1000"), "{text}");
    words.insert(b"a", &[0; 1000]).expect("fits");
    let mut bytes = txn.multi_bytes_table("numbers").expect("a table");
    let text = bytes.insert(b"a", b"four").expect_err("of another size").to_string();
    assert!(text.contains("4 bytes") && text.contains("has 8"), "{text}");
    assert_eq!((bytes.len(), words.len()), (1, 1));
    assert_eq!(
        txn.table_info("numbers").expect("info").map(|it| (it.is_multimap, it.value_bytes)),
        Some((true, Some(8)))
    );
}

/// A database with value trees of all kinds, whose changes of one transaction touch them again.
fn with_trees() -> TestDb {
    let db = TestDb::file(Options::new());
    make(&db);
    for round in 0..2u64 {
        let txn = db.begin_write().expect("a transaction");
        for (table, name) in NAMES.iter().enumerate() {
            let mut open = txn.multi_bytes_table(name).expect("a table");
            for number in (0..6000).filter(|number| number % 2 == round) {
                open.insert(&key(number % 3), &value(table, number, 4096)).expect("inserted");
            }
        }
        txn.commit().expect("committed");
    }
    db
}

#[test]
fn dropping_and_clearing_tables_frees_their_value_trees() {
    let db = with_trees();
    let used = |db: &Db| {
        let report = db.check().expect("a check");
        assert!(report.is_clean(), "{:?}", report.findings);
        report.reachable_pages
    };
    let before = used(&db);
    db.write(|txn| txn.multi_table(WORDS)?.clear()).expect("cleared");
    let without_words = used(&db);
    db.write(|txn| txn.multi_table(NUMBERS)?.remove_range(key(1).as_slice()..)).expect("removed");
    let without_two_keys = used(&db);
    db.write(|txn| txn.drop_table("parts")).expect("dropped");
    let at_last = used(&db);
    assert!(before > without_words + 20 && without_words > without_two_keys + 5 && without_two_keys > at_last + 10);
}

#[test]
fn a_value_tree_forgotten_in_seal_is_found() {
    with_mutant(Some(Mutant::ValueTreeUnsealed), || {
        let db = with_trees_unchecked();
        let read = db.begin_read().and_then(|txn| {
            let table = txn.multi_bytes_table("numbers")?;
            table.iter().collect::<Result<Vec<_>>>().map(|pairs| pairs.len())
        });
        let report = db.check().expect("a check");
        assert!(read.is_err() || !report.is_clean(), "nothing was found");
    });
}

/// Like [`with_trees`], without a check at the end.
fn with_trees_unchecked() -> Db {
    let db = Options::new().in_memory().expect("a database");
    make(&db);
    db.write(|txn| {
        let mut numbers = txn.multi_table(NUMBERS)?;
        (0..3000).try_for_each(|number| numbers.insert(b"key", number).map(drop))
    })
    .expect("written");
    db
}

#[test]
fn a_value_tree_forgotten_in_check_is_found() {
    let db = with_trees_unchecked();
    assert!(db.check().expect("a check").is_clean());
    with_mutant(Some(Mutant::ValueTreeUnchecked), || {
        let report = db.check().expect("a check");
        assert!(report.findings.iter().any(|it| it.what.contains("neither in use nor free")), "{:?}", report.findings);
    });
}

#[test]
fn a_value_tree_forgotten_in_free_is_found() {
    let db = with_trees_unchecked();
    with_mutant(Some(Mutant::ValueTreeNotFreed), || {
        db.write(|txn| txn.multi_table(NUMBERS)?.clear()).expect("cleared");
    });
    let report = db.check().expect("a check");
    assert!(report.findings.iter().any(|it| it.what.contains("neither in use nor free")), "{:?}", report.findings);
}

/// Every page of a file is destroyed in turn: a check finds it, reading it is an error or gives the
/// right values, and salvage returns no pair that was not there.
#[test]
fn each_damaged_page_is_found_and_salvage_returns_the_other_pairs() {
    let dir = fast_dir();
    let (path, out) = (dir.path().join("made.mapleaf"), dir.path().join("out.mapleaf"));
    let mut models: [Model; 3] = Default::default();
    set_log_shape(Some((u64::MAX, 0)));
    {
        let db = Db::open(&path).expect("made");
        make(&db);
        let txn = db.begin_write().expect("a transaction");
        for (table, name) in NAMES.iter().enumerate() {
            let mut open = txn.multi_bytes_table(name).expect("a table");
            for number in 0..1500 {
                let (key, value) = (key(if number % 4 == 0 { number % 60 } else { 7 }), value(table, number, 4096));
                open.insert(&key, &value).expect("inserted");
                models[table].entry(key).or_default().insert(value);
            }
        }
        txn.commit().expect("committed");
    }
    set_log_shape(None);
    let whole = std::fs::read(&path).expect("the file");
    let mut partly = 0;
    for page in 2..whole.len() / 4096 {
        let mut damaged = whole.clone();
        damaged[page * 4096 + 100..][..50].iter_mut().for_each(|byte| *byte ^= 0x55);
        std::fs::write(&path, &damaged).expect("written");
        if let Ok(db) = Db::open_existing(&path) {
            let report = db.check().expect("a check");
            let is_used = !report.is_clean();
            let txn = db.begin_read().expect("a transaction");
            for (name, model) in NAMES.iter().zip(&models) {
                let Ok(table) = txn.multi_bytes_table(name) else { continue };
                let read: Result<Vec<_>> =
                    table.iter().map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect();
                match read {
                    Ok(pairs) => assert_eq!(pairs, pairs_of(model), "page {page}"),
                    Err(e) => assert!(is_used && e.kind() == ErrorKind::Corrupt, "page {page}: {e}"),
                }
            }
        }
        drop(std::fs::remove_file(&out));
        if Db::salvage(&path, &out).is_err() {
            continue;
        }
        let db = Db::open_existing(&out).expect("opens");
        assert_clean(&db);
        let txn = db.begin_read().expect("a transaction");
        for (name, model) in NAMES.iter().zip(&models) {
            let Ok(table) = txn.multi_bytes_table(name) else { continue };
            let mut found = 0;
            for pair in table.iter() {
                let (key, value) = pair.expect("a pair");
                assert!(model.get(key).is_some_and(|values| values.contains(value)), "page {page}");
                found += 1;
            }
            partly += usize::from(found > 0 && found < pairs_of(model).len());
        }
    }
    assert!(partly > 5, "salvage rescued parts of tables: {partly}");
}

#[test]
fn a_load_that_is_not_finished_ends_the_transaction() {
    let db = Db::in_memory().expect("a database");
    let txn = db.begin_write().expect("a transaction");
    let mut numbers = txn.multi_table(NUMBERS).expect("a table");
    numbers.loader().expect("a loader").push(b"a", 1).expect("taken");
    let text = numbers.insert(b"b", 1).expect_err("ended").to_string();
    assert!(text.contains("a load was not finished"), "{text}");
    drop(numbers);
    assert!(txn.commit().is_err());
    assert_clean(&db);
    // A pair of the wrong size is refused, and the load goes on.
    let txn = db.begin_write().expect("a transaction");
    drop(txn.multi_table(NUMBERS).expect("a table"));
    let mut bytes = txn.multi_bytes_table("numbers").expect("a table");
    let mut loader = bytes.loader().expect("a loader");
    assert_eq!(loader.push(b"a", b"four").expect_err("refused").kind(), ErrorKind::Usage);
    loader.push(b"a", &[1; 8]).expect("taken");
    assert_eq!(loader.finish().expect("loaded"), 1);
    drop(bytes);
    txn.commit().expect("committed");
    assert_clean(&db);
}

/// A file that never had a multimap needs no feature; one that had needs the feature for ever.
#[test]
fn only_files_with_multimaps_need_the_feature() {
    let dir = fast_dir();
    let path = dir.path().join("test.mapleaf");
    let required = |path: &std::path::Path| {
        let bytes = std::fs::read(path).expect("the file");
        [0, 4096].map(|slot| bytes[slot + 16])
    };
    let db = Db::open(&path).expect("made");
    db.write(|txn| txn.bytes_table("plain")?.insert(b"a", b"b")).expect("written");
    drop(db);
    assert_eq!(required(&path), [0, 0]);
    let db = Db::open(&path).expect("opened");
    make(&db);
    drop(db);
    assert!(required(&path).contains(&1));
    testing::set_log_shape(None);
}

/// The keys that `next_key` yields, with their values, after some pairs were taken from the end.
#[test]
fn next_key_yields_the_values_that_next_back_has_left_of_the_last_key() {
    let numbers: MultiTable<u32, u64> = MultiTable::new("numbers");
    // The values of the last key lie in its entry, or in a tree of several leaves.
    for count in [3, 4000] {
        let db = Db::in_memory().expect("a database");
        let pairs: Vec<(u32, u64)> = (1..=2).flat_map(|key| (0..count).map(move |value| (key, value))).collect();
        db.write(|txn| txn.multi_table(&numbers)?.load(pairs.iter().copied())).expect("loaded");
        let table = db.begin_read().and_then(|txn| txn.multi_table(&numbers)).expect("a table");
        for taken in [0, 1, count - 1, count, count + 1, 2 * count] {
            let mut range = table.iter();
            let back: Result<Vec<_>> = range.by_ref().rev().take(taken as usize).collect();
            assert!(back.expect("pairs").iter().eq(pairs.iter().rev().take(taken as usize)));
            let mut found = Vec::new();
            while let Some((key, values)) = range.next_key().transpose().expect("a key") {
                let values = values.collect::<Result<Vec<_>>>().expect("values");
                assert!(!values.is_empty(), "key {key} has no value left");
                found.extend(values.into_iter().map(|value| (key, value)));
            }
            assert!(found == pairs[..pairs.len() - taken as usize], "{taken} of {count} taken from the end");
            assert!(range.next().is_none() && range.next_back().is_none());
        }
    }
}

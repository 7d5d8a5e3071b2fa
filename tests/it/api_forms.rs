//! Forms of API calls that programs use: each must compile as written here, and work.

use std::iter::FusedIterator;
use std::panic::{RefUnwindSafe, UnwindSafe};

use mapleaf::{
    testing, CheckReport, CompactReport, Db, EntriesOwned, Error, ErrorKind, Options, OwnedValue, Range, RangeOwned,
    ReadAhead, ReadTable, ReadTxn, Result, Stats, Table, TableInfo,
};

use crate::support::TestDb;

const USERS: Table<&str, u64> = Table::new("users");
const NAMES: Table<String, String> = Table::new("names");
const BLOBS: Table<Vec<u8>, Vec<u8>> = Table::new("blobs");
const PAIRS: Table<(String, u64), ()> = Table::new("pairs");

#[test]
fn closures_of_transactions_need_no_type_of_error() {
    let db = TestDb::memory(Options::new());
    db.write(|txn| {
        txn.table(USERS)?.insert("ada", 1)?;
        Ok(())
    })
    .expect("committed");
    let found = db.read(|txn| txn.table(USERS)?.get("ada")).expect("read");
    assert_eq!(found, Some(1));
    let outer = || -> std::result::Result<u64, Box<dyn std::error::Error>> {
        db.write(|txn| {
            txn.table(USERS)?.insert("bob", 2)?;
            Ok(())
        })?;
        Ok(db.read(|txn| Ok(txn.table(USERS)?.len()))?)
    };
    assert_eq!(outer().expect("done"), 2);
}

#[test]
fn owned_keys_are_looked_up_by_what_they_borrow() {
    let db = TestDb::memory(Options::new());
    db.write(|txn| {
        let mut names = txn.table(NAMES)?;
        for name in ["ada", "bob", "cy"] {
            names.insert(name.to_string(), name.to_uppercase())?;
        }
        assert_eq!(names.get("ada")?.as_deref(), Some("ADA"));
        assert_eq!(names.multi_get(["bob", "dan"])?, [Some("BOB".to_string()), None]);
        assert!(names.contains_key("cy")?);
        assert_eq!(names.range("b"..)?.count(), 2);
        assert_eq!(names.remove("cy")?.as_deref(), Some("CY"));
        txn.table(BLOBS)?.insert(vec![1, 2], vec![3])?;
        txn.table(PAIRS)?.insert(("a\0b".to_string(), 7), ())?;
        Ok(())
    })
    .expect("committed");
    let txn = db.begin_read().expect("begins");
    let names = txn.table(NAMES).expect("table");
    let ada = String::from("ada");
    assert_eq!(names.get(&ada).expect("get"), names.get("ada").expect("get"));
    assert!(names.contains_key("bob").expect("looked up") && !names.contains_key("cy").expect("looked up"));
    assert_eq!(names.multi_get(["bob", "ada"]).expect("multi_get").len(), 2);
    assert_eq!(names.get_owned("ada").expect("get").map(|value| value.get().expect("there")), Some("ADA".to_string()));
    assert_eq!(names.try_get_resident("bob").expect("in memory").as_deref(), Some("BOB"));
    assert_eq!(txn.try_get_resident(NAMES, "bob").expect("in memory").as_deref(), Some("BOB"));
    let keys = |range: Range<'_, String, String>| range.map(|entry| entry.expect("entry").0).collect::<Vec<_>>();
    assert_eq!(keys(names.range("ada"..="ada").expect("range")), ["ada"]);
    assert_eq!(names.range_owned("b"..).expect("range").count(), 1);
    assert_eq!(txn.table(BLOBS).expect("table").get(&[1, 2]).expect("get"), Some(vec![3]));
    assert!(txn.table(PAIRS).expect("table").contains_key(("a\0b".to_string(), 7)).expect("looked up"));
}

#[test]
fn a_write_transaction_has_multi_get_and_owned_entries() {
    const COUNT: u64 = 5000;
    const SQUARES: Table<u64, u64> = Table::new("squares");
    let db = TestDb::file(Options::new());
    let txn = db.begin_write().expect("begins");
    let mut squares = txn.table(SQUARES).expect("table");
    assert_eq!(squares.multi_get([1, 2]).expect("multi_get"), [None, None]);
    assert_eq!(squares.range_owned(..).expect("range").count(), 0);
    (0..COUNT).for_each(|n| squares.append(2 * n, n * n).expect("append"));
    // Some of it still being filled, some changed.
    squares.insert(4, 99).expect("insert");
    let keys: Vec<u64> = (0..COUNT).map(|n| n * 7919 % (2 * COUNT + 3)).chain([4]).collect();
    let expected: Vec<_> = keys.iter().map(|&key| squares.get(key).expect("get")).collect();
    assert_eq!(squares.multi_get(keys).expect("multi_get"), expected);
    assert!(expected.contains(&Some(99)) && expected.contains(&None));
    let kept: Vec<(u64, u64)> =
        squares.range_owned(10..=16).expect("range").map(|entry| entry.expect("entry")).collect();
    assert_eq!(kept, [(10, 25), (12, 36), (14, 49), (16, 64)]);
    let mut ends = squares.range_owned(10..18).expect("range");
    let (last, first) = (ends.next_back().expect("some").expect("entry"), ends.next().expect("some").expect("entry"));
    assert_eq!((first, last, ends.count()), ((10, 25), (16, 64), 2));
    for (key, value) in kept {
        squares.insert(key, value + 1).expect("insert");
    }
    assert_eq!(squares.get(16).expect("get"), Some(65));
    txn.commit().expect("commits");
}

/// An iterator that has ended for any reason returns `None` for ever.
fn stays_ended<T>(mut entries: impl DoubleEndedIterator<Item = Result<T>> + FusedIterator) -> Vec<Result<T>> {
    let found: Vec<_> = entries.by_ref().collect();
    for _ in 0..3 {
        assert!(entries.next().is_none() && entries.next_back().is_none());
    }
    found
}

/// The same from the other end.
fn stays_ended_behind<T>(mut entries: impl DoubleEndedIterator<Item = Result<T>> + FusedIterator) -> Vec<Result<T>> {
    let mut found = Vec::new();
    while let Some(entry) = entries.next_back() {
        found.push(entry);
    }
    for _ in 0..3 {
        assert!(entries.next_back().is_none() && entries.next().is_none());
    }
    found
}

fn all_ends<K: mapleaf::codec::KeyCodec, V: mapleaf::codec::Codec>(table: &ReadTable<K, V>, check: impl Fn(&[bool])) {
    let oks = |found: Vec<bool>| check(&found);
    oks(stays_ended(table.iter()).iter().map(Result::is_ok).collect());
    oks(stays_ended_behind(table.iter()).iter().map(Result::is_ok).collect());
    oks(stays_ended(table.range_owned(..).expect("range")).iter().map(Result::is_ok).collect());
    oks(stays_ended_behind(table.range_owned(..).expect("range")).iter().map(Result::is_ok).collect());
}

#[test]
fn iterators_stay_ended_after_their_end() {
    let db = TestDb::memory(Options::new());
    // No entries, a few, exactly one batch of owned entries, and several leaves.
    for count in [0, 3, 64, 128, 5000] {
        let table = Table::<u64, u64>::named(format!("of {count}"));
        db.write(|txn| {
            let mut open = txn.table(table.clone())?;
            (0..count).try_for_each(|n| open.insert(n, n).map(drop))?;
            let full = |found: Vec<Result<(u64, u64)>>| {
                assert!(found.len() as u64 == count && found.iter().all(Result::is_ok));
            };
            full(stays_ended(open.iter()));
            full(stays_ended_behind(open.iter()));
            full(stays_ended(open.range_owned(..)?));
            full(stays_ended_behind(open.range_owned(..)?));
            Ok(())
        })
        .expect("committed");
        let open = db.begin_read().expect("begins").table(table).expect("table");
        all_ends(&open, |found| assert!(found.len() as u64 == count && found.iter().all(|&ok| ok)));
    }
}

/// A damaged leaf in the middle ends the iteration with one error.
#[test]
fn iterators_stay_ended_after_damage() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.mapleaf");
    let db = Db::open(&path).expect("made");
    db.write(|txn| {
        let mut users = txn.table(Table::<u64, [u8; 100]>::new("t"))?;
        (0..2000).try_for_each(|n| users.insert(n, [0xA5; 100]).map(drop))
    })
    .expect("written");
    drop(db);
    let mut bytes = std::fs::read(&path).expect("bytes");
    let key = 1000u64.to_be_bytes();
    let entry = bytes.windows(16).rposition(|bytes| bytes[..8] == key && bytes[8..] == [0xA5; 8]).expect("the entry");
    bytes[entry + 20] ^= 0xFF;
    std::fs::write(&path, bytes).expect("written");
    let db = Options::new().read_only(true).open(&path).expect("opens");
    let table = db.begin_read().expect("begins").table(Table::<u64, [u8; 100]>::new("t")).expect("table");
    all_ends(&table, |found| {
        assert_eq!(found.iter().filter(|&&ok| !ok).count(), 1, "{} entries", found.len());
        assert_eq!(found.last(), Some(&false));
    });
}

/// An access that could not be served ends the iteration with one error.
#[test]
fn iterators_stay_ended_after_a_fault() {
    let db = TestDb::file(Options::new());
    db.write(|txn| (0..5000).try_for_each(|n| txn.table(Table::<u64, u64>::new("t"))?.insert(n, n).map(drop)))
        .expect("written");
    let copy = db.path().with_extension("cut");
    std::fs::copy(db.path(), &copy).expect("copied");
    let cut = Options::new().read_only(true).open(&copy).expect("opens");
    let table = cut.begin_read().expect("begins").table(Table::<u64, u64>::new("t")).expect("table");
    let (mut entries, mut owned) = (table.iter(), table.range_owned(..).expect("range"));
    assert!(entries.next().is_some_and(|entry| entry.is_ok()) && owned.next().is_some_and(|entry| entry.is_ok()));
    std::fs::OpenOptions::new().write(true).open(&copy).expect("opens").set_len(8192).expect("cut");
    let found = stays_ended(entries);
    assert_eq!(found.iter().filter(|entry| entry.is_err()).count(), 1);
    assert_eq!(found.last().and_then(|entry| entry.as_ref().err()).map(Error::kind), Some(ErrorKind::Fault));
    let found = stays_ended(owned);
    assert_eq!(found.last().and_then(|entry| entry.as_ref().err()).map(Error::kind), Some(ErrorKind::Fault));
}

/// Types that are `UnwindSafe`. A write transaction is not: a panic inside a change could leave a
/// tree incomplete.
#[test]
fn read_only_types_are_unwind_safe() {
    fn safe<T: UnwindSafe + RefUnwindSafe>() {}
    safe::<Db>();
    safe::<Options>();
    safe::<ReadTxn>();
    safe::<ReadTable<&str, u64>>();
    safe::<Table<&str, u64>>();
    safe::<Range<'static, &str, u64>>();
    safe::<EntriesOwned<'static, &str, u64>>();
    safe::<RangeOwned<&str, u64>>();
    safe::<OwnedValue<&str, u64>>();
    safe::<Error>();
    safe::<ErrorKind>();
    safe::<Stats>();
    safe::<TableInfo>();
    safe::<CheckReport>();
    safe::<CompactReport>();
    let db = TestDb::memory(Options::new());
    let db = Db::clone(&db);
    let caught = std::panic::catch_unwind(|| {
        let e = db.write(|txn| txn.rename_table("none", "other")).expect_err("no such table");
        std::panic::panic_any(e.kind());
    });
    assert_eq!(caught.expect_err("a panic").downcast_ref(), Some(&ErrorKind::Usage));
    db.write(|txn| txn.table(USERS)?.insert("ada", 1)).expect("the database goes on");
}

#[test]
fn an_option_that_conflicts_with_the_open_database_is_an_error_that_names_it() {
    let db = TestDb::file(Options::new().fault_guard(false).window_size(1 << 30));
    let again = |options: Options| options.open(db.path());
    let refused = |options: Options| {
        let e = again(options).expect_err("refused");
        assert_eq!(e.kind(), ErrorKind::Usage, "{e}");
        e.to_string()
    };
    let e = refused(Options::new().fault_guard(true));
    assert!(e.contains("fault_guard false") && e.contains("true"), "{e}");
    let e = refused(Options::new().read_ahead(ReadAhead::Off));
    assert!(e.contains("read_ahead Auto") && e.contains("Off"), "{e}");
    // The same value, no value, and options that only matter for creating or first mapping a file.
    for options in [
        Options::new(),
        Options::new().fault_guard(false).read_ahead(ReadAhead::Auto),
        Options::new().page_size(8192).create(false).init_empty(true).window_size(1 << 31),
        Options::new().read_only(true),
    ] {
        let shared = again(options.clone()).unwrap_or_else(|e| panic!("{options:?}: {e}"));
        assert_eq!(testing::window_id(&shared), testing::window_id(&db), "the same database");
    }
    assert!(again(Options::new().read_only(true)).expect("opens").begin_write().is_err());
}

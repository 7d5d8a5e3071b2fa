//! Savepoints and nested transactions: random ones against a stack of maps, what they cost, and the
//! errors after which a transaction can go on.

use std::collections::BTreeMap;
use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use mapleaf::testing::{self, strict_claims, with_mutant, FlushEvent, Hooks, Mutant};
use mapleaf::{Db, Durability, Error, ErrorKind, Options, Savepoint, Table, WriteTxn};

use crate::mixed::{assert_holds, change, Tables};
use crate::support::{assert_clean, bytes, long, seed, Rng, TestDb, BYTES};

const NUMBERS: Table<u64, &[u8]> = Table::new("numbers");

/// Compares the tables of a running transaction with the maps.
fn assert_sees(txn: &mut WriteTxn, tables: &Tables) {
    let names: Vec<_> = txn.tables().expect("tables").into_iter().map(|table| table.name).collect();
    assert!(names.iter().eq(tables.keys()), "{names:?}");
    for (name, rows) in tables {
        let table = txn.bytes_table(name).expect("table");
        assert_eq!(table.len(), rows.len() as u64);
        let entries = table.iter().map(|entry| entry.expect("an entry"));
        assert!(entries.eq(rows.iter().map(|(k, v)| (&k[..], &v[..]))), "table {name}");
    }
}

/// Random changes, savepoints and nested transactions; the maps follow on a stack.
fn go(txn: &mut WriteTxn, tables: &mut Tables, rng: &mut Rng, depth: u64) {
    let mut savepoints: Vec<(Savepoint, Tables)> = Vec::new();
    for _ in 0..1 + rng.below(14) {
        let some = rng.below(savepoints.len() as u64 + 1) as usize;
        match rng.below(14) {
            0..=1 => savepoints.push((txn.savepoint().expect("a savepoint"), tables.clone())),
            2..=3 if some < savepoints.len() => {
                txn.rollback_to(&savepoints[some].0).expect("went back");
                let gone = savepoints.split_off(some + 1);
                for (savepoint, _) in gone {
                    assert_eq!(txn.rollback_to(&savepoint).map_err(|e| e.kind()), Err(ErrorKind::Usage));
                }
                *tables = savepoints[some].1.clone();
                assert_sees(txn, tables);
            }
            4 if some < savepoints.len() => {
                txn.release(savepoints[some].0).expect("released");
                savepoints.truncate(some);
            }
            5..=7 if depth < 4 => {
                let before = tables.clone();
                let mut nested = txn.begin_nested().expect("begun");
                go(&mut nested, tables, rng, depth + 1);
                if let Some((savepoint, _)) = savepoints.first() {
                    assert_eq!(nested.rollback_to(savepoint).map_err(|e| e.kind()), Err(ErrorKind::Usage));
                }
                if rng.below(2) == 0 {
                    nested.commit().expect("committed");
                } else {
                    nested.abort();
                    *tables = before;
                }
                assert_sees(txn, tables);
            }
            _ => change(txn, tables, rng),
        }
    }
}

/// Compares the file as a crash of the process leaves it, which its log completes.
fn assert_replays(db: &TestDb, tables: &Tables) {
    let copy = db.path().with_file_name("copy.mapleaf");
    std::fs::copy(db.path(), &copy).expect("copied");
    let replayed = Db::open(&copy).expect("opened after the crash");
    assert_holds(&replayed.begin_read().expect("begins"), tables);
    assert_clean(&replayed);
}

fn any_nesting(rounds: u64, seed: u64) {
    let mut rng = Rng::new(seed);
    for round in 0..rounds {
        strict_claims(round % 4 == 1);
        let options = Options::new().page_size(4096 << (round % 4));
        let in_file = round % 3 < 2;
        let mut db = if in_file { TestDb::file(options) } else { TestDb::memory(options) };
        strict_claims(false);
        let mut tables = Tables::new();
        let mut held = Vec::new();
        for step in 0..8 {
            let mut next = tables.clone();
            let mut txn = db.begin_write().expect("begins");
            go(&mut txn, &mut next, &mut rng, 0);
            if rng.below(5) == 0 {
                drop(txn);
            } else {
                txn.commit().expect("commits");
                tables = next;
            }
            assert_holds(&db.begin_read().expect("begins"), &tables);
            held.iter().for_each(|(txn, tables)| assert_holds(txn, tables));
            held.truncate(2);
            held.insert(0, (db.begin_read().expect("begins"), tables.clone()));
            if step % 4 == 3 {
                db.assert_clean();
                if in_file {
                    assert_replays(&db, &tables);
                }
                held.clear();
                db.reopen();
            }
        }
    }
}

#[test]
fn any_nesting_of_transactions_and_savepoints_agrees_with_a_stack_of_maps() {
    let seed = seed("any_nesting_of_transactions_and_savepoints_agrees_with_a_stack_of_maps");
    any_nesting(4 * u64::from(long()), seed);
}

#[test]
fn the_test_of_any_nesting_finds_what_is_not_taken_back() {
    let seed = seed("the_test_of_any_nesting_finds_what_is_not_taken_back");
    for mutant in [Mutant::TakenNotRolledBack, Mutant::FreedNotRolledBack] {
        assert!(is_found(mutant, || any_nesting(4, seed)), "{mutant:?} was not found");
    }
    let mutant = Mutant::RecordNotRolledBack;
    assert!(is_found(mutant, || small_nesting(seed)), "{mutant:?} was not found");
}

/// Whether a test fails with a mutant.
fn is_found(mutant: Mutant, test: impl Fn()) -> bool {
    let found = catch_unwind(AssertUnwindSafe(|| with_mutant(Some(mutant), test)));
    strict_claims(false);
    found.is_err()
}

/// Small changes, all of which go through the log, and now and then one that is too large for it.
fn go_small(txn: &mut WriteTxn, tables: &mut Tables, rng: &mut Rng, depth: u64) {
    for _ in 0..1 + rng.below(4) {
        let name = ["a", "b", "c"][rng.below(3) as usize];
        match rng.below(12) {
            0 => assert_eq!(txn.drop_table(name).expect("dropped"), tables.remove(name).is_some()),
            1 if tables.contains_key(name) && !tables.contains_key("d") => {
                txn.rename_table(name, "d").expect("renamed");
                let rows = tables.remove(name).expect("there");
                tables.insert("d".to_string(), rows);
            }
            2..=5 if depth < 3 => {
                let (before, savepoint) = (tables.clone(), txn.savepoint().expect("a savepoint"));
                let mut nested = txn.begin_nested().expect("begun");
                go_small(&mut nested, tables, rng, depth + 1);
                match rng.below(4) {
                    0 => {
                        nested.abort();
                        *tables = before;
                    }
                    1 => {
                        nested.commit().expect("committed");
                        txn.rollback_to(&savepoint).expect("went back");
                        *tables = before;
                    }
                    2 => {
                        nested.bytes_table("d").expect("table").put(b"large", &vec![7; 30 << 20]).expect("stored");
                        nested.abort();
                        *tables = before;
                    }
                    _ => nested.commit().expect("committed"),
                }
                txn.release(savepoint).expect("released");
            }
            _ => {
                let (key, value) = (bytes(rng.below(40), 8), bytes(rng.next(), 60));
                txn.bytes_table(name).expect("table").put(&key, &value).expect("stored");
                tables.entry(name.to_string()).or_default().insert(key, value);
            }
        }
    }
}

fn small_nesting(seed: u64) {
    let mut rng = Rng::new(seed);
    let db = TestDb::file(Options::new());
    let mut tables = Tables::new();
    let mut by_log = 0;
    for commit in 0..60 {
        let mut txn = db.begin_write().expect("begins");
        go_small(&mut txn, &mut tables, &mut rng, 0);
        txn.commit().expect("commits");
        by_log += u64::from(testing::latest_txn(&db) > testing::durable_meta_txn(&db));
        if commit % 4 == 3 {
            assert_replays(&db, &tables);
        }
    }
    assert!(by_log > 40, "{by_log} of 60 states are in the log");
}

#[test]
fn the_log_holds_only_what_stays() {
    small_nesting(seed("the_log_holds_only_what_stays"));
}

/// Puts entries that fill a few hundred pages.
fn fill(txn: &mut WriteTxn, from: u64, count: u64) {
    let mut table = txn.table(NUMBERS).expect("table");
    (from..from + count).for_each(|key| assert!(table.put(key, &bytes(key, 200)).is_ok()));
}

#[test]
fn pages_of_aborted_nested_transactions_are_used_again() {
    let db = TestDb::file(Options::new());
    let mut txn = db.begin_write().expect("begins");
    fill(&mut txn, 0, 1000);
    let mut pages = Vec::new();
    for round in 0..20 {
        let mut nested = txn.begin_nested().expect("begun");
        fill(&mut nested, 1000, 5000);
        nested.table(BYTES).expect("table").put(b"long", &bytes(round, 300_000)).expect("stored");
        nested.table(NUMBERS).expect("table").remove_range(..500).expect("removed");
        drop(nested);
    }
    assert!(txn.table_info("bytes").expect("read").is_none(), "the table was made inside");
    txn.commit().expect("committed");
    pages.push(db.stats().expect("stats").page_count);
    // The same without the nested transactions.
    let plain = TestDb::file(Options::new());
    plain
        .write(|txn| {
            fill(txn, 0, 1000);
            Ok(())
        })
        .expect("written");
    pages.push(plain.stats().expect("stats").page_count);
    assert_eq!(pages[0], pages[1], "pages of the state");
}

#[test]
fn a_savepoint_takes_no_step_for_a_page_or_a_table_of_its_transaction() {
    let db = TestDb::memory(Options::new());
    let mut txn = db.begin_write().expect("begins");
    let mut steps = Vec::new();
    for count in [1, 200] {
        for table in 0..count {
            txn.create_table(&format!("t{table}"), "", "").expect("table").put(b"k", b"v").expect("stored");
        }
        let before = testing::steps();
        let savepoint = txn.savepoint().expect("a savepoint");
        txn.bytes_table("t0").expect("table").put(b"k", b"w").expect("stored");
        txn.rollback_to(&savepoint).expect("went back");
        txn.release(savepoint).expect("released");
        steps.push(testing::steps() - before);
    }
    assert_eq!(steps[0], steps[1], "with 1 and with 200 tables");
    txn.commit().expect("committed");
}

/// A page that is changed again and again in nested transactions is copied once for the savepoint
/// around them, not once for each.
#[test]
fn nested_transactions_inside_a_savepoint_use_the_same_pages_again() {
    let db = TestDb::file(Options::new());
    let mut txn = db.begin_write().expect("begins");
    fill(&mut txn, 0, 5000);
    let savepoint = txn.savepoint().expect("a savepoint");
    for round in 0..2000u64 {
        let nested = txn.begin_nested().expect("begun");
        nested.table(NUMBERS).expect("table").put(round % 10, &bytes(round, 200)).expect("stored");
        nested.commit().expect("committed");
    }
    txn.rollback_to(&savepoint).expect("went back");
    let table = txn.table(NUMBERS).expect("table");
    assert!((0..5000).all(|key| table.get(key).expect("get") == Some(&bytes(key, 200)[..])));
    drop(table);
    txn.commit().expect("committed");
    let used = db.stats().expect("stats").page_count;
    let plain = TestDb::file(Options::new());
    plain
        .write(|txn| {
            fill(txn, 0, 5000);
            Ok(())
        })
        .expect("written");
    assert!(used <= plain.stats().expect("stats").page_count + 16, "{used} pages");
}

#[test]
fn a_closure_that_fails_takes_its_nested_transaction_back_and_one_that_succeeds_commits_it() {
    let db = TestDb::memory(Options::new());
    let mut txn = db.begin_write().expect("begins");
    let kept = txn.nested(|txn| txn.table(NUMBERS)?.put(1, b"one"));
    assert!(!kept.expect("committed"));
    let told = txn.nested(|txn| {
        txn.set_durability(Durability::Eventual);
        txn.table(NUMBERS)?.put(2, b"two")?;
        Err::<(), _>(Error::from(mapleaf::codec::CodecError::new("no")))
    });
    assert!(told.is_err());
    let table = txn.table(NUMBERS).expect("table");
    assert_eq!((table.get(1).expect("get"), table.get(2).expect("get")), (Some(&b"one"[..]), None));
    txn.commit().expect("committed");
    assert_eq!(db.begin_read().expect("begins").table(NUMBERS).expect("table").len(), 1);
}

#[test]
fn a_savepoint_of_another_transaction_and_one_given_up_are_refused_and_change_nothing() {
    let (db, other) = (TestDb::memory(Options::new()), TestDb::memory(Options::new()));
    let (mut txn, mut others) = (db.begin_write().expect("begins"), other.begin_write().expect("begins"));
    let first = txn.savepoint().expect("a savepoint");
    txn.table(NUMBERS).expect("table").put(1, b"one").expect("stored");
    let second = txn.savepoint().expect("a savepoint");
    let foreign = others.savepoint().expect("a savepoint");
    for told in [txn.rollback_to(&foreign), txn.release(foreign)] {
        let told = told.expect_err("refused");
        assert!(told.kind() == ErrorKind::Usage && told.to_string().contains("another transaction"), "{told}");
    }
    txn.release(second).expect("released");
    assert_eq!(txn.release(second).map_err(|e| e.kind()), Err(ErrorKind::Usage));
    let mut nested = txn.begin_nested().expect("begun");
    let told = nested.release(first).expect_err("refused");
    assert!(told.to_string().contains("before this nested transaction"), "{told}");
    drop(nested);
    assert_eq!(txn.table(NUMBERS).expect("table").len(), 1);
    txn.rollback_to(&first).expect("went back");
    txn.rollback_to(&first).expect("went back again");
    assert!(txn.table_info("numbers").expect("read").is_none());
}

#[test]
fn a_transaction_with_a_nested_one_that_was_leaked_cannot_be_committed() {
    let db = TestDb::memory(Options::new());
    let mut txn = db.begin_write().expect("begins");
    let nested = txn.begin_nested().expect("begun");
    nested.table(NUMBERS).expect("table").put(1, b"one").expect("stored");
    std::mem::forget(nested);
    let told = txn.commit().expect_err("refused");
    assert!(told.kind() == ErrorKind::Usage && told.to_string().contains("neither committed nor dropped"), "{told}");
    assert_eq!(db.stats().expect("stats").tables, 0);
    // The same inside a nested transaction.
    let mut txn = db.begin_write().expect("begins");
    let mut nested = txn.begin_nested().expect("begun");
    nested.table(NUMBERS).expect("table").put(1, b"one").expect("stored");
    std::mem::forget(nested.begin_nested().expect("begun"));
    assert_eq!(nested.commit().map_err(|e| e.kind()), Err(ErrorKind::Usage));
    txn.table(BYTES).expect("table").put(b"k", b"v").expect("stored");
    txn.commit().expect("committed");
    let tables = db.begin_read().expect("begins").tables().expect("tables");
    assert_eq!(tables.iter().map(|table| &*table.name).collect::<Vec<_>>(), ["bytes"]);
}

#[test]
fn transactions_that_are_exchanged_inside_a_nested_one_take_back_nothing_of_each_other() {
    let (db, other) = (TestDb::memory(Options::new()), TestDb::memory(Options::new()));
    let (mut txn, mut others) = (db.begin_write().expect("begins"), other.begin_write().expect("begins"));
    others.table(NUMBERS).expect("table").put(1, b"one").expect("stored");
    let mut nested = txn.begin_nested().expect("begun");
    nested.table(NUMBERS).expect("table").put(2, b"two").expect("stored");
    std::mem::swap(&mut *nested, &mut others);
    assert_eq!(nested.commit().map_err(|e| e.kind()), Err(ErrorKind::Usage));
    assert_eq!(others.commit().map_err(|e| e.kind()), Err(ErrorKind::Usage));
    txn.commit().expect("the transaction of the other database");
    assert_eq!((db.stats().expect("stats").entries, other.stats().expect("stats").entries), (0, 1));
}

/// Hooks that let the file grow up to a length.
struct Disk(AtomicU64);

impl Hooks for Disk {
    fn before_flush(&self, _event: &FlushEvent<'_>) -> io::Result<()> {
        Ok(())
    }

    fn growing(&self, new_len: u64) -> io::Result<()> {
        match new_len > self.0.load(Ordering::Relaxed) {
            true => Err(io::Error::from(io::ErrorKind::StorageFull)),
            false => Ok(()),
        }
    }
}

/// Whichever way of writing meets the full disk, the parent is as before, commits on the full disk,
/// and no page is lost.
#[test]
fn a_full_disk_in_a_nested_transaction_leaves_its_parent_usable() {
    type Write = fn(&mut WriteTxn) -> mapleaf::Result<()>;
    let ways: [Write; 5] = [
        |txn| (1000..9000).try_for_each(|key| txn.table(NUMBERS)?.put(key, &bytes(key, 3000)).map(drop)),
        |txn| (1000..9000).try_for_each(|key| txn.table(NUMBERS)?.append(key, &bytes(key, 300))),
        |txn| txn.table(NUMBERS)?.load((1000..90_000).map(|key| (key, &[7; 300][..]))).map(drop),
        |txn| txn.table(BYTES)?.put(b"long", &vec![7; 20 << 20]).map(drop),
        |txn| txn.table(BYTES)?.reserve(b"long", 20 << 20).map(drop),
    ];
    for (way, write) in ways.into_iter().enumerate() {
        for appended in [false, true] {
            let db = TestDb::file(Options::new());
            let disk = Arc::new(Disk(AtomicU64::new(u64::MAX)));
            testing::set_hooks(&db, disk.clone());
            let mut txn = db.begin_write().expect("begins");
            let mut table = txn.table(NUMBERS).expect("table");
            let mut expected = BTreeMap::new();
            for key in 0..1000 {
                match appended {
                    true => table.append(key, &bytes(key, 400)).expect("appended"),
                    false => drop(table.put(key, &bytes(key, 400)).expect("stored")),
                }
                expected.insert(key, bytes(key, 400));
            }
            drop(table);
            disk.0.store(std::fs::metadata(db.path()).expect("the file").len() + (1 << 20), Ordering::Relaxed);
            let mut nested = txn.begin_nested().expect("begun");
            nested.table(NUMBERS).expect("table").remove_range(100..200).expect("removed");
            let told = write(&mut nested).expect_err("the disk is full");
            assert_eq!(told.kind(), ErrorKind::DiskFull, "way {way}: {told}");
            assert_eq!(nested.commit().map_err(|e| e.kind()), Err(ErrorKind::Usage), "way {way}: it is broken");
            txn.table(NUMBERS).expect("table").put(5000, b"after").expect("stored");
            expected.insert(5000, b"after".to_vec());
            txn.commit().unwrap_or_else(|e| panic!("way {way}: {e}"));
            let found = db.begin_read().expect("begins").table(NUMBERS).expect("table");
            assert_eq!(found.len(), expected.len() as u64);
            assert!(expected.iter().all(|(&key, value)| found.get(key).expect("get") == Some(&value[..])));
            db.assert_clean();
            disk.0.store(u64::MAX, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_load_or_value_that_was_leaked_is_taken_back() {
    let db = TestDb::file(Options::new());
    let mut txn = db.begin_write().expect("begins");
    txn.table(NUMBERS).expect("table").put(1, b"one").expect("stored");
    for leak in [true, false] {
        let savepoint = txn.savepoint().expect("a savepoint");
        let mut table = txn.table(NUMBERS).expect("table");
        if leak {
            let mut loader = table.loader().expect("a loader");
            (10..20_000).for_each(|key| loader.push(key, &[7; 200]).expect("taken"));
            std::mem::forget(loader);
        } else {
            std::mem::forget(table.reserve(2, 100_000).expect("reserved"));
        }
        drop(table);
        let told = txn.table(NUMBERS).expect("table").put(3, b"three").expect_err("refused");
        assert!(told.to_string().contains("not finished"), "{told}");
        txn.rollback_to(&savepoint).expect("went back");
        assert_eq!(txn.table(NUMBERS).expect("table").len(), 1);
    }
    txn.commit().expect("committed");
    assert_eq!(db.begin_read().expect("begins").table(NUMBERS).expect("table").len(), 1);
}

/// A page that was read as damaged may be one that is free too, so nothing is built on it.
#[test]
fn damage_in_a_nested_transaction_leaves_its_parent_broken() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.mapleaf");
    let db = Db::open(&path).expect("opened");
    db.write(|txn| {
        fill(txn, 0, 3000);
        Ok(())
    })
    .expect("written");
    drop(db);
    let mut file = std::fs::read(&path).expect("read");
    let page = file
        .chunks_exact_mut(4096)
        .skip(2)
        .find(|page| page[0..4] != [0; 4] && page[100..2000].iter().any(|b| *b != 0));
    page.expect("a page")[1999] ^= 1;
    std::fs::write(&path, &file).expect("written");
    let db = Db::open(&path).expect("opened");
    let mut txn = db.begin_write().expect("begins");
    let told = txn.nested(|txn| (0..3000).try_for_each(|key| txn.table(NUMBERS)?.put(key, b"new").map(drop)));
    assert_eq!(told.map_err(|e: Error| e.kind()), Err(ErrorKind::Corrupt));
    let told = txn.commit().expect_err("broken");
    assert!(told.to_string().contains("abort it"), "{told}");
}

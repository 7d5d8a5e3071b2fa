//! The commit log: when it is made and given up, what a crash leaves, group commit, levels.

use std::path::Path;

use mapleaf::testing;
use mapleaf::{Db, Durability, Options, Table};

const NUMBERS: Table<u64, &[u8]> = Table::new("numbers");

fn put(db: &Db, key: u64, value: &[u8]) {
    let mut txn = db.begin_write().expect("a write transaction");
    txn.table(NUMBERS).expect("the table").put(key, value).expect("stored");
    txn.commit().expect("committed");
}

fn numbers(db: &Db) -> Vec<(u64, Vec<u8>)> {
    let txn = db.begin_read().expect("a read transaction");
    let table = txn.table(NUMBERS).expect("the table");
    table.iter().map(|entry| entry.map(|(key, value)| (key, value.to_vec())).expect("read")).collect()
}

/// What a crash of the process leaves: the file as the page cache has it.
fn crashed_copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).expect("copied");
}

#[test]
fn commits_survive_a_crash_of_the_process_and_a_clean_close_leaves_no_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.mapleaf");
    let db = Db::open(&path).expect("opened");
    let mut expected = Vec::new();
    for key in 0..200 {
        put(&db, key, &[key as u8; 40]);
        expected.push((key, vec![key as u8; 40]));
    }
    assert!(testing::log_pages(&db) > 0, "there is a log");
    let report = db.check().expect("checked");
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    let copy = dir.path().join("b.mapleaf");
    crashed_copy(&path, &copy);
    let replayed = Db::open(&copy).expect("opened after the crash");
    assert_eq!(numbers(&replayed), expected);
    let report = replayed.check().expect("checked");
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    put(&replayed, 1000, b"more");
    drop(replayed);
    let again = Db::open(&copy).expect("opened after the close");
    assert_eq!(testing::log_pages(&again), 0);
    assert_eq!(numbers(&again).len(), 201);
    drop(db);
    let db = Db::open(&path).expect("opened after the close");
    assert_eq!((testing::log_pages(&db), numbers(&db)), (0, expected));
    let report = db.check().expect("checked");
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[test]
fn one_commit_in_the_log_costs_one_flush() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = Db::open(dir.path().join("a.mapleaf")).expect("opened");
    (0..10).for_each(|key| put(&db, key, b"value"));
    let before = testing::flush_count(&db);
    (0..10).for_each(|key| put(&db, key, b"other"));
    assert_eq!(testing::flush_count(&db) - before, 10);
}

#[test]
fn all_operations_are_replayed() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.mapleaf");
    let db = Db::open(&path).expect("opened");
    (0..10).for_each(|key| put(&db, key, b"value"));
    const WORDS: Table<&str, &str> = Table::new("words");
    db.write(|txn| {
        txn.table(NUMBERS)?.delete(3)?;
        txn.table(NUMBERS)?.append(100, b"appended")?;
        txn.table(NUMBERS)?.load([(200, &b"loaded"[..]), (150, b"loaded too")])?;
        txn.table(WORDS)?.insert("ada", "lovelace")?;
        txn.create_table("empty", "u64", "str")?;
        Ok(())
    })
    .expect("written");
    db.write(|txn| {
        txn.table(NUMBERS)?.reserve(7, 9000)?.fill(9);
        txn.rename_table("words", "names")?;
        txn.create_table("gone", "u64", "str")?;
        assert!(txn.drop_table("gone")?);
        Ok(())
    })
    .expect("written");
    assert!(testing::log_pages(&db) > 0 && testing::latest_txn(&db) > testing::durable_meta_txn(&db));
    let copy = dir.path().join("b.mapleaf");
    crashed_copy(&path, &copy);
    let replayed = Db::open(&copy).expect("opened after the crash");
    assert_eq!(numbers(&replayed), numbers(&db));
    let tables = |db: &Db| db.begin_read().expect("read").tables().expect("tables");
    let shown = |db: &Db| {
        format!("{:?}", tables(db).iter().map(|table| (table.name.clone(), table.entries)).collect::<Vec<_>>())
    };
    assert_eq!(shown(&replayed), shown(&db));
}

#[test]
fn an_eventual_commit_is_visible_at_once_and_durable_after_a_sync() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = Db::open(dir.path().join("a.mapleaf")).expect("opened");
    (0..10).for_each(|key| put(&db, key, b"value"));
    let before = testing::flush_count(&db);
    for key in 10..20 {
        let mut txn = db.begin_write().expect("a write transaction");
        txn.set_durability(Durability::Eventual);
        txn.table(NUMBERS).expect("the table").put(key, b"eventual").expect("stored");
        txn.commit().expect("committed");
        assert_eq!(numbers(&db).len() as u64, key + 1);
    }
    assert_eq!(testing::flush_count(&db), before);
    db.sync().expect("durable");
    assert_eq!(testing::flush_count(&db), before + 1);
}

#[test]
fn commits_of_many_threads_share_flushes_and_none_is_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.mapleaf");
    let db = Db::open(&path).expect("opened");
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let db = &db;
            scope.spawn(move || (0..100).for_each(|n| put(db, thread * 1000 + n, b"value")));
        }
    });
    assert_eq!(numbers(&db).len(), 800);
    let copy = dir.path().join("b.mapleaf");
    crashed_copy(&path, &copy);
    assert_eq!(numbers(&Db::open(&copy).expect("opened after the crash")).len(), 800);
}

#[test]
fn the_log_wraps_around_and_checkpoints_free_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.mapleaf");
    let db = Db::open(&path).expect("opened");
    for round in 0..400u64 {
        put(&db, round % 50, &vec![round as u8; 3000]);
    }
    let copy = dir.path().join("b.mapleaf");
    crashed_copy(&path, &copy);
    let replayed = Db::open(&copy).expect("opened after the crash");
    assert_eq!(numbers(&replayed), numbers(&db));
    let report = db.check().expect("checked");
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[test]
fn a_read_only_open_after_a_crash_shows_all_commits_and_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.mapleaf");
    let db = Db::open(&path).expect("opened");
    for key in 0..3000 {
        let mut txn = db.begin_write().expect("a write transaction");
        txn.set_durability(Durability::Eventual);
        txn.table(NUMBERS).expect("the table").put(key % 900, &[key as u8; 60]).expect("stored");
        txn.commit().expect("committed");
    }
    assert!(testing::latest_txn(&db) > testing::durable_meta_txn(&db));
    let copy = dir.path().join("b.mapleaf");
    crashed_copy(&path, &copy);
    let before = std::fs::read(&copy).expect("read");
    {
        let replayed = Options::new().read_only(true).open(&copy).expect("opened after the crash");
        assert_eq!(numbers(&replayed), numbers(&db));
        let report = replayed.check().expect("checked");
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        assert!(replayed.stats().expect("stats").entries == 900);
    }
    assert!(std::fs::read(&copy).expect("read") == before, "the file is as it was");
}

//! Tables and ranges that are read into memory at once, and pages that cannot be.
//!
//! On file systems that live in memory, every page is always cached: there, these tests print that
//! they are skipped.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use mapleaf::testing::{cached_pages, drop_page_cache, set_available_memory};
use mapleaf::{Db, Error, ErrorKind, MultiTable, Options, ReadAhead, ReadTable, Table};

use crate::support::{bytes, mix};

const DATA: Table<u64, &[u8]> = Table::new("data");
const OTHER: Table<u64, u64> = Table::new("other");
const TAGS: MultiTable<u64, u64> = MultiTable::new("tags");
const KEYS: u64 = 12_000;
const PAGE_BYTES: u64 = 4096;

type Rows = ReadTable<u64, &'static [u8]>;

fn value_of(key: u64) -> Vec<u8> {
    bytes(key, if key % 500 == 7 { 30_000 } else { 300 + (key % 900) as usize })
}

/// A closed database whose entries were put in random order, with a second table and a multimap.
fn make(path: &Path) {
    let mut keys: Vec<u64> = (0..KEYS).collect();
    keys.sort_by_key(|&key| mix(key));
    let db = Db::open(path).expect("open");
    db.write(|txn| -> mapleaf::Result<()> {
        keys.iter().try_for_each(|&key| txn.table(DATA)?.put(key, &value_of(key)).map(drop))?;
        keys.iter().try_for_each(|&key| txn.table(OTHER)?.put(key, key).map(drop))?;
        // Keys with a value, with some in their leaf, and with value trees of several levels.
        let counts = [1, 40, 3_000, 60_000];
        let pairs = (0u64..).zip(counts).flat_map(|(key, count)| (0..count).map(move |value| (key, value)));
        txn.multi_table(TAGS)?.load(pairs).map(drop)
    })
    .expect("loaded");
}

/// Opens a file that is not in memory, without read-ahead of its own; `None` where it stays there.
fn open_cold(path: &Path) -> Option<Db> {
    let file = File::options().read(true).write(true).open(path).expect("the file");
    file.sync_all().expect("flushed");
    if !drop_page_cache(&file).expect("asked") || cached_pages(&file).expect("counted") > 0 {
        println!("skipped: files in {} stay in memory", path.display());
        return None;
    }
    Some(Options::new().read_ahead(ReadAhead::Off).open(path).expect("open"))
}

fn rows(db: &Db) -> Rows {
    db.begin_read().and_then(|txn| txn.table(DATA)).expect("the table")
}

fn in_memory(path: &Path) -> u64 {
    File::open(path).and_then(|file| cached_pages(&file)).expect("counted")
}

/// Whether an entry can be read without the disk. (A lookup that cannot requests its pages.)
fn is_resident(rows: &Rows, key: u64) -> bool {
    match rows.try_get_resident(key) {
        Ok(found) => {
            assert!(found == Some(&value_of(key)[..]), "{key}");
            true
        }
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}");
            false
        }
    }
}

/// Pages of a table, counted by another walk.
fn pages_of(db: &Db, name: &str) -> u64 {
    let space = db.space().expect("counted");
    space.tables.iter().find(|table| table.name == name).expect("the table").pages()
}

#[test]
fn a_warmed_table_is_in_memory_with_all_its_values() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("warm.mapleaf");
    make(&path);
    for room in [u64::MAX, 1 << 20] {
        let Some(db) = open_cold(&path) else { return };
        set_available_memory(&db, room);
        let warmed = rows(&db).warm(..).expect("warmed");
        assert!((0..KEYS).all(|key| is_resident(&rows(&db), key)));
        let cached = in_memory(&path);
        assert!(cached >= warmed, "{cached} of {warmed} pages");
        assert_eq!(warmed, pages_of(&db, "data"));
        assert_eq!(rows(&db).warm(..).expect("warm already"), warmed);
    }
}

#[test]
fn a_warmed_range_is_in_memory_and_little_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("warm.mapleaf");
    make(&path);
    let Some(db) = open_cold(&path) else { return };
    // Pages between those of the range would be read too, if all of the file had room.
    set_available_memory(&db, 1 << 20);
    let (from, to) = (KEYS / 3, KEYS / 2);
    let warmed = rows(&db).warm(from..to).expect("warmed");
    assert!((from..to).all(|key| is_resident(&rows(&db), key)));
    let all = pages_of(&db, "data");
    assert!(warmed > all / 8 && warmed < all / 4, "{warmed} of {all} pages");
    let Some(db) = open_cold(&path) else { return };
    set_available_memory(&db, 1 << 20);
    rows(&db).warm(from..to).expect("warmed");
    let outside = (0..KEYS).step_by(20).filter(|key| !(from..to).contains(key));
    let resident = outside.filter(|key| is_resident(&rows(&db), *key)).count();
    assert!(resident <= 10, "{resident} entries outside of the range");
    for (from, to) in [(5, 5), (KEYS, KEYS + 1), (KEYS - 1, KEYS)] {
        let few = rows(&db).warm(from..to).expect("warmed");
        assert!((1..=8).contains(&few), "{few} pages for {from}..{to}");
    }
}

#[test]
fn a_warmed_multimap_is_in_memory_with_its_value_trees() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("warm.mapleaf");
    make(&path);
    let Some(db) = open_cold(&path) else { return };
    set_available_memory(&db, 1 << 20);
    let tags = db.begin_read().and_then(|txn| txn.multi_table(TAGS)).expect("the table");
    let warmed = tags.warm(..).expect("warmed");
    assert!(in_memory(&path) >= warmed);
    assert_eq!(warmed, pages_of(&db, "tags"));
    assert!(tags.warm(0..2).expect("warmed") < warmed / 2);
    assert_eq!(tags.iter().filter(|pair| pair.is_ok()).count(), 63_041);
}

#[test]
fn progress_grows_to_all_pages_and_can_end_the_call() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("warm.mapleaf");
    make(&path);
    let Some(db) = open_cold(&path) else { return };
    let mut told = Vec::new();
    let stopped = rows(&db).warm_with(.., |done, known| {
        told.push((done, known));
        ControlFlow::Break(())
    });
    assert!(matches!(&stopped, Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::Interrupted));
    let all = pages_of(&db, "data");
    assert!(told.len() == 1 && told[0].0 < all, "{told:?} of {all} pages");
    told.clear();
    let warmed = rows(&db).warm_with(.., |done, known| {
        told.push((done, known));
        ControlFlow::Continue(())
    });
    assert_eq!(warmed.expect("warmed"), all);
    assert!(told.len() > 1 && told.is_sorted() && told.iter().all(|(done, known)| done <= known), "{told:?}");
    assert_eq!(told.last(), Some(&(all, all)));
}

#[test]
fn tables_without_entries_or_in_memory_need_no_disk() {
    let db = Db::in_memory().expect("a database");
    assert_eq!(rows(&db).warm(..).expect("nothing"), 0);
    db.write(|txn| (0..2000).try_for_each(|key| txn.table(DATA)?.put(key, &value_of(key)).map(drop))).expect("written");
    assert_eq!(rows(&db).warm(..).expect("warmed"), pages_of(&db, "data"));
    assert!(rows(&db).warm(10..11).expect("warmed") < 10);
}

/// Changes a byte of a page in the middle of a file, and returns the number of the page.
fn damage(path: &Path, nth: u64) -> u64 {
    let file = File::options().read(true).write(true).open(path).expect("the file");
    let pages = file.metadata().expect("its length").len() / PAGE_BYTES;
    let page = pages / 4 + nth * 37;
    let mut byte = [0];
    file.read_exact_at(&mut byte, page * PAGE_BYTES + 2000).expect("read");
    file.write_all_at(&[byte[0] ^ 0x20], page * PAGE_BYTES + 2000).expect("written");
    page
}

#[test]
fn a_damaged_page_costs_only_its_own_keys_in_a_cold_batch() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("damaged.mapleaf");
    let mut found_damage = 0;
    for nth in 0..6 {
        make(&path);
        let page = damage(&path, nth);
        let Some(db) = open_cold(&path) else { return };
        let rows = rows(&db);
        let keys: Vec<u64> = (0..2000).map(|n| mix(n + nth) % KEYS).collect();
        let batch = rows.multi_get(keys.iter().copied());
        let (lost, whole): (Vec<u64>, Vec<u64>) = keys.into_iter().partition(|&key| rows.get(key).is_err());
        assert!(lost.len() < 60, "{lost:?}");
        match batch {
            Ok(values) => assert!(lost.is_empty() && values.len() == 2000, "{lost:?}"),
            Err(e) => {
                assert!(!lost.is_empty() && e.to_string().contains(&page.to_string()), "{e}");
                assert_eq!((e.kind(), rows.get(lost[0]).expect_err("damaged").kind()), (ErrorKind::Corrupt, e.kind()));
                found_damage += 1;
            }
        }
        let expected: Vec<Vec<u8>> = whole.iter().map(|&key| value_of(key)).collect();
        let found = rows.multi_get(whole.iter().copied()).expect("whole pages");
        assert!(found.into_iter().flatten().eq(&expected));
        if !lost.is_empty() {
            let e = rows.warm(..).expect_err("a damaged page");
            assert!(e.kind() == ErrorKind::Corrupt && e.to_string().contains(&page.to_string()), "{e}");
            assert_eq!(rows.warm(lost[0]..=lost[0]).expect_err("damaged").kind(), ErrorKind::Corrupt);
        }
        drop(rows);
        drop(db);
        std::fs::remove_file(&path).expect("removed");
    }
    assert!(found_damage > 0, "no damaged page was met");
}

//! Golden files: databases of format version 1 that every later release opens, reads and writes.
//!
//! `generate` created them. Each test run calls it and compares its result with the golden files.
//! It writes a file to tests/golden/ only if the file is missing and MAPLEAF_GOLDEN=1 is set. A
//! golden file is never replaced.

use std::path::{Path, PathBuf};

use mapleaf::{Db, Options, Result, Table};

use crate::workload::fast_dir;

const NAMES: Table<&str, u64> = Table::new("names");
const NUMBERS: Table<i32, &str> = Table::new("numbers");
const PAIRS: Table<(u16, &str), [u8; 4]> = Table::new("pairs");
const BLOBS: Table<&[u8], &[u8]> = Table::new("blobs");
const EMPTY: Table<u64, u64> = Table::new("empty");
const DROPPED: Table<u64, &str> = Table::new("dropped");

const FILES: [(&str, u32); 2] = [("v1-4k.mapleaf", 4096), ("v1-16k.mapleaf", 16384)];

/// Everything that a golden file holds, as lines.
type Content = Vec<String>;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn name_of(n: u64) -> String {
    format!("user:{:08}:{}", n * 7919 % 1000, "name".repeat((n % 4) as usize))
}

fn blob(n: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (at * 31 + at / 251 + n * 17) as u8).collect()
}

fn generate(path: &Path, page_size: u32) -> Result<()> {
    let db = Options::new().page_size(page_size).open(path)?;
    db.write(|txn| {
        for n in 0..300 {
            txn.table(NAMES)?.insert(name_of(n).as_str(), n)?;
        }
        for n in 0..200 {
            txn.table(DROPPED)?.append(n, "a table that is dropped, so that there are free pages")?;
        }
        txn.table(EMPTY).map(drop)
    })?;
    db.write(|txn| {
        for n in -40..40 {
            txn.table(NUMBERS)?.insert(n * 1_000_003, format!("number {n}").as_str())?;
        }
        for n in 0..60u16 {
            txn.table(PAIRS)?.insert((n % 7, format!("item {n}").as_str()), [n as u8; 4])?;
        }
        for (n, len) in [0, 1, 900, 1000, 1001, 5000, 20_000].into_iter().enumerate() {
            txn.table(BLOBS)?.insert(&blob(n as u64, n * 3), &blob(n as u64, len))?;
        }
        Ok::<_, mapleaf::Error>(())
    })?;
    db.write(|txn| {
        for n in (0..300).filter(|n| n % 3 == 0) {
            txn.table(NAMES)?.remove(name_of(n).as_str())?;
        }
        txn.table(BLOBS)?.insert(&blob(6, 18), b"short now")?;
        txn.drop_table("dropped").map(drop)
    })?;
    db.write(|txn| txn.table(NAMES)?.insert("last", u64::MAX).map(drop))
}

fn content(db: &Db) -> Result<Content> {
    let txn = db.begin_read()?;
    let mut lines = Content::new();
    for table in txn.tables()? {
        lines.push(format!("table {}: {} entries", table.name, table.entries));
        for entry in txn.bytes_table(&table.name)?.iter() {
            let (key, value) = entry?;
            lines.push(format!("{} = {}", key.escape_ascii(), value.escape_ascii()));
        }
    }
    Ok(lines)
}

/// The entries of the typed tables, so that the codecs are covered too.
fn typed(db: &Db) -> Result<()> {
    let txn = db.begin_read()?;
    let names = txn.table(NAMES)?;
    assert_eq!(names.len(), 201);
    for n in 0..300 {
        assert_eq!(names.get(name_of(n).as_str())?, (n % 3 != 0).then_some(n));
    }
    assert_eq!(names.get("last")?, Some(u64::MAX));
    let numbers: Vec<(i32, &str)> = Vec::new();
    let table = txn.table(NUMBERS)?;
    let numbers = table.iter().try_fold(numbers, |mut all, entry| entry.map(|entry| (all.push(entry), all).1))?;
    let expected: Vec<(i32, String)> = (-40..40).map(|n| (n * 1_000_003, format!("number {n}"))).collect();
    assert!(numbers.iter().map(|(n, text)| (*n, text.to_string())).eq(expected));
    let pairs = txn.table(PAIRS)?;
    assert_eq!((pairs.len(), pairs.get((3, "item 10"))?), (60, Some([10; 4])));
    let blobs = txn.table(BLOBS)?;
    assert_eq!(blobs.get(&blob(5, 15))?, Some(&blob(5, 5000)[..]));
    assert_eq!(blobs.get(&blob(6, 18))?, Some(&b"short now"[..]));
    assert_eq!((blobs.len(), txn.table(EMPTY)?.len(), txn.table(DROPPED)?.len()), (7, 0, 0));
    let tables: Vec<String> = txn.tables()?.into_iter().map(|table| table.name).collect();
    assert_eq!(tables, ["blobs", "empty", "names", "numbers", "pairs"]);
    Ok(())
}

#[test]
fn golden_files_of_version_1_open_read_and_check_clean() {
    for (name, page_size) in FILES {
        let path = golden(name);
        let before = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let db = Options::new().read_only(true).open(&path).expect("open");
        typed(&db).expect("the typed tables");
        let stats = db.stats().expect("stats");
        assert_eq!((stats.page_size, stats.format_version, stats.txn), (page_size, 1, 6));
        assert!(stats.free_pages + stats.pending_pages > 0, "{name} has free pages");
        let report = db.check().expect("check");
        assert!(report.is_clean(), "{name}: {:?}", report.findings);
        drop(db);
        assert!(std::fs::read(&path).expect("the file") == before, "{name}: changed by reading");
    }
}

#[test]
fn a_copy_of_a_golden_file_accepts_writes() {
    for (name, _) in FILES {
        let dir = fast_dir();
        let path = dir.path().join(name);
        std::fs::write(&path, std::fs::read(golden(name)).expect("the file")).expect("a copy");
        let before = content(&Db::open_existing(&path).expect("open")).expect("content");
        for round in 0..5u64 {
            let db = Db::open_existing(&path).expect("open");
            for n in 0..8 {
                let write = |txn: &mut mapleaf::WriteTxn| {
                    txn.table(BLOBS)?.insert(&blob(n, 40), &blob(round, 3000 * n as usize))?;
                    txn.table(DROPPED)?.insert(n, "again")?;
                    txn.table(NUMBERS)?.remove(n as i32 * 1_000_003)?;
                    txn.table(NAMES)?.insert(name_of(n).as_str(), 5).map(drop)
                };
                db.write(write).expect("write");
            }
            db.write(|txn| {
                (0..8).try_for_each(|n| {
                    txn.table(BLOBS)?.remove(&blob(n, 40))?;
                    txn.table(NUMBERS)?.insert(n as i32 * 1_000_003, format!("number {n}").as_str())?;
                    match n % 3 {
                        0 => txn.table(NAMES)?.remove(name_of(n).as_str()).map(drop),
                        _ => txn.table(NAMES)?.insert(name_of(n).as_str(), n).map(drop),
                    }
                })?;
                txn.drop_table("dropped").map(drop)
            })
            .expect("write");
            let report = db.check().expect("check");
            assert!(report.is_clean(), "{name}: {:?}", report.findings);
            typed(&db).expect("the typed tables");
            assert_eq!(content(&db).expect("content"), before, "{name}: as it was");
        }
    }
}

#[test]
fn the_generator_makes_what_the_golden_files_hold() {
    for (name, page_size) in FILES {
        let dir = fast_dir();
        let path = dir.path().join(name);
        generate(&path, page_size).expect("to generate");
        if !golden(name).exists() && std::env::var("MAPLEAF_GOLDEN").is_ok_and(|value| value == "1") {
            std::fs::write(golden(name), std::fs::read(&path).expect("the file")).expect("a golden file");
        }
        let made = Db::open_existing(&path).expect("open");
        typed(&made).expect("the typed tables");
        assert!(made.check().expect("check").is_clean());
        let kept = Options::new().read_only(true).open(golden(name)).expect("open");
        assert_eq!(content(&made).expect("content"), content(&kept).expect("content"), "{name}");
    }
}

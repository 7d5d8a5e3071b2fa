//! Measures reads from a file that has no page in the page cache.
//!
//! ```sh
//! cargo bench --bench cold                          # 1,000,000 entries, 3 rounds
//! cargo bench --bench cold -- 200000 5 scattered    # entries, rounds, only this layout
//! ```
//!
//! The files are in the folder for temporary files (`TMPDIR`), which must be on a disk. Before each
//! measurement the benchmark closes and flushes the database, drops it from the page cache, and
//! checks with `mincore` that no page is left. It cannot empty the disk's own cache. Opening is not
//! timed. There are two layouts: one transaction loads the entries in random order (`scattered`) or
//! in key order (`in order`).

mod entries;

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use entries::{key, mix, value};
use mapleaf::testing::{cached_pages, drop_page_cache};
use mapleaf::{Db, ReadTable, Table};

const TABLE: Table<&[u8], &[u8]> = Table::new("bench");
const BATCH: usize = 100;
const FIRST_GETS: usize = 1000;
/// One of this many entries is looked up.
const READ_ONE_OF: u64 = 50;

type Rows = ReadTable<&'static [u8], &'static [u8]>;

fn load(path: &Path, entries: u64, in_order: bool) {
    let mut numbers: Vec<u64> = (0..entries).collect();
    if in_order {
        numbers.sort_by_key(|&number| key(number));
    }
    let db = Db::open(path).expect("open");
    db.write(|txn| {
        let mut table = txn.table(TABLE)?;
        numbers.iter().try_for_each(|&number| table.insert(&key(number), &value(number)).map(drop))
    })
    .expect("loaded");
}

/// Drops all pages of the file from the page cache.
fn drop_cache(path: &Path) {
    let file = File::options().read(true).write(true).open(path).expect("the file");
    file.sync_all().expect("flushed");
    assert!(drop_page_cache(&file).expect("dropped"), "pages of the file stay in memory");
    assert_eq!(cached_pages(&file).expect("looked at"), 0, "pages of the file stay in memory; is it on a disk?");
}

/// Runs `read` with a table of a cold file.
fn cold<T>(path: &Path, read: impl FnOnce(&Rows) -> T) -> T {
    drop_cache(path);
    with_table(path, read)
}

fn with_table<T>(path: &Path, read: impl FnOnce(&Rows) -> T) -> T {
    let db = Db::open(path).expect("open");
    let table = db.begin_read().and_then(|txn| txn.table(TABLE)).expect("table");
    read(&table)
}

fn check(number: u64, found: Option<&[u8]>) {
    assert_eq!(found, Some(&value(number)[..]), "entry {number}");
}

fn get_all(table: &Rows, numbers: &[u64]) {
    numbers.iter().for_each(|&number| check(number, table.get(&key(number)).expect("get")));
}

fn get_batches(table: &Rows, numbers: &[u64]) {
    for batch in numbers.chunks(BATCH) {
        let keys: Vec<[u8; 24]> = batch.iter().map(|&number| key(number)).collect();
        let found = table.multi_get(keys.iter().map(|key| &key[..])).expect("multi_get");
        batch.iter().zip(found).for_each(|(&number, found)| check(number, found));
    }
}

fn scan(table: &Rows, backward: bool) -> u64 {
    let mut entries = table.iter();
    let mut count = 0;
    while let Some(entry) = if backward { entries.next_back() } else { entries.next() } {
        let (key, value) = entry.expect("entry");
        count += u64::from(key.len() == 24 && value.len() == 150);
    }
    count
}

/// Seconds that `run` takes.
fn timed<T>(run: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64()
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let entries: u64 = arguments.next().map_or(1_000_000, |count| count.parse().expect("a number of entries"));
    let rounds: u64 = arguments.next().map_or(3, |count| count.parse().expect("a number of rounds"));
    let only = arguments.next();
    let folder = tempfile::tempdir().expect("a folder");
    for (name, in_order) in [("scattered", false), ("in order", true)] {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let path = folder.path().join("bench.mapleaf");
        load(&path, entries, in_order);
        let file_bytes = std::fs::metadata(&path).expect("the file").len();
        println!("{name}: {entries} entries, {:.0} MB", file_bytes as f64 / 1e6);
        for round in 0..rounds {
            let count = (entries / READ_ONE_OF).max(2 * FIRST_GETS as u64);
            let numbers: Vec<u64> = (0..count).map(|n| mix(n ^ round << 40) % entries).collect();
            let (first, rest) = numbers.split_at(FIRST_GETS);
            let (first_gets, gets) = cold(&path, |table| {
                let first = timed(|| get_all(table, first));
                (first, first + timed(|| get_all(table, rest)))
            });
            let first_batches = cold(&path, |table| timed(|| get_batches(table, first)));
            let batches = cold(&path, |table| timed(|| get_batches(table, &numbers)));
            let forward = cold(&path, |table| timed(|| assert_eq!(scan(table, false), entries)));
            let backward = cold(&path, |table| timed(|| assert_eq!(scan(table, true), entries)));
            // The file is in memory now, but the new mapping is not: this measures page faults and
            // checksums without the disk.
            let opened = with_table(&path, |table| timed(|| scan(table, false)));
            let again = with_table(&path, |table| {
                scan(table, false);
                timed(|| scan(table, false))
            });
            println!(
                "  first {FIRST_GETS} gets {:.0} ms, {count} gets {:.0} ms, first {FIRST_GETS} in batches {:.0} ms, {count} in batches \
                 {:.0} ms, scan {:.0} ms, reverse {:.0} ms; scan after opening {:.0} ms, again {:.1} ms",
                first_gets * 1e3,
                gets * 1e3,
                first_batches * 1e3,
                batches * 1e3,
                forward * 1e3,
                backward * 1e3,
                opened * 1e3,
                again * 1e3
            );
        }
        std::fs::remove_file(&path).expect("removed");
    }
}

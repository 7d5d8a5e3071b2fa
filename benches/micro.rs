//! Micro benchmarks: the cost of single calls of Mapleaf.
//!
//! ```sh
//! cargo bench --bench micro                   # all of them, some seconds
//! cargo bench --bench micro -- get            # those with `get` in their name
//! ```
//!
//! Keys are those of `benches/peers/`: R is random, S1 and S2 are text with constant parts.
//! Databases are real files in the folder for temporary files; to measure commits, put it on a disk
//! (TMPDIR). Every read value is compared with the stored one.

use std::hint::black_box;

use divan::counter::ItemsCount;
use divan::{Bencher, Divan};
use mapleaf::{Db, ReadTxn, Table};
use tempfile::TempDir;

const ENTRIES: u64 = 100_000;
const VALUE_BYTES: usize = 150;
const TABLE: Table<&[u8], &[u8]> = Table::new("bench");

fn main() {
    Divan::from_args().main();
}

/// The form of the keys.
#[derive(Clone, Copy, Debug)]
enum Keys {
    R,
    S1,
    S2,
}

const ALL_KEYS: [Keys; 3] = [Keys::R, Keys::S1, Keys::S2];

/// Scatters its input; different inputs give different outputs.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn key(keys: Keys, number: u64) -> Vec<u8> {
    match keys {
        Keys::R => (0..3).flat_map(|word| mix(number * 3 + word + 1).to_be_bytes()).collect(),
        Keys::S1 => format!("user:{number:08}:name").into_bytes(),
        Keys::S2 => format!("t{:03}/item/{:012}", mix(number) % 200, number).into_bytes(),
    }
}

fn value(number: u64) -> Vec<u8> {
    (0..VALUE_BYTES as u64).map(|at| mix(number ^ at << 32) as u8).collect()
}

/// A database in a temporary folder.
struct Bench {
    db: Db,
    _folder: TempDir,
}

impl Bench {
    fn new(keys: Keys) -> Bench {
        let folder = tempfile::tempdir().expect("a folder for the database");
        let db = Db::open(folder.path().join("micro.mapleaf")).expect("a new database");
        db.write(|txn| -> mapleaf::Result<()> {
            let mut table = txn.table(TABLE)?;
            for number in 0..ENTRIES {
                table.insert(&key(keys, number), &value(number))?;
            }
            Ok(())
        })
        .expect("the entries go in");
        // Pages of a process's own commit count as verified; a scan brings them into the read-only
        // mapping.
        let read = |txn: &ReadTxn| -> mapleaf::Result<_> { Ok(txn.table(TABLE)?.iter().count() as u64) };
        assert_eq!(db.read(read).expect("reads"), ENTRIES);
        Bench { db, _folder: folder }
    }

    fn read(&self) -> ReadTxn {
        self.db.begin_read().expect("a read transaction")
    }
}

/// Numbers of entries in random order, without end.
fn probes() -> impl FnMut() -> u64 {
    let mut state = 1;
    move || {
        state += 1;
        mix(state) % ENTRIES
    }
}

/// All keys and values, generated before the measurement.
fn entries(keys: Keys) -> Vec<(Vec<u8>, Vec<u8>)> {
    (0..ENTRIES).map(|number| (key(keys, number), value(number))).collect()
}

/// One lookup in an open table.
#[divan::bench(args = ALL_KEYS, sample_count = 200, sample_size = 2_000)]
fn get(bencher: Bencher, keys: Keys) {
    let (bench, entries, mut next) = (Bench::new(keys), entries(keys), probes());
    let txn = bench.read();
    let table = txn.table(TABLE).expect("the table");
    bencher.counter(ItemsCount::new(1u64)).with_inputs(|| &entries[next() as usize]).bench_local_refs(|entry| {
        let (key, value) = entry;
        assert_eq!(table.get(key).expect("reads"), Some(&value[..]));
    });
}

/// Begins a read transaction, opens the table, looks up one key, and ends the transaction.
#[divan::bench(sample_count = 200, sample_size = 2_000)]
fn begin_read_and_get(bencher: Bencher) {
    let (bench, entries, mut next) = (Bench::new(Keys::R), entries(Keys::R), probes());
    bencher.counter(ItemsCount::new(1u64)).with_inputs(|| &entries[next() as usize]).bench_local_refs(|entry| {
        let (key, value) = entry;
        let txn = bench.read();
        let table = txn.table(TABLE).expect("the table");
        assert_eq!(table.get(key).expect("reads"), Some(&value[..]));
    });
}

/// Reads all entries in order, and a byte of each value.
#[divan::bench(args = [false, true], sample_count = 30)]
fn scan(bencher: Bencher, reverse: bool) {
    let bench = Bench::new(Keys::R);
    let txn = bench.read();
    let table = txn.table(TABLE).expect("the table");
    let look = |item: mapleaf::Result<(&[u8], &[u8])>| usize::from(item.expect("reads").1[VALUE_BYTES - 1]);
    let scan = || if reverse { table.iter().rev().map(look).sum::<usize>() } else { table.iter().map(look).sum() };
    let expected: usize = (0..ENTRIES).map(|number| usize::from(value(number)[VALUE_BYTES - 1])).sum();
    bencher.counter(ItemsCount::new(ENTRIES)).bench_local(|| assert_eq!(scan(), expected));
}

/// Overwrites one entry in an open write transaction.
#[divan::bench(args = ALL_KEYS, sample_count = 200, sample_size = 2_000)]
fn put(bencher: Bencher, keys: Keys) {
    let (bench, entries, mut next) = (Bench::new(keys), entries(keys), probes());
    let txn = bench.db.begin_write().expect("a write transaction");
    let mut table = txn.table(TABLE).expect("the table");
    bencher.counter(ItemsCount::new(1u64)).with_inputs(|| &entries[next() as usize]).bench_local_refs(|entry| {
        let (key, value) = entry;
        assert!(table.insert(key, value).expect("goes in").is_some());
    });
}

/// Overwrites one entry in a nested transaction of an open write transaction, which commits.
#[divan::bench(sample_count = 200, sample_size = 2_000)]
fn nested_put(bencher: Bencher) {
    let (bench, entries, mut next) = (Bench::new(Keys::R), entries(Keys::R), probes());
    let mut txn = bench.db.begin_write().expect("a write transaction");
    bencher.counter(ItemsCount::new(1u64)).with_inputs(|| &entries[next() as usize]).bench_local_refs(|entry| {
        let (key, value) = entry;
        let nested = txn.begin_nested().expect("a nested transaction");
        assert!(nested.table(TABLE).expect("the table").insert(key, value).expect("goes in").is_some());
        nested.commit().expect("becomes part of its parent");
    });
}

/// The same without a nested transaction, the table opened each time.
#[divan::bench(sample_count = 200, sample_size = 2_000)]
fn put_and_open(bencher: Bencher) {
    let (bench, entries, mut next) = (Bench::new(Keys::R), entries(Keys::R), probes());
    let txn = bench.db.begin_write().expect("a write transaction");
    bencher.counter(ItemsCount::new(1u64)).with_inputs(|| &entries[next() as usize]).bench_local_refs(|entry| {
        let (key, value) = entry;
        let mut table = txn.table(TABLE).expect("the table");
        assert!(table.insert(key, value).expect("goes in").is_some());
    });
}

/// Sets a savepoint, changes an entry, and goes back, in a transaction that has changed this many
/// pages.
#[divan::bench(args = [100, 100_000], sample_count = 20, sample_size = 100)]
fn savepoint(bencher: Bencher, pages: u64) {
    const PAGES: Table<u64, &[u8]> = Table::new("pages");
    let (bench, page) = (Bench::new(Keys::R), [7; 3500]);
    let mut txn = bench.db.begin_write().expect("a write transaction");
    // Each value takes a page of its own, besides the leaves.
    (0..pages).for_each(|n| assert!(!txn.table(PAGES).expect("the table").put(n, &page).expect("goes in")));
    bencher.bench_local(|| {
        let savepoint = txn.savepoint().expect("a savepoint");
        txn.table(PAGES).expect("the table").put(pages / 2, &page[..900]).expect("goes in");
        txn.rollback_to(&savepoint).expect("goes back");
        txn.release(savepoint).expect("released");
    });
}

/// Overwrites random entries in a durable transaction, which has two flushes.
#[divan::bench(args = [1, 100], sample_count = 20, sample_size = 1)]
fn commit(bencher: Bencher, puts: u64) {
    let (bench, entries, mut next) = (Bench::new(Keys::R), entries(Keys::R), probes());
    bencher.counter(ItemsCount::new(puts)).bench_local(|| {
        let txn = bench.db.begin_write().expect("a write transaction");
        let mut table = txn.table(TABLE).expect("the table");
        for _ in 0..puts {
            let (key, value) = &entries[next() as usize];
            black_box(table.insert(key, value).expect("goes in"));
        }
        txn.commit().expect("becomes durable");
    });
}

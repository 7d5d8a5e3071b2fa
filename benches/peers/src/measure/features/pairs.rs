//! Multimaps: a million pairs of 8 bytes and 8 bytes, of few values for each key and of many.
//!
//! All pairs come in random order, in one durable transaction; the clock stops when the commit has returned. Then the
//! file is closed, its length is taken, and it is opened again. One pass over it makes it warm, and the next one is
//! timed: the values of each key, keys in random order, in one read transaction. `lmdb` reads value by value, as heed
//! does; `lmdb-multiple` reads whole pages of values (`MDB_GET_MULTIPLE`), which heed has no call for. `mapleaf-load`
//! takes the same pairs by `load`.

use super::multiple::Multiple;
use super::shared::{figure, lmdb, Of};
use crate::data::{mix, Rng};
use crate::disk;
use crate::measure::{mib, Run};
use crate::report::{Better, Figure};
use crate::Res;
use heed::DatabaseFlags;
use mapleaf::{Db, MultiTable};
use std::path::Path;
use std::time::Instant;

const TABLE: MultiTable<&[u8], u64> = MultiTable::new("pairs");
const FIXED: DatabaseFlags = DatabaseFlags::DUP_SORT.union(DatabaseFlags::DUP_FIXED);
const SEED: u64 = 7;
const NAMES: [&str; 4] = ["lmdb", "mapleaf", "mapleaf-load", "lmdb-multiple"];

/// How pairs are spread.
struct Spread {
    ids: [&'static str; 4],
    keys: u64,
    values: u64,
}

const SPREADS: [Spread; 3] = [
    Spread { ids: ["pairs_insert", "pairs_scan", "pairs_size", "pairs_scan_bulk"], keys: 10_000, values: 100 },
    Spread { ids: ["few_insert", "few_scan", "few_size", "few_scan_bulk"], keys: 100_000, values: 10 },
    Spread { ids: ["many_insert", "many_scan", "many_size", "many_scan_bulk"], keys: 100, values: 10_000 },
];

type Pair = ([u8; 8], [u8; 8]);

impl Spread {
    fn pairs(&self) -> Vec<Pair> {
        let mut ids: Vec<u32> = (0..(self.keys * self.values) as u32).collect();
        Rng::new(SEED).shuffle(&mut ids);
        let pair = |id: u32| (key(u64::from(id) % self.keys), mix(u64::from(id) + 1).to_be_bytes());
        ids.into_iter().map(pair).collect()
    }

    fn keys_in_random_order(&self) -> Vec<[u8; 8]> {
        let mut ids: Vec<u32> = (0..self.keys as u32).collect();
        Rng::new(SEED + 1).shuffle(&mut ids);
        ids.into_iter().map(|id| key(u64::from(id))).collect()
    }
}

fn key(id: u64) -> [u8; 8] {
    mix(id + (1 << 40)).to_be_bytes()
}

pub(super) fn figures(run: &Run<'_>) -> Res<Vec<Figure>> {
    let mut figures = Vec::new();
    for spread in &SPREADS {
        figures.extend(of_spread(run, spread)?);
    }
    Ok(figures)
}

fn of_spread(run: &Run<'_>, spread: &Spread) -> Res<Vec<Figure>> {
    let (pairs, keys) = (spread.pairs(), spread.keys_in_random_order());
    let count = pairs.len() as f64;
    let expected = pairs.iter().fold(0u64, |sum, (_, value)| sum.wrapping_add(u64::from_be_bytes(*value)));
    let mut values: [[Vec<f64>; 4]; 3] = Default::default();
    for round in 0..=run.options.rounds {
        for (i, name) in NAMES.iter().enumerate() {
            let path = run.scratch.file("pairs", name);
            disk::remove(&path)?;
            disk::settle(run.scratch.path())?;
            let seconds = match *name {
                "mapleaf" => insert_mapleaf(&path, &pairs)?,
                "mapleaf-load" => load_mapleaf(&path, &pairs)?,
                _ => insert_lmdb(&path, &pairs)?,
            };
            let length = disk::file_bytes(&path)?.0;
            let scan = match *name {
                "lmdb" => scan_lmdb(&path, &keys, expected),
                "lmdb-multiple" => scan_lmdb_multiple(&path, &keys, expected),
                _ => scan_mapleaf(&path, &keys, expected),
            };
            let scan = scan.map_err(|e| format!("{name}: {e}"))?;
            disk::remove(&path)?;
            if round > 0 {
                values[0][i].push(count / seconds);
                values[1][i].push(count / scan);
                values[2][i].push(mib(length));
            }
        }
    }
    let shape = format!("{} values of 8 bytes for each of {} keys", spread.values, spread.keys);
    let of = |at: usize, title: &str, unit, better| {
        let title = format!("{title} ({shape})");
        let entries = spread.keys * spread.values;
        let of = Of { id: spread.ids[at], title: &title, unit, better, versus: "lmdb", entries };
        figure(of, &NAMES[..3], &values[at][..3])
    };
    let insert = of(0, "pairs in random order, one durable transaction", "pairs/s", Better::Higher);
    let scan = of(1, "scan of a key's values, one by one", "values/s", Better::Higher);
    let size = of(2, "file after that transaction, closed", "MiB", Better::Lower);
    let title = format!("the same beside LMDB's reads of whole pages ({shape})");
    let bulk = Of {
        id: spread.ids[3],
        title: &title,
        unit: "values/s",
        better: Better::Higher,
        versus: "lmdb-multiple",
        entries: spread.keys * spread.values,
    };
    let rows = [values[1][1].clone(), values[1][3].clone()];
    Ok(vec![insert, scan, size, figure(bulk, &["mapleaf", "lmdb-multiple"], &rows)])
}

/// Seconds of the transaction.
fn insert_lmdb(path: &Path, pairs: &[Pair]) -> Res<f64> {
    let store = lmdb(path, FIXED)?;
    let start = Instant::now();
    let mut txn = store.env.write_txn()?;
    for (key, value) in pairs {
        store.db.put(&mut txn, key, value)?;
    }
    txn.commit()?;
    let seconds = start.elapsed().as_secs_f64();
    store.close();
    Ok(seconds)
}

fn insert_mapleaf(path: &Path, pairs: &[Pair]) -> Res<f64> {
    let db = Db::open(path)?;
    let start = Instant::now();
    let txn = db.begin_write()?;
    let mut table = txn.multi_table(TABLE)?;
    for (key, value) in pairs {
        table.insert(key, u64::from_be_bytes(*value))?;
    }
    drop(table);
    txn.commit()?;
    Ok(start.elapsed().as_secs_f64())
}

fn load_mapleaf(path: &Path, pairs: &[Pair]) -> Res<f64> {
    let db = Db::open(path)?;
    let start = Instant::now();
    let txn = db.begin_write()?;
    txn.multi_table(TABLE)?.load(pairs.iter().map(|(key, value)| (&key[..], u64::from_be_bytes(*value))))?;
    txn.commit()?;
    Ok(start.elapsed().as_secs_f64())
}

/// Runs a scan twice, and returns the seconds of the second time.
fn second(expected: u64, mut scan: impl FnMut() -> Res<u64>) -> Res<f64> {
    let mut seconds = 0.0;
    for _ in 0..2 {
        let start = Instant::now();
        if scan()? != expected {
            return Err("the values of all keys do not add up".into());
        }
        seconds = start.elapsed().as_secs_f64();
    }
    Ok(seconds)
}

fn scan_lmdb(path: &Path, keys: &[[u8; 8]], expected: u64) -> Res<f64> {
    let store = lmdb(path, FIXED)?;
    let seconds = second(expected, || {
        let (txn, mut sum) = (store.env.read_txn()?, 0u64);
        for key in keys {
            let Some(values) = store.db.get_duplicates(&txn, key)? else { return Err("a key is missing".into()) };
            for item in values {
                sum = sum.wrapping_add(number(item?.1)?);
            }
        }
        Ok(sum)
    })?;
    store.close();
    Ok(seconds)
}

fn number(value: &[u8]) -> Res<u64> {
    Ok(u64::from_be_bytes(value.try_into()?))
}

/// Like [`scan_lmdb`], by the calls that give out whole pages of values.
fn scan_lmdb_multiple(path: &Path, keys: &[[u8; 8]], expected: u64) -> Res<f64> {
    let store = Multiple::open(path)?;
    second(expected, || {
        let cursor = store.cursor()?;
        keys.iter().try_fold(0u64, |sum, key| Ok(sum.wrapping_add(cursor.sum(key)?)))
    })
}

fn scan_mapleaf(path: &Path, keys: &[[u8; 8]], expected: u64) -> Res<f64> {
    let db = Db::open(path)?;
    second(expected, || {
        let (table, mut sum) = (db.begin_read()?.multi_table(TABLE)?, 0u64);
        for key in keys {
            for value in table.values(key)? {
                sum = sum.wrapping_add(value?);
            }
        }
        Ok(sum)
    })
}

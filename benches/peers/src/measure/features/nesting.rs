//! Transactions inside a transaction, and savepoints: what they cost beside the work that is done in them.
//!
//! `nested`: entries are overwritten in random order in one transaction, first one put after the other, then each in a
//! transaction inside it that begins and commits; the figure is the difference for each. `savepoint`: the time of the
//! call in a transaction that has dirtied at least 100,000 pages; LMDB begins a transaction inside.

use super::shared::{figure, lmdb, Of};
use crate::data::{mix, Pairs};
use crate::disk;
use crate::measure::processes::{copy, rounds};
use crate::measure::{Run, REMOVE_SEED};
use crate::report::{Better, Figure};
use crate::Res;
use heed::DatabaseFlags;
use mapleaf::{Db, Table};
use std::time::Instant;

const TABLE: Table<&[u8], &[u8]> = Table::new("main");
const NAMES: [&str; 2] = ["lmdb", "mapleaf"];
/// Puts of each kind.
const PUTS: usize = 100_000;
/// Values of four to a page, so many that 100,000 pages are dirty.
const DIRTY_ENTRIES: u64 = 420_000;
const DIRTY_BYTES: usize = 900;
/// Calls of which the median counts.
const CALLS: usize = 9;

/// Microseconds of each step of a list.
fn each(count: usize, start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e6 / count as f64
}

pub(super) fn nested(run: &Run<'_>) -> Res<Vec<Figure>> {
    let ids = run.data.shuffled(REMOVE_SEED);
    let ids = &ids[..PUTS.min(ids.len())];
    let shape = run.data.shape;
    let values = rounds(run, 2, |i, _| {
        let path = copy(run, NAMES[i], NAMES[i])?;
        let more = match i {
            0 => {
                let store = lmdb(&path, DatabaseFlags::empty())?;
                let mut txn = store.env.write_txn()?;
                let plain = {
                    let (mut pairs, start) = (Pairs::listed(shape, ids, 1), Instant::now());
                    while let Some((key, value)) = pairs.next() {
                        store.db.put(&mut txn, key, value)?;
                    }
                    each(ids.len(), start)
                };
                let (mut pairs, start) = (Pairs::listed(shape, ids, 2), Instant::now());
                while let Some((key, value)) = pairs.next() {
                    let mut inside = store.env.nested_write_txn(&mut txn)?;
                    store.db.put(&mut inside, key, value)?;
                    inside.commit()?;
                }
                let more = each(ids.len(), start) - plain;
                txn.abort();
                store.close();
                more
            }
            _ => {
                let db = Db::open(&path)?;
                let mut txn = db.begin_write()?;
                let plain = {
                    let mut table = txn.table(TABLE)?;
                    let (mut pairs, start) = (Pairs::listed(shape, ids, 1), Instant::now());
                    while let Some((key, value)) = pairs.next() {
                        table.put(key, value)?;
                    }
                    each(ids.len(), start)
                };
                let (mut pairs, start) = (Pairs::listed(shape, ids, 2), Instant::now());
                while let Some((key, value)) = pairs.next() {
                    let inside = txn.begin_nested()?;
                    inside.table(TABLE)?.put(key, value)?;
                    inside.commit()?;
                }
                each(ids.len(), start) - plain
            }
        };
        disk::remove(&path)?;
        Ok(more)
    })?;
    let title = "begin, one put and commit inside a transaction, less a put";
    let (unit, better, versus) = ("us", Better::Lower, NAMES[0]);
    let of = Of { id: "nested", title, unit, better, versus, entries: u64::from(run.data.entries) };
    Ok(vec![figure(of, &NAMES, &values)])
}

pub(super) fn savepoint(run: &Run<'_>) -> Res<Vec<Figure>> {
    let value = [7; DIRTY_BYTES];
    let key = |at: u64| mix(at).to_be_bytes();
    let values = rounds(run, 2, |i, _| {
        let path = run.scratch.file("savepoint", NAMES[i]);
        disk::remove(&path)?;
        let mut times = Vec::new();
        match i {
            0 => {
                let store = lmdb(&path, DatabaseFlags::empty())?;
                let mut txn = store.env.write_txn()?;
                for at in 0..DIRTY_ENTRIES {
                    store.db.put(&mut txn, &key(at), &value)?;
                }
                for _ in 0..CALLS {
                    let start = Instant::now();
                    let inside = store.env.nested_write_txn(&mut txn)?;
                    times.push(start.elapsed().as_secs_f64() * 1e3);
                    inside.abort();
                }
                txn.abort();
                store.close();
            }
            _ => {
                let db = Db::open(&path)?;
                let mut txn = db.begin_write()?;
                let mut table = txn.table(TABLE)?;
                for at in 0..DIRTY_ENTRIES {
                    table.put(&key(at), &value)?;
                }
                drop(table);
                for at in 0..CALLS as u64 {
                    let start = Instant::now();
                    let savepoint = txn.savepoint()?;
                    times.push(start.elapsed().as_secs_f64() * 1e3);
                    txn.table(TABLE)?.put(&key(at), b"changed")?;
                    txn.rollback_to(&savepoint)?;
                }
            }
        }
        disk::remove(&path)?;
        Ok(crate::report::median(&times))
    })?;
    let title = "a savepoint in a transaction with 100,000 dirty pages; LMDB: a transaction inside begins";
    let (unit, better, versus) = ("ms", Better::Lower, NAMES[0]);
    let of = Of { id: "savepoint", title, unit, better, versus, entries: DIRTY_ENTRIES };
    Ok(vec![figure(of, &NAMES, &values)])
}

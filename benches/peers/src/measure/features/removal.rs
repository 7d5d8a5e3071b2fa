//! Many entries removed in one transaction: half of all as a range, every second one by a predicate, and the first ones,
//! one after the other.
//!
//! Each round takes a fresh copy of the loaded file (`Run::base`), so every removal copies the pages that it changes; only
//! `remove_range` works on a file that the same process has loaded, and `remove_range_copy` says what a copy makes of it,
//! whose leaves have to be verified first. The clock runs while entries are removed, from after the transaction has begun; what is left is counted. Commits are
//! outside, but for `remove_range_commit`: a commit that does not wait for the disk (`Durability::Eventual`), after the
//! range was removed, less such a commit of one put.

use super::shared::{figure, lmdb, Of};
use crate::data::Pairs;
use crate::disk;
use crate::measure::processes::copy;
use crate::measure::Run;
use crate::report::{Better, Figure};
use crate::Res;
use heed::DatabaseFlags;
use mapleaf::{Db, Durability, Table};
use std::path::Path;
use std::time::Instant;

const TABLE: Table<&[u8], &[u8]> = Table::new("main");
const POPS: usize = 100_000;

/// The keys of all entries in order.
fn sorted_keys(run: &Run<'_>) -> Vec<Vec<u8>> {
    let ids = run.data.sorted();
    let (mut pairs, mut keys) = (Pairs::listed(run.data.shape, &ids, 0), Vec::with_capacity(ids.len()));
    while let Some((key, _)) = pairs.next() {
        keys.push(key.to_vec());
    }
    keys
}

/// Runs a removal on a fresh copy of Mapleaf's file. Returns seconds of it, and of a commit without flushes after it.
fn in_mapleaf(
    run: &Run<'_>,
    left: usize,
    remove: impl FnOnce(&mut mapleaf::TableMut<'_, &'static [u8], &'static [u8]>) -> Res<f64>,
) -> Res<(f64, f64)> {
    let path = copy(run, "mapleaf", "mapleaf")?;
    removed_in(&path, Db::open(&path)?, left, remove)
}

/// The same on a file that this process loads, in order, in a transaction before.
fn in_own_mapleaf(
    run: &Run<'_>,
    left: usize,
    remove: impl FnOnce(&mut mapleaf::TableMut<'_, &'static [u8], &'static [u8]>) -> Res<f64>,
) -> Res<(f64, f64)> {
    let path = run.scratch.file("own", "mapleaf");
    disk::remove(&path)?;
    let db = Db::open(&path)?;
    let txn = db.begin_write()?;
    let mut table = txn.table(TABLE)?;
    let mut loader = table.loader()?;
    let ids = run.data.sorted();
    let mut pairs = Pairs::listed(run.data.shape, &ids, 0);
    while let Some((key, value)) = pairs.next() {
        loader.push(key, value)?;
    }
    loader.finish()?;
    drop(table);
    txn.commit()?;
    disk::settle(run.scratch.path())?;
    removed_in(&path, db, left, remove)
}

fn removed_in(
    path: &Path,
    db: Db,
    left: usize,
    remove: impl FnOnce(&mut mapleaf::TableMut<'_, &'static [u8], &'static [u8]>) -> Res<f64>,
) -> Res<(f64, f64)> {
    let mut txn = db.begin_write()?;
    txn.set_durability(Durability::Eventual);
    let mut table = txn.table(TABLE)?;
    let seconds = remove(&mut table)?;
    if table.len() != left as u64 {
        return Err(format!("{} entries are left, expected {left}", table.len()).into());
    }
    drop(table);
    let start = Instant::now();
    txn.commit()?;
    let commit = start.elapsed().as_secs_f64();
    drop(db);
    disk::remove(path)?;
    Ok((seconds, commit))
}

/// Deletes entries of LMDB by a cursor, from the first one on: those for which `goes` says so, until it says nothing.
fn by_cursor(run: &Run<'_>, left: usize, mut goes: impl FnMut(usize) -> Option<bool>) -> Res<f64> {
    let path = copy(run, "lmdb", "lmdb")?;
    let store = lmdb(&path, DatabaseFlags::empty())?;
    let mut txn = store.env.write_txn()?;
    let start = Instant::now();
    let mut entries = store.db.iter_mut(&mut txn)?;
    let mut at = 0;
    while let Some(entry) = entries.next() {
        std::hint::black_box(entry?);
        match goes(at) {
            // SAFETY: no reference into the database is kept.
            Some(true) => drop(unsafe { entries.del_current()? }),
            Some(false) => {}
            None => break,
        }
        at += 1;
    }
    drop(entries);
    let seconds = start.elapsed().as_secs_f64();
    let found = store.db.len(&txn)?;
    if found != left as u64 {
        return Err(format!("{found} entries of LMDB are left, expected {left}").into());
    }
    txn.abort();
    store.close();
    disk::remove(&path)?;
    Ok(seconds)
}

/// Calls `take` for each of some rows in turn, round by round; values are those of rounds that count.
fn turns<const N: usize>(run: &Run<'_>, mut take: impl FnMut(usize) -> Res<f64>) -> Res<Vec<Vec<f64>>> {
    crate::measure::processes::rounds(run, N, |i, _| take(i))
}

/// The middle half of all keys, as a range and one by one.
pub(super) fn range(run: &Run<'_>) -> Res<Vec<Figure>> {
    let keys = sorted_keys(run);
    let (from, to) = (keys.len() / 4, keys.len() / 4 + keys.len() / 2);
    let (gone, left) = ((to - from) as f64, keys.len() - (to - from));
    let (mut commits, mut puts) = (Vec::new(), Vec::new());
    let by_key = |table: &mut mapleaf::TableMut<'_, &'static [u8], &'static [u8]>| {
        let start = Instant::now();
        for key in &keys[from..to] {
            table.remove(key)?;
        }
        Ok(start.elapsed().as_secs_f64())
    };
    let by_range = |table: &mut mapleaf::TableMut<'_, &'static [u8], &'static [u8]>| {
        let start = Instant::now();
        table.remove_range(keys[from].as_slice()..keys[to].as_slice())?;
        Ok(start.elapsed().as_secs_f64())
    };
    let names = ["mapleaf-by-key", "mapleaf", "mapleaf-by-key", "mapleaf", "lmdb-cursor"];
    let values = turns::<5>(run, |i| {
        let (seconds, _) = match i {
            0 => in_own_mapleaf(run, left, by_key)?,
            1 => {
                let (seconds, commit) = in_own_mapleaf(run, left, by_range)?;
                let (_, put) = in_own_mapleaf(run, keys.len(), |table| {
                    table.put(&keys[0], b"a value")?;
                    Ok(0.0)
                })?;
                commits.push(commit * 1e3);
                puts.push(put * 1e3);
                (seconds, commit)
            }
            2 => in_mapleaf(run, left, by_key)?,
            3 => in_mapleaf(run, left, by_range)?,
            _ => (by_cursor(run, left, |at| if at < to { Some(at >= from) } else { None })?, 0.0),
        };
        Ok(gone / seconds)
    })?;
    let entries = keys.len() as u64;
    let title = format!("half of {entries} entries, loaded by this process, removed as a range; and one by one");
    let (unit, better, versus) = ("entries/s", Better::Higher, names[0]);
    let of = Of { id: "remove_range", title: &title, unit, better, versus, entries };
    let removal = figure(of, &names[..2], &values[..2]);
    let title = format!("the same in a file that was opened just before; by LMDB's cursor ({entries} entries)");
    let in_copy = figure(Of { id: "remove_range_copy", title: &title, ..of }, &names[2..], &values[2..]);
    let title = "commit after that range was removed, no flush, less a commit of one put";
    let (unit, better, versus) = ("ms", Better::Lower, "nothing");
    let of = Of { id: "remove_range_commit", title, unit, better, versus, entries };
    let more = commits.iter().zip(&puts).skip(1).map(|(commit, put)| commit - put).collect();
    Ok(vec![removal, in_copy, figure(of, &["mapleaf"], &[more])])
}

/// Every second entry.
pub(super) fn retain(run: &Run<'_>) -> Res<Vec<Figure>> {
    let keys = sorted_keys(run);
    let (gone, left) = (keys.len() / 2, keys.len() - keys.len() / 2);
    let names = ["mapleaf-by-key", "mapleaf", "lmdb-cursor"];
    let values = turns::<3>(run, |i| {
        let seconds = match i {
            0 => in_mapleaf(run, left, |table| {
                let start = Instant::now();
                for key in keys.iter().skip(1).step_by(2) {
                    table.remove(key)?;
                }
                Ok(start.elapsed().as_secs_f64())
            })?,
            1 => in_mapleaf(run, left, |table| {
                let start = Instant::now();
                let mut at = 0;
                table.retain(|_, _| {
                    at += 1;
                    at % 2 == 1
                })?;
                Ok(start.elapsed().as_secs_f64())
            })?,
            _ => (by_cursor(run, left, |at| Some(at % 2 == 1))?, 0.0),
        };
        Ok(gone as f64 / seconds.0)
    })?;
    let entries = keys.len() as u64;
    let title = format!("every second of {entries} entries removed: by retain; by key; by LMDB's cursor");
    let of = Of { id: "retain", title: &title, unit: "entries/s", better: Better::Higher, versus: names[0], entries };
    Ok(vec![figure(of, &names, &values)])
}

/// The first entries, one after the other.
pub(super) fn pop(run: &Run<'_>) -> Res<Vec<Figure>> {
    let entries = run.data.entries as usize;
    let pops = POPS.min(entries / 2);
    let mut halves = Vec::new();
    let values = turns::<2>(run, |i| {
        let seconds = match i {
            0 => by_cursor(run, entries - pops, |at| (at < pops).then_some(true))?,
            _ => {
                let (seconds, _) = in_mapleaf(run, entries - pops, |table| {
                    let mut times = [0.0; 2];
                    for time in &mut times {
                        let start = Instant::now();
                        for _ in 0..pops / 2 {
                            std::hint::black_box(table.pop_first()?).ok_or("the table is empty")?;
                        }
                        *time = start.elapsed().as_secs_f64();
                    }
                    halves.push(times);
                    Ok(times[0] + times[1])
                })?;
                seconds
            }
        };
        Ok(pops as f64 / seconds)
    })?;
    let title = format!("{pops} first entries of {entries} removed and returned, one after the other");
    let (unit, better, entries) = ("entries/s", Better::Higher, entries as u64);
    let of = Of { id: "pop", title: &title, unit, better, versus: "lmdb", entries };
    let popped = figure(of, &["lmdb", "mapleaf"], &values);
    let rate = |half: usize| halves.iter().skip(1).map(|times| (pops / 2) as f64 / times[half]).collect();
    let title = "the second half of them beside the first half";
    let of = Of { id: "pop_halves", title, unit, better, versus: "mapleaf-first", entries };
    Ok(vec![popped, figure(of, &["mapleaf-first", "mapleaf"], &[rate(0), rate(1)])])
}

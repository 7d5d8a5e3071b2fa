//! Fuzzing of operations: takes any bytes as operations on a database, and compares the results
//! with a model of maps.
//!
//! Floor: testing. Several tables and multimaps, short and long keys, values from nothing to many
//! pages, aborts, savepoints and nested transactions, dropped and renamed tables, snapshots that
//! stay open and named ones, which are compared with the maps as they were, reopening of the file,
//! and `check` at the end. Does not cover several threads, crashes, a full disk, damage.
//!
//! ```text
//! pairs    steps of multimaps
//! cursors  two cursors that are alive at once, each with its place in a map
//! ```

mod cursors;
mod pairs;

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::db::{Db, Options};
use crate::error::Result;
use crate::limits::{max_inline_key_bytes, MAX_KEY_BYTES};
use crate::table::{Entry, TableMut};
use crate::testing::input::{filled, Input};
use crate::testing::temp_path::TempPath;
use crate::txn::read::snapshot::ReadTxn;
use crate::txn::write::savepoints::Savepoint;
use crate::txn::write::shared::WriteTxn;

use pairs::Multis;

/// Open snapshots at a time. The oldest ends first.
const SNAPSHOTS_MAX: usize = 4;
const TABLES: [&str; 3] = ["apples", "birches", "cedars"];

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// What all tables and multimaps hold.
#[derive(Clone, Default)]
struct Model {
    tables: BTreeMap<&'static str, Entries>,
    multis: Multis,
}

/// Names of named snapshots.
const NAMED: [&str; 3] = ["first", "second", "third"];
/// Transactions inside each other.
const DEPTH_MAX: usize = 4;

/// Executes the operations. The first byte chooses the page size, and a database in memory or in a
/// file.
pub fn fuzz_ops(data: &[u8]) {
    let mut input = Input::new(data);
    let first = input.byte();
    let page_size = [4096, 8192, 4096, 8192, 16384, 32768, 4096, 8192][usize::from(first & 1 | first >> 2 & 6)];
    let mut run = Trial::new(page_size, first & 6 == 0).expect("a new database");
    while !input.is_empty() {
        run.transaction(&mut input).expect("operations within the limits succeed");
    }
    run.finish().expect("a whole database");
}

/// A database, and the model that it must agree with.
struct Trial {
    db: Option<Db>,
    page_size: u32,
    file: Option<TempPath>,
    committed: Model,
    snapshots: Vec<(ReadTxn, Model)>,
    named: BTreeMap<&'static str, Model>,
}

impl Trial {
    fn new(page_size: u32, in_file: bool) -> Result<Trial> {
        let options = Options::new().page_size(page_size);
        let (db, file) = if in_file {
            let file = TempPath::new();
            (options.open(&file.0)?, Some(file))
        } else {
            (options.in_memory()?, None)
        };
        let (committed, snapshots, named) = Default::default();
        Ok(Trial { db: Some(db), page_size, file, committed, snapshots, named })
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("open between transactions")
    }

    /// The longest key that lies in its page.
    fn key_max(&self) -> usize {
        max_inline_key_bytes(self.page_size as usize)
    }

    /// Executes operations until one ends the transaction.
    fn transaction(&mut self, input: &mut Input<'_>) -> Result<()> {
        let mut txn = self.db().begin_write()?;
        let mut model = self.committed.clone();
        let mut savepoints: Vec<(Savepoint, Model)> = Vec::new();
        while !input.is_empty() {
            match input.byte() % 64 {
                0..=3 => {
                    txn.commit()?;
                    self.committed = model;
                    return Ok(());
                }
                4 => return Ok(()),
                5 => {
                    drop(txn);
                    return self.reopen();
                }
                6 | 7 => self.snapshot()?,
                8 => self.read_snapshot(input)?,
                9 => savepoints.push((txn.savepoint()?, model.clone())),
                10 | 11 => roll_back(&mut txn, &mut model, &mut savepoints, input)?,
                12..=14 => nested(&mut txn, &mut model, input, self.key_max(), DEPTH_MAX)?,
                15 | 16 => {
                    drop(txn);
                    return self.change_named(input);
                }
                what => step(&mut txn, &mut model, input, what, self.key_max())?,
            }
        }
        Ok(())
    }

    /// Creates, reads, restores or drops a named snapshot.
    fn change_named(&mut self, input: &mut Input<'_>) -> Result<()> {
        let name = NAMED[usize::from(input.byte()) % NAMED.len()];
        match (input.byte() % 8, self.named.get(name).cloned()) {
            (0..=2, there) => {
                assert_eq!(self.db().create_snapshot(name).is_ok(), there.is_none(), "to create {name}");
                self.named.entry(name).or_insert_with(|| self.committed.clone());
            }
            (3, there) => {
                assert_eq!(self.db().drop_snapshot(name).is_ok(), there.is_some(), "to drop {name}");
                self.named.remove(name);
            }
            (4, Some(model)) => {
                self.db().restore_snapshot(name)?;
                self.committed = model;
            }
            (_, Some(model)) => compare(&self.db().read_snapshot(name)?, &model)?,
            (_, None) => {
                assert!(self.db().read_snapshot(name).is_err() && self.db().restore_snapshot(name).is_err(), "{name}");
            }
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Result<()> {
        if self.snapshots.len() == SNAPSHOTS_MAX {
            let (txn, model) = self.snapshots.remove(0);
            compare(&txn, &model)?;
        }
        self.snapshots.push((self.db().begin_read()?, self.committed.clone()));
        Ok(())
    }

    fn read_snapshot(&self, input: &mut Input<'_>) -> Result<()> {
        let (index, name) = (usize::from(input.byte()), table(input));
        let key = key(input, self.key_max());
        let Some((txn, model)) = self.snapshots.get(index % self.snapshots.len().max(1)) else { return Ok(()) };
        let expected = model.tables.get(name).and_then(|entries| entries.get(&key));
        assert_eq!(txn.bytes_table(name)?.get(&key)?, expected.map(Vec::as_slice), "{name} {key:?}");
        Ok(())
    }

    /// Closes the database, opens it read-only, and opens it for writing again.
    fn reopen(&mut self) -> Result<()> {
        for (txn, model) in std::mem::take(&mut self.snapshots) {
            compare(&txn, &model)?;
        }
        let Some(file) = &self.file else { return Ok(()) };
        self.db = None;
        let read_only = Options::new().read_only(true).open(&file.0)?;
        compare(&read_only.begin_read()?, &self.committed)?;
        drop(read_only);
        self.db = Some(Db::open_existing(&file.0)?);
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        for (txn, model) in std::mem::take(&mut self.snapshots) {
            compare(&txn, &model)?;
        }
        compare(&self.db().begin_read()?, &self.committed)?;
        for (name, model) in &self.named {
            compare(&self.db().read_snapshot(name)?, model)?;
        }
        let report = self.db().check()?;
        assert!(report.is_clean(), "{report:?}");
        self.reopen()
    }
}

fn table(input: &mut Input<'_>) -> &'static str {
    TABLES[usize::from(input.byte()) % TABLES.len()]
}

/// A key, of which one in eight is long. `key_max` is the longest one that lies in its page.
fn key(input: &mut Input<'_>, key_max: usize) -> Vec<u8> {
    let mut key = input.key(key_max);
    let long = input.byte();
    if long >= 0xe0 {
        let len = [key_max + 1, key_max + 1 + input.u16() % 5000, MAX_KEY_BYTES][usize::from(long) % 3];
        let end = key.pop();
        key.resize(len, b'l');
        key.splice(len - 1.., end);
        key.truncate(MAX_KEY_BYTES);
    }
    key
}

/// Goes back to a savepoint, or gives it up.
fn roll_back(
    txn: &mut WriteTxn,
    model: &mut Model,
    savepoints: &mut Vec<(Savepoint, Model)>,
    input: &mut Input<'_>,
) -> Result<()> {
    let (at, gives_up) = (usize::from(input.byte()), input.byte().is_multiple_of(4));
    if savepoints.is_empty() {
        return Ok(());
    }
    let at = at % savepoints.len();
    if gives_up {
        txn.release(savepoints[at].0)?;
        savepoints.truncate(at);
        return Ok(());
    }
    txn.rollback_to(&savepoints[at].0)?;
    for (gone, _) in savepoints.split_off(at + 1) {
        assert!(txn.rollback_to(&gone).is_err(), "a savepoint that was given up");
    }
    model.clone_from(&savepoints[at].1);
    Ok(())
}

/// A transaction inside another one: some steps, then it commits or is aborted.
fn nested(txn: &mut WriteTxn, model: &mut Model, input: &mut Input<'_>, key_max: usize, depth: usize) -> Result<()> {
    let (before, steps, ends) = (model.clone(), input.byte() % 8, input.byte());
    let mut inner = txn.begin_nested()?;
    for _ in 0..steps {
        match input.byte() % 64 {
            12..=14 if depth > 0 => nested(&mut inner, model, input, key_max, depth - 1)?,
            what => step(&mut inner, model, input, what, key_max)?,
        }
    }
    if ends.is_multiple_of(2) {
        return inner.commit();
    }
    inner.abort();
    *model = before;
    Ok(())
}

/// A change of tables, or something that is read.
fn step(txn: &mut WriteTxn, model: &mut Model, input: &mut Input<'_>, what: u8, key_max: usize) -> Result<()> {
    match what {
        17 | 18 => drop_or_rename(txn, model, input),
        19..=21 => range(txn, model, input, key_max),
        22..=25 => cursors::run(txn, model, input, key_max),
        26..=45 => pairs::step(txn, &mut model.multis, input, key_max),
        _ => change(txn, model, input, key_max),
    }
}

/// A value. Most are small, some are near the limit of a leaf, some take many pages.
fn value(input: &mut Input<'_>) -> Vec<u8> {
    let kind = input.byte();
    let len = match kind % 8 {
        0 => input.u16(),
        1 => 900 + usize::from(input.byte()),
        2 | 3 => input.u16() % 700,
        _ => usize::from(kind >> 3),
    };
    filled(kind, len)
}

fn change(txn: &mut WriteTxn, model: &mut Model, input: &mut Input<'_>, key_max: usize) -> Result<()> {
    let (name, what) = (table(input), input.byte());
    let key = key(input, key_max);
    let mut table = txn.bytes_table(name)?;
    let entries = model.tables.entry(name).or_default();
    match 12 + what % 20 {
        12 | 13 => assert_eq!(table.get(&key)?, entries.get(&key).map(Vec::as_slice)),
        14..=18 => assert_eq!(table.remove(&key)?, entries.remove(&key)),
        // Many entries for few bytes of input, so that trees get several levels.
        19 => {
            let (from, count, value) = (input.u16(), usize::from(input.byte()), value(input));
            for number in from..from + count {
                let key = format!("user:{number:08}").into_bytes();
                assert_eq!(table.insert(&key, &value)?, entries.insert(key, value.clone()));
            }
        }
        20 => {
            let (from, count, step) = (input.u16(), usize::from(input.byte()), 1 + usize::from(input.byte() % 4));
            for number in (from..from + count).step_by(step) {
                let key = format!("user:{number:08}").into_bytes();
                assert_eq!(table.remove(&key)?, entries.remove(&key));
            }
        }
        21 => {
            let last = entries.last_key_value().map(|(key, _)| key.clone());
            let value = value(input);
            if last.is_none_or(|last| last < key) {
                table.append(&key, &value)?;
                entries.insert(key, value);
            } else {
                assert!(table.append(&key, &value).is_err(), "only ascending keys are appended");
            }
        }
        22 => {
            let pair = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
            let owned = |(key, value): (&[u8], &[u8])| (key.to_vec(), value.to_vec());
            assert_eq!(table.first()?.map(owned), entries.first_key_value().map(pair));
            assert_eq!(table.last()?.map(owned), entries.last_key_value().map(pair));
        }
        23 => remove_range(&mut table, entries, key, self::key(input, key_max))?,
        24 => put_all(&mut table, entries, input, key_max)?,
        25 => entry(&mut table, entries, &key, input)?,
        _ => {
            let value = value(input);
            assert_eq!(table.insert(&key, &value)?, entries.insert(key, value));
        }
    }
    assert_eq!(table.len(), entries.len() as u64);
    Ok(())
}

type BytesTable<'t> = TableMut<'t, &'static [u8], &'static [u8]>;

/// Looks up an entry, then decides.
fn entry(table: &mut BytesTable<'_>, entries: &mut Entries, key: &[u8], input: &mut Input<'_>) -> Result<()> {
    let (what, value) = (input.byte(), value(input));
    match (what % 3, table.entry(key)?) {
        (0, entry) => {
            let stored = entry.or_insert(&value)?;
            assert_eq!(stored, entries.entry(key.to_vec()).or_insert(value));
        }
        (1, Entry::Occupied(entry)) => assert_eq!(entry.remove()?, entries.remove(key)),
        (_, Entry::Occupied(mut entry)) => {
            assert_eq!(Some(entry.get()?), entries.get(key).map(Vec::as_slice));
            assert_eq!(entry.insert(&value)?, entries.insert(key.to_vec(), value));
        }
        (_, Entry::Vacant(entry)) => {
            assert_eq!(entry.insert(&value)?, value);
            assert_eq!(entries.insert(key.to_vec(), value), None);
        }
    }
    Ok(())
}

fn remove_range(table: &mut BytesTable<'_>, entries: &mut Entries, a: Vec<u8>, b: Vec<u8>) -> Result<()> {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    let before = entries.len();
    entries.retain(|key, _| *key < low || *key >= high);
    assert_eq!(table.remove_range(low.as_slice()..high.as_slice())?, (before - entries.len()) as u64);
    Ok(())
}

fn put_all(table: &mut BytesTable<'_>, entries: &mut Entries, input: &mut Input<'_>, key_max: usize) -> Result<()> {
    let pairs: Vec<(Vec<u8>, Vec<u8>)> = (0..input.byte() % 40).map(|_| (key(input, key_max), value(input))).collect();
    let before = entries.len();
    let new = table.put_all(pairs.iter().map(|(key, value)| (key.as_slice(), value.as_slice())))?;
    entries.extend(pairs);
    assert_eq!(new, (entries.len() - before) as u64);
    Ok(())
}

fn drop_or_rename(txn: &mut WriteTxn, model: &mut Model, input: &mut Input<'_>) -> Result<()> {
    let (from, to, what) = (table(input), table(input), input.byte());
    if what % 4 == 3 {
        let (name, _) = pairs::MULTIS[usize::from(what >> 2) % pairs::MULTIS.len()];
        assert_eq!(txn.drop_table(name)?, model.multis.remove(name).is_some());
        return Ok(());
    }
    let model = &mut model.tables;
    if what.is_multiple_of(2) {
        assert_eq!(txn.drop_table(from)?, model.remove(from).is_some());
        return Ok(());
    }
    let possible = model.contains_key(from) && (from == to || !model.contains_key(to));
    assert_eq!(txn.rename_table(from, to).is_ok(), possible, "{from} to {to}");
    if possible {
        let entries = model.remove(from).unwrap_or_default();
        model.insert(to, entries);
    }
    Ok(())
}

/// A range in both directions, and from both ends to the middle.
fn range(txn: &mut WriteTxn, model: &mut Model, input: &mut Input<'_>, key_max: usize) -> Result<()> {
    let name = table(input);
    let (a, b) = (key(input, key_max), key(input, key_max));
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    let entries = model.tables.entry(name).or_default();
    let bounds = || (Bound::Included(low.as_slice()), Bound::Excluded(high.as_slice()));
    let expected: Vec<(&[u8], &[u8])> =
        entries.range::<[u8], _>(bounds()).map(|(key, value)| (key.as_slice(), value.as_slice())).collect();
    let table = txn.bytes_table(name)?;
    let forward = table.range(bounds())?.collect::<Result<Vec<_>>>()?;
    assert_eq!(forward, expected);
    let mut backward = table.range(bounds())?.rev().collect::<Result<Vec<_>>>()?;
    backward.reverse();
    assert_eq!(backward, expected);
    let mut both = table.range(bounds())?;
    let (mut front, mut back) = (Vec::new(), Vec::new());
    while let Some(item) = both.next() {
        front.push(item?);
        back.extend(both.next_back().transpose()?);
    }
    back.reverse();
    assert_eq!([front, back].concat(), expected);
    Ok(())
}

/// Compares everything that a transaction sees with the model.
fn compare(txn: &ReadTxn, model: &Model) -> Result<()> {
    let names: Vec<String> = txn.tables()?.into_iter().map(|table| table.name).collect();
    let mut expected: Vec<&str> = model.tables.keys().chain(model.multis.keys()).copied().collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
    for (name, pairs) in &model.multis {
        pairs::compare(&txn.multi_bytes_table(name)?, pairs)?;
    }
    for (name, entries) in &model.tables {
        let table = txn.bytes_table(name)?;
        assert_eq!(table.len(), entries.len() as u64);
        let found = table.iter().collect::<Result<Vec<_>>>()?;
        let pairs = entries.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
        assert!(found.iter().copied().eq(pairs.clone()), "{name} differs forwards");
        let found = table.iter().rev().collect::<Result<Vec<_>>>()?;
        assert!(found.into_iter().eq(pairs.rev()), "{name} differs backwards");
        for (key, value) in entries.iter().step_by(1 + entries.len() / 32) {
            assert_eq!(table.get(key)?, Some(value.as_slice()));
        }
    }
    Ok(())
}

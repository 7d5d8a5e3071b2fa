//! Fuzzing of operations: takes any bytes as operations on a database, and compares the results
//! with a model of maps.
//!
//! Floor: testing. Several tables, values from nothing to many pages, aborts, dropped and renamed
//! tables, snapshots that stay open and are compared with the maps as they were, reopening of the
//! file, and `check` at the end. Does not cover several threads, crashes, a full disk, damage.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::db::{Db, Options};
use crate::error::Result;
use crate::limits::max_inline_key_bytes;
use crate::table::TableMut;
use crate::testing::input::{filled, Input};
use crate::testing::temp_path::TempPath;
use crate::txn::read::snapshot::ReadTxn;
use crate::txn::write::shared::WriteTxn;

/// Open snapshots at a time. The oldest ends first.
const SNAPSHOTS_MAX: usize = 4;
const TABLES: [&str; 3] = ["apples", "birches", "cedars"];

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;
type Model = BTreeMap<&'static str, Entries>;

/// Executes the operations. The first byte chooses the page size, and a database in memory or in a
/// file.
pub fn fuzz_ops(data: &[u8]) {
    let mut input = Input::new(data);
    let first = input.byte();
    let mut run = Trial::new(4096 << (first & 1), first & 6 == 0).expect("a new database");
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
        Ok(Trial { db: Some(db), page_size, file, committed: Model::new(), snapshots: Vec::new() })
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("open between transactions")
    }

    /// Executes operations until one ends the transaction.
    fn transaction(&mut self, input: &mut Input<'_>) -> Result<()> {
        let mut txn = self.db().begin_write()?;
        let mut model = self.committed.clone();
        while !input.is_empty() {
            let what = input.byte();
            match what % 32 {
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
                9 => drop_or_rename(&mut txn, &mut model, input)?,
                10 | 11 => range(&mut txn, &mut model, input, max_inline_key_bytes(self.page_size as usize))?,
                _ => change(&mut txn, &mut model, input, what, max_inline_key_bytes(self.page_size as usize))?,
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
        let key = input.key(max_inline_key_bytes(self.page_size as usize));
        let Some((txn, model)) = self.snapshots.get(index % self.snapshots.len().max(1)) else { return Ok(()) };
        let expected = model.get(name).and_then(|entries| entries.get(&key));
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
        let report = self.db().check()?;
        assert!(report.is_clean(), "{report:?}");
        self.reopen()
    }
}

fn table(input: &mut Input<'_>) -> &'static str {
    TABLES[usize::from(input.byte()) % TABLES.len()]
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

fn change(txn: &mut WriteTxn, model: &mut Model, input: &mut Input<'_>, what: u8, key_max: usize) -> Result<()> {
    let name = table(input);
    let key = input.key(key_max);
    let mut table = txn.bytes_table(name)?;
    let entries = model.entry(name).or_default();
    match what % 32 {
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
        23 => remove_range(&mut table, entries, key, input.key(key_max))?,
        24 => put_all(&mut table, entries, input, key_max)?,
        _ => {
            let value = value(input);
            assert_eq!(table.insert(&key, &value)?, entries.insert(key, value));
        }
    }
    assert_eq!(table.len(), entries.len() as u64);
    Ok(())
}

type BytesTable<'t> = TableMut<'t, &'static [u8], &'static [u8]>;

fn remove_range(table: &mut BytesTable<'_>, entries: &mut Entries, a: Vec<u8>, b: Vec<u8>) -> Result<()> {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    let before = entries.len();
    entries.retain(|key, _| *key < low || *key >= high);
    assert_eq!(table.remove_range(low.as_slice()..high.as_slice())?, (before - entries.len()) as u64);
    Ok(())
}

fn put_all(table: &mut BytesTable<'_>, entries: &mut Entries, input: &mut Input<'_>, key_max: usize) -> Result<()> {
    let pairs: Vec<(Vec<u8>, Vec<u8>)> = (0..input.byte() % 40).map(|_| (input.key(key_max), value(input))).collect();
    let before = entries.len();
    let new = table.put_all(pairs.iter().map(|(key, value)| (key.as_slice(), value.as_slice())))?;
    entries.extend(pairs);
    assert_eq!(new, (entries.len() - before) as u64);
    Ok(())
}

fn drop_or_rename(txn: &mut WriteTxn, model: &mut Model, input: &mut Input<'_>) -> Result<()> {
    let (from, to) = (table(input), table(input));
    if input.byte().is_multiple_of(2) {
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
    let (a, b) = (input.key(key_max), input.key(key_max));
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    let entries = model.entry(name).or_default();
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
    assert_eq!(names, model.keys().copied().collect::<Vec<_>>());
    for (name, entries) in model {
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

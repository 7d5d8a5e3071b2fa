//! Sequences of operations through the public API, compared with a `BTreeMap` after every step; snapshots stay open
//! and are compared with the map as it was. Each sequence ends with `check`.
//!
//! Does not cover: several threads, crashes, a full disk, damage.

#![no_main]

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mapleaf::{Db, Options, ReadTxn, Table, WriteTxn};

const DATA: Table<&[u8], &[u8]> = Table::new("data");

/// Open snapshots at a time; the oldest goes first.
const SNAPSHOTS_MAX: usize = 4;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Arbitrary, Debug)]
enum Op {
    Put(Key, Value),
    Delete(Key),
    Get(Key),
    Range(Key, Key),
    Commit,
    Abort,
    Snapshot,
    DropTable,
}

/// Few short keys, so that operations meet; and long ones, so that pages split.
#[derive(Arbitrary, Debug)]
enum Key {
    Small(u8),
    Number(u16),
    Long { seed: u16, bytes: u16 },
    Free(Vec<u8>),
}

impl Key {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = match self {
            Key::Small(number) => vec![*number],
            Key::Number(number) => format!("key:{number:08}").into_bytes(),
            Key::Long { seed, bytes } => filled(*seed, usize::from(*bytes) % (KEY_BYTES_MAX + 1)),
            Key::Free(bytes) => bytes.clone(),
        };
        bytes.truncate(KEY_BYTES_MAX);
        bytes
    }
}

/// The limit at a page size of 4 KiB.
const KEY_BYTES_MAX: usize = 1000;

#[derive(Arbitrary, Debug)]
struct Value {
    seed: u16,
    bytes: u16,
}

impl Value {
    fn bytes(&self) -> Vec<u8> {
        filled(self.seed, usize::from(self.bytes))
    }
}

fn filled(seed: u16, len: usize) -> Vec<u8> {
    seed.to_be_bytes().into_iter().cycle().take(len).collect()
}

struct Run {
    db: Db,
    committed: Model,
    snapshots: Vec<(ReadTxn, Model)>,
}

impl Run {
    /// Carries out operations until the transaction ends.
    fn transaction(&mut self, ops: &mut impl Iterator<Item = Op>) -> mapleaf::Result<()> {
        let mut txn = self.db.begin_write()?;
        let mut model = self.committed.clone();
        for op in ops {
            match op {
                Op::Commit => {
                    txn.commit()?;
                    self.committed = model;
                    return Ok(());
                }
                Op::Abort => return Ok(()),
                Op::Snapshot => self.snapshot()?,
                change => apply(&mut txn, &mut model, &change)?,
            }
        }
        Ok(())
    }

    fn snapshot(&mut self) -> mapleaf::Result<()> {
        if self.snapshots.len() == SNAPSHOTS_MAX {
            let (txn, model) = self.snapshots.remove(0);
            compare(&txn, &model)?;
        }
        self.snapshots.push((self.db.begin_read()?, self.committed.clone()));
        Ok(())
    }

    fn finish(self) -> mapleaf::Result<()> {
        for (txn, model) in &self.snapshots {
            compare(txn, model)?;
        }
        compare(&self.db.begin_read()?, &self.committed)?;
        let report = self.db.check()?;
        assert!(report.is_clean(), "{report:?}");
        Ok(())
    }
}

fn apply(txn: &mut WriteTxn, model: &mut Model, op: &Op) -> mapleaf::Result<()> {
    match op {
        Op::Put(key, value) => {
            let (key, value) = (key.bytes(), value.bytes());
            let before = txn.table(DATA)?.insert(&key, &value)?;
            assert_eq!(before, model.insert(key, value));
        }
        Op::Delete(key) => {
            let key = key.bytes();
            assert_eq!(txn.table(DATA)?.remove(&key)?, model.remove(&key));
        }
        Op::Get(key) => {
            let key = key.bytes();
            assert_eq!(txn.table(DATA)?.get(&key)?, model.get(&key).map(Vec::as_slice));
        }
        Op::Range(a, b) => range(txn, model, a.bytes(), b.bytes())?,
        Op::DropTable => {
            txn.drop_table("data")?;
            model.clear();
        }
        Op::Commit | Op::Abort | Op::Snapshot => unreachable!("these end or leave the transaction"),
    }
    Ok(())
}

/// A range in both directions.
fn range(txn: &mut WriteTxn, model: &Model, a: Vec<u8>, b: Vec<u8>) -> mapleaf::Result<()> {
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    let expected: Vec<(&[u8], &[u8])> =
        model.range(low.clone()..high.clone()).map(|(key, value)| (key.as_slice(), value.as_slice())).collect();
    let table = txn.table(DATA)?;
    let forward = table.range(low.as_slice()..high.as_slice())?.collect::<mapleaf::Result<Vec<_>>>()?;
    assert_eq!(forward, expected);
    let mut backward = table.range(low.as_slice()..high.as_slice())?.rev().collect::<mapleaf::Result<Vec<_>>>()?;
    backward.reverse();
    assert_eq!(backward, expected);
    Ok(())
}

fn compare(txn: &ReadTxn, model: &Model) -> mapleaf::Result<()> {
    let table = txn.table(DATA)?;
    assert_eq!(table.len(), model.len() as u64);
    let mut expected = model.iter();
    for item in table.iter() {
        let (key, value) = item?;
        assert_eq!(Some((key, value)), expected.next().map(|(key, value)| (key.as_slice(), value.as_slice())));
    }
    assert_eq!(expected.next(), None);
    Ok(())
}

fuzz_target!(|ops: Vec<Op>| {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("fuzz.mapleaf");
    let db = Options::new().page_size(4096).open(&path).expect("a new database");
    let mut run = Run { db, committed: Model::new(), snapshots: Vec::new() };
    let mut ops = ops.into_iter().peekable();
    while ops.peek().is_some() {
        run.transaction(&mut ops).expect("operations within the limits succeed");
    }
    run.finish().expect("a whole database");
});

//! The operations that a child tries, each on its own file, before and after it confines itself.

use std::ops::ControlFlow;
use std::path::Path;

use mapleaf::testing::drop_page_cache;
use mapleaf::{Db, Error, Options, Table};

use crate::support::bytes;

pub(super) const NAMES: Table<u64, &[u8]> = Table::new("names");

/// Entries that each file begins with, and the length of the value of every tenth: more than four
/// pages.
pub(super) const ENTRIES: u64 = 400;
const LONG_BYTES: usize = 20_000;
/// Entries that `load` adds: enough for a thread that writes and for early write-back.
const LOADED: u64 = 30_000;

/// The value of a key.
pub(super) fn value(key: u64) -> Vec<u8> {
    bytes(key, if key.is_multiple_of(10) && key < ENTRIES { LONG_BYTES } else { 100 })
}

/// The operations, in the order in which they are tried.
pub(super) const OPERATIONS: [&str; 12] =
    ["get", "multi_get", "scan", "put", "load", "check", "compact", "recover", "reopen", "create", "memory", "salvage"];

/// How an operation ended: `Err` holds the error's text, `Ok(false)` means wrong data.
type Done = Result<bool, Error>;

/// The situation when an operation begins: no open file, or an open database that was used.
pub(super) struct Start<'p> {
    pub(super) path: &'p Path,
    open: Option<Db>,
}

impl<'p> Start<'p> {
    /// Opens and uses a database, for the warm operations.
    pub(super) fn new(path: &'p Path, operation: &str, warm: bool) -> Start<'p> {
        if operation == "create" {
            return Start { path, open: None };
        }
        std::fs::copy(path.with_file_name("template"), path).expect("a copy");
        let open = warm.then(|| {
            let db = Db::open(path).expect("opens");
            db.write(|txn| txn.table(NAMES)?.insert(1, &value(1)).map(drop)).expect("a first commit");
            assert!(get_all(&db, 3).expect("reads"), "first answers");
            db
        });
        if !warm {
            let file = std::fs::File::open(path).expect("the copy");
            file.sync_all().expect("flushed");
            drop_page_cache(&file).expect("dropped");
        }
        Start { path, open }
    }

    fn db(&mut self) -> Result<Db, Error> {
        self.open.take().map_or_else(|| Db::open(self.path), Ok)
    }

    /// Executes the operation.
    pub(super) fn run(mut self, operation: &str) -> Done {
        match operation {
            "get" => get_all(&self.db()?, 1),
            "multi_get" => multi_get(&self.db()?),
            "scan" => scan(&self.db()?, ENTRIES),
            "put" => put(&self.db()?),
            "load" => load(&self.db()?),
            "check" => self.db()?.check().map(|report| report.is_clean()),
            "compact" => compact(&self.db()?, self.path),
            "recover" => {
                drop(self.open.take());
                Db::recover(self.path).map(|report| !report.is_loss())
            }
            "reopen" => {
                drop(self.db()?);
                let writable = get_all(&Db::open(self.path)?, 7)?;
                Ok(writable && get_all(&Options::new().read_only(true).open(self.path)?, 7)?)
            }
            "create" => put(&Db::open(self.path)?),
            "memory" => put(&Db::in_memory()?),
            "salvage" => {
                drop(self.open.take());
                salvage(self.path)
            }
            _ => unreachable!("{operation}"),
        }
    }
}

fn get_all(db: &Db, step: usize) -> Done {
    let txn = db.begin_read()?;
    let table = txn.table(NAMES)?;
    for key in (0..ENTRIES).step_by(step) {
        if table.get(key)? != Some(&value(key)[..]) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn multi_get(db: &Db) -> Done {
    let txn = db.begin_read()?;
    let keys: Vec<u64> = (0..ENTRIES).rev().collect();
    let table = txn.table(NAMES)?;
    let found = table.multi_get(keys.iter().copied())?;
    Ok(keys.iter().zip(found).all(|(&key, found)| found == Some(&value(key)[..])))
}

fn scan(db: &Db, entries: u64) -> Done {
    let txn = db.begin_read()?;
    let mut next = 0;
    let table = txn.table(NAMES)?;
    for entry in table.iter() {
        let (key, found) = entry?;
        if key != next || found != value(key) {
            return Ok(false);
        }
        next += 1;
    }
    Ok(next == entries)
}

/// Short and long values, changed and new, in two commits.
fn put(db: &Db) -> Done {
    for round in 0..2 {
        db.write(|txn| {
            let mut table = txn.table(NAMES)?;
            (0..ENTRIES).skip(round).step_by(3).try_for_each(|key| table.insert(key, &value(key)).map(drop))
        })?;
    }
    let txn = db.begin_read()?;
    Ok(txn.table(NAMES)?.get(30)? == Some(&value(30)[..]))
}

fn load(db: &Db) -> Done {
    db.write(|txn| {
        let mut table = txn.table(NAMES)?;
        let mut loader = table.loader()?;
        (ENTRIES..ENTRIES + LOADED).try_for_each(|key| loader.push(key, &value(key)))?;
        loader.finish().map(drop)
    })?;
    scan(db, ENTRIES + LOADED)
}

fn compact(db: &Db, path: &Path) -> Done {
    let out = path.with_extension("out");
    let report = db.compact_to_with(&out, |_, _| ControlFlow::Continue(()))?;
    Ok(report.entries == ENTRIES && get_all(&Options::new().read_only(true).open(&out)?, 1)?)
}

fn salvage(path: &Path) -> Done {
    let out = path.with_extension("out");
    let report = Db::salvage(path, &out)?;
    let whole = !report.is_loss() && report.entries() == ENTRIES;
    Ok(whole && get_all(&Options::new().read_only(true).open(&out)?, 1)?)
}

/// Asserts, without a sandbox, that a file holds all entries that it began with.
#[track_caller]
pub(super) fn assert_whole(path: &Path, operation: &str, context: &str) {
    if operation == "create" && !path.exists() {
        return;
    }
    let db = Options::new().create(false).open(path).unwrap_or_else(|e| panic!("{context}: afterwards: {e}"));
    assert!(db.check().expect("a check").is_clean(), "{context}: afterwards");
    assert!(operation == "create" || get_all(&db, 1).expect("reads"), "{context}: entries are lost");
}

//! Executes the operations of a workload. A thread repeats them until its limits are reached, and
//! verifies every value that it reads.
//!
//! Failure: a missing or wrong entry ends the run with the exit code of a damaged file.

use std::ops::Bound;
use std::path::Path;

use mapleaf::{Error, ReadTxn};

use super::data::Data;
use super::file::{BenchDb, ENTRIES};
use super::kind::OperationKind;
use super::run::Lap;
use super::workload::{Choice, Mix};
use super::zipf::Zipf;
use crate::exit::{Exit, Failure};

/// Number of entries of a full scan that count as one operation.
pub(crate) const SCAN_ENTRIES: u64 = 100;
/// Number of entries in the longest scan of YCSB E.
const SHORT_SCAN_ENTRIES: u64 = 100;

/// The database that the operations use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bench<'b> {
    pub(crate) opened: &'b BenchDb,
    pub(crate) path: &'b Path,
}

/// Buffers that a thread reuses.
#[derive(Default)]
struct Buffers {
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Bench<'_> {
    fn data(&self) -> &Data {
        &self.opened.data
    }

    fn failed(&self, error: Error) -> Failure {
        Failure::of_database(error, self.path)
    }

    fn begin_read(&self) -> Result<ReadTxn, Failure> {
        self.opened.db.begin_read().map_err(|error| self.failed(error))
    }

    /// The number of entries in the latest state.
    pub(crate) fn count(&self) -> Result<u64, Failure> {
        let txn = self.begin_read()?;
        txn.table(ENTRIES).map(|table| table.len()).map_err(|error| self.failed(error))
    }

    /// Fails unless this is a correct value of the key.
    fn verify(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), Failure> {
        match value {
            Some(value) if self.data().is_correct(key, value) => Ok(()),
            Some(_) => Err(self.violation(key, "has a wrong value")),
            None => Err(self.violation(key, "is missing")),
        }
    }

    #[cold]
    fn violation(&self, key: &[u8], what: &str) -> Failure {
        let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        Failure::new(Exit::File, format!("{}: the entry of key {key} {what}", self.path.display()))
    }

    /// Inserts entries in the order of their numbers, `batch` in each durable commit.
    pub(crate) fn fill(&self, lap: &mut Lap<'_>, entries: u64, batch: u64) -> Result<(), Failure> {
        let mut buffers = Buffers::default();
        let mut number = 0;
        while number < entries && lap.continues() {
            let end = entries.min(number + batch);
            let mut commit = || {
                let txn = self.opened.db.begin_write()?;
                let mut table = txn.table(ENTRIES)?;
                for number in number..end {
                    self.data().key(number, &mut buffers.key);
                    self.data().value(&buffers.key, 0, &mut buffers.value);
                    table.insert(&buffers.key, &buffers.value)?;
                }
                txn.commit()
            };
            commit().map_err(|error| self.failed(error))?;
            lap.record(OperationKind::Commit, end - number);
            number = end;
        }
        Ok(())
    }

    /// Gets random entries in one read transaction.
    pub(crate) fn read(&self, lap: &mut Lap<'_>, entries: u64) -> Result<(), Failure> {
        let table = self.begin_read()?.table(ENTRIES).map_err(|error| self.failed(error))?;
        let mut key = Vec::new();
        while lap.continues() {
            self.data().key(lap.rng.below(entries), &mut key);
            self.verify(&key, table.get(&key).map_err(|error| self.failed(error))?)?;
            lap.record(OperationKind::Get, 1);
        }
        Ok(())
    }

    /// Gets random entries in one read transaction, `batch` in each call.
    pub(crate) fn multi(&self, lap: &mut Lap<'_>, entries: u64, batch: u64) -> Result<(), Failure> {
        let table = self.begin_read()?.table(ENTRIES).map_err(|error| self.failed(error))?;
        let mut keys = vec![Vec::new(); batch as usize];
        while lap.continues() {
            keys.iter_mut().for_each(|key| self.data().key(lap.rng.below(entries), key));
            let values = table.multi_get(keys.iter().map(Vec::as_slice)).map_err(|error| self.failed(error))?;
            for (key, value) in keys.iter().zip(values) {
                self.verify(key, value)?;
            }
            lap.record(OperationKind::MultiGet, batch);
        }
        Ok(())
    }

    /// Reads all entries from one end to the other, repeatedly.
    pub(crate) fn scan(&self, lap: &mut Lap<'_>, reverse: bool) -> Result<(), Failure> {
        let table = self.begin_read()?.table(ENTRIES).map_err(|error| self.failed(error))?;
        let mut range = table.iter();
        while lap.continues() {
            let mut read = 0;
            while read < SCAN_ENTRIES {
                let next = if reverse { range.next_back() } else { range.next() };
                let Some(entry) = next else {
                    if table.is_empty() {
                        return Ok(());
                    }
                    range = table.iter();
                    continue;
                };
                let (key, value) = entry.map_err(|error| self.failed(error))?;
                self.verify(key, Some(value))?;
                read += 1;
            }
            lap.record(OperationKind::Scan, read);
        }
        Ok(())
    }

    /// Executes a mix of operations, each in its own transaction. `entries` is the number of
    /// entries at the start.
    pub(crate) fn mixed(&self, lap: &mut Lap<'_>, mix: &Mix, zipf: &Zipf, entries: u64) -> Result<(), Failure> {
        let mut buffers = Buffers::default();
        let choose = |lap: &mut Lap<'_>, now: u64| match mix.choice {
            Choice::Uniform => lap.rng.below(entries),
            Choice::Zipf => zipf.scattered(&mut lap.rng),
            Choice::Latest => now - 1 - zipf.rank(&mut lap.rng),
        };
        while lap.continues() {
            let mut share = lap.rng.below(100);
            let mut is = |percent: u64| {
                let chosen = share < percent;
                share = share.wrapping_sub(percent);
                chosen
            };
            if is(mix.gets) {
                let table = self.begin_read()?.table(ENTRIES).map_err(|error| self.failed(error))?;
                self.data().key(choose(lap, table.len()), &mut buffers.key);
                self.verify(&buffers.key, table.get(&buffers.key).map_err(|error| self.failed(error))?)?;
                lap.record(OperationKind::Get, 1);
            } else if is(mix.updates) {
                self.data().key(choose(lap, entries), &mut buffers.key);
                self.update(lap, &mut buffers, false)?;
                lap.record(OperationKind::Update, 1);
            } else if is(mix.modifies) {
                self.data().key(choose(lap, entries), &mut buffers.key);
                self.update(lap, &mut buffers, true)?;
                lap.record(OperationKind::Modify, 1);
            } else if is(mix.scans) {
                self.data().key(choose(lap, entries), &mut buffers.key);
                let limit = 1 + lap.rng.below(SHORT_SCAN_ENTRIES);
                let read = self.short_scan(&buffers.key, limit)?;
                lap.record(OperationKind::Scan, read);
            } else {
                self.insert(&mut buffers)?;
                lap.record(OperationKind::Insert, 1);
            }
        }
        Ok(())
    }

    /// Replaces a value by a new version, and verifies the old one. With `read`, looks the value up
    /// first.
    fn update(&self, lap: &mut Lap<'_>, buffers: &mut Buffers, read: bool) -> Result<(), Failure> {
        let failed = |error| self.failed(error);
        self.data().value(&buffers.key, lap.rng.next(), &mut buffers.value);
        let txn = self.opened.db.begin_write().map_err(failed)?;
        let mut table = txn.table(ENTRIES).map_err(failed)?;
        if read {
            self.verify(&buffers.key, table.get(&buffers.key).map_err(failed)?)?;
        }
        let old = table.insert(&buffers.key, &buffers.value).map_err(failed)?;
        self.verify(&buffers.key, old.as_deref())?;
        txn.commit().map_err(failed)
    }

    /// Inserts the entry with the next number.
    fn insert(&self, buffers: &mut Buffers) -> Result<(), Failure> {
        let failed = |error| self.failed(error);
        let txn = self.opened.db.begin_write().map_err(failed)?;
        let mut table = txn.table(ENTRIES).map_err(failed)?;
        self.data().key(table.len(), &mut buffers.key);
        self.data().value(&buffers.key, 0, &mut buffers.value);
        if table.insert(&buffers.key, &buffers.value).map_err(failed)?.is_some() {
            return Err(self.violation(&buffers.key, "exists before it was inserted"));
        }
        txn.commit().map_err(failed)
    }

    /// Reads at most `limit` entries, starting at an existing key, and returns their number.
    fn short_scan(&self, key: &[u8], limit: u64) -> Result<u64, Failure> {
        let failed = |error| self.failed(error);
        let table = self.begin_read()?.table(ENTRIES).map_err(failed)?;
        let from = (Bound::Included(key), Bound::Unbounded);
        let mut read = 0;
        for entry in table.range(from).map_err(failed)?.take(limit as usize) {
            let (found, value) = entry.map_err(failed)?;
            if read == 0 && found != key {
                break;
            }
            self.verify(found, Some(value))?;
            read += 1;
        }
        match read {
            0 => Err(self.violation(key, "is missing")),
            read => Ok(read),
        }
    }
}

//! Judges an image: the state that a database must have after a power cut, and those that it may
//! have on a lying disk.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use mapleaf::testing::{log_pages, with_mutant, Mutant};
use mapleaf::{Db, Options, ReadTxn};

use super::image::Image;
use crate::workload::{is_multimap, pair_key, Entries, History, State, FIRST_TXN};

/// One of this many images is also opened read-only.
const READ_ONLY_ONE_IN: u64 = 16;
/// After one of this many replays the process is killed, and the file opened once more.
const KILLED_ONE_IN: u64 = 2;

/// The result of judging a database on a lying disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// Opening or a read failed.
    Refused,
    /// The database holds exactly the state after this transaction.
    Whole(u64),
}

/// Opens images one after the other at the same path.
pub(super) struct Judge<'a> {
    pub(super) history: &'a History,
    path: PathBuf,
    /// What a process leaves that is killed right after opening.
    killed: PathBuf,
    /// The mutant that also opens: for mistakes that affect both sealing and verifying.
    mutant: Option<Mutant>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(history: &'a History, dir: &Path, mutant: Option<Mutant>) -> Judge<'a> {
        Judge { history, path: dir.join("image.mapleaf"), killed: dir.join("killed.mapleaf"), mutant }
    }

    /// After a power cut: a committed state, no older than the acknowledged one, with a clean
    /// `check`, that accepts commits.
    pub(super) fn strict(&self, image: &Image, acknowledged: u64) -> Result<(), String> {
        self.fault_guard(image, || {
            if image.hash().is_multiple_of(READ_ONLY_ONE_IN) {
                self.read_only(image)?;
            }
            self.goes_on(acknowledged, self.mutant.is_some() || image.hash().is_multiple_of(KILLED_ONE_IN))
        })
    }

    /// On a lying disk: an error, or the state of a transaction up to `newest`, now and after a
    /// further commit.
    pub(super) fn lenient(&self, image: &Image, newest: u64) -> Result<Outcome, String> {
        self.fault_guard(image, || {
            let db = match Db::open_existing(&self.path) {
                Ok(db) => db,
                Err(_) => return Ok(Outcome::Refused),
            };
            let outcome = self.what_is_there(&db, newest)?;
            if log_pages(&db) > 0 {
                if let Ok(again) = self.killed()? {
                    let again = self.what_is_there(&again, newest).map_err(|e| format!("after a kill: {e}"))?;
                    if let (Outcome::Whole(now), Outcome::Whole(again)) = (outcome, again) {
                        same_after_a_kill(now, again)?;
                    }
                }
            }
            // The history has no transaction that follows the first of the two meta pages of a new
            // file.
            let goes_on = outcome != Outcome::Whole(FIRST_TXN - 1);
            if goes_on && self.history.commit_next(&db).is_ok() {
                self.what_is_there(&db, newest + 1).map_err(|e| format!("after a commit: {e}"))?;
            }
            Ok(outcome)
        })
    }

    /// Writes the image and runs; a panic is a violation like any other.
    fn fault_guard<T>(&self, image: &Image, run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        image.write(&self.path);
        let ran = catch_unwind(AssertUnwindSafe(|| with_mutant(self.mutant, run)));
        ran.unwrap_or_else(|panic| {
            let said = panic.downcast_ref::<String>().cloned();
            Err(format!("panic: {}", said.unwrap_or_else(|| "of another kind".into())))
        })
    }

    fn read_only(&self, image: &Image) -> Result<(), String> {
        let db = Options::new().read_only(true).open(&self.path).map_err(|e| format!("read-only: {e}"))?;
        self.history.judge(&db).map_err(|e| format!("read-only: {e}"))?;
        drop(db);
        match std::fs::read(&self.path).expect("the image") == image.bytes() {
            true => Ok(()),
            false => Err("reading changed the file".into()),
        }
    }

    /// Opens what a process leaves that is killed now.
    fn killed(&self) -> Result<mapleaf::Result<Db>, String> {
        std::fs::copy(&self.path, &self.killed).map_err(|e| format!("copying: {e}"))?;
        Ok(Db::open_existing(&self.killed))
    }

    /// Compares, checks, writes and checks again.
    fn goes_on(&self, acknowledged: u64, dies: bool) -> Result<(), String> {
        let db = Db::open_existing(&self.path).map_err(|e| format!("open: {e}"))?;
        let txn = self.history.judge(&db)?;
        if txn < acknowledged {
            return Err(format!("txn {acknowledged} was acknowledged and the state is that of txn {txn}"));
        }
        if dies && log_pages(&db) > 0 {
            let again = self.killed()?.map_err(|e| format!("open after a kill: {e}"))?;
            let again = self.history.judge(&again).map_err(|e| format!("after a kill: {e}"))?;
            same_after_a_kill(txn, again)?;
        }
        let next = self.history.commit_next(&db).map_err(|e| format!("commit after recovery: {e}"))?;
        if next != txn + 1 || self.history.judge(&db).map_err(|e| format!("after a commit: {e}"))? != next {
            return Err(format!("the commit after txn {txn} made {next}"));
        }
        Ok(())
    }

    /// Reads everything that is readable; it must be right.
    fn what_is_there(&self, db: &Db, newest: u64) -> Result<Outcome, String> {
        let Ok(txn) = db.begin_read() else { return Ok(Outcome::Refused) };
        let Ok(number) = self.history.step(&txn) else { return Ok(Outcome::Refused) };
        if number > newest {
            return Err(format!("txn {number} is there, and {newest} is the newest that was committed"));
        }
        let state = self.history.state(number);
        let whole = all_right(&txn, &state).map_err(|e| format!("txn {number}: {e}"))?;
        let clean = db.check().is_ok_and(|report| report.is_clean());
        Ok(if whole && clean { Outcome::Whole(number) } else { Outcome::Refused })
    }
}

/// Opening has made its state durable: the next opening finds the same.
fn same_after_a_kill(now: u64, again: u64) -> Result<(), String> {
    let same = now == again;
    same.then_some(()).ok_or_else(|| format!("the state is that of txn {now}, and after a kill that of txn {again}"))
}

/// Whether everything was readable. A read entry that differs from the state is a violation.
pub(super) fn all_right(txn: &ReadTxn, state: &State) -> Result<bool, String> {
    let mut whole = true;
    match txn.tables() {
        Err(_) => whole = false,
        Ok(tables) => {
            let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
            if names != state.keys().copied().collect::<Vec<_>>() {
                return Err(format!("tables {names:?}, expected {:?}", state.keys()));
            }
        }
    }
    for (name, entries) in state {
        if is_multimap(name) {
            whole &= right_pairs(txn, name, entries)?;
            continue;
        }
        let Ok(table) = txn.bytes_table(name) else {
            whole = false;
            continue;
        };
        let mut expected = entries.iter();
        let mut read_all = true;
        for entry in table.iter() {
            let Ok((key, value)) = entry else {
                read_all = false;
                break;
            };
            if expected.next().is_none_or(|(k, v)| key != k || value != v.bytes()) {
                return Err(format!("table {name}: wrong entry {}", key.escape_ascii()));
            }
        }
        if read_all && expected.next().is_some() {
            return Err(format!("table {name}: of {} entries some are missing", entries.len()));
        }
        for (key, value) in entries {
            match table.get(key) {
                Err(_) => read_all = false,
                Ok(Some(found)) if found == value.bytes() => {}
                Ok(_) => return Err(format!("table {name}: wrong value of {}", key.escape_ascii())),
            }
        }
        whole &= read_all;
    }
    Ok(whole)
}

/// The same for the pairs of a multimap.
fn right_pairs(txn: &ReadTxn, name: &str, entries: &Entries) -> Result<bool, String> {
    let Ok(table) = txn.multi_bytes_table(name) else { return Ok(false) };
    let mut expected = entries.keys();
    for pair in table.iter() {
        let Ok(pair) = pair else { return Ok(false) };
        if expected.next() != Some(&pair_key(pair)) {
            return Err(format!("table {name}: a wrong value of key {}", pair.0.escape_ascii()));
        }
    }
    match expected.next() {
        None => Ok(true),
        Some(_) => Err(format!("table {name}: of {} pairs some are missing", entries.len())),
    }
}

//! Pairs of multimaps: one more, one less, all of a key, and many in one load.
//!
//! Floor: txn. Each pair is one operation of the log; a key with all its values is one delete. A
//! load builds full leaves as long as pairs come in order, after the last key of the table. From
//! then on it collects pairs, sorts them and inserts them.
//!
//! Invariants:
//!   PAIRS-1  while a load runs its table counts as unfinished (LOAD-1).
//!
//! Failure: a pair over its limits is refused and changes nothing. Any other error breaks the
//! transaction.

use crate::error::Result;
use crate::pager::write::txn_pages::TxnPages;
use crate::tree::values::load::PairsBulk;
use crate::tree::values::stored::check_value;
use crate::tree::{check_sizes, Tree, TreeMut};
use crate::txn::write::put_all::Collected;
use crate::txn::write::txn::{writer_of, RunningTxn};

/// The error of the table while a load runs, and of the transaction after a load without an end.
const UNFINISHED: &str = "a load was not finished";

/// A running load of pairs.
#[derive(Debug)]
pub(crate) struct PairsLoad {
    at: usize,
    /// `None` once a pair was out of order.
    bulk: Option<Box<PairsBulk>>,
    collected: Collected,
    /// Pairs that were given.
    count: u64,
    /// Pairs of the table before.
    before: u64,
    failed: bool,
}

impl PairsLoad {
    /// Number of pairs that were given.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Whether all pairs came in order, after the last key of the table.
    pub(crate) fn is_in_order(&self) -> bool {
        self.bulk.is_some()
    }
}

impl RunningTxn {
    /// Adds a value to a key. Returns whether the key did not have it.
    pub(crate) fn insert_value(&mut self, at: usize, key: &[u8], value: &[u8]) -> Result<bool> {
        self.check_table(at)?;
        self.insert_checked(at, key, value)
    }

    /// Like [`RunningTxn::insert_value`], also while a load of the table runs.
    fn insert_checked(&mut self, at: usize, key: &[u8], value: &[u8]) -> Result<bool> {
        let ensured = self.ensure(key.len());
        self.note(None, ensured)?;
        self.end_filling()?;
        let table = &mut self.tables[at];
        let mut hint = table.value_hint;
        let pages = &mut writer_of(&mut self.writer).pages;
        let done = TreeMut::new(pages, &mut table.record.root).insert_value(key, value, &mut hint);
        table.value_hint = hint;
        if matches!(done, Ok(true)) {
            table.changed = true;
            if let Some((record, number)) = self.recorded(at) {
                record.insert_value(number, key, value);
            }
        }
        self.note(Some(at), done)
    }

    /// Removes a value of a key. Returns whether the key had it.
    pub(crate) fn remove_value(&mut self, at: usize, key: &[u8], value: &[u8]) -> Result<bool> {
        let done = self.change_pairs(at, |tree| tree.remove_value(key, value))?;
        if done {
            if let Some((record, number)) = self.recorded(at) {
                record.remove_value(number, key, value);
            }
        }
        Ok(done)
    }

    /// Removes a key with all its values. Returns how many it had.
    pub(crate) fn remove_values(&mut self, at: usize, key: &[u8]) -> Result<u64> {
        let count = self.change_pairs(at, |tree| tree.remove_values(key))?;
        if count > 0 {
            self.record_delete(at, key);
        }
        Ok(count)
    }

    /// Removes some values of a key, which has them, in ascending order. Returns how many there
    /// were.
    pub(crate) fn remove_some(&mut self, at: usize, key: &[u8], values: &[&[u8]]) -> Result<u64> {
        let removed = self.change_pairs(at, |tree| tree.remove_some(key, values))?;
        if let Some((record, number)) = self.recorded(at) {
            for value in values {
                record.remove_value(number, key, value);
            }
        }
        Ok(removed)
    }

    fn change_pairs<T>(&mut self, at: usize, change: impl FnOnce(TreeMut<'_, TxnPages>) -> Result<T>) -> Result<T> {
        self.check_table(at)?;
        let ensured = self.ensure(0);
        self.note(None, ensured)?;
        self.end_filling()?;
        let table = &mut self.tables[at];
        let before = table.record.root;
        let done = change(TreeMut::new(&mut writer_of(&mut self.writer).pages, &mut table.record.root));
        if done.is_err() || table.record.root != before {
            table.note_change();
        }
        self.note(Some(at), done)
    }

    /// Removes the keys from `low` on and below `high` with all their values. Returns how many
    /// values that were.
    pub(crate) fn remove_pairs(&mut self, at: usize, low: Option<&[u8]>, high: Option<&[u8]>) -> Result<u64> {
        let before = self.root(at).pairs;
        self.remove_range(at, low, high)?;
        Ok(before - self.root(at).pairs)
    }

    /// Inserts all collected pairs in order, and empties the collection. Returns how many are new.
    pub(crate) fn insert_collected(&mut self, at: usize, collected: &mut Collected) -> Result<u64> {
        self.check_table(at)?;
        let mut new = 0;
        collected.drain_pairs(|key, value| {
            new += u64::from(self.insert_checked(at, key, value)?);
            Ok(())
        })?;
        Ok(new)
    }

    /// Begins a load of pairs into an open multimap.
    pub(crate) fn begin_pairs(&mut self, at: usize) -> Result<PairsLoad> {
        self.check_table(at)?;
        self.end_filling()?;
        let bulk = PairsBulk::begin(Tree::new(self.pages(), self.root(at)));
        let bulk = Box::new(self.note(Some(at), bulk)?);
        self.tables.begin(at, UNFINISHED);
        writer_of(&mut self.writer).pages.begin_writing(true);
        let before = self.root(at).pairs;
        Ok(PairsLoad { at, bulk: Some(bulk), collected: Collected::default(), count: 0, before, failed: false })
    }

    /// Adds a pair to a load.
    pub(crate) fn load_pair(&mut self, load: &mut PairsLoad, key: &[u8], value: &[u8]) -> Result<()> {
        if load.failed || self.broken.is_some() || self.env.is_inherited() {
            return self.check_usable();
        }
        check_sizes(key, 0)?;
        check_value(self.env().page_size, self.root(load.at).shape, value)?;
        let taken = self.take_pair(load, key, value);
        load.count += u64::from(taken.is_ok());
        self.note_pairs(load, taken)
    }

    fn take_pair(&mut self, load: &mut PairsLoad, key: &[u8], value: &[u8]) -> Result<()> {
        if let Some(bulk) = load.bulk.as_mut() {
            let root = &self.tables[load.at].record.root;
            let pages = &writer_of(&mut self.writer).pages;
            if bulk.takes(Tree::new(pages, root), key, value)? {
                self.ensure(key.len())?;
                let root = &mut self.tables[load.at].record.root;
                bulk.push(TreeMut::new(&mut writer_of(&mut self.writer).pages, root), key, value)?;
                if let Some((record, number)) = self.recorded(load.at) {
                    record.insert_value(number, key, value);
                }
                return Ok(());
            }
            self.end_bulk(load)?;
        }
        load.collected.push(key, value);
        match load.collected.is_full() {
            true => self.put_pairs(load),
            false => Ok(()),
        }
    }

    /// Puts the pairs that came in order into the tree.
    fn end_bulk(&mut self, load: &mut PairsLoad) -> Result<()> {
        let Some(mut bulk) = load.bulk.take() else { return Ok(()) };
        self.ensure(0)?;
        let table = &mut self.tables[load.at];
        let pages = &mut writer_of(&mut self.writer).pages;
        bulk.finish(TreeMut::new(pages, &mut table.record.root))?;
        table.note_change();
        pages.end_writing()
    }

    fn put_pairs(&mut self, load: &mut PairsLoad) -> Result<()> {
        let at = load.at;
        load.collected.drain_pairs(|key, value| self.insert_checked(at, key, value).map(drop))
    }

    /// Ends a load: puts all pairs into the table. Returns how many are new.
    pub(crate) fn end_pairs(&mut self, load: &mut PairsLoad) -> Result<u64> {
        if load.failed || self.broken.is_some() || self.env.is_inherited() {
            return self.check_usable().map(|()| 0);
        }
        let ended = self.end_bulk(load).and_then(|()| self.put_pairs(load));
        if ended.is_ok() {
            self.tables.finish(load.at);
        }
        self.note_pairs(load, ended)?;
        Ok(self.root(load.at).pairs.saturating_sub(load.before))
    }

    /// Leaves a load, ended or not.
    pub(crate) fn leave_pairs(&mut self, load: &PairsLoad) {
        if self.env.is_inherited() {
            return;
        }
        if let Some(unfinished) = self.tables[load.at].unfinished() {
            self.break_off(unfinished);
        }
        let written = writer_of(&mut self.writer).pages.end_writing();
        drop(self.note(None, written));
    }

    /// Returns the result of a step. If the step failed, the transaction is broken.
    fn note_pairs(&mut self, load: &mut PairsLoad, done: Result<()>) -> Result<()> {
        if let Err(e) = &done {
            load.failed = true;
            self.break_off(&e.to_string());
        }
        self.note(Some(load.at), done)
    }
}

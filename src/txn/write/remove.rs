//! Removing entries of a table: at its ends, in a range of keys, or those that the caller rejects.
//!
//! Floor: txn. A range is one operation of the log; popped and rejected entries are one delete
//! each.
//!
//! Invariants:
//!   REMOVE-1  while a sift is unfinished (SIFT-1) its table counts as unfinished. So if it is
//!       forgotten before [`RunningTxn::finish_sift`], the transaction cannot be committed.
//!
//! Failure: errors of the tree.

use crate::error::Result;
use crate::pager::write::txn_pages::TxnPages;
use crate::tree::{Side, Sift, TreeMut};
use crate::txn::env::Writer;
use crate::txn::write::txn::{writer_of, RunningTxn};

/// The error of the transaction while a sift is unfinished.
const UNFINISHED: &str = "a removal of entries was not finished";

/// Leaves that a sift stores to the mapping. From then on a thread writes them by `pwrite`.
const WRITE_FROM_LEAVES: u64 = 64;

impl RunningTxn {
    /// Removes the entries from `low` on and below `high`. Returns how many it removed.
    pub(crate) fn remove_range(&mut self, at: usize, low: Option<&[u8]>, high: Option<&[u8]>) -> Result<u64> {
        self.check_table(at)?;
        self.end_filling()?;
        let table = &mut self.tables[at];
        let (env, basis) = (&self.env, &mut self.basis);
        let Writer { pages, cache, .. } = writer_of(&mut self.writer);
        let tree = TreeMut::new(pages, &mut table.record.root);
        let mut ensure = |pages: &mut _| env.ensure(pages, cache, basis, 1);
        let removed = tree.remove_range(low, high, &mut ensure);
        if !matches!(removed, Ok(0)) {
            table.note_change();
            if let Some((record, number)) = self.recorded(at).filter(|_| removed.is_ok()) {
                record.remove_range(number, low, high);
            }
        }
        self.note(Some(at), removed)
    }

    /// Removes the entry at one end of a table, and copies it. Returns false if there is none.
    pub(crate) fn pop(&mut self, at: usize, side: Side, key: &mut Vec<u8>, value: &mut Vec<u8>) -> Result<bool> {
        self.check_table(at)?;
        let ensured = self.ensure(0);
        self.note(None, ensured)?;
        self.end_filling()?;
        let table = &mut self.tables[at];
        let pages = &mut writer_of(&mut self.writer).pages;
        let done = TreeMut::new(pages, &mut table.record.root).pop(side, &mut table.pop_hint, (key, value));
        if !matches!(done, Ok(false)) {
            let pop_hint = table.pop_hint;
            table.note_change();
            table.pop_hint = pop_hint;
        }
        if matches!(done, Ok(true)) {
            if let Some((record, number)) = self.recorded(at) {
                record.delete(number, key);
            }
        }
        self.note(Some(at), done)
    }

    /// Deals with a leaf whose entries a sift has judged. Returns how many entries are gone since
    /// the last call.
    pub(crate) fn sift_out(&mut self, at: usize, sift: &mut Sift) -> Result<u64> {
        if sift.rewritten_leaves() == WRITE_FROM_LEAVES {
            writer_of(&mut self.writer).pages.begin_writing(true);
        }
        self.change_by_sift(at, sift, Sift::apply)
    }

    /// Ends a sift, early or not.
    pub(crate) fn finish_sift(&mut self, at: usize, sift: &mut Sift) -> Result<u64> {
        let removed = self.change_by_sift(at, sift, Sift::finish)?;
        if sift.rewritten_leaves() >= WRITE_FROM_LEAVES {
            let written = writer_of(&mut self.writer).pages.end_writing();
            self.note(Some(at), written)?;
        }
        Ok(removed)
    }

    fn change_by_sift(
        &mut self,
        at: usize,
        sift: &mut Sift,
        change: impl FnOnce(&mut Sift, TreeMut<'_, TxnPages>, &mut dyn FnMut(&[u8])) -> Result<u64>,
    ) -> Result<u64> {
        match self.tables[at].unfinished() {
            Some(UNFINISHED) if sift.is_unfinished() => self.check_usable()?,
            _ => self.check_table(at)?,
        }
        self.end_filling()?;
        let mut number = None;
        if sift.has_changes() {
            let ensured = self.ensure(0);
            self.note(None, ensured)?;
            number = self.recorded(at).map(|(_, number)| number);
            self.tables[at].note_change();
        }
        let Writer { pages, record, .. } = writer_of(&mut self.writer);
        let tree = TreeMut::new(pages, &mut self.tables[at].record.root);
        let removed = change(sift, tree, &mut |key| {
            if let Some(number) = number {
                record.delete(number, key);
            }
        });
        let removed = self.note(Some(at), removed)?;
        match (self.tables[at].unfinished(), sift.is_unfinished()) {
            (None, true) => self.tables.begin(at, UNFINISHED),
            (Some(_), false) => self.tables.finish(at),
            _ => {}
        }
        Ok(removed)
    }
}

//! Commit and abort: how a write transaction ends.
//!
//! Floor: txn. A commit seals the trees of changed tables, puts their records into the catalog,
//! saves the free space and seals it, stores the new latest state, releases the writer lock, and
//! makes the state durable (`write/checkpoint.rs`). An abort drops the claimed pages and all that
//! the writer remembers of the free space.
//!
//! Invariants: WRITE-2 and WRITE-3, see `write/txn.rs`.
//!
//! Failure: an error before the latest state is stored aborts the transaction; after it, the
//! database is poisoned.

use std::sync::Arc;

use crate::error::Result;
use crate::pager::PageRead as _;
use crate::tree::{self, PutHint, TreeMut};
use crate::txn::state::State;
use crate::txn::write::txn::{writer_of, WriteTxn};

impl WriteTxn {
    /// Makes everything that this transaction changed durable and visible, or nothing of it.
    ///
    /// Returns when it survives a power loss. Transactions that commit at the same time share their
    /// flushes.
    ///
    /// # Errors
    /// `DiskFull`, or `Io` of growing the file: the transaction is aborted and the database goes
    /// on. `Fault` when the file was cut or could not be read or stored to: nothing was committed,
    /// and the database has to be opened again. `Poisoned` (also when the file is cut in the last
    /// moment), or `Io` of a flush, of whatever cause: whether this transaction survives is not
    /// known until the database is opened again, and no later one will be acknowledged before.
    pub fn commit(mut self) -> Result<()> {
        self.usable()?;
        let env = Arc::clone(&self.env);
        let made = self.make_state();
        // A store that the kernel could not serve is lost, although nothing shows it here.
        let made = self.pages().check_fault(made).map_err(|e| e.with_path(env.path()))?;
        let Some(state) = made else { return Ok(()) };
        self.finish(Some(state));
        env.make_durable(state.txn)
    }

    /// Ends the transaction without a trace. Dropping it does the same.
    pub fn abort(self) {}

    /// The number that this transaction's state will have.
    pub fn txn_id(&self) -> u64 {
        self.basis.latest.txn.next().0
    }

    /// Seals everything and gives the next state; `None` if nothing was changed.
    fn make_state(&mut self) -> Result<Option<State>> {
        if !self.catalog_changed && self.tables.iter().all(|table| !table.changed) {
            return Ok(None);
        }
        self.env.check_poison()?;
        self.env.prefault_meta_pages()?;
        self.end_filling()?;
        self.save_tables()?;
        let writer = writer_of(&mut self.writer);
        tree::seal(&mut writer.pages, &mut self.catalog)?;
        let (free_space, free_list) = writer.cache.save(&mut writer.pages, &self.basis)?;
        self.watch_folios()?;
        let writer = writer_of(&mut self.writer);
        let txn = self.basis.latest.txn.next();
        Ok(Some(State {
            txn,
            page_count: writer.pages.page_count(),
            catalog: self.catalog,
            free_space,
            free_list,
            next_tree: self.next_tree,
            log: self.basis.latest.log,
            floor: txn,
        }))
    }

    fn save_tables(&mut self) -> Result<()> {
        // Records of new tables that come in order leave full pages.
        let mut hint = PutHint::default();
        for at in 0..self.tables.len() {
            if !self.tables[at].changed {
                continue;
            }
            self.ensure(0)?;
            let table = &mut self.tables[at];
            let writer = writer_of(&mut self.writer);
            tree::seal(&mut writer.pages, &mut table.record.root).map_err(|e| e.with_table(table.name()))?;
            let record = table.record.encode();
            TreeMut::new(&mut writer.pages, &mut self.catalog).put(
                table.name().as_bytes(),
                &record,
                &mut hint,
                None,
            )?;
        }
        Ok(())
    }

    /// Ends the transaction: with a new latest state, or as if it had not been. The next writer may
    /// go.
    pub(super) fn finish(&mut self, state: Option<State>) {
        let Some(mut writer) = self.writer.take() else { return };
        if self.env.is_inherited() {
            // A child frees nothing, and waits for no lock that a thread of its parent may hold
            // (P22).
            std::mem::forget(writer);
            return;
        }
        writer.pages.end();
        let window_id = self.env.mapping.window_id();
        if window_id != self.window_id || self.env.readers.may_pin_old_windows() {
            self.env.readers.unpin_old_windows(window_id);
        }
        match state {
            Some(state) => {
                self.env.live.store_latest(&state);
                writer.based_on = state.txn;
            }
            None => writer.forget(),
        }
        self.env.return_writer(writer);
        self.env.writer_lock.release();
    }
}

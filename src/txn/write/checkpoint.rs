//! Checkpoint: making a whole state durable and writing a meta page that points at it.
//!
//! Floor: txn. Two flushes: first everything that the state reaches, then the other meta page (rule
//! R7). The meta page that is durable stays valid, with all its pages, until the new one is
//! durable. Several commits that wait at the same time share one checkpoint: the thread that gets
//! the checkpoint lock hardens the newest latest state.
//!
//! Invariants:
//!   CHECKPOINT-1  a meta page is written only after everything it reaches was flushed without
//!                 error.
//!   CHECKPOINT-2  meta pages are written in txn order, to the slot that does not hold the durable
//!                 one.
//!   CHECKPOINT-3  no meta page is written, and nothing acknowledged, of a file that has lost a
//!                 part of the state.
//!   CHECKPOINT-4  any failed flush poisons the database before another checkpoint can begin (rule
//!                 R9).
//!
//! Failure: the kernel's error, or [`Error::Fault`], to the commit that led; [`Error::Poisoned`] to
//! everybody after it.

use std::io;

use crate::error::{Error, Result};
use crate::hooks::{self, FlushKind, Mutant};
use crate::ids::TxnId;
use crate::txn::env::Env;
use crate::txn::live::DurableMeta;
use crate::txn::state::State;

impl Env {
    /// Returns when a meta page of `txn` or a later transaction is durable and published.
    pub(crate) fn make_durable(&self, txn: TxnId) -> Result<()> {
        let _checkpoint = self.lock_checkpoint();
        self.check_poison()?;
        if self.live.durable().txn >= txn {
            return Ok(());
        }
        let state = self.live.latest();
        let done = self.write_checkpoint(&state);
        if let Err(e) = &done {
            self.set_poison(e);
        }
        done
    }

    fn write_checkpoint(&self, state: &State) -> Result<()> {
        if !hooks::is(Mutant::NoPageFlush) && !hooks::is(Mutant::MetaFirst) {
            self.flush_pages(state)?;
        }
        // What was cut off since it was stored is not flushed, and nobody is told: no meta page may
        // lead to it.
        self.check_whole(state)?;
        self.write_meta_page(state, self.live.durable().slot ^ usize::from(!hooks::is(Mutant::SameSlot)))?;
        if hooks::is(Mutant::MetaFirst) {
            self.flush_pages(state)?;
        }
        // From here on the state may be the one that is found when the file is opened again.
        self.check_whole(state).map_err(|e| self.not_known(&e))?;
        self.live.publish(state);
        Ok(())
    }

    /// Sees that storing a meta page will not meet a full disk. Before a transaction ends, so that
    /// it can still be aborted.
    pub(crate) fn prefault_meta_pages(&self) -> Result<()> {
        let wanted = 2 * self.page_size as u64;
        let prepared = self.mapping.prefault_meta_pages();
        prepared.map_err(|e| Error::io("preparing the meta pages for writing", &self.path, e).with_wanted(wanted))
    }

    /// Makes all pages of a state durable, and all others.
    fn flush_pages(&self, state: &State) -> Result<()> {
        let page_size = self.page_size as u64;
        self.mapping
            .flush(FlushKind::Tree, 2 * page_size, (state.page_count - 2) * page_size)
            .map_err(|e| self.flush_error("flushing pages", e))
    }

    /// Flushes what is dirty, pages of the running transaction among it (which nothing reaches
    /// yet), and drops the page cache. A failure poisons like that of a commit (R9).
    pub(crate) fn flush_and_drop_cache(&self) -> Result<()> {
        let _checkpoint = self.lock_checkpoint();
        self.check_poison()?;
        let flushed = self.flush_pages(&self.live.latest());
        if let Err(e) = &flushed {
            self.set_poison(e);
        }
        flushed?;
        self.mapping.drop_cache();
        Ok(())
    }

    /// The error of a commit of which it is not known whether it stands.
    fn not_known(&self, cause: &Error) -> Error {
        Error::Poisoned { path: self.path.to_path_buf(), cause: cause.to_string() }
    }

    /// A failed flush is always `Io`: `DiskFull` would say that the transaction was aborted and the
    /// database goes on (R9).
    pub(crate) fn flush_error(&self, op: &'static str, source: io::Error) -> Error {
        Error::Io { op, path: self.path.to_path_buf(), source }
    }

    /// Writes the meta page of a state into a slot and makes it durable.
    fn write_meta_page(&self, state: &State, slot: usize) -> Result<()> {
        self.live.set_in_doubt(Some(state.txn));
        self.store_meta_page(state, slot)?;
        self.live.store_durable(DurableMeta { slot, txn: state.txn });
        self.live.set_in_doubt(None);
        Ok(())
    }

    fn store_meta_page(&self, state: &State, slot: usize) -> Result<()> {
        let mut page = vec![0; self.page_size];
        self.meta_page_of(state).encode_slot(&mut page);
        // Once more, where the flush of the pages has used up what was there for the meta pages.
        self.mapping.prefault_meta_pages().map_err(|e| self.flush_error("prefaulting the meta pages", e))?;
        self.mapping.store_meta_page(slot, &page);
        if hooks::is(Mutant::NoMetaFlush) {
            return Ok(());
        }
        self.mapping
            .flush(FlushKind::MetaPage, (slot * self.page_size) as u64, self.page_size as u64)
            .map_err(|e| self.flush_error("flushing the meta page", e))
    }
}

//! Checkpoint: making a whole state durable and writing a meta that points at it.
//!
//! Floor: txn. Two flushes: first everything that the state reaches, then the other meta slot (rule R7). The meta that is
//! durable stays valid, with all its pages, until the new one is durable. Several commits that wait at the same time
//! share one checkpoint: whoever gets the checkpoint lock hardens the newest tip.
//!
//! Invariants:
//!   K1  a meta is written only after everything it reaches was flushed without error.
//!   K2  metas are written in txn order, to the slot that does not hold the durable one.
//!   K3  any failed flush poisons the database before the mark is made even (rule R9, P18).
//!
//! Failure: the system's error to the commit that led; [`Error::Poisoned`] to everybody after it.

use std::io;

use crate::error::{Error, Result};
use crate::ids::TxnId;
use crate::mapping::FlushKind;
use crate::txn::env::Env;
use crate::txn::live::DurableMeta;
use crate::txn::state::State;

impl Env {
    /// Returns when a meta of `txn` or a later transaction is durable and published.
    pub(crate) fn harden(&self, txn: TxnId) -> Result<()> {
        let _checkpoint = self.lock_checkpoint();
        self.check_poison()?;
        if self.live.durable().txn >= txn {
            return Ok(());
        }
        let state = self.live.tip();
        self.live.mark_odd();
        let done = self.write_checkpoint(&state);
        if let Err(e) = &done {
            self.set_poison(e.to_string());
        }
        self.live.mark_even();
        done
    }

    fn write_checkpoint(&self, state: &State) -> Result<()> {
        let page_size = self.page_size as u64;
        let slot = self.live.durable().slot ^ 1;
        let io = |op, e: io::Error| Error::io(op, &self.path, e);
        self.mapping
            .flush(FlushKind::Tree, 2 * page_size, (state.page_count - 2) * page_size)
            .map_err(|e| io("flushing pages", e))?;
        self.live.set_in_doubt(Some(state.txn));
        let mut page = vec![0; self.page_size];
        self.meta_of(state).encode_slot(&mut page);
        self.mapping.store_meta(slot, &page);
        self.mapping
            .flush(FlushKind::Meta, slot as u64 * page_size, page_size)
            .map_err(|e| io("flushing the meta", e))?;
        self.live.store_durable(DurableMeta { slot, txn: state.txn });
        self.live.set_in_doubt(None);
        self.live.publish(state);
        Ok(())
    }
}

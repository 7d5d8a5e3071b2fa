//! Going on from what a thread has left that stopped in the middle of a commit or a checkpoint.
//!
//! Floor: txn. A committer may stop after any step, and its locks are released. The records say how
//! far it has come (R12), and the next holder of a lock goes on from there:
//!
//! ```text
//! appending is set                        the record may be an orphan: its epoch is broken (P9)
//! a meta page in doubt after `latest`     a commit by checkpoint: the next writer finishes it (P13)
//! any other meta page in doubt            the next checkpoint finishes it before its own (P13)
//! ```
//!
//! Invariants:
//!   OVER-1  a meta page in doubt is the durable one, or finished, before another meta page is
//!           written, and before a transaction begins on a state that is older than it.
//!   OVER-2  finishing moves no record before the meta page is durable; a thread that stops
//!           while it finishes leaves the page in doubt.
//!
//! Failure: as of a checkpoint; a failed flush poisons the database.

use crate::error::Result;
use crate::hooks::{self, Moment, Mutant};
use crate::ids::TxnId;
use crate::txn::core::Core;
use crate::txn::live::{Checkpoint, DurableMeta, FlushMark};

/// The writer lock without a transaction; released when it is dropped.
struct Held<'c>(&'c Core);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.release_writer();
    }
}

impl Core {
    /// Goes on from what a writer has left that stopped. The caller holds the writer lock, and
    /// builds on the latest state only after this.
    #[inline]
    pub(crate) fn take_over(&self) -> Result<()> {
        match self.live.appending() != TxnId(0) || self.live.may_be_in_doubt() {
            true => self.take_over_rest(),
            false => Ok(()),
        }
    }

    #[cold]
    fn take_over_rest(&self) -> Result<()> {
        if self.live.appending() != TxnId(0) {
            self.live.set_broken(self.live.latest().log.epoch);
            self.live.set_appending(TxnId(0));
        }
        if !self.is_commit_in_doubt() {
            return Ok(());
        }
        let _checkpoint = self.lock_checkpoint();
        self.check_poison()?;
        self.finish_in_doubt().inspect_err(|e| self.set_poison(e))
    }

    /// Whether the meta page in doubt is that of a commit by checkpoint which has not ended.
    pub(crate) fn is_commit_in_doubt(&self) -> bool {
        let in_doubt = self.live.checkpoint().in_doubt;
        in_doubt.is_some_and(|(_, state)| state.txn > self.live.latest().txn) && !leaves_in_doubt()
    }

    /// Takes the writer lock to finish the commit of a writer that has stopped. The caller holds no
    /// lock.
    pub(crate) fn finish_commit_in_doubt(&self) -> Result<()> {
        self.writer_lock.acquire(None);
        let _held = Held(self);
        self.take_over()
    }

    /// Finishes the meta page in doubt, if there is one. The caller holds the checkpoint lock, and
    /// the writer lock if the page is newer than the latest state.
    pub(crate) fn finish_in_doubt(&self) -> Result<()> {
        let before = self.live.checkpoint();
        let Some((slot, state)) = before.in_doubt.filter(|_| !leaves_in_doubt()) else {
            return Ok(());
        };
        if before.durable_meta.txn < state.txn {
            self.live.set_odd(FlushMark::Checkpoint);
            self.map_all()?;
            self.flush_pages(&state)?;
            self.check_whole(&state)?;
            self.store_meta_page(&state, slot)?;
            self.check_whole(&state).map_err(|e| self.not_known(&e))?;
        }
        let is_commit = state.txn > self.live.latest().txn;
        if is_commit {
            self.live.store_latest(state.txn);
            hooks::reach(Moment::LatestStored);
        }
        let durable_meta = DurableMeta::of(&state, slot);
        self.live.store_checkpoint(&Checkpoint { durable_meta, ..before });
        hooks::reach(Moment::MetaMoved);
        self.live.set_durable(state.txn);
        hooks::reach(Moment::Publishing);
        if is_commit {
            self.live.publish(state.txn);
        }
        hooks::reach(Moment::Clearing);
        self.live.store_checkpoint(&Checkpoint { durable_meta, pinned: None, in_doubt: None });
        if before.durable_meta.txn < state.txn {
            self.live.set_even(FlushMark::Checkpoint);
        }
        Ok(())
    }
}

/// Whether a mutant leaves a meta page in doubt.
fn leaves_in_doubt() -> bool {
    hooks::is(Mutant::MetaUnfinished) || hooks::is(Mutant::NewerMetaUnfinished)
}

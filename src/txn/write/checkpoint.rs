//! Checkpoint: making a whole state durable and writing a meta page that points at it.
//!
//! Floor: txn. Two flushes: first everything that the state reaches, then the other meta page (rule
//! R7). The meta page that is durable stays valid, with all its pages, until the new one is
//! durable. There are two ways. A commit by checkpoint makes its own state durable and holds the
//! writer lock to the end. A checkpoint beside writers makes the published state durable while
//! transactions go on; the commit log has what came after it.
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
//!   CHECKPOINT-5  a state is pinned from before its pages are flushed until its meta page is the
//!                 durable one (P15).
//!
//! Failure: the kernel's error, or [`Error::Fault`](crate::error::Error::Fault), to the commit that
//! led; [`Error::Poisoned`](crate::error::Error::Poisoned) to everybody after it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::hooks::{self, FlushKind, Moment, Mutant};
use crate::txn::core::Core;
use crate::txn::live::{Checkpoint, DurableMeta};
use crate::txn::locks::NamedGuard;
use crate::txn::state::State;

/// Bytes whose write-back a paced checkpoint begins at once.
const PACE_BYTES: u64 = 1 << 20;
/// A pause after a chunk that took at least so long to begin, because pages of it were dirty.
const PACE_FROM: Duration = Duration::from_micros(100);
const PACE_PAUSE: Duration = Duration::from_micros(500);

impl Core {
    /// Takes the checkpoint lock. A checkpoint beside writers makes no more pauses meanwhile.
    pub(crate) fn lock_checkpoint(&self) -> NamedGuard<'_> {
        let _waiting = self.signal.wait();
        self.checkpoint_lock.lock()
    }

    /// Commits a state by checkpoint. The caller holds the writer lock and the checkpoint lock.
    pub(crate) fn commit_by_checkpoint(&self, state: &State, checkpoint: NamedGuard<'_>) -> Result<()> {
        self.check_poison()?;
        let done = self.commit_state(state);
        if let Err(e) = &done {
            self.set_poison(e);
        }
        drop(checkpoint);
        self.waiters.wake(self.live.published_txn());
        done
    }

    fn commit_state(&self, state: &State) -> Result<()> {
        if !hooks::is(Mutant::NoPageFlush) && !hooks::is(Mutant::MetaFirst) {
            self.flush_pages(state)?;
        }
        // What was cut off since it was stored is not flushed, and nobody is told: no meta page may
        // lead to it.
        self.check_whole(state)?;
        self.live.add_state(state);
        let record = self.write_meta_page(state, Checkpoint { pinned: None, ..self.live.checkpoint() })?;
        if hooks::is(Mutant::MetaFirst) {
            self.flush_pages(state)?;
        }
        // From here on the state may be the one that is found when the file is opened again.
        self.check_whole(state).map_err(|e| self.not_known(&e))?;
        self.live.store_checkpoint(&Checkpoint { durable_meta: record.durable_meta, ..self.live.checkpoint() });
        self.live.store_latest(state.txn);
        hooks::reach(Moment::LatestStored);
        self.live.set_durable(state.txn);
        self.live.publish(state.txn);
        self.live.store_checkpoint(&record);
        Ok(())
    }

    /// Makes the published state durable while writers go on, unless the durable meta page has it.
    /// Paced: the disk has pauses in which commits are flushed.
    pub(crate) fn checkpoint_beside_writers(&self, paced: bool) -> Result<()> {
        let checkpoint = if paced { self.checkpoint_lock.lock() } else { self.lock_checkpoint() };
        self.check_poison()?;
        let done = self.checkpoint_published(paced);
        if let Err(e) = &done {
            self.set_poison(e);
        }
        drop(checkpoint);
        self.waiters.wake(self.live.published_txn());
        done
    }

    fn checkpoint_published(&self, paced: bool) -> Result<()> {
        let Some(state) = self.pin_published() else { return Ok(()) };
        hooks::reach(Moment::Pinned);
        if paced {
            self.begin_write_back(&state)?;
        }
        if !hooks::is(Mutant::MetaBeforeData) {
            self.flush_pages(&state)?;
        }
        self.check_whole(&state)?;
        let record = self.write_meta_page(&state, self.live.checkpoint())?;
        self.check_whole(&state).map_err(|e| self.not_known(&e))?;
        // `pinned` and `in_doubt` stand until the meta page is the durable one (P15).
        self.live.store_checkpoint(&Checkpoint { durable_meta: record.durable_meta, ..self.live.checkpoint() });
        self.live.set_durable(state.txn);
        self.live.store_checkpoint(&record);
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Pins the published state, and gives it; `None` if the durable meta page has it.
    fn pin_published(&self) -> Option<State> {
        loop {
            let txn = self.live.published_txn();
            let record = self.live.checkpoint();
            if record.durable_meta.txn >= txn {
                self.live.store_checkpoint(&Checkpoint { pinned: None, ..record });
                return None;
            }
            self.live.store_checkpoint(&Checkpoint { pinned: Some(txn), ..record });
            if self.live.published_txn() == txn {
                if let Some(state) = self.live.state(txn) {
                    return Some(state);
                }
            }
        }
    }

    /// Begins to write the pages of a state to the disk, chunk by chunk, with pauses, as long as no
    /// writer waits for the checkpoint.
    fn begin_write_back(&self, state: &State) -> Result<()> {
        let end = state.page_count * self.page_size as u64;
        for offset in (0..end).step_by(PACE_BYTES as usize) {
            if self.signal.is_urgent() {
                return Ok(());
            }
            let begin = Instant::now();
            let begun = self.mapping.start_write_back(offset, PACE_BYTES.min(end - offset));
            begun.map_err(|e| self.flush_error("beginning to write pages", e))?;
            if begin.elapsed() >= PACE_FROM {
                std::thread::park_timeout(PACE_PAUSE);
            }
        }
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

    /// Writes the meta page of a state into the slot that does not hold the durable one, and makes
    /// it durable; it is in doubt meanwhile. Gives the checkpoint record for the time after it.
    fn write_meta_page(&self, state: &State, before: Checkpoint) -> Result<Checkpoint> {
        let slot = before.durable_meta.slot ^ usize::from(!hooks::is(Mutant::SameSlot));
        self.live.store_checkpoint(&Checkpoint { in_doubt: Some((slot, *state)), ..before });
        self.store_meta_page(state, slot)?;
        Ok(Checkpoint { durable_meta: DurableMeta::of(state, slot), pinned: None, in_doubt: None })
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

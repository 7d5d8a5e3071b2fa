//! Checkpoint: making a whole state durable and writing a meta page that points at it.
//!
//! Floor: txn. A checkpoint has two flushes: first all pages that the state reaches, then the other
//! meta page (rule R7). The durable meta page stays valid, with all its pages, until the new one is
//! durable. There are two kinds. A commit by checkpoint makes its own state durable and holds the
//! writer lock to the end. A checkpoint beside writers makes the published state durable while
//! transactions go on. The commit log has the transactions after it.
//!
//! Invariants:
//!   CHECKPOINT-1  a meta page is written only after every page that it reaches was flushed without
//!                 error.
//!   CHECKPOINT-2  meta pages are written in txn order, to the slot that does not hold the durable
//!                 one.
//!   CHECKPOINT-3  no meta page is written, and no commit acknowledged, after the file has lost a
//!                 part of the state.
//!   CHECKPOINT-4  any failed flush poisons the database before another checkpoint can begin (rule
//!                 R9).
//!   CHECKPOINT-5  a checkpoint beside writers pins its state from before its pages are flushed
//!                 until its meta page is the durable one (P15). After an error the state stays
//!                 pinned.
//!
//! Failure: the kernel's error, or [`Error::Fault`](crate::error::Error::Fault), to the commit that
//! led; [`Error::Poisoned`](crate::error::Error::Poisoned) to all later calls.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::hooks::{self, FlushKind, Moment, Mutant};
use crate::txn::core::Core;
use crate::txn::live::{Checkpoint, DurableMeta, FlushMark};
use crate::txn::locks::NamedGuard;
use crate::txn::state::State;

/// Bytes of a chunk whose write-back a paced checkpoint begins.
const PACE_BYTES: u64 = 1 << 20;
/// If beginning the write-back of a chunk took at least this time, its pages were dirty, and a
/// pause follows.
const PACE_FROM: Duration = Duration::from_micros(100);
const PACE_PAUSE: Duration = Duration::from_micros(500);

impl Core {
    /// Waits for the checkpoint lock and takes it. A checkpoint beside writers makes no pauses
    /// while a thread waits here.
    pub(crate) fn lock_checkpoint(&self) -> NamedGuard<'_> {
        let _waiting = self.signal.wait();
        if let Some(free) = self.checkpoint_lock.try_lock_unawaited() {
            return free;
        }
        self.live.count_checkpoint_waiter(true);
        let held = self.checkpoint_lock.lock();
        self.live.count_checkpoint_waiter(false);
        held
    }

    /// Commits a state by checkpoint. The caller holds the writer lock and the checkpoint lock.
    pub(crate) fn commit_by_checkpoint(&self, state: &State, checkpoint: NamedGuard<'_>) -> Result<()> {
        self.check_poison()?;
        let done = self.finish_in_doubt().and_then(|()| self.commit_state(state));
        match &done {
            Ok(()) if state.log.pages > 0 => self.count_data(state),
            Ok(()) => {}
            Err(_) if hooks::is(Mutant::NewerMetaUnfinished) => {}
            Err(e) => self.set_poison(e),
        }
        drop(checkpoint);
        self.wake_waiters();
        done
    }

    /// Publishes a state that exists only in memory. The caller holds the writer lock.
    pub(crate) fn keep(&self, state: &State) {
        self.live.add_state(state);
        self.live.store_latest(state.txn);
        self.live.set_durable(state.txn);
        self.live.publish(state.txn);
    }

    fn commit_state(&self, state: &State) -> Result<()> {
        self.live.set_odd(FlushMark::Checkpoint);
        if !hooks::is(Mutant::NoPageFlush) && !hooks::is(Mutant::MetaFirst) {
            self.flush_pages(state)?;
        }
        // The flush reports no error for pages that were cut off after they were stored. No meta
        // page may lead to them.
        self.check_whole(state)?;
        self.live.add_state(state);
        let record = self.write_meta_page(state, Checkpoint { pinned: None, ..self.live.checkpoint() })?;
        if hooks::is(Mutant::MetaFirst) {
            self.flush_pages(state)?;
        }
        // From here on a later opening of the file may find this state.
        self.check_whole(state).map_err(|e| self.not_known(&e))?;
        self.live.store_checkpoint(&Checkpoint { durable_meta: record.durable_meta, ..self.live.checkpoint() });
        hooks::reach(Moment::MetaMoved);
        self.live.store_latest(state.txn);
        hooks::reach(Moment::LatestStored);
        self.live.set_durable(state.txn);
        hooks::reach(Moment::Publishing);
        self.live.publish(state.txn);
        hooks::reach(Moment::Clearing);
        self.live.store_checkpoint(&record);
        self.live.set_even(FlushMark::Checkpoint);
        Ok(())
    }

    /// Makes the published state durable while writers go on, unless the durable meta page has it.
    /// With `paced`, write-back has pauses in which the disk can flush commits.
    pub(crate) fn checkpoint_beside_writers(&self, paced: bool) -> Result<()> {
        self.prove_cache_unlocked()?;
        let lock = || if paced { self.checkpoint_lock.lock() } else { self.lock_checkpoint() };
        let mut checkpoint = lock();
        if paced && !self.is_checkpoint_due(&self.live.latest()) {
            // Another process has made one meanwhile.
            return Ok(());
        }
        self.check_poison()?;
        while self.is_commit_in_doubt() {
            drop(checkpoint);
            self.finish_commit_in_doubt()?;
            checkpoint = lock();
        }
        let done = self.finish_in_doubt().and_then(|()| self.checkpoint_published(paced));
        if let Err(e) = &done {
            self.set_poison(e);
        }
        drop(checkpoint);
        self.wake_waiters();
        done
    }

    fn checkpoint_published(&self, paced: bool) -> Result<()> {
        let Some(state) = self.pin_published()? else { return Ok(()) };
        if hooks::is(Mutant::DurableBeforeFlush) {
            self.live.set_durable(state.txn);
        }
        hooks::reach(Moment::Pinned);
        self.map_all()?;
        self.count_data(&state);
        self.live.set_odd(FlushMark::Checkpoint);
        if paced {
            self.begin_write_back(&state)?;
        }
        if !hooks::is(Mutant::MetaBeforeData) {
            self.mapping.release_writable(0, state.page_count * self.page_size as u64);
            self.flush_pages(&state)?;
        }
        self.check_whole(&state)?;
        let pinned = Some(state.txn).filter(|_| !hooks::is(Mutant::UnpinnedEarly));
        let record = Checkpoint { pinned, ..self.live.checkpoint() };
        let record = self.write_meta_page(&self.with_log_start(state), record)?;
        self.check_whole(&state).map_err(|e| self.not_known(&e))?;
        // `pinned` and `in_doubt` stand until the meta page is the durable one (P15).
        self.live.store_checkpoint(&Checkpoint { durable_meta: record.durable_meta, ..self.live.checkpoint() });
        hooks::reach(Moment::MetaMoved);
        self.live.set_durable(state.txn);
        hooks::reach(Moment::Clearing);
        self.live.store_checkpoint(&record);
        self.live.set_even(FlushMark::Checkpoint);
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The state as its meta page describes it: replay starts with the record after it.
    fn with_log_start(&self, state: State) -> State {
        if !hooks::is(Mutant::LogStartLate) {
            return state;
        }
        self.live.state(state.txn.next()).map_or(state, |next| State { log: next.log, ..state })
    }

    /// Pins the published state and returns it. `None` if the durable meta page has it.
    fn pin_published(&self) -> Result<Option<State>> {
        loop {
            let txn = self.live.published_txn();
            hooks::note(txn.0);
            let record = self.live.checkpoint();
            if record.durable_meta.txn >= txn {
                self.live.store_checkpoint(&Checkpoint { pinned: None, ..record });
                return Ok(None);
            }
            self.live.store_checkpoint(&Checkpoint { pinned: Some(txn), ..record });
            hooks::reach(Moment::Pinning);
            if self.live.published_txn() == txn || hooks::is(Mutant::PinNotReread) {
                if let Some(state) = self.live.state(txn) {
                    return Ok(Some(state));
                }
                // The ring has the published state, unless its memory was overwritten.
                self.live.published();
                self.check_poison()?;
            }
        }
    }

    /// Begins the write-back of the pages of a state, chunk by chunk with pauses, until a writer
    /// waits for the checkpoint.
    fn begin_write_back(&self, state: &State) -> Result<()> {
        let end = state.page_count * self.page_size as u64;
        for offset in (0..end).step_by(PACE_BYTES as usize) {
            if self.signal.is_urgent() || self.live.is_checkpoint_awaited() {
                return Ok(());
            }
            let begin = Instant::now();
            self.mapping.release_writable(offset, PACE_BYTES);
            let begun = self.mapping.start_write_back(offset, PACE_BYTES.min(end - offset));
            begun.map_err(|e| self.flush_error("beginning to write pages", e))?;
            let done = (offset + PACE_BYTES) / self.page_size as u64;
            if begin.elapsed() >= PACE_FROM && self.may_pause(state, done) {
                std::thread::park_timeout(PACE_PAUSE);
            }
        }
        Ok(())
    }

    /// Prefaults the meta pages, so that storing one cannot meet a full disk. Called while the
    /// transaction can still be aborted.
    pub(crate) fn prefault_meta_pages(&self) -> Result<()> {
        let wanted = 2 * self.page_size as u64;
        // If the kernel cannot prefault them, they are written as they were read. No checkpoint may
        // store one meanwhile.
        let _checkpoint = self.mapping.prefaults_first().then(|| self.lock_checkpoint());
        let prepared = self.mapping.prefault_meta_pages();
        prepared.map_err(|e| Error::io("preparing the meta pages for writing", &self.path, e).with_wanted(wanted))
    }

    /// Maps what the latest state needs, to flush it and to store a meta page (P11). Another
    /// process may have made the file ready for stores and longer.
    pub(super) fn map_all(&self) -> Result<()> {
        let mapped = self.mapping.follow().and_then(|()| match self.mapping.is_written_to() {
            true => self.mapping.ready_beside_writers(),
            false => Ok(()),
        });
        mapped.map_err(|e| self.flush_error("mapping the file", e))
    }

    /// Flushes all pages of the file up to the page count of a state, except the meta pages.
    pub(super) fn flush_pages(&self, state: &State) -> Result<()> {
        let page_size = self.page_size as u64;
        self.mapping
            .flush(FlushKind::Tree, 2 * page_size, (state.page_count - 2) * page_size)
            .map_err(|e| self.flush_error("flushing pages", e))
    }

    /// Flushes all dirty pages, also those of the running transaction (which no state reaches yet),
    /// and drops the page cache. A failure poisons like that of a commit (R9).
    pub(crate) fn flush_and_drop_cache(&self) -> Result<()> {
        let _checkpoint = self.lock_checkpoint();
        self.check_poison()?;
        self.live.set_odd(FlushMark::Checkpoint);
        let flushed = self.flush_pages(&self.live.latest());
        if let Err(e) = &flushed {
            self.set_poison(e);
        }
        flushed?;
        self.live.set_even(FlushMark::Checkpoint);
        self.drop_cache();
        Ok(())
    }

    /// Writes the meta page of a state into the slot that does not hold the durable one, and
    /// flushes it. The meta page is in doubt meanwhile. Returns the checkpoint record to store
    /// afterwards.
    fn write_meta_page(&self, state: &State, before: Checkpoint) -> Result<Checkpoint> {
        let slot = before.durable_meta.slot ^ usize::from(!hooks::is(Mutant::SameSlot));
        self.live.store_checkpoint(&Checkpoint { in_doubt: Some((slot, *state)), ..before });
        hooks::reach(Moment::InDoubt);
        self.store_meta_page(state, slot)?;
        Ok(Checkpoint { durable_meta: DurableMeta::of(state, slot), pinned: None, in_doubt: None })
    }

    pub(super) fn store_meta_page(&self, state: &State, slot: usize) -> Result<()> {
        let mut page = vec![0; self.page_size];
        self.meta_page_of(state).encode_slot(&mut page);
        // Prefault again: on some file systems the flush of the pages uses up the blocks that were
        // reserved for the meta pages.
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

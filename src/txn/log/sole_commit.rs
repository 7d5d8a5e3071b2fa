//! Sole commits: one write appends the record of a transaction and makes it durable.
//!
//! Floor: txn. Group commit appends a record to the page cache, and later one thread flushes the
//! records of all. If no other transaction would share the flush, one write past the page cache
//! does both, for less processor time. The writer then is its own leader. It keeps the writer lock
//! during the flush, so it does this only if no other thread waits for one of the locks, and only
//! after several flushes for one transaction each. Steps, with the checkpoint lock and the flush
//! lock held:
//!
//! ```text
//! 1  the first step of `append.rs`; raise `closed` to the end of the record's last page
//! 2  write the record durably
//! 3  the last steps of `append.rs`: `latest` is stored
//! 4  the last steps of `lead.rs`: store `flushed`, `durable`, `published`
//! ```
//!
//! A writer that stops between these steps leaves what a writer and a leader leave that stop there.
//!
//! Invariants:
//!   SOLE-1  no thread stores to the mapping during the write: only the writer and a checkpoint
//!           could, and the writer holds both locks. The kernel drops the written range from the
//!           page cache. A larger folio there that became dirty meanwhile could overwrite the
//!           record with older bytes.
//!   SOLE-2  everything before the record is durable and published.
//!
//! Failure: as in `append.rs`, if nothing was flushed. A failed write past the cache may be a
//! failed flush, so it poisons the database (R9).

use std::sync::atomic::{fence, Ordering};
use std::time::Instant;

use crate::error::Result;
use crate::hooks::{self, Moment, Mutant};
use crate::ids::TxnId;
use crate::mapping::WriteFailed;
use crate::page::log_record::ALIGNED_BYTES;
use crate::txn::core::Core;
use crate::txn::live::FlushMark;
use crate::txn::locks::NamedGuard;
use crate::txn::state::State;

/// The locks for a sole commit.
pub(crate) struct SoleLocks<'l> {
    _flush: NamedGuard<'l>,
    _checkpoint: NamedGuard<'l>,
}

impl Core {
    /// Whether no other thread wants to commit, as far as can be told.
    fn is_lone(&self) -> bool {
        if !self.waiters.flushes_are_lone() {
            return false;
        }
        let awaited = self.writer_lock.was_awaited();
        if awaited {
            // Others need the writer lock while a flush runs.
            self.waiters.expect_others();
        }
        !awaited
    }

    /// Returns the locks for a sole commit of a state, if nothing else would share its flush. The
    /// caller holds the writer lock.
    pub(crate) fn try_sole(&self, state: &State, record_bytes: usize) -> Option<SoleLocks<'_>> {
        if !hooks::sole().unwrap_or_else(|| self.is_lone()) {
            return None;
        }
        let before = TxnId(state.txn.0 - 1);
        let is_first = || self.live.durable_txn() == before && self.live.published_txn() == before;
        if !is_first() && !hooks::is(Mutant::SoleAfterUnflushed) {
            return None;
        }
        let checkpoint = self.checkpoint_lock.try_lock_unawaited()?;
        let flush = self.flush_lock.try_lock_unawaited()?;
        if !self.live.mark(FlushMark::Flush).is_multiple_of(2) {
            // A leader has died: the next one flushes again what it covered (P18).
            return None;
        }
        if hooks::is(Mutant::SoleAfterUnflushed) {
            self.live.raise_closed(state.log.start.next_multiple_of(self.page_size as u64));
        }
        let head = state.log.start.max(self.live.closed());
        if !head.is_multiple_of(self.page_size as u64) {
            return None;
        }
        let len = record_bytes.next_multiple_of(ALIGNED_BYTES).next_multiple_of(self.page_size);
        let log_file = self.log_file(&state.log).ok()?;
        log_file.can_write_durably(head, len).then_some(SoleLocks { _flush: flush, _checkpoint: checkpoint })
    }

    /// Appends the record of a state, makes it durable, and stores the state as the latest and the
    /// published one. Returns false if the append failed: then the epoch is broken, and nothing was
    /// committed.
    pub(crate) fn append_durably(&self, state: &mut State, record: &mut Vec<u8>, locks: SoleLocks<'_>) -> Result<bool> {
        let Ok(log_file) = self.log_file(&state.log) else {
            self.live.set_broken(state.log.epoch);
            return Ok(false);
        };
        let span = self.place_record(state, record);
        self.live.raise_closed(span.padded);
        fence(Ordering::SeqCst);
        hooks::reach(Moment::LogClosed);
        self.live.set_odd(FlushMark::Flush);
        let begin = Instant::now();
        let written = log_file.write_durably(&self.mapping, span.head, record);
        self.waiters.note_flush(begin.elapsed());
        hooks::reach(Moment::Appended);
        match written {
            Ok(()) => {}
            Err(WriteFailed::NotWritten) => {
                self.fail_append(state);
                self.live.set_even(FlushMark::Flush);
                return Ok(false);
            }
            Err(WriteFailed::NotFlushed(e)) => {
                self.fail_append(state);
                let e = self.flush_error("writing and flushing the commit log", e);
                self.set_poison(&e);
                return Err(e);
            }
        }
        self.finish_append(state, span.end);
        let ended = self.finish_flush(state, span.padded);
        if let Err(e) = &ended {
            self.set_poison(e);
        }
        hooks::reach(Moment::Publishing);
        if ended.is_ok() {
            self.live.publish(state.txn);
            self.live.set_even(FlushMark::Flush);
        }
        drop(locks);
        // A thread that wanted to lead meanwhile sleeps.
        self.wake_waiters();
        ended.map(|()| true)
    }
}

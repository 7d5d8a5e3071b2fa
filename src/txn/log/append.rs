//! Appending the record of a commit to the log.
//!
//! Floor: txn. The caller holds the writer lock, and every page of the state is sealed. Steps, as
//! in docs/concurrency.md:
//!
//! ```text
//! 1  set `appending` to the txn; full fence
//! 2  write the record at the head, or at `closed` if that is after it, and zeros to the page's end
//! 3  put the state into the ring
//! 4  store `latest`
//! 5  clear `appending`
//! ```
//!
//! While `appending` is set the writer waits for nothing, because a leader waits for it (P8).
//!
//! Invariants:
//!   RECORD-1  no page is written again once its flush begins: a record never begins before
//!             `closed` (P8).
//!   RECORD-2  nothing is appended to an epoch with an orphan record (P9).
//!   RECORD-3  pages of the log are not overwritten from the page on that has the log start of the
//!             durable meta page.
//!
//! Failure: a failed write leaves an orphan record. The writer then marks the epoch as broken and
//! commits by checkpoint in a new epoch. It cannot abort instead: a later replay could find the
//! record and bring the aborted transaction back.

use std::sync::atomic::{fence, Ordering};

use crate::error::best_effort;
use crate::hooks::{self, Moment, Mutant};
use crate::ids::TxnId;
use crate::page::log_record::{self, RecordHeader, Seed, ALIGNED_BYTES, HEADER_BYTES};
use crate::page::meta::LogDescriptor;
use crate::sys::random;
use crate::txn::core::Core;
use crate::txn::state::State;

/// Records of at most so many bytes have zeros written to their blocks in advance.
const SMALL_RECORD_BYTES: usize = 64 << 10;

/// Where a record lies in the log, as positions.
pub(super) struct RecordSpan {
    pub(super) head: u64,
    pub(super) end: u64,
    /// `end`, rounded up to a page.
    pub(super) padded: u64,
}

impl Core {
    /// Whether records can be appended to a log.
    pub(crate) fn can_append(&self, log: &LogDescriptor) -> bool {
        log.pages > 0 && (log.epoch > self.live.broken() || orphans_stay())
    }

    /// The most bytes that the record of one transaction may have: a quarter of the log.
    pub(crate) fn record_limit(&self, log: &LogDescriptor) -> usize {
        match self.can_append(log) {
            true => (log.pages as usize * self.page_size / 4).min(u32::MAX as usize),
            false => 0,
        }
    }

    /// Whether the log has space for a record, computed as if the record began on the next page
    /// (P16).
    pub(crate) fn has_log_space(&self, log: &LogDescriptor, record_bytes: usize) -> bool {
        let page_size = self.page_size as u64;
        let (_, end) = self.next_pages(log, record_bytes);
        let start = self.live.durable_meta().log_start / page_size * page_size;
        end <= start + log.pages * page_size || hooks::is(Mutant::LogSpaceIgnored)
    }

    /// The positions between which a record lies if it begins on the next page.
    fn next_pages(&self, log: &LogDescriptor, record_bytes: usize) -> (u64, u64) {
        let page_size = self.page_size as u64;
        let head = log.start.max(self.live.closed()).next_multiple_of(page_size);
        (head, head + (record_bytes as u64 + ALIGNED_BYTES as u64).next_multiple_of(page_size))
    }

    /// Writes zeros ahead in a new log for a small record, so that its flush writes no more than
    /// it. For a large one, zeros would cost more than the second flush that the file system makes.
    /// If this fails, flushes take longer, or the append fails too.
    pub(crate) fn write_zeros_for(&self, log: &LogDescriptor, record_bytes: usize) {
        if record_bytes > SMALL_RECORD_BYTES {
            return;
        }
        let (head, end) = self.next_pages(log, record_bytes);
        let Ok(log_file) = self.log_file(log) else { return };
        if log_file.lacks_zeros(end) {
            // As in a sole commit, no checkpoint may store to the mapping meanwhile (SOLE-1).
            if let Some(_checkpoint) = self.checkpoint_lock.try_lock_unawaited() {
                best_effort(log_file.write_zeros_ahead(&self.mapping, head, end));
            }
        }
    }

    /// Appends the record of a state and stores the state as the latest. Returns false if the write
    /// failed: then the epoch is broken, and nothing was committed.
    pub(crate) fn append(&self, state: &mut State, record: &mut Vec<u8>) -> bool {
        let Ok(log_file) = self.log_file(&state.log) else {
            self.live.set_broken(state.log.epoch);
            return false;
        };
        let span = self.place_record(state, record);
        let written = log_file.write(&self.mapping, span.head, record);
        hooks::reach(Moment::Appended);
        match written {
            Ok(()) => self.finish_append(state, span.end),
            Err(_) => self.fail_append(state),
        }
        written.is_ok()
    }

    /// Begins to append: sets `appending`, finds the place of the record, and makes the record
    /// whole, with zeros to the end of its last page.
    pub(super) fn place_record(&self, state: &mut State, record: &mut Vec<u8>) -> RecordSpan {
        self.live.set_appending(state.txn);
        fence(Ordering::SeqCst);
        hooks::reach(Moment::Appending);
        let head = match hooks::is(Mutant::FlushedPageRewritten) {
            true => state.log.start,
            false => state.log.start.max(self.live.closed()),
        };
        hooks::note(head);
        hooks::reach(Moment::RecordPlaced);
        let header = RecordHeader {
            chain: state.log.chain,
            body_bytes: (record.len() - HEADER_BYTES) as u32,
            txn: state.txn,
            durable: self.live.durable_txn(),
            durable_meta: self.live.durable_meta().txn,
        };
        state.log.chain = log_record::seal(record, Seed::new(&self.uuid, state.log.epoch), &header);
        let end = head + header.record_bytes();
        let padded = end.next_multiple_of(self.page_size as u64);
        record.resize((padded - head) as usize, 0);
        RecordSpan { head, end, padded }
    }

    /// Ends an append whose record is written: stores the state as the latest.
    pub(super) fn finish_append(&self, state: &mut State, end: u64) {
        state.log.start = end;
        self.live.add_state(state);
        self.live.store_latest(state.txn);
        hooks::reach(Moment::LatestStored);
        self.live.set_appending(TxnId(0));
        hooks::reach(Moment::AppendingCleared);
    }

    /// Ends an append that failed. The record may be an orphan.
    pub(super) fn fail_append(&self, state: &State) {
        self.live.set_broken(state.log.epoch);
        self.live.set_appending(TxnId(0));
    }

    /// Begins a new epoch in the log of a state, on a new page and with a random chain (P14).
    pub(crate) fn begin_epoch(&self, state: &mut State) {
        let log = &mut state.log;
        log.epoch = log.epoch.max(self.live.broken()) + 1;
        log.start = log.start.max(self.live.closed()).next_multiple_of(self.page_size as u64);
        log.chain = random_chain(&self.uuid, log.epoch);
    }
}

/// Whether a mutant appends to a broken epoch.
fn orphans_stay() -> bool {
    hooks::is(Mutant::OrphanStays) || hooks::is(Mutant::OrphanAborted)
}

/// Returns a random number, so that no earlier epoch is likely to have begun with it.
fn random_chain(uuid: &[u8; 16], epoch: u64) -> u32 {
    if let Some(chain) = hooks::chain() {
        return chain ^ epoch as u32;
    }
    if let Ok(bytes) = random::bytes() {
        return u32::from_le_bytes(bytes);
    }
    // Without random numbers, use the time.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(uuid);
    hasher.update(&epoch.to_le_bytes());
    hasher.update(&now.as_nanos().to_le_bytes());
    hasher.finalize()
}

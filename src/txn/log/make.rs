//! Making the log, and giving it up.
//!
//! Floor: txn. A database that commits only a few times, like one command of a tool, has no log:
//! its commits cost two flushes, and the file stays small. The fourth small commit of an open
//! database makes the log. Closing cleanly gives the log up. Both are commits by checkpoint,
//! because the log's extent and epoch are part of the state (P14). The log takes free space that is
//! long enough, else the end of the file.
//!
//! Failure: without room on the disk no log is made, and transactions commit by checkpoint.
//! Otherwise the errors of a commit by checkpoint.

use std::io;
use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::hooks::{self, Mutant};
use crate::ids::{PageId, TxnId};
use crate::page::meta::LogDescriptor;
use crate::pager::write::txn_pages::TxnPages;
use crate::pager::PageWrite as _;
use crate::txn::core::Core;
use crate::txn::env::{Env, Writer};
use crate::txn::locks::NamedGuard;
use crate::txn::log::replay::may_not_grow;
use crate::txn::state::State;
use crate::txn::write::txn::{writer_of, RunningTxn};

/// Commits of an open database before one makes the log.
const COMMITS_BEFORE_LOG: u64 = 3;
/// Commits by checkpoint between a failed attempt to make the log and the next one.
const COMMITS_BEFORE_RETRY: u64 = 1000;
/// A log is replaced when the new one would be at least this many times as large.
const LARGER_FROM: u64 = 4;
const LOG_MIN_BYTES: u64 = 256 << 10;
const LOG_MAX_BYTES: u64 = 64 << 20;

impl Core {
    /// Bytes that a new log of this database would have: a quarter of the file, within bounds.
    fn new_log_bytes(&self, state: &State) -> u64 {
        let page_size = self.page_size as u64;
        if let Some((_, bytes)) = hooks::log_shape() {
            return bytes / page_size * page_size;
        }
        let quarter = state.page_count * page_size / 4;
        quarter.clamp(LOG_MIN_BYTES, LOG_MAX_BYTES) / page_size * page_size
    }

    /// Whether the next small commit makes a log: the first one, or a larger one because the file
    /// has grown.
    fn wants_log(&self, state: &State) -> bool {
        let commits = self.commits.load(Ordering::Relaxed);
        let before = hooks::log_shape().map_or(COMMITS_BEFORE_LOG, |(commits, _)| commits);
        let bytes = state.log.pages * self.page_size as u64;
        let outgrown = bytes * LARGER_FROM <= self.new_log_bytes(state);
        outgrown && self.file_lock().is_some() && commits >= before.max(self.retry_at.load(Ordering::Relaxed))
    }

    /// Delays the next attempt to make a log by [`COMMITS_BEFORE_RETRY`] commits.
    fn put_log_off(&self) {
        self.retry_at.store(self.commits.load(Ordering::Relaxed) + COMMITS_BEFORE_RETRY, Ordering::Relaxed);
    }

    /// The most bytes that the record of a transaction on a state may have. 0 if the transaction
    /// needs no record.
    pub(crate) fn record_bytes_for(&self, state: &State) -> usize {
        match self.wants_log(state) {
            true => self.new_log_bytes(state) as usize / 4,
            false => self.record_limit(&state.log),
        }
    }

    /// Commits a state by checkpoint, in a new epoch if the log's epoch is broken.
    pub(crate) fn store_by_checkpoint(&self, mut state: State, checkpoint: NamedGuard<'_>) -> Result<State> {
        if state.log.pages > 0 && !self.can_append(&state.log) {
            self.begin_epoch(&mut state);
        }
        self.commit_by_checkpoint(&state, checkpoint)?;
        Ok(state)
    }

    /// Whether a state may be visible before it is durable: every `Immediate` transaction up to it
    /// is durable (P12).
    pub(crate) fn may_publish(&self, state: &State) -> bool {
        self.live.durable_txn() >= state.last_immediate || hooks::is(Mutant::LastImmediateIgnored)
    }
}

impl Env {
    /// Asks the environment's thread for what is due after a commit: a checkpoint, and a flush if
    /// the transaction is not durable.
    pub(crate) fn note_commit(&self, txn: TxnId) {
        let Some(state) = self.live.state(txn).filter(|state| state.log.pages > 0) else { return };
        self.start_background();
        self.assume_data(&state);
        if self.is_checkpoint_due(&state) {
            self.signal.want_checkpoint();
        }
        if self.live.durable_txn() < txn {
            if let Some(interval) = self.opened.sync_interval {
                self.signal.want_sync(interval);
            }
        }
    }

    /// Gives the log up when the last handle closes: commits a state without it. Then drops the
    /// free pages at the end of the file. If that makes the state shorter, commits once more, so
    /// that both meta pages describe the shorter file before it is cut.
    pub(crate) fn give_up_log(&mut self) -> Result<()> {
        self.make_writer()?;
        let before = self.live.latest();
        let born = self.log_needed_from();
        self.commit_alone(&before, |pages| {
            pages.free(before.log.first, before.log.pages, born);
        })?;
        let without_log = self.live.latest();
        self.commit_alone(&without_log, TxnPages::cut_tail)?;
        let short = self.live.latest();
        if short.page_count < without_log.page_count {
            let next = short.txn.next();
            self.commit_by_checkpoint(&State { txn: next, ..short }, self.checkpoint_lock.lock())?;
        }
        Ok(())
    }

    /// Commits by checkpoint a state without a log, with a change of the free space. No other
    /// thread uses the environment.
    fn commit_alone(&self, latest: &State, change: impl FnOnce(&mut TxnPages)) -> Result<()> {
        let Some(mut writer) = self.take_writer() else { return Ok(()) };
        let made = self.change_free_space(&mut writer, latest, change);
        writer.pages.end();
        if let Ok(state) = &made {
            writer.based_on = state.txn;
        }
        self.return_writer(writer);
        self.commit_by_checkpoint(&made?, self.checkpoint_lock.lock())
    }

    fn change_free_space(
        &self,
        writer: &mut Writer,
        latest: &State,
        change: impl FnOnce(&mut TxnPages),
    ) -> Result<State> {
        if writer.based_on != latest.txn {
            writer.forget();
        }
        writer.pages.begin(latest.txn.next(), latest.page_count);
        let basis = writer.basis_of(self, *latest);
        writer.cache.begin(&mut writer.pages, &basis)?;
        writer.cache.release_lists(&mut writer.pages);
        change(&mut writer.pages);
        self.prefault_meta_pages()?;
        let (free_space, free_list) = writer.cache.save(&mut writer.pages, &basis)?;
        let txn = latest.txn.next();
        let log = LogDescriptor { first: PageId::NONE, pages: 0, start: self.next_log_start(latest), ..latest.log };
        let page_count = writer.pages.page_count();
        Ok(State { txn, page_count, free_space, free_list, log, last_immediate: txn, ..*latest })
    }
}

impl Core {
    /// Opens the file of a new log, and writes its first blocks.
    fn begin_log_file(&self, log: &LogDescriptor) -> io::Result<()> {
        let log_file = self.log_file(log)?;
        log_file.set_new(log.start);
        let _checkpoint = self.lock_checkpoint();
        log_file.write_zeros_ahead(&self.mapping, log.start, log.start + 1)
    }

    /// The first state whose recovery may need the log, as the birth of its pages. Readers and
    /// named snapshots need no log, and may have older states.
    fn log_needed_from(&self) -> TxnId {
        self.live.durable_meta().txn
    }

    /// Returns the position where the next log or epoch may begin: on a page that no flush has
    /// begun to write.
    fn next_log_start(&self, state: &State) -> u64 {
        state.log.start.max(self.live.closed()).next_multiple_of(self.page_size as u64)
    }
}

impl RunningTxn {
    /// Returns the log of the state that this transaction makes. Makes a new log if one is due.
    pub(crate) fn next_log(&mut self) -> Result<LogDescriptor> {
        let latest = self.basis.latest;
        if !self.env.wants_log(&latest) || !writer_of(&mut self.writer).record.is_active() {
            return Ok(latest.log);
        }
        let bytes = self.env.new_log_bytes(&latest);
        let pages = bytes / self.env.page_size as u64;
        let (first, pages) = match self.alloc_log(pages) {
            Ok(found) => found,
            Err(e) if may_not_grow(&e) => {
                self.env.put_log_off();
                return Ok(latest.log);
            }
            Err(e) => return Err(e),
        };
        let owner = &mut writer_of(&mut self.writer).pages;
        let mut state = State { log: LogDescriptor { first, pages, ..latest.log }, ..latest };
        self.env.begin_epoch(&mut state);
        if self.env.begin_log_file(&state.log).is_err() {
            // There is no room, or the file cannot be opened a second time: there is no log.
            owner.give_back_written_through(first, pages);
            self.env.put_log_off();
            return Ok(latest.log);
        }
        if latest.log.pages > 0 {
            owner.free(latest.log.first, latest.log.pages, self.env.log_needed_from());
        }
        self.makes_log = true;
        Ok(state.log)
    }

    /// Allocates a log of some pages, or of half as many: in free space, such as that of an earlier
    /// log, and only else at the end of the file. Otherwise a file that is opened and closed again
    /// and again would get longer by a log each time. Returns its first page and its length.
    fn alloc_log(&mut self, pages: u64) -> Result<(PageId, u64)> {
        let least = (LOG_MIN_BYTES / self.env.page_size as u64).min(pages);
        let Writer { pages: owner, cache, .. } = writer_of(&mut self.writer);
        for wanted in [pages, pages / 2] {
            cache.ensure(owner, &self.basis, wanted)?;
            if wanted >= least && owner.free.longest() >= wanted {
                return Ok((owner.alloc_written_through(wanted)?, wanted));
            }
        }
        Ok((owner.alloc_written_through_at_end(pages)?, pages))
    }
}

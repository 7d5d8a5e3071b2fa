//! When a checkpoint beside writers begins, how fast it goes, and when writers wait for it.
//!
//! Floor: txn. Two things fill up between checkpoints: the log, and the file with pages that no
//! reader needs any more but the state of the durable meta page does. While a checkpoint runs, the
//! state that it makes durable holds pages too. [`State::superseded`] counts both: pages that the
//! pinned state reaches, if there is one, else those that the durable state reaches.
//!
//! A checkpoint begins when three quarters of the log are in use, or when as many pages are held as
//! the bound says. A writer that would pass the bound by a sixteenth waits for the checkpoint. A
//! checkpoint pauses between its chunks, so that the flushes of commits do not wait long, unless
//! writers would use up what was left to them before it ends.
//!
//! Failure: none. Where the pages of the data cannot be counted, the last count stays.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::pager::read::snapshot_pages::SnapshotPages;
use crate::txn::core::Core;
use crate::txn::free::free_extents::{self, FreeRecord};
use crate::txn::state::State;

/// The bound is at least so many pages.
const HELD_PAGES_MIN: u64 = 256;

/// The bound on held pages.
#[derive(Debug, Default)]
pub(crate) struct HeldPages {
    /// The bound that the options set.
    set: Option<u64>,
    /// Pages of the data when they were last counted, and pages of the file then.
    data_pages: AtomicU64,
    counted_at: AtomicU64,
}

impl HeldPages {
    pub(crate) fn new(set: Option<u64>) -> HeldPages {
        HeldPages { set, ..HeldPages::default() }
    }

    /// By default, as many pages as the data has.
    fn bound(&self) -> u64 {
        self.set.unwrap_or_else(|| self.data_pages.load(Ordering::Relaxed)).max(HELD_PAGES_MIN)
    }

    fn limit(&self) -> u64 {
        let bound = self.bound();
        bound.saturating_add(bound / 16)
    }
}

impl Core {
    /// Pages that are held for the durable state, and for a pinned one.
    fn held(&self, state: &State) -> u64 {
        state.superseded.saturating_sub(self.live.durable_meta().superseded)
    }

    /// Bytes of the log from its start on that the next checkpoint will release.
    fn log_in_use(&self, state: &State) -> u64 {
        state.log.start.saturating_sub(self.live.durable_meta().log_start)
    }

    /// Whether a checkpoint should begin.
    pub(crate) fn is_checkpoint_due(&self, state: &State) -> bool {
        let log_bytes = state.log.pages * self.page_size as u64;
        log_bytes > 0 && (self.log_in_use(state) > log_bytes / 4 * 3 || self.held(state) > self.held_pages.bound())
    }

    /// Whether a state holds too many pages to be committed before the next checkpoint has ended.
    pub(crate) fn holds_too_many(&self, state: &State) -> bool {
        self.held(state) > self.held_pages.limit()
    }

    /// Whether a checkpoint of a pinned state that has come to page `done` may pause: at this pace
    /// it ends before the writers have used half of the log and of the held pages that were left
    /// when it began.
    pub(crate) fn may_pause(&self, pinned: &State, done: u64) -> bool {
        let latest = self.live.latest();
        let in_time = |used: u64, left: u64| {
            2 * u128::from(used) * u128::from(pinned.page_count) <= u128::from(left) * u128::from(done)
        };
        let log_left = (latest.log.pages * self.page_size as u64).saturating_sub(self.log_in_use(pinned));
        let held_left = self.held_pages.limit().saturating_sub(self.held(pinned));
        in_time(latest.log.start.saturating_sub(pinned.log.start), log_left)
            && in_time(latest.superseded.saturating_sub(pinned.superseded), held_left)
    }

    /// Counts the pages of the data of a state, if the file has grown since they were counted. The
    /// caller has pinned the state.
    pub(crate) fn count_data(&self, state: &State) {
        let HeldPages { set, data_pages, counted_at } = &self.held_pages;
        let counted = counted_at.load(Ordering::Relaxed);
        if set.is_some() || state.page_count <= counted + counted / 8 {
            return;
        }
        let mut free = state.log.pages;
        let pages = SnapshotPages::new(self.mapping.read_map(), self.page_size, state.page_count);
        let walked = free_extents::walk(&pages, state, &mut |record| {
            free += match record {
                FreeRecord::Usable { pages, .. } => pages,
                FreeRecord::Pending(item) => item.pages,
            };
            Ok(())
        });
        if walked.is_ok() {
            data_pages.store(state.page_count.saturating_sub(free), Ordering::Relaxed);
            counted_at.store(state.page_count, Ordering::Relaxed);
        }
    }

    /// Before the first count, all pages of the file count as data.
    pub(crate) fn assume_data(&self, state: &State) {
        if self.held_pages.data_pages.load(Ordering::Relaxed) == 0 {
            self.held_pages.data_pages.store(state.page_count.saturating_sub(state.log.pages), Ordering::Relaxed);
        }
    }
}

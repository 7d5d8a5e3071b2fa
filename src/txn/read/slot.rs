//! A reader slot: the state that a read transaction uses, and what the slot caches between
//! transactions.
//!
//! Floor: txn. The cache holds the pinned window and the tables of the last transaction, so the
//! next transaction that takes the slot increments no shared counter.
//!
//! Failure: `io::Error` if pages that another process has added cannot be mapped.

use std::io;

use crate::ids::TxnId;
use crate::mapping::owned_cell::OwnedCell;
use crate::mapping::Mapping;
use crate::pager::read::snapshot_pages::SnapshotPages;
use crate::txn::read::open_table::OpenTables;
use crate::txn::state::State;

/// A reader slot. Its word is `FREE`, or the txn that its read transaction shows to the writer.
pub(crate) type ReaderSlot = OwnedCell<SlotCache>;

/// A slot caches this from one transaction to the next. `tables` belong to `state`; while a
/// transaction owns the slot, `pages` do too.
#[derive(Debug, Default)]
pub(crate) struct SlotCache {
    /// `None` before the first transaction, and after the slot has unpinned an old window.
    pub(super) pages: Option<SnapshotPages>,
    /// The window that `pages` pin.
    window_id: u64,
    state: State,
    pub(crate) tables: OpenTables,
}

impl SlotCache {
    /// Whether the cache belongs to the state of `txn`.
    #[inline]
    pub(crate) fn is_of(&self, txn: TxnId) -> bool {
        self.pages.is_some() && self.state.txn == txn
    }

    /// Empties the cache and returns its content, if it pins another window than the current one,
    /// `window_id`. The old window can be unmapped when the caller drops the content.
    pub(crate) fn take_if_outgrown(&mut self, window_id: u64) -> Option<SlotCache> {
        (self.window_id != window_id && self.pages.is_some()).then(|| std::mem::take(self))
    }

    /// The pages of the state that the transaction reads.
    #[inline]
    pub(crate) fn pages(&self) -> &SnapshotPages {
        match &self.pages {
            Some(pages) => pages,
            None => unreachable!("`ReadPool::begin` has set the pages"),
        }
    }

    #[inline]
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Changes to another state, of which no table is known yet.
    pub(crate) fn set_state(&mut self, state: &State) {
        (self.state, self.tables) = (*state, OpenTables::default());
    }

    /// Makes `pages` those of the state, in the current window.
    #[inline]
    pub(crate) fn set_pages(&mut self, page_size: usize, mapping: &Mapping) -> io::Result<()> {
        let (count, window_id) = (self.state.page_count, mapping.window_id());
        if self.window_id == window_id && self.pages.as_ref().is_some_and(|pages| pages.page_count() == count) {
            return Ok(());
        }
        if mapping.mapped() < count * page_size as u64 {
            mapping.follow()?;
            if mapping.mapped() < count * page_size as u64 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the lock file is damaged"));
            }
        }
        let window_id = mapping.window_id();
        // A pin of the current window stays usable: the window has grown in place.
        let cached = self.pages.take().filter(|_| self.window_id == window_id);
        let read_map = cached.map_or_else(|| mapping.read_map(), SnapshotPages::into_read_map);
        self.window_id = read_map.window_id();
        self.pages = Some(SnapshotPages::new(read_map, page_size, count));
        Ok(())
    }
}

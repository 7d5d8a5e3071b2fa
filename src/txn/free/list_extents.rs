//! Extents for long free lists, set apart so that each long list does not take new pages.
//!
//! Floor: txn. A list alternates between a few extents: one holds the list of the latest state,
//! another that of the state before. An extent that no state needs any more is *spare*: it is
//! usable, the free list has it as such, and no page of it is handed out for anything else.
//!
//! Failure: none. What is not known here, after an abort or reopening, is ordinary free space.

use crate::ids::PageId;
use crate::pager::write::txn_pages::TxnPages;

/// Spare extents that are kept.
const SPARE_MAX: usize = 2;
/// Pages of a spare extent that is kept while lists are short.
const SHORT_PAGES_MAX: u64 = 64;
/// Extents of lists that are remembered.
const WRITTEN_MAX: usize = 8;

/// An extent: its first page, and its length in pages.
pub(super) type Extent = (PageId, u64);

#[derive(Debug, Default)]
pub(super) struct ListExtents {
    /// Extents that lists were written to, the latest last.
    written: Vec<Extent>,
    spare: Vec<Extent>,
}

impl ListExtents {
    /// Notes that a list was written.
    pub(super) fn note(&mut self, list: Extent) {
        if list.1 > 1 {
            self.written.push(list);
            let old = self.written.len().saturating_sub(WRITTEN_MAX);
            self.written.drain(..old);
        }
    }

    /// Whether a long list was written to an extent.
    pub(super) fn has(&self, extent: Extent) -> bool {
        self.written.contains(&extent)
    }

    /// Keeps an extent that no state needs any more, if it is one of a long list.
    pub(super) fn keep(&mut self, extent: Extent) -> bool {
        let index = self.written.iter().position(|&list| list == extent);
        self.spare.extend(index.map(|index| self.written.swap_remove(index)));
        index.is_some()
    }

    /// Takes the shortest spare extent of at least `wanted` pages.
    pub(super) fn take(&mut self, wanted: u64) -> Option<Extent> {
        let fitting = self.spare.iter().enumerate().filter(|(_, list)| list.1 >= wanted);
        let (index, _) = fitting.min_by_key(|(_, list)| list.1)?;
        Some(self.spare.swap_remove(index))
    }

    /// Gives back an extent that was taken and not used.
    pub(super) fn give_back(&mut self, extent: Extent) {
        self.spare.push(extent);
    }

    /// The spare extents.
    pub(super) fn spare(&self) -> &[Extent] {
        &self.spare
    }

    /// Makes spare extents ordinary usable ones, but for the longest two. Long ones stay only while
    /// lists are long.
    pub(super) fn release_some(&mut self, pages: &mut TxnPages, lists_are_long: bool) {
        let pages_max = if lists_are_long { u64::MAX } else { SHORT_PAGES_MAX };
        self.spare.sort_unstable_by_key(|&(_, len)| std::cmp::Reverse(if len > pages_max { 0 } else { len }));
        let count = self.spare.iter().take(SPARE_MAX).filter(|&&(_, len)| len <= pages_max).count();
        self.spare.drain(count..).for_each(|(start, len)| pages.free.add_unlisted(start, len));
    }

    /// Makes all spare extents ordinary usable ones.
    pub(super) fn release_all(&mut self, pages: &mut TxnPages) {
        self.spare.drain(..).for_each(|(start, len)| pages.free.add_unlisted(start, len));
    }
}

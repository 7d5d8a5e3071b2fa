//! Free space in memory: which pages a write transaction may allocate, and what it changed.
//!
//! Floor: pager. [`FreeSpace`] knows extents, not how they are stored: `txn::free::free_tree` loads
//! them from the persistent free-space tree, in chunks, and saves only the extents that changed.
//! [`LiveStates`](super::live_states::LiveStates) decides whether a freed page may be allocated
//! again (rule R5).
//!
//! Terms: an extent is *usable* (may be allocated now) or *pending* (freed, but a live
//! state may still reach it). A usable extent is *listed* (the tree has a record of it, or
//! will get one) or *unlisted* (only the free list has it). Unlisted extents are allocated first
//! and never merged with listed ones, so most commits use pages that recent commits freed, and
//! change no record of the tree.
//!
//! Invariants:
//!   SPACE-1  usable extents do not overlap; unlisted neighbours are merged.
//!   SPACE-2  `by_size` has exactly the extents of `listed` and `unlisted` of two pages or more.
//!   SPACE-3  a listed extent whose record in the tree differs from memory is in `touched`.
//!   SPACE-4  a page is in at most one of: listed, unlisted, hot, freed.
//!
//! Failure: an extent that overlaps another is left out and recorded in `contradiction`. The free
//! space of such a file contradicts itself, so the commit must not save it. `free_tree` finds other
//! damage when it decodes records.
//!
//! Tests: unit below; `tests/it/model`; `check` verifies that every page is either reachable or
//! free.

use std::collections::{BTreeMap, BTreeSet};

use crate::hooks;
use crate::ids::{PageId, TxnId};
use crate::page::free_list::FreeItem;

/// The tree indexes extents of at least this many pages by size, to find a long extent with one
/// lookup.
pub(crate) const BIG_EXTENT_PAGES: u64 = 16;

/// Prefer an extent of at least this many pages to a lower one: its pages are flushed as one write.
const GOOD_EXTENT_PAGES: u64 = 8;

/// How many of the lowest extents to examine for one of [`GOOD_EXTENT_PAGES`].
const EXTENT_CHOICES: usize = 48;

/// Maps the start of each extent to its length, in pages.
type Extents = BTreeMap<u64, u64>;

/// The free space that the running write transaction works with.
#[derive(Default, Debug)]
pub(crate) struct FreeSpace {
    listed: Extents,
    unlisted: Extents,
    by_size: BTreeSet<(u64, u64)>,
    usable_pages: u64,
    /// The records of the tree, for every extent that was loaded.
    persisted: Extents,
    /// Starts of listed extents that may differ from the record in the tree.
    touched: BTreeSet<u64>,
    /// *Hot* pages: single pages that this transaction allocated and freed again. They are in
    /// memory, so they are allocated first.
    hot: Vec<u64>,
    /// The extent from which single pages are being taken, so that the pages of a transaction are
    /// neighbours.
    current: Option<u64>,
    /// Pages freed by this transaction that older states still reach.
    freed: Vec<FreeItem>,
    /// Items of `freed` that a savepoint of the transaction has. They do not grow.
    freed_fixed: usize,
    /// A freed extent that overlaps a usable one: the file listed it as free while it was in use.
    contradiction: Option<(PageId, u64)>,
    /// Whether pages may come only from the end of the file: free pages are counted and never
    /// allocated.
    keeps_all: bool,
}

impl FreeSpace {
    /// Pages that can be allocated without loading more extents.
    #[inline]
    pub(crate) fn usable_pages(&self) -> u64 {
        self.usable_pages + self.hot.len() as u64
    }

    /// The longest usable extent in memory.
    pub(crate) fn longest(&self) -> u64 {
        self.by_size.last().map_or(u64::from(self.usable_pages > 0), |&(len, _)| len)
    }

    /// From now on allocates no free page: pages come from the end of the file, and free pages are
    /// only accounted for.
    pub(crate) fn hand_out_nothing(&mut self) {
        self.keeps_all = true;
    }

    /// Allocates one page: a hot page first, else from the current extent, else from the best of
    /// the low extents.
    pub(crate) fn take_page(&mut self) -> Option<PageId> {
        if let Some(id) = self.hot.pop() {
            return Some(PageId(id));
        }
        if self.keeps_all {
            return None;
        }
        let known = |start: &u64| self.unlisted.contains_key(start) || self.listed.contains_key(start);
        let start = match self.current.filter(known) {
            Some(start) => start,
            None => best_extent(&self.unlisted).or_else(|| best_extent(&self.listed))?,
        };
        self.current = (self.take_from(start, 1) > 1).then_some(start + 1);
        Some(PageId(start))
    }

    /// Allocates `pages` consecutive pages from the smallest extent that is long enough.
    pub(crate) fn take_extent(&mut self, pages: u64) -> Option<PageId> {
        if pages == 1 {
            return self.take_page();
        }
        if self.keeps_all {
            return None;
        }
        let &(_, start) = self.by_size.range((pages, 0)..).next()?;
        self.take_from(start, pages);
        Some(PageId(start))
    }

    /// Allocates consecutive pages from an unlisted extent.
    pub(crate) fn take_unlisted(&mut self, pages: u64) -> Option<PageId> {
        if self.keeps_all {
            return None;
        }
        let (&start, _) = self.unlisted.iter().inspect(|_| hooks::count_step()).find(|(_, &len)| len >= pages)?;
        self.take_from(start, pages);
        Some(PageId(start))
    }

    /// Allocates a page from an unlisted extent, if possible one that no longer extent loses.
    pub(crate) fn take_unlisted_page(&mut self) -> Option<PageId> {
        if self.keeps_all {
            return None;
        }
        let single = self.unlisted.iter().inspect(|_| hooks::count_step()).find(|(_, &len)| len == 1);
        let (&start, _) = single.or_else(|| self.unlisted.iter().next())?;
        self.take_from(start, 1);
        Some(PageId(start))
    }

    /// Makes pages usable again that this transaction allocated.
    pub(crate) fn give_back_dirty(&mut self, id: PageId, pages: u64) {
        if pages == 1 {
            self.hot.push(id.0);
        } else {
            self.add_unlisted(id, pages);
        }
    }

    /// Removes the usable extents at the end of a state of `page_count` pages. Returns the page
    /// count without them.
    pub(crate) fn cut_tail(&mut self, mut page_count: u64) -> u64 {
        loop {
            let last = [&self.listed, &self.unlisted].into_iter().filter_map(|extents| extents.last_key_value()).max();
            let Some((&start, _)) = last.filter(|(&start, &len)| start + len == page_count) else { return page_count };
            self.cut(start);
            page_count = start;
        }
    }

    /// Notes pages that this transaction no longer needs and older states still reach.
    pub(crate) fn add_freed(&mut self, item: FreeItem) {
        if let Some(last) = self.freed.get_mut(self.freed_fixed..).and_then(<[_]>::last_mut) {
            if last.born == item.born && last.freed == item.freed && last.start.0 + last.pages == item.start.0 {
                last.pages += item.pages;
                return;
            }
        }
        self.freed.push(item);
    }

    /// From now on keeps the freed pages as they are, for a savepoint. Returns how many items they
    /// have.
    pub(crate) fn keep_freed(&mut self) -> usize {
        self.freed_fixed = self.freed.len();
        self.freed_fixed
    }

    /// From now on keeps only the first `items` of the freed pages as they are.
    pub(crate) fn keep_freed_below(&mut self, items: usize) {
        self.freed_fixed = items;
    }

    /// Forgets all freed pages but the first `items`: they are in use again.
    pub(crate) fn forget_freed(&mut self, items: usize) {
        self.freed.truncate(items);
        self.freed_fixed = items;
    }

    /// Drops the usable pages from `page_count` on. This transaction has added them to the file.
    pub(crate) fn forget_from(&mut self, page_count: u64) {
        self.hot.retain(|&id| id < page_count);
        while let Some((&start, &len)) = self.unlisted.last_key_value() {
            if start + len <= page_count {
                return;
            }
            self.cut(start);
            if start < page_count {
                self.put(start, page_count - start, false);
            }
        }
    }

    /// Number of freed pages that were written by `state` or an earlier transaction.
    pub(crate) fn freed_pages(&self, state: TxnId) -> u64 {
        self.freed.iter().filter(|item| item.born <= state).map(|item| item.pages).sum()
    }

    /// The freed pages, for saving; empties the list.
    pub(crate) fn drain_freed(&mut self) -> Vec<FreeItem> {
        std::mem::take(&mut self.freed)
    }

    /// Makes an unlisted extent usable: it was pending, or it was allocated and freed again.
    pub(crate) fn add_unlisted(&mut self, id: PageId, pages: u64) {
        if self.overlaps(id, pages) {
            self.contradiction = Some((id, pages));
            return;
        }
        let (start, len) = self.merge(id.0, pages, false);
        self.put(start, len, false);
    }

    /// An extent that was freed although it was usable already. If there is one, the free space
    /// must not be saved.
    pub(crate) fn contradiction(&self) -> Option<(PageId, u64)> {
        self.contradiction
    }

    /// Whether an extent overlaps a usable one. If so, the free space in the file contradicts
    /// itself.
    pub(crate) fn overlaps(&self, id: PageId, pages: u64) -> bool {
        let end = id.0.saturating_add(pages);
        let overlap = |extents: &Extents| {
            extents.range(..end).next_back().is_some_and(|(&start, &len)| start.saturating_add(len) > id.0)
        };
        overlap(&self.listed) || overlap(&self.unlisted)
    }

    /// Adds an extent that was read from the tree. Ignores an extent that was loaded before.
    /// Returns false if the extent overlaps another.
    #[must_use]
    pub(crate) fn load(&mut self, id: PageId, pages: u64) -> bool {
        if self.persisted.contains_key(&id.0) {
            return true;
        }
        if self.overlaps(id, pages) {
            return false;
        }
        self.persisted.insert(id.0, pages);
        self.put(id.0, pages, true);
        self.touched.remove(&id.0);
        true
    }

    /// Makes the hot pages ordinary unlisted extents; called once, before saving.
    pub(crate) fn move_hot_to_unlisted(&mut self) {
        let mut hot = std::mem::take(&mut self.hot);
        hot.sort_unstable();
        for id in hot {
            self.add_unlisted(PageId(id), 1);
        }
    }

    /// The unlisted extents, for the free list.
    pub(crate) fn unlisted(&self) -> impl Iterator<Item = (PageId, u64)> + '_ {
        self.unlisted.iter().map(|(&start, &len)| (PageId(start), len))
    }

    /// Number of unlisted extents.
    pub(crate) fn unlisted_count(&self) -> usize {
        self.unlisted.len()
    }

    /// Makes all unlisted extents listed and merges them with their listed neighbours, so that the
    /// next save writes them to the tree.
    pub(crate) fn list_all(&mut self) {
        for (start, len) in std::mem::take(&mut self.unlisted) {
            self.forget_size(start, len);
            self.usable_pages -= len;
            let (start, len) = self.merge(start, len, true);
            self.put(start, len, true);
        }
    }

    /// Upper bound on the number of records of the tree that the next save has to write.
    pub(crate) fn touched_count(&self) -> usize {
        self.touched.len()
    }

    /// Returns the changes to save to the tree: `(start, length in the tree, length now)`, with
    /// length 0 for "no record". Afterwards they count as saved.
    pub(crate) fn take_changes(&mut self) -> Vec<(PageId, u64, u64)> {
        debug_assert!(self.hot.is_empty());
        let mut changes = Vec::new();
        for start in std::mem::take(&mut self.touched) {
            let old = self.persisted.get(&start).copied().unwrap_or(0);
            let new = self.listed.get(&start).copied().unwrap_or(0);
            if old == new {
                continue;
            }
            if new == 0 {
                self.persisted.remove(&start);
            } else {
                self.persisted.insert(start, new);
            }
            changes.push((PageId(start), old, new));
        }
        changes
    }

    /// Takes out the extents that touch this one, and returns them joined with it, for
    /// [`FreeSpace::put`].
    fn merge(&mut self, mut start: u64, mut len: u64, listed: bool) -> (u64, u64) {
        let extents = if listed { &self.listed } else { &self.unlisted };
        let left = extents.range(..start).next_back().filter(|(&left, &left_len)| left + left_len == start);
        let left = left.map(|(&left, _)| left);
        let right = Some(start + len).filter(|right| extents.contains_key(right));
        if let Some(left) = left {
            len += self.cut(left);
            start = left;
        }
        if let Some(right) = right {
            len += self.cut(right);
        }
        (start, len)
    }

    /// Removes pages from the front of a usable extent. Returns how many pages the extent had.
    fn take_from(&mut self, start: u64, pages: u64) -> u64 {
        let listed = self.listed.contains_key(&start);
        let len = self.cut(start);
        if len > pages {
            self.put(start + pages, len - pages, listed);
        }
        len
    }

    fn put(&mut self, start: u64, len: u64, listed: bool) {
        if listed {
            self.listed.insert(start, len);
            self.touched.insert(start);
        } else {
            self.unlisted.insert(start, len);
        }
        if len > 1 {
            self.by_size.insert((len, start));
        }
        self.usable_pages += len;
    }

    fn forget_size(&mut self, start: u64, len: u64) {
        if len > 1 {
            self.by_size.remove(&(len, start));
        }
    }

    fn cut(&mut self, start: u64) -> u64 {
        let len = match self.unlisted.remove(&start) {
            Some(len) => len,
            None => {
                self.touched.insert(start);
                self.listed.remove(&start).unwrap_or(0)
            }
        };
        self.forget_size(start, len);
        self.usable_pages -= len;
        len
    }
}

/// Of the lowest [`EXTENT_CHOICES`] extents, the first of at least [`GOOD_EXTENT_PAGES`], otherwise
/// the longest.
fn best_extent(extents: &Extents) -> Option<u64> {
    let mut best: Option<(u64, u64)> = None;
    for (&start, &len) in extents.iter().take(EXTENT_CHOICES) {
        hooks::count_step();
        if len >= GOOD_EXTENT_PAGES {
            return Some(start);
        }
        if best.is_none_or(|(_, best_len)| len > best_len) {
            best = Some((start, len));
        }
    }
    best.map(|(start, _)| start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(free: &FreeSpace) -> u64 {
        free.listed.values().chain(free.unlisted.values()).sum()
    }

    #[test]
    fn take_changes_lists_the_records_of_touched_extents_only() {
        let mut free = FreeSpace::default();
        assert!(free.load(PageId(10), 5));
        assert!(free.load(PageId(30), 2));
        assert!(free.take_changes().is_empty());
        free.add_unlisted(PageId(15), 1);
        assert!(free.take_changes().is_empty(), "an unlisted extent changes no record");
        assert_eq!(free.take_page(), Some(PageId(15)));
        assert_eq!(free.take_page(), Some(PageId(10)));
        assert_eq!(free.take_changes(), [(PageId(10), 5, 0), (PageId(11), 0, 4)]);
        assert_eq!(total(&free), 6);
    }

    #[test]
    fn cut_tail_removes_free_extents_down_to_the_last_page_in_use() {
        let mut free = FreeSpace::default();
        assert!(free.load(PageId(10), 5));
        assert!(free.load(PageId(90), 4));
        free.add_unlisted(PageId(94), 6);
        assert_eq!(free.cut_tail(100), 90);
        assert_eq!((free.usable_pages(), free.longest()), (5, 5));
        assert_eq!(free.take_changes(), [(PageId(90), 4, 0)]);
        assert_eq!(free.cut_tail(90), 90);
    }

    #[test]
    fn loading_an_extent_that_was_loaded_and_taken_does_not_add_it_again() {
        let mut free = FreeSpace::default();
        assert!(free.load(PageId(10), 5));
        assert_eq!(free.take_extent(5), Some(PageId(10)));
        assert!(free.load(PageId(10), 5));
        assert_eq!(free.usable_pages(), 0);
        assert_eq!(free.take_changes(), [(PageId(10), 5, 0)]);
    }

    #[test]
    fn an_extent_comes_from_the_smallest_usable_extent_that_holds_it() {
        let mut free = FreeSpace::default();
        for (start, len) in [(10, 100), (200, 7), (300, 9)] {
            assert!(free.load(PageId(start), len));
        }
        assert_eq!(free.take_extent(8), Some(PageId(300)));
        assert_eq!(free.take_extent(101), None);
        assert_eq!(free.take_extent(100), Some(PageId(10)));
        assert_eq!(free.longest(), 7);
    }

    #[test]
    fn single_pages_are_neighbours_and_dirty_ones_come_first() {
        let mut free = FreeSpace::default();
        assert!(free.load(PageId(5), 1));
        assert!(free.load(PageId(100), 20));
        assert_eq!(free.take_page(), Some(PageId(100)));
        assert_eq!(free.take_page(), Some(PageId(101)));
        free.give_back_dirty(PageId(100), 1);
        assert_eq!(free.take_page(), Some(PageId(100)));
        assert_eq!(free.take_page(), Some(PageId(102)));
    }

    #[test]
    fn listing_merges_with_listed_neighbours_whose_records_go() {
        let mut free = FreeSpace::default();
        assert!(free.load(PageId(10), 2));
        assert!(free.load(PageId(13), 3));
        free.add_unlisted(PageId(12), 1);
        free.add_unlisted(PageId(50), 1);
        free.add_unlisted(PageId(51), 1);
        assert_eq!(free.unlisted().collect::<Vec<_>>(), [(PageId(12), 1), (PageId(50), 2)]);
        free.list_all();
        assert_eq!(free.take_changes(), [(PageId(10), 2, 6), (PageId(13), 3, 0), (PageId(50), 0, 2)]);
        assert_eq!(free.usable_pages(), 8);
        assert_eq!(free.longest(), 6);
    }

    #[test]
    fn extents_that_overlap_are_refused() {
        let mut free = FreeSpace::default();
        assert!(free.load(PageId(10), 5));
        for (start, len) in [(9, 2), (14, 1), (8, 100), (12, 1)] {
            assert!(!free.load(PageId(start), len), "{start}+{len}");
        }
        assert!(free.load(PageId(15), 1));
        assert!(free.load(PageId(9), 1));
    }

    #[test]
    fn freeing_a_usable_page_is_recorded_as_a_contradiction() {
        let mut free = FreeSpace::default();
        assert!(free.load(PageId(10), 5));
        free.give_back_dirty(PageId(20), 1);
        free.move_hot_to_unlisted();
        assert_eq!((free.usable_pages(), free.contradiction()), (6, None));
        free.give_back_dirty(PageId(12), 1);
        free.move_hot_to_unlisted();
        assert_eq!((free.usable_pages(), free.contradiction()), (6, Some((PageId(12), 1))));
        let mut free = FreeSpace::default();
        assert!(free.load(PageId(10), 5));
        free.give_back_dirty(PageId(8), 3);
        assert_eq!((free.usable_pages(), free.contradiction()), (5, Some((PageId(8), 3))));
    }
}

//! Free space in memory: which pages a write transaction may hand out, and what it changed about that.
//!
//! Floor: pager. Knows extents (runs of pages), not where they are stored; `txn::free_tree` reads them in from the
//! persistent free-space tree, piece by piece, and writes back exactly the extents that were touched.
//!
//! Words: an extent is *usable* (may be handed out now) or *pending* (freed, but a state that somebody may still need
//! reaches it). The *reserve* are usable pages kept apart for the pages of the free-space tree itself, so that saving
//! free space does not change the free space that is being saved.
//!
//! Invariants:
//!   F1  usable extents do not overlap, and neighbours in memory are merged.
//!   F2  `by_size` holds exactly the extents of `usable`.
//!   F3  an extent whose record in the tree differs from memory is in `touched`.
//!   F4  `unlisted` are the usable extents without an entry in `persisted`.
//!   F5  a page is in at most one of: usable, hot, reserve, freed.
//!
//! Failure: none; overlap is a bug of ours and asserted in debug builds, damage in the tree is found by its reader.
//!
//! Tests: unit below; `tests/it/model`; the whole is judged by `check` (reachable + free = all).

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{PageId, TxnId};
use crate::page::free_list::FreeItem;

/// Extents of at least this many pages are indexed by size as well, so that a large run is found at once.
pub(crate) const BIG_EXTENT_PAGES: u64 = 16;

/// A run this long is worth choosing over a lower address: its pages are flushed as one write.
const GOOD_RUN_PAGES: u64 = 8;

/// How many low extents are looked at for a good run.
const RUN_CHOICES: usize = 48;

/// The free space that the running write transaction works with.
#[derive(Default, Debug)]
pub(crate) struct FreeSpace {
    usable: BTreeMap<u64, u64>,
    by_size: BTreeSet<(u64, u64)>,
    usable_pages: u64,
    /// What the tree says, for every extent that was read in: start to length.
    persisted: BTreeMap<u64, u64>,
    /// Starts whose record may differ from the tree's.
    touched: BTreeSet<u64>,
    /// Usable extents that the tree does not list: taking pages from them changes no record of the tree.
    unlisted: BTreeSet<u64>,
    /// Single pages that this transaction wrote and freed again: dirty already, so handed out first.
    hot: Vec<u64>,
    /// Extent that single pages are taken from at the moment, so that a transaction gets neighbours.
    current: Option<u64>,
    /// Pages freed by this transaction that older states still reach.
    freed: Vec<FreeItem>,
    /// Usable pages set apart for the free-space tree.
    pub(crate) reserve: Vec<PageId>,
}

impl FreeSpace {
    /// Pages that can be handed out without reading more in.
    pub(crate) fn usable_pages(&self) -> u64 {
        self.usable_pages + self.hot.len() as u64
    }

    /// The longest usable extent in memory.
    pub(crate) fn longest(&self) -> u64 {
        self.by_size.last().map_or(0, |&(len, _)| len)
    }

    /// Takes one page: a dirty one first, else from the current extent, else from the best of the low extents.
    pub(crate) fn take_page(&mut self) -> Option<PageId> {
        if let Some(id) = self.hot.pop() {
            return Some(PageId(id));
        }
        let start = match self.current.filter(|start| self.usable.contains_key(start)) {
            Some(start) => start,
            None => self.choose_extent()?,
        };
        let len = self.cut(start);
        if len > 1 {
            self.put(start + 1, len - 1);
            self.current = Some(start + 1);
        } else {
            self.current = None;
        }
        Some(PageId(start))
    }

    /// Takes `pages` consecutive pages from the smallest extent that holds them.
    pub(crate) fn take_run(&mut self, pages: u64) -> Option<PageId> {
        if pages == 1 {
            return self.take_page();
        }
        let &(_, start) = self.by_size.range((pages, 0)..).next()?;
        let len = self.cut(start);
        if len > pages {
            self.put(start + pages, len - pages);
        }
        Some(PageId(start))
    }

    /// Gives back a page that this transaction had taken and written.
    pub(crate) fn give_back_dirty(&mut self, id: PageId, pages: u64) {
        if pages == 1 {
            self.hot.push(id.0);
        } else {
            self.add_usable(id, pages);
        }
    }

    /// Notes pages that this transaction no longer needs and older states still reach.
    pub(crate) fn add_freed(&mut self, item: FreeItem) {
        if let Some(last) = self.freed.last_mut() {
            if last.born == item.born && last.freed == item.freed && last.start.0 + last.pages == item.start.0 {
                last.pages += item.pages;
                return;
            }
        }
        self.freed.push(item);
    }

    /// Pages freed by this transaction so far.
    pub(crate) fn freed_pages(&self) -> u64 {
        self.freed.iter().map(|item| item.pages).sum()
    }

    /// The freed pages, for saving; empties the list.
    pub(crate) fn drain_freed(&mut self) -> Vec<FreeItem> {
        std::mem::take(&mut self.freed)
    }

    /// Makes an extent usable that the tree does not list as usable (it was pending, or it is new).
    pub(crate) fn add_usable(&mut self, id: PageId, pages: u64) {
        let (mut start, mut len) = (id.0, pages);
        if let Some((&left, &left_len)) = self.usable.range(..start).next_back() {
            debug_assert!(left + left_len <= start, "extent {start}+{len} overlaps {left}+{left_len}");
            if left + left_len == start {
                self.cut(left);
                start = left;
                len += left_len;
            }
        }
        if let Some((&right, &right_len)) = self.usable.range(start..).next() {
            debug_assert!(start + len <= right, "extent {start}+{len} overlaps {right}+{right_len}");
            if start + len == right {
                self.cut(right);
                len += right_len;
            }
        }
        self.put(start, len);
    }

    /// Whether an extent overlaps a usable one: the free space on disk contradicts itself.
    pub(crate) fn overlaps(&self, id: PageId, pages: u64) -> bool {
        let before = self.usable.range(..id.0 + pages).next_back();
        before.is_some_and(|(&start, &len)| start + len > id.0)
    }

    /// Reads in an extent as the tree lists it. An extent that is known already is left alone.
    /// False if it overlaps another.
    #[must_use]
    pub(crate) fn load(&mut self, id: PageId, pages: u64) -> bool {
        if self.persisted.contains_key(&id.0) {
            return true;
        }
        if self.overlaps(id, pages) {
            return false;
        }
        self.persisted.insert(id.0, pages);
        self.add_usable(id, pages);
        if self.usable.get(&id.0) == Some(&pages) {
            // Not merged with a neighbour: memory and tree agree.
            self.touched.remove(&id.0);
        } else {
            self.touched.insert(id.0);
        }
        true
    }

    /// Puts the dirty pages that were freed again among the usable extents; called once, before saving.
    pub(crate) fn settle_hot(&mut self) {
        let mut hot = std::mem::take(&mut self.hot);
        hot.sort_unstable();
        for id in hot {
            self.add_usable(PageId(id), 1);
        }
    }

    /// What differs from the tree: `(start, length in the tree, length now)`, zero for "no such extent".
    /// Afterwards memory counts as saved.
    pub(crate) fn take_changes(&mut self) -> Vec<(PageId, u64, u64)> {
        debug_assert!(self.hot.is_empty());
        let touched = std::mem::take(&mut self.touched);
        self.unlisted.clear();
        let mut changes = Vec::new();
        for start in touched {
            let old = self.persisted.get(&start).copied().unwrap_or(0);
            let new = self.usable.get(&start).copied().unwrap_or(0);
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

    /// Number of extents whose records may have to be written.
    pub(crate) fn touched_count(&self) -> usize {
        self.touched.len()
    }

    /// The extent to take single pages from: of those that the tree does not list, else of all, the first good
    /// run, else the longest of the lowest ones.
    fn choose_extent(&self) -> Option<u64> {
        let unlisted = self.unlisted.iter().map(|&start| (start, self.usable[&start]));
        let listed = self.usable.iter().map(|(&start, &len)| (start, len));
        best_run(unlisted).or_else(|| best_run(listed))
    }

    fn put(&mut self, start: u64, len: u64) {
        self.usable.insert(start, len);
        self.by_size.insert((len, start));
        self.usable_pages += len;
        self.touched.insert(start);
        if !self.persisted.contains_key(&start) {
            self.unlisted.insert(start);
        }
    }

    fn cut(&mut self, start: u64) -> u64 {
        let len = self.usable.remove(&start).unwrap_or(0);
        self.by_size.remove(&(len, start));
        self.usable_pages -= len;
        self.touched.insert(start);
        self.unlisted.remove(&start);
        len
    }
}

fn best_run(extents: impl Iterator<Item = (u64, u64)>) -> Option<u64> {
    let mut best: Option<(u64, u64)> = None;
    for (start, len) in extents.take(RUN_CHOICES) {
        if len >= GOOD_RUN_PAGES {
            return Some(start);
        }
        if best.is_none_or(|(_, best_len)| len > best_len) {
            best = Some((start, len));
        }
    }
    best.map(|(start, _)| start)
}

/// Which states may still be needed, for deciding whether a freed page can be handed out again (rule R5).
#[derive(Clone, Debug, Default)]
pub(crate) struct LiveStates {
    /// Sorted, distinct txn ids: snapshots, the durable meta, one in doubt, and published.
    states: Vec<TxnId>,
    /// All states from this one to the tip are needed, those in between too: a checkpoint may be at any of them (P7).
    published: TxnId,
}

impl LiveStates {
    /// `others` are the snapshots, the durable meta and one in doubt.
    pub(crate) fn new(mut others: Vec<TxnId>, published: TxnId) -> LiveStates {
        others.push(published);
        others.sort_unstable();
        others.dedup();
        LiveStates { states: others, published }
    }

    /// The oldest state that is needed.
    pub(crate) fn oldest(&self) -> TxnId {
        self.states.first().copied().unwrap_or_default()
    }

    /// Whether some state reaches a page written by `born` and freed by `freed`: `born <= state < freed`.
    pub(crate) fn reach(&self, born: TxnId, freed: TxnId) -> bool {
        let first = self.states.partition_point(|&state| state < born);
        freed > self.published || self.states.get(first).is_some_and(|&state| state < freed)
    }

    /// Whether this state is one of those that were given.
    pub(crate) fn contains(&self, state: TxnId) -> bool {
        self.states.binary_search(&state).is_ok()
    }

    /// The states before `freed`, ascending; `None` while states may yet appear there, or go unseen (P7).
    pub(crate) fn all_before(&self, freed: TxnId) -> Option<&[TxnId]> {
        let before = self.states.partition_point(|&state| state < freed);
        (freed <= self.published).then(|| &self.states[..before])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(free: &FreeSpace) -> u64 {
        free.usable.values().sum()
    }

    #[test]
    fn neighbours_merge_and_changes_follow_what_was_touched() {
        let mut free = FreeSpace::default();
        assert!(free.load(PageId(10), 5));
        assert!(free.load(PageId(30), 2));
        assert!(free.take_changes().is_empty());
        free.add_usable(PageId(15), 1);
        assert_eq!(free.take_changes(), [(PageId(10), 5, 6)]);
        assert_eq!(free.take_page(), Some(PageId(10)));
        assert_eq!(free.take_changes(), [(PageId(10), 6, 0), (PageId(11), 0, 5)]);
        assert_eq!(total(&free), 7);
    }

    #[test]
    fn loading_twice_changes_nothing() {
        let mut free = FreeSpace::default();
        assert!(free.load(PageId(10), 5));
        assert_eq!(free.take_run(5), Some(PageId(10)));
        assert!(free.load(PageId(10), 5));
        assert_eq!(free.usable_pages(), 0);
        assert_eq!(free.take_changes(), [(PageId(10), 5, 0)]);
    }

    #[test]
    fn a_run_comes_from_the_smallest_extent_that_holds_it() {
        let mut free = FreeSpace::default();
        for (start, len) in [(10, 100), (200, 7), (300, 9)] {
            assert!(free.load(PageId(start), len));
        }
        assert_eq!(free.take_run(8), Some(PageId(300)));
        assert_eq!(free.take_run(101), None);
        assert_eq!(free.take_run(100), Some(PageId(10)));
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
    fn loaded_neighbours_merge_and_their_records_are_rewritten() {
        let mut free = FreeSpace::default();
        assert!(free.load(PageId(10), 2));
        assert!(free.load(PageId(12), 3));
        assert_eq!(free.take_changes(), [(PageId(10), 2, 5), (PageId(12), 3, 0)]);
    }

    #[test]
    fn a_page_is_pinned_by_states_between_birth_and_death_only() {
        let live = LiveStates::new(vec![TxnId(30), TxnId(5), TxnId(20)], TxnId(30));
        assert_eq!(live.oldest(), TxnId(5));
        assert!(live.reach(TxnId(3), TxnId(6)));
        assert!(!live.reach(TxnId(6), TxnId(20)));
        assert!(live.reach(TxnId(6), TxnId(21)));
        assert!(!live.reach(TxnId(21), TxnId(30)));
        assert_eq!(live.all_before(TxnId(20)), Some(&[TxnId(5)][..]));
        assert_eq!(live.all_before(TxnId(21)), Some(&[TxnId(5), TxnId(20)][..]));
        assert_eq!(live.all_before(TxnId(31)), None);
        assert!(live.contains(TxnId(20)) && !live.contains(TxnId(21)));
        // States between published and tip may be under a checkpoint: what one of them freed or reaches stays.
        assert!(live.reach(TxnId(31), TxnId(32)));
    }
}

//! Free space in memory: which pages a write transaction may hand out, and what it changed about
//! that.
//!
//! Floor: pager. Knows extents (extents), not where they are stored; `txn::free_tree` reads them in
//! from the persistent free-space tree, chunk by chunk, and writes back exactly the extents that
//! were touched.
//!
//! Words: an extent is *usable* (may be handed out now) or *pending* (freed, but a state that a
//! reader or the durable state may still need reaches it). Usable extents are *listed* (the tree
//! has a record of them, or will have) or *unlisted* (only the free list has). Unlisted ones are
//! handed out first and never merged with listed ones: so most commits give out what the commits
//! before gave back, and change no record of the tree.
//!
//! Invariants:
//!   SPACE-1  usable extents do not overlap; unlisted neighbours are merged.
//!   SPACE-2  `by_size` holds exactly the extents of `listed` and `unlisted`.
//!   SPACE-3  a listed extent whose record in the tree differs from memory is in `touched`.
//!   SPACE-4  a page is in at most one of: listed, unlisted, hot, freed.
//!
//! Failure: an extent that overlaps another is left out, and noted in `contradiction`: a file that
//! says so contradicts itself, and nothing of this may be saved. Other damage is found by the
//! reader of the tree.
//!
//! Tests: unit below; `tests/it/model`; the whole is judged by `check` (reachable + free = all).

use std::collections::{BTreeMap, BTreeSet};

use crate::hooks;
use crate::ids::{PageId, TxnId};
use crate::page::free_list::FreeItem;

/// Extents of at least this many pages are indexed by size in the tree, so that a large run is
/// found at once.
pub(crate) const BIG_EXTENT_PAGES: u64 = 16;

/// A run this long is worth choosing over a lower address: its pages are flushed as one write.
const GOOD_EXTENT_PAGES: u64 = 8;

/// How many low extents are looked at for a good run.
const EXTENT_CHOICES: usize = 48;

/// Extents: start to length.
type Extents = BTreeMap<u64, u64>;

/// The free space that the running write transaction works with.
#[derive(Default, Debug)]
pub(crate) struct FreeSpace {
    listed: Extents,
    unlisted: Extents,
    by_size: BTreeSet<(u64, u64)>,
    usable_pages: u64,
    /// What the tree says, for every extent that was read in.
    persisted: Extents,
    /// Starts whose record may differ from the tree's.
    touched: BTreeSet<u64>,
    /// Single pages that this transaction wrote and freed again: dirty already, so handed out
    /// first.
    hot: Vec<u64>,
    /// Extent that single pages are taken from at the moment, so that a transaction gets
    /// neighbours.
    current: Option<u64>,
    /// Pages freed by this transaction that older states still reach.
    freed: Vec<FreeItem>,
    /// An extent that came back and overlaps a usable one: the file had it in use and free at once.
    contradiction: Option<(PageId, u64)>,
}

impl FreeSpace {
    /// Pages that can be handed out without reading more in.
    #[inline]
    pub(crate) fn usable_pages(&self) -> u64 {
        self.usable_pages + self.hot.len() as u64
    }

    /// The longest usable extent in memory.
    pub(crate) fn longest(&self) -> u64 {
        self.by_size.last().map_or(0, |&(len, _)| len)
    }

    /// Takes one page: a dirty one first, else from the current extent, else from the best of the
    /// low extents.
    pub(crate) fn take_page(&mut self) -> Option<PageId> {
        if let Some(id) = self.hot.pop() {
            return Some(PageId(id));
        }
        let known = |start: &u64| self.unlisted.contains_key(start) || self.listed.contains_key(start);
        let start = match self.current.filter(known) {
            Some(start) => start,
            None => best_extent(&self.unlisted).or_else(|| best_extent(&self.listed))?,
        };
        self.current = (self.take_from(start, 1) > 1).then_some(start + 1);
        Some(PageId(start))
    }

    /// Takes `pages` consecutive pages from the smallest extent that holds them.
    pub(crate) fn take_extent(&mut self, pages: u64) -> Option<PageId> {
        if pages == 1 {
            return self.take_page();
        }
        let &(_, start) = self.by_size.range((pages, 0)..).next()?;
        self.take_from(start, pages);
        Some(PageId(start))
    }

    /// Takes consecutive pages of which the tree has no record.
    pub(crate) fn take_unlisted(&mut self, pages: u64) -> Option<PageId> {
        let (&start, _) = self.unlisted.iter().inspect(|_| hooks::count_step()).find(|(_, &len)| len >= pages)?;
        self.take_from(start, pages);
        Some(PageId(start))
    }

    /// Gives back pages that this transaction had taken and written.
    pub(crate) fn give_back_dirty(&mut self, id: PageId, pages: u64) {
        if pages == 1 {
            self.hot.push(id.0);
        } else {
            self.add_unlisted(id, pages);
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

    /// The freed pages, for saving; empties the list.
    pub(crate) fn drain_freed(&mut self) -> Vec<FreeItem> {
        std::mem::take(&mut self.freed)
    }

    /// Makes an extent usable of which the tree has no record: it was pending, or it was taken and
    /// given back.
    pub(crate) fn add_unlisted(&mut self, id: PageId, pages: u64) {
        if self.overlaps(id, pages) {
            self.contradiction = Some((id, pages));
            return;
        }
        let (start, len) = self.merge(id.0, pages, false);
        self.put(start, len, false);
    }

    /// An extent that came back although it was free already. Then nothing of this may be saved.
    pub(crate) fn contradiction(&self) -> Option<(PageId, u64)> {
        self.contradiction
    }

    /// Whether an extent overlaps a usable one: the free space on disk contradicts itself.
    pub(crate) fn overlaps(&self, id: PageId, pages: u64) -> bool {
        let end = id.0.saturating_add(pages);
        let overlap = |extents: &Extents| {
            extents.range(..end).next_back().is_some_and(|(&start, &len)| start.saturating_add(len) > id.0)
        };
        overlap(&self.listed) || overlap(&self.unlisted)
    }

    /// Reads in an extent as the tree lists it. An extent that is known already stays as it is.
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
        self.put(id.0, pages, true);
        self.touched.remove(&id.0);
        true
    }

    /// Puts the dirty pages that were freed again among the usable extents; called once, before
    /// saving.
    pub(crate) fn settle_hot(&mut self) {
        let mut hot = std::mem::take(&mut self.hot);
        hot.sort_unstable();
        for id in hot {
            self.add_unlisted(PageId(id), 1);
        }
    }

    /// Extents of which the tree has no record, for the free list.
    pub(crate) fn unlisted(&self) -> impl Iterator<Item = (PageId, u64)> + '_ {
        self.unlisted.iter().map(|(&start, &len)| (PageId(start), len))
    }

    /// How many extents the tree has no record of.
    pub(crate) fn unlisted_count(&self) -> usize {
        self.unlisted.len()
    }

    /// Lists all unlisted extents, merged with their listed neighbours, so that the next save puts
    /// them into the tree.
    pub(crate) fn list_all(&mut self) {
        for (start, len) in std::mem::take(&mut self.unlisted) {
            self.by_size.remove(&(len, start));
            self.usable_pages -= len;
            let (start, len) = self.merge(start, len, true);
            self.put(start, len, true);
        }
    }

    /// How many records of the tree may have to be written.
    pub(crate) fn touched_count(&self) -> usize {
        self.touched.len()
    }

    /// What differs from the tree: `(start, length in the tree, length now)`, zero for "no such
    /// extent". Afterwards memory counts as saved.
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

    /// Takes the neighbours of an extent out, for the merged extent to be put.
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

    /// Takes pages from the front of an extent; how many it had.
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
        self.by_size.insert((len, start));
        self.usable_pages += len;
    }

    fn cut(&mut self, start: u64) -> u64 {
        let len = match self.unlisted.remove(&start) {
            Some(len) => len,
            None => {
                self.touched.insert(start);
                self.listed.remove(&start).unwrap_or(0)
            }
        };
        self.by_size.remove(&(len, start));
        self.usable_pages -= len;
        len
    }
}

/// Of the lowest extents the first good run, else the longest.
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

/// Which states may still be needed, for deciding whether a freed page can be handed out again
/// (rule R5).
#[derive(Clone, Debug, Default)]
pub(crate) struct LiveStates {
    /// Sorted, distinct txn ids: snapshots, the durable meta page, one in doubt, and published.
    states: Vec<TxnId>,
    /// All states from this one to the latest state are needed, those in between too: a checkpoint
    /// may be at any of them (P7).
    published: TxnId,
}

impl LiveStates {
    /// `others` are the snapshots, the durable meta page and one in doubt.
    pub(crate) fn new(mut others: Vec<TxnId>, published: TxnId) -> LiveStates {
        others.push(published);
        others.sort_unstable();
        others.dedup();
        LiveStates { states: others, published }
    }

    /// Whether some state reaches a page written by `born` and freed by `freed`: `born <= state <
    /// freed`.
    pub(crate) fn reach(&self, born: TxnId, freed: TxnId) -> bool {
        let first = self.states.partition_point(|&state| state < born);
        freed > self.published || self.states.get(first).is_some_and(|&state| state < freed)
    }

    /// Whether this state is one of those that were given.
    pub(crate) fn contains(&self, state: TxnId) -> bool {
        self.states.binary_search(&state).is_ok()
    }

    /// The states before `freed`, ascending; `None` while states may yet appear there, or go unseen
    /// (P7).
    pub(crate) fn all_before(&self, freed: TxnId) -> Option<&[TxnId]> {
        let before = self.states.partition_point(|&state| state < freed);
        (freed <= self.published).then(|| &self.states[..before])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(free: &FreeSpace) -> u64 {
        free.listed.values().chain(free.unlisted.values()).sum()
    }

    #[test]
    fn changes_follow_what_was_touched() {
        let mut free = FreeSpace::default();
        assert!(free.load(PageId(10), 5));
        assert!(free.load(PageId(30), 2));
        assert!(free.take_changes().is_empty());
        free.add_unlisted(PageId(15), 1);
        assert!(free.take_changes().is_empty(), "what the tree does not list changes no record");
        assert_eq!(free.take_page(), Some(PageId(15)));
        assert_eq!(free.take_page(), Some(PageId(10)));
        assert_eq!(free.take_changes(), [(PageId(10), 5, 0), (PageId(11), 0, 4)]);
        assert_eq!(total(&free), 6);
    }

    #[test]
    fn loading_twice_changes_nothing() {
        let mut free = FreeSpace::default();
        assert!(free.load(PageId(10), 5));
        assert_eq!(free.take_extent(5), Some(PageId(10)));
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
    fn a_page_that_comes_back_twice_is_a_contradiction() {
        let mut free = FreeSpace::default();
        assert!(free.load(PageId(10), 5));
        free.give_back_dirty(PageId(20), 1);
        free.settle_hot();
        assert_eq!((free.usable_pages(), free.contradiction()), (6, None));
        free.give_back_dirty(PageId(12), 1);
        free.settle_hot();
        assert_eq!((free.usable_pages(), free.contradiction()), (6, Some((PageId(12), 1))));
        let mut free = FreeSpace::default();
        assert!(free.load(PageId(10), 5));
        free.give_back_dirty(PageId(8), 3);
        assert_eq!((free.usable_pages(), free.contradiction()), (5, Some((PageId(8), 3))));
    }

    #[test]
    fn a_page_is_pinned_by_states_between_birth_and_death_only() {
        let live = LiveStates::new(vec![TxnId(30), TxnId(5), TxnId(20)], TxnId(30));
        assert!(live.reach(TxnId(3), TxnId(6)));
        assert!(!live.reach(TxnId(6), TxnId(20)));
        assert!(live.reach(TxnId(6), TxnId(21)));
        assert!(!live.reach(TxnId(21), TxnId(30)));
        assert_eq!(live.all_before(TxnId(20)), Some(&[TxnId(5)][..]));
        assert_eq!(live.all_before(TxnId(21)), Some(&[TxnId(5), TxnId(20)][..]));
        assert_eq!(live.all_before(TxnId(31)), None);
        assert!(live.contains(TxnId(20)) && !live.contains(TxnId(21)));
        // States between published and latest state may be under a checkpoint: what one of them
        // freed or reaches stays.
        assert!(live.reach(TxnId(31), TxnId(32)));
    }
}

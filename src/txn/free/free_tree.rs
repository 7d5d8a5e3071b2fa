//! The persistent free space: a B+tree of extents, and a short list. The writer reads it in chunks
//! and saves only what a transaction changed.
//!
//! Floor: txn. Keys of the free-space tree, in this order (all numbers big-endian, so that byte
//! order is number order):
//!
//! ```text
//!     [0][start: 6]                            -> [pages: 6]   a usable extent
//!     [1][pages: 6][start: 6]                  -> []           the same, of at least 16 pages: best fit by length
//!     [2][freed txn: 8][saved txn: 8][part: 4] -> items        pending extents, 18 bytes each:
//!                                                              start 6, pages 6, born txn 6 (little-endian)
//! ```
//!
//! Besides the tree there is the *free list*, an extent that the meta page points at and that every
//! commit writes anew. It holds extents that were freed or became usable recently. When the list
//! gets long, its items move into the tree. So a small commit, which uses pages that recent commits
//! freed, writes only one page of free space, no matter how much space is free.
//!
//! Saving changes the tree that it saves, and must still end. So the tree takes its own pages from
//! a *reserve*, set apart beforehand, and the pages that it supersedes go into the list. If the
//! reserve is too small, it takes pages at the end of the file, which changes no free extent
//! either.
//!
//! Invariants:
//!   FREE-1  every page is exactly one of: reachable, usable, pending, the free list, a meta page.
//!   FREE-2  a pending extent becomes usable only when no live state reaches it (rule R5).
//!   FREE-3  the cost of a save depends on the extents touched, not on the number of free extents.
//!
//! Failure: [`Error::Corrupt`] when records overlap or leave the file.

use crate::error::{Error, Result};
use crate::hooks;
use crate::ids::{PageId, TxnId};
use crate::page::free_list::FreeItem;
use crate::page::meta::{ExtentPtr, TreeRoot};
use crate::pager::write::live_states::LiveStates;
use crate::pager::write::txn_pages::TxnPages;
use crate::tree::{self, Cursor, Tree};
use crate::txn::free::free_extents::read_list;
use crate::txn::free::free_records::{decode_usable, next_key, usable_key, PendingKey, ITEMS_PER_RECORD, TAG_USABLE};
use crate::txn::free::list_extents::ListExtents;
use crate::txn::free::load_extents::{load, load_best_fit, load_neighbours, pending_record};
use crate::txn::free::save_pages::SavePages;
use crate::txn::state::{Basis, State};

/// Usable pages that [`FreeCache::ensure`] provides before an operation on a tree. An operation
/// that needs more takes them at the end of the file.
const LOW_WATER_PAGES: u64 = 24;
/// Records of usable extents to read from the tree at a time.
const LOAD_BATCH: usize = 64;
/// Maximum number of pending records to examine for one operation, so that a large backlog of
/// pending extents does not stall a small commit.
const RECLAIM_BATCH: usize = 64;
/// Maximum number of items of the free list; above it a save moves them into the tree. Together
/// with the reserve they fit the smallest page.
pub(super) const LISTED_PENDING_MAX: usize = 80;
const LISTED_USABLE_MAX: usize = 48;

/// Large values are wanted, and no usable extent has so many pages: then extents are merged.
const FEW_LONG_PAGES: u64 = 8;
/// Commits after a large value was stored in which free extents are merged without delay.
const LONG_WANTED: u32 = 256;

/// The writer's cache of the free-space tree, kept between transactions. It belongs to one state;
/// it is discarded on abort, and if the latest state is another one.
#[derive(Debug, Default)]
pub(crate) struct FreeCache {
    /// All usable extents of the tree that start before this page are loaded.
    loaded_to: PageId,
    all_loaded: bool,
    list_read: bool,
    /// Pending extents of the free list; the tree does not have them.
    pub(super) recent: Vec<FreeItem>,
    /// Usable pages set apart for the pages of the tree itself, and not used yet.
    pub(super) reserve: Vec<PageId>,
    /// Commits for which long extents are wanted, because a large value was stored.
    long_wanted: u32,
    /// Extents for long free lists.
    pub(super) lists: ListExtents,
    /// Next pending record to examine in this transaction; `None` if no record is left.
    scan: Option<PendingKey>,
    scan_started: bool,
    /// All pending records up to this key were examined, and a state of `examined_for` keeps every
    /// extent left in them. While all states of `examined_for` are live, examining these records
    /// again would make no extent usable. The same holds for a record that moves from the free list
    /// to a key before this one: no new reader can begin at so old a state, so a state of
    /// `examined_for` keeps its extents too.
    examined_to: PendingKey,
    /// The live states that are older than the transaction that freed the record `examined_to`, in
    /// ascending order.
    examined_for: Vec<TxnId>,
    /// This transaction has moved `examined_to`; the save then fills `examined_for`.
    examined_to_moved: bool,
    /// Pending records that changed, with the items that are left. A save stores them, and deletes
    /// records without items.
    pub(super) changed_records: Vec<(PendingKey, Vec<FreeItem>)>,
}

impl FreeCache {
    /// Prepares for the next transaction, which must not reuse pages of the live states.
    pub(crate) fn begin(&mut self, pages: &mut TxnPages, basis: &Basis) -> Result<()> {
        let Basis { latest, live, .. } = basis;
        self.scan_started = false;
        self.scan = None;
        if !self.list_read {
            self.recent = read_list(pages, &latest.free_list, latest.page_count)?;
            self.list_read = true;
        }
        self.recent.iter().for_each(|_| hooks::count_step());
        // Usable extents are in the list with `freed` = 0, which no state reaches.
        self.make_recent_usable(pages, live)?;
        self.lists.release_some(pages, latest.free_list.pages > 1);
        // One page stays set apart for the free list. Otherwise this transaction might use all
        // unlisted pages, and the list would make the file longer.
        let for_list = self.reserve.pop();
        self.release_reserve(pages);
        self.reserve.extend(for_list.or_else(|| pages.free.take_unlisted_page()));
        Ok(())
    }

    /// Examines again the pending extents that this transaction has examined before, and makes
    /// those usable that no live state reaches any more.
    pub(crate) fn look_again(&mut self, pages: &mut TxnPages, basis: &Basis, extent: u64) -> Result<()> {
        // Examine from the first record on: a state that kept their extents may have ended.
        self.scan_started = false;
        (self.examined_to, self.examined_to_moved) = (PendingKey::default(), false);
        self.examined_for.clear();
        self.make_recent_usable(pages, &basis.live)?;
        self.ensure(pages, basis, extent)
    }

    /// Makes extents of the free list usable that no live state reaches.
    fn make_recent_usable(&mut self, pages: &mut TxnPages, live: &LiveStates) -> Result<()> {
        let (still, usable): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.recent).into_iter().partition(|item| live.reach(item.born, item.freed));
        self.recent = still;
        for FreeItem { start, pages: len, .. } in usable {
            if pages.free.overlaps(start, len) || !self.lists.keep((start, len)) {
                add_usable(pages, start, len)?;
            }
        }
        Ok(())
    }

    /// Makes pages that are set apart ordinary usable ones.
    pub(crate) fn release_reserve(&mut self, pages: &mut TxnPages) {
        self.reserve.drain(..).for_each(|id| pages.free.add_unlisted(id, 1));
    }

    /// Makes the extents for long free lists ordinary usable ones, before the file is made shorter.
    pub(crate) fn release_lists(&mut self, pages: &mut TxnPages) {
        self.release_reserve(pages);
        self.lists.release_all(pages);
    }

    /// Makes enough pages usable for one tree operation, with an extent of `extent` pages among
    /// them if there is one.
    #[inline]
    pub(crate) fn ensure(&mut self, pages: &mut TxnPages, basis: &Basis, extent: u64) -> Result<()> {
        if extent > 1 {
            self.long_wanted = LONG_WANTED;
        }
        if enough(pages, extent) || basis.latest.free_space.height == 0 {
            return Ok(());
        }
        self.refill(pages, basis, extent)
    }

    #[inline(never)]
    pub(super) fn refill(&mut self, pages: &mut TxnPages, basis: &Basis, extent: u64) -> Result<()> {
        self.reclaim(pages, basis, extent, RECLAIM_BATCH)?;
        let latest = &basis.latest;
        if pages.free.usable_pages() < LOW_WATER_PAGES && !self.all_loaded {
            self.load_batch(pages, latest)?;
        }
        if extent > 1 && pages.free.longest() < extent && !self.all_loaded {
            load_best_fit(pages, latest, extent)?;
        }
        Ok(())
    }

    /// Makes pending extents of the tree usable if no live state reaches them. Ends when enough
    /// pages are usable, with an extent of `extent` pages among them, or after `most` records.
    fn reclaim(&mut self, pages: &mut TxnPages, basis: &Basis, extent: u64, most: usize) -> Result<()> {
        let Basis { latest, live, .. } = basis;
        if !self.scan_started {
            self.scan_started = true;
            self.examine_again(live);
            self.scan = Some(next_key(self.examined_to));
        }
        for _ in 0..most {
            hooks::count_step();
            let Some(from) = self.scan.filter(|_| !enough(pages, extent)) else { return Ok(()) };
            self.scan = None;
            let Some((key, items)) = pending_record(pages, &latest.free_space, from, latest.page_count)? else {
                return Ok(());
            };
            self.scan = Some(next_key(key));
            let count = items.len();
            // The tree does not have the changes that this transaction made to the record yet.
            let items = match self.changed_records.iter().position(|(changed, _)| *changed == key) {
                Some(index) => self.changed_records.swap_remove(index).1,
                None => items,
            };
            let (still, usable): (Vec<_>, Vec<_>) =
                items.into_iter().partition(|item| live.reach(item.born, item.freed));
            if still.len() < count {
                self.changed_records.push((key, still));
            }
            usable.into_iter().try_for_each(|item| add_usable(pages, item.start, item.pages))?;
            if live.all_before(key.0).is_some() {
                (self.examined_to, self.examined_to_moved) = (key, true);
            }
        }
        Ok(())
    }

    /// If a state of `examined_for` is no longer live, moves `examined_to` back, so that the
    /// records that this state may have kept are examined again: those freed after that state.
    fn examine_again(&mut self, live: &LiveStates) {
        if let Some(gone) = self.examined_for.iter().position(|&state| !live.contains(state)) {
            self.examined_to = self.examined_to.min((self.examined_for[gone], TxnId(u64::MAX), u32::MAX));
            self.examined_for.truncate(gone);
        }
    }

    fn load_batch(&mut self, pages: &mut TxnPages, latest: &State) -> Result<()> {
        let mut found = Vec::with_capacity(LOAD_BATCH);
        let mut cursor = Cursor::new(Tree::new(pages, &latest.free_space));
        let mut next = cursor.seek(&usable_key(self.loaded_to))?;
        while found.len() < LOAD_BATCH {
            match next {
                Some((key, value)) if key.first() == Some(&TAG_USABLE) => {
                    found.push(decode_usable(key, value, latest.page_count)?);
                }
                _ => {
                    self.all_loaded = true;
                    break;
                }
            }
            next = cursor.next()?;
        }
        if let Some(&(last, _)) = found.last() {
            self.loaded_to = PageId(last.0 + 1);
        }
        found.into_iter().try_for_each(|(start, len)| load(pages, start, len))
    }

    /// Saves the changes and returns the free-space tree and the free list of the next state. After
    /// this no page may be allocated.
    pub(crate) fn save(&mut self, pages: &mut TxnPages, basis: &Basis) -> Result<(TreeRoot, ExtentPtr)> {
        let Basis { latest, live, .. } = basis;
        pages.free.move_hot_to_unlisted();
        let freed = pages.free.drain_freed();
        // A page of the reserve that the transaction frees was in use. So the free space of the
        // file contradicts itself.
        let is_freed =
            |id: &&PageId| freed.iter().any(|item| (item.start.0..item.start.0 + item.pages).contains(&id.0));
        if let Some(&id) = self.reserve.iter().find(is_freed) {
            return Err(overlap(id, 1));
        }
        // A transaction that frees many extents writes a long list: that is cheaper than as many
        // changes of the tree, and most of its items are usable in the next transaction.
        let is_large = freed.len() > LISTED_PENDING_MAX;
        let pending_max = LISTED_PENDING_MAX.max(freed.len() + freed.len() / 4);
        let mut usable_max = LISTED_USABLE_MAX.max(freed.len() / 2);
        self.recent.extend(freed);
        if is_large {
            self.find_long_extent(pages, basis)?;
        }
        let mut moved = self.take_moved(live, pending_max);
        if !moved.is_empty() && latest.free_space.height > 0 {
            // Examine twice as many records as this save adds. Otherwise a backlog of pending
            // records could stay for ever. `refill` examines records only when usable pages run
            // out, and many short remains of large extents may put that off although no large value
            // fits into them. Where no large values are stored, single pages are as good.
            for _ in 0..2 * moved.len().div_ceil(ITEMS_PER_RECORD) {
                if is_large && self.long_wanted == 0 && pages.free.unlisted_count() + ITEMS_PER_RECORD > usable_max {
                    break;
                }
                self.reclaim(pages, basis, u64::MAX, 1)?;
            }
        }
        let long_list = if is_large { self.take_long_list(pages)? } else { None };
        if is_large && long_list.is_none() {
            moved.append(&mut self.recent);
            usable_max = LISTED_USABLE_MAX;
        }
        if self.long_wanted > 0 && pages.free.longest() < FEW_LONG_PAGES {
            // In the tree, extents are merged with their neighbours.
            usable_max = 0;
        }
        let move_usable = pages.free.unlisted_count() > usable_max;
        let mut root = latest.free_space;
        if !moved.is_empty() || move_usable || !self.changed_records.is_empty() || pages.free.touched_count() > 0 {
            self.save_tree(pages, &mut root, moved, move_usable)?;
        }
        if std::mem::take(&mut self.examined_to_moved) {
            self.examined_for = live.all_before(self.examined_to.0).unwrap_or_default().to_vec();
        }
        self.long_wanted = self.long_wanted.saturating_sub(1);
        let list = self.write_list(pages, latest, long_list)?;
        match pages.free.contradiction() {
            Some((start, len)) => Err(overlap(start, len)),
            None => Ok((root, list)),
        }
    }

    /// Takes pending extents out of a list of more than `most`: those that an older state pins, or
    /// all if too many others are left. Extents of long lists stay.
    fn take_moved(&mut self, live: &LiveStates, most: usize) -> Vec<FreeItem> {
        if self.recent.len() <= LISTED_PENDING_MAX {
            return Vec::new();
        }
        let lists = &self.lists;
        let (moved, short): (Vec<_>, Vec<_>) = std::mem::take(&mut self.recent)
            .into_iter()
            .partition(|item| live.stays_reached(item.born, item.freed) && !lists.has((item.start, item.pages)));
        self.recent = short;
        match self.recent.len() > most {
            true => moved.into_iter().chain(std::mem::take(&mut self.recent)).collect(),
            false => moved,
        }
    }

    fn save_tree(
        &mut self,
        pages: &mut TxnPages,
        root: &mut TreeRoot,
        moved: Vec<FreeItem>,
        move_usable: bool,
    ) -> Result<()> {
        if move_usable {
            load_neighbours(pages, root)?;
        }
        self.set_list_extent_apart(pages, root, moved.len());
        self.take_reserve(pages, root);
        if move_usable {
            pages.free.list_all();
        }
        let mut own = SavePages { pages, reserve: &mut self.reserve, superseded: &mut self.recent };
        for (key, left) in self.changed_records.drain(..) {
            own.put_pending(root, key, &left)?;
        }
        own.move_pending(root, moved)?;
        loop {
            own.keep_one();
            // A page that a change of the tree takes may change another record. Most often that is
            // one of a leaf that is changed already, so this ends soon. At the latest it ends when
            // all leaves are.
            let changes = own.pages.free.take_changes();
            if changes.is_empty() {
                break;
            }
            for (start, old, new) in changes {
                own.put_usable(root, start, old, new)?;
            }
        }
        tree::seal(&mut own, root)
    }

    /// Fills the reserve with the pages that a change of the tree may need. More would only make
    /// the free list longer: it has all pages that are left.
    fn take_reserve(&mut self, pages: &mut TxnPages, root: &TreeRoot) {
        let needed = 2 * usize::from(root.height) + 2;
        while self.reserve.len() < needed {
            let Some(id) = pages.free.take_page() else { break };
            self.reserve.push(id);
        }
        // `SavePages` pops from the end, so the lowest page ids go first and the pages of a commit
        // are neighbours.
        self.reserve.sort_unstable_by(|a, b| b.cmp(a));
    }
}

/// Whether enough pages for one tree operation are usable, with an extent of `extent` pages among
/// them.
#[inline]
fn enough(pages: &TxnPages, extent: u64) -> bool {
    pages.free.usable_pages() >= LOW_WATER_PAGES && (extent <= 1 || pages.free.longest() >= extent)
}

fn add_usable(pages: &mut TxnPages, start: PageId, len: u64) -> Result<()> {
    if pages.free.overlaps(start, len) {
        return Err(overlap(start, len));
    }
    pages.free.add_unlisted(start, len);
    Ok(())
}

#[cold]
pub(super) fn overlap(start: PageId, len: u64) -> Error {
    Error::corrupt(start, format!("the free extent of {len} pages overlaps another free extent"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::mapping::{MapOptions, Mapping};
    use crate::pager::write::free_space::FreeSpace;

    /// The tree lists pages 10 to 14 as usable, and the transaction frees a page that overlaps
    /// them.
    #[test]
    fn free_space_that_contradicts_itself_is_not_saved() {
        for (given_back, pages_given, contradicts) in [(20, 1, false), (12, 1, true), (8, 3, true), (14, 3, true)] {
            let options =
                MapOptions { page_size: 4096, window_bytes: Some(1 << 22), fault_guard: true, used_bytes: None };
            let mapping = Arc::new(Mapping::anonymous(options).expect("mapped"));
            let mut write_map = mapping.write_map().expect("the first writable mapping");
            mapping.grow(&mut write_map, 40 * 4096).expect("grown");
            let path = Arc::new(PathBuf::from("memory"));
            let mut pages = TxnPages::new(mapping, write_map, path, 4096, FreeSpace::default());
            let latest = State { txn: TxnId(7), page_count: 40, ..State::default() };
            let basis = Basis { latest, live: LiveStates::new(Vec::new(), latest.txn), named: None };
            let mut cache = FreeCache::default();
            pages.begin(latest.txn.next(), latest.page_count);
            cache.begin(&mut pages, &basis).expect("begun");
            assert!(pages.free.load(PageId(10), 5), "as the tree lists it");
            pages.free.give_back_dirty(PageId(given_back), pages_given);
            match cache.save(&mut pages, &basis) {
                Ok(_) => assert!(!contradicts, "{given_back} was saved"),
                Err(e) => assert!(contradicts && e.kind() == crate::error::ErrorKind::Corrupt, "{given_back}: {e}"),
            }
            pages.end();
        }
    }
}

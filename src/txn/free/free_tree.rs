//! The persistent free space: a B+tree of extents and a short list, read chunk by chunk and saved
//! by what changed.
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
//! Beside the tree there is the *free list*, a run that the meta page points at and every commit
//! writes anew. It holds what was freed or became usable lately; only when it gets long does it go
//! into the tree. So a small commit, which uses what the commits before it gave back, writes one
//! page of free space, however much space is free.
//!
//! Saving must end although it changes what it saves. The pages of the tree therefore come from a
//! *reserve*, taken before, and those that it supersedes go into the list. If the reserve is too
//! small, pages at the end of the file serve, which changes no extent either.
//!
//! Invariants:
//!   FREE-1  every page is exactly one of: reachable, usable, pending, the free list, a meta page.
//!   FREE-2  a pending extent becomes usable only when no live state reaches it (rule R5).
//!   FREE-3  the cost of a save follows the extents touched, never how many there are.
//!
//! Failure: [`Error::Corrupt`] when records overlap or leave the file.

use crate::error::{Error, Result};
use crate::hooks;
use crate::ids::{PageId, PagePtr, TxnId};
use crate::page::free_list::{self, FreeItem};
use crate::page::meta::{RunPtr, TreeRoot};
use crate::pager::write::free_space::LiveStates;
use crate::pager::write::txn_pages::TxnPages;
use crate::pager::{PageRead, PageWrite};
use crate::tree::{self, Cursor};
use crate::txn::free::free_extents::read_list;
use crate::txn::free::free_records::{
    big_key, decode_items, decode_pending_key, decode_usable, from_be48, in_file, next_key, pending_key, usable_key,
    PendingKey, ITEMS_PER_RECORD, TAG_BIG, TAG_USABLE,
};
use crate::txn::free::save_pages::SavePages;
use crate::txn::state::State;

/// Pages that should be at hand before an operation on a tree; more may be taken, at the end of the
/// file.
const LOW_WATER_PAGES: u64 = 24;
/// Records of usable extents read in at a time.
const LOAD_BATCH: usize = 64;
/// Pending records looked at for one operation at most, so that a large free does not stall a small
/// commit.
const RECLAIM_BATCH: usize = 64;
/// Items that the free list keeps before they go into the tree; together with the reserve they fit
/// the smallest page.
const LISTED_PENDING_MAX: usize = 80;
const LISTED_USABLE_MAX: usize = 48;

/// What the writer remembers about the free-space tree between transactions. Dropped when the
/// latest state is not the one that it belongs to, and on abort.
#[derive(Debug, Default)]
pub(crate) struct FreeCache {
    /// Usable extents with a start below this were read in.
    loaded_to: PageId,
    all_loaded: bool,
    list_read: bool,
    /// Pending extents that are not in the tree but in the free list.
    recent: Vec<FreeItem>,
    /// Usable pages that were set apart for the tree and not needed.
    reserve: Vec<PageId>,
    /// Next pending record to look at in this transaction; `None` when there is none left that may
    /// be reclaimed.
    scan: Option<PendingKey>,
    scan_started: bool,
    /// What is left of the records up to here is pinned by the states in `settled_for` (ascending),
    /// all of them older than the last of these records. As long as all are live, looking again
    /// would find nothing: a record that is moved from the list in among these is pinned by one of
    /// them too, because no state that old begins to be read.
    settled: PendingKey,
    settled_for: Vec<TxnId>,
    /// This transaction has moved `settled`; saving notes for which states.
    has_settled: bool,
    /// Changes to pending records, applied when saving: what is left of a record (nothing: delete
    /// it).
    examined: Vec<(PendingKey, Vec<FreeItem>)>,
}

impl FreeCache {
    /// Prepares for the next transaction; `live` are the states that it must not disturb.
    pub(crate) fn begin(&mut self, pages: &mut TxnPages, latest: &State, live: &LiveStates) -> Result<()> {
        self.scan_started = false;
        self.scan = None;
        if !self.list_read {
            self.recent = read_list(pages, &latest.free_list, latest.page_count)?;
            self.list_read = true;
        }
        self.recent.iter().for_each(|_| hooks::count_step());
        // What is usable already stands in the list as freed by no transaction, which no state
        // reaches.
        let (still, usable): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.recent).into_iter().partition(|item| live.reach(item.born, item.freed));
        self.recent = still;
        usable.into_iter().try_for_each(|item| add_usable(pages, item.start, item.pages))?;
        self.reserve.drain(..).for_each(|id| pages.free.add_unlisted(id, 1));
        Ok(())
    }

    /// Sees that pages for one tree operation are at hand, with a run of `extent` pages among them
    /// if there is one.
    #[inline]
    pub(crate) fn ensure(
        &mut self,
        pages: &mut TxnPages,
        latest: &State,
        live: &LiveStates,
        extent: u64,
    ) -> Result<()> {
        if enough(pages, extent) || latest.free_space.height == 0 {
            return Ok(());
        }
        self.refill(pages, latest, live, extent)
    }

    #[inline(never)]
    fn refill(&mut self, pages: &mut TxnPages, latest: &State, live: &LiveStates, extent: u64) -> Result<()> {
        self.reclaim(pages, latest, live, extent, RECLAIM_BATCH)?;
        if pages.free.usable_pages() < LOW_WATER_PAGES && !self.all_loaded {
            self.load_batch(pages, latest)?;
        }
        if extent > 1 && pages.free.longest() < extent && !self.all_loaded {
            load_best_fit(pages, latest, extent)?;
        }
        Ok(())
    }

    /// Makes pending extents of the tree usable that no live state reaches, until pages and a run
    /// of `extent` pages are at hand; looks at `most` records.
    fn reclaim(
        &mut self,
        pages: &mut TxnPages,
        latest: &State,
        live: &LiveStates,
        extent: u64,
        most: usize,
    ) -> Result<()> {
        if !self.scan_started {
            self.scan_started = true;
            self.unsettle(live);
            self.scan = Some(next_key(self.settled));
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
            let (still, usable): (Vec<_>, Vec<_>) =
                items.into_iter().partition(|item| live.reach(item.born, item.freed));
            if still.len() < count {
                self.examined.push((key, still));
            }
            usable.into_iter().try_for_each(|item| add_usable(pages, item.start, item.pages))?;
            if live.all_before(key.0).is_some() {
                (self.settled, self.has_settled) = (key, true);
            }
        }
        Ok(())
    }

    /// Goes back to the first record that a state which is gone may have pinned: the ones freed
    /// after that state.
    fn unsettle(&mut self, live: &LiveStates) {
        if let Some(gone) = self.settled_for.iter().position(|&state| !live.contains(state)) {
            self.settled = self.settled.min((self.settled_for[gone], TxnId(u64::MAX), u32::MAX));
            self.settled_for.truncate(gone);
        }
    }

    fn load_batch(&mut self, pages: &mut TxnPages, latest: &State) -> Result<()> {
        let mut found = Vec::with_capacity(LOAD_BATCH);
        let mut cursor = Cursor::new(&*pages, latest.free_space);
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

    /// Writes what changed and gives the free-space part of the next state. After this no page may
    /// be allocated.
    pub(crate) fn save(
        &mut self,
        pages: &mut TxnPages,
        latest: &State,
        live: &LiveStates,
    ) -> Result<(TreeRoot, RunPtr)> {
        pages.free.settle_hot();
        self.recent.extend(pages.free.drain_freed());
        let move_pending = self.recent.len() > LISTED_PENDING_MAX;
        if move_pending && latest.free_space.height > 0 {
            // More records go out than come in. Otherwise a backlog stays for ever: it is looked at
            // only when nothing else is at hand, and pages of a large extent that is too short for
            // a run serve until the next one comes.
            let records = 2 * self.recent.len().div_ceil(ITEMS_PER_RECORD);
            self.reclaim(pages, latest, live, u64::MAX, records)?;
        }
        let move_usable = pages.free.unlisted_count() > LISTED_USABLE_MAX;
        let mut root = latest.free_space;
        if move_pending || move_usable || !self.examined.is_empty() || pages.free.touched_count() > 0 {
            self.save_tree(pages, &mut root, move_pending, move_usable)?;
        }
        if std::mem::take(&mut self.has_settled) {
            self.settled_for = live.all_before(self.settled.0).unwrap_or_default().to_vec();
        }
        let list = self.write_list(pages, latest)?;
        match pages.free.contradiction() {
            Some((start, len)) => Err(overlap(start, len)),
            None => Ok((root, list)),
        }
    }

    fn save_tree(
        &mut self,
        pages: &mut TxnPages,
        root: &mut TreeRoot,
        move_pending: bool,
        move_usable: bool,
    ) -> Result<()> {
        let moved = if move_pending { std::mem::take(&mut self.recent) } else { Vec::new() };
        if move_usable {
            load_neighbours(pages, root)?;
        }
        // An extent that is joined with both its neighbours changes three records.
        let listed = if move_usable { 3 * pages.free.unlisted_count() } else { 0 };
        let records = self.examined.len() + moved.len().div_ceil(ITEMS_PER_RECORD) + 1;
        self.take_reserve(pages, root, pages.free.touched_count() + listed + records);
        if move_usable {
            pages.free.list_all();
        }
        let changes = pages.free.take_changes();
        let mut own = SavePages { pages, reserve: &mut self.reserve, superseded: &mut self.recent };
        for (key, left) in self.examined.drain(..) {
            own.put_pending(root, key, &left)?;
        }
        own.move_pending(root, moved)?;
        for (start, old, new) in changes {
            own.put_usable(root, start, old, new)?;
        }
        tree::seal(&mut own, root)
    }

    /// Sets pages apart for so many changes of the tree.
    fn take_reserve(&mut self, pages: &mut TxnPages, root: &TreeRoot, changes: usize) {
        let leaves = root.entries as usize / 40 + changes / 40 + 2;
        let needed = changes.min(leaves) + 2 * usize::from(root.height) + 2;
        while self.reserve.len() < needed {
            let Some(id) = pages.free.take_page() else { break };
            self.reserve.push(id);
        }
        // Handed out from the end: lowest addresses first, so that the pages of a commit are
        // neighbours.
        self.reserve.sort_unstable_by(|a, b| b.cmp(a));
    }

    fn write_list(&mut self, pages: &mut TxnPages, latest: &State) -> Result<RunPtr> {
        let txn = pages.txn();
        if latest.free_list.pages > 0 {
            let (start, pages) = (latest.free_list.ptr.id, latest.free_list.pages);
            self.recent.push(FreeItem { start, pages, born: latest.txn, freed: txn });
        }
        let most = self.recent.len() + self.reserve.len() + pages.free.unlisted_count();
        let extent = free_list::overflow_pages(pages.page_size(), most);
        let id = self.take_list_extent(pages, extent)?;
        let mut items = self.recent.clone();
        items.extend(self.reserve.iter().map(|&id| usable_item(id, 1)));
        items.extend(pages.free.unlisted().map(|(start, len)| usable_item(start, len)));
        let page_size = pages.page_size();
        let crc = free_list::write(pages.extent_mut(id, extent)?, page_size, id, txn, &items);
        let ptr = PagePtr { id, crc };
        pages.set_verified_sealed(ptr);
        Ok(RunPtr { ptr, pages: extent })
    }

    fn take_list_extent(&mut self, pages: &mut TxnPages, extent: u64) -> Result<PageId> {
        let reserved = if extent == 1 { self.reserve.pop() } else { None };
        match reserved.or_else(|| pages.free.take_unlisted(extent)) {
            Some(id) => {
                pages.claim(id, extent)?;
                Ok(id)
            }
            None => pages.alloc_at_end(extent),
        }
    }
}

/// A usable extent as an item of the free list.
fn usable_item(start: PageId, pages: u64) -> FreeItem {
    FreeItem { start, pages, born: TxnId(0), freed: TxnId(0) }
}

/// Whether pages for one tree operation are at hand, and a run of `extent` pages.
#[inline]
fn enough(pages: &TxnPages, extent: u64) -> bool {
    pages.free.usable_pages() >= LOW_WATER_PAGES && (extent <= 1 || pages.free.longest() >= extent)
}

fn pending_record(
    pages: &TxnPages,
    root: &TreeRoot,
    from: PendingKey,
    page_count: u64,
) -> Result<Option<(PendingKey, Vec<FreeItem>)>> {
    let mut cursor = Cursor::new(pages, *root);
    match cursor.seek(&pending_key(from))? {
        None => Ok(None),
        Some((key, value)) => {
            let key = decode_pending_key(key)?;
            Ok(Some((key, decode_items(key, value, page_count)?)))
        }
    }
}

fn load_best_fit(pages: &mut TxnPages, latest: &State, extent: u64) -> Result<()> {
    let mut cursor = Cursor::new(&*pages, latest.free_space);
    let mut next = cursor.seek(&big_key(extent, PageId(0)))?;
    // An extent that this transaction has used up is still in the tree: look a little further.
    let mut found = Vec::new();
    while let Some((key, _)) = next.filter(|_| found.len() < RECLAIM_BATCH) {
        let Some(rest) = key.strip_prefix(&[TAG_BIG]).filter(|rest| rest.len() == 12) else { break };
        let (len, start) = (from_be48(&rest[..6]), PageId(from_be48(&rest[6..])));
        in_file(start, len, latest.page_count)?;
        found.push((start, len));
        next = cursor.next()?;
    }
    for (start, len) in found {
        load(pages, start, len)?;
        if pages.free.longest() >= extent {
            break;
        }
    }
    Ok(())
}

/// Reads in what the tree lists right before and right after the unlisted extents, so that listing
/// them joins them with it. Without this, extents that were freed apart would stay apart, and no
/// long run would ever come of short ones.
fn load_neighbours(pages: &mut TxnPages, root: &TreeRoot) -> Result<()> {
    let unlisted: Vec<(PageId, u64)> = pages.free.unlisted().collect();
    let page_count = pages.page_count();
    let mut found = Vec::new();
    let mut cursor = Cursor::new(&*pages, *root);
    for (start, len) in unlisted {
        // A listed extent that begins inside an unlisted one is in memory already, and stays as it
        // is.
        let end = PageId(start.0 + len);
        for entry in [cursor.seek_before(&usable_key(start))?, cursor.seek(&usable_key(end))?] {
            let usable = entry.filter(|(key, _)| key.first() == Some(&TAG_USABLE));
            let extent = usable.map(|(key, value)| decode_usable(key, value, page_count)).transpose()?;
            found.extend(extent.filter(|&(id, len)| id == end || id.0 + len == start.0));
        }
    }
    found.into_iter().try_for_each(|(start, len)| load(pages, start, len))
}

fn load(pages: &mut TxnPages, start: PageId, len: u64) -> Result<()> {
    if pages.free.load(start, len) {
        Ok(())
    } else {
        Err(overlap(start, len))
    }
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

    /// A file whose free space names a page that the transaction got from elsewhere, and gave back.
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
            let live = LiveStates::new(Vec::new(), latest.txn);
            let mut cache = FreeCache::default();
            pages.begin(latest.txn.next(), latest.page_count);
            cache.begin(&mut pages, &latest, &live).expect("begun");
            assert!(pages.free.load(PageId(10), 5), "as the tree lists it");
            pages.free.give_back_dirty(PageId(given_back), pages_given);
            match cache.save(&mut pages, &latest, &live) {
                Ok(_) => assert!(!contradicts, "{given_back} was saved"),
                Err(e) => assert!(contradicts && e.kind() == crate::error::ErrorKind::Corrupt, "{given_back}: {e}"),
            }
            pages.end();
        }
    }
}

//! The persistent free space: a B+tree of extents, read piece by piece and saved by what changed.
//!
//! Floor: txn. Keys of the free-space tree, in this order (all numbers big-endian, so that byte order is number order):
//!
//! ```text
//! [0][start: 6]               -> [pages: 6]   a usable extent
//! [1][pages: 6][start: 6]     -> []           the same, for extents of at least 16 pages: best fit by length
//! [2][freed txn: 8][part: 4]  -> items        pending extents that a transaction freed, 18 bytes each:
//!                                             start 6, pages 6, born txn 6 (little-endian)
//! ```
//!
//! Saving must end although it changes what it saves. So the pages of this tree come from the *reserve*, and the ones
//! that it supersedes go into a list. Reserve and list do not stand in the tree: they are written as a *free list* run
//! that the meta points at, and read by the next transaction. If the reserve is too small, pages at the end of the
//! file serve, which changes no extent either.
//!
//! Invariants:
//!   E1  every page is exactly one of: reachable, in a usable extent, in a pending one, in the free list, a meta.
//!   E2  a pending extent becomes usable only when no live state reaches it (rule R5).
//!   E3  the cost of a save follows the extents touched, never how many there are.
//!
//! Failure: [`Error::Corrupt`] when records overlap or leave the file.

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr, TreeId, TxnId};
use crate::page::free_list::{self, FreeItem};
use crate::page::layout::{get_u48, put_u48};
use crate::page::meta::{RunPtr, TreeRoot};
use crate::pager::free_space::{LiveStates, BIG_EXTENT_PAGES};
use crate::pager::txn_pages::TxnPages;
use crate::pager::{PageRead, PageWrite};
use crate::tree::{self, Cursor, PutHint};
use crate::txn::state::State;

const TAG_USABLE: u8 = 0;
const TAG_BIG: u8 = 1;
const TAG_PENDING: u8 = 2;

/// Bytes of a pending item in a record, and items per record (within the inline limit of the smallest page).
const ITEM_BYTES: usize = 18;
const ITEMS_PER_RECORD: usize = 50;

/// Pages that should be at hand before an operation on a tree; more may be taken, at the end of the file.
const LOW_WATER_PAGES: u64 = 24;
/// Records of usable extents read in at a time.
const LOAD_BATCH: usize = 64;
/// Pending records looked at for one operation at most, so that a large free does not stall a small commit.
const RECLAIM_BATCH: usize = 64;
/// Reserve pages kept from commit to commit; what is above goes to the usable extents.
const RESERVE_KEEP: usize = 48;

/// What the writer remembers about the free-space tree between transactions. Dropped when the tip is not the one that
/// it belongs to, and on abort.
#[derive(Debug, Default)]
pub(crate) struct FreeCache {
    /// Usable extents with a start below this were read in; `None` when all were.
    loaded_to: Option<u64>,
    all_loaded: bool,
    list_read: bool,
    /// Superseded pages of the tree itself (and old free lists), by the state that still reaches them.
    own_pending: Vec<FreeItem>,
    /// Next pending record to look at in this transaction; `None` when there is none left that may be reclaimed.
    scan: Option<PendingKey>,
    scan_started: bool,
    /// Records up to here were examined while `settled_for` was the only state before them.
    settled: PendingKey,
    settled_for: TxnId,
    /// Changes to pending records, applied when saving: what is left of a record (nothing: delete it).
    examined: Vec<(PendingKey, Vec<FreeItem>)>,
}

/// Key of a pending record: freed by, part.
type PendingKey = (TxnId, u32);

impl FreeCache {
    /// Prepares for the next transaction; `live` are the states that it must not disturb.
    pub(crate) fn begin(&mut self, pages: &mut TxnPages, tip: &State, live: &LiveStates) -> Result<()> {
        self.scan_started = false;
        self.scan = None;
        if !self.list_read {
            self.own_pending = read_list(pages, &tip.free_list, tip.page_count)?;
            self.list_read = true;
        }
        let (still, usable): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.own_pending).into_iter().partition(|item| live.reach(item.born, item.freed));
        self.own_pending = still;
        for item in usable {
            pages.free.reserve.extend((item.start.0..item.start.0 + item.pages).map(PageId));
        }
        Ok(())
    }

    /// Sees that pages for one tree operation are at hand, with a run of `run` pages among them if there is one.
    #[inline]
    pub(crate) fn ensure(&mut self, pages: &mut TxnPages, tip: &State, live: &LiveStates, run: u64) -> Result<()> {
        if pages.free.usable_pages() >= LOW_WATER_PAGES && (run <= 1 || pages.free.longest() >= run) {
            return Ok(());
        }
        self.refill(pages, tip, live, run)
    }

    #[inline(never)]
    fn refill(&mut self, pages: &mut TxnPages, tip: &State, live: &LiveStates, run: u64) -> Result<()> {
        let enough = |pages: &TxnPages| {
            pages.free.usable_pages() >= LOW_WATER_PAGES && (run <= 1 || pages.free.longest() >= run)
        };
        self.reclaim(pages, tip, live, &enough)?;
        if pages.free.usable_pages() < LOW_WATER_PAGES && !self.all_loaded {
            self.load_batch(pages, tip)?;
        }
        if run > 1 && pages.free.longest() < run && !self.all_loaded {
            load_best_fit(pages, tip, run)?;
        }
        Ok(())
    }

    /// Makes pending extents usable that no live state reaches.
    fn reclaim(
        &mut self,
        pages: &mut TxnPages,
        tip: &State,
        live: &LiveStates,
        enough: &dyn Fn(&TxnPages) -> bool,
    ) -> Result<()> {
        if !self.scan_started {
            self.scan_started = true;
            if self.settled_for != live.oldest() {
                self.settled = PendingKey::default();
                self.settled_for = live.oldest();
            }
            self.scan = Some(next_key(self.settled));
        }
        for _ in 0..RECLAIM_BATCH {
            let Some(from) = self.scan.filter(|_| !enough(pages)) else { return Ok(()) };
            self.scan = None;
            let Some((key, items)) = pending_record(pages, &tip.free_space, from, tip.page_count)? else {
                return Ok(());
            };
            self.scan = Some(next_key(key));
            let count = items.len();
            let (still, usable): (Vec<_>, Vec<_>) =
                items.into_iter().partition(|item| live.reach(item.born, item.freed));
            if still.len() < count {
                self.examined.push((key, still));
            }
            for item in usable {
                add_usable(pages, item.start, item.pages)?;
            }
            if live.only_oldest_before(key.0) {
                self.settled = key;
            }
        }
        Ok(())
    }

    fn load_batch(&mut self, pages: &mut TxnPages, tip: &State) -> Result<()> {
        let from = self.loaded_to.unwrap_or(0);
        let mut found = Vec::with_capacity(LOAD_BATCH);
        let mut cursor = Cursor::new(&*pages, tip.free_space);
        let mut next = cursor.seek(&usable_key(PageId(from)))?;
        while found.len() < LOAD_BATCH {
            match next {
                Some((key, value)) if key.first() == Some(&TAG_USABLE) => {
                    found.push(decode_usable(key, value, tip.page_count)?);
                }
                _ => {
                    self.all_loaded = true;
                    break;
                }
            }
            next = cursor.next()?;
        }
        if let Some(&(last, _)) = found.last() {
            self.loaded_to = Some(last.0 + 1);
        }
        found.into_iter().try_for_each(|(start, len)| load(pages, start, len))
    }

    /// Writes what changed and gives the free-space part of the next state. After this no page may be allocated.
    pub(crate) fn save(&mut self, pages: &mut TxnPages, tip: &State) -> Result<(TreeRoot, RunPtr)> {
        pages.free.settle_hot();
        let freed = pages.free.drain_freed();
        self.fill_reserve(pages, tip, freed.len());
        let mut root = tip.free_space;
        let txn = pages.txn();
        let mut own = OwnPages { pages, pending: &mut self.own_pending };
        for (key, left) in self.examined.drain(..) {
            own.put_pending(&mut root, key, &left)?;
        }
        for (part, items) in freed.chunks(ITEMS_PER_RECORD).enumerate() {
            own.put_pending(&mut root, (txn, part as u32), items)?;
        }
        for (start, old, new) in own.pages.free.take_changes() {
            own.put_usable(&mut root, start, old, new)?;
        }
        tree::seal(&mut own, &mut root)?;
        let list = self.write_list(pages, tip)?;
        Ok((root, list))
    }

    /// Moves pages between reserve and usable extents so that the reserve suffices for the changes at hand.
    fn fill_reserve(&mut self, pages: &mut TxnPages, tip: &State, freed: usize) {
        let changes = pages.free.touched_count() + self.examined.len() + freed / ITEMS_PER_RECORD + 1;
        let leaves = tip.free_space.entries as usize / 40 + changes / 40 + 2;
        let needed = changes.min(leaves) + 2 * usize::from(tip.free_space.height) + 4;
        while pages.free.reserve.len() < needed {
            let Some(id) = pages.free.take_page() else { break };
            pages.free.reserve.push(id);
        }
        // Handed out from the end: lowest addresses first, so that the pages of a commit are neighbours.
        pages.free.reserve.sort_unstable_by(|a, b| b.cmp(a));
        while pages.free.reserve.len() > needed + RESERVE_KEEP {
            let Some(id) = pages.free.reserve.pop() else { break };
            pages.free.add_usable(id, 1);
        }
    }

    fn write_list(&mut self, pages: &mut TxnPages, tip: &State) -> Result<RunPtr> {
        if tip.free_list.pages > 0 {
            self.own_pending.push(FreeItem {
                start: tip.free_list.ptr.id,
                pages: tip.free_list.pages,
                born: tip.txn,
                freed: pages.txn(),
            });
        }
        let most = self.own_pending.len() + pages.free.reserve.len();
        let run = free_list::run_pages(pages.page_size(), most);
        let id = match pages.free.reserve.pop() {
            Some(id) if run == 1 => {
                pages.claim(id, 1)?;
                id
            }
            other => {
                pages.free.reserve.extend(other);
                pages.alloc_at_end(run)?
            }
        };
        let mut items = self.own_pending.clone();
        items.extend(reserve_items(&pages.free.reserve));
        let (txn, page_size) = (pages.txn(), pages.page_size());
        let crc = free_list::write(pages.run_mut(id, run), page_size, id, txn, &items);
        let ptr = PagePtr { id, crc };
        pages.mark_sealed(ptr);
        Ok(RunPtr { ptr, pages: run })
    }
}

/// The reserve as items of a free list: pages that are usable at once.
fn reserve_items(reserve: &[PageId]) -> Vec<FreeItem> {
    let mut sorted = reserve.to_vec();
    sorted.sort_unstable();
    let mut items: Vec<FreeItem> = Vec::new();
    for id in sorted {
        match items.last_mut() {
            Some(last) if last.start.0 + last.pages == id.0 => last.pages += 1,
            _ => items.push(FreeItem { start: id, pages: 1, born: TxnId(0), freed: TxnId(0) }),
        }
    }
    items
}

/// Pages of the free-space tree itself: from the reserve, superseded ones into the list.
struct OwnPages<'a> {
    pages: &'a mut TxnPages,
    pending: &'a mut Vec<FreeItem>,
}

impl OwnPages<'_> {
    fn put_pending(&mut self, root: &mut TreeRoot, key: PendingKey, items: &[FreeItem]) -> Result<()> {
        let encoded = pending_key(key);
        if items.is_empty() {
            tree::delete(self, root, &encoded, None)?;
        } else {
            tree::put(self, root, &encoded, &encode_items(items), &mut PutHint::default(), None)?;
        }
        Ok(())
    }

    fn put_usable(&mut self, root: &mut TreeRoot, start: PageId, old: u64, new: u64) -> Result<()> {
        let mut hint = PutHint::default();
        if new == 0 {
            tree::delete(self, root, &usable_key(start), None)?;
        } else {
            tree::put(self, root, &usable_key(start), &be48(new), &mut hint, None)?;
        }
        if old >= BIG_EXTENT_PAGES {
            tree::delete(self, root, &big_key(old, start), None)?;
        }
        if new >= BIG_EXTENT_PAGES {
            tree::put(self, root, &big_key(new, start), &[], &mut hint, None)?;
        }
        Ok(())
    }
}

impl PageRead for OwnPages<'_> {
    fn page_size(&self) -> usize {
        self.pages.page_size()
    }
    fn page(&self, ptr: PagePtr) -> Result<&[u8]> {
        self.pages.page(ptr)
    }
    fn run(&self, ptr: PagePtr, pages: u64) -> Result<&[u8]> {
        self.pages.run(ptr, pages)
    }
}

impl PageWrite for OwnPages<'_> {
    fn txn(&self) -> TxnId {
        self.pages.txn()
    }
    fn is_dirty(&self, id: PageId) -> bool {
        self.pages.is_dirty(id)
    }
    fn alloc(&mut self, pages: u64) -> Result<PageId> {
        match self.pages.free.reserve.pop() {
            Some(id) if pages == 1 => {
                self.pages.claim(id, 1)?;
                Ok(id)
            }
            other => {
                self.pages.free.reserve.extend(other);
                self.pages.alloc_at_end(pages)
            }
        }
    }
    fn free(&mut self, id: PageId, pages: u64, born: TxnId) {
        if self.pages.is_dirty(id) {
            self.pages.unclaim(id);
            self.pages.free.reserve.push(id);
        } else {
            let freed = self.txn();
            self.pending.push(FreeItem { start: id, pages, born, freed });
        }
    }
    fn page_mut(&mut self, id: PageId) -> &mut [u8] {
        self.pages.page_mut(id)
    }
    fn run_mut(&mut self, id: PageId, pages: u64) -> &mut [u8] {
        self.pages.run_mut(id, pages)
    }
    fn mark_sealed(&mut self, ptr: PagePtr) {
        self.pages.mark_sealed(ptr);
    }
}

/// One record of the free space of a state, for `check` and statistics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FreeRecord {
    Usable { start: PageId, pages: u64 },
    Pending(FreeItem),
}

/// Calls `visit` with every free extent of a state: of the tree and of the free list.
pub(crate) fn walk<P: PageRead>(
    pages: &P,
    state: &State,
    visit: &mut dyn FnMut(FreeRecord) -> Result<()>,
) -> Result<()> {
    let mut cursor = Cursor::new(pages, state.free_space);
    let mut next = cursor.seek_first()?;
    while let Some((key, value)) = next {
        match key.first() {
            Some(&TAG_USABLE) => {
                let (start, len) = decode_usable(key, value, state.page_count)?;
                visit(FreeRecord::Usable { start, pages: len })?;
            }
            Some(&TAG_BIG) => {}
            _ => {
                for item in decode_items(decode_pending_key(key)?, value, state.page_count)? {
                    visit(FreeRecord::Pending(item))?;
                }
            }
        }
        next = cursor.next()?;
    }
    for item in read_list(pages, &state.free_list, state.page_count)? {
        visit(match item.freed {
            TxnId(0) => FreeRecord::Usable { start: item.start, pages: item.pages },
            _ => FreeRecord::Pending(item),
        })?;
    }
    Ok(())
}

fn read_list<P: PageRead>(pages: &P, list: &RunPtr, page_count: u64) -> Result<Vec<FreeItem>> {
    if list.pages == 0 {
        return Ok(Vec::new());
    }
    let items = free_list::read(pages.run(list.ptr, list.pages)?, list.ptr.id)?;
    items.iter().try_for_each(|item| in_file(item.start, item.pages, page_count))?;
    let mut extents: Vec<(PageId, u64)> = items.iter().map(|item| (item.start, item.pages)).collect();
    extents.sort_unstable();
    match extents.windows(2).find(|pair| pair[0].0 .0 + pair[0].1 > pair[1].0 .0) {
        None => Ok(items),
        Some(pair) => Err(overlap(pair[1].0, pair[1].1)),
    }
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

fn load_best_fit(pages: &mut TxnPages, tip: &State, run: u64) -> Result<()> {
    let mut cursor = Cursor::new(&*pages, tip.free_space);
    let mut next = cursor.seek(&big_key(run, PageId(0)))?;
    // An extent that this transaction has used up is still in the tree: look a little further.
    let mut found = Vec::new();
    while let Some((key, _)) = next.filter(|_| found.len() < RECLAIM_BATCH) {
        let Some(rest) = key.strip_prefix(&[TAG_BIG]).filter(|rest| rest.len() == 12) else { break };
        let (len, start) = (from_be48(&rest[..6]), PageId(from_be48(&rest[6..])));
        in_file(start, len, tip.page_count)?;
        found.push((start, len));
        next = cursor.next()?;
    }
    for (start, len) in found {
        load(pages, start, len)?;
        if pages.free.longest() >= run {
            break;
        }
    }
    Ok(())
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
    pages.free.add_usable(start, len);
    Ok(())
}

#[cold]
fn overlap(start: PageId, len: u64) -> Error {
    Error::corrupt(start, format!("the free extent of {len} pages overlaps another free extent"))
}

fn in_file(start: PageId, len: u64, page_count: u64) -> Result<()> {
    let end = start.0.checked_add(len);
    if start.0 < 2 || len == 0 || end.is_none_or(|end| end > page_count) {
        return Err(Error::corrupt(
            start,
            format!("a free extent of {len} pages leaves the {page_count} pages in use"),
        ));
    }
    Ok(())
}

fn be48(value: u64) -> [u8; 6] {
    let [_, _, rest @ ..] = value.to_be_bytes();
    rest
}

fn from_be48(bytes: &[u8]) -> u64 {
    bytes.iter().take(6).fold(0, |value, &byte| value << 8 | u64::from(byte))
}

fn usable_key(start: PageId) -> [u8; 7] {
    let mut key = [TAG_USABLE; 7];
    key[1..].copy_from_slice(&be48(start.0));
    key
}

fn big_key(len: u64, start: PageId) -> [u8; 13] {
    let mut key = [TAG_BIG; 13];
    key[1..7].copy_from_slice(&be48(len));
    key[7..].copy_from_slice(&be48(start.0));
    key
}

fn pending_key((freed, part): PendingKey) -> [u8; 13] {
    let mut key = [TAG_PENDING; 13];
    key[1..9].copy_from_slice(&freed.0.to_be_bytes());
    key[9..].copy_from_slice(&part.to_be_bytes());
    key
}

fn next_key((freed, part): PendingKey) -> PendingKey {
    (freed, part.saturating_add(1))
}

fn decode_usable(key: &[u8], value: &[u8], page_count: u64) -> Result<(PageId, u64)> {
    if key.len() != 7 || value.len() != 6 {
        return Err(malformed("usable"));
    }
    let (start, len) = (PageId(from_be48(&key[1..])), from_be48(value));
    in_file(start, len, page_count)?;
    Ok((start, len))
}

fn decode_pending_key(key: &[u8]) -> Result<PendingKey> {
    let bytes: &[u8; 12] =
        key.strip_prefix(&[TAG_PENDING]).and_then(|rest| rest.try_into().ok()).ok_or_else(|| malformed("pending"))?;
    let (freed, part) = bytes.split_at(8);
    let number = |bytes: &[u8]| bytes.iter().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
    Ok((TxnId(number(freed)), number(part) as u32))
}

fn encode_items(items: &[FreeItem]) -> Vec<u8> {
    let mut bytes = vec![0; items.len() * ITEM_BYTES];
    for (chunk, item) in bytes.chunks_exact_mut(ITEM_BYTES).zip(items) {
        put_u48(chunk, 0, item.start.0);
        put_u48(chunk, 6, item.pages);
        put_u48(chunk, 12, item.born.0);
    }
    bytes
}

fn decode_items((freed, _): PendingKey, bytes: &[u8], page_count: u64) -> Result<Vec<FreeItem>> {
    if bytes.len() % ITEM_BYTES != 0 {
        return Err(malformed("pending"));
    }
    let item = |chunk: &[u8]| {
        let item = FreeItem {
            start: PageId(get_u48(chunk, 0)),
            pages: get_u48(chunk, 6),
            born: TxnId(get_u48(chunk, 12)),
            freed,
        };
        in_file(item.start, item.pages, page_count)?;
        Ok(item)
    };
    bytes.chunks_exact(ITEM_BYTES).map(item).collect()
}

#[cold]
fn malformed(what: &str) -> Error {
    Error::corrupt(PageId::NONE, format!("malformed {what} record in the free-space tree {}", TreeId::FREE_SPACE))
}

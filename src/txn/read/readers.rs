//! Reader slots: each shows the writer which state a read transaction uses, without a lock and
//! without a cache line that two readers write.
//!
//! Floor: txn. A read transaction owns one slot, and shows the txn of its snapshot there. The
//! writer, before it hands out a freed page, looks at all slots (rule R5). Slots live in chunks
//! that are added on demand and never removed, so a reader finds its slot without a lock. Each slot
//! sits on cache lines of its own. It keeps a pin of the mapping and the tables that were found, so
//! that beginning a read touches no shared counter.
//!
//! Invariants:
//!   SLOT-1  a slot belongs to at most one read transaction and its clones (CELL-1).
//!   SLOT-2  a slot shows a txn no newer than the oldest state that its transaction may read.
//!
//! Failure: `None` when all slots of the last chunk are taken (some four million readers).

use std::cell::Cell;
use std::sync::atomic::{fence, AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::hooks;
use crate::ids::TxnId;
use crate::mapping::ReadMap;
use crate::pager::read::snapshot_pages::SnapshotPages;
use crate::sys::owned_cell::{self, CellOwner, OwnedCell};
use crate::txn::read::open_table::OpenTables;
use crate::txn::state::State;

const FIRST_CHUNK: usize = 32;
pub(crate) const CHUNKS: usize = 18;
/// What a slot shows while old pins are dropped from it. No transaction has it: transaction numbers
/// have 48 bits.
const DROPPING: u64 = owned_cell::FREE - 1;

/// One reader slot. Aligned so that neighbours do not share cache lines (nor the pairs that
/// prefetchers fetch).
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct ReaderSlot(pub(crate) OwnedCell<SlotCache>);

/// What a slot keeps from one transaction to the next: the tables belong to the state, and as long
/// as a transaction has the slot, the pages do.
#[derive(Debug, Default)]
pub(crate) struct SlotCache {
    /// None before the first transaction, and after the mapping has moved.
    pages: Option<SnapshotPages>,
    /// The window that they are seen through.
    window_id: u64,
    state: State,
    pub(crate) tables: OpenTables,
}

impl SlotCache {
    /// Whether this is of the state with this number.
    #[inline]
    pub(crate) fn is_of(&self, txn: TxnId) -> bool {
        self.pages.is_some() && self.state.txn == txn
    }

    /// What this keeps of a window other than the current one, which could be unmapped without it.
    pub(crate) fn leave_old(&mut self, window_id: u64) -> Option<SlotCache> {
        (self.window_id != window_id && self.pages.is_some()).then(|| std::mem::take(self))
    }

    /// The pages of the state that a transaction reads.
    #[inline]
    pub(crate) fn pages(&self) -> &SnapshotPages {
        match &self.pages {
            Some(pages) => pages,
            None => unreachable!("a transaction has its pages from its beginning"),
        }
    }

    #[inline]
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Goes over to another state.
    pub(crate) fn enter(&mut self, state: &State) {
        (self.state, self.tables) = (*state, OpenTables::default());
    }

    /// Sees that the pages are those of the state, in the current window.
    #[inline]
    pub(crate) fn find_pages(&mut self, page_size: usize, window_id: u64, make: impl FnOnce() -> ReadMap) {
        let count = self.state.page_count;
        if self.window_id == window_id && self.pages.as_ref().is_some_and(|pages| pages.page_count() == count) {
            return;
        }
        // A read-only mapping of the current window has grown with it.
        let cached = self.pages.take().filter(|_| self.window_id == window_id);
        let read_map = cached.map_or_else(make, SnapshotPages::into_read_map);
        self.window_id = read_map.window_id();
        self.pages = Some(SnapshotPages::new(read_map, page_size, count));
    }
}

/// The slots of one open database.
#[derive(Debug)]
pub(crate) struct Readers {
    chunks: [OnceLock<Box<[Arc<ReaderSlot>]>>; CHUNKS],
    /// The slot after the one that a search found last: those before it were taken.
    next: AtomicUsize,
    /// Some were taken when old read-only mappings were dropped the last time.
    may_keep_old: AtomicBool,
}

thread_local! {
    /// Where this thread found a free slot last time.
    static HINT: Cell<usize> = const { Cell::new(usize::MAX) };
}

impl Readers {
    pub(crate) fn new() -> Readers {
        Readers {
            chunks: std::array::from_fn(|_| OnceLock::new()),
            next: AtomicUsize::new(0),
            may_keep_old: AtomicBool::new(false),
        }
    }

    /// Takes a free slot: gives what `take` makes of the first index where it succeeds.
    pub(crate) fn take<R>(&self, take: impl Fn(usize) -> Option<R>) -> Option<R> {
        let hint = HINT.get();
        if self.slot(hint).is_some() {
            if let Some(taken) = take(hint) {
                return Some(taken);
            }
        }
        self.search(take)
    }

    #[cold]
    fn search<R>(&self, take: impl Fn(usize) -> Option<R>) -> Option<R> {
        let found = |index| {
            hooks::count_step();
            let taken = take(index)?;
            HINT.set(index);
            self.next.store(index + 1, Ordering::Relaxed);
            Some(taken)
        };
        let chunks = self.chunks.iter().take_while(|chunk| chunk.get().is_some()).count();
        let (made, begin) = (first_of(chunks), self.next.load(Ordering::Relaxed));
        // Another chunk, as large as all before it, only when these are taken.
        let around = (begin..made).chain(0..begin.min(made)).find_map(found);
        around.or_else(|| (chunks..CHUNKS).find_map(|number| (first_of(number)..first_of(number + 1)).find_map(found)))
    }

    /// The slots of a chunk, made on first use.
    pub(crate) fn chunk(&self, number: usize) -> &[Arc<ReaderSlot>] {
        let len = FIRST_CHUNK << number;
        self.chunks[number]
            .get_or_init(|| (0..len).map(|_| Arc::new(ReaderSlot(OwnedCell::new(SlotCache::default())))).collect())
    }

    fn slot(&self, index: usize) -> Option<&Arc<ReaderSlot>> {
        let (number, at) = chunk_of(index);
        self.chunks.get(number)?.get()?.get(at)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<ReaderSlot>> {
        self.chunks.iter().map_while(|chunk| chunk.get()).flat_map(|slots| slots.iter())
    }

    /// Txns of all live snapshots. The caller has read the published record before (protocol:
    /// Reclaim).
    pub(crate) fn snapshots(&self) -> Vec<TxnId> {
        fence(Ordering::SeqCst);
        self.all()
            .inspect(|_| hooks::count_step())
            .map(|slot| slot.0.word())
            .filter(|&word| word < DROPPING)
            .map(TxnId)
            .collect()
    }

    /// Number of live read transactions (clones count once).
    pub(crate) fn count(&self) -> u64 {
        self.snapshots().len() as u64
    }

    /// Whether slots may keep read-only mappings of old windows that nobody lets go of: a reader
    /// does so in its end, unless it ends just when the window changes.
    pub(crate) fn may_keep_old_views(&self) -> bool {
        self.may_keep_old.load(Ordering::Relaxed)
    }

    /// Lets go of what idle slots keep of windows other than this one, so that those can be
    /// unmapped. By the writer.
    pub(crate) fn drop_old_views(&self, window_id: u64) {
        let mut all_seen = true;
        for slot in self.all() {
            let Some(mut cell) = CellOwner::take(slot, |slot| &slot.0, DROPPING) else {
                all_seen = false;
                continue;
            };
            let old = cell.get_mut().leave_old(window_id);
            // Unmapping takes time: not while the slot is taken.
            drop(cell);
            drop(old);
        }
        self.may_keep_old.store(!all_seen, Ordering::Relaxed);
    }
}

/// The first slot of a chunk.
fn first_of(number: usize) -> usize {
    FIRST_CHUNK * ((1 << number) - 1)
}

/// Chunk of a slot, and its place there.
#[inline]
pub(crate) fn chunk_of(index: usize) -> (usize, usize) {
    let number = (index / FIRST_CHUNK + 1).ilog2() as usize;
    (number, index - first_of(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(readers: &Readers, txn: u64) -> Option<CellOwner<ReaderSlot, SlotCache>> {
        readers.take(|index| {
            let (number, at) = chunk_of(index);
            CellOwner::take(&readers.chunk(number)[at], |slot| &slot.0, txn)
        })
    }

    #[test]
    fn slots_are_found_by_their_index() {
        let readers = Readers::new();
        let taken: Vec<_> = (0..FIRST_CHUNK * 7).filter_map(|_| take(&readers, 1)).collect();
        assert_eq!(taken.len(), FIRST_CHUNK * 7);
        let all: Vec<_> = readers.all().collect();
        for (index, slot) in all.iter().enumerate() {
            assert!(readers.slot(index).is_some_and(|found| Arc::ptr_eq(found, slot)), "slot {index}");
        }
        assert!(readers.slot(usize::MAX).is_none());
        assert!(readers.slot(all.len()).is_none());
    }

    #[test]
    fn a_slot_shows_its_txn_until_it_is_freed() {
        let readers = Readers::new();
        let taken = take(&readers, 7).expect("a slot");
        assert_eq!((readers.snapshots(), readers.count()), (vec![TxnId(7)], 1));
        drop(taken);
        assert!(readers.snapshots().is_empty());
    }

    #[test]
    fn slots_that_are_being_emptied_are_no_readers() {
        let readers = Readers::new();
        drop(take(&readers, 7));
        let slot = readers.all().find(|slot| slot.0.word() == owned_cell::FREE).expect("all of them");
        let _emptied = CellOwner::take(slot, |slot| &slot.0, DROPPING).expect("free");
        assert!(readers.snapshots().is_empty());
    }

    #[test]
    fn a_slot_that_was_taken_when_views_were_dropped_is_looked_at_again() {
        use crate::mapping::{MapOptions, Mapping};
        let options = MapOptions { page_size: 4096, window_bytes: None, fault_guard: true, used_bytes: None };
        let mapping = Mapping::anonymous(options).expect("mapped");
        let readers = Readers::new();
        let mut reader = take(&readers, 7).expect("a slot");
        reader.get_mut().find_pages(4096, mapping.window_id(), || mapping.read_map());
        let other_window = mapping.window_id() + 1;
        readers.drop_old_views(other_window);
        assert!(readers.may_keep_old_views() && reader.pages.is_some());
        // It ends as one that asked for the window before that changed.
        drop(reader);
        readers.drop_old_views(other_window);
        assert!(!readers.may_keep_old_views());
        let reader = take(&readers, 8).expect("the slot that this thread had");
        assert!(reader.pages.is_none());
    }

    #[test]
    fn a_new_slot_is_of_no_state() {
        // A file can say that its state has the number 0.
        assert!(!SlotCache::default().is_of(TxnId(0)));
    }

    #[test]
    fn a_slot_is_found_in_as_many_steps_beside_many_readers_as_beside_few() {
        let steps_each = |count: usize| {
            let (readers, before) = (Readers::new(), hooks::steps());
            let mut taken: Vec<_> = (0..count).map(|_| take(&readers, 1).expect("a slot")).collect();
            // Each goes on to another state: takes the new slot, and leaves the old one.
            taken.iter_mut().for_each(|slot| *slot = take(&readers, 2).expect("a slot"));
            assert_eq!(readers.count(), count as u64);
            (hooks::steps() - before) as f64 / count as f64
        };
        let (few, many) = (steps_each(1000), steps_each(20_000));
        assert!(many < 1.5 * few, "{few} steps each beside few, {many} beside many");
    }
}

//! Reader slots: each shows the writer which state a read transaction uses, without a lock and
//! without a cache line that two readers write.
//!
//! Floor: txn. A read transaction owns one slot, and shows the txn of its snapshot there. Before
//! the writer reuses a freed page, it reads all slots (rule R5). Slots live in chunks that are
//! added on demand and never removed, so a reader finds its slot without a lock. Each slot has
//! cache lines of its own. A slot caches the pinned window and the tables of its last transaction,
//! so the next transaction that takes it increments no shared counter.
//!
//! Invariants:
//!   SLOT-1  a slot belongs to at most one read transaction and its clones (CELL-1).
//!   SLOT-2  a slot shows a txn no newer than the oldest state that its transaction may read.
//!
//! Failure: `None` when all slots of the last chunk are taken (some eight million readers).

use std::cell::Cell;
use std::sync::atomic::{fence, AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::hooks;
use crate::ids::TxnId;
use crate::mapping::Mapping;
use crate::pager::read::snapshot_pages::SnapshotPages;
use crate::sys::owned_cell::{self, CellOwner, OwnedCell};
use crate::txn::read::open_table::OpenTables;
use crate::txn::state::State;

/// Slots of the first chunk. Each further chunk has twice as many slots as the one before it.
const FIRST_CHUNK: usize = 32;
pub(crate) const CHUNKS: usize = 18;
/// The word of a slot while the writer unpins an old window there. It is not a txn, because a txn
/// has 48 bits.
const UNPINNING: u64 = owned_cell::FREE - 1;

/// A reader slot. Its word is `FREE`, or the txn that its read transaction shows to the writer.
pub(crate) type ReaderSlot = OwnedCell<SlotCache>;

/// A slot caches this from one transaction to the next. `tables` belong to `state`; while a
/// transaction owns the slot, `pages` do too.
#[derive(Debug, Default)]
pub(crate) struct SlotCache {
    /// `None` before the first transaction, and after the slot has unpinned an old window.
    pages: Option<SnapshotPages>,
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
    pub(crate) fn set_pages(&mut self, page_size: usize, mapping: &Mapping) {
        let (count, window_id) = (self.state.page_count, mapping.window_id());
        if self.window_id == window_id && self.pages.as_ref().is_some_and(|pages| pages.page_count() == count) {
            return;
        }
        // A pin of the current window stays usable: the window has grown in place.
        let cached = self.pages.take().filter(|_| self.window_id == window_id);
        let read_map = cached.map_or_else(|| mapping.read_map(), SnapshotPages::into_read_map);
        self.window_id = read_map.window_id();
        self.pages = Some(SnapshotPages::new(read_map, page_size, count));
    }
}

/// The slots of one open database.
#[derive(Debug)]
pub(crate) struct Readers {
    chunks: [OnceLock<Box<[Arc<ReaderSlot>]>>; CHUNKS],
    /// The slot after the one that the last search took. The next search starts there.
    next: AtomicUsize,
    /// Some slots were taken when the writer last unpinned old windows.
    may_pin_old: AtomicBool,
}

thread_local! {
    /// Index of the slot that this thread found last.
    static HINT: Cell<usize> = const { Cell::new(usize::MAX) };
}

impl Readers {
    pub(crate) fn new() -> Readers {
        Readers {
            chunks: std::array::from_fn(|_| OnceLock::new()),
            next: AtomicUsize::new(0),
            may_pin_old: AtomicBool::new(false),
        }
    }

    /// Looks for a free slot: calls `take` with one slot index after the other, first with that of
    /// the slot that this thread used last. Returns the first result that is not `None`.
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
        let try_slot = |index| {
            hooks::count_step();
            let taken = take(index)?;
            HINT.set(index);
            self.next.store(index + 1, Ordering::Relaxed);
            Some(taken)
        };
        let chunks = self.chunks.iter().take_while(|chunk| chunk.get().is_some()).count();
        let (count, start) = (first_of(chunks), self.next.load(Ordering::Relaxed));
        let taken = (start..count).chain(0..start.min(count)).find_map(try_slot);
        // Only when all slots are taken: make another chunk, as large as all others together.
        taken.or_else(|| (chunks..CHUNKS).find_map(|chunk| (first_of(chunk)..first_of(chunk + 1)).find_map(try_slot)))
    }

    /// The slots of a chunk, which is made on first use.
    pub(crate) fn chunk(&self, number: usize) -> &[Arc<ReaderSlot>] {
        let len = FIRST_CHUNK << number;
        self.chunks[number].get_or_init(|| (0..len).map(|_| Arc::new(ReaderSlot::new(SlotCache::default()))).collect())
    }

    fn slot(&self, index: usize) -> Option<&Arc<ReaderSlot>> {
        let (number, offset) = chunk_of(index);
        self.chunks.get(number)?.get()?.get(offset)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<ReaderSlot>> {
        self.chunks.iter().map_while(|chunk| chunk.get()).flat_map(|slots| slots.iter())
    }

    /// Txns of all live snapshots. The caller must have loaded `published` before (P7).
    pub(crate) fn snapshots(&self) -> Vec<TxnId> {
        fence(Ordering::SeqCst);
        self.all()
            .inspect(|_| hooks::count_step())
            .map(|slot| slot.word())
            .filter(|&word| word < UNPINNING)
            .map(TxnId)
            .collect()
    }

    /// Number of live read transactions (clones count once).
    pub(crate) fn count(&self) -> u64 {
        self.snapshots().len() as u64
    }

    /// Whether idle slots may still pin old windows. A reader unpins an old window when it ends,
    /// but it can miss a window that changes in this moment.
    pub(crate) fn may_pin_old_windows(&self) -> bool {
        self.may_pin_old.load(Ordering::Relaxed)
    }

    /// Unpins all windows except the current one, `window_id`, in the idle slots, so that old
    /// windows can be unmapped. The writer calls this.
    pub(crate) fn unpin_old_windows(&self, window_id: u64) {
        let mut all_seen = true;
        for slot in self.all() {
            let Some(mut owner) = CellOwner::take(slot, |slot| slot, UNPINNING) else {
                all_seen = false;
                continue;
            };
            let old = owner.get_mut().take_if_outgrown(window_id);
            // Frees the slot first, because unmapping the window takes time.
            drop(owner);
            drop(old);
        }
        self.may_pin_old.store(!all_seen, Ordering::Relaxed);
    }
}

/// Index of the first slot of a chunk.
fn first_of(number: usize) -> usize {
    FIRST_CHUNK * ((1 << number) - 1)
}

/// The chunk of a slot, and the offset of the slot in it.
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
            let (number, offset) = chunk_of(index);
            CellOwner::take(&readers.chunk(number)[offset], |slot| slot, txn)
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
    fn a_slot_in_which_the_writer_unpins_a_window_does_not_count_as_a_reader() {
        let readers = Readers::new();
        drop(take(&readers, 7));
        let slot = readers.all().find(|slot| slot.word() == owned_cell::FREE).expect("all slots are free");
        let _owner = CellOwner::take(slot, |slot| slot, UNPINNING).expect("free");
        assert!(readers.snapshots().is_empty());
    }

    #[test]
    fn an_old_window_in_a_slot_that_was_taken_is_unpinned_by_the_next_call() {
        use crate::mapping::{MapOptions, Mapping};
        let options = MapOptions { page_size: 4096, window_bytes: None, fault_guard: true, used_bytes: None };
        let mapping = Mapping::anonymous(options).expect("mapped");
        let readers = Readers::new();
        let mut reader = take(&readers, 7).expect("a slot");
        reader.get_mut().set_pages(4096, &mapping);
        let other_window = mapping.window_id() + 1;
        readers.unpin_old_windows(other_window);
        assert!(readers.may_pin_old_windows() && reader.pages.is_some());
        // The reader ends without unpinning, as if it had loaded the window id before it changed.
        drop(reader);
        readers.unpin_old_windows(other_window);
        assert!(!readers.may_pin_old_windows());
        let reader = take(&readers, 8).expect("the slot that this thread had");
        assert!(reader.pages.is_none());
    }

    #[test]
    fn the_cache_of_a_new_slot_belongs_to_no_state() {
        // The txn of a file's state can be 0.
        assert!(!SlotCache::default().is_of(TxnId(0)));
    }

    #[test]
    fn the_steps_to_find_a_free_slot_do_not_grow_with_the_number_of_readers() {
        let steps_each = |count: usize| {
            let (readers, before) = (Readers::new(), hooks::steps());
            let mut taken: Vec<_> = (0..count).map(|_| take(&readers, 1).expect("a slot")).collect();
            // Each reader takes a new slot, and then frees its old one.
            taken.iter_mut().for_each(|slot| *slot = take(&readers, 2).expect("a slot"));
            assert_eq!(readers.count(), count as u64);
            (hooks::steps() - before) as f64 / count as f64
        };
        let (few, many) = (steps_each(1000), steps_each(20_000));
        assert!(many < 1.5 * few, "{few} steps each with few readers, {many} with many");
    }
}

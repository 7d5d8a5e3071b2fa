//! Reader slots: each shows the writer which state a read transaction uses, without a lock and
//! without a cache line that two readers write.
//!
//! Floor: txn. A read transaction owns one slot, and shows the txn of its snapshot there. Before
//! the writer reuses a freed page, it reads all slots (rule R5), also those of other processes.
//!
//! ```text
//! chunk        reader pages, added on demand and never removed; in the lock file or in private memory
//! reader page  a line for its owner, a process, and a line for each of its slots
//! slot         a word in its line, and in private memory what its last transaction has cached
//! ```
//!
//! A process uses only slots of pages that it owns. It keeps these pages to its end, so a reader finds
//! its slot without a lock. The cache of a slot holds the pinned window and the tables of its last
//! transaction, so the next transaction that takes it increments no shared counter.
//!
//! Invariants:
//!   SLOT-1  a slot belongs to at most one read transaction and its clones (CELL-1).
//!   SLOT-2  a slot shows a txn no newer than the oldest state that its transaction may read.
//!   SLOT-3  a page changes its owner by one compare-and-swap: from none, or from a process that has
//!           died. The slots of a page without an owner do not count. A new owner frees them all
//!           before it uses one.
//!
//! Failure: `None` when all slots of the last chunk are taken (some eight million readers), or when
//! the lock file cannot get longer. If reader pages cannot be mapped, all states count as read.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{fence, AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::hooks;
use crate::ids::TxnId;
use crate::mapping::owned_cell::{self, CellOwner, OwnedCell};
use crate::mapping::{Mapping, RecordLine, RecordMemory, LINE_WORDS};
use crate::pager::read::snapshot_pages::SnapshotPages;
use crate::sys::locks;
use crate::txn::live::layout::READER_PAGE_WORDS;
use crate::txn::live::{Live, Process};
use crate::txn::processes::descriptor::{LockDescriptor, ProcessLock};
use crate::txn::processes::lock_file::LockFile;
use crate::txn::processes::presence::FileLock;
use crate::txn::read::open_table::OpenTables;
use crate::txn::state::State;

/// Slots of a reader page.
const PAGE_SLOTS: usize = READER_PAGE_WORDS / LINE_WORDS - 1;
/// Slots of the first chunk, which is one page. Each further chunk has twice as many slots as the
/// one before it.
const FIRST_CHUNK: usize = PAGE_SLOTS;
pub(crate) const CHUNKS: usize = 18;
/// The owner of all pages in private memory.
const ALONE: u64 = 1;
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

/// Some reader pages, and what this process has cached in their slots.
#[derive(Debug)]
struct Chunk {
    memory: Arc<RecordMemory>,
    slots: Box<[Arc<ReaderSlot>]>,
    /// For each page, whether this process owns it.
    owned: Box<[AtomicBool]>,
}

impl Chunk {
    fn new(memory: Arc<RecordMemory>) -> Chunk {
        let pages = memory.len() / READER_PAGE_WORDS;
        let slot = |index: usize| {
            let (page, offset) = (index / PAGE_SLOTS, index % PAGE_SLOTS);
            let line = RecordLine::of(&memory, page * READER_PAGE_WORDS + (1 + offset) * LINE_WORDS);
            Arc::new(ReaderSlot::new(SlotCache::default(), line))
        };
        let slots = (0..pages * PAGE_SLOTS).map(slot).collect();
        let owned = (0..pages).map(|_| AtomicBool::new(false)).collect();
        Chunk { memory, slots, owned }
    }

    fn pages(&self) -> usize {
        self.owned.len()
    }

    /// The process that owns a page; 0: none.
    fn owner(&self, page: usize) -> u64 {
        self.memory[page * READER_PAGE_WORDS].load(Ordering::SeqCst)
    }

    /// Changes the owner of a page, if it still is `from`.
    fn change_owner(&self, page: usize, from: u64, to: u64) -> bool {
        let word = &self.memory[page * READER_PAGE_WORDS];
        word.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn slots_of(&self, page: usize) -> &[Arc<ReaderSlot>] {
        &self.slots[page * PAGE_SLOTS..(page + 1) * PAGE_SLOTS]
    }
}

/// Where the reader pages of a member lie.
#[derive(Debug)]
struct SharedPages {
    lock_file: Arc<LockFile>,
    descriptor: Arc<LockDescriptor>,
    own: Process,
    /// Held by a thread that makes the lock file longer.
    lengthening: Mutex<()>,
}

/// The slots of one open database.
pub(crate) struct Readers {
    live: Live,
    /// `None`: the pages are private.
    shared: Option<SharedPages>,
    chunks: [OnceLock<Chunk>; CHUNKS],
    /// The slot after the one that the last search took. The next search starts there.
    next: AtomicUsize,
    /// Some slots were taken when the writer last unpinned old windows.
    may_pin_old: AtomicBool,
}

/// A reader slot that shows a state, for people.
#[derive(Clone, Debug)]
pub(crate) struct ReaderNotes {
    pub(crate) process: Option<Process>,
    pub(crate) txn: TxnId,
    /// The words after the one that shows the txn.
    pub(crate) notes: [u64; LINE_WORDS - 1],
}

thread_local! {
    /// Index of the slot that this thread found last.
    static HINT: Cell<usize> = const { Cell::new(usize::MAX) };
}

impl Readers {
    /// The slots beside these live records.
    pub(crate) fn new(live: &Live, lock: Option<&FileLock>) -> Readers {
        let shared = lock.and_then(|lock| {
            let (own, lock_file) = lock.member()?;
            let (lock_file, descriptor) = (Arc::clone(lock_file), Arc::clone(lock.descriptor()));
            Some(SharedPages { lock_file, descriptor, own, lengthening: Mutex::new(()) })
        });
        Readers {
            live: live.clone(),
            shared,
            chunks: std::array::from_fn(|_| OnceLock::new()),
            next: AtomicUsize::new(0),
            may_pin_old: AtomicBool::new(false),
        }
    }

    fn own_name(&self) -> u64 {
        self.shared.as_ref().map_or(ALONE, |shared| shared.own.as_owner())
    }

    /// Looks for a free slot: calls `take` with one slot index after the other, first with that of
    /// the slot that this thread used last. Returns the first result that is not `None`.
    pub(crate) fn take<R>(&self, take: impl Fn(usize) -> Option<R>) -> Option<R> {
        let hint = HINT.get();
        if self.is_own(hint) {
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
        let own = (start..count).chain(0..start.min(count)).filter(|&index| self.is_own(index));
        own.into_iter().find_map(try_slot).or_else(|| self.claim_and_take(try_slot))
    }

    /// Claims a page without an owner, or one whose owner has died, and takes a slot there. Only
    /// when there is none, makes another chunk, as large as all others together.
    fn claim_and_take<R>(&self, try_slot: impl Fn(usize) -> Option<R>) -> Option<R> {
        (0..CHUNKS).find_map(|number| {
            let chunk = self.chunk(number)?;
            let first = first_of(number);
            let mut claimed = (0..chunk.pages()).filter(|&page| self.claim(chunk, page));
            claimed.find_map(|page| (0..PAGE_SLOTS).find_map(|offset| try_slot(first + page * PAGE_SLOTS + offset)))
        })
    }

    /// Makes this process the owner of a page, if no living process owns it (SLOT-3).
    fn claim(&self, chunk: &Chunk, page: usize) -> bool {
        let owner = chunk.owner(page);
        if owner != 0 && !self.is_dead(owner) || !chunk.change_owner(page, owner, self.own_name()) {
            return false;
        }
        chunk.slots_of(page).iter().for_each(|slot| slot.reset());
        chunk.owned[page].store(true, Ordering::Release);
        true
    }

    /// Whether a process that owns a page has died.
    fn is_dead(&self, owner: u64) -> bool {
        let Some(SharedPages { descriptor, own, .. }) = &self.shared else { return false };
        let (index, generation) = Process::of_owner(owner);
        if index == own.index {
            return generation != own.generation;
        }
        !descriptor.is_alive(index) || self.live.process(index).is_some_and(|now| now.generation != generation)
    }

    /// Frees the slots of processes that have died. Returns whether there were any.
    pub(crate) fn free_dead(&self) -> bool {
        let Some(SharedPages { own, .. }) = &self.shared else { return false };
        let mut freed = false;
        for chunk in (0..self.live.chunks().min(CHUNKS)).filter_map(|number| self.chunk(number)) {
            for page in 0..chunk.pages() {
                let owner = chunk.owner(page);
                if owner != 0 && owner != own.as_owner() && self.is_dead(owner) {
                    freed |= chunk.change_owner(page, owner, 0);
                }
            }
        }
        freed
    }

    /// Gives up the pages of this process, when no transaction uses them any more.
    pub(crate) fn give_up_pages(&self) {
        let own = self.own_name();
        for chunk in self.chunks.iter().filter_map(|chunk| chunk.get()) {
            (0..chunk.pages()).for_each(|page| {
                chunk.change_owner(page, own, 0);
            });
        }
    }

    /// The slots of a chunk that `take` was called for.
    pub(crate) fn slots_of_chunk(&self, number: usize) -> &[Arc<ReaderSlot>] {
        self.chunks[number].get().map_or(&[], |chunk| &chunk.slots)
    }

    /// A chunk, which is made on first use. `None` if it cannot be made.
    fn chunk(&self, number: usize) -> Option<&Chunk> {
        self.chunks[number].get().or_else(|| self.make_chunk(number))
    }

    #[cold]
    fn make_chunk(&self, number: usize) -> Option<&Chunk> {
        let pages = 1 << number;
        let memory = match &self.shared {
            None => RecordMemory::private(pages * READER_PAGE_WORDS),
            Some(shared) => self.map_chunk(shared, number, pages).ok()?,
        };
        Some(self.chunks[number].get_or_init(|| Chunk::new(Arc::new(memory))))
    }

    /// Maps a chunk of the lock file, which gets longer if no process has made the chunk yet.
    fn map_chunk(&self, shared: &SharedPages, number: usize, pages: usize) -> io::Result<RecordMemory> {
        let first = pages - 1;
        let _lengthening = shared.lengthening.lock().unwrap_or_else(PoisonError::into_inner);
        if self.live.chunks() > number {
            return shared.lock_file.map_reader_pages(first, pages);
        }
        let lock = ProcessLock::new(&shared.descriptor, locks::LENGTHENING);
        lock.lock();
        let is_new = self.live.chunks() <= number;
        let made = match is_new {
            true => shared.lock_file.lengthen_to(first + pages),
            false => Ok(()),
        };
        let mapped = made.and_then(|()| shared.lock_file.map_reader_pages(first, pages));
        if let (Ok(memory), true) = (&mapped, is_new) {
            // An earlier session may have left owners there.
            (0..pages).for_each(|page| memory[page * READER_PAGE_WORDS].store(0, Ordering::SeqCst));
            self.live.raise_chunks(number + 1);
        }
        lock.unlock();
        mapped
    }

    /// Whether a slot lies in a page of this process.
    #[inline]
    fn is_own(&self, index: usize) -> bool {
        let (number, offset) = chunk_of(index);
        let chunk = self.chunks.get(number).and_then(OnceLock::get);
        chunk.and_then(|chunk| chunk.owned.get(offset / PAGE_SLOTS)).is_some_and(|owned| owned.load(Ordering::Acquire))
    }

    /// The slots of this process.
    fn own_slots(&self) -> impl Iterator<Item = &Arc<ReaderSlot>> {
        let chunks = self.chunks.iter().map_while(|chunk| chunk.get());
        chunks.flat_map(|chunk| {
            let own = (0..chunk.pages()).filter(|&page| chunk.owned[page].load(Ordering::Acquire));
            own.flat_map(|page| chunk.slots_of(page))
        })
    }

    /// Calls `see` with each slot of a page that has an owner, and this owner. False if not all
    /// pages can be seen.
    fn see_all(&self, mut see: impl FnMut(u64, &ReaderSlot)) -> bool {
        let known = || self.chunks.iter().take_while(|chunk| chunk.get().is_some()).count();
        let count = if self.shared.is_some() { self.live.chunks().min(CHUNKS) } else { known() };
        (0..count).all(|number| {
            let Some(chunk) = self.chunk(number) else { return false };
            for page in 0..chunk.pages() {
                let owner = chunk.owner(page);
                if owner != 0 {
                    chunk.slots_of(page).iter().for_each(|slot| see(owner, slot));
                }
            }
            true
        })
    }

    /// Txns of all live snapshots. The caller must have loaded `published` before (P7).
    pub(crate) fn snapshots(&self) -> Vec<TxnId> {
        fence(Ordering::SeqCst);
        let mut found = Vec::new();
        let all = self.see_all(|_, slot| {
            hooks::count_step();
            let word = slot.word();
            if word < UNPINNING {
                found.push(TxnId(word));
            }
        });
        if !all {
            // The slots that cannot be seen may show any state.
            found.push(TxnId(0));
        }
        found
    }

    /// All live read transactions, of all processes.
    pub(crate) fn list(&self) -> Vec<ReaderNotes> {
        let mut found = Vec::new();
        self.see_all(|owner, slot| {
            let txn = slot.word();
            if txn < UNPINNING {
                let process = self.shared.as_ref().and_then(|_| self.live.process(Process::of_owner(owner).0));
                found.push(ReaderNotes { process, txn: TxnId(txn), notes: slot.notes() });
            }
        });
        found
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
        for slot in self.own_slots() {
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

    fn readers() -> Readers {
        Readers::new(&Live::private(), None)
    }

    fn take(readers: &Readers, txn: u64) -> Option<CellOwner<ReaderSlot, SlotCache>> {
        readers.take(|index| {
            let (number, offset) = chunk_of(index);
            CellOwner::take(&readers.slots_of_chunk(number)[offset], |slot| slot, txn)
        })
    }

    #[test]
    fn slots_are_found_by_their_index() {
        let readers = readers();
        let taken: Vec<_> = (0..FIRST_CHUNK * 7).filter_map(|_| take(&readers, 1)).collect();
        assert_eq!(taken.len(), FIRST_CHUNK * 7);
        let all: Vec<_> = readers.own_slots().collect();
        for (index, slot) in all.iter().enumerate() {
            let (number, offset) = chunk_of(index);
            assert!(readers.is_own(index) && Arc::ptr_eq(&readers.slots_of_chunk(number)[offset], slot), "slot {index}");
        }
        assert!(!readers.is_own(usize::MAX));
        assert!(!readers.is_own(all.len()));
    }

    #[test]
    fn a_slot_shows_its_txn_until_it_is_freed() {
        let readers = readers();
        let taken = take(&readers, 7).expect("a slot");
        assert_eq!((readers.snapshots(), readers.count()), (vec![TxnId(7)], 1));
        drop(taken);
        assert!(readers.snapshots().is_empty());
    }

    #[test]
    fn a_slot_in_which_the_writer_unpins_a_window_does_not_count_as_a_reader() {
        let readers = readers();
        drop(take(&readers, 7));
        let slot = readers.own_slots().find(|slot| slot.word() == owned_cell::FREE).expect("all slots are free");
        let _owner = CellOwner::take(slot, |slot| slot, UNPINNING).expect("free");
        assert!(readers.snapshots().is_empty());
    }

    #[test]
    fn an_old_window_in_a_slot_that_was_taken_is_unpinned_by_the_next_call() {
        use crate::mapping::{MapOptions, Mapping};
        let options = MapOptions { page_size: 4096, window_bytes: None, fault_guard: true, used_bytes: None };
        let mapping = Mapping::anonymous(options).expect("mapped");
        let readers = readers();
        let mut reader = take(&readers, 7).expect("a slot");
        reader.get_mut().set_pages(4096, &mapping).expect("mapped");
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
            let (readers, before) = (readers(), hooks::steps());
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

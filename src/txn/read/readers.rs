//! Reader slots: each shows the writer which state a read transaction uses, without a lock and
//! without a cache line that two readers write.
//!
//! Floor: txn. A read transaction owns one slot, and shows the txn of its snapshot there. Before
//! the writer reuses a freed page, it reads all slots (rule R5), also those of other processes.
//!
//! `reader_pages` says where the slots lie, `slot` what they cache.
//!
//! Invariants:
//!   SLOT-1  a slot belongs to at most one read transaction and its clones (CELL-1).
//!   SLOT-2  a slot shows a txn no newer than the oldest state that its transaction may read.
//!
//! Failure: `None` when all slots of the last chunk are taken (some eight million readers), or when
//! the lock file cannot get longer. If reader pages cannot be mapped, all states count as read.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{fence, AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

use crate::hooks;
use crate::ids::TxnId;
use crate::mapping::owned_cell::{self, CellOwner};
use crate::mapping::LINE_WORDS;
use crate::txn::live::{Live, Process};
use crate::txn::processes::presence::FileLock;
pub(crate) use crate::txn::read::reader_pages::{chunk_of, CHUNKS, NO_OWNER};
use crate::txn::read::reader_pages::{ReaderPages, PAGE_SLOTS};
pub(crate) use crate::txn::read::slot::{ReaderSlot, SlotCache};

/// The word of a slot while the writer unpins an old window there. It is not a txn, because a txn
/// has 48 bits.
const UNPINNING: u64 = owned_cell::FREE - 1;

/// The slots of one open database.
pub(crate) struct Readers {
    pages: ReaderPages,
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
        let pages = ReaderPages::new(live, lock);
        Readers { pages, next: AtomicUsize::new(0), may_pin_old: AtomicBool::new(false) }
    }

    /// Looks for a free slot: calls `take` with one slot index after the other, first with that of
    /// the slot that this thread used last. Returns the first result that is not `None`.
    pub(crate) fn take<R>(&self, take: impl Fn(usize) -> Option<R>) -> Option<R> {
        let hint = HINT.get();
        if self.pages.is_own(hint) {
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
        let (count, start) = (self.pages.count(), self.next.load(Ordering::Relaxed));
        let own = (start..count).chain(0..start.min(count)).filter(|&index| self.pages.is_own(index));
        own.into_iter().find_map(try_slot).or_else(|| loop {
            let claimed = self.pages.claim_more();
            if claimed.is_empty() {
                return None;
            }
            // Other threads may take all slots that were claimed.
            let slots = claimed.into_iter().flat_map(|first| first..first + PAGE_SLOTS);
            if let Some(taken) = slots.into_iter().find_map(try_slot) {
                return Some(taken);
            }
        })
    }

    /// Claims the first slots of this process.
    pub(crate) fn claim_first(&self) -> io::Result<()> {
        self.pages.claim_first()
    }

    /// Why there are no more slots, if it is not their number.
    pub(crate) fn why_no_more(&self) -> Option<io::Error> {
        self.pages.why_no_more()
    }

    /// A slot that `take` was called for.
    pub(crate) fn slot(&self, index: usize) -> &Arc<ReaderSlot> {
        self.pages.slot(index)
    }

    /// How many slots a chunk has.
    pub(crate) fn slots_of_chunk(&self, number: usize) -> usize {
        self.pages.slots_of_chunk(number)
    }

    /// Frees the slots of processes that have died. Returns whether there were any.
    pub(crate) fn free_dead(&self) -> bool {
        self.pages.free_dead()
    }

    /// Gives up the pages of this process, when no transaction uses them any more.
    pub(crate) fn give_up_pages(&self) {
        self.pages.give_up_pages();
    }

    /// Txns of all live snapshots, and whether these are all: not if there are reader pages that
    /// cannot be seen. The caller must have loaded `published` before (P7).
    pub(crate) fn snapshots(&self) -> (Vec<TxnId>, bool) {
        fence(Ordering::SeqCst);
        let mut found = Vec::new();
        let all = self.pages.see_all(|_, slot| {
            hooks::count_step();
            let word = slot.word();
            if word < UNPINNING {
                found.push(TxnId(word));
            }
        });
        (found, all)
    }

    /// All live read transactions, of all processes. Clones count once.
    pub(crate) fn list(&self) -> Vec<ReaderNotes> {
        let mut found = Vec::new();
        // Transactions of processes that were killed are not live.
        self.free_dead();
        self.pages.see_all(|owner, slot| {
            let txn = slot.word();
            if txn < UNPINNING {
                let process = self.pages.process(owner);
                found.push(ReaderNotes { process, txn: TxnId(txn), notes: slot.notes() });
            }
        });
        found
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
        for slot in self.pages.own_slots() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txn::read::reader_pages::FIRST_CHUNK;

    fn readers() -> Readers {
        Readers::new(&Live::private(), None)
    }

    fn take(readers: &Readers, txn: u64) -> Option<CellOwner<ReaderSlot, SlotCache>> {
        readers.take(|index| CellOwner::take(readers.slot(index), |slot| slot, txn))
    }

    #[test]
    fn slots_are_found_by_their_index() {
        let readers = readers();
        let taken: Vec<_> = (0..FIRST_CHUNK * 7).filter_map(|_| take(&readers, 1)).collect();
        assert_eq!(taken.len(), FIRST_CHUNK * 7);
        let all: Vec<_> = readers.pages.own_slots().collect();
        for (index, slot) in all.iter().enumerate() {
            assert!(readers.pages.is_own(index) && Arc::ptr_eq(readers.slot(index), slot), "slot {index}");
        }
        assert!(!readers.pages.is_own(usize::MAX));
        assert!(!readers.pages.is_own(all.len()));
    }

    #[test]
    fn a_slot_shows_its_txn_until_it_is_freed() {
        let readers = readers();
        let taken = take(&readers, 7).expect("a slot");
        assert_eq!((readers.snapshots(), readers.list().len()), ((vec![TxnId(7)], true), 1));
        drop(taken);
        assert_eq!(readers.snapshots(), (Vec::new(), true));
    }

    #[test]
    fn a_slot_in_which_the_writer_unpins_a_window_does_not_count_as_a_reader() {
        let readers = readers();
        drop(take(&readers, 7));
        let slot = readers.pages.own_slots().find(|slot| slot.word() == owned_cell::FREE).expect("all slots are free");
        let _owner = CellOwner::take(slot, |slot| slot, UNPINNING).expect("free");
        assert_eq!(readers.snapshots(), (Vec::new(), true));
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
            assert_eq!(readers.list().len(), count);
            (hooks::steps() - before) as f64 / count as f64
        };
        let (few, many) = (steps_each(1000), steps_each(20_000));
        assert!(many < 1.5 * few, "{few} steps each with few readers, {many} with many");
    }
}

//! Reader slots: who reads which state, without a lock and without a cache line that two readers write.
//!
//! Floor: txn. A read transaction owns one slot. It writes the txn of its snapshot there, and the writer, before it hands
//! out a freed page, looks at all slots (rule R5). Slots live in chunks that are added on demand and never removed, so
//! a reader finds its slot without a lock. Each slot sits on cache lines of its own and keeps a pin of the mapping,
//! so that beginning a read touches no shared counter.
//!
//! Invariants:
//!   N1  a slot belongs to at most one read transaction (its `owned` word, by compare-and-swap).
//!   N2  a slot shows a txn no newer than the oldest state that its transaction may read.
//!
//! Failure: `None` when all slots of the last chunk are taken (some four million readers).

use std::cell::Cell;
use std::sync::atomic::{fence, AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::ids::TxnId;
use crate::mapping::View;
use crate::txn::open_table::OpenTables;

const FIRST_CHUNK: usize = 32;
pub(crate) const CHUNKS: usize = 18;
const NO_TXN: u64 = u64::MAX;

/// One reader slot. Aligned so that neighbours do not share cache lines (nor the pairs that prefetchers fetch).
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct ReaderSlot {
    owned: AtomicBool,
    txn: AtomicU64,
    /// Pin of the mapping, kept between transactions.
    view: Mutex<Option<View>>,
    /// Tables that its transactions found.
    pub(crate) tables: OpenTables,
}

impl ReaderSlot {
    fn new() -> ReaderSlot {
        ReaderSlot {
            owned: AtomicBool::new(false),
            txn: AtomicU64::new(NO_TXN),
            view: Mutex::new(None),
            tables: OpenTables::default(),
        }
    }

    fn try_own(&self) -> bool {
        !self.owned.load(Ordering::Relaxed)
            && self.owned.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Shows the txn that this reader is about to read, before it looks again whether that is still the newest.
    pub(crate) fn show(&self, txn: TxnId) {
        self.txn.store(txn.0, Ordering::Relaxed);
        // Pairs with the fence in `snapshots`: either the writer sees this txn, or we see what it published.
        fence(Ordering::SeqCst);
    }

    /// Frees the slot: its transaction and all clones of it are gone.
    pub(crate) fn free(&self) {
        self.txn.store(NO_TXN, Ordering::Release);
        self.owned.store(false, Ordering::Release);
    }

    /// A pin of the mapping that covers `needed` bytes and is of the current window; kept for the next transaction.
    pub(crate) fn view(&self, window_id: u64, needed: u64, make: impl FnOnce() -> View) -> View {
        let mut kept = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some(view) if view.window_id() == window_id && view.len_bytes() >= needed => view.clone(),
            _ => kept.insert(make()).clone(),
        }
    }
}

/// The slots of one open database.
#[derive(Debug)]
pub(crate) struct Readers {
    chunks: [OnceLock<Box<[Arc<ReaderSlot>]>>; CHUNKS],
}

thread_local! {
    /// Where this thread found a free slot last time.
    static HINT: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Gives threads different places to begin their search.
static NEXT_HINT: AtomicUsize = AtomicUsize::new(0);

impl Readers {
    pub(crate) fn new() -> Readers {
        Readers { chunks: std::array::from_fn(|_| OnceLock::new()) }
    }

    /// Takes a free slot and gives its index; the caller shows a txn in it, and frees it in the end.
    pub(crate) fn take(&self) -> Option<usize> {
        let hint = HINT.get();
        if self.slot(hint).is_some_and(|slot| slot.try_own()) {
            return Some(hint);
        }
        self.search()
    }

    #[cold]
    fn search(&self) -> Option<usize> {
        let begin = NEXT_HINT.fetch_add(1, Ordering::Relaxed);
        let mut first = 0;
        for number in 0..CHUNKS {
            let slots = self.chunk(number);
            for step in 0..slots.len() {
                let at = (begin + step) % slots.len();
                if slots[at].try_own() {
                    HINT.set(first + at);
                    return Some(first + at);
                }
            }
            first += slots.len();
        }
        None
    }

    /// The slots of a chunk, made on first use.
    pub(crate) fn chunk(&self, number: usize) -> &[Arc<ReaderSlot>] {
        let len = FIRST_CHUNK << number;
        self.chunks[number].get_or_init(|| (0..len).map(|_| Arc::new(ReaderSlot::new())).collect())
    }

    fn slot(&self, index: usize) -> Option<&Arc<ReaderSlot>> {
        let (number, at) = chunk_of(index);
        self.chunks.get(number)?.get()?.get(at)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<ReaderSlot>> {
        self.chunks.iter().map_while(|chunk| chunk.get()).flat_map(|slots| slots.iter())
    }

    /// Txns of all live snapshots. The caller has read the published record before (protocol: Reclaim).
    pub(crate) fn snapshots(&self) -> Vec<TxnId> {
        fence(Ordering::SeqCst);
        self.all().map(|slot| slot.txn.load(Ordering::Acquire)).filter(|&txn| txn != NO_TXN).map(TxnId).collect()
    }

    /// Number of live read transactions (clones count once).
    pub(crate) fn count(&self) -> u64 {
        self.snapshots().len() as u64
    }

    /// Lets go of pins that idle slots keep of windows other than this one, so that those can be unmapped.
    pub(crate) fn drop_old_views(&self, window_id: u64) {
        for slot in self.all() {
            let Ok(mut kept) = slot.view.try_lock() else { continue };
            let old = kept.take_if(|view| view.window_id() != window_id);
            // Unmapping takes time: not under the lock that the slot's next reader takes.
            drop(kept);
            drop(old);
        }
    }
}

/// Chunk of a slot, and its place there.
#[inline]
pub(crate) fn chunk_of(index: usize) -> (usize, usize) {
    let number = (index / FIRST_CHUNK + 1).ilog2() as usize;
    (number, index - FIRST_CHUNK * ((1 << number) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_found_by_their_index() {
        let readers = Readers::new();
        let taken: Vec<_> = (0..FIRST_CHUNK * 7).filter_map(|_| readers.take()).collect();
        assert_eq!(taken.len(), FIRST_CHUNK * 7);
        let all: Vec<_> = readers.all().collect();
        for (index, slot) in all.iter().enumerate() {
            assert!(readers.slot(index).is_some_and(|found| Arc::ptr_eq(found, slot)), "slot {index}");
        }
        assert!(readers.slot(usize::MAX).is_none());
        assert!(readers.slot(all.len()).is_none());
    }

    #[test]
    fn a_slot_is_owned_once_and_shows_its_txn_until_it_is_freed() {
        let readers = Readers::new();
        let index = readers.take().expect("a slot");
        let slot = readers.slot(index).expect("the slot");
        slot.show(TxnId(7));
        assert_eq!(readers.snapshots(), [TxnId(7)]);
        assert!(!slot.try_own());
        slot.free();
        assert!(readers.snapshots().is_empty() && slot.try_own());
    }
}

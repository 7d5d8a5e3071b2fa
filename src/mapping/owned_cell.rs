//! A cell: a value that has one owner at a time, and a word that every thread may read.
//!
//! Floor: mapping. A reader slot is a cell: its word shows which snapshot the owner reads, its
//! value is a cache that the next owner can reuse. The word lies in a line of the live records,
//! where other processes may see it; the value is private.
//!
//! ```text
//!            take: compare with FREE, exchange for the owner's word
//!   FREE  ----------------------------------------------------------->  the owner's word
//!         <-----------------------------------------------------------
//!            drop of the `CellOwner`: store FREE
//! ```
//!
//! Taking a cell costs one locked instruction, which also shows the owner's word. Freeing it costs
//! a store. A `Mutex` and a separate word would take three locked instructions, and each would wait
//! for all earlier loads, including those of the owner's lookups. Each cell has cache lines of its
//! own, so owners of different cells do not slow each other down.
//!
//! Invariants:
//!   CELL-1  the value is reached only through a [`CellOwner`]. There is at most one: only the
//!       thread that changed the word from [`FREE`] gets it, and dropping it stores [`FREE`] again.
//!   CELL-2  if a thread stores X, fences, and then reads the word as [`FREE`], then the next owner
//!       sees X in its sequentially consistent loads.
//!   CELL-3  a child after `fork` frees no cell of its parent (P22).
//!
//! Failure: `None` if the cell has an owner.
#![allow(unsafe_code, reason = "a cell that hands out what it holds by the word beside it")]

use std::cell::UnsafeCell;
use std::fmt::{self, Debug, Formatter};
use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::NonNull;
use std::sync::atomic::{fence, AtomicU64, Ordering};
use std::sync::Arc;

use super::record_memory::{RecordLine, LINE_WORDS};
use crate::sys::fork;

/// The word of a cell that has no owner.
pub(crate) const FREE: u64 = u64::MAX;

/// A value that has one owner at a time, and the word that the owner shows.
///
/// Aligned to two cache lines of 64 bytes, because processors prefetch lines in pairs.
#[repr(align(128))]
pub(crate) struct OwnedCell<T> {
    /// The first word is the one that the owner shows; the owner may store to the others.
    line: RecordLine,
    value: UnsafeCell<T>,
    process: u32,
}

// SAFETY: the owners, one after the other, may be different threads, and each may share the value
// with other threads: `T: Send + Sync` allows both. Release and Acquire of the word order the
// owners (CELL-1).
unsafe impl<T: Send + Sync> Sync for OwnedCell<T> {}

// An owner that panics leaves the value to the next owner, as unwind-safe as `T` itself.
impl<T: RefUnwindSafe> RefUnwindSafe for OwnedCell<T> {}

impl<T> OwnedCell<T> {
    /// A cell whose word is the first of a line. A process takes it only in a line of its own.
    pub(crate) fn new(value: T, line: RecordLine) -> OwnedCell<T> {
        OwnedCell { line, value: UnsafeCell::new(value), process: fork::id() }
    }

    /// Frees the cell. Before any owner takes it.
    pub(crate) fn reset(&self) {
        self.shown().store(FREE, Ordering::SeqCst);
    }

    /// The words that the owner has stored beside the one that it shows.
    pub(crate) fn notes(&self) -> [u64; LINE_WORDS - 1] {
        std::array::from_fn(|index| self.line[1 + index].load(Ordering::Relaxed))
    }

    #[inline]
    fn shown(&self) -> &AtomicU64 {
        &self.line[0]
    }

    /// The word that the owner shows, or [`FREE`].
    pub(crate) fn word(&self) -> u64 {
        self.shown().load(Ordering::Acquire)
    }
}

impl<T> Debug for OwnedCell<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedCell").field("word", self.shown()).finish_non_exhaustive()
    }
}

/// The owner of a cell. Dropping it frees the cell. `keeper` keeps the cell alive.
pub(crate) struct CellOwner<K, T> {
    cell: NonNull<OwnedCell<T>>,
    keeper: Arc<K>,
}

// SAFETY: the owner gives access to the value like an owned `T`, and to `K` like an `Arc`.
unsafe impl<K: Send + Sync, T: Send + Sync> Send for CellOwner<K, T> {}
// SAFETY: as above.
unsafe impl<K: Send + Sync, T: Send + Sync> Sync for CellOwner<K, T> {}

impl<K: RefUnwindSafe, T: RefUnwindSafe> RefUnwindSafe for CellOwner<K, T> {}
impl<K: RefUnwindSafe, T: RefUnwindSafe> UnwindSafe for CellOwner<K, T> {}

impl<K, T: Debug> Debug for CellOwner<K, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("CellOwner").field("word", self.cell().shown()).field("value", &**self).finish_non_exhaustive()
    }
}

impl<K, T> CellOwner<K, T> {
    /// Takes the cell that `cell` finds in `keeper`, and shows `word`, which must not be [`FREE`].
    /// Returns `None` if the cell has an owner.
    #[inline]
    pub(crate) fn take(
        keeper: &Arc<K>,
        cell: impl for<'a> FnOnce(&'a K) -> &'a OwnedCell<T>,
        word: u64,
    ) -> Option<CellOwner<K, T>> {
        assert!(word != FREE, "a cell whose word is FREE has no owner");
        let cell = cell(keeper);
        let shown = cell.shown();
        if shown.load(Ordering::Relaxed) != FREE {
            return None;
        }
        shown.compare_exchange(FREE, word, Ordering::SeqCst, Ordering::Relaxed).ok()?;
        // The cell was borrowed from the content of the `Arc`, so the `Arc` keeps it at its
        // address.
        Some(CellOwner { cell: NonNull::from(cell), keeper: Arc::clone(keeper) })
    }

    #[inline]
    fn cell(&self) -> &OwnedCell<T> {
        // SAFETY: lifetime: `keeper` keeps the cell alive. Aliasing: a shared reference to an
        // atomic and an `UnsafeCell`.
        unsafe { self.cell.as_ref() }
    }

    /// The words of the cell that the owner may store to, for people that look at it.
    #[inline]
    pub(crate) fn notes(&self) -> &[AtomicU64] {
        &self.cell().line[1..LINE_WORDS]
    }

    pub(crate) fn keeper(&self) -> &Arc<K> {
        &self.keeper
    }

    /// Shows another word, which must not be [`FREE`], before any later load of the owner.
    pub(crate) fn show(&mut self, word: u64) {
        assert!(word != FREE, "only dropping the owner frees a cell");
        // Release: a thread that reads this word also sees what this owner and earlier owners
        // stored.
        self.cell().shown().store(word, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    #[inline]
    pub(crate) fn get_mut(&mut self) -> &mut T {
        // SAFETY: aliasing: this is the only owner (CELL-1), and it is borrowed exclusively.
        // Lifetime: as in `cell`.
        unsafe { &mut *self.cell().value.get() }
    }
}

impl<K, T> Deref for CellOwner<K, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: aliasing: this is the only owner (CELL-1), and a change of the value needs an
        // exclusive borrow. Lifetime: as in `cell`.
        unsafe { &*self.cell().value.get() }
    }
}

impl<K, T> Drop for CellOwner<K, T> {
    #[inline]
    fn drop(&mut self) {
        let cell = self.cell();
        if cell.process == fork::id() {
            // Release: the next owner sees what this owner stored.
            cell.shown().store(FREE, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::RecordMemory;

    fn line() -> RecordLine {
        let memory = Arc::new(RecordMemory::private(LINE_WORDS));
        memory.iter().for_each(|word| word.store(FREE, Ordering::Relaxed));
        RecordLine::of(&memory, 0)
    }

    #[test]
    fn a_cell_has_one_owner_and_shows_its_word_until_the_owner_leaves() {
        let cell = Arc::new(OwnedCell::new(String::new(), line()));
        let take = |word| CellOwner::take(&cell, |cell| cell, word);
        let mut first = take(7).expect("free");
        first.get_mut().push('a');
        assert_eq!((cell.word(), &**first), (7, "a"));
        assert!(take(8).is_none());
        first.show(9);
        assert_eq!(cell.word(), 9);
        drop(first);
        assert_eq!(cell.word(), FREE);
        assert_eq!(&**take(8).expect("free again"), "a", "the value of the owner before");
    }

    #[test]
    fn changes_by_one_owner_after_the_other_are_not_lost() {
        const EACH: u64 = 20_000;
        let cell = Arc::new(OwnedCell::new(0u64, line()));
        std::thread::scope(|scope| {
            for word in 0..4 {
                let cell = &cell;
                scope.spawn(move || {
                    for _ in 0..EACH {
                        let mut owner = std::iter::repeat_with(|| CellOwner::take(cell, |cell| cell, word))
                            .find_map(|taken| {
                                if taken.is_none() {
                                    std::thread::yield_now();
                                }
                                taken
                            })
                            .expect("in the end");
                        *owner.get_mut() += 1;
                    }
                });
            }
        });
        assert_eq!(*CellOwner::take(&cell, |cell| cell, 1).expect("free"), 4 * EACH);
    }
}

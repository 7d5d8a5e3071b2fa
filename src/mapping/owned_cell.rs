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
//!   CELL-3  the counter of sharers is the number of [`SharedOwner`]s. As long as it is 1, no other
//!       thread reaches the value.
//!   CELL-4  a child after `fork` frees no cell of its parent (P22).
//!
//! Failure: `None` if the cell has an owner.
#![allow(unsafe_code, reason = "a cell that hands out what it holds by the word beside it")]

use std::cell::UnsafeCell;
use std::fmt::{self, Debug, Formatter};
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::NonNull;
use std::sync::atomic::{fence, AtomicU64, AtomicUsize, Ordering};
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
    /// Of the owner that is shared, if it is.
    sharers: AtomicUsize,
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
        OwnedCell { line, value: UnsafeCell::new(value), sharers: AtomicUsize::new(0), process: fork::id() }
    }

    #[inline]
    fn shown(&self) -> &AtomicU64 {
        &self.line[0]
    }

    /// The word that the owner shows, or [`FREE`].
    #[cfg(test)]
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
        self.parts().0
    }

    /// The value, and the keeper of its cell.
    #[inline]
    fn parts(&mut self) -> (&mut T, &K) {
        // SAFETY: aliasing: this is the only owner (CELL-1), and it is borrowed exclusively. The
        // keeper leads to the value only through an owner. Lifetime: as in `cell`.
        (unsafe { &mut *self.cell().value.get() }, &self.keeper)
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

/// Called with the value when the last [`SharedOwner`] leaves, before the cell is free.
pub(crate) trait Leave<K> {
    fn leave(&mut self, keeper: &K);
}

/// The owner of a cell, which any number of clones share. Like an `Arc` of a [`CellOwner`], but the
/// counter lies in the cell, so that sharing allocates nothing.
#[derive(Debug)]
pub(crate) struct SharedOwner<K, T: Leave<K>>(ManuallyDrop<CellOwner<K, T>>);

impl<K, T: Leave<K>> SharedOwner<K, T> {
    pub(crate) fn new(owner: CellOwner<K, T>) -> SharedOwner<K, T> {
        // The owner of the cell is the only one that can be shared (CELL-1).
        owner.cell().sharers.store(1, Ordering::Relaxed);
        SharedOwner(ManuallyDrop::new(owner))
    }

    /// The owner, if no other clone shares it.
    #[inline]
    pub(crate) fn get_mut(&mut self) -> Option<&mut CellOwner<K, T>> {
        self.is_sole().then(|| &mut *self.0)
    }

    /// Acquire: what other clones did before they were dropped has happened.
    #[inline]
    fn is_sole(&self) -> bool {
        self.0.cell().sharers.load(Ordering::Acquire) == 1
    }
}

impl<K, T: Leave<K>> Clone for SharedOwner<K, T> {
    fn clone(&self) -> SharedOwner<K, T> {
        let before = self.0.cell().sharers.fetch_add(1, Ordering::Relaxed);
        // As in `Arc`: a program that forgets so many clones must not begin again at 0.
        assert!(before < isize::MAX as usize, "too many clones");
        SharedOwner(ManuallyDrop::new(CellOwner { cell: self.0.cell, keeper: Arc::clone(&self.0.keeper) }))
    }
}

impl<K, T: Leave<K>> Deref for SharedOwner<K, T> {
    type Target = CellOwner<K, T>;

    #[inline]
    fn deref(&self) -> &CellOwner<K, T> {
        &self.0
    }
}

impl<K, T: Leave<K>> Drop for SharedOwner<K, T> {
    #[inline]
    fn drop(&mut self) {
        // Release: the last one sees what this one did. No other clone can be made while there is
        // only this one.
        if self.is_sole() || self.0.cell().sharers.fetch_sub(1, Ordering::AcqRel) == 1 {
            // SAFETY: initialised: it is taken once, here, because `self` is not used afterwards.
            let mut owner = unsafe { ManuallyDrop::take(&mut self.0) };
            let (value, keeper) = owner.parts();
            value.leave(keeper);
        } else {
            // The other clones own the cell, so only the keeper is dropped.
            // SAFETY: initialised, and read once, because the owner around it is never dropped.
            drop(unsafe { std::ptr::read(&self.0.keeper) });
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

    impl Leave<OwnedCell<Vec<u32>>> for Vec<u32> {
        fn leave(&mut self, keeper: &OwnedCell<Vec<u32>>) {
            assert_ne!(keeper.word(), FREE, "before the cell is free");
            self.push(0);
        }
    }

    #[test]
    fn the_last_clone_of_a_shared_owner_frees_the_cell() {
        let cell = Arc::new(OwnedCell::new(Vec::new(), line()));
        let mut first = SharedOwner::new(CellOwner::take(&cell, |cell| cell, 7).expect("free"));
        first.get_mut().expect("no clone").get_mut().push(1);
        let second = first.clone();
        assert!(first.get_mut().is_none());
        assert_eq!((cell.word(), &**second, Arc::strong_count(&cell)), (7, &vec![1], 3));
        drop(first);
        assert_eq!((cell.word(), Arc::strong_count(&cell)), (7, 2));
        let third = second.clone();
        std::thread::spawn(move || drop(second)).join().expect("dropped");
        drop(third);
        assert_eq!((cell.word(), Arc::strong_count(&cell)), (FREE, 1));
        let next = CellOwner::take(&cell, |cell| cell, 8).expect("free");
        assert_eq!(*next, [1, 0], "the last one has left the value to the next");
    }

    #[test]
    fn clones_that_are_dropped_at_the_same_time_free_the_cell_once() {
        let cell = Arc::new(OwnedCell::new(Vec::new(), line()));
        for round in 1..2000 {
            let shared = SharedOwner::new(CellOwner::take(&cell, |cell| cell, round).expect("free"));
            std::thread::scope(|scope| {
                let clone = shared.clone();
                scope.spawn(move || drop(clone.clone()));
                drop(shared);
            });
            assert_eq!((cell.word(), Arc::strong_count(&cell)), (FREE, 1));
        }
        assert_eq!(CellOwner::take(&cell, |cell| cell, 1).expect("free").len(), 1999);
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

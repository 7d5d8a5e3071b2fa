//! A cell that one owner at a time uses, with a word beside it that every thread may read.
//!
//! Floor: sys, because of its `unsafe`. A reader slot is such a cell. Taking it costs one locked
//! operation, which shows the owner's word at the same time; leaving it costs a store. A `Mutex`
//! with the word beside it would take three locked operations, and each of them would wait for all
//! earlier loads, the owner's lookups among them.
//!
//! Invariants:
//!   CELL-1  the value is reached only through a [`CellOwner`], and there is at most one: the
//!           thread that changed the word from [`FREE`] has it, and dropping it stores [`FREE`]
//!           again.
//!   CELL-2  taking the cell comes before every later sequentially consistent load of the owner, as
//!           seen by a thread that stores the loaded value, fences, and then reads the word.
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

/// The word of a cell that nobody has.
pub(crate) const FREE: u64 = u64::MAX;

/// See the module.
pub(crate) struct OwnedCell<T> {
    word: AtomicU64,
    value: UnsafeCell<T>,
}

// SAFETY: the value moves between the threads of its owners, one at a time, and each may share it
// with others: `T` allows both. Owners follow each other by Release and Acquire of the word
// (CELL-1).
unsafe impl<T: Send + Sync> Sync for OwnedCell<T> {}

// An owner that panics leaves the value as it is, for the next one: that is as good or bad as `T`
// itself.
impl<T: RefUnwindSafe> RefUnwindSafe for OwnedCell<T> {}

impl<T> OwnedCell<T> {
    pub(crate) fn new(value: T) -> OwnedCell<T> {
        OwnedCell { word: AtomicU64::new(FREE), value: UnsafeCell::new(value) }
    }

    /// The word that the owner shows, or [`FREE`].
    pub(crate) fn word(&self) -> u64 {
        self.word.load(Ordering::Acquire)
    }
}

impl<T> Debug for OwnedCell<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("word", &self.word).finish_non_exhaustive()
    }
}

/// A cell that was taken; its end frees it. Keeps alive what the cell is part of.
pub(crate) struct CellOwner<K, T> {
    cell: NonNull<OwnedCell<T>>,
    keeper: Arc<K>,
}

// SAFETY: it gives the value out as its own `&T` and `&mut T` would, and `K` as an `Arc` does.
unsafe impl<K: Send + Sync, T: Send + Sync> Send for CellOwner<K, T> {}
// SAFETY: as above.
unsafe impl<K: Send + Sync, T: Send + Sync> Sync for CellOwner<K, T> {}

impl<K: RefUnwindSafe, T: RefUnwindSafe> RefUnwindSafe for CellOwner<K, T> {}
impl<K: RefUnwindSafe, T: RefUnwindSafe> UnwindSafe for CellOwner<K, T> {}

impl<K, T: Debug> Debug for CellOwner<K, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seated").field("word", &self.cell().word).field("value", &**self).finish_non_exhaustive()
    }
}

impl<K, T> CellOwner<K, T> {
    /// Takes the cell that `cell` finds in `keeper`, and shows `word`, which is not [`FREE`].
    /// `None` if it has an owner.
    #[inline]
    pub(crate) fn take(
        keeper: &Arc<K>,
        cell: impl for<'a> FnOnce(&'a K) -> &'a OwnedCell<T>,
        word: u64,
    ) -> Option<CellOwner<K, T>> {
        assert!(word != FREE, "that would not take the cell");
        let cell = cell(keeper);
        if cell.word.load(Ordering::Relaxed) != FREE {
            return None;
        }
        cell.word.compare_exchange(FREE, word, Ordering::SeqCst, Ordering::Relaxed).ok()?;
        // The cell stays where it is as long as the keeper: it was found through a shared borrow of
        // what is in the `Arc`.
        Some(CellOwner { cell: NonNull::from(cell), keeper: Arc::clone(keeper) })
    }

    #[inline]
    fn cell(&self) -> &OwnedCell<T> {
        // SAFETY: lifetime: part of what `keeper` keeps. Aliasing: a shared reference to atomics
        // and a cell.
        unsafe { self.cell.as_ref() }
    }

    pub(crate) fn keeper(&self) -> &Arc<K> {
        &self.keeper
    }

    /// Shows another word, which is not [`FREE`], before anything that is loaded later.
    pub(crate) fn show(&mut self, word: u64) {
        assert!(word != FREE, "only dropping the owner frees a cell");
        // Release: a thread that reads this word also sees what this owner and the owners before
        // it have stored.
        self.cell().word.store(word, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    #[inline]
    pub(crate) fn get_mut(&mut self) -> &mut T {
        // SAFETY: aliasing: this is the only owner (CELL-1), borrowed exclusively. Lifetime: as in
        // `cell`.
        unsafe { &mut *self.cell().value.get() }
    }
}

impl<K, T> Deref for CellOwner<K, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: aliasing: this is the only owner (CELL-1), and to change the value it has to be
        // borrowed exclusively. Lifetime: as in `cell`.
        unsafe { &*self.cell().value.get() }
    }
}

impl<K, T> Drop for CellOwner<K, T> {
    #[inline]
    fn drop(&mut self) {
        // What this owner did comes before what the next one does.
        self.cell().word.store(FREE, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_has_one_owner_and_shows_its_word_until_the_owner_leaves() {
        let cell = Arc::new(OwnedCell::new(String::new()));
        let take = |word| CellOwner::take(&cell, |cell| cell, word);
        let mut first = take(7).expect("free");
        first.get_mut().push('a');
        assert_eq!((cell.word(), &**first), (7, "a"));
        assert!(take(8).is_none());
        first.show(9);
        assert_eq!(cell.word(), 9);
        drop(first);
        assert_eq!(cell.word(), FREE);
        assert_eq!(&**take(8).expect("free again"), "a", "what the owner before left");
    }

    #[test]
    fn owners_follow_each_other_and_lose_nothing() {
        const EACH: u64 = 20_000;
        let cell = Arc::new(OwnedCell::new(0u64));
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

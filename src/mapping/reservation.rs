//! Reservations: ranges of address space that a file is mapped into, from its start.
//!
//! Floor: mapping. A window has one for readers and one for the writer. The file is mapped over the
//! start of a reservation, and over more of it as the file grows. The rest cannot be accessed.
//!
//! The first part of the file is mapped in place. Later parts are first mapped elsewhere, with
//! their advice, and then moved into the reservation in one step. So no page is faulted in before
//! the advice is given, and the kernel merges the part with the previous one.
//!
//! Invariants:
//!   RESERVE-1  everything in a reservation is unmapped when it is dropped, and is registered with
//!       the SIGBUS handler until just before.
//!   RESERVE-2  a failed move into the reservation may have unmapped its target. If so, the target
//!       is reserved again. If another thread has mapped something there by then, the reservation
//!       ends before it.
//!   RESERVE-3  the account of the budget contains the reservation (BUDGET-1).
//!
//! Failure: errors of the kernel.
#![allow(unsafe_code, reason = "addresses of mappings")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::budget::BudgetShare;
use super::shared::Shared;
use super::sigbus::Registration;
use crate::sys::memory_calls::{self, Access};
use crate::sys::refused;

/// A range of address space that this process owns, unmapped on drop.
pub(super) struct Reservation {
    pub(super) base: NonNull<u8>,
    /// Bytes that this reservation owns. Less than was reserved only after a failed move
    /// (RESERVE-2).
    len: AtomicU64,
    /// Bytes from the start over which the file is mapped. Whole kernel pages, so possibly more
    /// than `Window::mapped`.
    covered: AtomicU64,
    /// `None` without the fault guard.
    registration: Option<Registration>,
    budget_share: BudgetShare,
}

impl Reservation {
    /// Reserves `len` bytes for a mapping of the file. Registers them with the SIGBUS handler if
    /// the mapping has a fault guard.
    pub(super) fn new(len: u64, access: Access, shared: &Shared) -> io::Result<Reservation> {
        let budget_share = BudgetShare::new(len, &shared.reserved);
        let base = memory_calls::reserve(len)?;
        let (len_now, covered) = (AtomicU64::new(len), AtomicU64::new(0));
        let mut reservation = Reservation { base, len: len_now, covered, registration: None, budget_share };
        if shared.fault_guard {
            let start = base.as_ptr() as usize;
            let registration = Registration::new(start, len as usize, access == Access::ReadWrite, &shared.record)?;
            reservation.registration = Some(registration);
        }
        Ok(reservation)
    }

    /// Makes faults in this range also set a flag, which lives as long as the reservation.
    pub(super) fn set_flag(&self, flag: &AtomicU32) {
        if let Some(registration) = &self.registration {
            registration.set_flag(flag);
        }
    }

    /// Bytes that this reservation owns.
    pub(super) fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// Bytes from the start over which the file is mapped.
    pub(super) fn covered(&self) -> u64 {
        self.covered.load(Ordering::Relaxed)
    }

    /// The address at an offset.
    pub(super) fn at(&self, offset: u64) -> NonNull<u8> {
        assert!(offset <= self.len(), "offset {offset} outside the window");
        // SAFETY: bounds: inside one reservation or at its end, so inside one allocation. The
        // offset fits `usize` because the length did.
        unsafe { self.base.add(offset as usize) }
    }

    /// Maps the file over the reservation up to `to`.
    pub(super) fn extend(&self, file: &File, to: u64, access: Access) -> io::Result<()> {
        let from = self.covered();
        if to <= from {
            return Ok(());
        }
        if to > self.len() {
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, "the window is full"));
        }
        let (target, len) = (self.at(from), to - from);
        let placed = self.place(file, from..to, access);
        match &placed {
            Ok(()) => self.covered.store(to, Ordering::Relaxed),
            Err(_) => self.reserve_again_or_cut(target, len),
        }
        placed
    }

    /// Maps a range of the file over the same range of the reservation.
    fn place(&self, file: &File, range: Range<u64>, access: Access) -> io::Result<()> {
        let (from, len) = (range.start, range.end - range.start);
        let target = self.at(from);
        // The first part has no previous one to merge with, so it need not be moved in.
        // SAFETY: the target is the part of the reservation after everything published (WIN-1). No
        // thread uses it.
        if from == 0 && unsafe { memory_calls::map_start_over(file, len, access, target) }? {
            return Ok(());
        }
        let fresh = memory_calls::map_file(file, from, len, access)?;
        self.move_in(fresh, file, range, access)
    }

    /// Moves a new mapping of a range of the file over the same range of the reservation. If the
    /// kernel refuses moves, maps the file there directly.
    fn move_in(&self, fresh: NonNull<u8>, file: &File, range: Range<u64>, access: Access) -> io::Result<()> {
        let (target, len) = (self.at(range.start), range.end - range.start);
        // SAFETY: `fresh` is new and ours. The target is the part of the reservation after
        // everything published (WIN-1). No thread uses either.
        let moved = unsafe { memory_calls::move_over(fresh, len, target) }.inspect_err(|_| {
            // SAFETY: the move failed, so the new mapping is still there, ours and unused.
            unsafe { memory_calls::unmap(fresh, len) }
        });
        match moved {
            // SAFETY: the target as above. A move that was refused has not changed it.
            Err(error) if refused::is(&error) => unsafe {
                memory_calls::map_file_over(file, range.start, len, access, target)
            },
            moved => moved,
        }
    }

    /// Restores RESERVE-2 after a failed move. The kernel checks most reasons for a failure before
    /// it unmaps the target. If it did unmap it, another thread may have mapped something there
    /// since.
    fn reserve_again_or_cut(&self, target: NonNull<u8>, len: u64) {
        if memory_calls::reserve_at(target, len).is_err() && !memory_calls::is_reserved(target, len) {
            self.cut(self.covered() + len);
        }
    }

    /// Gives up the reservation from `covered` on. The bytes from there to `failed_to` belong to
    /// another part of the program; the rest after them is unmapped.
    fn cut(&self, failed_to: u64) {
        let old = self.len();
        let new = self.covered();
        if let Some(registration) = &self.registration {
            registration.cut(new as usize);
        }
        if failed_to < old {
            // SAFETY: the tail of our reservation, over which nothing was ever mapped.
            unsafe { memory_calls::unmap(self.at(failed_to), old - failed_to) };
        }
        self.len.store(new, Ordering::Relaxed);
        self.budget_share.shrink_to(new);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // First, so that the SIGBUS handler never puts zeros over memory of another owner
        // (SIGBUS-2).
        self.registration = None;
        if self.len() > 0 {
            // SAFETY: the range is ours, and all its users hold an `Arc` of the window (WIN-3).
            unsafe { memory_calls::unmap(self.base, self.len()) }
        }
    }
}

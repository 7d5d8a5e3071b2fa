//! Reservations: address space that a file is mapped over from its start, and who watches it.
//!
//! Floor: mapping. A window has one for the read-only mapping and one for the writable mapping. The
//! file covers the beginning of a reservation, and more of it as the file grows; the rest cannot be
//! accessed.
//!
//! Invariants:
//!   RESERVE-1  what lies in a reservation is unmapped when it is dropped, and watched by the
//!              SIGBUS handler until just before.
//!   RESERVE-2  a move over the reservation that failed may have unmapped its target. If it did,
//!       the target is reserved again; if somebody else has it by then, the reservation ends before
//!       it.
//!   RESERVE-3  what is reserved is in the account of the budget (BUDGET-1).
//!
//! Failure: errors of the system.

#![allow(unsafe_code, reason = "addresses of mappings")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::Arc;

use super::budget::Counted;
use crate::error::Error;
use crate::mapping::read_ahead::Ahead;
use crate::mapping::sigbus::{FaultRecord, Watched};
use crate::sys::os::{self, Rights};
use crate::sys::{file_calls, refused};

/// What all windows of a file share: where faults in its mappings are recorded, and whether the
/// fault guard is to record them; and what is read ahead.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    pub(super) record: Arc<FaultRecord>,
    pub(super) fault_guard: bool,
    /// Whether the writable mapping is for reading until pages of it are opened: in tests alone.
    pub(super) strict: bool,
    /// For the cause of a fault.
    pub(super) file: Arc<File>,
    pub(super) ahead: Arc<Ahead>,
    /// Address space that is reserved for the file, in all its windows.
    pub(super) reserved: Arc<AtomicU64>,
}

impl Watch {
    /// The error of an access at this offset that the kernel could not serve, with its number where
    /// there is one. A signal does not say why: the file does.
    #[cold]
    pub(super) fn error_at(&self, offset: u64, error: Option<&io::Error>) -> Error {
        let cause = match (file_calls::end_of(&self.file), self.file.read_exact_at(&mut [0], offset)) {
            (Ok(len), _) if offset >= len => format!("the file was cut to {len} bytes while it was open"),
            (_, Err(e)) if os::is_unserved(&e) => format!("reading it failed: {e}"),
            _ => {
                let number = error.map(|e| format!(" ({e})")).unwrap_or_default();
                let what = "the file was cut and made longer again, or the disk had no room for a change or failed for a moment";
                format!("{what}{number}")
            }
        };
        Error::Fault { path: None, offset, cause }
    }

    /// Reads a byte of each page of a range, which the file had, and so brings them into memory:
    /// the error of the first one that was cut off, or that the disk does not give. A read that the
    /// kernel refuses says nothing of the page.
    #[cold]
    pub(super) fn read_through(&self, range: Range<u64>) -> Option<Error> {
        let step = os::page_bytes();
        (range.start..range.end).step_by(step as usize).find_map(|at| match self.file.read_at(&mut [0], at) {
            Ok(0) => Some(self.error_at(at, None)),
            Err(e) if os::is_unserved(&e) => Some(self.error_at(at, Some(&e))),
            _ => None,
        })
    }

    /// The error of the first access that failed, if one has.
    pub(super) fn error(&self) -> Option<Error> {
        self.record.offset().map(|offset| self.error_at(offset, None))
    }
}

/// A range of address space of ours, unmapped on drop.
pub(super) struct Reservation {
    pub(super) base: NonNull<u8>,
    /// Bytes that are ours; smaller than reserved only after a failed move (RESERVE-2).
    len: AtomicU64,
    /// From the start, how many bytes the file is mapped over (system pages, so it may pass
    /// `Window::mapped`).
    covered: AtomicU64,
    /// `None` without the fault guard.
    watched: Option<Watched>,
    counted: Counted,
}

impl Reservation {
    /// Reserves `len` bytes for a mapping of the file, watched if `watch` says so.
    pub(super) fn new(len: u64, rights: Rights, watch: &Watch) -> io::Result<Reservation> {
        let counted = Counted::new(len, &watch.reserved);
        let (base, len_now, covered) = (os::reserve(len)?, AtomicU64::new(len), AtomicU64::new(0));
        let mut reservation = Reservation { base, len: len_now, covered, watched: None, counted };
        if watch.fault_guard {
            let start = base.as_ptr() as usize;
            let watched = Watched::new(start, len as usize, rights == Rights::ReadWrite, &watch.record)?;
            reservation.watched = Some(watched);
        }
        Ok(reservation)
    }

    /// Has faults in here also set a flag, which lives as long as this.
    pub(super) fn set_flag(&self, flag: &AtomicU32) {
        if let Some(watched) = &self.watched {
            watched.set_flag(flag);
        }
    }

    /// Bytes that are ours.
    pub(super) fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// From the start, how many bytes the file is mapped over.
    pub(super) fn covered(&self) -> u64 {
        self.covered.load(Ordering::Relaxed)
    }

    /// The address at an offset.
    pub(super) fn at(&self, offset: u64) -> NonNull<u8> {
        assert!(offset <= self.len(), "offset {offset} outside the window");
        // SAFETY: inside one reservation or at its end, so inside one allocation; it fits `usize`
        // as its length did.
        unsafe { self.base.add(offset as usize) }
    }

    /// Maps the file over the reservation up to `to`.
    pub(super) fn extend(&self, file: &File, to: u64, rights: Rights) -> io::Result<()> {
        let from = self.covered();
        if to <= from {
            return Ok(());
        }
        if to > self.len() {
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, "the window is full"));
        }
        let (target, len) = (self.at(from), to - from);
        let placed = match os::map_file(file, from, len, rights) {
            Ok(fresh) => self.move_in(fresh, file, from, len, rights),
            // A file of tens of TiB may have no room beside its own reservations.
            // SAFETY: the target is reservation after everything published (WIN-1), which nobody
            // uses.
            Err(e) if from == 0 && e.raw_os_error() == Some(libc::ENOMEM) => unsafe {
                os::map_file_over(file, from, len, rights, target)
            },
            Err(e) => return Err(e),
        };
        match &placed {
            Ok(()) => self.covered.store(to, Ordering::Relaxed),
            Err(_) => self.keep_or_cut(target, len),
        }
        placed
    }

    /// Moves a new mapping of the file over the reservation at `from`, or maps it there where the
    /// kernel refuses moves.
    fn move_in(&self, fresh: NonNull<u8>, file: &File, from: u64, len: u64, rights: Rights) -> io::Result<()> {
        let target = self.at(from);
        // SAFETY: `fresh` is new and ours; the target is the part of the reservation after
        // everything published (WIN-1), which nobody uses.
        let moved = unsafe { os::move_over(fresh, len, target) }.inspect_err(|_| {
            // SAFETY: the move failed, so the new mapping is where it was, ours and unused.
            unsafe { os::unmap(fresh, len) }
        });
        match moved {
            // SAFETY: the target as above; a move that was refused has changed nothing of it.
            Err(error) if refused::is(&error) => unsafe { os::map_file_over(file, from, len, rights, target) },
            moved => moved,
        }
    }

    /// After a failed move over a part of the reservation (RESERVE-2). The kernel checks most of
    /// what can make a move fail before it unmaps the target. If it did unmap it, another thread
    /// may have mapped something there since.
    fn keep_or_cut(&self, target: NonNull<u8>, len: u64) {
        if os::reserve_at(target, len).is_err() && !os::is_reserved(target, len) {
            self.cut(self.covered() + len);
        }
    }

    /// Gives up the reservation from `covered` on: what lies between there and `failed_to` is
    /// somebody else's. The rest after it goes back.
    fn cut(&self, failed_to: u64) {
        let old = self.len();
        let keep = self.covered();
        if let Some(watched) = &self.watched {
            watched.cut(keep as usize);
        }
        if failed_to < old {
            // SAFETY: the tail of our reservation, over which nothing was ever mapped.
            unsafe { os::unmap(self.at(failed_to), old - failed_to) };
        }
        self.len.store(keep, Ordering::Relaxed);
        self.counted.shrink_to(keep);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.watched = None;
        if self.len() > 0 {
            // SAFETY: ours, and whoever could use it holds an `Arc` of the window (WIN-3).
            unsafe { os::unmap(self.base, self.len()) }
        }
    }
}

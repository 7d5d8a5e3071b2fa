//! The handle of readers: bytes of the file through the read-only mapping, and a pin that keeps the
//! window mapped.
//!
//! Floor: mapping. A snapshot holds a `ReadMap`, and everything that it returns borrows from it.
//!
//! Failure: `None` for bytes outside the mapping. An access that the kernel cannot serve reads
//! zeros (`sigbus`), and [`ReadMap::all_served`] returns false afterwards.
#![allow(unsafe_code, reason = "slices of the read-only mapping")]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::Arc;

use super::bounds::inside;
use super::read_ahead::Ahead;
use super::verified_bitmap::verified_byte;
use super::window::Window;
use crate::error::{Error, Result};
use crate::ids::PageId;
use crate::sys::prefetch;

/// Keeps a window mapped for all clones of one [`ReadMap`].
struct Pin {
    window: Arc<Window>,
}

/// Pins the window that was current when the handle was made: all bytes that it returns stay mapped
/// while it lives.
///
/// A clone increments only the counter of the pin that it comes from. So readers with pins of their
/// own do not write to a shared cache line.
///
/// Only pages that no writer changes during the borrow may be borrowed through it. The pager
/// ensures this: a page that a snapshot reaches is not claimed before the snapshot ends. Meta
/// pages, which are overwritten in place, are copied instead.
#[derive(Clone)]
pub(crate) struct ReadMap {
    pub(super) base: NonNull<u8>,
    /// The window that `pin` keeps.
    window: NonNull<Window>,
    /// The verified bitmap of that window, and its length in bytes.
    pub(super) verified_bitmap: NonNull<u8>,
    pub(super) verified_len: u64,
    pin: Arc<Pin>,
}

// SAFETY: the pointers lead to the window that `pin` keeps alive, which is `Sync`, and into it: to
// memory that is mapped read-only, and to verified bytes that are accessed through atomics.
unsafe impl Send for ReadMap {}
// SAFETY: as above.
unsafe impl Sync for ReadMap {}

impl ReadMap {
    pub(super) fn new(window: Arc<Window>) -> ReadMap {
        let bitmap = window.verified_bitmap();
        ReadMap {
            base: window.read_range().base,
            window: NonNull::from(&*window),
            verified_bitmap: bitmap.base(),
            verified_len: bitmap.len(),
            pin: Arc::new(Pin { window }),
        }
    }

    /// The bytes `offset..offset + len` of the file, if all of them are mapped.
    #[inline]
    pub(crate) fn bytes(&self, offset: u64, len: usize) -> Option<&[u8]> {
        if !inside(self.len_bytes(), offset, len) {
            return None;
        }
        // SAFETY: bounds: below `mapped`, so mapped and readable (WIN-1), and inside one
        // reservation. Lifetime: the borrow of `self` keeps the pin, which keeps the window
        // (WIN-3). Initialised: file pages always are. Aliasing: no thread stores to a page that a
        // reader may reach (see the type).
        Some(unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset as usize), len) })
    }

    /// Prefetches bytes into the CPU cache. Does not bring pages into memory.
    #[inline]
    pub(crate) fn prefetch(&self, offset: u64, len: usize) {
        if let Some(bytes) = self.bytes(offset, len) {
            prefetch::lines(bytes);
        }
    }

    /// Bytes of the file that are mapped now. Grows while the window is the current one.
    #[inline]
    pub(crate) fn len_bytes(&self) -> u64 {
        self.window().mapped()
    }

    #[inline]
    pub(super) fn window(&self) -> &Window {
        // SAFETY: lifetime: the pin keeps the window, at its address. Aliasing: all changes of it
        // are atomic.
        unsafe { self.window.as_ref() }
    }

    /// Whether the kernel served every read through this mapping before this call. If not, bytes
    /// that were read may be zeros, and the mapping must not be used any more.
    #[inline]
    pub(crate) fn all_served(&self) -> bool {
        self.window().all_served()
    }

    /// The error of the access that failed, after [`ReadMap::all_served`] has returned false.
    #[cold]
    pub(crate) fn fault(&self) -> Error {
        if self.is_inherited() {
            return Error::Inherited { path: None };
        }
        let shared = self.window().shared();
        shared.error().unwrap_or_else(|| shared.error_at(self.len_bytes(), None))
    }

    /// Brings a range into memory. An access that the kernel cannot serve is [`Error::Fault`] here
    /// instead of a signal.
    pub(crate) fn probe(&self, offset: u64, len: usize) -> Result<()> {
        self.window().probe(offset, len as u64)
    }

    /// Whether this process inherited the mapping from its parent through `fork`.
    pub(crate) fn is_inherited(&self) -> bool {
        self.window().is_inherited()
    }

    /// Whether an access that the kernel cannot serve becomes an error. Otherwise it kills the
    /// process.
    #[inline]
    pub(crate) fn has_fault_guard(&self) -> bool {
        self.window().shared().fault_guard
    }

    /// The read-ahead of the file.
    #[inline]
    pub(crate) fn ahead(&self) -> &Ahead {
        &self.window().shared().ahead
    }

    /// The id of the window. Differs from [`super::Mapping::window_id`] once the mapping uses
    /// another one.
    pub(crate) fn window_id(&self) -> u64 {
        self.pin.window.id()
    }

    /// The verified byte of a page: 0 until [`ReadMap::set_verified`] stores one, and for a page
    /// outside the window.
    #[inline]
    pub(crate) fn verified_byte(&self, page: PageId) -> u8 {
        self.verified_cell(page).map_or(0, |byte| byte.load(Ordering::Relaxed))
    }

    /// Stores the verified byte of a page. Relaxed: a thread that does not see it yet verifies the
    /// page a second time.
    #[inline]
    pub(crate) fn set_verified(&self, page: PageId, value: u8) {
        if let Some(byte) = self.verified_cell(page) {
            byte.store(value, Ordering::Relaxed);
        }
    }

    #[inline]
    fn verified_cell(&self, page: PageId) -> Option<&AtomicU8> {
        // SAFETY: the bitmap of the window that the pin keeps, as long as the borrow of `self`
        // lives. It is mapped, `verified_len` bytes long, and accessed only through atomics.
        unsafe { verified_byte(self.verified_bitmap, self.verified_len, page) }
    }
}

impl std::fmt::Debug for ReadMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadMap").finish_non_exhaustive()
    }
}

//! The writable mapping: the writer's handle to the pages that it may store to.
//!
//! Floor: mapping. At most one exists per mapping. So a mutable borrow of it is a mutable borrow of
//! every page that this process can store to.
//!
//! Invariants:
//!   WMAP-1  only claimed, mapped pages are borrowed mutably. With a claim the writer promises
//!       that no snapshot reaches the page. Pages that the transaction has written by `pwrite`
//!       ([`crate::mapping::Mapping::write_pages`]) are recorded as written through: they are not
//!       borrowed mutably, so they do not change after that.
//!   WMAP-2  the meta pages (pages 0 and 1) are never claimed or borrowed. They are stored by copy,
//!       and decoding refuses pointers to them.
//!
//! Failure: storing to a page without a claim is a bug in the caller and panics.
#![allow(unsafe_code, reason = "slices of the writable mapping")]

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use super::bounds::page_range;
use super::claims::Claims;
use super::lease::Leases;
use super::window::Window;
use super::{Mapping, ReadMap};
use crate::ids::PageId;

/// The exclusive right to store to pages. Dropping it releases the right and all claims.
pub(crate) struct WriteMap {
    base: NonNull<u8>,
    page_shift: u32,
    pub(super) window: Arc<Window>,
    /// Pages that may be stored to.
    pub(super) claims: Claims,
    /// Pages that the transaction owns and does not store to: it writes them by `pwrite`, or has
    /// given them out.
    pub(super) written_through: Claims,
    pub(super) leases: Leases,
    /// The flag of the mapping that its `WriteMap` exists.
    taken: Arc<AtomicBool>,
}

// SAFETY: `base` leads into the writable range of `window`, which is kept. The `WriteMap` is the
// only handle to it, and the compiler checks its borrows in whichever thread has it.
unsafe impl Send for WriteMap {}
// SAFETY: `&WriteMap` gives out only shared slices.
unsafe impl Sync for WriteMap {}

impl Drop for WriteMap {
    fn drop(&mut self) {
        self.taken.store(false, Ordering::Release);
    }
}

impl WriteMap {
    /// Takes the right to store. `None` if another `WriteMap` has it, or if the window has no
    /// writable mapping.
    pub(super) fn take(window: Arc<Window>, taken: &Arc<AtomicBool>) -> Option<WriteMap> {
        let base = window.write_base()?;
        if taken.swap(true, Ordering::Acquire) {
            return None;
        }
        let page_shift = window.page_shift();
        Some(WriteMap {
            base,
            page_shift,
            window,
            claims: Claims::default(),
            written_through: Claims::default(),
            leases: Leases::default(),
            taken: Arc::clone(taken),
        })
    }

    /// Whether this is the `WriteMap` of a mapping.
    pub(super) fn belongs_to(&self, mapping: &Mapping) -> bool {
        Arc::ptr_eq(&self.taken, &mapping.write_map_taken)
    }

    /// Changes to another window of the same mapping, which has at least the pages of the old one.
    pub(super) fn switch(&mut self, window: Arc<Window>) {
        if let Some(base) = window.write_base() {
            let is_other = !Arc::ptr_eq(&window, &self.window);
            let before = std::mem::replace(&mut self.window, window);
            self.base = base;
            if is_other {
                self.leases.keep(before);
                self.allow_claimed_stores(true);
            }
        }
    }

    /// In a strict mapping, allows or forbids the writer to store to the claimed pages.
    fn allow_claimed_stores(&self, allowed: bool) {
        if !self.window.is_strict() {
            return;
        }
        for (id, pages) in self.claims.extents() {
            self.allow_stores(id, pages, allowed);
        }
    }

    #[inline]
    fn allow_stores(&self, id: PageId, pages: u64, allowed: bool) {
        if let Some((offset, len)) = self.mapped_range(id, pages) {
            self.window.allow_stores(offset as u64, len as u64, allowed);
        }
    }

    /// Bytes of the file that can be used through this writable mapping.
    #[inline]
    pub(crate) fn len_bytes(&self) -> u64 {
        self.window.mapped()
    }

    /// Records that the running transaction owns these pages and that no snapshot reaches them. A
    /// claim beyond the mapping, of a meta page or of a claimed page is a bug and panics.
    pub(crate) fn claim(&mut self, id: PageId, pages: u64) {
        assert!(id.0 >= 2, "a meta page cannot be claimed");
        assert!(self.mapped_range(id, pages).is_some(), "pages {id}+{pages} claimed beyond the mapping");
        self.claims.insert(id, pages);
        self.allow_stores(id, pages, true);
    }

    /// Removes a claim. Panics if there is none.
    pub(crate) fn unclaim(&mut self, id: PageId, pages: u64) {
        self.claims.remove(id, pages);
        self.allow_stores(id, pages, false);
    }

    #[inline]
    pub(crate) fn is_claimed(&self, id: PageId) -> bool {
        self.claims.contains(id)
    }

    /// Removes all claims at the end of the transaction.
    pub(crate) fn release_all(&mut self) {
        self.allow_claimed_stores(false);
        self.claims.clear();
        self.written_through.clear();
        self.leases.renew();
    }

    /// The read-only mapping of the window that is stored to.
    pub(crate) fn read_map(&self) -> ReadMap {
        ReadMap::new(Arc::clone(&self.window))
    }

    /// The id of the window that is stored to.
    pub(crate) fn window_id(&self) -> u64 {
        self.window.id()
    }

    /// Records that the running transaction owns these pages and writes them by `pwrite`, never by
    /// stores. Panics like [`WriteMap::claim`].
    pub(crate) fn add_written_through(&mut self, id: PageId, pages: u64) {
        assert!(id.0 >= 2, "a meta page cannot be written through");
        assert!(self.mapped_range(id, pages).is_some(), "pages {id}+{pages} written through beyond the mapping");
        assert!(!self.claims.contains_any(id, pages), "pages {id}+{pages} are claimed");
        self.written_through.insert(id, pages);
    }

    /// Removes pages from those written through. Panics for other pages.
    pub(crate) fn remove_written_through(&mut self, id: PageId, pages: u64) {
        self.written_through.remove(id, pages);
    }

    /// Whether every page of an extent is written through.
    pub(crate) fn is_written_through_extent(&self, id: PageId, pages: u64) -> bool {
        self.written_through.contains_all(id, pages)
    }

    /// Whether every page of an extent is claimed.
    pub(crate) fn is_claimed_extent(&self, id: PageId, pages: u64) -> bool {
        self.claims.contains_all(id, pages)
    }

    /// Whether the running transaction owns any page of an extent.
    pub(crate) fn owns_any(&self, id: PageId, pages: u64) -> bool {
        self.claims.contains_any(id, pages) || self.written_through.contains_any(id, pages)
    }

    /// The claimed pages as extents, ascending, neighbours joined.
    pub(crate) fn claimed_extents(&self) -> Vec<(PageId, u64)> {
        self.claims.extents()
    }

    /// Number of claimed pages.
    pub(crate) fn claimed_count(&self) -> u64 {
        self.claims.count()
    }

    /// Pages that the running transaction owns, claimed or written through.
    #[inline]
    pub(crate) fn owned_count(&self) -> u64 {
        self.claims.count() + self.written_through.count()
    }

    /// The offset and length in bytes of an extent, if it is mapped.
    #[inline]
    fn mapped_range(&self, id: PageId, pages: u64) -> Option<(usize, usize)> {
        let (offset, len) = page_range(id, pages, self.page_shift)?;
        // The sum fits (`page_range`), and a range inside the window fits `usize` because the
        // window does.
        (offset + len <= self.window.mapped()).then_some((offset as usize, len as usize))
    }

    /// Like `mapped_range`, for an extent that must be claimed; panics otherwise (WMAP-1).
    #[inline]
    #[track_caller]
    fn claimed_range(&self, id: PageId, pages: u64) -> (usize, usize) {
        let range = self.mapped_range(id, pages);
        match range {
            Some(range) if self.claims.contains_all(id, pages) => range,
            Some(_) => panic!("store to pages {id}+{pages} without a claim"),
            None => panic!("store to pages {id}+{pages} beyond the mapping"),
        }
    }

    /// The bytes of an extent, if it is mapped.
    #[inline]
    pub(crate) fn bytes(&self, id: PageId, pages: u64) -> Option<&[u8]> {
        let (offset, len) = self.mapped_range(id, pages)?;
        // SAFETY: bounds: mapped. Lifetime: the borrow of `self` keeps the window. Initialised:
        // file pages always are. Aliasing: mutable slices need `&mut self`, and no pointer to a
        // meta page is followed (WMAP-2).
        Some(unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset), len) })
    }

    /// The bytes of claimed pages, to store to. Panics for pages without a claim or beyond the
    /// mapping.
    #[inline]
    #[track_caller]
    pub(crate) fn bytes_mut(&mut self, id: PageId, pages: u64) -> &mut [u8] {
        let (offset, len) = self.claimed_range(id, pages);
        // SAFETY: bounds: mapped. Lifetime: the borrow of `self` keeps the window. Aliasing: that
        // borrow also excludes every other slice of the one writable mapping, and no snapshot
        // reaches claimed pages (WMAP-1). Initialised: file pages always are.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(offset), len) }
    }

    /// Ensures that storing to these pages cannot hit a full disk: returns `StorageFull` instead of
    /// a signal at the store. `Ok(false)`: the kernel does not support or permit that.
    pub(super) fn prefault(&self, id: PageId, pages: u64) -> io::Result<bool> {
        match self.mapped_range(id, pages) {
            Some((offset, len)) => self.window.prefault(offset as u64, len as u64),
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "prefaulting pages beyond the mapping")),
        }
    }
}

impl std::fmt::Debug for WriteMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteMap").finish_non_exhaustive()
    }
}

//! The writable mapping: the writer's handle to the read-write mapping.
//!
//! Floor: mapping. One at most exists per mapping, so that a mutable borrow of it is a mutable
//! borrow of every page that this process can store to.
//!
//! Invariants:
//!   WMAP-1  mutable bytes are given out of claimed, mapped pages alone: the claim is the writer's
//!       word that no snapshot reaches the page. Pages that the transaction owns and has written by
//!       calls ([`crate::mapping::Mapping::write_pages`]) are *kept*: they are not given out
//!       mutably any more, so they stay as they were written.
//!   WMAP-2  the meta pages (pages 0 and 1) are never claimed or borrowed; they are stored by copy,
//!       and decoding refuses pointers to them.
//!
//! Failure: storing to a page without a claim is a bug of ours and panics.
#![allow(unsafe_code, reason = "slices of the writable mapping")]

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use crate::error::Result;
use crate::ids::PageId;
use crate::mapping::claims::Claims;
use crate::mapping::window::{page_range, Window};

/// Exclusive right to store to pages. Given back when it is dropped, together with its claims.
pub(crate) struct WriteMap {
    base: NonNull<u8>,
    page_shift: u32,
    window: Arc<Window>,
    claims: Claims,
    kept: Claims,
    /// The mapping's word that a writable mapping is out.
    pub(super) out: Arc<AtomicBool>,
}

// SAFETY: `base` leads into the writable mapping range of `window`, which is kept; the writable
// mapping is the only handle to it, and whichever thread has it, its borrows are checked as usual.
unsafe impl Send for WriteMap {}
// SAFETY: `&WriteMap` gives shared slices alone.
unsafe impl Sync for WriteMap {}

impl Drop for WriteMap {
    fn drop(&mut self) {
        self.out.store(false, Ordering::Release);
    }
}

impl WriteMap {
    /// Takes the right, unless it is taken or the window has no writable mapping.
    pub(super) fn take(window: Arc<Window>, out: &Arc<AtomicBool>) -> Option<WriteMap> {
        let base = window.write_base()?;
        if out.swap(true, Ordering::Acquire) {
            return None;
        }
        let page_shift = window.page_shift();
        Some(WriteMap {
            base,
            page_shift,
            window,
            claims: Claims::default(),
            kept: Claims::default(),
            out: Arc::clone(out),
        })
    }

    /// Goes over to another window of the same mapping, which has at least the pages of the old
    /// one.
    pub(super) fn switch(&mut self, window: Arc<Window>) {
        if let Some(base) = window.write_base() {
            let other = !Arc::ptr_eq(&window, &self.window);
            (self.base, self.window) = (base, window);
            if other {
                self.set_claimed_open(true);
            }
        }
    }

    /// In a strict writable mapping, lets the claimed pages be stored to, or forbids it.
    fn set_claimed_open(&self, open: bool) {
        for (id, pages) in self.claims.extents() {
            self.set_open(id, pages, open);
        }
    }

    #[inline]
    fn set_open(&self, id: PageId, pages: u64, open: bool) {
        if let Some((offset, len)) = self.place(id, pages) {
            self.window.set_open(offset as u64, len as u64, open);
        }
    }

    /// Bytes of the file that can be used through this writable mapping.
    #[inline]
    pub(crate) fn len_bytes(&self) -> u64 {
        self.window.mapped()
    }

    /// Notes that the running transaction owns these pages and no snapshot reaches them. They are
    /// mapped; a claim beyond the mapping, of a meta page or of a claimed page is a bug and panics.
    pub(crate) fn claim(&mut self, id: PageId, pages: u64) {
        assert!(id.0 >= 2, "a meta page cannot be claimed");
        assert!(self.place(id, pages).is_some(), "pages {id}+{pages} claimed beyond the mapping");
        self.claims.insert(id, pages);
        self.set_open(id, pages, true);
    }

    /// Takes a claim back. Pages without a claim are a bug and panic.
    pub(crate) fn unclaim(&mut self, id: PageId, pages: u64) {
        self.claims.remove(id, pages);
        self.set_open(id, pages, false);
    }

    #[inline]
    pub(crate) fn is_claimed(&self, id: PageId) -> bool {
        self.claims.contains(id)
    }

    /// Takes all claims back: the transaction has ended.
    pub(crate) fn release_all(&mut self) {
        self.set_claimed_open(false);
        self.claims.clear();
        self.kept.clear();
    }

    /// Notes that the running transaction owns these pages and writes them by calls, never by
    /// stores. Panics like
    /// [`WriteMap::claim`].
    pub(crate) fn keep(&mut self, id: PageId, pages: u64) {
        assert!(id.0 >= 2, "a meta page cannot be kept");
        assert!(self.place(id, pages).is_some(), "pages {id}+{pages} kept beyond the mapping");
        assert!(!self.claims.contains_any(id, pages), "pages {id}+{pages} are claimed");
        self.kept.insert(id, pages);
    }

    /// Lets kept pages go. Others are a bug and panic.
    pub(crate) fn unkeep(&mut self, id: PageId, pages: u64) {
        self.kept.remove(id, pages);
    }

    /// Whether every page of a run is kept.
    pub(crate) fn is_written_through_extent(&self, id: PageId, pages: u64) -> bool {
        self.kept.contains_all(id, pages)
    }

    /// Whether every page of a run is claimed.
    pub(crate) fn is_claimed_extent(&self, id: PageId, pages: u64) -> bool {
        self.claims.contains_all(id, pages)
    }

    /// Whether the running transaction owns any page of a run.
    pub(crate) fn owns_any(&self, id: PageId, pages: u64) -> bool {
        self.claims.contains_any(id, pages) || self.kept.contains_any(id, pages)
    }

    /// The claimed pages as runs, ascending, neighbours joined.
    pub(crate) fn claimed_runs(&self) -> Vec<(PageId, u64)> {
        self.claims.extents()
    }

    #[cfg(test)]
    pub(crate) fn claimed_count(&self) -> u64 {
        self.claims.count()
    }

    /// Pages that the running transaction owns, claimed or kept.
    #[inline]
    pub(crate) fn owned_count(&self) -> u64 {
        self.claims.count() + self.kept.count()
    }

    /// The offset and length in bytes of pages that are mapped.
    #[inline]
    fn place(&self, id: PageId, pages: u64) -> Option<(usize, usize)> {
        let (offset, len) = page_range(id, pages, self.page_shift)?;
        // The sum fits (`page_range`), and what lies in the window fits `usize` as the window does.
        (offset + len <= self.window.mapped()).then_some((offset as usize, len as usize))
    }

    /// Same, for pages that are also claimed; panics otherwise (WMAP-1).
    #[inline]
    #[track_caller]
    fn claimed_place(&self, id: PageId, pages: u64) -> (usize, usize) {
        let place = self.place(id, pages);
        match place {
            Some(place) if self.claims.contains_all(id, pages) => place,
            Some(_) => panic!("store to pages {id}+{pages} without a claim"),
            None => panic!("store to pages {id}+{pages} beyond the mapping"),
        }
    }

    /// The bytes of any mapped pages.
    #[inline]
    pub(crate) fn bytes(&self, id: PageId, pages: u64) -> Option<&[u8]> {
        let (offset, len) = self.place(id, pages)?;
        // SAFETY: bounds: mapped. Lifetime: the borrow of `self` keeps the window. Initialised:
        // file pages always are. Aliasing: mutable slices of the writable mapping need `&mut self`,
        // and no pointer to a meta page is followed (WMAP-2).
        Some(unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset), len) })
    }

    /// The bytes of claimed pages, to store to. Pages without a claim or beyond the mapping are a
    /// bug and panic.
    #[inline]
    #[track_caller]
    pub(crate) fn bytes_mut(&mut self, id: PageId, pages: u64) -> &mut [u8] {
        let (offset, len) = self.claimed_place(id, pages);
        // SAFETY: bounds: mapped. Lifetime: the borrow of `self` keeps the window. Aliasing: it
        // also excludes any other slice of the one writable mapping, and no snapshot reaches
        // claimed pages (WMAP-1). Initialised: file pages always are.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(offset), len) }
    }

    /// Brings pages into memory: [`Error::Fault`](crate::error::Error::Fault) here, where an access
    /// would bring a signal.
    pub(crate) fn probe(&self, id: PageId, pages: u64) -> Result<()> {
        match self.place(id, pages) {
            Some((offset, len)) => self.window.probe(offset as u64, len as u64, true),
            None => Ok(()),
        }
    }

    /// Makes sure that storing to these pages cannot meet a full disk: `StorageFull` here instead
    /// of a signal there. `Ok(false)`: this kernel cannot say so, or refuses to.
    pub(super) fn prefault(&self, id: PageId, pages: u64) -> io::Result<bool> {
        match self.place(id, pages) {
            Some((offset, len)) => self.window.prefault(offset as u64, len as u64),
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "prefaulting pages beyond the mapping")),
        }
    }
}

impl std::fmt::Debug for WriteMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Canvas").finish_non_exhaustive()
    }
}

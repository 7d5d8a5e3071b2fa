//! Pages with a verified mark, for lookups: found in few steps.
//!
//! Floor: mapping. Bounds are taken once, when a snapshot begins, so that a lookup compares a page with one number and reads
//! one byte of the table of marks.
//!
//! Invariants:
//!   K1  every page below `pages` was mapped when this was made, and has a mark. What is mapped stays at its address (W2).
//!
//! Failure: `None` for pages without the mark; accesses that cannot be served are the guard's, as for every view.
#![allow(unsafe_code, reason = "addresses of mappings")]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::ids::PageId;
use crate::limits::PAGE_SIZE_MIN;
use crate::mapping::window::View;

/// The first pages of a view, with what a lookup asks of them in few steps.
#[derive(Clone, Debug)]
pub(crate) struct MarkedPages {
    view: View,
    page_shift: u32,
    /// All below are mapped and have a mark.
    pages: u64,
}

impl MarkedPages {
    /// The pages below `page_count`, as far as they are mapped now.
    pub(crate) fn new(view: View, page_shift: u32, page_count: u64) -> MarkedPages {
        let pages = page_count.min(view.len_bytes() >> page_shift).min(view.marks_len);
        MarkedPages { view, page_shift, pages }
    }

    #[inline]
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    pub(crate) fn into_view(self) -> View {
        self.view
    }

    #[inline]
    pub(crate) fn page_shift(&self) -> u32 {
        self.page_shift
    }

    /// Where a page begins, which is mapped.
    #[inline(always)]
    fn start(&self, page: PageId) -> Option<NonNull<u8>> {
        // SAFETY: bounds: below `pages`, so inside the range that was mapped when this was made; it stays at its address while
        // `view` pins the window (W2).
        (page.0 < self.pages).then(|| unsafe { self.view.base.add((page.0 << self.page_shift) as usize) })
    }

    /// The same of a page that has this mark.
    #[inline(always)]
    fn marked_start(&self, page: PageId, mark: u8) -> Option<NonNull<u8>> {
        let start = self.start(page)?;
        // SAFETY: bounds: inside the table, since `start` found it below `pages` (K1). Lifetime: `view` pins the window that
        // owns the table. Aliasing: the table is reached through atomics alone.
        let found =
            unsafe { AtomicU8::from_ptr(self.view.marks.as_ptr().add(page.0 as usize)) }.load(Ordering::Relaxed);
        (found == mark).then_some(start)
    }

    /// The bytes of a page that has this mark.
    #[inline(always)]
    pub(crate) fn marked(&self, page: PageId, mark: u8) -> Option<&[u8]> {
        let start = self.marked_start(page, mark)?;
        // SAFETY: bounds: all of a mapped page. Lifetime: the borrow of `self` holds the pin. Initialised: file pages always
        // are. Aliasing: nobody stores to a page that a reader may reach (see `View`).
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), 1 << self.page_shift) })
    }

    /// The first bytes of a page that has this mark.
    #[inline(always)]
    pub(crate) fn marked_front<const N: usize>(&self, page: PageId, mark: u8) -> Option<&[u8; N]> {
        const { assert!(N <= PAGE_SIZE_MIN) };
        let start = self.marked_start(page, mark)?;
        // SAFETY: bounds: no page is shorter. The rest as in `marked`.
        Some(unsafe { start.cast().as_ref() })
    }
}

/// The same without the question for the mark, to measure what it costs.
#[cfg(feature = "testing")]
impl MarkedPages {
    /// The bytes of a page.
    #[inline(always)]
    pub(crate) fn any(&self, page: PageId) -> Option<&[u8]> {
        let start = self.start(page)?;
        // SAFETY: as in `marked`.
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), 1 << self.page_shift) })
    }

    /// The first bytes of a page.
    #[inline(always)]
    pub(crate) fn any_front<const N: usize>(&self, page: PageId) -> Option<&[u8; N]> {
        const { assert!(N <= PAGE_SIZE_MIN) };
        let start = self.start(page)?;
        // SAFETY: as in `marked_front`.
        Some(unsafe { start.cast().as_ref() })
    }
}

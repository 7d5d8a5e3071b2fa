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

use super::window::View;
use crate::ids::PageId;
use crate::limits::PAGE_SIZE_MIN;

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

    #[inline]
    pub(crate) fn page_shift(&self) -> u32 {
        self.page_shift
    }

    /// Where a page that has this mark begins. The page is mapped.
    #[inline(always)]
    fn start(&self, page: PageId, mark: u8) -> Option<NonNull<u8>> {
        if page.0 >= self.pages {
            return None;
        }
        // SAFETY: inside the table, since below `pages`, and otherwise as in `mark_cell`.
        let found =
            unsafe { AtomicU8::from_ptr(self.view.marks.as_ptr().add(page.0 as usize)) }.load(Ordering::Relaxed);
        // SAFETY: below `pages`, so it was mapped when this was made, and what was mapped stays at its address (W2).
        (found == mark).then(|| unsafe { self.view.base.add((page.0 << self.page_shift) as usize) })
    }

    /// The bytes of a page that has this mark.
    #[inline(always)]
    pub(crate) fn marked(&self, page: PageId, mark: u8) -> Option<&[u8]> {
        let start = self.start(page, mark)?;
        // SAFETY: a mapped page, and the rest as in `View::bytes`.
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), 1 << self.page_shift) })
    }

    /// The first bytes of a page that has this mark.
    #[inline(always)]
    pub(crate) fn marked_front<const N: usize>(&self, page: PageId, mark: u8) -> Option<&[u8; N]> {
        const { assert!(N <= PAGE_SIZE_MIN) };
        let start = self.start(page, mark)?;
        // SAFETY: a mapped page, none of which is shorter, and the rest as in `View::bytes`.
        Some(unsafe { start.cast().as_ref() })
    }
}

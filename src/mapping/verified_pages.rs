//! Verified pages: access to the bytes of a page in a few instructions, for lookups.
//!
//! Floor: mapping. Bounds are computed once, when a snapshot begins. A lookup then compares the
//! page id with one bound and loads one byte of the verified bitmap.
//!
//! Invariants:
//!   VERIFIED-1  every page below `pages` was mapped when this was made, and has a byte in the
//!       verified bitmap. Mapped pages stay at their address (WIN-2).
//!
//! Failure: `None` for a page that is outside or not verified. An access that the kernel cannot
//! serve reads zeros, as for every read-only mapping.
#![allow(unsafe_code, reason = "addresses of mappings")]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use super::ReadMap;
use crate::ids::PageId;
use crate::limits::PAGE_SIZE_MIN;

/// The first pages of a read-only mapping, with fast access to those that were verified.
#[derive(Clone, Debug)]
pub(crate) struct VerifiedPages {
    read_map: ReadMap,
    page_shift: u32,
    /// All pages below are mapped and have a verified byte.
    pages: u64,
}

impl VerifiedPages {
    /// The pages below `page_count` that are mapped now.
    pub(crate) fn new(read_map: ReadMap, page_shift: u32, page_count: u64) -> VerifiedPages {
        let pages = page_count.min(read_map.len_bytes() >> page_shift).min(read_map.verified_len);
        VerifiedPages { read_map, page_shift, pages }
    }

    #[inline]
    pub(crate) fn read_map(&self) -> &ReadMap {
        &self.read_map
    }

    pub(crate) fn into_read_map(self) -> ReadMap {
        self.read_map
    }

    #[inline]
    pub(crate) fn page_shift(&self) -> u32 {
        self.page_shift
    }

    /// The address of a page, if it is below `pages`.
    #[inline(always)]
    pub(super) fn start(&self, page: PageId) -> Option<NonNull<u8>> {
        // SAFETY: bounds: below `pages`, so inside the range that was mapped when this was made. It
        // stays at its address while `read_map` pins the window (WIN-2).
        (page.0 < self.pages).then(|| unsafe { self.read_map.base.add((page.0 << self.page_shift) as usize) })
    }

    /// The address of a page whose verified byte is `expected`.
    #[inline(always)]
    fn verified_start(&self, page: PageId, expected: u8) -> Option<NonNull<u8>> {
        let start = self.start(page)?;
        // SAFETY: bounds: inside the bitmap, because `start` found the page below `pages`
        // (VERIFIED-1). Lifetime: `read_map` pins the window that owns the bitmap. Aliasing: the
        // bitmap is accessed only through atomics.
        let verified_byte = unsafe { AtomicU8::from_ptr(self.read_map.verified_bitmap.as_ptr().add(page.0 as usize)) }
            .load(Ordering::Relaxed);
        (verified_byte == expected).then_some(start)
    }

    /// The bytes of a page whose verified byte is `expected`.
    #[inline(always)]
    pub(crate) fn verified(&self, page: PageId, expected: u8) -> Option<&[u8]> {
        let start = self.verified_start(page, expected)?;
        // SAFETY: bounds: one mapped page. Lifetime: the borrow of `self` keeps the pin.
        // Initialised: file pages always are. Aliasing: no thread stores to a page that a reader
        // may reach (see `ReadMap`).
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), 1 << self.page_shift) })
    }

    /// The first bytes of a page whose verified byte is `expected`.
    #[inline(always)]
    pub(crate) fn verified_front<const N: usize>(&self, page: PageId, expected: u8) -> Option<&[u8; N]> {
        const { assert!(N <= PAGE_SIZE_MIN) };
        let start = self.verified_start(page, expected)?;
        // SAFETY: bounds: no page is shorter than `N` bytes. The rest as in `verified`.
        Some(unsafe { start.cast().as_ref() })
    }
}

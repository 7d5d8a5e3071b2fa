//! Pages with a verified byte, for lookups: found in few steps.
//!
//! Floor: mapping. Bounds are taken once, when a snapshot begins, so that a lookup compares a page
//! with one number and reads one byte of the verified bitmap.
//!
//! Invariants:
//!   VERIFIED-1  every page below `pages` was mapped when this was made, and has a mark. What is
//!               mapped stays at its address (WIN-2).
//!
//! Failure: `None` for pages without the mark; accesses that cannot be served are the SIGBUS
//! handler's, as for every read-only mapping.
#![allow(unsafe_code, reason = "addresses of mappings")]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::ids::PageId;
use crate::limits::PAGE_SIZE_MIN;
use crate::mapping::window::ReadMap;

/// The first pages of a read-only mapping, with what a lookup asks of them in few steps.
#[derive(Clone, Debug)]
pub(crate) struct VerifiedPages {
    read_map: ReadMap,
    page_shift: u32,
    /// All below are mapped and have a mark.
    pages: u64,
}

impl VerifiedPages {
    /// The pages below `page_count`, as far as they are mapped now.
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

    /// Where a page begins, which is mapped.
    #[inline(always)]
    fn start(&self, page: PageId) -> Option<NonNull<u8>> {
        // SAFETY: bounds: below `pages`, so inside the range that was mapped when this was made; it
        // stays at its address while `read_map` pins the window (WIN-2).
        (page.0 < self.pages).then(|| unsafe { self.read_map.base.add((page.0 << self.page_shift) as usize) })
    }

    /// The same of a page that has this mark.
    #[inline(always)]
    fn verified_start(&self, page: PageId, verified_byte: u8) -> Option<NonNull<u8>> {
        let start = self.start(page)?;
        // SAFETY: bounds: inside the table, since `start` found it below `pages` (VERIFIED-1).
        // Lifetime: `read_map` pins the window that owns the table. Aliasing: the table is reached
        // through atomics alone.
        let found = unsafe { AtomicU8::from_ptr(self.read_map.verified_bytes.as_ptr().add(page.0 as usize)) }
            .load(Ordering::Relaxed);
        (found == verified_byte).then_some(start)
    }

    /// The bytes of a page that has this mark.
    #[inline(always)]
    pub(crate) fn verified(&self, page: PageId, verified_byte: u8) -> Option<&[u8]> {
        let start = self.verified_start(page, verified_byte)?;
        // SAFETY: bounds: all of a mapped page. Lifetime: the borrow of `self` holds the pin.
        // Initialised: file pages always are. Aliasing: nobody stores to a page that a reader may
        // reach (see `ReadMap`).
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), 1 << self.page_shift) })
    }

    /// The first bytes of a page that has this mark.
    #[inline(always)]
    pub(crate) fn verified_front<const N: usize>(&self, page: PageId, verified_byte: u8) -> Option<&[u8; N]> {
        const { assert!(N <= PAGE_SIZE_MIN) };
        let start = self.verified_start(page, verified_byte)?;
        // SAFETY: bounds: no page is shorter. The rest as in `verified`.
        Some(unsafe { start.cast().as_ref() })
    }
}

/// The same without the question for the mark, to measure what it costs.
#[cfg(feature = "testing")]
impl VerifiedPages {
    /// The bytes of a page.
    #[inline(always)]
    pub(crate) fn any(&self, page: PageId) -> Option<&[u8]> {
        let start = self.start(page)?;
        // SAFETY: as in `verified`.
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), 1 << self.page_shift) })
    }

    /// The first bytes of a page.
    #[inline(always)]
    pub(crate) fn any_front<const N: usize>(&self, page: PageId) -> Option<&[u8; N]> {
        const { assert!(N <= PAGE_SIZE_MIN) };
        let start = self.start(page)?;
        // SAFETY: as in `verified_front`.
        Some(unsafe { start.cast().as_ref() })
    }
}

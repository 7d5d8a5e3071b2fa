//! The verified bitmap of a window: which pages this process has verified, one byte each.
//!
//! Floor: mapping. The byte of a page is 0 until a reader or the writer has computed the page's
//! checksum. Then it is derived from the checksum (see the pager), so that the byte of an old page
//! does not match its replacement. The bitmap is private memory of zeros. Only the parts that were
//! stored to take memory.
//!
//! Failure: `io::Error` if there is no address space for it.
#![allow(unsafe_code, reason = "addresses of mappings")]

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use super::bounds::round_up;
use super::budget::BudgetShare;
use super::shared::Shared;
use crate::ids::PageId;
use crate::sys::{call, memory_calls};

/// One byte for each page that a window has room for.
pub(super) struct VerifiedBitmap {
    base: NonNull<u8>,
    len: u64,
    _budget_share: BudgetShare,
}

impl VerifiedBitmap {
    pub(super) fn new(pages: u64, shared: &Shared) -> io::Result<VerifiedBitmap> {
        let len = round_up(pages.max(1), call::page_bytes())?;
        let budget_share = BudgetShare::new(len, &shared.reserved);
        Ok(VerifiedBitmap { base: memory_calls::zeroed(len)?, len, _budget_share: budget_share })
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Sets all verified bytes to 0.
    pub(super) fn clear(&self) {
        // SAFETY: the bitmap is private anonymous memory, which threads access only through
        // atomics.
        if unsafe { memory_calls::zero_again(self.base, self.len) }.is_err() {
            for page in 0..self.len {
                // SAFETY: the bitmap is mapped memory of `len` bytes, accessed only through
                // atomics, and the reference ends before `self` does.
                if let Some(byte) = unsafe { verified_byte(self.base, self.len, PageId(page)) } {
                    byte.store(0, Ordering::Relaxed);
                }
            }
        }
    }
}

impl Drop for VerifiedBitmap {
    fn drop(&mut self) {
        // SAFETY: the range is ours. All its users hold an `Arc` of the window (WIN-3), which is
        // dropped.
        unsafe { memory_calls::unmap(self.base, self.len) }
    }
}

/// The verified byte of a page in a bitmap of `len` bytes; `None` for a page outside.
///
/// # Safety
/// `bitmap` is mapped memory of `len` bytes, accessed only through atomics, as long as the returned
/// reference lives.
#[inline]
pub(super) unsafe fn verified_byte<'a>(bitmap: NonNull<u8>, len: u64, page: PageId) -> Option<&'a AtomicU8> {
    // SAFETY: bounds: the test keeps the address inside the bitmap. A byte is always aligned, and
    // mapped memory is initialised.
    (page.0 < len).then(|| unsafe { AtomicU8::from_ptr(bitmap.as_ptr().add(page.0 as usize)) })
}

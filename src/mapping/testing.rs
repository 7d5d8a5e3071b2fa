//! Functions of the mapping for tests and benchmarks only.
//!
//! Floor: mapping. Present only with the feature `testing`.
#![allow(unsafe_code, reason = "addresses of mappings")]

use std::sync::atomic::Ordering;
use std::sync::Arc;

use super::read_ahead::Ahead;
use super::{budget, Mapping, VerifiedPages};
use crate::hooks;
use crate::ids::PageId;
use crate::limits::PAGE_SIZE_MIN;

/// Bytes of address space that all databases of this process have reserved.
#[allow(unreachable_pub, reason = "public for the integration tests, through the crate root")]
pub fn reserved() -> u64 {
    budget::RESERVED.load(Ordering::Relaxed)
}

impl Mapping {
    /// Makes read-ahead assume that `bytes` of memory are available.
    pub(crate) fn set_room(&self, bytes: u64) {
        self.shared.ahead.set_room(bytes);
    }

    /// Sets the hooks of this mapping.
    pub(crate) fn set_hooks(&self, hooks: Arc<dyn hooks::Hooks>) {
        self.hooks.set(hooks);
    }

    /// Number of successful flushes.
    pub(crate) fn flush_count(&self) -> u64 {
        self.hooks.flush_count()
    }
}

impl Ahead {
    /// Makes read-ahead assume that `bytes` of memory are available.
    pub(super) fn set_room(&self, bytes: u64) {
        self.room.until.store(u64::MAX, Ordering::Relaxed);
        self.room.bytes.store(bytes, Ordering::Relaxed);
    }
}

/// Access to pages without checking their verified bytes, to measure the cost of the check.
impl VerifiedPages {
    /// The bytes of a page.
    #[inline(always)]
    pub(crate) fn any(&self, page: PageId) -> Option<&[u8]> {
        let start = self.start(page)?;
        // SAFETY: bounds: `start` found one mapped page. Lifetime: the borrow of `self` keeps the
        // pin. Aliasing: no thread stores to a page that a reader may reach (see `ReadMap`).
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), 1 << self.page_shift()) })
    }

    /// The first bytes of a page.
    #[inline(always)]
    pub(crate) fn any_front<const N: usize>(&self, page: PageId) -> Option<&[u8; N]> {
        const { assert!(N <= PAGE_SIZE_MIN) };
        let start = self.start(page)?;
        // SAFETY: bounds: no page is shorter than `N` bytes. Lifetime and aliasing: as in `any`.
        Some(unsafe { start.cast().as_ref() })
    }
}

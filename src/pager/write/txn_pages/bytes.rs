//! The bytes of pages: in memory, in the write queue, or to be read and verified first.
//!
//! Floor: pager. Part of [`TxnPages`].
//!
//! Failure: [`Error::Corrupt`](crate::error::Error::Corrupt) outside the state and for a wrong
//! checksum, [`Error::Fault`](crate::error::Error::Fault) for a page that cannot be read.

use std::sync::PoisonError;

use super::TxnPages;
use crate::error::Result;
use crate::hooks::{self, Mutant};
use crate::ids::{PageId, PagePtr};
use crate::pager::read::residency::FirstTouch;
use crate::pager::read::snapshot_pages::{beyond_end, verified_byte_of, verify_first_touch};
use crate::pager::write::leaf_facts::LeafFact;

impl TxnPages {
    /// Reads a page or extent without a verified byte into memory, and verifies it.
    #[cold]
    pub(super) fn touch(&self, ptr: PagePtr, pages: u64) -> Result<&[u8]> {
        self.await_written(ptr.id)?;
        let bytes = self.committed(ptr.id, pages)?;
        let first_touch = FirstTouch {
            read_map: &self.read_map,
            offset: ptr.id.0 << self.page_shift,
            len: bytes.len(),
            is_extent: pages > 1,
            end: self.page_count << self.page_shift,
        };
        first_touch.bring()?;
        verify_first_touch(&self.read_map, ptr, bytes)
    }

    /// Waits until a page that may be in the write queue is written. It must not be borrowed
    /// earlier (QUEUE-1).
    pub(super) fn await_written(&self, id: PageId) -> Result<()> {
        if self.read_map.is_inherited() {
            return Err(self.read_map.fault());
        }
        if let Some(write_queue) = &self.write_queue {
            // The queue stores an error until `finish` returns it.
            write_queue.lock().unwrap_or_else(PoisonError::into_inner).bring(id, &self.read_map);
        }
        Ok(())
    }

    /// The bytes of pages that are neither claimed nor in the write queue. They are read through
    /// the read-only mapping: checkpoints remove pages from the page tables of the writable one.
    #[inline]
    pub(super) fn committed(&self, id: PageId, pages: u64) -> Result<&[u8]> {
        let (offset, len) = (id.0 << self.page_shift, pages << self.page_shift);
        self.read_map.bytes(offset, len as usize).ok_or_else(|| beyond_end(id, pages, self.page_count))
    }

    /// The bytes of claimed pages.
    #[inline]
    pub(super) fn mapped(&self, id: PageId, pages: u64) -> Result<&[u8]> {
        self.write_map.bytes(id, pages).ok_or_else(|| beyond_end(id, pages, self.page_count))
    }

    /// Whether what was noted of a leaf describes the page that the pointer leads to. A dirty page
    /// may have changed since it was sealed.
    pub(super) fn still_holds(&self, ptr: PagePtr, fact: &LeafFact) -> bool {
        if hooks::is(Mutant::StaleLeafFact) {
            return true;
        }
        let is_sealed = self.read_map.verified_byte(ptr.id) == verified_byte_of(ptr.crc);
        let holds = is_sealed && ptr.id.0 < self.page_count && !self.write_map.is_claimed(ptr.id);
        debug_assert!(
            !holds
                || !self.read_map.all_served()
                || self.committed(ptr.id, 1).is_ok_and(|page| LeafFact::of(page, ptr.id) == Some(*fact)),
            "what is remembered of leaf {} is wrong",
            ptr.id
        );
        holds
    }
}

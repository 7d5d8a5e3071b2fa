//! The two traits through which the floors above access pages: one only reads, the other also
//! allocates.
//!
//! Floor: pager. A read path uses only [`PageRead`] and so cannot allocate, free or change a page.
//! Tests run the tree over a `Vec` of pages that implements both traits.
//!
//! Invariants of every implementation:
//!   PAGES-1  While the store is borrowed, the bytes of a page that is not dirty do not change
//!       (R1).
//!   PAGES-2  A page that is returned has been verified against the checksum in its pointer (R2).
//!       Pages of the running transaction are exempt; the commit seals their pointers.
//!   PAGES-3  Every slice is exactly one page, or exactly one overflow extent.
//!
//! Failure: a pointer outside the store or a checksum mismatch is `Error::Corrupt`. A page that
//! cannot be read from the disk on first touch is `Error::Fault`. If the kernel drops a page and
//! cannot read it again, it reads as zeros; [`PageRead::check_fault`] detects this before a result
//! reaches the caller. [`PageWrite::page_mut`] of a page that is not dirty is `Error::Corrupt`.

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr, TreeId, TxnId};
use crate::limits::PAGE_SIZE_MIN;
use crate::page::header::PageStamp;
use crate::page::layout::Front;
use crate::page::{checksum, lookup, overflow};
use crate::pager::read::residency::Residency;
use crate::pager::write::leaf_facts::LeafFact;

/// Pages that can be read.
pub(crate) trait PageRead: Residency {
    /// The page size in bytes.
    fn page_size(&self) -> usize;

    /// The page that `ptr` refers to. Checks the bounds, and the checksum on first touch (not of
    /// dirty pages).
    fn page(&self, ptr: PagePtr) -> Result<&[u8]>;

    /// The page, if it is already verified and its header is sound (`lookup::is_sound`). On `None`
    /// the caller uses [`PageRead::page`], which verifies the page or returns the error.
    ///
    /// For point lookups: the result fits two registers.
    #[inline]
    fn page_fast(&self, ptr: PagePtr) -> Option<&[u8]> {
        self.page(ptr).ok().filter(|page| lookup::is_sound(page, ptr.id))
    }

    /// The first bytes of [`PageRead::page_fast`]. The result fits one register.
    #[inline(always)]
    fn front_fast(&self, ptr: PagePtr) -> Option<&Front> {
        self.page_fast(ptr)?.first_chunk()
    }

    /// The overflow extent of `pages` pages that `ptr` refers to, checked like a page.
    fn extent(&self, ptr: PagePtr, pages: u64) -> Result<&[u8]>;

    /// Whether the kernel has served every access so far. If not, bytes that were read may be
    /// zeros, and [`PageRead::fault`] returns the error.
    #[inline]
    fn all_served(&self) -> bool {
        true
    }

    /// The error of the failed access, after [`PageRead::all_served`] returned false.
    #[cold]
    fn fault(&self) -> Error {
        Error::Fault { path: None, offset: 0, cause: "these pages are in memory".to_string() }
    }

    /// Returns `result`, or the error of a failed access. After a failed access no result can be
    /// trusted: neither "found", nor "absent", nor "damaged".
    #[inline]
    fn check_fault<T>(&self, result: Result<T>) -> Result<T> {
        if self.all_served() {
            result
        } else {
            Err(self.fault())
        }
    }

    /// Prefetches bytes of a page into the CPU cache. A cheap hint that never faults.
    #[inline]
    fn prefetch(&self, _id: PageId, _from: usize, _bytes: usize) {}
}

/// Pages that can be allocated, changed and freed by one write transaction.
pub(crate) trait PageWrite: PageRead {
    /// The id of the running transaction.
    fn txn(&self) -> TxnId;

    /// Whether this transaction allocated the page, so that it may change it in place.
    fn is_dirty(&self, id: PageId) -> bool;

    /// Number of dirty pages, of all trees.
    fn dirty_count(&self) -> u64;

    /// Allocates a page, lets `build` fill it, and seals it. `build` gets a page with arbitrary
    /// contents and must write all of it. An implementation may write the page through: then it is
    /// not dirty afterwards, and a later change copies it.
    fn write_new(&mut self, build: impl FnOnce(&mut [u8], PageId) -> Result<()>) -> Result<PagePtr> {
        let id = self.alloc(1)?;
        build(self.page_mut(id)?, id)?;
        let ptr = PagePtr { id, crc: checksum::seal(self.page_mut(id)?) };
        self.set_verified_sealed(ptr);
        Ok(ptr)
    }

    /// Allocates an overflow extent, writes a value to it and seals it. As with
    /// [`PageWrite::write_new`], it may not be dirty afterwards.
    fn write_value(&mut self, tree: TreeId, value: &[u8]) -> Result<PagePtr>
    where
        Self: Sized,
    {
        store_value(self, tree, value)
    }

    /// Allocates a dirty page that appends will fill. When it is full, the caller calls
    /// [`PageWrite::finish_filling`].
    fn alloc_to_fill(&mut self) -> Result<PageId> {
        self.alloc(1)
    }

    /// Ends the filling of a page that [`PageWrite::alloc_to_fill`] returned. An implementation may
    /// seal the page and write it through. Then it returns the pointer, and the page is no longer
    /// dirty. `None`: the page stays dirty.
    fn finish_filling(&mut self, _id: PageId) -> Result<Option<PagePtr>> {
        Ok(None)
    }

    /// Allocates consecutive pages. They are dirty, and the caller initialises all their bytes.
    fn alloc(&mut self, pages: u64) -> Result<PageId>;

    /// Frees pages that transaction `born` wrote. Dirty pages are usable again at once; others
    /// become pending.
    fn free(&mut self, id: PageId, pages: u64, born: TxnId);

    /// Mutable access to a dirty page. `Corrupt` if the page is not dirty: callers ask for such a
    /// page only if the file lists a page as free that is in use.
    fn page_mut(&mut self, id: PageId) -> Result<&mut [u8]>;

    /// Copies a page to a dirty one.
    fn copy(&mut self, from: PagePtr, to: PageId) -> Result<()>
    where
        Self: Sized,
    {
        copy_through_stack(self, from, to)
    }

    /// Mutable access to a dirty extent. Fails like [`PageWrite::page_mut`].
    fn extent_mut(&mut self, id: PageId, pages: u64) -> Result<&mut [u8]>;

    /// The transaction that wrote an overflow extent, or an earlier one. Reads only the header and
    /// verifies nothing, so that a damaged value can be replaced or removed. A damaged header can
    /// only delay the reuse of the extent.
    fn extent_born(&self, id: PageId, pages: u64) -> Result<TxnId>;

    /// Notes that the transaction has stored a long key or separator, so that its state needs the
    /// feature.
    fn note_long_key(&mut self) {}

    /// What is known of the leaf that a pointer of a branch leads to, without reading it.
    fn leaf_fact(&self, _ptr: PagePtr) -> Option<LeafFact> {
        None
    }

    /// Records the final checksum of a dirty page, so that readers need not verify it after the
    /// commit.
    fn set_verified_sealed(&mut self, ptr: PagePtr);
}

/// Copies a page to a dirty one, a chunk at a time, for pages that lie in one store.
pub(crate) fn copy_through_stack<P: PageWrite>(pages: &mut P, from: PagePtr, to: PageId) -> Result<()> {
    for start in (0..pages.page_size()).step_by(PAGE_SIZE_MIN) {
        let mut chunk = [0u8; PAGE_SIZE_MIN];
        chunk.copy_from_slice(&pages.page(from)?[start..start + PAGE_SIZE_MIN]);
        pages.page_mut(to)?[start..start + PAGE_SIZE_MIN].copy_from_slice(&chunk);
    }
    Ok(())
}

/// Writes a value into an overflow extent by stores to the mapping.
pub(crate) fn store_value<P: PageWrite>(pages: &mut P, tree: TreeId, value: &[u8]) -> Result<PagePtr> {
    let (page_size, txn) = (pages.page_size(), pages.txn());
    let count = overflow::overflow_pages(page_size, value.len() as u64);
    let id = pages.alloc(count)?;
    let crc = overflow::write(pages.extent_mut(id, count)?, page_size, PageStamp::new(id, tree, txn), value);
    let ptr = PagePtr { id, crc };
    pages.set_verified_sealed(ptr);
    Ok(ptr)
}

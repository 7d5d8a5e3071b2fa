//! How the floors above see pages: two narrow traits, one that can only read and one that can also allocate.
//!
//! Floor: pager. A read path is written against [`PageRead`] and so cannot allocate, free or change a page;
//! the tree is tested over a `Vec` of pages that implements both.
//!
//! Invariants that every implementation keeps and every user relies on:
//!   PAGES-1  the bytes behind a pointer to a page that is not dirty do not change while the store is borrowed (R1).
//!   PAGES-2  a page that is handed out has been verified against the checksum of the pointer that led to it (R2);
//!       pages of the running transaction are exempt, their pointers are sealed at commit.
//!   PAGES-3  every slice is exactly one page, or exactly one run.
//!
//! Failure: a pointer outside the store or a checksum that does not match is `Error::Corrupt`; a page that cannot be
//! brought into memory is `Error::Fault`, and one that cannot be kept there reads as zeros, which whoever answers a
//! caller finds out by `check_fault`; asking for a mutable page that this transaction did not allocate is a bug and panics.

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr, TreeId, TxnId};
use crate::page::layout::Front;
use crate::page::{checksum, lookup, overflow};
use crate::pager::read::residency::Residency;

/// Pages that can be read.
pub(crate) trait PageRead: Residency {
    /// The page size in bytes.
    fn page_size(&self) -> usize;

    /// The page behind a pointer: bounds are checked, and the checksum on first touch (not for dirty pages).
    fn page(&self, ptr: PagePtr) -> Result<&[u8]>;

    /// The page, if nothing stands against handing it out at once, and its header is sound (`lookup::is_sound`). Else
    /// [`PageRead::page`] does, or says what is wrong.
    ///
    /// For lookups: the answer fits two registers.
    #[inline]
    fn page_at_once(&self, ptr: PagePtr) -> Option<&[u8]> {
        self.page(ptr).ok().filter(|page| lookup::is_sound(page, ptr.id))
    }

    /// The first bytes of [`PageRead::page_at_once`]; fits one register.
    #[inline(always)]
    fn front_at_once(&self, ptr: PagePtr) -> Option<&Front> {
        self.page_at_once(ptr)?.first_chunk()
    }

    /// An overflow extent of this many pages, verified likewise.
    fn extent(&self, ptr: PagePtr, pages: u64) -> Result<&[u8]>;

    /// Whether everything that was read before this call could be served by the system. If not, what was read may be zeros,
    /// and [`PageRead::fault`] says what happened.
    #[inline]
    fn all_served(&self) -> bool {
        true
    }

    /// The error of what could not be served, after [`PageRead::all_served`] has said no.
    #[cold]
    fn fault(&self) -> Error {
        Error::Fault { path: None, offset: 0, cause: "these pages lie in memory".to_string() }
    }

    /// Gives on what was found, unless something on the way to it could not be served: then nothing is believed, neither
    /// that it is there nor that it is not, nor that it is damaged.
    #[inline]
    fn check_fault<T>(&self, found: Result<T>) -> Result<T> {
        if self.all_served() {
            found
        } else {
            Err(self.fault())
        }
    }

    /// Says that bytes of a page will be read soon. A hint that costs little and never faults.
    #[inline]
    fn prefetch(&self, _id: PageId, _from: usize, _bytes: usize) {}
}

/// Pages that can be allocated, changed and freed by one write transaction.
pub(crate) trait PageWrite: PageRead {
    /// The running transaction.
    fn txn(&self) -> TxnId;

    /// Whether this transaction allocated the page and may change it in place.
    fn is_dirty(&self, id: PageId) -> bool;

    /// Allocates a page, has `build` fill it, whose bytes may be anything before, and seals it. Where
    /// the store can write such pages more cheaply than dirty ones, the page is not dirty afterwards: whoever changes it
    /// later copies it.
    fn write_new(&mut self, build: impl FnOnce(&mut [u8], PageId) -> Result<()>) -> Result<PagePtr> {
        let id = self.alloc(1)?;
        build(self.page_mut(id)?, id)?;
        let ptr = PagePtr { id, crc: checksum::seal(self.page_mut(id)?) };
        self.set_verified_sealed(ptr);
        Ok(ptr)
    }

    /// Allocates the run of a value, writes and seals it. As with [`PageWrite::write_new`] it need not be dirty afterwards.
    fn write_value(&mut self, tree: TreeId, value: &[u8]) -> Result<PagePtr>
    where
        Self: Sized,
    {
        store_value(self, tree, value)
    }

    /// Allocates a page that will be filled without a look at others, and settled then.
    fn alloc_to_fill(&mut self) -> Result<PageId> {
        self.alloc(1)
    }

    /// Takes a dirty page that was filled and is expected to stay as it is. Where the store can write it more cheaply by
    /// itself, it is sealed, and not dirty afterwards, as after [`PageWrite::write_new`].
    fn settle(&mut self, _id: PageId) -> Result<Option<PagePtr>> {
        Ok(None)
    }

    /// Allocates consecutive pages. They are dirty, and the caller initialises all their bytes.
    fn alloc(&mut self, pages: u64) -> Result<PageId>;

    /// Lets go of pages that the transaction `born` wrote. Dirty ones come back at once, others become pending.
    fn free(&mut self, id: PageId, pages: u64, born: TxnId);

    /// A dirty page, to be changed. One that is not dirty is refused: only a file that contradicts itself, in which a page
    /// is both free and in use, makes a caller ask for one.
    fn page_mut(&mut self, id: PageId) -> Result<&mut [u8]>;

    /// A dirty run, to be changed. Refuses like [`PageWrite::page_mut`].
    fn extent_mut(&mut self, id: PageId, pages: u64) -> Result<&mut [u8]>;

    /// The transaction that wrote a run, or an earlier one. Reads its header alone and verifies nothing, so that a value
    /// that is damaged can be replaced or removed; what is damaged there can only keep the run from being reused for
    /// longer, or be noticed by those who could not read it anyway.
    fn extent_born(&self, id: PageId, pages: u64) -> Result<TxnId>;

    /// Says that a dirty page now has this checksum, so that it counts as verified once it is committed.
    fn set_verified_sealed(&mut self, ptr: PagePtr);
}

/// Writes the run of a value by stores.
pub(crate) fn store_value<P: PageWrite>(pages: &mut P, tree: TreeId, value: &[u8]) -> Result<PagePtr> {
    let (page_size, txn) = (pages.page_size(), pages.txn());
    let count = overflow::overflow_pages(page_size, value.len() as u64);
    let id = pages.alloc(count)?;
    let crc = overflow::write(pages.extent_mut(id, count)?, page_size, id, tree, txn, value);
    let ptr = PagePtr { id, crc };
    pages.set_verified_sealed(ptr);
    Ok(ptr)
}

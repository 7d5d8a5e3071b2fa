//! Lending pages to the table handles of a transaction, which keep them borrowed while other tables
//! change.
//!
//! Floor: pager. Part of [`TxnPages`]. The argument why this is sound is in `mapping/lease.rs`; the
//! part of the pager in it:
//!   LEND-1  only bytes of the mapping are lent. The page in the append buffer goes to the mapping
//!           first, because the memory of the buffer is used again. All other private memory (the
//!           write queue, the page that is being built) is never borrowed by a reader (QUEUE-1).
//!   LEND-2  a page that was lent stays dirty, written through or committed until its tree changes.
//!           No page that was lent is written by `pwrite`: it was verified before, so it is not in
//!           the write queue, and a page in the append buffer is not lent.
//!
//! Failure: errors of allocating.

use super::TxnPages;
use crate::error::Result;
use crate::mapping::{Lease, OwnedExtent};
use crate::pager::PageWrite as _;

impl TxnPages {
    /// A lease for one tree, for a handle that lends its pages.
    pub(crate) fn lease(&self) -> Lease {
        self.write_map.lease()
    }

    /// Lends bytes of a page or extent that these pages have returned, for as long as the lease is
    /// borrowed. `None` for the page in the append buffer, whose memory is used again:
    /// [`TxnPages::put_down`] moves it to the mapping.
    #[inline]
    pub(crate) fn lend<'l>(&self, lease: &'l Lease, bytes: &[u8]) -> Option<&'l [u8]> {
        self.write_map.lend(lease, bytes)
    }

    /// Allocates pages that their holder fills while the transaction goes on.
    pub(crate) fn alloc_owned(&mut self, pages: u64) -> Result<OwnedExtent> {
        let id = self.alloc(pages)?;
        Ok(self.write_map.give_out(id, pages))
    }

    /// Takes back pages that their holder has filled: they are dirty.
    pub(crate) fn take_back(&mut self, extent: OwnedExtent) {
        self.write_map.take_back(extent);
    }
}

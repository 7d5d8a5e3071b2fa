//! Overflow extents that are written by `pwrite`: for long values, given whole or in parts.
//!
//! Floor: pager. A store to a page that is not in the page cache costs a fault of some
//! microseconds, a `pwrite` less than half of it. The transaction owns the extent as written
//! through: no reader borrows it before it is complete, and nothing changes it afterwards.
//!
//! Failure: errors of writing as in `write_queue`; [`OverflowWriter::abandon`] gives the pages
//! back.

use crate::error::Result;
use crate::ids::{PageId, PagePtr, TreeId};
use crate::page::checksum::Running;
use crate::page::layout::OVERFLOW_VALUE;
use crate::page::overflow;
use crate::pager::write::txn_pages::TxnPages;
use crate::pager::{PageRead as _, PageWrite as _};

/// Bytes that are put together and written at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Bytes of a run from which on its write-back begins at once: the disk works while the trees are
/// changed and sealed, and the flush of the commit waits only for the rest. Shorter runs are left
/// to the flush, which joins neighbours.
const WRITE_BACK_BYTES: u64 = 64 << 10;

/// A run that is being written, from its first byte to its last.
#[derive(Debug)]
pub(crate) struct OverflowWriter {
    id: PageId,
    pages: u64,
    len: u64,
    tree: TreeId,
    running: Running,
    /// Bytes of the run that were given, with the header.
    at: u64,
    /// The first page, which is written last, when the checksum is known.
    first: Vec<u8>,
    /// What follows the last whole page that was written.
    chunk: Vec<u8>,
    chunk_at: u64,
}

impl OverflowWriter {
    /// Takes pages for a value of `len` bytes that is longer than an inline one.
    pub(crate) fn begin(pages: &mut TxnPages, tree: TreeId, len: u64) -> Result<OverflowWriter> {
        let page_size = pages.page_size();
        let count = overflow::overflow_pages(page_size, len);
        let id = pages.alloc_written_through(count)?;
        Ok(OverflowWriter {
            id,
            pages: count,
            len,
            tree,
            running: Running::after_header(),
            at: OVERFLOW_VALUE as u64,
            first: vec![0; OVERFLOW_VALUE],
            chunk: Vec::new(),
            chunk_at: page_size as u64,
        })
    }

    /// Adds bytes of the value, no more than its length.
    pub(crate) fn add(&mut self, pages: &TxnPages, bytes: &[u8]) -> Result<()> {
        let page_size = pages.page_size();
        self.running.add(bytes);
        self.at += bytes.len() as u64;
        let (first, mut rest) = bytes.split_at(bytes.len().min(page_size - self.first.len()));
        self.first.extend_from_slice(first);
        if !self.chunk.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(CHUNK_BYTES - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            rest = later;
        }
        if self.chunk.len() == CHUNK_BYTES {
            self.send(pages)?;
        }
        // Whole pages need not be put together.
        let (whole, rest) = rest.split_at(rest.len() / page_size * page_size);
        if !whole.is_empty() {
            self.write(pages, whole)?;
        }
        self.chunk.extend_from_slice(rest);
        Ok(())
    }

    fn send(&mut self, pages: &TxnPages) -> Result<()> {
        let chunk = std::mem::take(&mut self.chunk);
        let written = self.write(pages, &chunk);
        self.chunk = chunk;
        self.chunk.clear();
        written
    }

    fn write(&mut self, pages: &TxnPages, whole: &[u8]) -> Result<()> {
        pages.write_through(self.id, self.chunk_at, whole)?;
        self.chunk_at += whole.len() as u64;
        Ok(())
    }

    /// Ends the run, all bytes of which were given.
    pub(crate) fn finish(mut self, pages: &mut TxnPages) -> Result<PagePtr> {
        let page_size = pages.page_size();
        let end = self.pages * page_size as u64;
        debug_assert_eq!(self.at, OVERFLOW_VALUE as u64 + self.len);
        let behind = vec![0; (end - self.at) as usize];
        self.add(pages, &behind)?;
        if !self.chunk.is_empty() {
            self.send(pages)?;
        }
        let (header, crc) = overflow::sealed_header(page_size, self.id, self.tree, pages.txn(), self.len, self.running);
        self.first[..OVERFLOW_VALUE].copy_from_slice(&header);
        pages.write_through(self.id, 0, &self.first)?;
        if end >= WRITE_BACK_BYTES {
            pages.start_write_back(self.id, end)?;
        }
        let ptr = PagePtr { id: self.id, crc };
        pages.set_verified_sealed(ptr);
        Ok(ptr)
    }

    /// Gives the pages back.
    pub(crate) fn abandon(self, pages: &mut TxnPages) {
        pages.give_back_written_through(self.id, self.pages);
    }
}

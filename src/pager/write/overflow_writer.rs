//! Writing overflow extents with `pwrite`, for long values that are given whole or in parts.
//!
//! Floor: pager. A store to a page that is not in the page cache costs a page fault of some
//! microseconds; a `pwrite` costs less than half of that. The extent is written through: no reader
//! borrows it before it is complete, and nothing changes it afterwards.
//!
//! Failure: errors of writing as in `write_queue`; [`OverflowWriter::abandon`] frees the pages.

use crate::error::Result;
use crate::ids::{PageId, PagePtr, TreeId};
use crate::page::checksum::Running;
use crate::page::header::PageStamp;
use crate::page::layout::OVERFLOW_VALUE;
use crate::page::overflow;
use crate::pager::write::txn_pages::TxnPages;
use crate::pager::{PageRead as _, PageWrite as _};

/// Bytes that are collected for one `pwrite`.
const CHUNK_BYTES: usize = 64 << 10;
/// Shortest extent, in bytes, whose write-back begins at once. The disk then works while the
/// transaction goes on, and the flush of the commit waits only for the rest. Shorter extents are
/// left to the flush, which merges neighbours.
const WRITE_BACK_BYTES: u64 = 64 << 10;

/// An overflow extent that is being written sequentially.
#[derive(Debug)]
pub(crate) struct OverflowWriter {
    id: PageId,
    pages: u64,
    len: u64,
    tree: TreeId,
    running: Running,
    /// Bytes of the extent so far, header included.
    at: u64,
    /// The first page. It is written last, when the checksum is known.
    first: Vec<u8>,
    /// Bytes after the last page that was written.
    chunk: Vec<u8>,
    chunk_at: u64,
}

impl OverflowWriter {
    /// Allocates the extent for a value of `len` bytes, which is too long to be inline.
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

    /// Appends bytes of the value. The caller appends `len` bytes in all.
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
        // Write whole pages directly, without the buffer.
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

    /// Completes the extent after all bytes of the value were appended.
    pub(crate) fn finish(mut self, pages: &mut TxnPages) -> Result<PagePtr> {
        let page_size = pages.page_size();
        let end = self.pages * page_size as u64;
        debug_assert_eq!(self.at, OVERFLOW_VALUE as u64 + self.len);
        let padding = vec![0; (end - self.at) as usize];
        self.add(pages, &padding)?;
        if !self.chunk.is_empty() {
            self.send(pages)?;
        }
        let stamp = PageStamp::new(self.id, self.tree, pages.txn());
        let (header, crc) = overflow::sealed_header(page_size, stamp, self.len, self.running);
        self.first[..OVERFLOW_VALUE].copy_from_slice(&header);
        pages.write_through(self.id, 0, &self.first)?;
        if end >= WRITE_BACK_BYTES {
            pages.start_write_back(self.id, end)?;
        }
        let ptr = PagePtr { id: self.id, crc };
        pages.set_verified_sealed(ptr);
        Ok(ptr)
    }

    /// Frees the pages of an extent that will not be completed.
    pub(crate) fn abandon(self, pages: &mut TxnPages) {
        pages.give_back_written_through(self.id, self.pages);
    }
}

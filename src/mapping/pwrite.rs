//! Writing pages with `pwrite` instead of stores to the writable mapping, and starting write-back.
//!
//! Floor: mapping. Mappings and `pwrite` use the same page cache, so every read-only mapping sees
//! the bytes when the call has returned. The caller ensures that no thread borrows these bytes
//! during the call. The only caller is `pager::write_queue`, with pages that its transaction
//! allocated and did not claim.
//!
//! Invariants:
//!   PWRITE-1  no write crosses the end of a page. A larger write would bring a
//!       larger folio into the page cache, and a later store to one of its pages would write back
//!       all of it.
//!   PWRITE-2  a write never makes the file longer: pages are written only below `mapped`.
//!
//! Failure: `io::Error`. The kernel may report a write-back error here and then not at a later
//! flush. So it counts as a failed flush (R9).

use std::io;

use super::{sentinel, Mapping, WriteMap};
use crate::error::best_effort;
use crate::ids::PageId;
use crate::sys::{file_calls, page_cache};

impl Mapping {
    /// Writes whole pages of the database, at the offset of a page.
    pub(crate) fn write_pages(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let page_size = self.page_size as u64;
        let whole = offset.is_multiple_of(page_size) && (bytes.len() as u64).is_multiple_of(page_size);
        let end = offset.checked_add(bytes.len() as u64);
        if !self.writable || !whole || offset < 2 * page_size || end.is_none_or(|end| end > self.window().mapped()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "pages are written only inside the mapped file"));
        }
        self.hooks.writing(offset, bytes.len() as u64)?;
        let len = self.file_len()?;
        if end.is_some_and(|end| end > len) {
            // Another program cut the file. Writing would hide that.
            self.shared.record.set(len);
            return Err(io::Error::other("the file was cut"));
        }
        file_calls::within_size_limit(end.unwrap_or(u64::MAX))?;
        for (page_offset, page) in (offset..).step_by(self.page_size).zip(bytes.chunks_exact(self.page_size)) {
            file_calls::write_within(&self.file, page, page_offset)?;
        }
        self.hooks.wrote(offset, bytes.len() as u64);
        Ok(())
    }

    /// Prefaults pages that the caller owns, so that storing to them cannot hit a full disk. Where
    /// the kernel cannot prefault, writes zeros to the pages.
    pub(crate) fn prefault_pages(&self, write_map: &WriteMap, id: PageId, pages: u64) -> io::Result<()> {
        if write_map.prefault(id, pages)? || !self.prefaults_first() {
            return Ok(());
        }
        let page_size = self.page_size as u64;
        self.write_zeros(id.0 * page_size, pages * page_size, None)
    }

    /// Writes zeros over a range that no thread uses, so that it gets blocks. If the sentinel is in
    /// the range, it stays.
    pub(super) fn write_zeros(&self, offset: u64, len: u64, sentinel_offset: Option<u64>) -> io::Result<()> {
        let (mut from, end, mut page) = (offset, offset.saturating_add(len), vec![0; self.page_size]);
        file_calls::within_size_limit(end)?;
        while from < end {
            let chunk_bytes = (self.page_size as u64 - from % self.page_size as u64).min(end - from);
            let sentinel = sentinel_offset.and_then(|offset| offset.checked_sub(from)).filter(|&at| at < chunk_bytes);
            if let Some(index) = sentinel {
                page[index as usize] = sentinel::VALUE;
            }
            file_calls::write_within(&self.file, &page[..chunk_bytes as usize], from)?;
            if let Some(index) = sentinel {
                page[index as usize] = 0;
            }
            from += chunk_bytes;
        }
        Ok(())
    }

    /// Starts the write-back of a range to the disk, without waiting. Makes nothing durable.
    pub(crate) fn start_write_back(&self, offset: u64, len: u64) -> io::Result<()> {
        self.hooks.writing_back(offset, len)?;
        match self.anonymous {
            true => Ok(()),
            false => page_cache::start_write_back(&self.file, offset, len),
        }
    }

    /// Removes a range from the page tables of the writable mapping before it is written back. The
    /// kernel would else take the right to store from one page after the other, and interrupt the
    /// processors that use the mapping for each of them.
    pub(crate) fn release_writable(&self, offset: u64, len: u64) {
        if !self.anonymous && !self.prefaults_first() {
            best_effort(self.window().release_writable(offset, len));
        }
    }
}

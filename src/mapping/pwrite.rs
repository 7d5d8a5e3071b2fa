//! Writing pages by calls, beside the stores through the writable mapping, and starting write-back
//! early.
//!
//! Floor: mapping. The page cache is one for mappings and calls, so what is written here is seen
//! through every read-only mapping as soon as the call has returned. Whoever writes sees to it that
//! nobody borrows these bytes meanwhile: `pager::write_queue` is the only one, with pages that its
//! transaction took and that are not claimed.
//!
//! Invariants:
//!   PWRITE-1  nothing is written in chunks that pass the end of a page: a larger chunk would bring
//!       a larger folio into the page cache, which later stores to one of its pages write back
//!       whole.
//!   PWRITE-2  a file never gets longer by being written to: pages are written below what is mapped
//!             alone.
//!
//! Failure: `io::Error`. An error of write-back may be told here once and by no later flush, so it
//! counts as one of a flush (R9).

use std::io;

use crate::ids::PageId;
use crate::mapping::{lock, window, Mapping, WriteMap};
use crate::sys::{file_calls, os};

impl Mapping {
    /// Writes whole pages of the database at an offset that is one of a page.
    pub(crate) fn write_pages(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let page_size = self.page_size as u64;
        let whole = offset.is_multiple_of(page_size) && (bytes.len() as u64).is_multiple_of(page_size);
        let end = offset.checked_add(bytes.len() as u64);
        if !self.writable || !whole || offset < 2 * page_size || end.is_none_or(|end| end > self.window().mapped()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "pages are written inside the mapped file alone"));
        }
        self.hooks.writing(offset, bytes.len() as u64)?;
        let len = self.file_len()?;
        if end.is_some_and(|end| end > len) {
            // Somebody cut the file, and writing would hide it.
            self.watch.record.set(len);
            return Err(io::Error::other("the file was cut"));
        }
        file_calls::within_size_limit(end.unwrap_or(u64::MAX))?;
        for (at, page) in (offset..).step_by(self.page_size).zip(bytes.chunks_exact(self.page_size)) {
            file_calls::write_within(&self.file, page, at)?;
        }
        self.hooks.wrote(offset, bytes.len() as u64);
        Ok(())
    }

    /// Sees that storing a meta page cannot meet a full disk, where the file system lets it.
    pub(crate) fn prefault_meta_pages(&self) -> io::Result<()> {
        let len = 2 * self.page_size;
        if !self.must_prefault() || self.prefault(0, len as u64)? {
            return Ok(());
        }
        let mut metas = vec![0; len];
        // What is there is written once more, while nobody stores a meta page.
        let _storing = lock(&self.storing_meta_page);
        self.read_at(0, &mut metas)?;
        metas
            .chunks_exact(self.page_size)
            .zip((0..).step_by(self.page_size))
            .try_for_each(|(meta, at)| file_calls::write_at(&self.file, meta, at))
    }

    /// Sees that storing to pages that the caller owns, and of which it keeps nothing, cannot meet
    /// a full disk.
    pub(crate) fn back_pages(&self, write_map: &WriteMap, id: PageId, pages: u64) -> io::Result<()> {
        if write_map.prefault(id, pages)? || !self.must_prefault() {
            return Ok(());
        }
        let page_size = self.page_size as u64;
        self.write_zeros(id.0 * page_size, pages * page_size, 0)
    }

    /// Writes zeros over a range that nobody reads or stores to, so that it has blocks; but where
    /// the sentinel lies, if it lies in there one byte before `sentinel_end`.
    pub(super) fn write_zeros(&self, offset: u64, len: u64, sentinel_end: u64) -> io::Result<()> {
        let (mut at, end, mut page) = (offset, offset.saturating_add(len), vec![0; self.page_size]);
        file_calls::within_size_limit(end)?;
        while at < end {
            let now = (self.page_size as u64 - at % self.page_size as u64).min(end - at);
            let verified = sentinel_end.checked_sub(at + 1).filter(|&place| place < now);
            if let Some(place) = verified {
                page[place as usize] = window::SENTINEL;
            }
            file_calls::write_within(&self.file, &page[..now as usize], at)?;
            if let Some(place) = verified {
                page[place as usize] = 0;
            }
            at += now;
        }
        Ok(())
    }

    /// Starts to write a range to the disk and does not wait. Makes nothing durable.
    pub(crate) fn start_write_back(&self, offset: u64, len: u64) -> io::Result<()> {
        self.hooks.writing_back(offset, len)?;
        match self.anonymous {
            true => Ok(()),
            false => os::start_write_back(&self.file, offset, len),
        }
    }

    /// Whether tests look at each step, so that steps are to come one after the other.
    pub(crate) fn is_watched(&self) -> bool {
        self.hooks.is_set()
    }
}

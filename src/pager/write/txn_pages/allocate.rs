//! Allocating pages for the running transaction: from free space, otherwise at the end of the file,
//! which grows.
//!
//! Floor: pager. Part of [`TxnPages`]: allocation, claims, growth, and prefaulting fresh pages.
//!
//! Invariants: ALLOC-1 to ALLOC-3 of `txn_pages`.
//!
//! Failure: [`Error::DiskFull`] when the file cannot grow, I/O errors of growth, and
//! [`Error::Corrupt`] when the free space names a page twice.

use std::io;
use std::sync::Arc;

use super::TxnPages;
use crate::error::{Error, Result};
use crate::ids::{PageId, MAX_U48};
use crate::pager::write::prefault::{Prefaulter, THREAD_FROM_PAGES};

/// The most pages that one operation allocates, besides an extent.
const OPERATION_PAGES: u64 = 24;

/// The file grows by a thirty-second, within these bounds, in bytes.
const GROW_SHARE: u64 = 32;
const GROW_MIN_BYTES: u64 = 1 << 20;
const GROW_MAX_BYTES: u64 = 1 << 30;

/// Fresh pages are prefaulted in runs ahead of their use, because one call for many pages costs a
/// third of the time of single faults. The run grows with the transaction, so that a small
/// transaction does not dirty pages that it does not use.
const PREFAULT_MAX_PAGES: u64 = 256;
const PREFAULT_FROM_PAGES: u64 = 32;

/// The operations that errors of allocating name. Nothing is lost by them.
const GROWING: &str = "growing the file";
const PREPARING: &str = "preparing pages for writing";

/// Whether an error is one of allocating pages.
pub(crate) fn is_of_allocating(e: &Error) -> bool {
    matches!(e, Error::DiskFull { .. }) || matches!(e, Error::Io { op, .. } if [GROWING, PREPARING].contains(op))
}

impl TxnPages {
    /// Claims pages taken from the free space. If the transaction has one of them already, the file
    /// is damaged.
    pub(crate) fn claim(&mut self, id: PageId, pages: u64) -> Result<()> {
        self.not_owned(id, pages)?;
        if self.mapping.prefaults_first() {
            self.prefault(id, pages).inspect_err(|_| self.free.add_unlisted(id, pages))?;
        }
        self.write_map.claim(id, pages);
        self.savepoints.note_taken(id, pages);
        Ok(())
    }

    pub(super) fn not_owned(&self, id: PageId, pages: u64) -> Result<()> {
        match self.write_map.owns_any(id, pages) {
            true => Err(Error::corrupt(id, "the free space names a page twice")),
            false => Ok(()),
        }
    }

    /// Removes a claim without changing the free space.
    pub(crate) fn unclaim(&mut self, id: PageId, pages: u64) {
        self.write_map.unclaim(id, pages);
    }

    /// Allocates pages at the end of the file, which grows if needed.
    pub(crate) fn alloc_at_end(&mut self, pages: u64) -> Result<PageId> {
        let start = self.extend(pages)?;
        self.fresh_pages += pages;
        self.prefault_ahead(start, start + pages)?;
        self.write_map.claim(PageId(start), pages);
        self.savepoints.note_taken(PageId(start), pages);
        Ok(PageId(start))
    }

    /// Takes pages at the end of the file that are written by `pwrite`: free pages stay for the
    /// trees.
    pub(crate) fn alloc_written_through_at_end(&mut self, pages: u64) -> Result<PageId> {
        let id = PageId(self.extend(pages)?);
        self.write_map.add_written_through(id, pages);
        Ok(id)
    }

    /// Allocates pages that will be written with `pwrite`.
    pub(crate) fn alloc_written_through(&mut self, pages: u64) -> Result<PageId> {
        let id = match self.free.take_extent(pages) {
            Some(id) => id,
            None => PageId(self.extend(pages)?),
        };
        self.not_owned(id, pages)?;
        self.write_map.add_written_through(id, pages);
        self.savepoints.note_taken(id, pages);
        Ok(id)
    }

    /// Frees pages written through that are not in the write queue; they are usable again at once.
    pub(crate) fn give_back_written_through(&mut self, id: PageId, pages: u64) {
        self.write_map.remove_written_through(id, pages);
        self.free.add_unlisted(id, pages);
    }

    /// Whether an operation that needs an extent of `pages` may have to grow the file.
    #[inline]
    pub(crate) fn may_have_to_grow(&self, pages: u64) -> bool {
        let few = self.free.usable_pages() < OPERATION_PAGES || (pages > 1 && self.free.longest() < pages);
        few && self.needed_for(pages) > self.write_map.len_bytes()
    }

    /// Grows the file for an operation that needs an extent of `pages`, unless it has room.
    pub(crate) fn grow_for(&mut self, pages: u64) -> Result<()> {
        match self.needed_for(pages) {
            needed if needed > self.write_map.len_bytes() => self.grow(needed),
            _ => Ok(()),
        }
    }

    fn needed_for(&self, pages: u64) -> u64 {
        (self.page_count + pages + OPERATION_PAGES) << self.page_shift
    }

    /// Adds pages at the end of the file and returns the first one.
    pub(super) fn extend(&mut self, pages: u64) -> Result<u64> {
        let start = self.page_count;
        let end = start.checked_add(pages).filter(|&end| end <= MAX_U48).ok_or_else(|| self.disk_full(pages))?;
        let needed = end << self.page_shift;
        if needed > self.write_map.len_bytes() {
            self.grow(needed)?;
        }
        self.page_count = end;
        Ok(start)
    }

    /// Changes to the current window, if another process has grown the file.
    pub(crate) fn follow(&mut self) {
        self.mapping.follow_writing(&mut self.write_map);
        self.change_read_map();
    }

    fn change_read_map(&mut self) {
        if self.read_map.window_id() != self.write_map.window_id() {
            self.read_map = self.write_map.read_map();
        }
    }

    fn grow(&mut self, needed: u64) -> Result<()> {
        let mapped = self.write_map.len_bytes();
        let step = (mapped / GROW_SHARE).clamp(GROW_MIN_BYTES, GROW_MAX_BYTES);
        let wanted = needed.max(mapped + step).next_multiple_of(GROW_MIN_BYTES);
        let exact = needed.next_multiple_of(1 << self.page_shift);
        let result = match self.mapping.grow(&mut self.write_map, wanted) {
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge | io::ErrorKind::OutOfMemory
                ) && exact < wanted =>
            {
                self.mapping.grow(&mut self.write_map, exact)
            }
            other => other,
        };
        self.change_read_map();
        result.map_err(|e| Error::io(GROWING, &self.path, e).with_wanted(needed - mapped))
    }

    /// Makes the file system allocate blocks for the pages, so that a store cannot hit a full disk.
    fn prefault(&self, id: PageId, pages: u64) -> Result<()> {
        let wanted = pages << self.page_shift;
        let prefaulted = self.mapping.prefault_pages(&self.write_map, id, pages);
        prefaulted.map_err(|e| Error::io(PREPARING, &self.path, e).with_wanted(wanted))
    }

    /// Begins a transaction. After transactions that took many pages at the end of the file, it
    /// will probably take many too: then what they prefaulted and their thread stay in use.
    pub(super) fn begin_prefault(&mut self) {
        if self.fresh_pages - self.fresh_pages_before < PREFAULT_FROM_PAGES || self.mapping.prefaults_first() {
            (self.fresh_pages, self.prefaulted_to, self.prefaulter) = (0, 0, None);
        }
        self.fresh_pages_before = self.fresh_pages;
    }

    /// Ends a transaction. The thread of a large transaction ends with it.
    pub(super) fn end_prefault(&mut self) {
        let fresh = self.fresh_pages - self.fresh_pages_before;
        if !(PREFAULT_FROM_PAGES..THREAD_FROM_PAGES).contains(&fresh) {
            (self.fresh_pages, self.fresh_pages_before, self.prefaulter) = (0, 0, None);
        }
    }

    fn prefault_ahead(&mut self, start: u64, end: u64) -> Result<()> {
        // While the write queue is in use, most new pages are not stored to.
        let few = self.fresh_pages < PREFAULT_FROM_PAGES || self.write_queue.is_some();
        if few && !self.mapping.prefaults_first() || end <= self.prefaulted_to {
            return Ok(());
        }
        let mapped_pages = self.write_map.len_bytes() >> self.page_shift;
        // If a store can hit a full disk, prefault before the pages are used, not concurrently.
        if self.fresh_pages >= THREAD_FROM_PAGES && !self.mapping.prefaults_first() {
            if self.prefaulter.is_none() {
                self.prefaulter = Prefaulter::start(Arc::clone(&self.mapping), self.page_shift, end);
            }
            if let Some(prefaulter) = &mut self.prefaulter {
                prefaulter.keep_ahead(end, self.fresh_pages, mapped_pages);
                return Ok(());
            }
        }
        let ahead = (self.fresh_pages / 4).min(PREFAULT_MAX_PAGES);
        let from = start.max(self.prefaulted_to);
        let to = (end + ahead).min(mapped_pages);
        self.prefaulted_to = to;
        self.prefault(PageId(from), to - from)
    }

    #[cold]
    fn disk_full(&self, pages: u64) -> Error {
        Error::DiskFull { path: self.path.to_path_buf(), wanted: pages << self.page_shift }
    }
}

//! Pages as the running write transaction sees them: allocate, free, and change its own.
//!
//! Floor: pager. [`TxnPages`] owns the writable mapping and the free space. A page is *dirty* when
//! this transaction allocated it and may store to it. Only dirty pages can be borrowed mutably,
//! because only they are claimed on the writable mapping, so a page that a committed state reaches
//! cannot change (R1). `allocate` says where pages come from.
//!
//! Invariants:
//!   ALLOC-1  Claimed or written through on the writable mapping == allocated by this transaction
//!       and not freed again. Pages written through are not dirty: a change copies them.
//!   ALLOC-2  A page handed out is either usable by R5 or beyond every state's page count.
//!   ALLOC-3  Blocks of a page are reserved before it is handed out.
//!
//! Failure: [`Error::DiskFull`] when the file cannot grow, [`Error::Corrupt`] on read, I/O errors
//! of growth and writing.

mod allocate;

use crate::hooks::{self, Mutant};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr, TreeId, TxnId};
use crate::mapping::{Mapping, ReadMap, WriteMap};
use crate::page::checksum;
use crate::page::free_list::FreeItem;
use crate::page::overflow;
use crate::pager::read::snapshot_pages::{beyond_end, extent_range, verified_byte_of, verify_first_touch};
use crate::pager::traits::store_value;
use crate::pager::write::append_buffer::AppendBuffer;
use crate::pager::write::free_space::FreeSpace;
use crate::pager::write::overflow_writer::OverflowWriter;
use crate::pager::write::prefault::Populator;
use crate::pager::write::write_queue::WriteQueue;
use crate::pager::{PageRead, PageWrite, Residency};
use crate::sys::prefetch;

/// Read and write access to the pages of the running write transaction.
#[derive(Debug)]
pub(crate) struct TxnPages {
    mapping: Arc<Mapping>,
    write_map: WriteMap,
    /// For the verified bytes, which belong to the window.
    read_map: ReadMap,
    path: Arc<PathBuf>,
    page_shift: u32,
    txn: TxnId,
    page_count: u64,
    fresh_pages: u64,
    prefaulted_to: u64,
    /// Populates on a thread of its own once the transaction is large.
    populator: Option<Populator>,
    /// Pages on their way, between [`TxnPages::begin_writing`] and [`TxnPages::end_writing`].
    /// A lock, because a page that is read may have to be sent first.
    write_queue: Option<Mutex<WriteQueue>>,
    /// The page that is being filled, where many are filled one after the other.
    append_buffer: AppendBuffer,
    /// Where a page is built before it goes to the write queue.
    built: Vec<u8>,
    pub(crate) free: FreeSpace,
}

impl TxnPages {
    /// Starts a transaction on a state of `page_count` pages.
    pub(crate) fn new(
        mapping: Arc<Mapping>,
        write_map: WriteMap,
        path: Arc<PathBuf>,
        page_size: usize,
        free: FreeSpace,
    ) -> TxnPages {
        let read_map = mapping.read_map();
        let page_shift = page_size.trailing_zeros();
        let txn = TxnId::default();
        TxnPages {
            mapping,
            write_map,
            read_map,
            path,
            page_shift,
            txn,
            page_count: 0,
            fresh_pages: 0,
            prefaulted_to: 0,
            populator: None,
            write_queue: None,
            append_buffer: AppendBuffer::default(),
            built: Vec::new(),
            free,
        }
    }

    /// Begins transaction `txn` on a state of `page_count` pages.
    pub(crate) fn begin(&mut self, txn: TxnId, page_count: u64) {
        debug_assert_eq!(self.write_map.owned_count(), 0);
        self.txn = txn;
        self.page_count = page_count;
        self.fresh_pages = 0;
        self.prefaulted_to = 0;
    }

    /// Ends the transaction, whichever way: no page can be changed any more.
    pub(crate) fn end(&mut self) {
        self.populator = None;
        self.write_queue = None;
        self.append_buffer = AppendBuffer::default();
        self.built = Vec::new();
        self.write_map.release_all();
    }

    /// From now on pages that are built whole ([`PageWrite::write_new`]) are written by `pwrite`.
    /// Where they are expected to stay as they are until the commit, their write-back begins early.
    pub(crate) fn begin_writing(&mut self, stays: bool) {
        self.populator = None;
        let new = || Mutex::new(WriteQueue::new(Arc::clone(&self.mapping), 1 << self.page_shift, stays));
        self.write_queue.get_or_insert_with(new);
    }

    /// Ends that, when all of them are written.
    ///
    /// An error of the disk may have been told for the only time, so it counts as one of a flush
    /// (R9).
    pub(crate) fn end_writing(&mut self) -> Result<()> {
        let Some(mut write_queue) = self.write_queue.take() else { return Ok(()) };
        unlocked(&mut write_queue).finish(&self.read_map).map_err(|e| self.writing_error(e))
    }

    /// Ends the filling of pages in a row: whatever comes next finds every page in its place. To be
    /// called before other changes, and before pages are sealed.
    #[inline]
    pub(crate) fn end_filling(&mut self) -> Result<()> {
        match self.append_buffer.interrupt() {
            true => self.clear_append_buffer(),
            false => Ok(()),
        }
    }

    #[cold]
    fn clear_append_buffer(&mut self) -> Result<()> {
        self.put_down()?;
        self.end_writing()
    }

    /// Writes the page on the append buffer to its place in the mapping. It stays dirty.
    fn put_down(&mut self) -> Result<()> {
        if let Some((id, bytes)) = self.append_buffer.take() {
            self.mapping.write_pages(id.0 << self.page_shift, &bytes).map_err(|e| self.writing_error(e))?;
            self.append_buffer.give_back(bytes);
        }
        Ok(())
    }

    #[cold]
    fn writing_error(&self, e: io::Error) -> Error {
        Error::io(WRITING, &self.path, e)
    }

    /// Pages of the state that this transaction makes.
    pub(crate) fn page_count(&self) -> u64 {
        self.page_count
    }

    /// Pages that this transaction has and did not free again.
    #[inline]
    pub(crate) fn owned_count(&self) -> u64 {
        self.write_map.owned_count()
    }

    /// Whether the pages of this transaction lie in large folios of the page cache, so that far
    /// more would be written.
    #[cold]
    pub(crate) fn are_in_large_folios(&self) -> bool {
        self.mapping.has_large_folios(&self.write_map.claimed_extents())
    }

    /// Whether this transaction allocated every page of a run.
    pub(crate) fn is_dirty_extent(&self, id: PageId, pages: u64) -> bool {
        self.write_map.is_claimed_extent(id, pages)
    }

    /// Pages that this transaction lets go of. They are not dirty, so they were written before it,
    /// whatever they say; the oldest birth pins them for the longest.
    pub(crate) fn freed_item(&self, id: PageId, pages: u64, born: TxnId) -> FreeItem {
        let born = if born < self.txn { born } else { TxnId::default() };
        FreeItem { start: id, pages, born, freed: self.txn }
    }

    /// Writes whole pages of a kept run, from an offset in it on.
    pub(crate) fn write_through(&self, id: PageId, at: u64, bytes: &[u8]) -> Result<()> {
        debug_assert!(self.write_map.is_written_through_extent(id, 1));
        self.mapping.write_pages((id.0 << self.page_shift) + at, bytes).map_err(|e| self.writing_error(e))
    }

    /// Begins to write pages to the disk.
    pub(crate) fn start_write_back(&self, id: PageId, len: u64) -> Result<()> {
        self.mapping.start_write_back(id.0 << self.page_shift, len).map_err(|e| self.writing_error(e))
    }

    /// Sends a page or extent that is built and sealed.
    fn put(&mut self, id: PageId, sealed: &[u8]) -> Result<()> {
        let Some(write_queue) = &mut self.write_queue else { return Ok(()) };
        unlocked(write_queue).put(id, sealed, &self.read_map).map_err(|e| self.writing_error(e))
    }

    /// Brings a page or extent in that has no mark, and verifies it.
    #[cold]
    fn touch(&self, ptr: PagePtr, pages: u64) -> Result<&[u8]> {
        self.await_written(ptr.id)?;
        self.write_map.probe(ptr.id, pages)?;
        verify_first_touch(&self.read_map, ptr, self.mapped(ptr.id, pages)?)
    }

    /// Waits until a page that may be on its way is written. Nothing of it is borrowed before
    /// (QUEUE-1).
    fn await_written(&self, id: PageId) -> Result<()> {
        if self.read_map.is_inherited() {
            return Err(self.read_map.fault());
        }
        if let Some(write_queue) = &self.write_queue {
            // The queue keeps an error until `finish` reports it.
            write_queue.lock().unwrap_or_else(PoisonError::into_inner).bring(id, &self.read_map);
        }
        Ok(())
    }

    /// The bytes of pages that are not on their way.
    #[inline]
    fn mapped(&self, id: PageId, pages: u64) -> Result<&[u8]> {
        self.write_map.bytes(id, pages).ok_or_else(|| beyond_end(id, pages, self.page_count))
    }
}

/// A value with fewer pages is stored: its pages are often dirty already.
const CALLS_FROM_PAGES: u64 = 4;

/// Whether tests want checksums that leave the last byte out, which those of runs in chunks do not.
fn has_short_checksums() -> bool {
    hooks::is(Mutant::ShortChecksum)
}

/// What an error of writing pages by `pwrite` says that was done.
pub(crate) const WRITING: &str = "writing pages";

/// The value in a mutex, for its only owner.
fn unlocked<T>(mutex: &mut Mutex<T>) -> &mut T {
    mutex.get_mut().unwrap_or_else(PoisonError::into_inner)
}

/// Whether tests want pages to be handed out while the durable state still needs them.
fn reuses_early() -> bool {
    hooks::is(Mutant::EarlyReuse)
}

impl Residency for TxnPages {}

impl PageRead for TxnPages {
    #[inline]
    fn page_size(&self) -> usize {
        1 << self.page_shift
    }

    #[inline]
    fn page(&self, ptr: PagePtr) -> Result<&[u8]> {
        if ptr.id.0 >= self.page_count {
            return Err(beyond_end(ptr.id, 1, self.page_count));
        }
        if self.write_map.is_claimed(ptr.id) {
            return self.append_buffer.page(ptr.id).map_or_else(|| self.mapped(ptr.id, 1), Ok);
        }
        match self.read_map.verified_byte(ptr.id) == verified_byte_of(ptr.crc) {
            true => self.mapped(ptr.id, 1),
            false => self.touch(ptr, 1),
        }
    }

    fn extent(&self, ptr: PagePtr, pages: u64) -> Result<&[u8]> {
        extent_range(ptr.id, pages, self.page_count, self.page_shift)
            .ok_or_else(|| beyond_end(ptr.id, pages, self.page_count))?;
        match self.write_map.is_claimed(ptr.id) || self.read_map.verified_byte(ptr.id) == verified_byte_of(ptr.crc) {
            true => self.mapped(ptr.id, pages),
            false => self.touch(ptr, pages),
        }
    }

    #[inline]
    fn prefetch(&self, id: PageId, from: usize, bytes: usize) {
        // Of a page without a mark, which may be on its way, nothing is borrowed.
        if !self.write_map.is_claimed(id) && self.read_map.verified_byte(id) == 0 {
            return;
        }
        if let Some(wanted) = self.write_map.bytes(id, 1).and_then(|page| page.get(from..from + bytes)) {
            prefetch::lines(wanted);
        }
    }

    #[inline]
    fn all_served(&self) -> bool {
        self.read_map.all_served()
    }

    #[cold]
    fn fault(&self) -> Error {
        self.read_map.fault()
    }
}

impl PageWrite for TxnPages {
    fn txn(&self) -> TxnId {
        self.txn
    }

    #[inline]
    fn is_dirty(&self, id: PageId) -> bool {
        self.write_map.is_claimed(id)
    }

    fn write_new(&mut self, build: impl FnOnce(&mut [u8], PageId) -> Result<()>) -> Result<PagePtr> {
        if self.write_queue.is_none() {
            let id = self.alloc(1)?;
            let page = self.page_mut(id)?;
            build(page, id)?;
            let ptr = PagePtr { id, crc: checksum::seal(page) };
            self.set_verified_sealed(ptr);
            return Ok(ptr);
        }
        let id = self.alloc_written_through(1)?;
        let mut page = std::mem::take(&mut self.built);
        page.resize(1 << self.page_shift, 0);
        build(&mut page, id)?;
        let crc = checksum::seal(&mut page);
        self.put(id, &page)?;
        self.built = page;
        Ok(PagePtr { id, crc })
    }

    fn alloc_to_fill(&mut self) -> Result<PageId> {
        if !self.append_buffer.is_due() {
            return self.alloc(1);
        }
        // There is one if tables are appended to by turns.
        self.put_down()?;
        self.begin_writing(true);
        let id = match self.free.take_extent(1) {
            Some(id) => id,
            None => PageId(self.extend(1)?),
        };
        self.not_owned(id, 1)?;
        self.write_map.claim(id, 1);
        self.append_buffer.lay(id, 1 << self.page_shift);
        Ok(id)
    }

    fn settle(&mut self, id: PageId) -> Result<Option<PagePtr>> {
        if self.append_buffer.page(id).is_none() {
            self.append_buffer.count_filled();
            return Ok(None);
        }
        let Some((_, mut page)) = self.append_buffer.take() else { return Ok(None) };
        let crc = checksum::seal(&mut page);
        self.write_map.unclaim(id, 1);
        self.write_map.add_written_through(id, 1);
        self.put(id, &page)?;
        self.append_buffer.give_back(page);
        Ok(Some(PagePtr { id, crc }))
    }

    fn write_value(&mut self, tree: TreeId, value: &[u8]) -> Result<PagePtr> {
        if overflow::overflow_pages(self.page_size(), value.len() as u64) < CALLS_FROM_PAGES || has_short_checksums() {
            return store_value(self, tree, value);
        }
        let mut extent = OverflowWriter::begin(self, tree, value.len() as u64)?;
        extent.add(self, value)?;
        extent.finish(self)
    }

    fn alloc(&mut self, pages: u64) -> Result<PageId> {
        match self.free.take_extent(pages) {
            Some(id) => {
                self.claim(id, pages)?;
                Ok(id)
            }
            None => self.alloc_at_end(pages),
        }
    }

    fn free(&mut self, id: PageId, pages: u64, born: TxnId) {
        if self.is_dirty_extent(id, pages) {
            if self.append_buffer.page(id).is_some() {
                self.append_buffer.take();
            }
            self.write_map.unclaim(id, pages);
            self.free.give_back_dirty(id, pages);
        } else if self.write_map.is_written_through_extent(id, pages) {
            if let (Some(write_queue), 0) = (&mut self.write_queue, self.read_map.verified_byte(id)) {
                // Still on its way, it would be written over what comes next. The queue
                // keeps an error until the commit reports it.
                drop(unlocked(write_queue).finish(&self.read_map));
            }
            self.give_back_written_through(id, pages);
        } else if reuses_early() {
            self.free.add_unlisted(id, pages);
        } else {
            self.free.add_freed(self.freed_item(id, pages, born));
        }
    }

    fn page_mut(&mut self, id: PageId) -> Result<&mut [u8]> {
        self.extent_mut(id, 1)
    }

    fn extent_mut(&mut self, id: PageId, pages: u64) -> Result<&mut [u8]> {
        if !self.write_map.is_claimed_extent(id, pages) {
            return Err(Error::corrupt(id, "a page is both in use and free"));
        }
        match self.append_buffer.page_mut(id) {
            Some(page) => Ok(page),
            None => Ok(self.write_map.bytes_mut(id, pages)),
        }
    }

    fn extent_born(&self, id: PageId, pages: u64) -> Result<TxnId> {
        extent_range(id, pages, self.page_count, self.page_shift)
            .ok_or_else(|| beyond_end(id, pages, self.page_count))?;
        if self.read_map.verified_byte(id) == 0 && !self.write_map.is_claimed(id) {
            self.await_written(id)?;
            if self.write_map.probe(id, 1).is_err() {
                // A value that cannot be read can still be freed.
                return Ok(TxnId::default());
            }
        }
        let born = overflow::born(self.mapped(id, 1)?, id);
        // A page that is not dirty was written before this transaction, whatever it says.
        Ok(born.filter(|&born| born < self.txn || self.is_dirty(id)).unwrap_or_default())
    }

    fn set_verified_sealed(&mut self, ptr: PagePtr) {
        self.read_map.set_verified(ptr.id, verified_byte_of(ptr.crc));
    }
}

#[cfg(test)]
mod tests;

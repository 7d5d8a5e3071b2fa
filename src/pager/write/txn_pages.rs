//! Pages of the running write transaction: allocate, change, free.
//!
//! Floor: pager. [`TxnPages`] owns the writable mapping and the free space. A page is *dirty* if
//! this transaction allocated it and may store to it. Only dirty pages can be borrowed mutably,
//! because only they are claimed on the writable mapping; so a page that a committed state reaches
//! cannot change (R1). The submodule `allocate` decides where new pages come from, `bytes` finds
//! the bytes of a page, `lending` lends pages to table handles, and `savepoints` goes back inside
//! the transaction.
//!
//! Invariants:
//!   ALLOC-1  A page is claimed or written through on the writable mapping if and only if this
//!       transaction allocated it, and has not freed it or needs it for a savepoint. Pages written
//!       through are not dirty: a change copies them.
//!   ALLOC-2  An allocated page was usable by R5, or is past the page count of every state.
//!   ALLOC-3  The file system has allocated the blocks of a page before the page is allocated here.
//!
//! Failure: [`Error::DiskFull`] when the file cannot grow, [`Error::Corrupt`] on read, I/O errors
//! of growth and writing.

mod allocate;
mod bytes;
mod lending;
mod savepoints;

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
use crate::pager::read::snapshot_pages::{beyond_end, extent_range, verified_byte_of};
use crate::pager::traits::{copy_through_stack, store_value};
use crate::pager::write::append_buffer::AppendBuffer;
use crate::pager::write::free_space::FreeSpace;
use crate::pager::write::leaf_facts::{LeafFact, LeafFacts};
use crate::pager::write::overflow_writer::OverflowWriter;
use crate::pager::write::prefault::Prefaulter;
use crate::pager::write::write_queue::WriteQueue;
use crate::pager::{PageRead, PageWrite, Residency};
use crate::sys::prefetch;

use savepoints::Savepoints;

pub(crate) use allocate::is_of_allocating;
pub(crate) use savepoints::PageMark;

/// Read and write access to the pages of the running write transaction.
#[derive(Debug)]
pub(crate) struct TxnPages {
    mapping: Arc<Mapping>,
    write_map: WriteMap,
    /// For the verified bytes, which are part of the window.
    read_map: ReadMap,
    path: Arc<PathBuf>,
    page_shift: u32,
    txn: TxnId,
    page_count: u64,
    /// Pages that this transaction took at the end of the file, and those that the transactions
    /// before it took, if they took many.
    fresh_pages: u64,
    fresh_pages_before: u64,
    prefaulted_to: u64,
    /// Prefaults pages on a thread once many were taken.
    prefaulter: Option<Prefaulter>,
    /// Pages that wait to be written, between [`TxnPages::begin_writing`] and
    /// [`TxnPages::end_writing`]. A mutex, because reading a page (`&self`) may have to write it
    /// first.
    write_queue: Option<Mutex<WriteQueue>>,
    /// The page that appends are filling, once many were filled in a row.
    append_buffer: AppendBuffer,
    /// Buffer in which a page is built before it goes to the write queue.
    built: Vec<u8>,
    leaf_facts: LeafFacts,
    has_long_keys: bool,
    savepoints: Savepoints,
    pub(crate) free: FreeSpace,
}

impl TxnPages {
    /// Pages without a transaction; [`TxnPages::begin`] starts one.
    pub(crate) fn new(
        mapping: Arc<Mapping>,
        write_map: WriteMap,
        path: Arc<PathBuf>,
        page_size: usize,
        free: FreeSpace,
    ) -> TxnPages {
        let read_map = write_map.read_map();
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
            fresh_pages_before: 0,
            prefaulted_to: 0,
            prefaulter: None,
            write_queue: None,
            append_buffer: AppendBuffer::default(),
            built: Vec::new(),
            leaf_facts: LeafFacts::default(),
            has_long_keys: false,
            savepoints: Savepoints::default(),
            free,
        }
    }

    /// Begins transaction `txn` on a state of `page_count` pages.
    pub(crate) fn begin(&mut self, txn: TxnId, page_count: u64) {
        debug_assert_eq!(self.write_map.owned_count(), 0);
        self.txn = txn;
        self.page_count = page_count;
        self.leaf_facts.begin(txn);
        self.has_long_keys = false;
        self.begin_prefault();
    }

    /// Whether the transaction has stored a long key or separator, which it may have removed again.
    pub(crate) fn has_long_keys(&self) -> bool {
        self.has_long_keys
    }

    /// Notes that the transaction has committed, before [`TxnPages::end`].
    pub(crate) fn committed_now(&mut self) {
        self.leaf_facts.commit(self.txn);
    }

    /// Ends the transaction after commit or abort: no page can be changed any more.
    pub(crate) fn end(&mut self) {
        self.end_prefault();
        self.write_queue = None;
        self.append_buffer = AppendBuffer::default();
        self.built = Vec::new();
        self.savepoints.end();
        self.write_map.release_all();
    }

    /// From now on [`PageWrite::write_new`] writes pages with `pwrite`. With `stays`, most of these
    /// pages will not change again before the commit, so their write-back begins early.
    pub(crate) fn begin_writing(&mut self, stays: bool) {
        self.prefaulter = None;
        let new = || Mutex::new(WriteQueue::new(Arc::clone(&self.mapping), 1 << self.page_shift, stays));
        self.write_queue.get_or_insert_with(new);
    }

    /// Ends [`TxnPages::begin_writing`] after all pages are written.
    ///
    /// The kernel may report a disk error only once, so the error counts as a failed flush (R9).
    pub(crate) fn end_writing(&mut self) -> Result<()> {
        let Some(mut write_queue) = self.write_queue.take() else { return Ok(()) };
        unlocked(&mut write_queue).finish(&self.read_map).map_err(|e| {
            self.savepoints.note_lost_writes();
            self.writing_error(e)
        })
    }

    /// Ends a series of appends: moves the page from the append buffer to the mapping and waits for
    /// the write queue. The caller does this before other changes, and before pages are sealed.
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

    /// Writes the page in the append buffer to the file. It stays dirty.
    pub(crate) fn put_down(&mut self) -> Result<()> {
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

    /// Drops the free pages at the end of the state.
    pub(crate) fn cut_tail(&mut self) {
        self.page_count = self.free.cut_tail(self.page_count);
    }

    /// Page count of the state that this transaction makes.
    pub(crate) fn page_count(&self) -> u64 {
        self.page_count
    }

    /// Number of pages that this transaction allocated and has not freed.
    #[inline]
    pub(crate) fn owned_count(&self) -> u64 {
        self.write_map.owned_count()
    }

    /// Whether the pages of this transaction are in large folios of the page cache. Then a flush
    /// would write far more than the changed pages.
    #[cold]
    pub(crate) fn are_in_large_folios(&self) -> bool {
        self.mapping.has_large_folios(&self.write_map.claimed_extents())
    }

    /// Whether every page of an extent is dirty.
    pub(crate) fn is_dirty_extent(&self, id: PageId, pages: u64) -> bool {
        self.write_map.is_claimed_extent(id, pages)
    }

    /// Returns the item for pages that this transaction frees and an earlier one wrote (they are
    /// not dirty). If `born` is not earlier, the page is damaged. Then uses 0, which keeps the
    /// pages pending longest.
    pub(crate) fn freed_item(&self, id: PageId, pages: u64, born: TxnId) -> FreeItem {
        let born = if born < self.txn { born } else { TxnId::default() };
        FreeItem { start: id, pages, born, freed: self.txn }
    }

    /// Writes whole pages of an extent that is written through, at byte `at` of the extent.
    pub(crate) fn write_through(&self, id: PageId, at: u64, bytes: &[u8]) -> Result<()> {
        debug_assert!(self.write_map.is_written_through_extent(id, 1));
        self.mapping.write_pages((id.0 << self.page_shift) + at, bytes).map_err(|e| self.writing_error(e))
    }

    /// Starts the write-back of pages to the disk.
    pub(crate) fn start_write_back(&self, id: PageId, len: u64) -> Result<()> {
        self.mapping.start_write_back(id.0 << self.page_shift, len).map_err(|e| self.writing_error(e))
    }

    /// Passes a built and sealed page or extent to the write queue. If another table has ended the
    /// queue meanwhile, writes the page.
    fn put(&mut self, id: PageId, sealed: &[u8]) -> Result<()> {
        self.leaf_facts.note(sealed, id);
        let written = match &mut self.write_queue {
            Some(write_queue) => unlocked(write_queue).put(id, sealed, &self.read_map),
            None => self.mapping.write_pages(id.0 << self.page_shift, sealed),
        };
        written.map_err(|e| {
            self.savepoints.note_lost_writes();
            self.writing_error(e)
        })
    }
}

/// A value of at least this many pages is written with `pwrite`. A shorter one is stored to the
/// mapping, because free pages are often in memory already.
const PWRITE_FROM_PAGES: u64 = 4;

/// Test hook: whether checksums leave out the last byte. Checksums of extents that are computed in
/// chunks do not support that.
fn has_short_checksums() -> bool {
    hooks::is(Mutant::ShortChecksum)
}

/// The operation that errors of writing pages name.
pub(crate) const WRITING: &str = "writing pages";

/// The value in a mutex that this thread has exclusive access to.
fn unlocked<T>(mutex: &mut Mutex<T>) -> &mut T {
    mutex.get_mut().unwrap_or_else(PoisonError::into_inner)
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
            true => self.committed(ptr.id, 1),
            false => self.touch(ptr, 1),
        }
    }

    fn extent(&self, ptr: PagePtr, pages: u64) -> Result<&[u8]> {
        extent_range(ptr.id, pages, self.page_count, self.page_shift)
            .ok_or_else(|| beyond_end(ptr.id, pages, self.page_count))?;
        if self.write_map.is_claimed(ptr.id) {
            return self.mapped(ptr.id, pages);
        }
        match self.read_map.verified_byte(ptr.id) == verified_byte_of(ptr.crc) {
            true => self.committed(ptr.id, pages),
            false => self.touch(ptr, pages),
        }
    }

    #[inline]
    fn prefetch(&self, id: PageId, from: usize, bytes: usize) {
        // A page without a verified byte may be in the write queue and must not be borrowed
        // (QUEUE-1).
        let page = match self.write_map.is_claimed(id) {
            true => self.write_map.bytes(id, 1),
            false if self.read_map.verified_byte(id) == 0 => return,
            false => self.read_map.bytes(id.0 << self.page_shift, 1 << self.page_shift),
        };
        if let Some(wanted) = page.and_then(|page| page.get(from..from + bytes)) {
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
        self.write_map.is_claimed(id) && !self.savepoints.is_frozen(id)
    }

    fn dirty_count(&self) -> u64 {
        self.write_map.claimed_count()
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
        // The buffer is not empty if appends alternate between tables.
        self.put_down()?;
        self.begin_writing(true);
        let id = match self.free.take_extent(1) {
            Some(id) => id,
            None => PageId(self.extend(1)?),
        };
        self.not_owned(id, 1)?;
        self.write_map.claim(id, 1);
        self.savepoints.note_taken(id, 1);
        self.append_buffer.lay(id, 1 << self.page_shift);
        Ok(id)
    }

    fn finish_filling(&mut self, id: PageId) -> Result<Option<PagePtr>> {
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
        if overflow::overflow_pages(self.page_size(), value.len() as u64) < PWRITE_FROM_PAGES || has_short_checksums() {
            return store_value(self, tree, value);
        }
        let mut extent = OverflowWriter::begin(self, tree, value.len() as u64)?;
        extent.add(self, value)?;
        extent.finish(self)
    }

    fn note_long_key(&mut self) {
        self.has_long_keys = true;
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
        self.free_pages(id, pages, born);
    }

    fn page_mut(&mut self, id: PageId) -> Result<&mut [u8]> {
        self.extent_mut(id, 1)
    }

    fn extent_mut(&mut self, id: PageId, pages: u64) -> Result<&mut [u8]> {
        if !self.write_map.is_claimed_extent(id, pages) || self.savepoints.is_frozen(id) {
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
        let is_claimed = self.write_map.is_claimed(id);
        if self.read_map.verified_byte(id) == 0 && !is_claimed {
            self.await_written(id)?;
            if self.read_map.probe(id.0 << self.page_shift, 1).is_err() {
                // A value that cannot be read can still be freed.
                return Ok(TxnId::default());
            }
        }
        let header = if is_claimed { self.mapped(id, 1)? } else { self.committed(id, 1)? };
        let born = overflow::born(header, id);
        // A page that is not dirty was written before this transaction; a later number is damage.
        Ok(born.filter(|&born| born < self.txn || is_claimed).unwrap_or_default())
    }

    fn copy(&mut self, from: PagePtr, to: PageId) -> Result<()> {
        self.page(from)?;
        let (offset, len) = (from.id.0 << self.page_shift, 1 << self.page_shift);
        match self.read_map.bytes(offset, len) {
            Some(page)
                if self.is_dirty(to)
                    && !self.write_map.is_claimed(from.id)
                    && self.append_buffer.page(to).is_none() =>
            {
                self.write_map.bytes_mut(to, 1).copy_from_slice(page);
                Ok(())
            }
            _ => copy_through_stack(self, from, to),
        }
    }

    fn leaf_fact(&self, ptr: PagePtr) -> Option<LeafFact> {
        self.leaf_facts.get(ptr.id).filter(|fact| self.still_holds(ptr, fact))
    }

    fn set_verified_sealed(&mut self, ptr: PagePtr) {
        self.read_map.set_verified(ptr.id, verified_byte_of(ptr.crc));
        if let Some(page) = self.write_map.bytes(ptr.id, 1).filter(|_| self.write_map.is_claimed(ptr.id)) {
            self.leaf_facts.note(page, ptr.id);
        }
    }
}

#[cfg(test)]
mod tests;

//! Pages as the running write transaction sees them: allocate, free, and change its own.
//!
//! Floor: pager. [`TxnPages`] owns the writable mapping (the one writable mapping) and the free space. A page is *dirty* when this
//! transaction allocated it; only dirty pages can be borrowed mutably, because only those are claimed on the writable mapping,
//! so a page that any committed state reaches cannot be changed (rule R1).
//!
//! Invariants:
//!   ALLOC-1  claimed or kept on the writable mapping == allocated by this transaction and not freed again. Kept pages are written by calls
//!       and not dirty: whoever changes one copies it.
//!   ALLOC-2  a page handed out is either usable by R5 or beyond every state's page count.
//!   ALLOC-3  blocks of a page are reserved before it is handed out.
//!
//! Failure: [`Error::DiskFull`] when the file cannot grow, [`Error::Corrupt`] on read, I/O errors of growth.

use crate::hooks::{self, Mutant};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr, TreeId, TxnId, MAX_U48};
use crate::mapping::{Mapping, ReadMap, WriteMap};
use crate::page::checksum;
use crate::page::free_list::FreeItem;
use crate::page::overflow;
use crate::pager::read::snapshot_pages::{beyond_end, extent_range, verified_byte_of, verify_first_touch};
use crate::pager::traits::store_value;
use crate::pager::write::append_buffer::AppendBuffer;
use crate::pager::write::free_space::FreeSpace;
use crate::pager::write::overflow_writer::OverflowWriter;
use crate::pager::write::prefault::{Populator, THREAD_FROM_PAGES};
use crate::pager::write::write_queue::WriteQueue;
use crate::pager::{PageRead, PageWrite, Residency};
use crate::sys::prefetch;

/// Growth steps: an eighth of the file, within these bounds, in bytes.
const GROW_MIN_BYTES: u64 = 1 << 20;
const GROW_MAX_BYTES: u64 = 1 << 30;

/// Fresh pages are prefaulted ahead in runs, because one call for many pages costs a third of as many faults.
/// The run grows with the transaction, so that a small one dirties nothing that it does not use.
const PREFAULT_MAX_PAGES: u64 = 256;
const PREFAULT_FROM_PAGES: u64 = 32;

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
    /// Pages on their way, between [`TxnPages::begin_writing`] and [`TxnPages::end_writing`]. Locked by who reads alone, since
    /// a page that is read may have to be sent first.
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

    /// From now on pages that are built whole ([`PageWrite::write_new`]) are written by calls. Where they are expected to
    /// stay as they are until the commit, their write-back begins early.
    pub(crate) fn begin_writing(&mut self, stays: bool) {
        self.populator = None;
        let new = || Mutex::new(WriteQueue::new(Arc::clone(&self.mapping), 1 << self.page_shift, stays));
        self.write_queue.get_or_insert_with(new);
    }

    /// Ends that, when all of them are written.
    ///
    /// An error of the disk may have been told for the only time, so it counts as one of a flush (R9).
    pub(crate) fn end_writing(&mut self) -> Result<()> {
        let Some(mut write_queue) = self.write_queue.take() else { return Ok(()) };
        unlocked(&mut write_queue).finish(&self.read_map).map_err(|e| self.writing_error(e))
    }

    /// Ends the filling of pages in a row: whatever comes next finds every page in its place. To be called before other
    /// changes, and before pages are sealed.
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

    /// Claims pages that the free space gave. A file whose free space names a page twice is damaged.
    pub(crate) fn claim(&mut self, id: PageId, pages: u64) -> Result<()> {
        self.not_owned(id, pages)?;
        if self.mapping.populates_first() {
            self.prefault(id, pages)?;
        }
        self.write_map.claim(id, pages);
        Ok(())
    }

    fn not_owned(&self, id: PageId, pages: u64) -> Result<()> {
        match self.write_map.owns_any(id, pages) {
            true => Err(Error::corrupt(id, "the free space names a page twice")),
            false => Ok(()),
        }
    }

    /// Gives up a claim without touching the free space.
    pub(crate) fn unclaim(&mut self, id: PageId, pages: u64) {
        self.write_map.unclaim(id, pages);
    }

    /// Pages that this transaction has and did not free again.
    #[inline]
    pub(crate) fn owned_count(&self) -> u64 {
        self.write_map.owned_count()
    }

    /// Whether the pages of this transaction lie in large folios of the page cache, so that far more would be written.
    #[cold]
    pub(crate) fn are_in_large_folios(&self) -> bool {
        self.mapping.has_large_folios(&self.write_map.claimed_runs())
    }

    /// Whether this transaction allocated every page of a run.
    pub(crate) fn is_dirty_extent(&self, id: PageId, pages: u64) -> bool {
        self.write_map.is_claimed_extent(id, pages)
    }

    /// Pages that this transaction lets go of. They are not dirty, so they were written before it, whatever they say; the
    /// oldest birth pins them for the longest.
    pub(crate) fn freed_item(&self, id: PageId, pages: u64, born: TxnId) -> FreeItem {
        let born = if born < self.txn { born } else { TxnId::default() };
        FreeItem { start: id, pages, born, freed: self.txn }
    }

    /// Takes pages at the end of the file, growing it as needed.
    pub(crate) fn alloc_at_end(&mut self, pages: u64) -> Result<PageId> {
        let start = self.extend(pages)?;
        self.fresh_pages += pages;
        self.prefault_ahead(start, start + pages)?;
        self.write_map.claim(PageId(start), pages);
        Ok(PageId(start))
    }

    /// Takes pages that are written by calls.
    pub(crate) fn alloc_written_through(&mut self, pages: u64) -> Result<PageId> {
        let id = match self.free.take_extent(pages) {
            Some(id) => id,
            None => PageId(self.extend(pages)?),
        };
        self.not_owned(id, pages)?;
        self.write_map.keep(id, pages);
        Ok(id)
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

    /// Lets kept pages that are not on their way go, to be used again at once.
    pub(crate) fn give_back_written_through(&mut self, id: PageId, pages: u64) {
        self.write_map.unkeep(id, pages);
        self.free.add_unlisted(id, pages);
    }

    /// Adds pages at the end; gives the first one.
    fn extend(&mut self, pages: u64) -> Result<u64> {
        let start = self.page_count;
        let end = start.checked_add(pages).filter(|&end| end <= MAX_U48).ok_or_else(|| self.disk_full(pages))?;
        let needed = end << self.page_shift;
        if needed > self.write_map.len_bytes() {
            self.grow(needed)?;
        }
        self.page_count = end;
        Ok(start)
    }

    fn grow(&mut self, needed: u64) -> Result<()> {
        let mapped = self.write_map.len_bytes();
        let step = (mapped / 8).clamp(GROW_MIN_BYTES, GROW_MAX_BYTES);
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
        if self.read_map.window_id() != self.mapping.window_id() {
            self.read_map = self.mapping.read_map();
        }
        result.map_err(|e| Error::io("growing the file", &self.path, e).with_wanted(needed - mapped))
    }

    /// Sees that storing to pages cannot meet a full disk.
    fn prefault(&self, id: PageId, pages: u64) -> Result<()> {
        let wanted = pages << self.page_shift;
        let backed = self.mapping.back_pages(&self.write_map, id, pages);
        backed.map_err(|e| Error::io("preparing pages for writing", &self.path, e).with_wanted(wanted))
    }

    fn prefault_ahead(&mut self, start: u64, end: u64) -> Result<()> {
        // While pages are written by calls, most of what follows is not stored to.
        let few = self.fresh_pages < PREFAULT_FROM_PAGES || self.write_queue.is_some();
        if few && !self.mapping.populates_first() || end <= self.prefaulted_to {
            return Ok(());
        }
        let mapped_pages = self.write_map.len_bytes() >> self.page_shift;
        // Where a store can meet a full disk, pages are prefaulted before they are used, not beside it.
        if self.fresh_pages >= THREAD_FROM_PAGES && !self.mapping.populates_first() {
            if self.populator.is_none() {
                self.populator = Populator::start(Arc::clone(&self.mapping), self.page_shift, end);
            }
            if let Some(populator) = &mut self.populator {
                populator.keep_ahead(end, self.fresh_pages, mapped_pages);
                return Ok(());
            }
        }
        let ahead = (self.fresh_pages / 4).min(PREFAULT_MAX_PAGES);
        let from = start.max(self.prefaulted_to);
        let to = (end + ahead).min(mapped_pages);
        self.prefaulted_to = to;
        self.prefault(PageId(from), to - from)
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

    /// Waits until a page that may be on its way is written. Nothing of it is borrowed before (QUEUE-1).
    fn await_written(&self, id: PageId) -> Result<()> {
        if self.read_map.is_inherited() {
            return Err(self.read_map.fault());
        }
        if let Some(write_queue) = &self.write_queue {
            // An error stays for those who can tell it.
            write_queue.lock().unwrap_or_else(PoisonError::into_inner).bring(id, &self.read_map);
        }
        Ok(())
    }

    /// The bytes of pages that are not on their way.
    #[inline]
    fn mapped(&self, id: PageId, pages: u64) -> Result<&[u8]> {
        self.write_map.bytes(id, pages).ok_or_else(|| beyond_end(id, pages, self.page_count))
    }

    #[cold]
    fn disk_full(&self, pages: u64) -> Error {
        Error::DiskFull { path: self.path.to_path_buf(), wanted: pages << self.page_shift }
    }
}

/// A value with fewer pages is stored: its pages are often dirty already.
const CALLS_FROM_PAGES: u64 = 4;

/// Whether tests want checksums that leave the last byte out, which those of runs in chunks do not.
fn has_short_checksums() -> bool {
    hooks::is(Mutant::ShortChecksum)
}

/// What an error of writing pages by calls says that was done.
pub(crate) const WRITING: &str = "writing pages";

/// What a mutex holds, for who has it alone.
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
        self.write_map.keep(id, 1);
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
                // Still on its way, it would be written over what comes next. An error stays for those who can tell it.
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
                // A value that cannot be read can be let go of all the same.
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
mod tests {
    use super::*;
    use crate::hooks::FlushKind;
    use crate::mapping::MapOptions;
    use crate::page::checksum;
    use crate::pager::read::snapshot_pages::SnapshotPages;

    /// Pages with ids beyond 2^32, which lie beyond 16 TiB: taken, stored to, flushed and read through both mappings.
    /// The file is sparse, on tmpfs, because other file systems do not take one of that length; with larger pages it would
    /// not fit an address space of 47 bits.
    #[test]
    fn pages_beyond_two_to_the_32_are_taken_written_and_read() {
        for page_size in [4096usize, 8192] {
            let first = (1u64 << 32) + 7;
            let file = tempfile::tempfile_in("/dev/shm").expect("a file on tmpfs");
            file.set_len((first + 600) * page_size as u64).expect("a sparse file");
            let options = MapOptions { page_size, window_bytes: None, fault_guard: true, used_bytes: None };
            let mapping = Arc::new(Mapping::of_file(file, true, options).expect("mapped"));
            mapping.ready_to_write().expect("ready");
            let write_map = mapping.write_map().expect("the first writable mapping");
            let path = Arc::new(PathBuf::from("far"));
            let mut pages = TxnPages::new(Arc::clone(&mapping), write_map, path, page_size, FreeSpace::default());
            pages.begin(TxnId(9), first);
            let mut written = Vec::new();
            for extent in [1u64, 1, 300, 1] {
                let id = pages.alloc(extent).expect("taken");
                assert_eq!(id.0, first + written.iter().map(|&(_, extent, _)| extent).sum::<u64>());
                let bytes = pages.extent_mut(id, extent).expect("claimed");
                bytes.fill(id.0 as u8);
                bytes[4..12].copy_from_slice(&id.0.to_le_bytes());
                let crc = checksum::seal(bytes);
                pages.set_verified_sealed(PagePtr { id, crc });
                written.push((id, extent, crc));
            }
            assert_eq!(pages.write_map.claimed_count(), 303);
            let far = first * page_size as u64;
            mapping.flush(FlushKind::Tree, far, 303 * page_size as u64).expect("flushed");
            let count = pages.page_count();
            pages.end();
            pages.begin(TxnId(10), count);
            let snapshot = SnapshotPages::new(mapping.read_map(), page_size, count);
            for &(id, extent, crc) in &written {
                let ptr = PagePtr { id, crc };
                for bytes in [snapshot.extent(ptr, extent).expect("read"), pages.extent(ptr, extent).expect("read")] {
                    assert_eq!(bytes.len() as u64, extent * page_size as u64);
                    assert_eq!(bytes[4..12], id.0.to_le_bytes());
                }
                assert!(!pages.is_dirty(id) && snapshot.page(PagePtr { id: PageId(id.0 - (1 << 32)), crc }).is_err());
            }
            // A page that is freed and taken again keeps its id.
            pages.free(written[0].0, 1, TxnId(9));
            let freed = pages.free.drain_freed();
            assert_eq!((freed[0].start, freed[0].pages, freed[0].born), (written[0].0, 1, TxnId(9)));
            pages.free.add_unlisted(freed[0].start, 1);
            assert_eq!(pages.alloc(1).expect("taken"), written[0].0);
            pages.end();
        }
    }

    /// A store into a hole takes a block, and on a full disk ends the process: the block is taken before.
    #[test]
    fn pages_in_holes_of_a_file_get_their_blocks_before_they_are_stored_to() {
        use std::os::unix::fs::MetadataExt as _;
        let file = tempfile::tempfile_in("/dev/shm").expect("a file on tmpfs");
        file.set_len(100 * 4096).expect("a sparse file");
        let same = file.try_clone().expect("the same file");
        let blocks = move || same.metadata().expect("metadata").blocks();
        let options = MapOptions { page_size: 4096, window_bytes: None, fault_guard: true, used_bytes: None };
        let mapping = Arc::new(Mapping::of_file(file, true, options).expect("mapped"));
        mapping.ready_to_write().expect("ready");
        let write_map = mapping.write_map().expect("the first writable mapping");
        let path = Arc::new(PathBuf::from("holes"));
        let mut pages = TxnPages::new(mapping, write_map, path, 4096, FreeSpace::default());
        pages.begin(TxnId(3), 50);
        // The sentinel, and the last page, which was looked at: on tmpfs a hole that is read through a mapping takes a block.
        let sentinel = blocks();
        assert!(sentinel <= 16, "{sentinel}");
        pages.alloc(1).expect("a page behind the pages in use");
        assert_eq!(blocks(), sentinel + 8);
        pages.free.add_unlisted(PageId(10), 4);
        pages.alloc(4).expect("free pages");
        assert_eq!(blocks(), sentinel + 5 * 8);
        pages.end();
    }

    /// Pages in memory, and the first transaction on them.
    fn in_memory() -> TxnPages {
        let options = MapOptions { page_size: 4096, window_bytes: Some(1 << 22), fault_guard: true, used_bytes: None };
        let mapping = Arc::new(Mapping::anonymous(options).expect("mapped"));
        let write_map = mapping.write_map().expect("the first writable mapping");
        let path = Arc::new(PathBuf::from("memory"));
        let mut pages = TxnPages::new(mapping, write_map, path, 4096, FreeSpace::default());
        pages.begin(TxnId(3), 2);
        pages
    }

    /// Fills a page with a number and seals it; what the pointer to it says.
    fn filled(page: &mut [u8], number: u32) -> u32 {
        page.chunks_exact_mut(4).for_each(|word| word.copy_from_slice(&number.to_le_bytes()));
        checksum::seal(page)
    }

    /// Two numbers for which pages have the same mark.
    fn with_the_same_mark() -> (u32, u32) {
        let mut page = vec![0; 4096];
        let mut verified_byte = |number| verified_byte_of(filled(&mut page, number));
        let first = verified_byte(1);
        (1, (2..).find(|&number| verified_byte(number) == first).expect("there are 255 marks"))
    }

    #[test]
    fn a_page_that_is_freed_while_it_is_filled_aside_is_a_page_like_any_other() {
        let mut pages = in_memory();
        let mut aside = pages.alloc_to_fill().expect("a page");
        while !pages.append_buffer.is_due() {
            assert!(pages.settle(aside).expect("settled").is_none());
            aside = pages.alloc_to_fill().expect("a page");
        }
        pages.settle(aside).expect("settled");
        let aside = pages.alloc_to_fill().expect("a page on the append buffer");
        filled(pages.page_mut(aside).expect("dirty"), 1);
        pages.free(aside, 1, TxnId(3));
        assert_eq!(pages.alloc(1).expect("a page"), aside, "freed last, it comes first");
        let crc = filled(pages.extent_mut(aside, 1).expect("dirty"), 2);
        let ptr = PagePtr { id: aside, crc };
        let number = |bytes: &[u8]| u32::from_le_bytes([bytes[100], bytes[101], bytes[102], bytes[103]]);
        assert_eq!(number(pages.extent(ptr, 1).expect("a run of one page")), 2);
        assert_eq!(number(pages.page(ptr).expect("a page")), 2);
        pages.end_filling().expect("ended");
        assert_eq!(number(pages.extent(ptr, 1).expect("a run of one page")), 2, "nothing is put in its place");
        pages.end();
    }

    /// A mark says that the page was verified with this checksum: the page that lay there before was.
    #[test]
    fn a_page_on_its_way_has_no_mark_of_the_page_that_lay_there() {
        let (before, after) = with_the_same_mark();
        let mut pages = in_memory();
        let id = pages.alloc(3).expect("pages");
        for page in 0..3 {
            let crc = filled(
                pages.extent_mut(id, 3).expect("dirty").chunks_exact_mut(4096).nth(page).expect("a page"),
                before,
            );
            pages.set_verified_sealed(PagePtr { id: PageId(id.0 + page as u64), crc });
        }
        let count = pages.page_count();
        pages.end();
        pages.begin(TxnId(4), count);
        pages.free.add_unlisted(id, 3);
        pages.begin_writing(true);
        let ptr = pages
            .write_new(|page, _| {
                filled(page, after);
                Ok(())
            })
            .expect("built");
        assert_eq!((ptr.id, pages.read_map.verified_byte(id)), (id, 0));
        assert!(pages.page(ptr).expect("read")[8..].chunks_exact(4).all(|word| word == after.to_le_bytes()));
        assert_eq!(pages.read_map.verified_byte(id), verified_byte_of(ptr.crc), "written and verified");
        // All pages of a run.
        let extent = pages.alloc_written_through(2).expect("a run");
        assert_eq!(extent.0, id.0 + 1);
        pages.put(extent, &[7; 2 * 4096]).expect("taken");
        assert_eq!([0, 1].map(|page| pages.read_map.verified_byte(PageId(extent.0 + page))), [0, 0]);
        pages.end_writing().expect("written");
        pages.end();
    }

    /// It would be written over what comes next in its place.
    #[test]
    fn a_page_that_is_freed_on_its_way_is_written_before_its_place_is_used_again() {
        let mut pages = in_memory();
        let id = pages.alloc(1).expect("a page");
        let crc = filled(pages.page_mut(id).expect("dirty"), 1);
        pages.set_verified_sealed(PagePtr { id, crc });
        let count = pages.page_count();
        pages.end();
        pages.begin(TxnId(4), count);
        pages.free.add_unlisted(id, 1);
        pages.begin_writing(true);
        let build = |page: &mut [u8], _| {
            filled(page, 2);
            Ok(())
        };
        assert_eq!(pages.write_new(build).expect("built").id, id);
        pages.free(id, 1, TxnId(4));
        assert_eq!(pages.alloc(1).expect("a page"), id);
        let crc = filled(pages.page_mut(id).expect("dirty"), 3);
        pages.end_writing().expect("written");
        let page = pages.page(PagePtr { id, crc }).expect("read");
        assert!(page[8..].chunks_exact(4).all(|word| word == 3u32.to_le_bytes()));
        pages.end();
    }

    #[test]
    fn a_state_never_gets_more_pages_than_pointers_can_name() {
        let options = MapOptions { page_size: 4096, window_bytes: Some(1 << 20), fault_guard: true, used_bytes: None };
        let mapping = Arc::new(Mapping::anonymous(options).expect("mapped"));
        let write_map = mapping.write_map().expect("the first writable mapping");
        let path = Arc::new(PathBuf::from("full"));
        let mut pages = TxnPages::new(mapping, write_map, path, 4096, FreeSpace::default());
        for (count, wanted) in [(MAX_U48, 1), (MAX_U48 - 1, 2), (2, MAX_U48), (MAX_U48, u64::MAX)] {
            pages.begin(TxnId(3), count);
            let refused = pages.alloc(wanted).expect_err("too many");
            assert_eq!(refused.kind(), crate::error::ErrorKind::DiskFull, "{refused}");
            assert_eq!((pages.page_count(), pages.write_map.claimed_count()), (count, 0));
        }
    }

    /// Two owners of one page would write over each other.
    #[test]
    fn a_page_that_the_free_space_names_again_is_not_handed_out_twice() {
        let options = MapOptions { page_size: 4096, window_bytes: Some(1 << 20), fault_guard: true, used_bytes: None };
        let mapping = Arc::new(Mapping::anonymous(options).expect("mapped"));
        let write_map = mapping.write_map().expect("the first writable mapping");
        let mut pages = TxnPages::new(mapping, write_map, Arc::new(PathBuf::from("twice")), 4096, FreeSpace::default());
        pages.begin(TxnId(3), 2);
        let id = pages.alloc(2).expect("two pages");
        for (start, extent) in [(id, 1), (PageId(id.0 + 1), 1), (id, 2)] {
            pages.free.add_unlisted(start, extent);
            let refused = pages.alloc(extent).expect_err("the transaction has it");
            assert_eq!(refused.kind(), crate::error::ErrorKind::Corrupt, "{refused}");
        }
        pages.begin_writing(false);
        pages.free.add_unlisted(id, 1);
        let refused = pages.write_new(|_, _| Ok(())).expect_err("the transaction has it");
        assert_eq!(refused.kind(), crate::error::ErrorKind::Corrupt, "{refused}");
        pages.end();
    }
}

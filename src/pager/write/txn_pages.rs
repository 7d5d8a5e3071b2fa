//! Pages as the running write transaction sees them: allocate, free, and change its own.
//!
//! Floor: pager. [`TxnPages`] owns the canvas (the one writable mapping) and the free space. A page is *dirty* when this
//! transaction allocated it; only dirty pages can be borrowed mutably, because only those are claimed on the canvas,
//! so a page that any committed state reaches cannot be changed (rule R1).
//!
//! Invariants:
//!   W1  claimed or kept on the canvas == allocated by this transaction and not freed again. Kept pages are written by calls
//!       and not dirty: whoever changes one copies it.
//!   W2  a page handed out is either usable by R5 or beyond every state's page count.
//!   W3  blocks of a page are reserved before it is handed out.
//!
//! Failure: [`Error::DiskFull`] when the file cannot grow, [`Error::Corrupt`] on read, I/O errors of growth.

use crate::hooks::{self, Mutant};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr, TreeId, TxnId, MAX_U48};
use crate::mapping::{Canvas, Mapping, View};
use crate::page::checksum;
use crate::page::free_list::FreeItem;
use crate::page::overflow;
use crate::pager::read::snapshot_pages::{beyond_end, mark_of, run_range, verify_first_touch};
use crate::pager::traits::store_value;
use crate::pager::write::append_buffer::Desk;
use crate::pager::write::free_space::FreeSpace;
use crate::pager::write::overflow_writer::ValueRun;
use crate::pager::write::prefault::{Populator, THREAD_FROM_PAGES};
use crate::pager::write::write_queue::Outbox;
use crate::pager::{PageRead, PageWrite, Residence};
use crate::sys::prefetch;

/// Growth steps: an eighth of the file, within these bounds, in bytes.
const GROW_MIN_BYTES: u64 = 1 << 20;
const GROW_MAX_BYTES: u64 = 1 << 30;

/// Fresh pages are populated ahead in runs, because one call for many pages costs a third of as many faults.
/// The run grows with the transaction, so that a small one dirties nothing that it does not use.
const POPULATE_MAX_PAGES: u64 = 256;
const POPULATE_FROM_PAGES: u64 = 32;

/// Read and write access to the pages of the running write transaction.
#[derive(Debug)]
pub(crate) struct TxnPages {
    mapping: Arc<Mapping>,
    canvas: Canvas,
    /// For the verified marks, which belong to the window.
    view: View,
    path: Arc<PathBuf>,
    page_shift: u32,
    txn: TxnId,
    page_count: u64,
    fresh_pages: u64,
    populated_to: u64,
    /// Populates on a thread of its own once the transaction is large.
    populator: Option<Populator>,
    /// Pages on their way, between [`TxnPages::begin_writing`] and [`TxnPages::end_writing`]. Locked by who reads alone, since
    /// a page that is read may have to be sent first.
    outbox: Option<Mutex<Outbox>>,
    /// The page that is being filled, where many are filled one after the other.
    desk: Desk,
    /// Where a page is built before it goes to the outbox.
    built: Vec<u8>,
    pub(crate) free: FreeSpace,
}

impl TxnPages {
    /// Starts a transaction on a state of `page_count` pages.
    pub(crate) fn new(
        mapping: Arc<Mapping>,
        canvas: Canvas,
        path: Arc<PathBuf>,
        page_size: usize,
        free: FreeSpace,
    ) -> TxnPages {
        let view = mapping.view();
        let page_shift = page_size.trailing_zeros();
        let txn = TxnId::default();
        TxnPages {
            mapping,
            canvas,
            view,
            path,
            page_shift,
            txn,
            page_count: 0,
            fresh_pages: 0,
            populated_to: 0,
            populator: None,
            outbox: None,
            desk: Desk::default(),
            built: Vec::new(),
            free,
        }
    }

    /// Begins transaction `txn` on a state of `page_count` pages.
    pub(crate) fn begin(&mut self, txn: TxnId, page_count: u64) {
        debug_assert_eq!(self.canvas.owned_count(), 0);
        self.txn = txn;
        self.page_count = page_count;
        self.fresh_pages = 0;
        self.populated_to = 0;
    }

    /// Ends the transaction, whichever way: no page can be changed any more.
    pub(crate) fn end(&mut self) {
        self.populator = None;
        self.outbox = None;
        self.desk = Desk::default();
        self.built = Vec::new();
        self.canvas.release_all();
    }

    /// From now on pages that are built whole ([`PageWrite::write_new`]) are written by calls. Where they are expected to
    /// stay as they are until the commit, their write-back begins early.
    pub(crate) fn begin_writing(&mut self, stays: bool) {
        self.populator = None;
        let new = || Mutex::new(Outbox::new(Arc::clone(&self.mapping), 1 << self.page_shift, stays));
        self.outbox.get_or_insert_with(new);
    }

    /// Ends that, when all of them are written.
    ///
    /// An error of the medium may have been told for the only time, so it counts as one of a flush (R9).
    pub(crate) fn end_writing(&mut self) -> Result<()> {
        let Some(mut outbox) = self.outbox.take() else { return Ok(()) };
        unlocked(&mut outbox).finish(&self.view).map_err(|e| self.writing_error(e))
    }

    /// Ends the filling of pages in a row: whatever comes next finds every page in its place. To be called before other
    /// changes, and before pages are sealed.
    #[inline]
    pub(crate) fn end_filling(&mut self) -> Result<()> {
        match self.desk.interrupt() {
            true => self.clear_desk(),
            false => Ok(()),
        }
    }

    #[cold]
    fn clear_desk(&mut self) -> Result<()> {
        self.put_down()?;
        self.end_writing()
    }

    /// Writes the page on the desk to its place in the mapping. It stays dirty.
    fn put_down(&mut self) -> Result<()> {
        if let Some((id, bytes)) = self.desk.take() {
            self.mapping.write_pages(id.0 << self.page_shift, &bytes).map_err(|e| self.writing_error(e))?;
            self.desk.give_back(bytes);
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
            self.populate(id, pages)?;
        }
        self.canvas.claim(id, pages);
        Ok(())
    }

    fn not_owned(&self, id: PageId, pages: u64) -> Result<()> {
        match self.canvas.owns_any(id, pages) {
            true => Err(Error::corrupt(id, "the free space names a page twice")),
            false => Ok(()),
        }
    }

    /// Gives up a claim without touching the free space.
    pub(crate) fn unclaim(&mut self, id: PageId, pages: u64) {
        self.canvas.unclaim(id, pages);
    }

    /// Pages that this transaction has and did not free again.
    #[inline]
    pub(crate) fn owned_count(&self) -> u64 {
        self.canvas.owned_count()
    }

    /// Whether the pages of this transaction lie in large folios of the page cache, so that far more would be written.
    #[cold]
    pub(crate) fn are_in_large_folios(&self) -> bool {
        self.mapping.has_large_folios(&self.canvas.claimed_runs())
    }

    /// Whether this transaction allocated every page of a run.
    pub(crate) fn is_dirty_run(&self, id: PageId, pages: u64) -> bool {
        self.canvas.is_claimed_run(id, pages)
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
        self.populate_ahead(start, start + pages)?;
        self.canvas.claim(PageId(start), pages);
        Ok(PageId(start))
    }

    /// Takes pages that are written by calls.
    pub(crate) fn alloc_kept(&mut self, pages: u64) -> Result<PageId> {
        let id = match self.free.take_run(pages) {
            Some(id) => id,
            None => PageId(self.extend(pages)?),
        };
        self.not_owned(id, pages)?;
        self.canvas.keep(id, pages);
        Ok(id)
    }

    /// Writes whole pages of a kept run, from an offset in it on.
    pub(crate) fn write_kept(&self, id: PageId, at: u64, bytes: &[u8]) -> Result<()> {
        debug_assert!(self.canvas.is_kept_run(id, 1));
        self.mapping.write_pages((id.0 << self.page_shift) + at, bytes).map_err(|e| self.writing_error(e))
    }

    /// Begins to write pages to the disk.
    pub(crate) fn start_write_back(&self, id: PageId, len: u64) -> Result<()> {
        self.mapping.start_write_back(id.0 << self.page_shift, len).map_err(|e| self.writing_error(e))
    }

    /// Lets kept pages that are not on their way go, to be used again at once.
    pub(crate) fn give_back_kept(&mut self, id: PageId, pages: u64) {
        self.canvas.unkeep(id, pages);
        self.free.add_unlisted(id, pages);
    }

    /// Adds pages at the end; gives the first one.
    fn extend(&mut self, pages: u64) -> Result<u64> {
        let start = self.page_count;
        let end = start.checked_add(pages).filter(|&end| end <= MAX_U48).ok_or_else(|| self.disk_full(pages))?;
        let needed = end << self.page_shift;
        if needed > self.canvas.len_bytes() {
            self.grow(needed)?;
        }
        self.page_count = end;
        Ok(start)
    }

    fn grow(&mut self, needed: u64) -> Result<()> {
        let mapped = self.canvas.len_bytes();
        let step = (mapped / 8).clamp(GROW_MIN_BYTES, GROW_MAX_BYTES);
        let wanted = needed.max(mapped + step).next_multiple_of(GROW_MIN_BYTES);
        let exact = needed.next_multiple_of(1 << self.page_shift);
        let result = match self.mapping.grow(&mut self.canvas, wanted) {
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge | io::ErrorKind::OutOfMemory
                ) && exact < wanted =>
            {
                self.mapping.grow(&mut self.canvas, exact)
            }
            other => other,
        };
        if self.view.window_id() != self.mapping.window_id() {
            self.view = self.mapping.view();
        }
        result.map_err(|e| Error::io("growing the file", &self.path, e).with_wanted(needed - mapped))
    }

    /// Sees that storing to pages cannot meet a full disk.
    fn populate(&self, id: PageId, pages: u64) -> Result<()> {
        let wanted = pages << self.page_shift;
        let backed = self.mapping.back_pages(&self.canvas, id, pages);
        backed.map_err(|e| Error::io("preparing pages for writing", &self.path, e).with_wanted(wanted))
    }

    fn populate_ahead(&mut self, start: u64, end: u64) -> Result<()> {
        // While pages are written by calls, most of what follows is not stored to.
        let few = self.fresh_pages < POPULATE_FROM_PAGES || self.outbox.is_some();
        if few && !self.mapping.populates_first() || end <= self.populated_to {
            return Ok(());
        }
        let mapped_pages = self.canvas.len_bytes() >> self.page_shift;
        // Where a store can meet a full disk, pages are populated before they are used, not beside it.
        if self.fresh_pages >= THREAD_FROM_PAGES && !self.mapping.populates_first() {
            if self.populator.is_none() {
                self.populator = Populator::start(Arc::clone(&self.mapping), self.page_shift, end);
            }
            if let Some(populator) = &mut self.populator {
                populator.keep_ahead(end, self.fresh_pages, mapped_pages);
                return Ok(());
            }
        }
        let ahead = (self.fresh_pages / 4).min(POPULATE_MAX_PAGES);
        let from = start.max(self.populated_to);
        let to = (end + ahead).min(mapped_pages);
        self.populated_to = to;
        self.populate(PageId(from), to - from)
    }

    /// Sends a page or run that is built and sealed.
    fn put(&mut self, id: PageId, sealed: &[u8]) -> Result<()> {
        let Some(outbox) = &mut self.outbox else { return Ok(()) };
        unlocked(outbox).put(id, sealed, &self.view).map_err(|e| self.writing_error(e))
    }

    /// Brings a page or run in that has no mark, and verifies it.
    #[cold]
    fn touch(&self, ptr: PagePtr, pages: u64) -> Result<&[u8]> {
        self.await_written(ptr.id)?;
        self.canvas.probe(ptr.id, pages)?;
        verify_first_touch(&self.view, ptr, self.mapped(ptr.id, pages)?)
    }

    /// Waits until a page that may be on its way is written. Nothing of it is borrowed before (O1 of `outbox`).
    fn await_written(&self, id: PageId) -> Result<()> {
        if self.view.is_inherited() {
            return Err(self.view.fault());
        }
        if let Some(outbox) = &self.outbox {
            // An error stays for those who can tell it.
            outbox.lock().unwrap_or_else(PoisonError::into_inner).bring(id, &self.view);
        }
        Ok(())
    }

    /// The bytes of pages that are not on their way.
    #[inline]
    fn mapped(&self, id: PageId, pages: u64) -> Result<&[u8]> {
        self.canvas.bytes(id, pages).ok_or_else(|| beyond_end(id, pages, self.page_count))
    }

    #[cold]
    fn disk_full(&self, pages: u64) -> Error {
        Error::DiskFull { path: self.path.to_path_buf(), wanted: pages << self.page_shift }
    }
}

/// A value with fewer pages is stored: its pages are often dirty already.
const CALLS_FROM_PAGES: u64 = 4;

/// Whether tests want checksums that leave the last byte out, which those of runs in pieces do not.
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

impl Residence for TxnPages {}

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
        if self.canvas.is_claimed(ptr.id) {
            return self.desk.page(ptr.id).map_or_else(|| self.mapped(ptr.id, 1), Ok);
        }
        match self.view.mark(ptr.id) == mark_of(ptr.crc) {
            true => self.mapped(ptr.id, 1),
            false => self.touch(ptr, 1),
        }
    }

    fn run(&self, ptr: PagePtr, pages: u64) -> Result<&[u8]> {
        run_range(ptr.id, pages, self.page_count, self.page_shift)
            .ok_or_else(|| beyond_end(ptr.id, pages, self.page_count))?;
        match self.canvas.is_claimed(ptr.id) || self.view.mark(ptr.id) == mark_of(ptr.crc) {
            true => self.mapped(ptr.id, pages),
            false => self.touch(ptr, pages),
        }
    }

    #[inline]
    fn prefetch(&self, id: PageId, from: usize, bytes: usize) {
        // Of a page without a mark, which may be on its way, nothing is borrowed.
        if !self.canvas.is_claimed(id) && self.view.mark(id) == 0 {
            return;
        }
        if let Some(wanted) = self.canvas.bytes(id, 1).and_then(|page| page.get(from..from + bytes)) {
            prefetch::lines(wanted);
        }
    }

    #[inline]
    fn intact(&self) -> bool {
        self.view.intact()
    }

    #[cold]
    fn fault(&self) -> Error {
        self.view.fault()
    }
}

impl PageWrite for TxnPages {
    fn txn(&self) -> TxnId {
        self.txn
    }

    #[inline]
    fn is_dirty(&self, id: PageId) -> bool {
        self.canvas.is_claimed(id)
    }

    fn write_new(&mut self, build: impl FnOnce(&mut [u8], PageId) -> Result<()>) -> Result<PagePtr> {
        if self.outbox.is_none() {
            let id = self.alloc(1)?;
            let page = self.page_mut(id)?;
            build(page, id)?;
            let ptr = PagePtr { id, crc: checksum::seal(page) };
            self.mark_sealed(ptr);
            return Ok(ptr);
        }
        let id = self.alloc_kept(1)?;
        let mut page = std::mem::take(&mut self.built);
        page.resize(1 << self.page_shift, 0);
        build(&mut page, id)?;
        let crc = checksum::seal(&mut page);
        self.put(id, &page)?;
        self.built = page;
        Ok(PagePtr { id, crc })
    }

    fn alloc_to_fill(&mut self) -> Result<PageId> {
        if !self.desk.is_due() {
            return self.alloc(1);
        }
        // There is one if tables are appended to by turns.
        self.put_down()?;
        self.begin_writing(true);
        let id = match self.free.take_run(1) {
            Some(id) => id,
            None => PageId(self.extend(1)?),
        };
        self.not_owned(id, 1)?;
        self.canvas.claim(id, 1);
        self.desk.lay(id, 1 << self.page_shift);
        Ok(id)
    }

    fn settle(&mut self, id: PageId) -> Result<Option<PagePtr>> {
        if self.desk.page(id).is_none() {
            self.desk.count_filled();
            return Ok(None);
        }
        let Some((_, mut page)) = self.desk.take() else { return Ok(None) };
        let crc = checksum::seal(&mut page);
        self.canvas.unclaim(id, 1);
        self.canvas.keep(id, 1);
        self.put(id, &page)?;
        self.desk.give_back(page);
        Ok(Some(PagePtr { id, crc }))
    }

    fn write_value(&mut self, tree: TreeId, value: &[u8]) -> Result<PagePtr> {
        if overflow::run_pages(self.page_size(), value.len() as u64) < CALLS_FROM_PAGES || has_short_checksums() {
            return store_value(self, tree, value);
        }
        let mut run = ValueRun::begin(self, tree, value.len() as u64)?;
        run.add(self, value)?;
        run.finish(self)
    }

    fn alloc(&mut self, pages: u64) -> Result<PageId> {
        match self.free.take_run(pages) {
            Some(id) => {
                self.claim(id, pages)?;
                Ok(id)
            }
            None => self.alloc_at_end(pages),
        }
    }

    fn free(&mut self, id: PageId, pages: u64, born: TxnId) {
        if self.is_dirty_run(id, pages) {
            if self.desk.page(id).is_some() {
                self.desk.take();
            }
            self.canvas.unclaim(id, pages);
            self.free.give_back_dirty(id, pages);
        } else if self.canvas.is_kept_run(id, pages) {
            if let (Some(outbox), 0) = (&mut self.outbox, self.view.mark(id)) {
                // Still on its way, it would be written over what comes next. An error stays for those who can tell it.
                drop(unlocked(outbox).finish(&self.view));
            }
            self.give_back_kept(id, pages);
        } else if reuses_early() {
            self.free.add_unlisted(id, pages);
        } else {
            self.free.add_freed(self.freed_item(id, pages, born));
        }
    }

    fn page_mut(&mut self, id: PageId) -> Result<&mut [u8]> {
        self.run_mut(id, 1)
    }

    fn run_mut(&mut self, id: PageId, pages: u64) -> Result<&mut [u8]> {
        if !self.canvas.is_claimed_run(id, pages) {
            return Err(Error::corrupt(id, "a page is both in use and free"));
        }
        match self.desk.page_mut(id) {
            Some(page) => Ok(page),
            None => Ok(self.canvas.bytes_mut(id, pages)),
        }
    }

    fn run_born(&self, id: PageId, pages: u64) -> Result<TxnId> {
        run_range(id, pages, self.page_count, self.page_shift).ok_or_else(|| beyond_end(id, pages, self.page_count))?;
        if self.view.mark(id) == 0 && !self.canvas.is_claimed(id) {
            self.await_written(id)?;
            if self.canvas.probe(id, 1).is_err() {
                // A value that cannot be read can be let go of all the same.
                return Ok(TxnId::default());
            }
        }
        let born = overflow::born(self.mapped(id, 1)?, id);
        // A page that is not dirty was written before this transaction, whatever it says.
        Ok(born.filter(|&born| born < self.txn || self.is_dirty(id)).unwrap_or_default())
    }

    fn mark_sealed(&mut self, ptr: PagePtr) {
        self.view.set_mark(ptr.id, mark_of(ptr.crc));
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
            let options = MapOptions { page_size, window_bytes: None, guarded: true, used_bytes: None };
            let mapping = Arc::new(Mapping::of_file(file, true, options).expect("mapped"));
            mapping.ready_to_write().expect("ready");
            let canvas = mapping.canvas().expect("the first canvas");
            let path = Arc::new(PathBuf::from("far"));
            let mut pages = TxnPages::new(Arc::clone(&mapping), canvas, path, page_size, FreeSpace::default());
            pages.begin(TxnId(9), first);
            let mut written = Vec::new();
            for run in [1u64, 1, 300, 1] {
                let id = pages.alloc(run).expect("taken");
                assert_eq!(id.0, first + written.iter().map(|&(_, run, _)| run).sum::<u64>());
                let bytes = pages.run_mut(id, run).expect("claimed");
                bytes.fill(id.0 as u8);
                bytes[4..12].copy_from_slice(&id.0.to_le_bytes());
                let crc = checksum::seal(bytes);
                pages.mark_sealed(PagePtr { id, crc });
                written.push((id, run, crc));
            }
            assert_eq!(pages.canvas.claimed_count(), 303);
            let far = first * page_size as u64;
            mapping.flush(FlushKind::Tree, far, 303 * page_size as u64).expect("flushed");
            let count = pages.page_count();
            pages.end();
            pages.begin(TxnId(10), count);
            let snapshot = SnapshotPages::new(mapping.view(), page_size, count);
            for &(id, run, crc) in &written {
                let ptr = PagePtr { id, crc };
                for bytes in [snapshot.run(ptr, run).expect("read"), pages.run(ptr, run).expect("read")] {
                    assert_eq!(bytes.len() as u64, run * page_size as u64);
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
        let options = MapOptions { page_size: 4096, window_bytes: None, guarded: true, used_bytes: None };
        let mapping = Arc::new(Mapping::of_file(file, true, options).expect("mapped"));
        mapping.ready_to_write().expect("ready");
        let canvas = mapping.canvas().expect("the first canvas");
        let path = Arc::new(PathBuf::from("holes"));
        let mut pages = TxnPages::new(mapping, canvas, path, 4096, FreeSpace::default());
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
        let options = MapOptions { page_size: 4096, window_bytes: Some(1 << 22), guarded: true, used_bytes: None };
        let mapping = Arc::new(Mapping::anonymous(options).expect("mapped"));
        let canvas = mapping.canvas().expect("the first canvas");
        let path = Arc::new(PathBuf::from("memory"));
        let mut pages = TxnPages::new(mapping, canvas, path, 4096, FreeSpace::default());
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
        let mut mark = |number| mark_of(filled(&mut page, number));
        let first = mark(1);
        (1, (2..).find(|&number| mark(number) == first).expect("there are 255 marks"))
    }

    #[test]
    fn a_page_that_is_freed_while_it_is_filled_aside_is_a_page_like_any_other() {
        let mut pages = in_memory();
        let mut aside = pages.alloc_to_fill().expect("a page");
        while !pages.desk.is_due() {
            assert!(pages.settle(aside).expect("settled").is_none());
            aside = pages.alloc_to_fill().expect("a page");
        }
        pages.settle(aside).expect("settled");
        let aside = pages.alloc_to_fill().expect("a page on the desk");
        filled(pages.page_mut(aside).expect("dirty"), 1);
        pages.free(aside, 1, TxnId(3));
        assert_eq!(pages.alloc(1).expect("a page"), aside, "freed last, it comes first");
        let crc = filled(pages.run_mut(aside, 1).expect("dirty"), 2);
        let ptr = PagePtr { id: aside, crc };
        let number = |bytes: &[u8]| u32::from_le_bytes([bytes[100], bytes[101], bytes[102], bytes[103]]);
        assert_eq!(number(pages.run(ptr, 1).expect("a run of one page")), 2);
        assert_eq!(number(pages.page(ptr).expect("a page")), 2);
        pages.end_filling().expect("ended");
        assert_eq!(number(pages.run(ptr, 1).expect("a run of one page")), 2, "nothing is put in its place");
        pages.end();
    }

    /// A mark says that the page was verified with this checksum: the page that lay there before was.
    #[test]
    fn a_page_on_its_way_has_no_mark_of_the_page_that_lay_there() {
        let (before, after) = with_the_same_mark();
        let mut pages = in_memory();
        let id = pages.alloc(3).expect("pages");
        for page in 0..3 {
            let crc =
                filled(pages.run_mut(id, 3).expect("dirty").chunks_exact_mut(4096).nth(page).expect("a page"), before);
            pages.mark_sealed(PagePtr { id: PageId(id.0 + page as u64), crc });
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
        assert_eq!((ptr.id, pages.view.mark(id)), (id, 0));
        assert!(pages.page(ptr).expect("read")[8..].chunks_exact(4).all(|word| word == after.to_le_bytes()));
        assert_eq!(pages.view.mark(id), mark_of(ptr.crc), "written and verified");
        // All pages of a run.
        let run = pages.alloc_kept(2).expect("a run");
        assert_eq!(run.0, id.0 + 1);
        pages.put(run, &[7; 2 * 4096]).expect("taken");
        assert_eq!([0, 1].map(|page| pages.view.mark(PageId(run.0 + page))), [0, 0]);
        pages.end_writing().expect("written");
        pages.end();
    }

    /// It would be written over what comes next in its place.
    #[test]
    fn a_page_that_is_freed_on_its_way_is_written_before_its_place_is_used_again() {
        let mut pages = in_memory();
        let id = pages.alloc(1).expect("a page");
        let crc = filled(pages.page_mut(id).expect("dirty"), 1);
        pages.mark_sealed(PagePtr { id, crc });
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
        let options = MapOptions { page_size: 4096, window_bytes: Some(1 << 20), guarded: true, used_bytes: None };
        let mapping = Arc::new(Mapping::anonymous(options).expect("mapped"));
        let canvas = mapping.canvas().expect("the first canvas");
        let path = Arc::new(PathBuf::from("full"));
        let mut pages = TxnPages::new(mapping, canvas, path, 4096, FreeSpace::default());
        for (count, wanted) in [(MAX_U48, 1), (MAX_U48 - 1, 2), (2, MAX_U48), (MAX_U48, u64::MAX)] {
            pages.begin(TxnId(3), count);
            let refused = pages.alloc(wanted).expect_err("too many");
            assert_eq!(refused.kind(), crate::error::ErrorKind::DiskFull, "{refused}");
            assert_eq!((pages.page_count(), pages.canvas.claimed_count()), (count, 0));
        }
    }

    /// Two owners of one page would write over each other.
    #[test]
    fn a_page_that_the_free_space_names_again_is_not_handed_out_twice() {
        let options = MapOptions { page_size: 4096, window_bytes: Some(1 << 20), guarded: true, used_bytes: None };
        let mapping = Arc::new(Mapping::anonymous(options).expect("mapped"));
        let canvas = mapping.canvas().expect("the first canvas");
        let mut pages = TxnPages::new(mapping, canvas, Arc::new(PathBuf::from("twice")), 4096, FreeSpace::default());
        pages.begin(TxnId(3), 2);
        let id = pages.alloc(2).expect("two pages");
        for (start, run) in [(id, 1), (PageId(id.0 + 1), 1), (id, 2)] {
            pages.free.add_unlisted(start, run);
            let refused = pages.alloc(run).expect_err("the transaction has it");
            assert_eq!(refused.kind(), crate::error::ErrorKind::Corrupt, "{refused}");
        }
        pages.begin_writing(false);
        pages.free.add_unlisted(id, 1);
        let refused = pages.write_new(|_, _| Ok(())).expect_err("the transaction has it");
        assert_eq!(refused.kind(), crate::error::ErrorKind::Corrupt, "{refused}");
        pages.end();
    }
}

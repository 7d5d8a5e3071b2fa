//! Pages as the running write transaction sees them: allocate, free, and change its own.
//!
//! Floor: pager. [`TxnPages`] owns the canvas (the one writable mapping) and the free space. A page is *dirty* when this
//! transaction allocated it; only dirty pages can be borrowed mutably, because only those are claimed on the canvas,
//! so a page that any committed state reaches cannot be changed (rule R1).
//!
//! Invariants:
//!   W1  claimed on the canvas == allocated by this transaction and not freed again.
//!   W2  a page handed out is either usable by R5 or beyond every state's page count.
//!   W3  blocks of a page are reserved before it is handed out.
//!
//! Failure: [`Error::DiskFull`] when the file cannot grow, [`Error::Corrupt`] on read, I/O errors of growth.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr, TxnId, MAX_U48};
use crate::mapping::{Canvas, Mapping, View};
use crate::page::free_list::FreeItem;
use crate::pager::free_space::FreeSpace;
use crate::pager::snapshot_pages::{beyond_end, mark_of, run_range, verify_first_touch};
use crate::pager::{PageRead, PageWrite};

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
        TxnPages { mapping, canvas, view, path, page_shift, txn, page_count: 0, fresh_pages: 0, populated_to: 0, free }
    }

    /// Begins transaction `txn` on a state of `page_count` pages.
    pub(crate) fn begin(&mut self, txn: TxnId, page_count: u64) {
        debug_assert_eq!(self.canvas.claimed_count(), 0);
        self.txn = txn;
        self.page_count = page_count;
        self.fresh_pages = 0;
        self.populated_to = 0;
    }

    /// Ends the transaction, whichever way: no page can be changed any more.
    pub(crate) fn end(&mut self) {
        self.canvas.release_all();
    }

    /// Pages of the state that this transaction makes.
    pub(crate) fn page_count(&self) -> u64 {
        self.page_count
    }

    /// Pages that this transaction has written.
    pub(crate) fn dirty_count(&self) -> u64 {
        self.canvas.claimed_count()
    }

    /// Claims pages that the free space gave. A file whose free space names a page twice is damaged.
    pub(crate) fn claim(&mut self, id: PageId, pages: u64) -> Result<()> {
        if self.canvas.is_claimed_in(id, pages) {
            return Err(Error::corrupt(id, "the free space names a page twice"));
        }
        self.canvas.claim(id, pages);
        Ok(())
    }

    /// Gives up a claim without touching the free space.
    pub(crate) fn unclaim(&mut self, id: PageId) {
        self.canvas.unclaim(id, 1);
    }

    /// Takes pages at the end of the file, growing it as needed.
    pub(crate) fn alloc_at_end(&mut self, pages: u64) -> Result<PageId> {
        let start = self.page_count;
        let end = start.checked_add(pages).filter(|&end| end <= MAX_U48).ok_or_else(|| self.disk_full(pages))?;
        let needed = end << self.page_shift;
        if needed > self.canvas.len_bytes() {
            self.grow(needed)?;
        }
        self.page_count = end;
        self.fresh_pages += pages;
        self.populate_ahead(start, end)?;
        self.canvas.claim(PageId(start), pages);
        Ok(PageId(start))
    }

    fn grow(&mut self, needed: u64) -> Result<()> {
        let mapped = self.canvas.len_bytes();
        let step = (mapped / 8).clamp(GROW_MIN_BYTES, GROW_MAX_BYTES);
        let wanted = needed.max(mapped + step).next_multiple_of(GROW_MIN_BYTES);
        let exact = needed.next_multiple_of(1 << self.page_shift);
        let result = match self.mapping.grow(&mut self.canvas, wanted) {
            Err(e) if e.kind() == io::ErrorKind::StorageFull && exact < wanted => {
                self.mapping.grow(&mut self.canvas, exact)
            }
            other => other,
        };
        if self.view.window_id() != self.mapping.window_id() {
            self.view = self.mapping.view();
        }
        result.map_err(|e| match Error::io("growing the file", &self.path, e) {
            Error::DiskFull { path, .. } => Error::DiskFull { path, wanted: needed - mapped },
            other => other,
        })
    }

    fn populate_ahead(&mut self, start: u64, end: u64) -> Result<()> {
        if self.fresh_pages < POPULATE_FROM_PAGES || end <= self.populated_to {
            return Ok(());
        }
        let ahead = (self.fresh_pages / 4).min(POPULATE_MAX_PAGES);
        let mapped_pages = self.canvas.len_bytes() >> self.page_shift;
        let from = start.max(self.populated_to);
        let to = (end + ahead).min(mapped_pages);
        self.populated_to = to;
        self.canvas.populate(PageId(from), to - from).map_err(|e| Error::io("populating fresh pages", &self.path, e))
    }

    #[cold]
    fn disk_full(&self, pages: u64) -> Error {
        Error::DiskFull { path: self.path.to_path_buf(), wanted: pages << self.page_shift }
    }
}

impl PageRead for TxnPages {
    #[inline]
    fn page_size(&self) -> usize {
        1 << self.page_shift
    }

    #[inline]
    fn page(&self, ptr: PagePtr) -> Result<&[u8]> {
        if ptr.id.0 < self.page_count {
            if let Some(bytes) = self.canvas.bytes(ptr.id, 1) {
                if self.canvas.is_claimed(ptr.id) || self.view.mark(ptr.id) == mark_of(ptr.crc) {
                    return Ok(bytes);
                }
                return verify_first_touch(&self.view, ptr, bytes);
            }
        }
        Err(beyond_end(ptr.id, 1, self.page_count))
    }

    fn run(&self, ptr: PagePtr, pages: u64) -> Result<&[u8]> {
        let bytes = run_range(ptr.id, pages, self.page_count, self.page_shift)
            .and_then(|_| self.canvas.bytes(ptr.id, pages))
            .ok_or_else(|| beyond_end(ptr.id, pages, self.page_count))?;
        if self.canvas.is_claimed(ptr.id) || self.view.mark(ptr.id) == mark_of(ptr.crc) {
            return Ok(bytes);
        }
        verify_first_touch(&self.view, ptr, bytes)
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
        if self.canvas.is_claimed_run(id, pages) {
            self.canvas.unclaim(id, pages);
            self.free.give_back_dirty(id, pages);
        } else {
            self.free.add_freed(FreeItem { start: id, pages, born, freed: self.txn });
        }
    }

    fn page_mut(&mut self, id: PageId) -> &mut [u8] {
        self.canvas.bytes_mut(id, 1)
    }

    fn run_mut(&mut self, id: PageId, pages: u64) -> &mut [u8] {
        self.canvas.bytes_mut(id, pages)
    }

    fn mark_sealed(&mut self, ptr: PagePtr) {
        self.view.set_mark(ptr.id, mark_of(ptr.crc));
    }
}

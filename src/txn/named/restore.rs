//! Restoring: makes the state of a named snapshot the newest one.
//!
//! Floor: txn. A write transaction whose catalog is that of the snapshot. Pages that only the
//! newest state reaches become pending. Pages that only the snapshot reaches are pending, and come
//! back into use: they are taken out of the pending records. No page is copied. Reads each branch
//! and leaf of both states, and no overflow extent.
//!
//! Invariants:
//!   RESTORE-1  each page that the snapshot reaches is, before, either in use by the newest state
//!              or pending. Otherwise the transaction is aborted.
//!
//! Failure: `Usage` if there is no such snapshot; `Corrupt`, which names it, if a page of it is
//! damaged or not kept; the errors of a commit. Then nothing has changed.

use crate::catalog::snapshots::{self, SnapshotRecord};
use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr, TxnId};
use crate::page::meta::TreeRoot;
use crate::pager::read::page_map::PageMap;
use crate::pager::write::leaf_facts::LeafFact;
use crate::pager::write::txn_pages::TxnPages;
use crate::pager::{PageRead, PageWrite, Residency};
use crate::tree;
use crate::txn::env::Writer;
use crate::txn::read::snapshot::table_records;
use crate::txn::write::txn::{writer_of, RunningTxn};

impl RunningTxn {
    /// Makes the state of a snapshot that of this transaction. All snapshots stay.
    pub(crate) fn restore_snapshot(&mut self, name: &str) -> Result<()> {
        let found = snapshots::find(self.pages(), &self.snapshots, name, self.basis.latest.txn);
        let Some(record) = self.note(None, found)? else { return Err(self.no_snapshot(name)) };
        self.begin_change()?;
        let wanted = self.pages_of(&record).map_err(|e| of_snapshot(name, e));
        let wanted = self.note(None, wanted)?;
        let roots = table_records(self.pages(), &self.catalog);
        let mut roots: Vec<TreeRoot> = self.note(None, roots)?.into_iter().map(|(_, record)| record.root).collect();
        roots.push(self.catalog);
        let pages = &mut writer_of(&mut self.writer).pages;
        let mut sparing = Sparing { pages, wanted: &wanted, spared: 0 };
        let freed = roots.iter_mut().try_for_each(|root| tree::drop_tree(&mut sparing, root).map(drop));
        let spared = sparing.spared;
        self.note(None, freed)?;
        let Writer { pages, cache, .. } = writer_of(&mut self.writer);
        let taken = cache.take_out_pending(pages, &self.basis, &wanted);
        let taken = self.note(None, taken)?;
        if spared + taken != wanted.taken {
            let missing = wanted.taken.abs_diff(spared + taken);
            let what = format!("snapshot '{name}' reaches {missing} pages that were not kept for it");
            let lost = Err(Error::corrupt(record.catalog.ptr.id, what));
            return self.note(None, lost);
        }
        self.catalog = record.catalog;
        Ok(())
    }

    /// The pages that the catalog and the tables of a snapshot reach.
    fn pages_of(&self, record: &SnapshotRecord) -> Result<PageMap> {
        let pages = self.pages();
        let mut map = PageMap::new(self.basis.latest.page_count);
        let mut visit = |id: PageId, count: u64| map.take(id, count).is_none();
        tree::measure(pages, &record.catalog, &mut visit)?;
        for (name, table) in table_records(pages, &record.catalog)? {
            table.known_flags(&name)?;
            tree::measure(pages, &table.root, &mut visit).map_err(|e| e.with_table(&name))?;
        }
        Ok(map)
    }
}

/// Says of damage that it is in a snapshot.
fn of_snapshot(name: &str, e: Error) -> Error {
    match e {
        Error::Corrupt { path, page, table, what } => {
            Error::Corrupt { path, page, table, what: format!("snapshot '{name}': {what}") }
        }
        other => other,
    }
}

/// Pages of the transaction, for dropping trees: frees only pages that the snapshot does not reach.
struct Sparing<'a> {
    pages: &'a mut TxnPages,
    wanted: &'a PageMap,
    /// Pages that were not freed.
    spared: u64,
}

impl Residency for Sparing<'_> {}

impl PageRead for Sparing<'_> {
    fn page_size(&self) -> usize {
        self.pages.page_size()
    }
    fn page(&self, ptr: PagePtr) -> Result<&[u8]> {
        self.pages.page(ptr)
    }
    fn extent(&self, ptr: PagePtr, pages: u64) -> Result<&[u8]> {
        self.pages.extent(ptr, pages)
    }
    fn prefetch(&self, id: PageId, from: usize, bytes: usize) {
        self.pages.prefetch(id, from, bytes);
    }
}

impl PageWrite for Sparing<'_> {
    fn txn(&self) -> TxnId {
        self.pages.txn()
    }
    fn is_dirty(&self, id: PageId) -> bool {
        self.pages.is_dirty(id)
    }
    fn dirty_count(&self) -> u64 {
        self.pages.dirty_count()
    }
    fn alloc(&mut self, pages: u64) -> Result<PageId> {
        self.pages.alloc(pages)
    }
    fn free(&mut self, id: PageId, pages: u64, born: TxnId) {
        let mut at = id.0;
        let end = id.0 + pages;
        while at < end {
            let is_wanted = self.wanted.is_taken(PageId(at));
            let run = (at..end).take_while(|&page| self.wanted.is_taken(PageId(page)) == is_wanted).count() as u64;
            match is_wanted {
                true => self.spared += run,
                false => self.pages.free(PageId(at), run, born),
            }
            at += run;
        }
    }
    fn page_mut(&mut self, id: PageId) -> Result<&mut [u8]> {
        self.pages.page_mut(id)
    }
    fn extent_mut(&mut self, id: PageId, pages: u64) -> Result<&mut [u8]> {
        self.pages.extent_mut(id, pages)
    }
    fn extent_born(&self, id: PageId, pages: u64) -> Result<TxnId> {
        self.pages.extent_born(id, pages)
    }
    fn leaf_fact(&self, ptr: PagePtr) -> Option<LeafFact> {
        self.pages.leaf_fact(ptr)
    }
    fn set_verified_sealed(&mut self, ptr: PagePtr) {
        self.pages.set_verified_sealed(ptr);
    }
}

//! The pages that the free-space tree itself takes and frees while it is saved.
//!
//! Floor: txn. Saving the free space changes the tree of free extents, and each changed page of
//! that tree needs a free page. So that a save ends, it never takes pages from the extents that it
//! saves: [`SavePages`] takes them from the reserve, then from the end of the file. Superseded
//! pages of the tree go into the free list, which is written last.
//!
//! Failure: errors of the tree and of growing the file.

use crate::error::Result;
use crate::ids::{PageId, PagePtr, TxnId};
use crate::page::free_list::FreeItem;
use crate::page::meta::TreeRoot;
use crate::pager::write::free_space::BIG_EXTENT_PAGES;
use crate::pager::write::txn_pages::TxnPages;
use crate::pager::{PageRead, PageWrite, Residency};
use crate::tree::{PutHint, TreeMut};
use crate::txn::free::free_records::{
    be48, big_key, encode_items, pending_key, usable_key, PendingKey, ITEMS_PER_RECORD,
};

/// Allocates pages of the free-space tree itself from the reserve, and collects superseded ones for
/// the free list.
pub(super) struct SavePages<'a> {
    pub(super) pages: &'a mut TxnPages,
    pub(super) reserve: &'a mut Vec<PageId>,
    pub(super) superseded: &'a mut Vec<FreeItem>,
}

impl SavePages<'_> {
    /// Takes a page for the free list, which is written after the tree.
    pub(super) fn keep_one(&mut self) {
        if self.reserve.is_empty() {
            self.reserve.extend(self.pages.free.take_page());
        }
    }

    /// Moves pending extents of the free list into records of the tree, at least one record for
    /// each transaction that freed some.
    pub(super) fn move_pending(&mut self, root: &mut TreeRoot, mut items: Vec<FreeItem>) -> Result<()> {
        items.sort_unstable_by_key(|item| (item.freed, item.start));
        let saved = self.txn();
        for group in items.chunk_by(|a, b| a.freed == b.freed) {
            for (part, items) in group.chunks(ITEMS_PER_RECORD).enumerate() {
                self.put_pending(root, (items[0].freed, saved, part as u32), items)?;
            }
        }
        Ok(())
    }

    pub(super) fn put_pending(&mut self, root: &mut TreeRoot, key: PendingKey, items: &[FreeItem]) -> Result<()> {
        let encoded = pending_key(key);
        if items.is_empty() {
            TreeMut::new(self, root).delete(&encoded, None)?;
        } else {
            TreeMut::new(self, root).put(&encoded, &encode_items(items), &mut PutHint::default(), None)?;
        }
        Ok(())
    }

    pub(super) fn put_usable(&mut self, root: &mut TreeRoot, start: PageId, old: u64, new: u64) -> Result<()> {
        let mut hint = PutHint::default();
        if new == 0 {
            TreeMut::new(self, root).delete(&usable_key(start), None)?;
        } else {
            TreeMut::new(self, root).put(&usable_key(start), &be48(new), &mut hint, None)?;
        }
        if old >= BIG_EXTENT_PAGES {
            TreeMut::new(self, root).delete(&big_key(old, start), None)?;
        }
        if new >= BIG_EXTENT_PAGES {
            TreeMut::new(self, root).put(&big_key(new, start), &[], &mut hint, None)?;
        }
        Ok(())
    }
}

impl Residency for SavePages<'_> {}

impl PageRead for SavePages<'_> {
    fn page_size(&self) -> usize {
        self.pages.page_size()
    }
    fn page(&self, ptr: PagePtr) -> Result<&[u8]> {
        self.pages.page(ptr)
    }
    fn extent(&self, ptr: PagePtr, pages: u64) -> Result<&[u8]> {
        self.pages.extent(ptr, pages)
    }
}

impl PageWrite for SavePages<'_> {
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
        match if pages == 1 { self.reserve.pop().or_else(|| self.pages.free.take_page()) } else { None } {
            Some(id) => {
                self.pages.claim(id, 1)?;
                Ok(id)
            }
            None => self.pages.alloc_at_end(pages),
        }
    }
    fn free(&mut self, id: PageId, pages: u64, born: TxnId) {
        if self.pages.is_dirty_extent(id, pages) {
            self.pages.unclaim(id, pages);
            self.reserve.extend((id.0..id.0 + pages).map(PageId));
        } else {
            self.superseded.push(self.pages.freed_item(id, pages, born));
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
    fn set_verified_sealed(&mut self, ptr: PagePtr) {
        self.pages.set_verified_sealed(ptr);
    }
}

//! Writing the free list of a state, and finding the extent that it goes to.
//!
//! Floor: txn. Most lists have one page, which the transaction has set apart. A list that may need
//! more gets its extent before the free-space tree is saved: after that, taking pages from the
//! records of the tree would change the tree again, and only the end of the file has others.
//!
//! Failure: errors of growing the file.

use crate::error::Result;
use crate::ids::{PageId, PagePtr, TxnId};
use crate::page::free_list::{self, FreeItem};
use crate::page::meta::{ExtentPtr, TreeRoot};
use crate::pager::write::txn_pages::TxnPages;
use crate::pager::{PageRead as _, PageWrite as _};
use crate::txn::free::free_tree::{FreeCache, LISTED_PENDING_MAX};
use crate::txn::free::list_extents::Extent;
use crate::txn::state::{Basis, State};

impl FreeCache {
    /// Pages that a long list may need, when the tree is not saved yet: that adds pages of it.
    fn long_list_pages(&self, pages: &TxnPages) -> u64 {
        let items = self.list_items(pages);
        free_list::list_pages(pages.page_size(), items + items / 16 + 2 * LISTED_PENDING_MAX)
    }

    /// Looks for a usable extent for a long list, unless a spare one is long enough.
    pub(super) fn find_long_extent(&mut self, pages: &mut TxnPages, basis: &Basis) -> Result<()> {
        let wanted = self.long_list_pages(pages);
        match self.lists.spare().iter().any(|&(_, len)| len >= wanted) {
            true => Ok(()),
            false => self.refill(pages, basis, wanted.next_power_of_two()),
        }
    }

    /// Takes an extent for the long list of a transaction that has freed many extents. `None` if
    /// there is none and the file cannot grow.
    pub(super) fn take_long_list(&mut self, pages: &mut TxnPages) -> Result<Option<Extent>> {
        let wanted = self.long_list_pages(pages);
        if let Some(list) = self.lists.take(wanted) {
            pages.claim(list.0, list.1)?;
            return Ok(Some(list));
        }
        // Lists of nearly the same length use the same extents.
        let len = wanted.next_power_of_two();
        if let Some(id) = pages.free.take_extent(len) {
            pages.claim(id, len)?;
            return Ok(Some((id, len)));
        }
        match pages.grow_for(len) {
            Ok(()) => Ok(Some((pages.alloc_at_end(len)?, len))),
            Err(_) => Ok(None),
        }
    }

    /// Sets an extent apart for the list, if the pages of the tree that this save supersedes may
    /// make it longer than a page. Afterwards only the end of the file would have one.
    pub(super) fn set_list_extent_apart(&mut self, pages: &mut TxnPages, root: &TreeRoot, moved: usize) {
        let changes = pages.free.touched_count() + 3 * pages.free.unlisted_count() + self.changed_records.len() + moved;
        let superseded = changes.min(root.entries as usize / 40 + 2) + usize::from(root.height);
        let wanted = free_list::list_pages(pages.page_size(), self.list_items(pages) + superseded);
        if wanted > 1 && self.lists.spare().iter().all(|&(_, len)| len < wanted) {
            if let Some(id) = pages.free.take_extent(wanted) {
                self.lists.give_back((id, wanted));
            }
        }
    }

    /// Writes the free list: to `long_list` if there is one and the list fits.
    pub(super) fn write_list(
        &mut self,
        pages: &mut TxnPages,
        latest: &State,
        long_list: Option<Extent>,
    ) -> Result<ExtentPtr> {
        let txn = pages.txn();
        if latest.free_list.pages > 0 {
            let (start, pages) = (latest.free_list.ptr.id, latest.free_list.pages);
            self.recent.push(FreeItem { start, pages, born: latest.txn, freed: txn });
        }
        let (id, extent) = match long_list.filter(|list| list.1 >= self.list_pages(pages)) {
            Some(list) => list,
            None => {
                if let Some((id, len)) = long_list {
                    pages.unclaim(id, len);
                    self.lists.give_back((id, len));
                }
                self.take_list_extent(pages, self.list_pages(pages))?
            }
        };
        self.lists.note((id, extent));
        let mut items = self.recent.clone();
        items.extend(self.reserve.iter().map(|&id| usable_item(id, 1)));
        items.extend(pages.free.unlisted().map(|(start, len)| usable_item(start, len)));
        items.extend(self.lists.spare().iter().map(|&(start, len)| usable_item(start, len)));
        let page_size = pages.page_size();
        let crc = free_list::write(pages.extent_mut(id, extent)?, page_size, id, txn, &items);
        let ptr = PagePtr { id, crc };
        pages.set_verified_sealed(ptr);
        Ok(ExtentPtr { ptr, pages: extent })
    }

    /// Items of the free list as it is now.
    fn list_items(&self, pages: &TxnPages) -> usize {
        self.recent.len() + self.reserve.len() + pages.free.unlisted_count() + self.lists.spare().len()
    }

    /// Pages of the free list as it is now.
    fn list_pages(&self, pages: &TxnPages) -> u64 {
        free_list::list_pages(pages.page_size(), self.list_items(pages))
    }

    /// Takes pages for the free list after the tree was saved: changes no extent that the tree has.
    fn take_list_extent(&mut self, pages: &mut TxnPages, extent: u64) -> Result<Extent> {
        if let Some((id, len)) = Some(extent).filter(|&extent| extent > 1).and_then(|extent| self.lists.take(extent)) {
            pages.claim(id, len)?;
            return Ok((id, len));
        }
        let reserved = if extent == 1 { self.reserve.pop() } else { None };
        match reserved.or_else(|| pages.free.take_unlisted(extent)) {
            Some(id) => {
                pages.claim(id, extent)?;
                Ok((id, extent))
            }
            None => Ok((pages.alloc_at_end(extent)?, extent)),
        }
    }
}

/// A usable extent as an item of the free list.
fn usable_item(start: PageId, pages: u64) -> FreeItem {
    FreeItem { start, pages, born: TxnId(0), freed: TxnId(0) }
}

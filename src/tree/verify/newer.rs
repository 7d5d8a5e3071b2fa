//! Proves that the disk has the pages of a tree that are newer than a transaction.
//!
//! Floor: tree. A page is copied when it changes, and so are all pages above it. So the walk
//! descends only into pages that are newer, by the header in the page cache, and compares each with
//! the disk.
//!
//! Failure: [`Error::Corrupt`](crate::error::Error::Corrupt) for a page that differs, or that
//! cannot be read.

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr, TxnId};
use crate::page::branch::Branch;
use crate::page::header::Header;
use crate::page::key::LongKey;
use crate::page::leaf::{Leaf, LeafValue};
use crate::pager::read::file_pages::FilePages;
use crate::tree::depth_first::{next_child, walk_depth_first, DepthFirst, Parent};
use crate::tree::long_key::long_key_pages;
use crate::tree::value::overflow_pages;
use crate::tree::values::stored::root_of;
use crate::tree::TreeRoot;

/// Reads bytes of the file from the disk.
pub(crate) type FromDisk<'d> = &'d dyn Fn(u64, &mut [u8]) -> std::io::Result<()>;

/// Compares pages of a file in the page cache with those on the disk.
pub(crate) struct NewerPages<'w> {
    pub(crate) cached: &'w FilePages<'w>,
    pub(crate) disk: FromDisk<'w>,
    /// Pages up to this transaction are on the disk.
    pub(crate) after: TxnId,
}

impl NewerPages<'_> {
    /// Compares the newer pages of a tree.
    pub(crate) fn tree(&mut self, root: &TreeRoot) -> Result<()> {
        walk_depth_first(&mut NewerWalk { pages: self, root: *root }, root)
    }

    /// Compares an extent, if it is newer.
    pub(crate) fn extent(&self, ptr: PagePtr, pages: u64) -> Result<()> {
        let mut extent = Vec::new();
        self.cached.extent(ptr, pages, &mut extent)?;
        match Header::read(&extent, ptr.id)?.txn > self.after {
            true => self.compare(ptr.id, &extent),
            false => Ok(()),
        }
    }

    /// Compares the extent of a long key or separator, if it is newer.
    fn long(&self, long: Option<LongKey>) -> Result<()> {
        match long {
            Some(long) => self.extent(long.ptr(), long_key_pages(self.cached.page_size(), long)),
            None => Ok(()),
        }
    }

    fn compare(&self, id: PageId, cached: &[u8]) -> Result<()> {
        let mut found = vec![0; cached.len()];
        let read = (self.disk)(id.0 * self.cached.page_size() as u64, &mut found);
        match read {
            Ok(()) if found == cached => Ok(()),
            Ok(()) => Err(Error::corrupt(id, "the disk does not have what the page cache shows")),
            Err(e) => Err(Error::corrupt(id, format!("reading it from the disk failed: {e}"))),
        }
    }
}

/// A walk over the newer pages of one tree.
struct NewerWalk<'n, 'w> {
    pages: &'n mut NewerPages<'w>,
    root: TreeRoot,
}

impl DepthFirst<Vec<u8>> for NewerWalk<'_, '_> {
    fn enter(&mut self, ptr: PagePtr, level: usize, _parent: Option<&Parent<Vec<u8>>>) -> Result<Option<Vec<u8>>> {
        let mut page = Vec::new();
        self.pages.cached.page(ptr, &mut page)?;
        if Header::read(&page, ptr.id)?.txn <= self.pages.after {
            return Ok(None);
        }
        self.pages.compare(ptr.id, &page)?;
        if level > 0 {
            let branch = Branch::parse(&page, ptr.id)?;
            for index in (1..branch.count()).filter(|_| branch.has_long_separators()) {
                self.pages.long(branch.long_separator(index)?)?;
            }
            return Ok(Some(page));
        }
        if self.root.packed_width().is_some() {
            return Ok(None);
        }
        let leaf = Leaf::parse(&page, ptr.id)?;
        for index in 0..leaf.count() {
            let (key, value) = leaf.entry(index)?;
            self.pages.long(key.long)?;
            match value {
                LeafValue::Overflow(pointer) => {
                    let pages = overflow_pages(self.pages.cached.page_size(), &pointer)?;
                    self.pages.extent(pointer.ptr, pages)?;
                }
                LeafValue::Tree(to) => self.pages.tree(&root_of(&self.root, &to))?,
                LeafValue::Inline(_) | LeafValue::Set(_) => {}
            }
        }
        Ok(None)
    }

    fn next_child(&mut self, parent: &mut Parent<Vec<u8>>) -> Result<Option<PagePtr>> {
        let branch = Branch::parse(&parent.branch, parent.ptr.id)?;
        Ok(next_child(&branch, &mut parent.next)?)
    }
}

//! Deleting one entry.
//!
//! Floor: tree. The descent is read-only, so deleting a missing key changes nothing. Otherwise the
//! path is made dirty, the entry is removed, and `rebalance.rs` restores the shape.
//!
//! Failure: any error can leave the tree of this transaction half changed, so the transaction must
//! be aborted.

use crate::error::{Error, Result};
use crate::page::leaf::LeafMut;
use crate::pager::PageWrite;

use crate::tree::edit::put::take_old;
use crate::tree::edit::rebalance::after_removal;
use crate::tree::long_key::free_long;
use crate::tree::path::{leaf_at, make_dirty, Path};
use crate::tree::TreeMut;

impl<P: PageWrite> TreeMut<'_, P> {
    /// Deletes the entry of a key. Returns whether there was one, and copies its value to `old` if
    /// given.
    pub(crate) fn delete(mut self, key: &[u8], old: Option<&mut Vec<u8>>) -> Result<bool> {
        if self.is_empty() {
            return Ok(false);
        }
        let mut path = Path::new();
        if !path.descend(self.as_tree(), key)? {
            return Ok(false);
        }
        let leaf = path.leaf();
        let page = leaf_at(self.pages, leaf.ptr)?;
        let released = take_old(self.pages, &page, leaf.index(), old)?;
        let long = page.key(leaf.index())?.long;
        let Some(entries) = self.root.entries.checked_sub(1) else {
            let what = "entry count of the tree is 0, expected at least 1";
            return Err(Error::corrupt(self.root.ptr.id, what));
        };
        make_dirty(&mut self, &mut path)?;
        let leaf = path.leaf();
        LeafMut::open(self.pages.page_mut(leaf.ptr.id)?, leaf.ptr.id)?.remove(leaf.index())?;
        if let Some(extent) = released {
            extent.free(self.pages);
        }
        free_long(self.pages, long)?;
        self.root.entries = entries;
        after_removal(&mut self, &path).map(|()| true)
    }
}

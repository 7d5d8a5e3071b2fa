//! Removing the first or the last entry.
//!
//! Floor: tree. A hint keeps the outermost leaf, so that a pop of one after the other takes the
//! same time for every entry, without a descent. The leaf at the edge is not joined with a
//! neighbour when it gets too empty, because the next pops empty it: only an empty leaf is removed.
//!
//! Failure: any error can leave the tree of this transaction half changed, so the transaction must
//! be aborted.

use crate::error::{Error, Result};
use crate::ids::PageId;
use crate::page::leaf::{LeafMut, LeafValue};
use crate::pager::PageWrite;

use crate::tree::edit::put::take_old;
use crate::tree::edit::rebalance::after_removal;
use crate::tree::long_key::{free_long, whole};
use crate::tree::path::{leaf_at, make_dirty, Path, Side};
use crate::tree::TreeMut;

/// The outermost leaf after the last pop. A caller that changes the tree in another way must start
/// with a new hint. Root and entry count are compared, so that a stale hint is noticed.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct PopHint {
    leaf: PageId,
    root: PageId,
    entries: u64,
    side: Option<Side>,
}

impl<P: PageWrite> TreeMut<'_, P> {
    /// Removes the entry at one end of the tree, and copies it. Returns false if the tree is empty.
    pub(crate) fn pop(
        mut self,
        side: Side,
        hint: &mut PopHint,
        (key, value): (&mut Vec<u8>, &mut Vec<u8>),
    ) -> Result<bool> {
        if self.is_empty() {
            return Ok(false);
        }
        let Some(entries) = self.root.entries.checked_sub(1) else {
            let what = "entry count of the tree is 0, expected at least 1";
            return Err(Error::corrupt(self.root.ptr.id, what));
        };
        key.clear();
        value.clear();
        let holds = hint.side == Some(side) && hint.root == self.root.ptr.id && hint.entries == self.root.entries;
        if !holds || !self.pop_in_place(side, hint.leaf, (key, value))? {
            hint.leaf = self.pop_along_path(side, (key, value))?;
        }
        self.root.entries = entries;
        (hint.side, hint.root, hint.entries) = (Some(side), self.root.ptr.id, entries);
        Ok(true)
    }

    /// Pops from the dirty leaf of the hint, if it has more entries and this one has no extent.
    fn pop_in_place(&mut self, side: Side, leaf: PageId, (key, value): (&mut Vec<u8>, &mut Vec<u8>)) -> Result<bool> {
        if !self.pages.is_dirty(leaf) {
            return Ok(false);
        }
        let mut page = LeafMut::open(self.pages.page_mut(leaf)?, leaf)?;
        let count = page.as_leaf().count();
        let index = if side == Side::First { 0 } else { count.wrapping_sub(1) };
        match page.as_leaf().inline_entry(index).filter(|_| count > 1) {
            Some((found, bytes)) => {
                key.extend_from_slice(found);
                value.extend_from_slice(bytes);
            }
            None => return Ok(false),
        }
        page.remove(index)?;
        Ok(true)
    }

    /// Pops after a descent. Returns the leaf.
    fn pop_along_path(&mut self, side: Side, (key, value): (&mut Vec<u8>, &mut Vec<u8>)) -> Result<PageId> {
        let mut path = Path::new();
        path.descend_to(self.as_tree(), side)?;
        let leaf = leaf_at(self.pages, path.leaf().ptr)?;
        let index = path.leaf().index();
        let stored = leaf.key(index)?;
        key.extend_from_slice(whole(self.pages, stored)?);
        let long = stored.long;
        let released = match leaf.value(index)? {
            LeafValue::Inline(bytes) => {
                value.extend_from_slice(bytes);
                None
            }
            _ => take_old(self.pages, &leaf, index, Some(value))?,
        };
        make_dirty(self, &mut path)?;
        let id = path.leaf().ptr.id;
        let mut page = LeafMut::open(self.pages.page_mut(id)?, id)?;
        page.remove(index)?;
        let is_empty = page.as_leaf().count() == 0;
        if let Some(extent) = released {
            extent.free(self.pages);
        }
        free_long(self.pages, long)?;
        if is_empty {
            after_removal(self, &path)?;
        }
        Ok(if is_empty { PageId::NONE } else { id })
    }
}

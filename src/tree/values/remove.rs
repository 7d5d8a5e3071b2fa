//! Removing pairs of a multimap: one, or all of a key.
//!
//! Floor: tree. A value set gets shorter in place. A value tree that fits half an inline value
//! becomes a value set again; in between nothing is converted, so that a value more and a value
//! less do not convert each time. With its last value, a key goes.
//!
//! Failure: any error can leave the tree of this transaction half changed, so the transaction must
//! be aborted.

use crate::error::{Error, Result};
use crate::limits::max_inline_value_bytes;
use crate::page::leaf::{LeafMut, LeafValue, ValueTree};
use crate::page::value_set::{set_of, SetChange, ValueSet};
use crate::pager::PageWrite;

use crate::tree::edit::drop::free_extents;
use crate::tree::edit::put::PutHint;
use crate::tree::edit::rebalance::after_removal;
use crate::tree::path::{leaf_at, make_dirty, Path};
use crate::tree::values::lookup::tree_has;
use crate::tree::values::packed::remove_packed;
use crate::tree::values::stored::{collect_pages, count_of, root_of, single_value, ValueLeaf};
use crate::tree::{TreeMut, TreeRoot};

/// The number of pairs after `fewer` were removed.
pub(crate) fn pairs_without(root: &TreeRoot, fewer: u64) -> Result<u64> {
    root.pairs.checked_sub(fewer).ok_or_else(|| {
        let what = format!("number of values of the table is {}, expected at least {fewer}", root.pairs);
        Error::corrupt(root.ptr.id, what)
    })
}

impl<P: PageWrite> TreeMut<'_, P> {
    /// Removes a pair. Returns whether the table had it.
    pub(crate) fn remove_value(mut self, key: &[u8], value: &[u8]) -> Result<bool> {
        if self.is_empty() {
            return Ok(false);
        }
        let mut path = Path::new();
        if !path.descend(self.as_tree(), key)? {
            return Ok(false);
        }
        let (shape, leaf) = (self.root.shape, path.leaf());
        match leaf_at(self.pages, leaf.ptr)?.value(leaf.index())? {
            LeafValue::Set(bytes) => {
                let set = ValueSet::new(bytes, shape);
                let (index, found) = set.search(value);
                if !found {
                    return Ok(false);
                }
                if set.count() == 1 {
                    return self.remove_values(key).map(|count| count > 0);
                }
                self.remove_from_set(&mut path, index)?;
            }
            LeafValue::Tree(to) => {
                if !tree_has(self.pages, &root_of(self.root, &to), value)? {
                    return Ok(false);
                }
                if to.count == 1 {
                    return self.remove_values(key).map(|count| count > 0);
                }
                self.remove_from_tree(key, value)?;
            }
            LeafValue::Inline(_) | LeafValue::Overflow(_) => return Err(single_value(leaf.ptr.id)),
        }
        self.root.pairs = pairs_without(self.root, 1)?;
        Ok(true)
    }

    /// Removes a key with all its values. Returns how many it had.
    pub(crate) fn remove_values(mut self, key: &[u8]) -> Result<u64> {
        let Some(stored) = self.as_tree().stored_of(key)? else { return Ok(0) };
        let count = count_of(self.root.shape, &stored)?;
        let pairs = pairs_without(self.root, count)?;
        let root = match stored {
            LeafValue::Tree(to) => Some(root_of(self.root, &to)),
            _ => None,
        };
        if let Some(root) = root {
            free_tree(self.pages, &root)?;
        }
        self.reborrow().delete(key, None)?;
        self.root.pairs = pairs;
        Ok(count)
    }

    fn remove_from_set(&mut self, path: &mut Path, index: usize) -> Result<()> {
        make_dirty(self, path)?;
        let (shape, leaf) = (self.root.shape, path.leaf());
        let mut page = LeafMut::open(self.pages.page_mut(leaf.ptr.id)?, leaf.ptr.id)?;
        page.change_set(leaf.index(), shape, SetChange::Remove(index), usize::MAX)?;
        after_removal(self, path)
    }

    /// Removes a value that the tree of a key has, beside others.
    fn remove_from_tree(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let root = self.change_tree(key, |tree| match tree.root.shape.width() {
            Some(width) => remove_packed(tree, width, value),
            None => tree.reborrow().delete(value, None).map(drop),
        })?;
        if root.entries == 0 {
            return Err(Error::corrupt(root.ptr.id, "a value tree has fewer values than its root says"));
        }
        match root.height {
            1 => self.shorten(key, &root),
            _ => Ok(()),
        }
    }

    /// Makes the value tree of a key, which has one leaf, a value set if that is short.
    fn shorten(&mut self, key: &[u8], root: &TreeRoot) -> Result<()> {
        let shape = self.root.shape;
        let leaf = ValueLeaf::at(self.pages, root.ptr, root.shape)?;
        let mut bytes = shape.set_header_bytes();
        let limit = max_inline_value_bytes(self.pages.page_size()) / 2;
        for index in 0..leaf.count() {
            bytes += shape.bytes_in_set(leaf.get(index)?.len());
            if bytes > limit {
                return Ok(());
            }
        }
        let values = (0..leaf.count()).map(|index| leaf.get(index)).collect::<Result<Vec<_>>>()?;
        let set = set_of(shape, values.iter().copied());
        free_tree(self.pages, root)?;
        let value = LeafValue::Set(&set);
        self.reborrow().put_stored(key, |_, _| Ok(value), &mut PutHint::default(), None)?;
        Ok(())
    }
}

/// Frees the pages of a value tree.
fn free_tree<P: PageWrite>(pages: &mut P, root: &TreeRoot) -> Result<()> {
    let mut extents = Vec::new();
    collect_pages(pages, root, &mut extents)?;
    free_extents(pages, &mut extents)
}

/// Adds the pages of the value tree of an entry that goes to a list of pages to free. Returns the
/// number of its values.
pub(crate) fn collect_values<P: PageWrite>(
    pages: &P,
    table: &TreeRoot,
    stored: &LeafValue<'_>,
    extents: &mut Vec<crate::tree::value::OverflowExtent>,
) -> Result<u64> {
    if let LeafValue::Tree(to) = stored {
        let to: &ValueTree = to;
        collect_pages(pages, &root_of(table, to), extents)?;
    }
    count_of(table.shape, stored)
}

//! Removing pairs of a multimap: one, or all of a key.
//!
//! Floor: tree. A value set gets shorter in place. A value tree that fits half an inline value
//! becomes a value set again; in between nothing is converted, so that a value more and a value
//! less do not convert each time. With its last value, a key goes.
//!
//! Failure: any error can leave the tree of this transaction half changed, so the transaction must
//! be aborted.

use std::ops::Bound;

use crate::error::{Error, Result};
use crate::limits::max_inline_value_bytes;
use crate::page::leaf::{LeafMut, LeafValue, ValueTree};
use crate::page::value_set::{set_of, SetChange, ValueSet};
use crate::pager::PageWrite;

use crate::tree::edit::drop::free_extents;
use crate::tree::edit::put::PutHint;
use crate::tree::edit::rebalance::after_removal;
use crate::tree::path::{leaf_at, make_dirty, Path};
use crate::tree::values::insert::tree_of;
use crate::tree::values::lookup::tree_has;
use crate::tree::values::packed::remove_packed;
use crate::tree::values::range::ValueRange;
use crate::tree::values::stored::{collect_pages, count_of, root_of, single_value, stored_tree, ValueLeaf};
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
                if !set.search(value).1 {
                    return Ok(false);
                }
                if set.count() == 1 {
                    return self.remove_values(key).map(|count| count > 0);
                }
                self.remove_from_set(&mut path, &[value])?;
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

    /// Removes some values of a key, in ascending order. The key has all of them. Returns how many
    /// there were.
    pub(crate) fn remove_some(mut self, key: &[u8], values: &[&[u8]]) -> Result<u64> {
        let Some(stored) = self.as_tree().stored_of(key)? else { return Ok(0) };
        let (count, some) = (count_of(self.root.shape, &stored)?, values.len() as u64);
        if count <= some {
            return self.remove_values(key);
        }
        match stored {
            LeafValue::Tree(to) if some > count / 2 => {
                let root = root_of(self.root, &to);
                self.rebuild_without(key, &root, values)?;
                self.root.pairs = pairs_without(self.root, some)?;
            }
            LeafValue::Tree(_) => {
                for value in values {
                    self.reborrow().remove_value(key, value)?;
                }
            }
            _ => {
                let mut path = Path::new();
                path.descend(self.as_tree(), key)?;
                self.remove_from_set(&mut path, values)?;
                self.root.pairs = pairs_without(self.root, some)?;
            }
        }
        Ok(some)
    }

    /// Removes values of the set that a path leads to, which has more than those.
    fn remove_from_set(&mut self, path: &mut Path, values: &[&[u8]]) -> Result<()> {
        make_dirty(self, path)?;
        let (shape, leaf) = (self.root.shape, path.leaf());
        let mut page = LeafMut::open(self.pages.page_mut(leaf.ptr.id)?, leaf.ptr.id)?;
        for value in values.iter().rev() {
            let at = match page.as_leaf().value(leaf.index())? {
                LeafValue::Set(bytes) => ValueSet::new(bytes, shape).search(value),
                _ => return Err(single_value(leaf.ptr.id)),
            };
            let (index, true) = at else {
                return Err(Error::corrupt(leaf.ptr.id, "a value that was found is missing now"));
            };
            page.change_set(leaf.index(), shape, SetChange::Remove(index), usize::MAX)?;
        }
        after_removal(self, path)
    }

    /// Makes a new value tree, or a value set, of the values of a key that stay.
    fn rebuild_without(&mut self, key: &[u8], root: &TreeRoot, gone: &[&[u8]]) -> Result<()> {
        let (mut bytes, mut ends, mut gone) = (Vec::new(), Vec::new(), gone.iter().peekable());
        let all = LeafValue::Tree(ValueTree { ptr: root.ptr, height: root.height, count: root.entries });
        for value in ValueRange::of(self.pages, self.root, all, Bound::Unbounded, Bound::Unbounded)? {
            let value = value?;
            if gone.next_if(|gone| **gone == value).is_none() {
                bytes.extend_from_slice(value);
                ends.push(bytes.len());
            }
        }
        free_tree(self.pages, root)?;
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let staying = starts.zip(&ends).map(|(start, &end)| &bytes[start..end]);
        let shape = self.root.shape;
        let set_bytes =
            shape.set_header_bytes() + staying.clone().map(|value| shape.bytes_in_set(value.len())).sum::<usize>();
        let limit = max_inline_value_bytes(self.pages.page_size());
        let (set, table) = (if set_bytes <= limit { set_of(shape, staying.clone()) } else { Vec::new() }, *self.root);
        let value = match set.is_empty() {
            true => stored_tree(&tree_of(self.pages, &table, staying)?),
            false => LeafValue::Set(&set),
        };
        self.reborrow().put_stored(key, |_, _| Ok(value), &mut PutHint::default(), None)?;
        Ok(())
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

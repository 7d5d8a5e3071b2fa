//! Removing all entries of a range of keys.
//!
//! Floor: tree. Subtrees that lie inside the range are cut off whole: their pages are freed without
//! a change, and only the pages above are copied. Entries are removed one by one only in the leaves
//! at the two ends. After each step the shape of the tree is restored as after a delete.
//!
//! Failure: any error can leave the tree of this transaction half changed, so the transaction must
//! be aborted.

use std::cmp::Ordering;

use crate::error::{Error, Result};
use crate::page::leaf::LeafMut;
use crate::pager::PageWrite;

use crate::tree::edit::drop::{drop_subtree, DroppedCounts};
use crate::tree::edit::rebalance::{after_cut, after_removal};
use crate::tree::long_key::whole_separator;
use crate::tree::path::{branch_at, leaf_at, make_branches_dirty_above, make_dirty, Path, Side};
use crate::tree::value::OverflowExtent;
use crate::tree::values::remove::{collect_values, pairs_without};
use crate::tree::TreeMut;

/// The next step at the low end of the range.
enum Step {
    /// No entry of the range is left.
    Done,
    /// Cut off the subtree of the page at this depth of the path: it lies inside the range.
    Cut(usize),
    /// Remove this many entries of the path's leaf, from its index on.
    Remove(usize),
}

impl<P: PageWrite> TreeMut<'_, P> {
    /// Removes the entries from `low` on, or from the first one, and below `high`. Returns how many
    /// it removed; in a multimap, of how many keys. Calls `ensure` before each step, to make pages
    /// usable.
    pub(crate) fn remove_range(
        mut self,
        low: Option<&[u8]>,
        high: Option<&[u8]>,
        ensure: &mut dyn FnMut(&mut P) -> Result<()>,
    ) -> Result<u64> {
        let mut removed = 0;
        while !self.is_empty() {
            ensure(self.pages)?;
            let mut path = Path::new();
            let found = match self.find_step(&mut path, low, high)? {
                Step::Done => break,
                Step::Cut(depth) => self.cut(&mut path, depth)?,
                Step::Remove(count) => self.remove_entries(&mut path, count)?,
            };
            removed += found.entries;
            let Some(entries) = self.root.entries.checked_sub(found.entries) else {
                let (has, found) = (self.root.entries, found.entries);
                let what = format!("entry count of the tree is {has}, expected at least {found}");
                return Err(Error::corrupt(self.root.ptr.id, what));
            };
            self.root.entries = entries;
            self.root.pairs = pairs_without(self.root, found.pairs)?;
        }
        Ok(removed)
    }

    fn find_step(&self, path: &mut Path, low: Option<&[u8]>, high: Option<&[u8]>) -> Result<Step> {
        match low {
            Some(low) => drop(path.descend(self.as_tree(), low)?),
            None => drop(path.descend_to(self.as_tree(), Side::First)?),
        }
        let mut leaf = leaf_at(self.pages, path.leaf().ptr)?;
        if path.leaf().index() == leaf.count() {
            match path.step(self.pages, Side::Last)? {
                Some(next) => leaf = next,
                None => return Ok(Step::Done),
            }
        }
        let order = self.root.order;
        let below_high = |key| match high {
            Some(high) => order.compare_stored(&*self.pages, key, high).map(Ordering::is_lt),
            None => Ok(true),
        };
        let first = path.leaf().index();
        if first == 0 {
            if let Some(depth) = self.highest_inside(path, high)? {
                return Ok(Step::Cut(depth));
            }
        }
        let mut end = first;
        while end < leaf.count() && below_high(leaf.key(end)?)? {
            end += 1;
        }
        Ok(if end == first { Step::Done } else { Step::Remove(end - first) })
    }

    /// The depth of the highest page of the path whose subtree lies inside the range. The path
    /// leads to the first entry of the range, which is the first of its leaf.
    fn highest_inside(&self, path: &Path, high: Option<&[u8]>) -> Result<Option<usize>> {
        // `bound` is the lowest upper bound so far, which is the bound of the page at `depth`.
        let (mut bound, mut inside): (Option<Vec<u8>>, _) = (None, None);
        for depth in 0..path.len() {
            // Below this depth the path takes only first children.
            let is_first = (depth..path.len() - 1).all(|below| path.frame(below).index() == 0);
            let ends_below = match (&bound, high) {
                (_, None) => true,
                (None, Some(_)) => false,
                (Some(bound), Some(high)) => self.root.order.compare(bound, high).is_le(),
            };
            if is_first && ends_below {
                inside = Some(depth);
                break;
            }
            if depth + 1 < path.len() {
                let frame = path.frame(depth);
                let branch = branch_at(self.pages, frame.ptr, path.len() - 1 - depth)?;
                if frame.index() + 1 < branch.count() {
                    bound = Some(whole_separator(self.pages, &branch, frame.index() + 1)?);
                }
            }
        }
        Ok(inside)
    }

    /// Frees the subtree at a depth of the path and removes it from the tree.
    fn cut(&mut self, path: &mut Path, depth: usize) -> Result<DroppedCounts> {
        make_branches_dirty_above(self, path, depth)?;
        let level = path.len() - 1 - depth;
        let dropped = drop_subtree(self.pages, self.root, path.frame(depth).ptr, level)?;
        after_cut(self, path, depth)?;
        Ok(dropped)
    }

    /// Removes entries of the leaf of the path, from its index on.
    fn remove_entries(&mut self, path: &mut Path, count: usize) -> Result<DroppedCounts> {
        let mut pairs = 0;
        let mut extents = Vec::new();
        let (leaf, first) = (leaf_at(self.pages, path.leaf().ptr)?, path.leaf().index());
        for index in first..first + count {
            let (key, value) = leaf.entry(index)?;
            extents.extend(OverflowExtent::of_entry(self.pages, key, value)?.into_iter().flatten());
            if self.root.shape.is_multi() {
                pairs += collect_values(self.pages, self.root, &value, &mut extents)?;
            }
        }
        make_dirty(self, path)?;
        let id = path.leaf().ptr.id;
        let mut leaf = LeafMut::open(self.pages.page_mut(id)?, id)?;
        for _ in 0..count {
            leaf.remove(first)?;
        }
        for extent in extents {
            extent.free(self.pages);
        }
        after_removal(self, path)?;
        Ok(DroppedCounts { entries: count as u64, pairs })
    }
}

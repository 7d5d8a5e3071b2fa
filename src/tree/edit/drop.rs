//! Dropping whole trees and subtrees: frees every page and every overflow extent.
//!
//! Floor: tree. A depth-first walk reads every branch. Branches have no entry counts of their
//! subtrees, and mostly only leaves name overflow extents. So the walk asks the pages what they
//! know of a leaf ([`PageWrite::leaf_fact`]: the leaves that this process has written), and looks
//! at the other leaves: it reads the header, the kind of each value, and the first and the last
//! key, and prefetches the lines of a few leaves together, so that the waits overlap. Every page
//! that it reads is verified as by any other read (R2), because a wrong pointer to an overflow
//! extent would free pages in use.
//!
//! In a multimap every leaf is read, and the pages of each value tree are freed too.
//!
//! Freed pages are collected, sorted, and freed as extents.
//!
//! Invariants:
//!   DROP-1  keys ascend strictly from leaf to leaf, of those that are read. So where pointers of a
//!       damaged tree lead to one page, the walk stops before it frees anything twice. (Of a tree
//!       whose keys are not in bytewise order, no leaf is read twice.)
//!   DROP-2  pages are freed only after the walk has read them for the last time.
//!
//! Failure: damage stops the walk with `Error::Corrupt`. The caller aborts the transaction, so that
//! the pages freed before stay in use.

use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr};
use crate::page::branch::Branch;
use crate::page::header;
use crate::page::key::{PageKeyBuf, WholeKeys as _};
use crate::page::leaf::Leaf;
use crate::pager::write::leaf_facts::LeafFact;
use crate::pager::PageWrite;

use crate::tree::depth_first::{next_child, walk_depth_first, DepthFirst, Parent};
use crate::tree::long_key::separator_extents;
use crate::tree::path::{branch_at, fetch_front, leaf_at};
use crate::tree::value::OverflowExtent;
use crate::tree::values::remove::collect_values;
use crate::tree::TreeRoot;

/// Leaves that are prefetched together.
const LEAVES_TOGETHER: usize = 8;

/// Extents to collect before they are freed.
const COLLECTED_MAX: usize = 1 << 17;

/// Frees every page of the tree and leaves it empty. Returns the number of entries.
pub(crate) fn drop_tree<P: PageWrite>(pages: &mut P, root: &mut TreeRoot) -> Result<u64> {
    let dropped = drop_pages(pages, root, root)?;
    *root = TreeRoot { ptr: PagePtr::default(), height: 0, entries: 0, pairs: 0, ..*root };
    Ok(dropped.entries)
}

/// What was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DroppedCounts {
    pub(crate) entries: u64,
    /// Values of these entries, in a multimap.
    pub(crate) pairs: u64,
}

/// Frees the page `ptr` of a tree, which has this level, and every page below it.
pub(crate) fn drop_subtree<P: PageWrite>(
    pages: &mut P,
    tree: &TreeRoot,
    ptr: PagePtr,
    level: usize,
) -> Result<DroppedCounts> {
    drop_pages(pages, tree, &TreeRoot { ptr, height: level as u8 + 1, ..TreeRoot::default() })
}

fn drop_pages<P: PageWrite>(pages: &mut P, tree: &TreeRoot, from: &TreeRoot) -> Result<DroppedCounts> {
    let mut walk = DropWalk { pages, tree: *tree, dropped: Dropped::default() };
    walk_depth_first(&mut walk, from)?;
    walk.free_collected()?;
    Ok(DroppedCounts { entries: walk.dropped.entries, pairs: walk.dropped.pairs })
}

struct DropWalk<'d, P> {
    pages: &'d mut P,
    /// The whole tree.
    tree: TreeRoot,
    dropped: Dropped,
}

/// What the walk has found so far.
#[derive(Default)]
struct Dropped {
    /// The last key of the leaves so far; `None` before the first leaf.
    last_key: Option<PageKeyBuf>,
    /// Leaves so far, of a tree that is not in bytewise order.
    seen: HashSet<PageId>,
    entries: u64,
    pairs: u64,
    /// Pages and overflow extents to free.
    extents: Vec<OverflowExtent>,
}

impl<P: PageWrite> DepthFirst<()> for DropWalk<'_, P> {
    fn enter(&mut self, ptr: PagePtr, level: usize, _parent: Option<&Parent<()>>) -> Result<Option<()>> {
        if level > 0 {
            return Ok(Some(()));
        }
        let leaf = leaf_at(self.pages, ptr)?;
        self.dropped.take_leaf(self.pages, &self.tree, &leaf)?;
        Ok(None)
    }

    /// The next child that is a branch. Leaves are taken here, without a step of the walk for each.
    fn next_child(&mut self, parent: &mut Parent<()>) -> Result<Option<PagePtr>> {
        if parent.level == 1 {
            self.take_leaves(parent)?;
            return Ok(None);
        }
        let branch = branch_at(self.pages, parent.ptr, parent.level)?;
        Ok(next_child(&branch, &mut parent.next)?)
    }

    fn leave(&mut self, ptr: PagePtr, _parent: Option<&Parent<()>>) -> Result<()> {
        let page = self.pages.page(ptr)?;
        let born = header::page_txn(page);
        self.dropped.extents.extend(separator_extents(self.pages, &Branch::parse(page, ptr.id)?)?);
        self.dropped.extents.push(OverflowExtent { id: ptr.id, pages: 1, born });
        match self.dropped.extents.len() < COLLECTED_MAX {
            true => Ok(()),
            false => self.free_collected(),
        }
    }
}

impl<P: PageWrite> DropWalk<'_, P> {
    /// Takes all leaves of a branch. Reads those of which the pages know nothing.
    fn take_leaves(&mut self, parent: &Parent<()>) -> Result<()> {
        let pages: &P = self.pages;
        let branch = branch_at(pages, parent.ptr, 1)?;
        let mut unknown = Vec::new();
        for index in 0..branch.count() {
            let ptr = branch.child(index)?;
            match pages.leaf_fact(ptr) {
                Some(LeafFact { entries, born }) => {
                    self.dropped.entries += entries;
                    self.dropped.extents.push(OverflowExtent { id: ptr.id, pages: 1, born });
                }
                None => unknown.push(ptr),
            }
        }
        let mut leaves = Vec::with_capacity(LEAVES_TOGETHER);
        let mut groups = unknown.chunks(LEAVES_TOGETHER).peekable();
        groups.peek().into_iter().flat_map(|group| group.iter()).for_each(|&ptr| fetch_front(pages, ptr));
        while let Some(group) = groups.next() {
            groups.peek().into_iter().flat_map(|group| group.iter()).for_each(|&ptr| fetch_front(pages, ptr));
            for &ptr in group {
                let leaf = leaf_at(pages, ptr)?;
                leaf.fetch_entry_headers();
                leaves.push(leaf);
            }
            leaves.drain(..).try_for_each(|leaf| self.dropped.take_leaf(pages, &self.tree, &leaf))?;
        }
        Ok(())
    }

    fn free_collected(&mut self) -> Result<()> {
        free_extents(self.pages, &mut self.dropped.extents)
    }
}

/// Frees extents and empties the list: in ascending order, neighbours of one birth together.
/// Refuses extents that overlap.
pub(crate) fn free_extents<P: PageWrite>(pages: &mut P, extents: &mut Vec<OverflowExtent>) -> Result<()> {
    extents.sort_unstable_by_key(|extent| extent.id);
    let overlap = extents.windows(2).find(|pair| pair[0].id.0.saturating_add(pair[0].pages) > pair[1].id.0);
    if let Some(pair) = overlap {
        return Err(Error::corrupt(pair[1].id, "two pointers of a tree lead to one page"));
    }
    let txn = pages.txn();
    let mut rest = extents.drain(..);
    let Some(mut joined) = rest.next() else { return Ok(()) };
    for next in rest {
        let touches = joined.id.0 + joined.pages == next.id.0;
        // Pages of the running transaction can be dirty or written through, and are freed as they
        // were allocated.
        if touches && joined.born == next.born && joined.born < txn {
            joined.pages += next.pages;
        } else {
            std::mem::replace(&mut joined, next).free(pages);
        }
    }
    joined.free(pages);
    Ok(())
}

impl Dropped {
    /// Counts the entries of a leaf, and collects it with its overflow extents. Checks that its
    /// keys lie above those of the leaves before (DROP-1).
    fn take_leaf<P: PageWrite>(&mut self, pages: &P, tree: &TreeRoot, leaf: &Leaf<'_>) -> Result<()> {
        self.entries += leaf.count() as u64;
        let (first, last) = (leaf.first_key()?, leaf.last_key()?);
        if !tree.order.is_bytewise() {
            // A comparison may be unknown, or contradict itself.
            if !self.seen.insert(leaf.id()) {
                return Err(Error::corrupt(leaf.id(), "two pointers of a tree lead to one page"));
            }
        } else {
            let above = match &self.last_key {
                Some(before) => pages.compare_stored(before.as_key(), first)?.is_lt(),
                None => true,
            };
            if !above || (leaf.count() > 1 && pages.compare_stored(first, last)?.is_ge()) {
                return Err(Error::corrupt(leaf.id(), "keys are not in ascending order"));
            }
            self.last_key.get_or_insert_default().set(last);
        }
        if tree.shape.is_multi() {
            for index in 0..leaf.count() {
                let (key, value) = leaf.entry(index)?;
                self.extents.extend(OverflowExtent::of_long(pages, key.long)?);
                self.pairs += collect_values(pages, tree, &value, &mut self.extents)?;
            }
        } else if !leaf.has_no_extents() {
            for index in 0..leaf.count() {
                let (key, value) = leaf.entry(index)?;
                self.extents.extend(OverflowExtent::of_entry(pages, key, value)?.into_iter().flatten());
            }
        }
        self.extents.push(OverflowExtent { id: leaf.id(), pages: 1, born: leaf.born() });
        Ok(())
    }
}

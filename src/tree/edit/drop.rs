//! Dropping a whole tree: frees every page and every overflow extent.
//!
//! Floor: tree. A depth-first walk that frees each page after its children. Leaves must come in
//! ascending order of their keys: where pointers of a damaged tree lead to one page, the walk stops
//! before it frees anything twice.
//!
//! Failure: damage stops the walk with `Error::Corrupt`. The caller aborts the transaction, so that
//! the pages freed before stay in use.

use crate::error::{Error, Result};
use crate::ids::PagePtr;
use crate::pager::PageWrite;

use crate::tree::depth_first::{next_child, walk_depth_first, DepthFirst, Parent};
use crate::tree::path::{branch_at, free_page, leaf_at};
use crate::tree::value::OverflowExtent;
use crate::tree::TreeRoot;

/// Frees every page of the tree and leaves it empty.
pub(crate) fn drop_tree<P: PageWrite>(pages: &mut P, root: &mut TreeRoot) -> Result<()> {
    walk_depth_first(&mut DropWalk { pages, last_key: None, entries: 0 }, root)?;
    *root = TreeRoot { ptr: PagePtr::default(), height: 0, entries: 0, ..*root };
    Ok(())
}

/// Frees the page `ptr`, which has this level, and every page below it. Returns the number of their
/// entries.
pub(crate) fn drop_subtree<P: PageWrite>(pages: &mut P, ptr: PagePtr, level: usize) -> Result<u64> {
    let mut walk = DropWalk { pages, last_key: None, entries: 0 };
    walk_depth_first(&mut walk, &TreeRoot { ptr, height: level as u8 + 1, ..TreeRoot::default() })?;
    Ok(walk.entries)
}

struct DropWalk<'d, P> {
    pages: &'d mut P,
    /// The last key of the leaves so far.
    last_key: Option<Vec<u8>>,
    entries: u64,
}

impl<P: PageWrite> DepthFirst<()> for DropWalk<'_, P> {
    fn enter(&mut self, ptr: PagePtr, level: usize, _parent: Option<&Parent<()>>) -> Result<Option<()>> {
        if level > 0 {
            return Ok(Some(()));
        }
        self.free_values(ptr)?;
        free_page(self.pages, ptr)?;
        Ok(None)
    }

    fn next_child(&mut self, parent: &mut Parent<()>) -> Result<Option<PagePtr>> {
        let branch = branch_at(self.pages, parent.ptr, parent.level)?;
        Ok(next_child(&branch, &mut parent.next)?)
    }

    fn leave(&mut self, ptr: PagePtr, _parent: Option<&Parent<()>>) -> Result<()> {
        free_page(self.pages, ptr)
    }
}

impl<P: PageWrite> DropWalk<'_, P> {
    /// Frees the overflow extents of a leaf, after checking that its keys lie above those of the
    /// leaves before.
    fn free_values(&mut self, ptr: PagePtr) -> Result<()> {
        let leaf = leaf_at(self.pages, ptr)?;
        self.entries += leaf.count() as u64;
        let (first, last) = (leaf.first_key()?, leaf.last_key()?);
        let above = self.last_key.as_ref().is_none_or(|before| before.as_slice() < first);
        if !above || (leaf.count() > 1 && first >= last) {
            return Err(Error::corrupt(ptr.id, "keys are not in ascending order"));
        }
        let copied = self.last_key.get_or_insert_with(Vec::new);
        copied.clear();
        copied.extend_from_slice(last);
        let mut extents = Vec::new();
        for index in 0..leaf.count() {
            extents.extend(OverflowExtent::of(self.pages, leaf.value(index)?)?);
        }
        for extent in extents {
            extent.free(self.pages);
        }
        Ok(())
    }
}

//! Sealing: writes the checksums of dirty pages into the pointers that lead to them (R2).
//!
//! Floor: tree. A depth-first walk over only the dirty pages (TREE-2: below a page that is not
//! dirty, no page is dirty). It allocates nothing, whatever the size of the transaction. A branch
//! is sealed after its children. Sealing a tree again after further changes is allowed, and seals
//! every dirty page again.
//!
//! Failure: a dirty branch that does not decode is `Error::Corrupt`: the transaction copied it from
//! a damaged page.

use crate::error::Result;
use crate::hooks::{self, Mutant};
use crate::ids::{PageId, PagePtr};
use crate::page::checksum;
use crate::page::leaf::{LeafMut, LeafValue};
use crate::pager::PageWrite;

use crate::tree::depth_first::{next_child, walk_depth_first, DepthFirst, Parent};
use crate::tree::edit::put::{PutHint, HINT_STEPS};
use crate::tree::path::{branch_at, branch_mut, dirty_ptr, leaf_at};
use crate::tree::values::stored::{root_of, stored_tree};
use crate::tree::TreeRoot;

/// Leaves that are prefetched and sealed together.
const SEALED_TOGETHER: usize = 4;

/// Seals every dirty page of the tree, children before parents, and the pointer in `root`.
pub(crate) fn seal<P: PageWrite>(pages: &mut P, root: &mut TreeRoot) -> Result<()> {
    if root.height == 0 || !pages.is_dirty(root.ptr.id) {
        return Ok(());
    }
    let unsealed = *root;
    walk_depth_first(&mut SealWalk { pages, root: &mut root.ptr, table: unsealed }, &unsealed)
}

/// Like [`seal`], after puts of which `last` was the last one. If it was the only one, finds its
/// pages without a search for dirty ones.
pub(crate) fn seal_after_puts<P: PageWrite>(pages: &mut P, root: &mut TreeRoot, last: &PutHint) -> Result<()> {
    match only_dirty_path(pages, root, last)? {
        Some((path, steps)) => {
            let table = *root;
            let mut walk = SealWalk { pages, root: &mut root.ptr, table };
            for depth in (0..=steps.len()).rev() {
                let parent = depth.checked_sub(1).map(|above| (path[above], usize::from(steps[above])));
                match depth == steps.len() {
                    true => walk.seal_leaf(path[depth], parent)?,
                    false => walk.seal_page(path[depth], parent)?,
                }
            }
            Ok(())
        }
        None => seal(pages, root),
    }
}

/// The pages from the root to the leaf of the last put, and the indexes between them, if no other
/// page is dirty.
fn only_dirty_path<'h, P: PageWrite>(
    pages: &P,
    root: &TreeRoot,
    last: &'h PutHint,
) -> Result<Option<([PageId; HINT_STEPS + 1], &'h [u16])>> {
    let height = usize::from(root.height);
    if height == 0 || pages.dirty_count() != height as u64 {
        return Ok(None);
    }
    let Some(steps) = last.steps(height) else { return Ok(None) };
    let (mut path, mut ptr) = ([PageId::NONE; HINT_STEPS + 1], root.ptr);
    for (depth, id) in path.iter_mut().enumerate().take(height) {
        if !pages.is_dirty(ptr.id) {
            return Ok(None);
        }
        *id = ptr.id;
        if let Some(&step) = steps.get(depth) {
            let branch = branch_at(pages, ptr, height - 1 - depth)?;
            if usize::from(step) >= branch.count() {
                return Ok(None);
            }
            ptr = branch.child(usize::from(step))?;
        }
    }
    Ok(Some((path, steps)))
}

struct SealWalk<'s, P> {
    pages: &'s mut P,
    root: &'s mut PagePtr,
    /// The tree, before it is sealed.
    table: TreeRoot,
}

impl<P: PageWrite> DepthFirst<()> for SealWalk<'_, P> {
    fn enter(&mut self, ptr: PagePtr, level: usize, parent: Option<&Parent<()>>) -> Result<Option<()>> {
        if level > 0 {
            return Ok(Some(()));
        }
        self.seal_leaf(ptr.id, parent.map(slot_of))?;
        Ok(None)
    }

    /// The next dirty branch. Dirty leaves are sealed here, without a step of the walk for each.
    fn next_child(&mut self, parent: &mut Parent<()>) -> Result<Option<PagePtr>> {
        if parent.level > 1 {
            return self.next_dirty(parent);
        }
        while self.seal_leaves(parent)? {}
        Ok(None)
    }

    fn leave(&mut self, ptr: PagePtr, parent: Option<&Parent<()>>) -> Result<()> {
        self.seal_page(ptr.id, parent.map(slot_of))
    }
}

impl<P: PageWrite> SealWalk<'_, P> {
    fn next_dirty(&self, parent: &mut Parent<()>) -> Result<Option<PagePtr>> {
        let branch = branch_at(self.pages, parent.ptr, parent.level)?;
        while let Some(child) = next_child(&branch, &mut parent.next)? {
            if self.pages.is_dirty(child.id) {
                return Ok(Some(child));
            }
        }
        Ok(None)
    }

    /// Seals the next dirty leaves of a branch, a few at a time: they have left the cache, and are
    /// prefetched together. Whether there were any.
    fn seal_leaves(&mut self, parent: &mut Parent<()>) -> Result<bool> {
        let (mut leaves, mut count) = ([(PageId::NONE, 0); SEALED_TOGETHER], 0);
        while count < SEALED_TOGETHER {
            let Some(leaf) = self.next_dirty(parent)? else { break };
            self.pages.prefetch(leaf.id, 0, self.pages.page_size());
            leaves[count] = (leaf.id, parent.index());
            count += 1;
        }
        leaves[..count].iter().try_for_each(|&(leaf, index)| self.seal_leaf(leaf, Some((parent.ptr.id, index))))?;
        Ok(count > 0)
    }

    /// Seals a leaf; in a multimap, after the value trees of its entries.
    #[inline]
    fn seal_leaf(&mut self, id: PageId, slot: Option<(PageId, usize)>) -> Result<()> {
        if self.table.shape.is_multi() {
            self.seal_value_trees(id)?;
        }
        self.seal_page(id, slot)
    }

    /// Seals the dirty value trees of a leaf, and stores their roots in its entries (VALUES-2).
    #[cold]
    fn seal_value_trees(&mut self, id: PageId) -> Result<()> {
        let leaf = leaf_at(self.pages, dirty_ptr(id))?;
        if !leaf.has_value_trees() || hooks::is(Mutant::ValueTreeUnsealed) {
            return Ok(());
        }
        for index in 0..leaf.count() {
            let LeafValue::Tree(to) = leaf_at(self.pages, dirty_ptr(id))?.value(index)? else { continue };
            let mut root = root_of(&self.table, &to);
            if self.pages.is_dirty(root.ptr.id) {
                seal(self.pages, &mut root)?;
                LeafMut::open(self.pages.page_mut(id)?, id)?.replace(index, stored_tree(&root))?;
            }
        }
        Ok(())
    }

    /// Seals a page, and stores its checksum in the pointer that leads to it: in a branch, at an
    /// index, or in the root.
    fn seal_page(&mut self, id: PageId, slot: Option<(PageId, usize)>) -> Result<()> {
        let ptr = PagePtr { id, crc: checksum::seal(self.pages.page_mut(id)?) };
        self.pages.set_verified_sealed(ptr);
        match slot {
            Some((branch, index)) => branch_mut(self.pages, branch)?.set_child(index, ptr)?,
            None => *self.root = ptr,
        }
        Ok(())
    }
}

/// Where the pointer to the child that is being visited lies.
fn slot_of(parent: &Parent<()>) -> (PageId, usize) {
    (parent.ptr.id, parent.index())
}

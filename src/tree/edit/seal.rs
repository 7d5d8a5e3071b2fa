//! Sealing: writes the checksums of dirty pages into the pointers that lead to them (R2).
//!
//! Floor: tree. Depth first from the root over dirty pages only (TREE-2: below a page that is not
//! dirty nothing is), with a stack of one small frame per level, so that a transaction of any size
//! needs no memory for it. A page is sealed when all its children are. Sealing again after further
//! changes is right, and seals every dirty page again.
//!
//! Failure: a dirty branch that does not decode is `Error::Corrupt`: it was copied from a damaged
//! page.

use crate::error::Result;
use crate::ids::{PageId, PagePtr};
use crate::limits::DEPTH_MAX;
use crate::page::checksum;
use crate::pager::PageWrite;

use crate::tree::path::{branch_at, branch_mut, height_of};
use crate::tree::TreeRoot;

/// A dirty branch on the way down, and the child to look at next.
#[derive(Clone, Copy, Default)]
struct Open {
    ptr: PagePtr,
    next: usize,
}

/// Seals every dirty page of the tree, children before parents, and the pointer in `root`.
pub(crate) fn seal<P: PageWrite>(pages: &mut P, root: &mut TreeRoot) -> Result<()> {
    if root.height == 0 || !pages.is_dirty(root.ptr.id) {
        return Ok(());
    }
    let height = height_of(root)?;
    if height == 1 {
        root.ptr = seal_page(pages, root.ptr.id)?;
        return Ok(());
    }
    let mut stack = [Open::default(); DEPTH_MAX];
    stack[0] = Open { ptr: root.ptr, next: 0 };
    let mut depth = 0;
    loop {
        if let Some(child) = next_dirty_branch(pages, &mut stack[depth], height - 1 - depth)? {
            depth += 1;
            stack[depth] = Open { ptr: child, next: 0 };
            continue;
        }
        let sealed = seal_page(pages, stack[depth].ptr.id)?;
        if depth == 0 {
            root.ptr = sealed;
            return Ok(());
        }
        depth -= 1;
        let parent = stack[depth];
        branch_mut(pages, parent.ptr.id)?.set_child(parent.next - 1, sealed)?;
    }
}

/// Seals the dirty leaves among the children of a branch of level 1; above, gives its next dirty
/// child.
fn next_dirty_branch<P: PageWrite>(pages: &mut P, open: &mut Open, level: usize) -> Result<Option<PagePtr>> {
    let count = branch_at(pages, open.ptr, level)?.count();
    while open.next < count {
        let Some((at, child)) = next_dirty(pages, open, level, count)? else { break };
        open.next = at + 1;
        if level > 1 {
            return Ok(Some(child));
        }
        let sealed = seal_page(pages, child.id)?;
        branch_mut(pages, open.ptr.id)?.set_child(at, sealed)?;
    }
    Ok(None)
}

/// The first dirty child from `open.next` on.
fn next_dirty<P: PageWrite>(pages: &P, open: &Open, level: usize, count: usize) -> Result<Option<(usize, PagePtr)>> {
    let branch = branch_at(pages, open.ptr, level)?;
    for at in open.next..count {
        let child = branch.child(at)?;
        if pages.is_dirty(child.id) {
            return Ok(Some((at, child)));
        }
    }
    Ok(None)
}

fn seal_page<P: PageWrite>(pages: &mut P, id: PageId) -> Result<PagePtr> {
    let ptr = PagePtr { id, crc: checksum::seal(pages.page_mut(id)?) };
    pages.set_verified_sealed(ptr);
    Ok(ptr)
}

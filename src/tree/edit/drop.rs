//! Dropping a whole tree: every page and every overflow extent is freed.
//!
//! Floor: tree. Depth first with one small frame per level. Leaves must come in ascending order of
//! their keys, so that a damaged tree whose pointers meet is not walked, or freed, twice.
//!
//! Failure: damage stops the walk with `Error::Corrupt`; what was freed before is undone by
//! aborting the transaction.

use crate::error::{Error, Result};
use crate::ids::PagePtr;
use crate::limits::DEPTH_MAX;
use crate::pager::{PageRead, PageWrite};

use crate::tree::path::{branch_at, free_page, height_of, leaf_at};
use crate::tree::value::OverflowExtent;
use crate::tree::TreeRoot;

/// A branch on the way down, and the child to free next.
#[derive(Clone, Copy, Default)]
struct Open {
    ptr: PagePtr,
    next: usize,
}

/// Frees every page of the tree and leaves it empty.
pub(crate) fn drop_tree<P: PageWrite>(pages: &mut P, root: &mut TreeRoot) -> Result<()> {
    if root.height == 0 {
        return Ok(());
    }
    let height = height_of(root)?;
    let mut last_key = None;
    let mut stack = [Open::default(); DEPTH_MAX];
    stack[0] = Open { ptr: root.ptr, next: 0 };
    let mut depth = 0;
    loop {
        let level = height - 1 - depth;
        match next_child(pages, &mut stack[depth], level)? {
            Some(child) => {
                depth += 1;
                stack[depth] = Open { ptr: child, next: 0 };
            }
            None => {
                if level == 0 {
                    free_values(pages, stack[depth].ptr, &mut last_key)?;
                }
                free_page(pages, stack[depth].ptr)?;
                if depth == 0 {
                    break;
                }
                depth -= 1;
            }
        }
    }
    *root = TreeRoot { ptr: PagePtr::default(), height: 0, entries: 0, ..*root };
    Ok(())
}

/// The next child of a branch, if it has one left; a leaf has none.
fn next_child<P: PageRead>(pages: &P, open: &mut Open, level: usize) -> Result<Option<PagePtr>> {
    if level == 0 {
        return Ok(None);
    }
    let branch = branch_at(pages, open.ptr, level)?;
    if open.next == branch.count() {
        return Ok(None);
    }
    open.next += 1;
    Ok(Some(branch.child(open.next - 1)?))
}

/// Frees the runs that a leaf points at, after making sure that all its keys lie above those
/// before.
fn free_values<P: PageWrite>(pages: &mut P, ptr: PagePtr, last_key: &mut Option<Vec<u8>>) -> Result<()> {
    let leaf = leaf_at(pages, ptr)?;
    let (first, last) = (leaf.first_key()?, leaf.last_key()?);
    let above = last_key.as_ref().is_none_or(|before| before.as_slice() < first);
    if !above || (leaf.count() > 1 && first >= last) {
        return Err(Error::corrupt(ptr.id, "keys are not in ascending order"));
    }
    let copied = last_key.get_or_insert_with(Vec::new);
    copied.clear();
    copied.extend_from_slice(last);
    let mut extents = Vec::new();
    for at in 0..leaf.count() {
        extents.extend(OverflowExtent::of(pages, leaf.value(at)?)?);
    }
    for extent in extents {
        extent.free(pages);
    }
    Ok(())
}

//! Changes of value trees with packed leaves: one value more, or one less.
//!
//! Floor: tree. Only the leaves differ from those of other trees; the branches are changed by
//! `edit/propagate.rs` and `edit/rebalance.rs`. A full leaf is cut in the middle, or beside the new
//! value if values come in order. A leaf that is less than a third full is joined with a neighbour
//! if both together fill at most three quarters of a page.
//!
//! Failure: any error can leave the tree half changed, so the transaction must be aborted.

use crate::error::{Error, Result};
use crate::ids::PageId;
use crate::page::branch::Child;
use crate::page::header::PageStamp;
use crate::page::packed::{capacity, PackedMut};
use crate::pager::PageWrite;

use crate::tree::edit::plan::{self, Pattern};
use crate::tree::edit::propagate::{propagate_split, remove_child};
use crate::tree::edit::put::{count_after, PutHint};
use crate::tree::edit::rebalance::{after_cut, after_shrink};
use crate::tree::path::{branch_at, branch_mut, dirty_ptr, free_page, make_dirty, Path};
use crate::tree::values::stored::packed_at;
use crate::tree::TreeMut;

/// A packed leaf of the running transaction, to be changed.
fn packed_mut<P: PageWrite>(pages: &mut P, id: PageId, width: usize) -> Result<PackedMut<'_>> {
    Ok(PackedMut::open(pages.page_mut(id)?, id, width)?)
}

/// Makes a new page an empty packed leaf.
fn new_leaf<'p, P: PageWrite>(tree: &'p mut TreeMut<'_, P>, id: PageId, width: usize) -> Result<PackedMut<'p>> {
    let stamp = PageStamp::new(id, tree.root.tree, tree.pages.txn());
    Ok(PackedMut::init(tree.pages.page_mut(id)?, stamp, width))
}

/// Makes a packed leaf with these values, one after the other, the root of an empty tree. They fit.
pub(crate) fn plant_packed<P: PageWrite>(tree: &mut TreeMut<'_, P>, width: usize, values: &[u8]) -> Result<()> {
    let id = tree.pages.alloc(1)?;
    let fitted = new_leaf(tree, id, width)?.insert(0, values)?;
    assert!(fitted, "a quarter page of values fits into a page");
    (tree.root.ptr, tree.root.height) = (dirty_ptr(id), 1);
    tree.root.entries = (values.len() / width) as u64;
    Ok(())
}

/// Inserts a value. Returns false, and changes nothing, if the tree has it. The tree is not empty.
pub(crate) fn insert_packed<P: PageWrite>(
    tree: &mut TreeMut<'_, P>,
    width: usize,
    value: &[u8],
    hint: &mut PutHint,
) -> Result<bool> {
    let ptr = tree.as_tree().leaf_of(value)?;
    let (at, found) = packed_at(tree.pages, ptr, width)?.search(value);
    if found {
        return Ok(false);
    }
    let entries = count_after(tree.root, 1)?;
    // A dirty leaf has dirty ancestors (TREE-2).
    if tree.pages.is_dirty(ptr.id) && packed_mut(tree.pages, ptr.id, width)?.insert(at, value)? {
        hint.move_to(ptr.id, at);
        tree.root.entries = entries;
        return Ok(true);
    }
    let mut path = Path::new();
    if path.descend_above(tree.as_tree(), value)?.id != ptr.id {
        return Err(Error::corrupt(ptr.id, "two ways to a value lead to different leaves"));
    }
    make_dirty(tree, &mut path)?;
    let leaf = path.leaf().ptr.id;
    // The copy of a leaf continues the leaf.
    if leaf != ptr.id && hint.leaf() == ptr.id {
        *hint = PutHint::of(leaf, hint.index_in(ptr.id).unwrap_or(0));
    }
    if packed_mut(tree.pages, leaf, width)?.insert(at, value)? {
        hint.move_to(leaf, at);
    } else {
        let pattern = hint.pattern(leaf, at);
        *hint = split_packed(tree, &path, width, (at, value), pattern)?;
    }
    tree.root.entries = entries;
    Ok(true)
}

/// Splits the full leaf of a path, and inserts a value at an index. Returns its place.
fn split_packed<P: PageWrite>(
    tree: &mut TreeMut<'_, P>,
    path: &Path,
    width: usize,
    (at, value): (usize, &[u8]),
    pattern: Pattern,
) -> Result<PutHint> {
    let left = path.leaf().ptr;
    let old = packed_at(tree.pages, left, width)?;
    let count = old.count();
    // With the new value neither leaf is empty.
    let (cut, goes_right) = match pattern {
        Pattern::Ascending if at > 0 => (at, true),
        Pattern::Descending if at < count => (at, false),
        _ if at > count / 2 => (count / 2, true),
        _ => (count / 2 + 1, false),
    };
    let moved = old.values()[width * cut..].to_vec();
    let right = tree.pages.alloc(1)?;
    packed_mut(tree.pages, left.id, width)?.remove(cut, count - cut)?;
    new_leaf(tree, right, width)?.insert(0, &moved)?;
    let place = if goes_right { (right, at - cut) } else { (left.id, at) };
    let fitted = packed_mut(tree.pages, place.0, width)?.insert(place.1, value)?;
    assert!(fitted, "half a leaf has room for a value");
    let last = packed_at(tree.pages, left, width)?.get(packed_at(tree.pages, left, width)?.count().wrapping_sub(1))?;
    let sep = plan::separator(last, packed_at(tree.pages, dirty_ptr(right), width)?.get(0)?).to_vec();
    let fresh = vec![Child { sep: sep.into(), ptr: dirty_ptr(right) }];
    propagate_split(tree, path, path.len() - 1, fresh, pattern)?;
    Ok(PutHint::of(place.0, place.1))
}

/// Removes a value, which the tree has.
pub(crate) fn remove_packed<P: PageWrite>(tree: &mut TreeMut<'_, P>, width: usize, value: &[u8]) -> Result<()> {
    let mut path = Path::new();
    let ptr = path.descend_above(tree.as_tree(), value)?;
    let leaf = packed_at(tree.pages, ptr, width)?;
    let (at, found) = leaf.search(value);
    let (true, Some(entries)) = (found, tree.root.entries.checked_sub(1)) else {
        return Err(Error::corrupt(ptr.id, "a value that was found is missing now"));
    };
    let left = leaf.count() - 1;
    make_dirty(tree, &mut path)?;
    packed_mut(tree.pages, path.leaf().ptr.id, width)?.remove(at, 1)?;
    tree.root.entries = entries;
    let depth = path.len() - 1;
    if left == 0 {
        free_page(tree.pages, path.leaf().ptr)?;
        return after_cut(tree, &path, depth);
    }
    let room = capacity(tree.pages.page_size(), width);
    match depth > 0 && plan::underfull(left, room) && merge_packed(tree, &path, width, room)? {
        true => after_shrink(tree, &path, depth - 1),
        false => Ok(()),
    }
}

/// Moves the values of a neighbour to the leaf of a path, if that leaves room. Returns whether it
/// did: then the parent has a child less.
fn merge_packed<P: PageWrite>(tree: &mut TreeMut<'_, P>, path: &Path, width: usize, room: usize) -> Result<bool> {
    let (own, frame) = (path.leaf().ptr, path.frame(path.len() - 2));
    let (at, count) = (frame.index(), packed_at(tree.pages, own, width)?.count());
    let parent = branch_at(tree.pages, frame.ptr, 1)?;
    let neighbours = [at.checked_sub(1), Some(at + 1).filter(|&next| next < parent.count())];
    for other_at in neighbours.into_iter().flatten() {
        let other = branch_at(tree.pages, frame.ptr, 1)?.child(other_at)?;
        let leaf = packed_at(tree.pages, other, width)?;
        if leaf.count() + count > room / 4 * 3 {
            continue;
        }
        let values = leaf.values().to_vec();
        let place = if other_at < at { 0 } else { count };
        let fitted = packed_mut(tree.pages, own.id, width)?.insert(place, &values)?;
        assert!(fitted, "both leaves fit into one");
        free_page(tree.pages, other)?;
        let left_at = at.min(other_at);
        branch_mut(tree.pages, frame.ptr.id)?.set_child(left_at, own)?;
        remove_child(tree.pages, frame.ptr.id, left_at + 1)?;
        return Ok(true);
    }
    Ok(false)
}

//! Joins pages that have few entries left with a neighbour, removes empty ones, and lowers the
//! root.
//!
//! Floor: tree. `plan.rs` decides; this file walks up the path from the leaf that lost an entry.
//! Every page of the path is dirty. A merge keeps the dirty page and frees the neighbour unchanged,
//! so the neighbour is not copied.
//!
//! Failure: neighbours that do not decode are `Error::Corrupt`.

use crate::error::Result;
use crate::ids::PagePtr;
use crate::page::branch::{self, Child};
use crate::page::key::LongKey;
use crate::page::layout::BRANCH_HEADS;
use crate::page::leaf::Leaf;
use crate::pager::{PageRead, PageWrite};

use crate::tree::edit::plan::{self, Join};
use crate::tree::edit::propagate::{build_branch, child_count, children_of, move_separator, remove_child, weights_of};
use crate::tree::edit::split::{build_leaf, entries_of, leaf_capacity, separator_at, sizes_of};
use crate::tree::long_key::free_long;
use crate::tree::path::{branch_at, branch_mut, copy_page, free_page, leaf_at, Path};
use crate::tree::TreeMut;

/// The result of joining a page with a neighbour, for the level above.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Joined {
    /// The two pages became one: the parent has one child less.
    Merged,
    /// The parent has as many children as before.
    Unchanged,
}

/// Restores the shape of the tree after an entry was removed from the leaf of the path.
pub(crate) fn after_removal<P: PageWrite>(tree: &mut TreeMut<'_, P>, path: &Path) -> Result<()> {
    let empty = leaf_at(tree.pages, path.leaf().ptr)?.count() == 0;
    if empty {
        free_page(tree.pages, path.leaf().ptr)?;
    }
    restore_shape(tree, path, path.len() - 1, empty)
}

/// Restores the shape of the tree after the page at `depth` of the path was freed, with its
/// subtree.
pub(crate) fn after_cut<P: PageWrite>(tree: &mut TreeMut<'_, P>, path: &Path, depth: usize) -> Result<()> {
    restore_shape(tree, path, depth, true)
}

/// Restores the shape of the tree after the branch at `depth` of the path has lost children.
pub(crate) fn after_shrink<P: PageWrite>(tree: &mut TreeMut<'_, P>, path: &Path, depth: usize) -> Result<()> {
    restore_shape(tree, path, depth, false)
}

/// Goes up the path from `depth`, where the page was freed if `freed` is true.
fn restore_shape<P: PageWrite>(tree: &mut TreeMut<'_, P>, path: &Path, depth: usize, mut freed: bool) -> Result<()> {
    for depth in (1..=depth).rev() {
        if freed {
            let parent = path.frame(depth - 1);
            freed = child_count(tree.pages, path, depth - 1)? == 1;
            match freed {
                true => free_page(tree.pages, parent.ptr)?,
                false => {
                    let separator = remove_child(tree.pages, parent.ptr.id, parent.index())?;
                    free_long(tree.pages, separator)?;
                }
            }
        } else if !underfull(tree.pages, path, depth)? || join(tree, path, depth)? == Joined::Unchanged {
            return Ok(());
        }
    }
    match freed {
        true => clear_root(tree),
        false => lower_root(tree),
    }
}

/// Whether the page at `depth` has so little in use that it should be joined with a neighbour.
fn underfull<P: PageRead>(pages: &P, path: &Path, depth: usize) -> Result<bool> {
    let ptr = path.frame(depth).ptr;
    let level = path.len() - 1 - depth;
    let page_size = pages.page_size();
    if level == 0 {
        let used_bytes = leaf_at(pages, ptr)?.used_bytes();
        return Ok(plan::underfull(used_bytes, leaf_capacity(page_size)));
    }
    let branch = branch_at(pages, ptr, level)?;
    Ok(branch.count() == 1 || plan::underfull(branch.used_bytes(), page_size - BRANCH_HEADS))
}

/// Leaves the tree empty; its last page was freed.
fn clear_root<P: PageWrite>(tree: &mut TreeMut<'_, P>) -> Result<()> {
    tree.root.ptr = PagePtr::default();
    tree.root.height = 0;
    Ok(())
}

/// While the root has only one child, makes this child the root.
fn lower_root<P: PageWrite>(tree: &mut TreeMut<'_, P>) -> Result<()> {
    while tree.root.height > 1 {
        let branch = branch_at(tree.pages, tree.root.ptr, usize::from(tree.root.height) - 1)?;
        if branch.count() > 1 {
            break;
        }
        let child = branch.child(0)?;
        free_page(tree.pages, tree.root.ptr)?;
        tree.root.ptr = child;
        tree.root.height -= 1;
    }
    Ok(())
}

/// Two neighbouring pages of one parent. One of them is the page of the path, which is dirty.
pub(crate) struct Pair {
    /// Index of the left one in the parent.
    pub(crate) left_at: usize,
    pub(crate) left: PagePtr,
    pub(crate) right: PagePtr,
    pub(crate) own_is_left: bool,
}

impl Pair {
    /// The page of the path.
    fn own(&self) -> PagePtr {
        if self.own_is_left {
            self.left
        } else {
            self.right
        }
    }

    /// The page beside the page of the path.
    pub(crate) fn neighbour(&self) -> PagePtr {
        if self.own_is_left {
            self.right
        } else {
            self.left
        }
    }
}

/// Joins the page at `depth` with the neighbour that has fewer bytes in use.
fn join<P: PageWrite>(tree: &mut TreeMut<'_, P>, path: &Path, depth: usize) -> Result<Joined> {
    let Some(pair) = choose_pair(tree.pages, path, depth, |_| true)? else { return Ok(Joined::Unchanged) };
    match path.len() - 1 - depth {
        0 => join_leaves(tree, path, depth, pair),
        _ => join_branches(tree, path, depth, pair),
    }
}

/// Pairs the page at `depth` with the neighbour that has fewer bytes in use, out of those for which
/// `may` returns true. `None` if there is no such neighbour below the same parent.
pub(crate) fn choose_pair<P: PageRead>(
    pages: &P,
    path: &Path,
    depth: usize,
    may: impl Fn(&PagePtr) -> bool,
) -> Result<Option<Pair>> {
    let frame = path.frame(depth - 1);
    let level = path.len() - depth;
    let parent = branch_at(pages, frame.ptr, level)?;
    let at = frame.index();
    let own = path.frame(depth).ptr;
    let left = if at > 0 { Some(parent.child(at - 1)?).filter(&may) } else { None };
    let right = if at + 1 < parent.count() { Some(parent.child(at + 1)?).filter(&may) } else { None };
    let take_left = match (left, right) {
        (Some(left), Some(right)) => used_bytes(pages, left, level - 1)? <= used_bytes(pages, right, level - 1)?,
        (left, _) => left.is_some(),
    };
    Ok(match (left, right) {
        (Some(left), _) if take_left => Some(Pair { left_at: at - 1, left, right: own, own_is_left: false }),
        (_, Some(right)) => Some(Pair { left_at: at, left: own, right, own_is_left: true }),
        _ => None,
    })
}

fn used_bytes<P: PageRead>(pages: &P, ptr: PagePtr, level: usize) -> Result<usize> {
    Ok(match level {
        0 => leaf_at(pages, ptr)?.used_bytes(),
        _ => branch_at(pages, ptr, level)?.used_bytes(),
    })
}

fn join_leaves<P: PageWrite>(tree: &mut TreeMut<'_, P>, path: &Path, depth: usize, pair: Pair) -> Result<Joined> {
    // Both pages are read from copies, because one or both are built anew from their entries.
    let (left, right) = (tree.pages.page(pair.left)?.to_vec(), tree.pages.page(pair.right)?.to_vec());
    let mut entries = entries_of(&Leaf::parse(&left, pair.left.id)?)?;
    let boundary = entries.len();
    entries.extend(entries_of(&Leaf::parse(&right, pair.right.id)?)?);
    match plan::join_leaves(&sizes_of(&entries), boundary, leaf_capacity(tree.pages.page_size())) {
        Join::Leave => Ok(Joined::Unchanged),
        Join::Merge => {
            build_leaf(tree, pair.own().id, &entries)?;
            let between = drop_neighbour(tree.pages, path, depth, &pair)?;
            free_long(tree.pages, between)?;
            Ok(Joined::Merged)
        }
        Join::Move(cut) => {
            let pair = make_pair_dirty(tree.pages, path, depth, pair)?;
            build_leaf(tree, pair.left.id, &entries[..cut])?;
            build_leaf(tree, pair.right.id, &entries[cut..])?;
            let sep = separator_at(tree, &entries, cut)?;
            let old = move_separator(tree, path, depth - 1, pair.left_at + 1, sep)?;
            free_long(tree.pages, old)?;
            Ok(Joined::Unchanged)
        }
    }
}

fn join_branches<P: PageWrite>(tree: &mut TreeMut<'_, P>, path: &Path, depth: usize, pair: Pair) -> Result<Joined> {
    let level = path.len() - 1 - depth;
    let (page_size, order) = (tree.pages.page_size(), tree.root.order);
    let mut children = children_of(&branch_at(tree.pages, pair.left, level)?)?;
    let boundary = children.len();
    children.extend(children_of(&branch_at(tree.pages, pair.right, level)?)?);
    branch_at(tree.pages, path.frame(depth - 1).ptr, level + 1)?
        .separator_into(pair.left_at + 1, &mut children[boundary].sep)?;
    let weights = weights_of(&children);
    let plan = plan::join_branches(&weights, boundary, page_size, |range| {
        branch::built_bytes(page_size, order, &children[range])
    });
    match plan {
        Join::Leave => Ok(Joined::Unchanged),
        Join::Merge => {
            build_branch(tree, level, pair.own().id, &children)?;
            // The separator between the two now stands in the merged branch.
            drop_neighbour(tree.pages, path, depth, &pair)?;
            Ok(Joined::Merged)
        }
        Join::Move(cut) => {
            let pair = make_pair_dirty(tree.pages, path, depth, pair)?;
            build_pair(tree, level, &pair, &children, cut)?;
            // The old separator now stands in one of the two.
            let sep = std::mem::take(&mut children[cut].sep);
            move_separator(tree, path, depth - 1, pair.left_at + 1, sep)?;
            Ok(Joined::Unchanged)
        }
    }
}

fn build_pair<P: PageWrite>(
    tree: &mut TreeMut<'_, P>,
    level: usize,
    pair: &Pair,
    children: &[Child],
    cut: usize,
) -> Result<()> {
    build_branch(tree, level, pair.left.id, &children[..cut])?;
    build_branch(tree, level, pair.right.id, &children[cut..])
}

/// Frees the neighbour, whose entries the page of the path has taken over, and takes it out of the
/// parent. Returns the separator between the two if it was long.
fn drop_neighbour<P: PageWrite>(pages: &mut P, path: &Path, depth: usize, pair: &Pair) -> Result<Option<LongKey>> {
    let parent = path.frame(depth - 1).ptr.id;
    free_page(pages, pair.neighbour())?;
    branch_mut(pages, parent)?.set_child(pair.left_at, pair.own())?;
    remove_child(pages, parent, pair.left_at + 1)
}

/// Copies the neighbour unless it is dirty.
fn make_pair_dirty<P: PageWrite>(pages: &mut P, path: &Path, depth: usize, mut pair: Pair) -> Result<Pair> {
    let neighbour = pair.neighbour();
    if pages.is_dirty(neighbour.id) {
        return Ok(pair);
    }
    let copy = copy_page(pages, neighbour)?;
    let at = if pair.own_is_left { pair.left_at + 1 } else { pair.left_at };
    branch_mut(pages, path.frame(depth - 1).ptr.id)?.set_child(at, copy)?;
    match pair.own_is_left {
        true => pair.right = copy,
        false => pair.left = copy,
    }
    Ok(pair)
}

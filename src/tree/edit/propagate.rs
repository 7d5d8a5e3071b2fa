//! Changes branches: inserts new children after a split, removes merged ones, moves separators.
//!
//! Floor: tree. The common case changes the branch in place. The slow path decodes the branch into
//! a list of children with whole separators, changes the list, and builds as many pages from it as
//! necessary; the new pages are inserted into the next branch up. One pass upwards, no recursion; a
//! root that splits gets a new root.
//!
//! Failure: separators too large for any plan exist only on damaged pages and give
//! `Error::Corrupt`.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::ids::PageId;
use crate::limits::DEPTH_MAX;
use crate::page::branch::{self, Branch, Child};
use crate::page::header::PageStamp;
use crate::page::key::{LongKey, PageKeyBuf};
use crate::pager::{PageRead, PageWrite};

use crate::tree::edit::plan::{self, Pattern};
use crate::tree::path::{branch_at, branch_mut, dirty_ptr, Path};
use crate::tree::TreeMut;

/// Inserts `fresh`, the new right siblings of the page at `depth` of the path, into the branches
/// above. Their separators ascend and lie right of that page. All pages of the path are dirty.
pub(crate) fn propagate_split<P: PageWrite>(
    tree: &mut TreeMut<'_, P>,
    path: &Path,
    depth: usize,
    mut fresh: Vec<Child>,
    pattern: Pattern,
) -> Result<()> {
    for above in (0..depth).rev() {
        let frame = path.frame(above);
        let inserted = insert_in_place(tree.pages, frame.ptr.id, frame.index() + 1, &fresh)?;
        fresh.drain(..inserted);
        if fresh.is_empty() {
            return Ok(());
        }
        let level = path.len() - 1 - above;
        let mut children = children_of(&branch_at(tree.pages, frame.ptr, level)?)?;
        let at = frame.index() + 1 + inserted;
        if pattern == Pattern::Ascending && at == children.len() && fresh.len() > 1 {
            let rest = fill_branch(tree, level, frame.ptr.id, children, fresh)?;
            if rest.is_empty() {
                return Ok(());
            }
            fresh = build_full_branches(tree, level, rest)?;
            continue;
        }
        let last = at + fresh.len() - 1;
        children.splice(at..at, fresh);
        let preferred = plan::preferred_cut(pattern, last, children.len());
        fresh = build_branches(tree, level, Some(frame.ptr.id), children, preferred)?;
        fresh.remove(0);
    }
    grow_root(tree, fresh, pattern)
}

/// Inserts children from index `at` on as long as they fit. Returns how many it inserted.
fn insert_in_place<P: PageWrite>(pages: &mut P, id: PageId, at: usize, fresh: &[Child]) -> Result<usize> {
    let mut branch = branch_mut(pages, id)?;
    for (inserted, child) in fresh.iter().enumerate() {
        if !branch.insert(at + inserted, &child.sep, child.ptr)? {
            return Ok(inserted);
        }
    }
    Ok(fresh.len())
}

/// Rebuilds a branch into which no further child can be inserted in place, from its own `children`
/// and as many of `fresh` as fit after them. Returns the other children: none, or at least two, as
/// another branch needs. (A child that cannot be inserted in place may fit into the rebuilt page:
/// an insertion needs a separator that begins with the prefix of the page, and the rebuilt page
/// gets a shorter prefix.)
fn fill_branch<P: PageWrite>(
    tree: &mut TreeMut<'_, P>,
    level: usize,
    id: PageId,
    mut children: Vec<Child>,
    fresh: Vec<Child>,
) -> Result<Vec<Child>> {
    let (page_size, order) = (tree.pages.page_size(), tree.root.order);
    let own = children.len();
    children.extend(fresh);
    let fits = |count: usize| branch::built_bytes(page_size, order, &children[..count]) <= page_size;
    let mut count = own;
    while count < children.len() && fits(count + 1) {
        count += 1;
    }
    if count + 1 == children.len() {
        // Another branch needs two children. `fresh` has at least two, so this page keeps its own.
        count -= 1;
    }
    let rest = children.split_off(count);
    if count > own {
        build_branch(tree, level, id, &children)?;
    }
    Ok(rest)
}

/// Adds levels until one page holds all children of the highest level.
fn grow_root<P: PageWrite>(tree: &mut TreeMut<'_, P>, fresh: Vec<Child>, pattern: Pattern) -> Result<()> {
    let mut children = vec![Child { sep: PageKeyBuf::default(), ptr: tree.root.ptr }];
    children.extend(fresh);
    while children.len() > 1 {
        let level = usize::from(tree.root.height);
        if level >= DEPTH_MAX {
            return Err(Error::corrupt(tree.root.ptr.id, format!("tree height is over {DEPTH_MAX}")));
        }
        children = match pattern {
            Pattern::Ascending => build_full_branches(tree, level, children)?,
            _ => {
                let preferred = plan::preferred_cut(pattern, children.len() - 1, children.len());
                build_branches(tree, level, None, children, preferred)?
            }
        };
        tree.root.height += 1;
        tree.root.ptr = children[0].ptr;
    }
    Ok(())
}

/// Builds branches that hold these children, the first one in the page `reuse` if there is one.
/// Returns a child for each page built; the first has the separator of the first of `children`.
pub(crate) fn build_branches<P: PageWrite>(
    tree: &mut TreeMut<'_, P>,
    level: usize,
    reuse: Option<PageId>,
    children: Vec<Child>,
    preferred: Option<usize>,
) -> Result<Vec<Child>> {
    let (page_size, order) = (tree.pages.page_size(), tree.root.order);
    let fits = |range: Range<usize>| branch::built_bytes(page_size, order, &children[range]) <= page_size;
    let groups = plan::group_children(&weights_of(&children), preferred, fits);
    build_groups(tree, level, reuse, children, groups)
}

/// Like [`build_branches`], for children that were put in ascending order: fills every page but the
/// last.
fn build_full_branches<P: PageWrite>(
    tree: &mut TreeMut<'_, P>,
    level: usize,
    children: Vec<Child>,
) -> Result<Vec<Child>> {
    let (page_size, order) = (tree.pages.page_size(), tree.root.order);
    let fits = |range: Range<usize>| branch::built_bytes(page_size, order, &children[range]) <= page_size;
    let groups = plan::fill_groups(children.len(), fits);
    build_groups(tree, level, None, children, groups)
}

/// Builds a branch of each group of children.
fn build_groups<P: PageWrite>(
    tree: &mut TreeMut<'_, P>,
    level: usize,
    reuse: Option<PageId>,
    mut children: Vec<Child>,
    groups: Option<Vec<Range<usize>>>,
) -> Result<Vec<Child>> {
    let groups =
        groups.ok_or_else(|| Error::corrupt(reuse.unwrap_or_default(), "a separator is larger than the limit"))?;
    let mut built = Vec::with_capacity(groups.len());
    for (index, group) in groups.into_iter().enumerate() {
        let id = match reuse {
            Some(id) if index == 0 => id,
            _ => tree.pages.alloc(1)?,
        };
        build_branch(tree, level, id, &children[group.clone()])?;
        let sep = std::mem::take(&mut children[group.start].sep);
        built.push(Child { sep, ptr: dirty_ptr(id) });
    }
    Ok(built)
}

/// Builds one branch from children. They fit.
pub(crate) fn build_branch<P: PageWrite>(
    tree: &mut TreeMut<'_, P>,
    level: usize,
    id: PageId,
    children: &[Child],
) -> Result<()> {
    let txn = tree.pages.txn();
    let stamp = PageStamp::of_tree(id, tree.root, txn);
    let fitted = branch::build(tree.pages.page_mut(id)?, stamp, level as u8, children)?;
    assert!(fitted, "the plan gave a branch more than fits");
    Ok(())
}

/// The bytes that each child takes in a branch, without regard to prefixes.
pub(crate) fn weights_of(children: &[Child]) -> Vec<usize> {
    children.iter().map(|child| CHILD_BYTES + child.sep.as_key().stored_bytes()).collect()
}

/// Head, slot and pointer of a child.
const CHILD_BYTES: usize = 16;

/// All children of a branch with their separators; the first one's is empty.
pub(crate) fn children_of(branch: &Branch<'_>) -> Result<Vec<Child>> {
    let mut children = Vec::with_capacity(branch.count() + 2);
    for at in 0..branch.count() {
        let mut sep = PageKeyBuf::default();
        if at > 0 {
            branch.separator_into(at, &mut sep)?;
        }
        children.push(Child { sep, ptr: branch.child(at)? });
    }
    Ok(children)
}

/// Replaces the separator of the child with index `at` in the branch at `depth` of the path. The
/// branch may have to split, because the new separator may be longer. Returns the old separator if
/// it was long: the caller frees its extent, or has put it elsewhere.
pub(crate) fn move_separator<P: PageWrite>(
    tree: &mut TreeMut<'_, P>,
    path: &Path,
    depth: usize,
    at: usize,
    sep: PageKeyBuf,
) -> Result<Option<LongKey>> {
    let frame = path.frame(depth);
    let level = path.len() - 1 - depth;
    let branch = branch_at(tree.pages, frame.ptr, level)?;
    let (ptr, old) = (branch.child(at)?, branch.long_separator(at)?);
    let mut branch = branch_mut(tree.pages, frame.ptr.id)?;
    branch.remove(at)?;
    if branch.insert(at, &sep, ptr)? {
        return Ok(old);
    }
    let mut children = children_of(&branch_at(tree.pages, frame.ptr, level)?)?;
    children.insert(at, Child { sep, ptr });
    let mut fresh = build_branches(tree, level, Some(frame.ptr.id), children, None)?;
    fresh.remove(0);
    if !fresh.is_empty() {
        propagate_split(tree, path, depth, fresh, Pattern::Random)?;
    }
    Ok(old)
}

/// Removes the child with index `at` from a dirty branch. Returns the separator that goes with it
/// if it was long: the caller frees its extent, or has put it elsewhere.
pub(crate) fn remove_child<P: PageWrite>(pages: &mut P, id: PageId, at: usize) -> Result<Option<LongKey>> {
    let mut branch = branch_mut(pages, id)?;
    let separator = branch.as_branch().long_separator(at.max(1))?;
    match at {
        0 => branch.remove_first()?,
        _ => branch.remove(at)?,
    };
    Ok(separator)
}

/// Number of children of the branch at `depth` of a path.
pub(crate) fn child_count<P: PageRead>(pages: &P, path: &Path, depth: usize) -> Result<usize> {
    Ok(branch_at(pages, path.frame(depth).ptr, path.len() - 1 - depth)?.count())
}

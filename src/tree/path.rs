//! The way from the root of a tree to a leaf, and making the pages along it writable.
//!
//! Floor: tree.
//!
//! Invariants:
//!   TREE-1  the level of a page falls by one with each step down, and leaves have level 0;
//!       anything else is damage. So every descent ends after `height` steps, which `DEPTH_MAX`
//!       bounds.
//!   TREE-2  every ancestor of a dirty page is dirty. So a put into a dirty leaf looks at no
//!           ancestor.
//!   TREE-3  a pointer to a dirty page carries no valid checksum until `seal` writes it.
//!
//! Failure: a page that does not decode, or that has the wrong level, is `Error::Corrupt`.

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr};
use crate::limits::DEPTH_MAX;
use crate::page::branch::{Branch, BranchMut};
use crate::page::header;
use crate::page::leaf::Leaf;
use crate::pager::{PageRead, PageWrite};

use super::long_key::whole_separator;
use super::{Tree, TreeMut, TreeRoot};

/// One page of a path, and the index of the child (in a leaf: of the entry) that the path takes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Frame {
    pub(crate) ptr: PagePtr,
    pub(crate) at: u32,
}

impl Frame {
    pub(crate) fn index(&self) -> usize {
        self.at as usize
    }
}

/// The pages from the root to a leaf. Depth 0 is the root; the last one is the leaf.
#[derive(Clone)]
pub(crate) struct Path {
    frames: [Frame; DEPTH_MAX],
    len: usize,
    /// The leaf that the next step in the direction of the last one leads to, if it has the same
    /// parent.
    ahead: PagePtr,
}

/// Leads to no page.
pub(crate) const NOWHERE: PagePtr = PagePtr { id: PageId::NONE, crc: 0 };

/// Which end of a tree or subtree to go to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    First,
    Last,
}

impl Side {
    /// The side towards which this end of a range moves.
    #[inline]
    pub(crate) fn inward(self) -> Side {
        match self {
            Side::First => Side::Last,
            Side::Last => Side::First,
        }
    }
}

impl Path {
    pub(crate) fn new() -> Path {
        Path { frames: [Frame::default(); DEPTH_MAX], len: 0, ahead: NOWHERE }
    }

    /// The leaf of the next step, if known.
    pub(crate) fn ahead(&self) -> PagePtr {
        self.ahead
    }

    /// Number of pages on the path.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn frame(&self, depth: usize) -> Frame {
        self.frames[depth]
    }

    pub(crate) fn leaf(&self) -> Frame {
        self.frames[self.len - 1]
    }

    /// Changes the index of the entry that the path leads to, within its leaf.
    pub(crate) fn set_leaf_index(&mut self, index: usize) {
        self.frames[self.len - 1].at = index as u32;
    }

    pub(crate) fn set_ptr(&mut self, depth: usize, ptr: PagePtr) {
        self.frames[depth].ptr = ptr;
    }

    /// Descends to the leaf that holds `key` or would hold it. Returns whether it holds the key.
    /// The tree is not empty.
    pub(crate) fn descend<P: PageRead>(&mut self, tree: Tree<'_, P>, key: &[u8]) -> Result<bool> {
        let Tree { pages, root } = tree;
        self.len = height_of(root)?;
        let mut ptr = root.ptr;
        for depth in 0..self.len - 1 {
            let branch = branch_at(pages, ptr, self.len - 1 - depth)?;
            let at = branch.find_in(root.order, pages, key)?;
            self.frames[depth] = Frame { ptr, at: at as u32 };
            ptr = branch.child(at)?;
        }
        fetch_front(pages, ptr);
        let (at, found) = leaf_at(pages, ptr)?.lower_bound_in(root.order, pages, key)?;
        self.frames[self.len - 1] = Frame { ptr, at: at as u32 };
        Ok(found)
    }

    /// Goes to one end of the tree. The tree is not empty.
    pub(crate) fn descend_to<'a, P: PageRead>(&mut self, tree: Tree<'a, P>, side: Side) -> Result<Leaf<'a>> {
        self.len = height_of(tree.root)?;
        self.descend_from(tree.pages, 0, tree.root.ptr, side)
    }

    /// Descends to the branch of the lowest level that `key` belongs to, and reads no leaf. Returns
    /// the lower bound of the keys after that branch; `None` if it is the last one. The tree is not
    /// empty.
    pub(crate) fn descend_to_branch<P: PageRead>(&mut self, tree: Tree<'_, P>, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let Tree { pages, root } = tree;
        self.len = height_of(root)?;
        let (mut ptr, mut bound) = (root.ptr, None);
        for depth in 0..self.len - 1 {
            let branch = branch_at(pages, ptr, self.len - 1 - depth)?;
            let at = branch.find_in(root.order, pages, key)?;
            self.frames[depth] = Frame { ptr, at: at as u32 };
            if depth + 2 < self.len && at + 1 < branch.count() {
                bound = Some(whole_separator(pages, &branch, at + 1)?);
            }
            ptr = branch.child(at)?;
        }
        self.frames[self.len - 1] = Frame { ptr, at: 0 };
        Ok(bound)
    }

    /// Descends to the leaf that `key` belongs to, and does not read it. The tree is not empty.
    pub(crate) fn descend_above<P: PageRead>(&mut self, tree: Tree<'_, P>, key: &[u8]) -> Result<PagePtr> {
        self.descend_by(tree, |branch, _| branch.find_in(tree.root.order, tree.pages, key))
    }

    /// Goes to the leaf at one end of the tree, and does not read it. The tree is not empty.
    pub(crate) fn descend_above_to<P: PageRead>(&mut self, tree: Tree<'_, P>, side: Side) -> Result<PagePtr> {
        self.descend_by(tree, |branch, ptr| match side {
            Side::First => Ok(0),
            Side::Last => last_index(branch.count(), ptr),
        })
    }

    fn descend_by<P: PageRead>(
        &mut self,
        tree: Tree<'_, P>,
        choose: impl Fn(&Branch<'_>, PagePtr) -> Result<usize>,
    ) -> Result<PagePtr> {
        let Tree { pages, root } = tree;
        self.len = height_of(root)?;
        let mut ptr = root.ptr;
        for depth in 0..self.len - 1 {
            let branch = branch_at(pages, ptr, self.len - 1 - depth)?;
            let at = choose(&branch, ptr)?;
            self.frames[depth] = Frame { ptr, at: at as u32 };
            ptr = branch.child(at)?;
        }
        self.frames[self.len - 1] = Frame { ptr, at: 0 };
        Ok(ptr)
    }

    /// Fills the path from `depth` on with the way to one end of the subtree below `ptr`.
    fn descend_from<'a, P: PageRead>(
        &mut self,
        pages: &'a P,
        depth: usize,
        mut ptr: PagePtr,
        side: Side,
    ) -> Result<Leaf<'a>> {
        for depth in depth..self.len - 1 {
            let branch = branch_at(pages, ptr, self.len - 1 - depth)?;
            let at = if side == Side::First { 0 } else { last_index(branch.count(), ptr)? };
            self.frames[depth] = Frame { ptr, at: at as u32 };
            ptr = branch.child(at)?;
        }
        let leaf = leaf_at(pages, ptr)?;
        let at = if side == Side::First { 0 } else { leaf.count().saturating_sub(1) };
        self.frames[self.len - 1] = Frame { ptr, at: at as u32 };
        Ok(leaf)
    }

    /// Moves to the neighbouring leaf on that side (`Last`: the next one), if there is one.
    pub(crate) fn step<'a, P: PageRead>(&mut self, pages: &'a P, towards: Side) -> Result<Option<Leaf<'a>>> {
        let mut depth = self.len - 1;
        while depth > 0 {
            depth -= 1;
            let frame = self.frames[depth];
            let branch = branch_at(pages, frame.ptr, self.len - 1 - depth)?;
            let next = match towards {
                Side::Last => Some(frame.index() + 1).filter(|&at| at < branch.count()),
                Side::First => frame.index().checked_sub(1),
            };
            if let Some(at) = next {
                self.frames[depth].at = at as u32;
                if depth + 2 == self.len {
                    self.ahead = beyond(&branch, at, towards);
                }
                let enter = if towards == Side::Last { Side::First } else { Side::Last };
                return self.descend_from(pages, depth + 1, branch.child(at)?, enter).map(Some);
            }
        }
        Ok(None)
    }
}

impl Path {
    /// Moves to the neighbouring leaf on that side without reading it. Returns its pointer, or
    /// `None` if there is no such leaf. If the step enters another branch, also returns the id of
    /// the branch after that one, if the same parent has it.
    pub(crate) fn skip<P: PageRead>(&mut self, pages: &P, towards: Side) -> Result<Option<(PagePtr, PageId)>> {
        let (bottom, mut depth, mut branch_beyond) = (self.len - 1, self.len - 1, PageId::NONE);
        while depth > 0 {
            depth -= 1;
            let frame = self.frames[depth];
            let branch = branch_at(pages, frame.ptr, bottom - depth)?;
            let next = match towards {
                Side::Last => Some(frame.index() + 1).filter(|&at| at < branch.count()),
                Side::First => frame.index().checked_sub(1),
            };
            let Some(at) = next else { continue };
            self.frames[depth].at = at as u32;
            let mut ptr = branch.child(at)?;
            if depth + 2 == bottom {
                branch_beyond = beyond(&branch, at, towards).id;
            }
            for depth in depth + 1..bottom {
                let branch = branch_at(pages, ptr, bottom - depth)?;
                let at = if towards == Side::Last { 0 } else { last_index(branch.count(), ptr)? };
                self.frames[depth] = Frame { ptr, at: at as u32 };
                ptr = branch.child(at)?;
            }
            self.frames[bottom] = Frame { ptr, at: 0 };
            return Ok(Some((ptr, branch_beyond)));
        }
        Ok(None)
    }
}

impl Path {
    /// Finds the leaf of the next step in a direction, after a descent by key.
    pub(crate) fn look<P: PageRead>(&mut self, pages: &P, towards: Side) {
        self.ahead = NOWHERE;
        if let Some(depth) = self.len.checked_sub(2) {
            let frame = self.frames[depth];
            // Ignore damage here: the step finds it and reports it.
            if let Ok(branch) = branch_at(pages, frame.ptr, 1) {
                self.ahead = beyond(&branch, frame.index(), towards);
            }
        }
    }
}

/// The leaf after the child with index `at`, in the direction of a walk, if it has the same parent.
#[inline]
fn beyond(branch: &Branch<'_>, at: usize, towards: Side) -> PagePtr {
    let beyond = if towards == Side::Last { at + 1 } else { at.wrapping_sub(1) };
    if beyond >= branch.count() {
        return NOWHERE;
    }
    branch.child(beyond).unwrap_or(NOWHERE)
}

/// The height of a tree that is not empty, within the bound (TREE-1).
pub(crate) fn height_of(root: &TreeRoot) -> Result<usize> {
    let height = usize::from(root.height);
    if height == 0 || height > DEPTH_MAX {
        return Err(Error::corrupt(root.ptr.id, format!("tree height is {height}, expected 1 to {DEPTH_MAX}")));
    }
    Ok(height)
}

/// The branch that a pointer leads to. It must have this level (TREE-1).
#[inline]
pub(crate) fn branch_at<P: PageRead>(pages: &P, ptr: PagePtr, level: usize) -> Result<Branch<'_>> {
    let branch = Branch::parse(pages.page(ptr)?, ptr.id)?;
    if usize::from(branch.level()) != level {
        return Err(wrong_level(ptr.id, branch.level().into(), level));
    }
    Ok(branch)
}

#[cold]
fn wrong_level(page: PageId, found: usize, expected: usize) -> Error {
    Error::corrupt(page, format!("level is {found}, expected {expected}"))
}

/// The leaf that a pointer leads to.
#[inline]
pub(crate) fn leaf_at<P: PageRead>(pages: &P, ptr: PagePtr) -> Result<Leaf<'_>> {
    Ok(Leaf::parse(pages.page(ptr)?, ptr.id)?)
}

/// Bytes to prefetch at the start of a page. In a leaf these hold the header, and heads and slots
/// of some twenty entries; in a branch the header, the hints and the first heads.
const FRONT_BYTES: usize = 192;

/// Prefetches the first [`FRONT_BYTES`] of a page that is needed soon into the CPU cache.
#[inline(always)]
pub(crate) fn fetch_front<P: PageRead>(pages: &P, page: PagePtr) {
    if !page.id.is_none() {
        pages.prefetch(page.id, 0, FRONT_BYTES);
    }
}

/// The index of the last of `count` children or entries. A page with none is damage.
pub(crate) fn last_index(count: usize, ptr: PagePtr) -> Result<usize> {
    count.checked_sub(1).ok_or_else(|| Error::corrupt(ptr.id, "count is 0, expected at least 1"))
}

/// A pointer to a page of the running transaction: its checksum is not known before `seal`
/// (TREE-3).
pub(crate) fn dirty_ptr(id: PageId) -> PagePtr {
    PagePtr { id, crc: 0 }
}

/// Makes every page of the path writable: pages that are not dirty are replaced by copies, from the
/// root down.
pub(crate) fn make_dirty<P: PageWrite>(tree: &mut TreeMut<'_, P>, path: &mut Path) -> Result<()> {
    if tree.pages.is_dirty(path.leaf().ptr.id) {
        return Ok(()); // TREE-2
    }
    make_dirty_above(tree, path, path.len())
}

/// Like [`make_dirty`], for only the branches of the path.
pub(crate) fn make_branches_dirty<P: PageWrite>(tree: &mut TreeMut<'_, P>, path: &mut Path) -> Result<()> {
    make_dirty_above(tree, path, path.len() - 1)
}

/// Like [`make_dirty`], for only the pages above a depth.
pub(crate) fn make_branches_dirty_above<P: PageWrite>(
    tree: &mut TreeMut<'_, P>,
    path: &mut Path,
    depth: usize,
) -> Result<()> {
    make_dirty_above(tree, path, depth)
}

fn make_dirty_above<P: PageWrite>(tree: &mut TreeMut<'_, P>, path: &mut Path, end: usize) -> Result<()> {
    for depth in 0..end {
        let old = path.frame(depth).ptr;
        if !tree.pages.is_dirty(old.id) {
            let copy = copy_page(tree.pages, old)?;
            point_at(tree, path, depth, copy)?;
        }
    }
    Ok(())
}

/// Replaces the pointer to the page at `depth`, in its parent or in the tree root, by `ptr`. The
/// parent is dirty.
pub(crate) fn point_at<P: PageWrite>(
    tree: &mut TreeMut<'_, P>,
    path: &mut Path,
    depth: usize,
    ptr: PagePtr,
) -> Result<()> {
    match depth.checked_sub(1) {
        None => tree.root.ptr = ptr,
        Some(above) => {
            let parent = path.frame(above);
            branch_mut(tree.pages, parent.ptr.id)?.set_child(parent.index(), ptr)?;
        }
    }
    path.set_ptr(depth, ptr);
    Ok(())
}

/// A dirty branch, to be changed.
pub(crate) fn branch_mut<P: PageWrite>(pages: &mut P, id: PageId) -> Result<BranchMut<'_>> {
    Ok(BranchMut::open(pages.page_mut(id)?, id)?)
}

/// Copies a page into a new one of this transaction and frees the old one.
pub(crate) fn copy_page<P: PageWrite>(pages: &mut P, old: PagePtr) -> Result<PagePtr> {
    let id = pages.alloc(1)?;
    if id == old.id {
        // Refuse before storing anything: a committed state reaches this page (R1).
        return Err(Error::corrupt(id, "a page is both in use and free"));
    }
    let txn = pages.txn();
    pages.copy(old, id)?;
    header::restamp(pages.page_mut(id)?, id, txn);
    free_page(pages, old)?;
    Ok(dirty_ptr(id))
}

/// Frees one page of a tree.
pub(crate) fn free_page<P: PageWrite>(pages: &mut P, ptr: PagePtr) -> Result<()> {
    let born = header::page_txn(pages.page(ptr)?);
    pages.free(ptr.id, 1, born);
    Ok(())
}

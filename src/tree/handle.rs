//! Handles of a tree: [`Tree`] reads it, [`TreeMut`] changes it.
//!
//! Floor: tree. A handle joins a store of pages with the root of one tree in it. It borrows both,
//! so it is two pointers wide and passes in two registers. The operations are methods; each stands
//! in the file of its name (`lookup/search.rs`, `edit/put.rs`).
//!
//! Failure: none.

use crate::page::meta::TreeRoot;

/// A tree to read.
pub(crate) struct Tree<'p, P> {
    pub(crate) pages: &'p P,
    pub(crate) root: &'p TreeRoot,
}

impl<P> Clone for Tree<'_, P> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Tree<'_, P> {}

impl<'p, P> Tree<'p, P> {
    #[inline(always)]
    pub(crate) fn new(pages: &'p P, root: &'p TreeRoot) -> Tree<'p, P> {
        Tree { pages, root }
    }

    #[inline(always)]
    pub(crate) fn is_empty(self) -> bool {
        self.root.height == 0
    }
}

/// A tree to change. Operations write the new root through `root`. They consume the handle, so that
/// it passes in registers; a caller that needs it again passes a [`TreeMut::reborrow`].
pub(crate) struct TreeMut<'p, P> {
    pub(crate) pages: &'p mut P,
    pub(crate) root: &'p mut TreeRoot,
}

impl<'p, P> TreeMut<'p, P> {
    #[inline(always)]
    pub(crate) fn new(pages: &'p mut P, root: &'p mut TreeRoot) -> TreeMut<'p, P> {
        TreeMut { pages, root }
    }

    /// The same handle with a shorter life.
    #[inline(always)]
    pub(crate) fn reborrow(&mut self) -> TreeMut<'_, P> {
        TreeMut { pages: self.pages, root: self.root }
    }

    /// The tree as it is now, to read.
    #[inline(always)]
    pub(crate) fn as_tree(&self) -> Tree<'_, P> {
        Tree { pages: self.pages, root: self.root }
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.root.height == 0
    }
}

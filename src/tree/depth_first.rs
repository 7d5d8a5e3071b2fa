//! The depth-first walk over a tree: enters branches before their children, leaves them after.
//!
//! Floor: tree. Sealing, dropping, checking and salvage implement [`DepthFirst`], and
//! [`walk_depth_first`] drives them. The path lies in a fixed array: the driver neither recurses
//! nor allocates.
//!
//! ```text
//! enter root
//!     enter branch             next_child(root) returned it
//!         enter leaf           next_child(branch) returned it; a leaf is not left
//!     leave branch             next_child(branch) returned `None`
//! leave root
//! ```
//!
//! Failure: the first error ends the walk. The driver bounds only the depth. In a damaged tree many
//! pointers can lead to one page; implementations that must not visit it twice refuse it in
//! `enter`.

use crate::error::{DecodeError, Result};
use crate::ids::PagePtr;
use crate::limits::DEPTH_MAX;
use crate::page::branch::Branch;
use crate::tree::path::height_of;
use crate::tree::TreeRoot;

/// A branch whose children are being visited.
pub(crate) struct Parent<B> {
    pub(crate) ptr: PagePtr,
    pub(crate) level: usize,
    /// Index of the child to visit next.
    pub(crate) next: usize,
    /// The value that [`DepthFirst::enter`] returned.
    pub(crate) branch: B,
}

impl<B> Parent<B> {
    /// Index of the child that is being visited.
    pub(crate) fn index(&self) -> usize {
        self.next - 1
    }
}

/// The steps of a depth-first walk. `B` holds what the walk remembers of a branch while it visits
/// the children.
pub(crate) trait DepthFirst<B> {
    /// Visits a page before its children; the root has no parent. Returns `None` for a leaf, and
    /// for a branch whose children are not to be visited.
    fn enter(&mut self, ptr: PagePtr, level: usize, parent: Option<&Parent<B>>) -> Result<Option<B>>;

    /// The first child to visit from index `parent.next` on. Sets `parent.next` to the index after
    /// it.
    fn next_child(&mut self, parent: &mut Parent<B>) -> Result<Option<PagePtr>>;

    /// Visits a branch after its children.
    fn leave(&mut self, _ptr: PagePtr, _parent: Option<&Parent<B>>) -> Result<()> {
        Ok(())
    }
}

/// Walks a tree.
pub(crate) fn walk_depth_first<B>(walk: &mut impl DepthFirst<B>, root: &TreeRoot) -> Result<()> {
    if root.height == 0 {
        return Ok(());
    }
    let mut path: [Option<Parent<B>>; DEPTH_MAX] = [const { None }; DEPTH_MAX];
    let (ptr, level, mut depth) = (root.ptr, height_of(root)? - 1, 0);
    path[0] = walk.enter(ptr, level, None)?.map(|branch| Parent { ptr, level, next: 0, branch });
    while let Some(parent) = &mut path[depth] {
        if let Some(ptr) = walk.next_child(parent)? {
            let level = parent.level - 1;
            if let Some(branch) = walk.enter(ptr, level, Some(parent))? {
                depth += 1;
                path[depth] = Some(Parent { ptr, level, next: 0, branch });
            }
        } else {
            let ptr = parent.ptr;
            path[depth] = None;
            // After the root, `path[0]` is `None`: the root has no parent, and the loop ends.
            depth = depth.saturating_sub(1);
            walk.leave(ptr, path[depth].as_ref())?;
        }
    }
    Ok(())
}

/// The child at index `next`; `None` after the last. Advances `next`.
pub(crate) fn next_child(branch: &Branch<'_>, next: &mut usize) -> Result<Option<PagePtr>, DecodeError> {
    if *next == branch.count() {
        return Ok(None);
    }
    *next += 1;
    branch.child(*next - 1).map(Some)
}

//! Deleting one entry.
//!
//! Floor: tree. The way down is read-only, so a key that is not there changes nothing; else the
//! path is made dirty, the entry removed, and `rebalance.rs` restores the shape.
//!
//! Failure: any error can leave the tree of this transaction half changed, so the transaction must
//! be aborted.

use crate::error::{Error, Result};
use crate::page::leaf::LeafMut;
use crate::pager::PageWrite;

use crate::tree::edit::put::take_old;
use crate::tree::edit::rebalance::after_removal;
use crate::tree::path::{leaf_at, make_dirty, Path};
use crate::tree::{Tree, TreeRoot};

/// Deletes the entry of a key; says whether there was one, and gives its value if asked.
pub(crate) fn delete<P: PageWrite>(
    pages: &mut P,
    root: &mut TreeRoot,
    key: &[u8],
    old: Option<&mut Vec<u8>>,
) -> Result<bool> {
    if root.height == 0 {
        return Ok(false);
    }
    let mut path = Path::new();
    if !path.descend(Tree::new(pages, root), key)? {
        return Ok(false);
    }
    let leaf = path.leaf();
    let released = take_old(pages, &leaf_at(pages, leaf.ptr)?, leaf.index(), old)?;
    let Some(entries) = root.entries.checked_sub(1) else {
        return Err(Error::corrupt(root.ptr.id, "entry count of the tree is 0, expected at least 1"));
    };
    make_dirty(pages, root, &mut path)?;
    let leaf = path.leaf();
    LeafMut::open(pages.page_mut(leaf.ptr.id)?, leaf.ptr.id)?.remove(leaf.index())?;
    if let Some(extent) = released {
        extent.free(pages);
    }
    root.entries = entries;
    after_removal(pages, root, &path).map(|()| true)
}

//! Putting one entry.
//!
//! Floor: tree. The way down is read-only. If the leaf is dirty already, so are its ancestors (T2) and the entry is
//! put in place; otherwise the path is copied first. A leaf without room goes to `split.rs`.
//!
//! Failure: `Error::TooLarge` leaves everything as it was. Any other error can leave the tree of this transaction
//! half changed, so the transaction must be aborted; what is committed is untouched in any case (R1).

use crate::error::{Error, Result};
use crate::ids::{PageId, TreeId};
use crate::page::leaf::{LeafMut, LeafValue};
use crate::pager::PageWrite;

use super::path::{dirty_ptr, leaf_at, make_dirty, Path};
use super::plan::Pattern;
use super::split::{split_leaf, Change};
use super::value::{check_sizes, resolve, store, Run};
use super::TreeRoot;

/// Where the last put of this transaction went, so that sequential puts anywhere in a tree leave full pages behind.
/// Only ever a hint: a stale one changes where a page is split, never what is stored.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct PutHint {
    leaf: PageId,
    at: usize,
}

impl PutHint {
    fn pattern(&self, leaf: PageId, at: usize) -> Pattern {
        if leaf != self.leaf || leaf.is_none() {
            Pattern::Random
        } else if at == self.at + 1 {
            Pattern::Ascending
        } else if at == self.at {
            Pattern::Descending
        } else {
            Pattern::Random
        }
    }
}

/// Puts an entry; says whether the key was there, and gives its old value if asked.
pub(crate) fn put<P: PageWrite>(
    pages: &mut P,
    root: &mut TreeRoot,
    key: &[u8],
    value: &[u8],
    hint: &mut PutHint,
    old: Option<&mut Vec<u8>>,
) -> Result<bool> {
    check_sizes(pages.page_size(), key, value.len())?;
    put_stored(pages, root, key, |pages, tree| store(pages, tree, value), hint, old)
}

/// Puts an entry whose value is stored already. The key is within the limits.
pub(crate) fn put_value<P: PageWrite>(
    pages: &mut P,
    root: &mut TreeRoot,
    key: &[u8],
    value: LeafValue<'_>,
) -> Result<bool> {
    put_stored(pages, root, key, |_, _| Ok(value), &mut PutHint::default(), None)
}

/// The same for a value that `store` gives when it is needed. The key is within the limits.
pub(super) fn put_stored<'v, P: PageWrite>(
    pages: &mut P,
    root: &mut TreeRoot,
    key: &[u8],
    store: impl FnOnce(&mut P, TreeId) -> Result<LeafValue<'v>>,
    hint: &mut PutHint,
    old: Option<&mut Vec<u8>>,
) -> Result<bool> {
    if root.height == 0 {
        plant(pages, root)?;
    }
    let mut path = Path::new();
    let replace = path.descend(pages, root, key)?;
    let entries = count_after(root, u64::from(!replace))?;
    let released = if replace { take_old(pages, &path, old)? } else { None };
    let value = store(pages, root.tree)?;
    let pattern = if replace { Pattern::Random } else { hint.pattern(path.leaf().ptr.id, path.leaf().index()) };
    make_dirty(pages, root, &mut path)?;
    let change = Change { key, value, replace };
    if store_in_place(pages, &path, &change)? {
        *hint = PutHint { leaf: path.leaf().ptr.id, at: path.leaf().index() };
    } else {
        let (leaf, at) = split_leaf(pages, root, &path, &change, pattern)?;
        *hint = PutHint { leaf, at };
    }
    if let Some(run) = released {
        run.free(pages);
    }
    root.entries = entries;
    Ok(replace)
}

/// The entry count of the tree with so many more.
pub(super) fn count_after(root: &TreeRoot, more: u64) -> Result<u64> {
    let count = root.entries.checked_add(more);
    count.ok_or_else(|| Error::corrupt(root.ptr.id, "entry count of the tree is larger than any can be"))
}

/// Gives the empty tree a leaf without entries.
pub(super) fn plant<P: PageWrite>(pages: &mut P, root: &mut TreeRoot) -> Result<()> {
    let id = pages.alloc(1)?;
    let txn = pages.txn();
    LeafMut::init(pages.page_mut(id)?, id, root.tree, txn);
    root.ptr = dirty_ptr(id);
    root.height = 1;
    Ok(())
}

/// Copies out the value that the path leads to, if asked, and finds the run that goes with it.
pub(super) fn take_old<P: PageWrite>(pages: &P, path: &Path, old: Option<&mut Vec<u8>>) -> Result<Option<Run>> {
    let frame = path.leaf();
    let value = leaf_at(pages, frame.ptr)?.value(frame.index())?;
    if let Some(old) = old {
        old.clear();
        old.extend_from_slice(resolve(pages, value)?);
    }
    Run::of(pages, value)
}

/// Tries to store the change in the dirty leaf of the path; `false` if there is no room, and nothing is changed.
fn store_in_place<P: PageWrite>(pages: &mut P, path: &Path, change: &Change<'_>) -> Result<bool> {
    let frame = path.leaf();
    let mut leaf = LeafMut::open(pages.page_mut(frame.ptr.id)?, frame.ptr.id)?;
    let done = match change.replace {
        true => leaf.replace(frame.index(), change.value)?,
        false => leaf.insert(frame.index(), change.key, change.value)?,
    };
    Ok(done)
}

//! Applies split plans to a leaf, and hands the new pages to the branches above.
//!
//! Floor: tree. `plan.rs` decides, this file builds; `propagate.rs` inserts the new pages into the
//! parents.
//!
//! Failure: entries too large for any plan exist only on damaged pages and give `Error::Corrupt`.

use crate::error::{Error, Result};
use crate::ids::PageId;
use crate::page::branch::Child;
use crate::page::header::PageStamp;
use crate::page::key::{PageKey, PageKeyBuf};
use crate::page::layout::HEADER_BYTES;
use crate::page::leaf::{self, Leaf, LeafMut, LeafValue};
use crate::pager::PageWrite;

use crate::tree::edit::plan::{self, Pattern};
use crate::tree::edit::propagate::propagate_split;
use crate::tree::edit::redistribute::redistribute;
use crate::tree::long_key::{separator, store_separator};
use crate::tree::path::{dirty_ptr, leaf_at, Path};
use crate::tree::TreeMut;

/// An entry of a leaf as its page stores it.
pub(crate) type Stored<'b> = (PageKey<'b>, LeafValue<'b>);

/// An entry that goes into a leaf: in place of the one with the same key, or as a new one.
pub(crate) struct Change<'b> {
    /// The whole key.
    pub(crate) key: &'b [u8],
    /// The key for the page, of an entry that is new.
    pub(crate) stored: PageKey<'b>,
    pub(crate) value: LeafValue<'b>,
    pub(crate) replace: bool,
}

impl<'b> Change<'b> {
    /// Applies the change to the entries of a leaf; `at` is the index of the changed entry.
    pub(crate) fn apply(&self, entries: &mut Vec<Stored<'b>>, at: usize) {
        match self.replace {
            true => entries[at].1 = self.value,
            false => entries.insert(at, (self.stored, self.value)),
        }
    }
}

/// Splits the dirty leaf of the path and applies a change that found no room in it. Returns the
/// page and the index of the changed entry.
pub(crate) fn split_leaf<P: PageWrite>(
    tree: &mut TreeMut<'_, P>,
    path: &Path,
    change: &Change<'_>,
    pattern: Pattern,
) -> Result<(PageId, usize)> {
    let frame = path.leaf();
    let at = frame.index();
    let count = leaf_at(tree.pages, frame.ptr)?.count();
    if pattern == Pattern::Ascending && at == count && !change.replace {
        let sep = separator(tree.root.order, tree.pages, leaf_at(tree.pages, frame.ptr)?.last_key()?, change.stored)?;
        let sep = store_separator(tree.pages, tree.root.tree, sep)?;
        let right = tree.pages.alloc(1)?;
        return extend_right(tree, path, Child { sep, ptr: dirty_ptr(right) }, change);
    }
    if pattern == Pattern::Random {
        if let Some(place) = redistribute(tree, path, change)? {
            return Ok(place);
        }
    }
    let copy = tree.pages.page(frame.ptr)?.to_vec();
    let old = Leaf::parse(&copy, frame.ptr.id)?;
    let mut entries = entries_of(&old)?;
    change.apply(&mut entries, at);
    let preferred = plan::preferred_cut(pattern, at, entries.len());
    let cut = plan::leaf_cut(&sizes_of(&entries), leaf_capacity(tree.pages.page_size()), preferred)
        .ok_or_else(|| Error::corrupt(frame.ptr.id, "an entry is larger than the limit"))?;
    let right = tree.pages.alloc(1)?;
    build_leaf(tree, frame.ptr.id, &entries[..cut])?;
    build_leaf(tree, right, &entries[cut..])?;
    let sep = separator_at(tree, &entries, cut)?;
    propagate_split(tree, path, path.len() - 1, vec![Child { sep, ptr: dirty_ptr(right) }], pattern)?;
    Ok(if at < cut { (frame.ptr.id, at) } else { (right, at - cut) })
}

/// Puts an entry that is greater than all entries of the leaf into `right`, a new page after it.
/// The leaf stays full.
pub(crate) fn extend_right<P: PageWrite>(
    tree: &mut TreeMut<'_, P>,
    path: &Path,
    right: Child,
    change: &Change<'_>,
) -> Result<(PageId, usize)> {
    let (id, txn) = (right.ptr.id, tree.pages.txn());
    let mut leaf = LeafMut::init(tree.pages.page_mut(id)?, PageStamp::of_tree(id, tree.root, txn));
    let stored = leaf.insert(0, change.stored, change.value)?;
    assert!(stored, "an entry within the limits fits into an empty leaf");
    propagate_split(tree, path, path.len() - 1, vec![right], Pattern::Ascending)?;
    Ok((id, 0))
}

/// The separator before entry `at`, stored for its branch.
pub(crate) fn separator_at<P: PageWrite>(
    tree: &mut TreeMut<'_, P>,
    entries: &[Stored<'_>],
    at: usize,
) -> Result<PageKeyBuf> {
    let sep = separator(tree.root.order, tree.pages, entries[at - 1].0, entries[at].0)?;
    store_separator(tree.pages, tree.root.tree, sep)
}

/// The bytes of a leaf that its entries can use, with their heads and slots.
pub(crate) fn leaf_capacity(page_size: usize) -> usize {
    page_size - HEADER_BYTES
}

/// All entries of a leaf, in order.
pub(crate) fn entries_of<'b>(leaf: &Leaf<'b>) -> Result<Vec<Stored<'b>>> {
    let mut entries = Vec::with_capacity(leaf.count() + 1);
    for at in 0..leaf.count() {
        entries.push(leaf.entry(at)?);
    }
    Ok(entries)
}

/// The bytes that each entry takes in a leaf, with its head and slot.
pub(crate) fn sizes_of(entries: &[Stored<'_>]) -> Vec<usize> {
    entries.iter().map(|(key, value)| leaf::entry_size(*key, *value)).collect()
}

/// Writes entries into a dirty page. They fit.
pub(crate) fn build_leaf<P: PageWrite>(tree: &mut TreeMut<'_, P>, id: PageId, entries: &[Stored<'_>]) -> Result<()> {
    let txn = tree.pages.txn();
    let stamp = PageStamp::of_tree(id, tree.root, txn);
    let fitted = leaf::build(tree.pages.page_mut(id)?, stamp, entries.iter().copied())?;
    assert!(fitted, "the plan gave a leaf more than fits");
    Ok(())
}

//! Appending entries in ascending order.
//!
//! Floor: tree. A hint keeps the rightmost leaf, so an entry costs a comparison and a copy. Full
//! leaves and branches stay full, and pages are allocated in the order of their keys.
//!
//! Failure: a key that is not above the last one is `Error::Usage`, and nothing is changed. After
//! any other error the transaction must be aborted, as in `put.rs`.

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr};
use crate::limits::{max_inline_key_bytes, max_inline_value_bytes};
use crate::page::branch::Child;
use crate::page::key::{NoLongKeys, WholeKeys};
use crate::page::leaf::{entry_size, Leaf, LeafMut, LeafValue, OverflowPtr};
use crate::page::order::Order;
use crate::pager::{PageRead, PageWrite};

use crate::tree::edit::put::{count_after, plant};
use crate::tree::edit::split::{extend_right, leaf_capacity, Change};
use crate::tree::long_key::{check_inline_key, separator, store_key, store_separator, unstored};
use crate::tree::path::{branch_mut, dirty_ptr, leaf_at, make_dirty, Path, Side};
use crate::tree::value::{check_sizes, store};
use crate::tree::{Tree, TreeMut};

/// The rightmost leaf after the last append. A caller that changes the tree in another way must
/// start with a new hint. Root and entry count are compared, so that a stale hint is noticed.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct AppendHint {
    leaf: PagePtr,
    root: PageId,
    entries: u64,
}

impl AppendHint {
    fn holds<P: PageWrite>(&self, tree: Tree<'_, P>) -> bool {
        !self.leaf.id.is_none()
            && self.root == tree.root.ptr.id
            && self.entries == tree.root.entries
            && tree.pages.is_dirty(self.leaf.id)
    }
}

impl<P: PageWrite> TreeMut<'_, P> {
    /// Appends an entry whose key is greater than all in the tree.
    pub(crate) fn append(self, key: &[u8], value: &[u8], hint: &mut AppendHint) -> Result<()> {
        let TreeMut { pages, root } = self;
        check_sizes(key, value.len())?;
        check_inline_key(pages, root, key)?;
        let leaf = match hint.holds(Tree::new(pages, root)) {
            true => hint.leaf,
            false => last_leaf(Tree::new(pages, root))?,
        };
        let entries = count_after(root, 1)?;
        let is_short = key.len() <= max_inline_key_bytes(pages.page_size());
        if is_short && pages.is_dirty(leaf.id) && value.len() <= max_inline_value_bytes(pages.page_size()) {
            let mut page = LeafMut::open(pages.page_mut(leaf.id)?, leaf.id)?;
            if page.as_leaf().has_long_keys() {
                check_order(root.order, pages, &leaf_at(pages, leaf)?, key)?;
            } else {
                check_order(root.order, &NoLongKeys, &page.as_leaf(), key)?;
                if page.insert(page.as_leaf().count(), key, LeafValue::Inline(value))? {
                    root.entries = entries;
                    *hint = AppendHint { leaf, root: root.ptr.id, entries };
                    return Ok(());
                }
            }
        } else if !leaf.id.is_none() {
            check_order(root.order, pages, &leaf_at(pages, leaf)?, key)?;
        }
        *hint = AppendHint::default();
        let leaf = append_to(TreeMut::new(pages, root), leaf, key, value)?;
        root.entries = entries;
        *hint = AppendHint { leaf, root: root.ptr.id, entries: root.entries };
        Ok(())
    }

    /// Appends an entry if its key is greater than all in the tree and the last leaf has room for
    /// it. Otherwise returns false and changes nothing. The tree is not empty, and the entry is
    /// within the limits.
    pub(crate) fn append_in_place(self, key: &[u8], value: &[u8]) -> Result<bool> {
        let TreeMut { pages, root } = self;
        check_inline_key(pages, root, key)?;
        let mut path = Path::new();
        let leaf = path.descend_to(Tree::new(pages, root), Side::Last)?;
        let behind = leaf.count() == 0 || root.order.compare_stored(pages, leaf.last_key()?, key)?.is_lt();
        let stored = match value.len() <= max_inline_value_bytes(pages.page_size()) {
            true => LeafValue::Inline(value),
            false => LeafValue::Overflow(OverflowPtr { ptr: PagePtr::default(), len: 0 }),
        };
        let size = entry_size(unstored(pages.page_size(), key), stored);
        if !behind || leaf.used_bytes() + size > leaf_capacity(pages.page_size()) {
            return Ok(false);
        }
        let entries = count_after(root, 1)?;
        append_to(TreeMut::new(pages, root), path.leaf().ptr, key, value)?;
        root.entries = entries;
        Ok(true)
    }
}

/// Returns the rightmost leaf, or `NOWHERE` if the tree is empty.
fn last_leaf<P: PageRead>(tree: Tree<'_, P>) -> Result<PagePtr> {
    if tree.is_empty() {
        return Ok(PagePtr::default());
    }
    let mut path = Path::new();
    path.descend_to(tree, Side::Last)?;
    Ok(path.leaf().ptr)
}

/// Refuses a key that is not above all others.
fn check_order<K: WholeKeys>(order: Order, keys: &K, leaf: &Leaf<'_>, key: &[u8]) -> Result<()>
where
    Error: From<K::Error>,
{
    if leaf.count() > 0 && order.compare_stored(keys, leaf.last_key()?, key)?.is_ge() {
        return Err(Error::usage(
            "append needs keys in ascending order, as the table orders them, and this key is not above the last one; insert it instead",
        ));
    }
    Ok(())
}

/// Puts an entry after the last one of the tree. Returns the leaf that holds it.
fn append_to<P: PageWrite>(mut tree: TreeMut<'_, P>, leaf: PagePtr, key: &[u8], value: &[u8]) -> Result<PagePtr> {
    let value = store(tree.pages, tree.root.tree, value)?;
    let stored = store_key(tree.pages, tree.root.tree, key)?;
    let mut leaf = leaf;
    if !tree.pages.is_dirty(leaf.id) {
        leaf = dirty_last_leaf(&mut tree)?.leaf().ptr;
    }
    let mut page = LeafMut::open(tree.pages.page_mut(leaf.id)?, leaf.id)?;
    let count = page.as_leaf().count();
    if page.insert(count, stored, value)? {
        return Ok(leaf);
    }
    let mut path = dirty_last_leaf(&mut tree)?;
    let sep = separator(tree.root.order, tree.pages, leaf_at(tree.pages, path.leaf().ptr)?.last_key()?, stored)?;
    let sep = store_separator(tree.pages, tree.root.tree, sep)?;
    finish_leaf(tree.pages, &mut path)?;
    let right = dirty_ptr(tree.pages.alloc_to_fill()?);
    let change = Change { key, stored, value, replace: false };
    extend_right(&mut tree, &path, Child { sep, ptr: right }, &change)?;
    Ok(right)
}

/// Finishes the filling of the path's last leaf, which is full. If the pages wrote it through, its
/// parent gets the pointer with the checksum.
fn finish_leaf<P: PageWrite>(pages: &mut P, path: &mut Path) -> Result<()> {
    let bottom = path.len() - 1;
    let Some(above) = bottom.checked_sub(1) else { return Ok(()) };
    if let Some(finished) = pages.finish_filling(path.leaf().ptr.id)? {
        let parent = path.frame(above);
        branch_mut(pages, parent.ptr.id)?.set_child(parent.index(), finished)?;
        path.set_ptr(bottom, finished);
    }
    Ok(())
}

/// Returns the path to the rightmost leaf, and makes all its pages dirty. An empty tree gets its
/// first leaf.
fn dirty_last_leaf<P: PageWrite>(tree: &mut TreeMut<'_, P>) -> Result<Path> {
    if tree.is_empty() {
        plant(tree.reborrow())?;
    }
    let mut path = Path::new();
    path.descend_to(tree.as_tree(), Side::Last)?;
    make_dirty(tree, &mut path)?;
    Ok(path)
}

//! Inserting a pair into a multimap.
//!
//! Floor: tree. A pair goes into the value set of its key, in place if the leaf is dirty and has
//! room. A set that would get longer than an inline value becomes a value tree. Before anything is
//! changed, the value is searched: a pair that the table has changes nothing.
//!
//! Failure: `TooLarge` and `Usage` leave everything as it was. Any other error can leave the tree
//! of this transaction half changed, so the transaction must be aborted.

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr};
use crate::limits::max_inline_value_bytes;
use crate::page::key::WholeKeys as _;
use crate::page::leaf::{LeafMut, LeafValue, ValueTree};
use crate::page::value_set::{set_of_one, SetChange, ValueSet};
use crate::pager::PageWrite;

use crate::tree::edit::put::PutHint;
use crate::tree::path::{dirty_ptr, fetch_front, leaf_at, make_dirty, Path};
use crate::tree::value::check_sizes;
use crate::tree::values::lookup::tree_has;
use crate::tree::values::packed::{insert_packed, plant_packed};
use crate::tree::values::stored::{check_value, empty_root, root_of, single_value, stored_tree};
use crate::tree::{Tree, TreeMut, TreeRoot};

/// The place of the last pair that was inserted, so that pairs in order are inserted without a
/// search and leave full pages. Root and counts are compared, so that a stale hint is noticed.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct ValueHint {
    /// The entry of the last key.
    pub(super) put: PutHint,
    /// The last value in a value tree.
    pub(super) value: PutHint,
    root: PageId,
    entries: u64,
    pairs: u64,
}

impl ValueHint {
    /// The place of the last pair, in a dirty leaf, if no other change was made since.
    #[inline]
    fn place<P: PageWrite>(&self, tree: Tree<'_, P>) -> Option<(PageId, usize)> {
        let leaf = self.put.leaf();
        let holds = self.root == tree.root.ptr.id
            && self.entries == tree.root.entries
            && self.pairs == tree.root.pairs
            && tree.pages.is_dirty(leaf);
        if holds {
            self.put.index_in(leaf).map(|at| (leaf, at))
        } else {
            None
        }
    }

    #[inline]
    pub(super) fn note(&mut self, root: &TreeRoot) {
        (self.root, self.entries, self.pairs) = (root.ptr.id, root.entries, root.pairs);
    }
}

/// The number of pairs after `more` were inserted.
pub(crate) fn pairs_after(root: &TreeRoot, more: u64) -> Result<u64> {
    let pairs = root.pairs.checked_add(more);
    pairs.ok_or_else(|| Error::corrupt(root.ptr.id, "number of values of the table is larger than any can be"))
}

impl<P: PageWrite> TreeMut<'_, P> {
    /// Inserts a pair. Returns whether it is new.
    pub(crate) fn insert_value(mut self, key: &[u8], value: &[u8], hint: &mut ValueHint) -> Result<bool> {
        let page_size = self.pages.page_size();
        check_sizes(key, 0)?;
        check_value(page_size, self.root.shape, value)?;
        let pairs = pairs_after(self.root, 1)?;
        let done = match hint.place(self.as_tree()) {
            Some(place) => self.insert_at(place, key, value, &mut hint.value)?,
            None => None,
        };
        let is_new = match done {
            Some(is_new) => is_new,
            None => self.insert_by_search(key, value, hint)?,
        };
        if is_new {
            self.root.pairs = pairs;
        }
        hint.note(self.root);
        Ok(is_new)
    }

    /// Inserts a value into the set or the value tree at an index of a dirty leaf. `None`, and
    /// nothing is changed, if the entry there has another key, or there is no room.
    #[inline]
    fn insert_at(
        &mut self,
        (leaf, at): (PageId, usize),
        key: &[u8],
        value: &[u8],
        hint: &mut PutHint,
    ) -> Result<Option<bool>> {
        let (shape, limit) = (self.root.shape, max_inline_value_bytes(self.pages.page_size()));
        let found = leaf_at(self.pages, dirty_ptr(leaf))?;
        if at >= found.count() {
            return Ok(None);
        }
        let (stored, of_entry) = found.entry(at)?;
        if self.pages.compare(stored, key)?.is_ne() {
            return Ok(None);
        }
        let set = match of_entry {
            LeafValue::Set(set) => set,
            LeafValue::Tree(to) => return self.insert_into_stored((leaf, at), to, value, hint).map(Some),
            LeafValue::Inline(_) | LeafValue::Overflow(_) => return Ok(None),
        };
        let (index, found) = ValueSet::new(set, shape).search(value);
        if found {
            return Ok(Some(false));
        }
        let mut page = LeafMut::open(self.pages.page_mut(leaf)?, leaf)?;
        let changed = page.change_set(at, shape, SetChange::Insert(index, value), limit)?;
        Ok(changed.then_some(true))
    }

    fn insert_by_search(&mut self, key: &[u8], value: &[u8], hint: &mut ValueHint) -> Result<bool> {
        if self.is_empty() {
            return self.insert_first(key, value, hint);
        }
        let ptr = self.as_tree().leaf_of(key)?;
        fetch_front(self.pages, ptr);
        let leaf = leaf_at(self.pages, ptr)?;
        let (at, found) = leaf.lower_bound(self.pages, key)?;
        if !found {
            return self.insert_first(key, value, hint);
        }
        match leaf.value(at)? {
            LeafValue::Set(bytes) => {
                let (index, found) = ValueSet::new(bytes, self.root.shape).search(value);
                if found {
                    return Ok(false);
                }
                if self.pages.is_dirty(ptr.id) {
                    if let Some(is_new) = self.insert_at((ptr.id, at), key, value, &mut hint.value)? {
                        hint.put.move_to(ptr.id, at);
                        return Ok(is_new);
                    }
                }
                let changed = self.changed_set(ptr, at, SetChange::Insert(index, value))?;
                self.store_set(key, changed, hint)
            }
            LeafValue::Tree(to) if self.pages.is_dirty(ptr.id) => {
                let is_new = self.insert_into_stored((ptr.id, at), to, value, &mut hint.value)?;
                hint.put.move_to(ptr.id, at);
                Ok(is_new)
            }
            LeafValue::Tree(to) => self.insert_into_tree(key, value, to, hint),
            LeafValue::Inline(_) | LeafValue::Overflow(_) => Err(single_value(ptr.id)),
        }
    }

    /// A copy of the value set at an index of a leaf, changed.
    fn changed_set(&self, leaf: PagePtr, at: usize, change: SetChange<'_>) -> Result<Vec<u8>> {
        let changed = match leaf_at(self.pages, leaf)?.value(at)? {
            LeafValue::Set(bytes) => change.apply(&ValueSet::new(bytes, self.root.shape)),
            _ => None,
        };
        changed.ok_or_else(|| Error::corrupt(leaf.id, "a value set is malformed"))
    }

    /// Inserts the first value of a key.
    fn insert_first(&mut self, key: &[u8], value: &[u8], hint: &mut ValueHint) -> Result<bool> {
        let set = set_of_one(self.root.shape, value);
        self.store_set(key, set, hint)
    }

    /// Stores a changed value set: in the entry, or as a value tree if it is too long.
    fn store_set(&mut self, key: &[u8], set: Vec<u8>, hint: &mut ValueHint) -> Result<bool> {
        let table = *self.root;
        let is_short = set.len() <= max_inline_value_bytes(self.pages.page_size());
        let value = match is_short {
            true => LeafValue::Set(&set),
            false => stored_tree(&grow_tree(self.pages, &table, ValueSet::new(&set, table.shape))?),
        };
        self.reborrow().put_stored(key, |_, _| Ok(value), &mut hint.put, None)?;
        Ok(true)
    }

    /// Inserts a value into the value tree at an index of a dirty leaf. Returns whether it is new.
    fn insert_into_stored(
        &mut self,
        (leaf, at): (PageId, usize),
        to: ValueTree,
        value: &[u8],
        hint: &mut PutHint,
    ) -> Result<bool> {
        let mut root = root_of(self.root, &to);
        let is_new = insert_into(&mut TreeMut::new(self.pages, &mut root), value, hint)?;
        // A value that was there may have been copied with its page.
        LeafMut::open(self.pages.page_mut(leaf)?, leaf)?.replace(at, stored_tree(&root))?;
        Ok(is_new)
    }

    fn insert_into_tree(&mut self, key: &[u8], value: &[u8], to: ValueTree, hint: &mut ValueHint) -> Result<bool> {
        if tree_has(self.pages, &root_of(self.root, &to), value)? {
            return Ok(false);
        }
        self.change_tree(key, |tree| insert_into(tree, value, &mut hint.value).map(drop))?;
        Ok(true)
    }

    /// Changes the value tree of a key, which has one, and stores its root (VALUES-2). The tree has
    /// values afterwards.
    pub(super) fn change_tree(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut TreeMut<'_, P>) -> Result<()>,
    ) -> Result<TreeRoot> {
        let mut path = Path::new();
        let found = path.descend(self.as_tree(), key)?;
        make_dirty(self, &mut path)?;
        let (leaf, at) = (path.leaf().ptr.id, path.leaf().index());
        let stored = if found { Some(leaf_at(self.pages, path.leaf().ptr)?.value(at)?) } else { None };
        let Some(LeafValue::Tree(to)) = stored else {
            return Err(Error::corrupt(leaf, "two ways to a key lead to different entries"));
        };
        let mut root = root_of(self.root, &to);
        change(&mut TreeMut::new(self.pages, &mut root))?;
        if root.entries > 0 {
            LeafMut::open(self.pages.page_mut(leaf)?, leaf)?.replace(at, stored_tree(&root))?;
        }
        Ok(root)
    }
}

/// Inserts a value into a value tree. Returns whether it is new.
fn insert_into<P: PageWrite>(tree: &mut TreeMut<'_, P>, value: &[u8], hint: &mut PutHint) -> Result<bool> {
    match tree.root.shape.width() {
        Some(width) => insert_packed(tree, width, value, hint),
        None => Ok(!tree.reborrow().put_stored(value, |_, _| Ok(LeafValue::Inline(b"")), hint, None)?),
    }
}

/// Makes a value tree of a value set.
fn grow_tree<P: PageWrite>(pages: &mut P, table: &TreeRoot, set: ValueSet<'_>) -> Result<TreeRoot> {
    match table.shape.width() {
        Some(width) => {
            let mut root = empty_root(table);
            plant_packed(&mut TreeMut::new(pages, &mut root), width, set.bytes())?;
            Ok(root)
        }
        None => tree_of(pages, table, (0..set.count()).map(|index| set.get(index).unwrap_or(&[]))),
    }
}

/// Makes a value tree of values in ascending order.
pub(super) fn tree_of<'v, P: PageWrite>(
    pages: &mut P,
    table: &TreeRoot,
    values: impl Iterator<Item = &'v [u8]>,
) -> Result<TreeRoot> {
    let (mut root, mut hint) = (empty_root(table), PutHint::default());
    let mut tree = TreeMut::new(pages, &mut root);
    for value in values {
        match tree.root.shape.width().filter(|_| tree.is_empty()) {
            Some(width) => plant_packed(&mut tree, width, value)?,
            None => drop(insert_into(&mut tree, value, &mut hint)?),
        }
    }
    Ok(root)
}

//! Putting one entry.
//!
//! Floor: tree. The descent is read-only. If the leaf is dirty, so are its ancestors (TREE-2), and
//! the entry is put in place. Otherwise the path is copied first. `split.rs` splits a leaf without
//! room.
//!
//! Failure: `Error::TooLarge` leaves everything as it was. Any other error can leave the tree of
//! this transaction half changed, so the transaction must be aborted. Committed states do not
//! change (R1).

use crate::error::{Error, Result};
use crate::ids::{PageId, TreeId};
use crate::page::header::PageStamp;
use crate::page::key::PageKey;
use crate::page::leaf::{Leaf, LeafMut, LeafValue};
use crate::pager::PageWrite;

use crate::tree::edit::plan::Pattern;
use crate::tree::edit::split::{split_leaf, Change};
use crate::tree::long_key::{check_inline_key, store_key};
use crate::tree::path::{dirty_ptr, fetch_front, leaf_at, make_dirty, Frame, Path};
use crate::tree::value::{check_sizes, resolve, store, OverflowExtent};
use crate::tree::{Tree, TreeMut, TreeRoot};

/// The place of the last put of this transaction, so that sequential puts anywhere in a tree leave
/// full pages. A stale hint changes where a page is split, never which entries are stored.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct PutHint {
    leaf: PageId,
    at: usize,
    /// The index of the child in each branch on the way to the leaf.
    steps: [u16; HINT_STEPS],
    /// The height of the tree for which `steps` holds, or 0.
    height: u8,
}

/// Branches above a leaf that a hint remembers. In higher trees it does not know the way.
pub(super) const HINT_STEPS: usize = 5;

impl PutHint {
    /// The place of a put, whose way is not known.
    pub(crate) fn of(leaf: PageId, at: usize) -> PutHint {
        PutHint { leaf, at, ..PutHint::default() }
    }

    /// The place at the end of a path.
    fn at_end_of(path: &Path) -> PutHint {
        let mut hint = PutHint::of(path.leaf().ptr.id, path.leaf().index());
        let branches = path.len() - 1;
        if branches <= HINT_STEPS {
            (0..branches).for_each(|depth| hint.steps[depth] = path.frame(depth).at as u16);
            hint.height = path.len() as u8;
        }
        hint
    }

    /// Moves to a place in a leaf. The way to it stays known if it is the same leaf.
    #[inline]
    pub(crate) fn move_to(&mut self, leaf: PageId, at: usize) {
        match self.leaf == leaf {
            true => self.at = at,
            false => *self = PutHint::of(leaf, at),
        }
    }

    /// The index of the child to take in each branch of a tree of this height, to the leaf of the
    /// last put.
    pub(super) fn steps(&self, height: usize) -> Option<&[u16]> {
        (usize::from(self.height) == height).then(|| &self.steps[..height - 1])
    }

    /// The index of the last put in a leaf, if it was there.
    pub(crate) fn index_in(&self, leaf: PageId) -> Option<usize> {
        (self.leaf == leaf && !leaf.is_none()).then_some(self.at)
    }

    pub(crate) fn leaf(&self) -> PageId {
        self.leaf
    }

    /// How the growth of an entry continues the puts before it: an entry at the end of its leaf
    /// that was put last is put again.
    fn pattern_of_growth(&self, leaf: &Leaf<'_>, at: usize) -> Pattern {
        match self.index_in(leaf.id()) {
            Some(last) if last == at && at + 1 == leaf.count() => Pattern::Ascending,
            _ => Pattern::Random,
        }
    }

    pub(crate) fn pattern(&self, leaf: PageId, at: usize) -> Pattern {
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

/// Bytes to prefetch of the free space of a leaf, where a new entry will lie.
const FETCHED_BYTES: usize = 256;

impl<P: PageWrite> TreeMut<'_, P> {
    /// Puts an entry. Returns whether the key existed, and copies its old value to `old` if given.
    pub(crate) fn put(self, key: &[u8], value: &[u8], hint: &mut PutHint, old: Option<&mut Vec<u8>>) -> Result<bool> {
        check_sizes(key, value.len())?;
        self.put_stored(key, |pages, tree| store(pages, tree, value), hint, old)
    }

    /// Puts an entry whose value is stored already. The key is within the limits.
    pub(crate) fn put_value(self, key: &[u8], value: LeafValue<'_>) -> Result<bool> {
        self.put_stored(key, |_, _| Ok(value), &mut PutHint::default(), None)
    }

    /// Like [`TreeMut::put_value`], for a value that `store` returns when it is needed. The key is
    /// within the limits.
    pub(crate) fn put_stored<'v>(
        mut self,
        key: &[u8],
        store: impl FnOnce(&mut P, TreeId) -> Result<LeafValue<'v>>,
        hint: &mut PutHint,
        old: Option<&mut Vec<u8>>,
    ) -> Result<bool> {
        check_inline_key(self.pages, self.root, key)?;
        if self.is_empty() {
            plant(self.reborrow())?;
        }
        let TreeMut { pages, root } = self;
        let ptr = Tree::new(pages, root).leaf_of(key)?;
        fetch_front(pages, ptr);
        let leaf = leaf_at(pages, ptr)?;
        pages.prefetch(ptr.id, leaf.upper().saturating_sub(FETCHED_BYTES), FETCHED_BYTES);
        let (at, replace) = leaf.lower_bound_in(root.order, pages, key)?;
        let entries = count_after(root, u64::from(!replace))?;
        let released = if replace { take_old(pages, &leaf, at, old)? } else { None };
        let grows = if replace { hint.pattern_of_growth(&leaf, at) } else { Pattern::Random };
        let value = store(pages, root.tree)?;
        // An entry that exists keeps its key.
        let stored = if replace { PageKey::from(key) } else { store_key(pages, root.tree, key)? };
        let change = Change { key, stored, value, replace };
        if pages.is_dirty(ptr.id) && store_in_place(pages, ptr.id, at, &change)? {
            hint.move_to(ptr.id, at);
        } else {
            let pattern = match (replace, value) {
                (false, _) => hint.pattern(ptr.id, at),
                (true, LeafValue::Set(_)) => grows,
                (true, _) => Pattern::Random,
            };
            *hint = put_along_path(TreeMut::new(pages, root), ptr.id, &change, pattern)?;
        }
        if let Some(extent) = released {
            extent.free(pages);
        }
        root.entries = entries;
        Ok(replace)
    }
}

/// Returns the entry count of the tree plus `more`.
pub(crate) fn count_after(root: &TreeRoot, more: u64) -> Result<u64> {
    let count = root.entries.checked_add(more);
    count.ok_or_else(|| Error::corrupt(root.ptr.id, "entry count of the tree is larger than any can be"))
}

/// Makes an empty leaf the root of an empty tree.
pub(crate) fn plant<P: PageWrite>(tree: TreeMut<'_, P>) -> Result<()> {
    let TreeMut { pages, root } = tree;
    let id = pages.alloc(1)?;
    let txn = pages.txn();
    LeafMut::init(pages.page_mut(id)?, PageStamp::of_tree(id, root, txn));
    root.ptr = dirty_ptr(id);
    root.height = 1;
    Ok(())
}

/// Copies the value at an index of a leaf to `old`, if the caller wants it. Returns the value's
/// overflow extent, if it has one, which the caller frees.
pub(crate) fn take_old<P: PageWrite>(
    pages: &P,
    leaf: &Leaf<'_>,
    at: usize,
    old: Option<&mut Vec<u8>>,
) -> Result<Option<OverflowExtent>> {
    let value = leaf.value(at)?;
    if let Some(old) = old {
        old.clear();
        old.extend_from_slice(resolve(pages, value)?);
    }
    OverflowExtent::of(pages, value)
}

/// Stores the change at an index of a dirty leaf. Returns false and changes nothing if there is no
/// room.
fn store_in_place<P: PageWrite>(pages: &mut P, leaf: PageId, at: usize, change: &Change<'_>) -> Result<bool> {
    let mut leaf = LeafMut::open(pages.page_mut(leaf)?, leaf)?;
    let done = match change.replace {
        true => leaf.replace(at, change.value)?,
        false => leaf.insert(at, change.stored, change.value)?,
    };
    Ok(done)
}

/// Puts an entry into a leaf that is not dirty or has no room, so that its ancestors change too.
/// Returns the leaf and the index of the entry.
#[inline(never)]
fn put_along_path<P: PageWrite>(
    mut tree: TreeMut<'_, P>,
    leaf: PageId,
    change: &Change<'_>,
    pattern: Pattern,
) -> Result<PutHint> {
    let mut path = Path::new();
    let found = path.descend(tree.as_tree(), change.key)?;
    if path.leaf().ptr.id != leaf || found != change.replace {
        // Two searches of sound pages agree. The index that was found holds only for the leaf of
        // the first search.
        return Err(Error::corrupt(leaf, "two ways to a key lead to different leaves"));
    }
    make_dirty(&mut tree, &mut path)?;
    let Frame { ptr, at } = path.leaf();
    if store_in_place(tree.pages, ptr.id, at as usize, change)? {
        return Ok(PutHint::at_end_of(&path));
    }
    let (leaf, at) = split_leaf(&mut tree, &path, change, pattern)?;
    Ok(PutHint::of(leaf, at))
}

//! Building full leaves from ascending entries, and putting them after the last leaf.
//!
//! Floor: tree. Entries are staged until they fill a leaf. The leaf is then built whole and never
//! read again. A batch of leaves is inserted into the parents at the right edge of the tree at
//! once. Between two batches the tree is valid, without the staged entries and the leaves that wait
//! for their batch. Leaves are full, their entries ascend in address, and they lie in the file in
//! the order of their keys as far as the free space allows.
//!
//! Failure: an error leaves a tree that must be aborted with its transaction.

use crate::error::{Error, Result};
use crate::limits::max_inline_key_bytes;
use crate::page::branch::Child;
use crate::page::header::PageStamp;
use crate::page::key::{LongKey, PageKey, PageKeyBuf};
use crate::page::leaf::{self, LeafValue, OverflowPtr, ValueTree};
use crate::pager::{PageRead, PageWrite};

use crate::tree::edit::plan::Pattern;
use crate::tree::edit::propagate::propagate_split;
use crate::tree::edit::put::count_after;
use crate::tree::edit::split::leaf_capacity;
use crate::tree::long_key::{check_inline_key, separator, store_key, store_separator};
use crate::tree::path::{make_branches_dirty, Path, Side};
use crate::tree::{Tree, TreeMut, TreeRoot};

/// Number of leaves that are inserted into their parents at once.
const PROPAGATE_LEAVES: usize = 64;

/// A value that waits for its leaf.
#[derive(Clone, Copy)]
enum StagedValue {
    /// A value of this many bytes, which follow the key.
    Inline(usize),
    Overflow(OverflowPtr),
    /// A value set of this many bytes, which follow the key.
    Set(usize),
    Tree(ValueTree),
}

/// An entry that waits for its leaf.
#[derive(Clone, Copy)]
struct Staged {
    /// The key bytes that the page will hold.
    key_at: usize,
    key_bytes: usize,
    long: Option<LongKey>,
    value: StagedValue,
}

impl Staged {
    /// Whether the page will hold the whole key and a value of the plain kind.
    #[inline]
    fn is_plain(&self) -> bool {
        self.long.is_none() && matches!(self.value, StagedValue::Inline(_))
    }
}

/// Entries on their way into leaves, and the leaves that were built of them.
#[derive(Default)]
pub(crate) struct Stage {
    staged: Vec<Staged>,
    bytes: Vec<u8>,
    /// The bytes that the staged entries take in a leaf.
    used: usize,
    /// The last key before the staged ones; `None` if there is none.
    last_key: Option<PageKeyBuf>,
    /// The leaves built. If no key comes before the first one, its separator is empty.
    pub(crate) built: Vec<Child>,
    entries: u64,
}

impl Stage {
    /// Whether an entry of this size has to wait for the next leaf.
    #[inline]
    pub(crate) fn is_full_for(&self, size: usize, page_size: usize) -> bool {
        self.used + size > leaf_capacity(page_size)
    }

    /// The bytes that the staged entries take in a leaf.
    pub(crate) fn used_bytes(&self) -> usize {
        self.used
    }

    /// Adds an entry for which there is room, whose key is greater than all before.
    #[inline(always)]
    pub(crate) fn add(&mut self, key: PageKey<'_>, value: LeafValue<'_>) {
        self.used += leaf::entry_size(key, value);
        let key_at = self.bytes.len();
        self.bytes.extend_from_slice(key.bytes);
        let value = match value {
            LeafValue::Inline(bytes) => {
                self.bytes.extend_from_slice(bytes);
                StagedValue::Inline(bytes.len())
            }
            LeafValue::Overflow(to) => StagedValue::Overflow(to),
            LeafValue::Set(bytes) => {
                self.bytes.extend_from_slice(bytes);
                StagedValue::Set(bytes.len())
            }
            LeafValue::Tree(to) => StagedValue::Tree(to),
        };
        self.staged.push(Staged { key_at, key_bytes: key.bytes.len(), long: key.long, value });
    }

    fn last_key(&self) -> Option<PageKey<'_>> {
        match self.staged.last() {
            Some(last) => Some(key_of(&self.bytes, last)),
            None => self.last_key.as_ref().map(PageKeyBuf::as_key),
        }
    }

    /// Builds a leaf of the staged entries.
    pub(crate) fn build_leaf<P: PageWrite>(&mut self, pages: &mut P, tree: &TreeRoot) -> Result<()> {
        self.build_first(pages, tree, self.staged.len())
    }

    /// Builds two leaves of the staged entries, if there are at least two.
    pub(crate) fn build_two_leaves<P: PageWrite>(&mut self, pages: &mut P, tree: &TreeRoot) -> Result<()> {
        self.build_first(pages, tree, self.staged.len() / 2)?;
        self.build_leaf(pages, tree)
    }

    /// Builds a leaf of the first `count` entries that are staged.
    fn build_first<P: PageWrite>(&mut self, pages: &mut P, tree: &TreeRoot, count: usize) -> Result<()> {
        let now = &self.staged[..count];
        let (Some(first), Some(last)) = (now.first(), now.last()) else { return Ok(()) };
        let (txn, bytes) = (pages.txn(), &self.bytes);
        let ptr = pages.write_new(|page, id| {
            let stamp = PageStamp::of_tree(id, tree, txn);
            // Most loads have only such entries. `build` is compiled for them without long keys.
            let fits = match now.iter().all(Staged::is_plain) {
                true => leaf::build(page, stamp, now.iter().map(|staged| plain_entry_of(bytes, staged))),
                false => leaf::build(page, stamp, now.iter().map(|staged| entry_of(bytes, staged))),
            };
            match fits? {
                true => Ok(()),
                // Only a damaged page can have more entries than fit.
                false => Err(Error::corrupt(id, "an entry that was to be moved here is larger than the limit")),
            }
        })?;
        let sep = match &self.last_key {
            Some(before) => separator(tree.order, pages, before.as_key(), key_of(&self.bytes, first))?,
            None => Vec::new(),
        };
        let sep = store_separator(pages, tree.tree, sep)?;
        self.last_key.get_or_insert_default().set(key_of(&self.bytes, last));
        self.built.push(Child { sep, ptr });
        self.entries += count as u64;
        self.staged.drain(..count);
        if self.staged.is_empty() {
            self.bytes.clear();
            self.used = 0;
        }
        Ok(())
    }
}

/// Entries that go after the last one of a tree.
#[derive(Default)]
pub(crate) struct Bulk {
    stage: Stage,
}

impl std::fmt::Debug for Bulk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bulk").finish_non_exhaustive()
    }
}

impl Bulk {
    /// Begins after the last entry of a tree.
    pub(crate) fn begin<P: PageRead>(tree: Tree<'_, P>) -> Result<Bulk> {
        let last = if tree.is_empty() { None } else { Some(Path::new().descend_to(tree, Side::Last)?) };
        let last_key = match last {
            Some(leaf) => Some(leaf.last_key()?.to_buf()),
            None => None,
        };
        Ok(Bulk { stage: Stage { last_key, ..Stage::default() } })
    }

    /// Whether a key is greater than all so far, of the tree and of the pushed entries.
    #[inline]
    pub(crate) fn is_after_all<P: PageRead>(&self, tree: Tree<'_, P>, key: &[u8]) -> Result<bool> {
        match self.stage.staged.last() {
            Some(last) if last.long.is_none() && tree.root.order.is_bytewise() => {
                Ok(key_of(&self.stage.bytes, last).bytes < key)
            }
            _ => self.is_after_last(tree, key),
        }
    }

    #[inline(never)]
    fn is_after_last<P: PageRead>(&self, tree: Tree<'_, P>, key: &[u8]) -> Result<bool> {
        match self.stage.last_key() {
            Some(last) => Ok(tree.root.order.compare_stored(tree.pages, last, key)?.is_lt()),
            None => Ok(true),
        }
    }

    /// Adds an entry whose key is greater than all so far, within the limits.
    #[inline]
    pub(crate) fn push<P: PageWrite>(&mut self, tree: TreeMut<'_, P>, key: &[u8], value: LeafValue<'_>) -> Result<()> {
        match value {
            // Compiled without long keys and other kinds of values.
            LeafValue::Inline(bytes) if key.len() <= max_inline_key_bytes(tree.pages.page_size()) => {
                self.push_stored(tree, PageKey::from(key), LeafValue::Inline(bytes))
            }
            _ => self.push_any(tree, key, value),
        }
    }

    #[inline(never)]
    fn push_any<P: PageWrite>(&mut self, tree: TreeMut<'_, P>, key: &[u8], value: LeafValue<'_>) -> Result<()> {
        check_inline_key(tree.pages, tree.root, key)?;
        let key = store_key(tree.pages, tree.root.tree, key)?;
        self.push_stored(tree, key, value)
    }

    #[inline(always)]
    fn push_stored<P: PageWrite>(
        &mut self,
        tree: TreeMut<'_, P>,
        key: PageKey<'_>,
        value: LeafValue<'_>,
    ) -> Result<()> {
        if self.stage.is_full_for(leaf::entry_size(key, value), tree.pages.page_size()) {
            self.build_leaf(tree)?;
        }
        self.stage.add(key, value);
        Ok(())
    }

    /// Builds a leaf of the staged entries, and puts the built leaves into the tree if there are
    /// enough of them.
    #[inline(never)]
    fn build_leaf<P: PageWrite>(&mut self, tree: TreeMut<'_, P>) -> Result<()> {
        self.stage.build_leaf(tree.pages, tree.root)?;
        match self.stage.built.len() >= PROPAGATE_LEAVES {
            true => self.propagate_built(tree),
            false => Ok(()),
        }
    }

    /// Puts all pushed entries into the tree.
    pub(crate) fn finish<P: PageWrite>(&mut self, tree: TreeMut<'_, P>) -> Result<()> {
        self.stage.build_leaf(tree.pages, tree.root)?;
        self.propagate_built(tree)
    }

    /// Puts the built leaves after the last leaf of the tree.
    fn propagate_built<P: PageWrite>(&mut self, mut tree: TreeMut<'_, P>) -> Result<()> {
        let mut built = std::mem::take(&mut self.stage.built);
        if built.is_empty() {
            return Ok(());
        }
        let entries = count_after(tree.root, std::mem::take(&mut self.stage.entries))?;
        if tree.is_empty() {
            tree.root.ptr = built.remove(0).ptr;
            tree.root.height = 1;
        }
        if !built.is_empty() {
            let mut path = Path::new();
            path.descend_above_to(tree.as_tree(), Side::Last)?;
            make_branches_dirty(&mut tree, &mut path)?;
            propagate_split(&mut tree, &path, path.len() - 1, built, Pattern::Ascending)?;
        }
        tree.root.entries = entries;
        Ok(())
    }
}

#[inline(always)]
fn key_of<'b>(bytes: &'b [u8], staged: &Staged) -> PageKey<'b> {
    PageKey { bytes: &bytes[staged.key_at..staged.key_at + staged.key_bytes], long: staged.long }
}

/// An entry for which [`Staged::is_plain`] holds.
#[inline]
fn plain_entry_of<'b>(bytes: &'b [u8], staged: &Staged) -> (&'b [u8], LeafValue<'b>) {
    let StagedValue::Inline(value_bytes) = staged.value else { return (&[], LeafValue::Inline(&[])) };
    let entry = &bytes[staged.key_at..staged.key_at + staged.key_bytes + value_bytes];
    let (key, value) = entry.split_at(staged.key_bytes);
    (key, LeafValue::Inline(value))
}

fn entry_of<'b>(bytes: &'b [u8], staged: &Staged) -> (PageKey<'b>, LeafValue<'b>) {
    let key_end = staged.key_at + staged.key_bytes;
    let value = match staged.value {
        StagedValue::Inline(len) => LeafValue::Inline(&bytes[key_end..key_end + len]),
        StagedValue::Overflow(to) => LeafValue::Overflow(to),
        StagedValue::Set(len) => LeafValue::Set(&bytes[key_end..key_end + len]),
        StagedValue::Tree(to) => LeafValue::Tree(to),
    };
    (key_of(bytes, staged), value)
}

//! Point lookups.
//!
//! Floor: tree. No stack, no allocation: one page after the other, the level falling by one each
//! step (TREE-1).
//!
//! Failure: damage on the path is `Error::Corrupt`. Damage of other pages is not noticed.

use crate::error::Result;
use crate::ids::PagePtr;
use crate::page::heads::{self, Vectors};
use crate::page::leaf::Leaf;
use crate::page::lookup;
use crate::pager::PageRead;

use crate::tree::long_key::whole;
use crate::tree::lookup::flat_index::FlatIndex;
use crate::tree::path::{branch_at, height_of, last_index, leaf_at, Side};
use crate::tree::value::resolve;
use crate::tree::{Entry, Tree, TreeRoot};

impl<'p, P: PageRead> Tree<'p, P> {
    /// The value of a key, as it lies in the leaf or in its overflow extent.
    #[inline]
    pub(crate) fn get(self, key: &[u8]) -> Result<Option<&'p [u8]>> {
        match self.get_fast(None, key) {
            Some(answer) => Ok(answer.value()),
            None => self.get_checked(key),
        }
    }

    /// Like [`Tree::get`], without verifying or decoding more than the search needs. `None`: the
    /// caller asks [`Tree::get_checked`]. Begins at the pages of `flat_index`, which was made of
    /// the same tree.
    #[inline]
    pub(crate) fn get_fast(self, flat_index: Option<&FlatIndex>, key: &[u8]) -> Option<Answer<'p>> {
        heads::with_vectors(Get { tree: self, flat_index, key })
    }

    /// Looks a key up with every check, in trees and pages of any form.
    #[cold]
    #[inline(never)]
    pub(crate) fn get_checked(self, key: &[u8]) -> Result<Option<&'p [u8]>> {
        if self.is_empty() {
            return Ok(None);
        }
        value_checked(self, self.leaf_of_checked(key)?, key)
    }

    /// The leaf that holds `key` or would hold it. The tree is not empty.
    #[inline]
    pub(crate) fn leaf_of(self, key: &[u8]) -> Result<PagePtr> {
        match heads::with_vectors(LeafOf { tree: self, key }) {
            Some(leaf) => Ok(leaf),
            None => self.leaf_of_checked(key),
        }
    }

    /// Like [`Tree::leaf_of`], with every check.
    #[cold]
    #[inline(never)]
    fn leaf_of_checked(self, key: &[u8]) -> Result<PagePtr> {
        let mut ptr = self.root.ptr;
        for level in (1..height_of(self.root)?).rev() {
            ptr = child_checked(self, ptr, level, key)?;
        }
        Ok(ptr)
    }

    /// The entry with the smallest key.
    pub(crate) fn first(self) -> Result<Option<Entry<'p>>> {
        self.outermost(Side::First)
    }

    /// The entry with the largest key.
    pub(crate) fn last(self) -> Result<Option<Entry<'p>>> {
        self.outermost(Side::Last)
    }

    fn outermost(self, side: Side) -> Result<Option<Entry<'p>>> {
        match self.outermost_leaf(side)? {
            Some((leaf, at)) => entry_at(self.pages, &leaf, at).map(Some),
            None => Ok(None),
        }
    }

    /// The leaf at one end, and the index of its outermost entry.
    fn outermost_leaf(self, side: Side) -> Result<Option<(Leaf<'p>, usize)>> {
        if self.is_empty() {
            return Ok(None);
        }
        let Tree { pages, root } = self;
        let mut ptr = root.ptr;
        for level in (1..height_of(root)?).rev() {
            let branch = branch_at(pages, ptr, level)?;
            ptr = branch.child(if side == Side::First { 0 } else { last_index(branch.count(), ptr)? })?;
        }
        let leaf = leaf_at(pages, ptr)?;
        let at = if side == Side::First { 0 } else { last_index(leaf.count(), ptr)? };
        Ok(Some((leaf, at)))
    }
}

/// A value or "absent", in two registers.
#[derive(Clone, Copy)]
pub(crate) struct Answer<'a>(&'a [u8]);

/// Stands for "no such key".
static ABSENT: [u8; 1] = [0];

impl<'a> Answer<'a> {
    #[inline(always)]
    pub(crate) fn value(self) -> Option<&'a [u8]> {
        (!std::ptr::eq(self.0.as_ptr(), ABSENT.as_ptr())).then_some(self.0)
    }
}

/// [`lookup`] does nearly all the work.
struct Get<'a, 'k, P> {
    tree: Tree<'a, P>,
    flat_index: Option<&'k FlatIndex>,
    key: &'k [u8],
}

impl<'a, P: PageRead> heads::Search for Get<'a, '_, P> {
    type Answer = Option<Answer<'a>>;

    #[inline(always)]
    fn with<V: Vectors>(self, vectors: V) -> Option<Answer<'a>> {
        let Get { tree: Tree { pages, root }, flat_index, key } = self;
        let (mut ptr, mut level) = (root.ptr, usize::from(root.height));
        let search_key = SearchKey::of(root, key)?;
        if let Some(flat_index) = flat_index {
            if let Some(page) = flat_index.child(vectors, key, search_key.word) {
                (ptr, level) = (page, flat_index.level() + 1);
            }
        } else if level == 0 {
            return Some(Answer(&ABSENT));
        }
        ptr = leaf_of_fast(vectors, pages, ptr, level, search_key)?;
        let front = pages.front_fast(ptr)?;
        let found = lookup::find(vectors, front, key);
        if found == lookup::EntryOffset::ABSENT {
            return Some(Answer(&ABSENT));
        }
        match found.value(front, key) {
            Some(value) => Some(Answer(value)),
            None => value_in_any(self.tree, ptr, found, key),
        }
    }
}

struct LeafOf<'a, P> {
    tree: Tree<'a, P>,
    key: &'a [u8],
}

impl<P: PageRead> heads::Search for LeafOf<'_, P> {
    type Answer = Option<PagePtr>;

    #[inline(always)]
    fn with<V: Vectors>(self, vectors: V) -> Option<PagePtr> {
        let LeafOf { tree: Tree { pages, root }, key } = self;
        leaf_of_fast(vectors, pages, root.ptr, usize::from(root.height), SearchKey::of(root, key)?)
    }
}

/// A key to search for, and its first word, which most comparisons need.
#[derive(Clone, Copy)]
struct SearchKey<'k> {
    key: &'k [u8],
    word: u64,
}

impl<'k> SearchKey<'k> {
    /// `None` if the fast form does not cover the key, or the order of the tree.
    #[inline(always)]
    fn of(root: &TreeRoot, key: &'k [u8]) -> Option<SearchKey<'k>> {
        let word = lookup::first_word(key)?;
        root.order.is_bytewise().then_some(SearchKey { key, word })
    }
}

/// The leaf of a key below the page `ptr`, which stands on top of `levels` levels, its own among
/// them.
#[inline(always)]
fn leaf_of_fast<V: Vectors, P: PageRead>(
    vectors: V,
    pages: &P,
    mut ptr: PagePtr,
    levels: usize,
    search_key: SearchKey<'_>,
) -> Option<PagePtr> {
    for level in (1..levels).rev() {
        ptr = match lookup::child(vectors, pages.front_fast(ptr)?, level, search_key.key, search_key.word) {
            Some(child) => child,
            None => child_of_any(pages, ptr, level, search_key.key)?,
        };
    }
    Some(ptr)
}

/// Searches the branches that [`lookup::child`] does not support.
#[inline(never)]
fn child_of_any<P: PageRead>(pages: &P, ptr: PagePtr, level: usize, key: &[u8]) -> Option<PagePtr> {
    heads::with_vectors(ChildOfAny { page: pages.page_fast(ptr)?, level, key })
}

struct ChildOfAny<'a> {
    page: &'a [u8],
    level: usize,
    key: &'a [u8],
}

impl heads::Search for ChildOfAny<'_> {
    type Answer = Option<PagePtr>;

    #[inline(always)]
    fn with<V: Vectors>(self, vectors: V) -> Option<PagePtr> {
        lookup::child_of_any(vectors, self.page, self.level, self.key)
    }
}

/// Searches where [`lookup::find`] has no answer: leaves of many entries or of large pages, keys
/// that share their head with others, long keys, and values in overflow extents.
#[inline(never)]
fn value_in_any<'a, P: PageRead>(
    tree: Tree<'a, P>,
    ptr: PagePtr,
    found: lookup::EntryOffset,
    key: &[u8],
) -> Option<Answer<'a>> {
    let page = tree.pages.page_fast(ptr)?;
    let found = if found == lookup::EntryOffset::ASK_LEAF { lookup::find_in_any(page, key) } else { found };
    if found == lookup::EntryOffset::ABSENT {
        return Some(Answer(&ABSENT));
    }
    if let Some(value) = found.value(page, key) {
        return Some(Answer(value));
    }
    // `None` sends the caller to `get_checked`, which meets the same error and reports it.
    let found = value_checked(tree, ptr, key).ok()?;
    Some(found.map_or(Answer(&ABSENT), Answer))
}

/// The child of a branch whose range holds the key.
#[cold]
#[inline(never)]
pub(crate) fn child_checked<P: PageRead>(tree: Tree<'_, P>, ptr: PagePtr, level: usize, key: &[u8]) -> Result<PagePtr> {
    let branch = branch_at(tree.pages, ptr, level)?;
    Ok(branch.child(branch.find_in(tree.root.order, tree.pages, key)?)?)
}

/// The value of a key in the leaf that holds it or would hold it, searched with every check.
#[inline(never)]
pub(crate) fn value_checked<'a, P: PageRead>(tree: Tree<'a, P>, ptr: PagePtr, key: &[u8]) -> Result<Option<&'a [u8]>> {
    let Tree { pages, root } = tree;
    let leaf = leaf_at(pages, ptr)?;
    match leaf.find_in(root.order, pages, key)? {
        Some(at) => resolve(pages, leaf.value(at)?).map(Some),
        None => Ok(None),
    }
}

/// The entry at an index of a leaf, its value resolved.
#[inline(always)]
pub(crate) fn entry_at<'a, P: PageRead>(pages: &'a P, leaf: &Leaf<'a>, at: usize) -> Result<Entry<'a>> {
    match leaf.inline_entry(at) {
        Some(entry) => Ok(entry),
        None => resolve_entry(pages, leaf, at),
    }
}

/// The slow path of [`entry_at`]: a long key, a value in an overflow extent, or a damaged entry.
/// Not inlined, to keep scans short.
#[cold]
#[inline(never)]
fn resolve_entry<'a, P: PageRead>(pages: &'a P, leaf: &Leaf<'a>, at: usize) -> Result<Entry<'a>> {
    let (key, value) = leaf.entry(at)?;
    Ok((whole(pages, key)?, resolve(pages, value)?))
}

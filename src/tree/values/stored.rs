//! What an entry of a multimap stores: a value set, or the root of a value tree.
//!
//! Floor: tree. Leaves of value trees are of two kinds, which [`ValueLeaf`] joins.
//!
//! Failure: an entry or a page of another kind is `Error::Corrupt`.

use crate::error::{Error, Result};
use crate::hooks::{self, Mutant};
use crate::ids::{PageId, PagePtr};
use crate::limits::max_inline_key_bytes;
use crate::page::header;
use crate::page::key::NoLongKeys;
use crate::page::leaf::{Leaf, LeafValue, ValueTree};
use crate::page::packed::Packed;
use crate::page::value_set::{Shape, ValueSet};
use crate::pager::{PageRead, PageWrite};

use crate::tree::depth_first::{next_child, walk_depth_first, DepthFirst, Parent};
use crate::tree::path::{branch_at, leaf_at};
use crate::tree::value::OverflowExtent;
use crate::tree::TreeRoot;

/// The root of a value tree of a table.
pub(crate) fn root_of(table: &TreeRoot, to: &ValueTree) -> TreeRoot {
    TreeRoot { ptr: to.ptr, height: to.height, entries: to.count, ..empty_root(table) }
}

/// The root of a new value tree of a table.
pub(crate) fn empty_root(table: &TreeRoot) -> TreeRoot {
    TreeRoot { shape: table.shape.of_value_tree(), ..TreeRoot::empty(table.tree.of_values()) }
}

/// What an entry stores of a value tree with at least one value.
pub(crate) fn stored_tree(root: &TreeRoot) -> LeafValue<'static> {
    LeafValue::Tree(ValueTree { ptr: root.ptr, height: root.height, count: root.entries })
}

/// The error of an entry with a single value, which may lie in an overflow extent, in a multimap.
#[cold]
pub(crate) fn single_value(leaf: PageId) -> Error {
    Error::corrupt(leaf, "an entry of a multimap has a single value, as in a table that is no multimap")
}

/// Number of values of an entry.
pub(crate) fn count_of(shape: Shape, value: &LeafValue<'_>) -> Result<u64> {
    match value {
        LeafValue::Set(bytes) => Ok(ValueSet::new(bytes, shape).count() as u64),
        LeafValue::Tree(to) => Ok(to.count),
        LeafValue::Inline(_) | LeafValue::Overflow(_) => Err(single_value(PageId::NONE)),
    }
}

/// Refuses a value that is too long, or does not have the size of the table's values.
#[inline]
pub(crate) fn check_value(page_size: usize, shape: Shape, value: &[u8]) -> Result<()> {
    match shape.width() {
        Some(width) if value.len() == width => Ok(()),
        None if value.len() <= max_inline_key_bytes(page_size) => Ok(()),
        _ => Err(wrong_value(page_size, shape, value)),
    }
}

#[cold]
fn wrong_value(page_size: usize, shape: Shape, value: &[u8]) -> Error {
    match shape.width() {
        Some(width) => Error::usage(format!(
            "the value has {} bytes, and each value of this multimap table has {width}; give a value of that size",
            value.len()
        )),
        None => Error::TooLarge {
            what: "value of a multimap table",
            len: value.len() as u64,
            limit: max_inline_key_bytes(page_size) as u64,
            table: None,
        },
    }
}

/// A leaf of a value tree.
#[derive(Clone, Copy)]
pub(crate) enum ValueLeaf<'a> {
    Keyed(Leaf<'a>),
    Packed(Packed<'a>),
}

impl<'a> ValueLeaf<'a> {
    /// The leaf that a pointer leads to, in a value tree of this shape.
    pub(crate) fn at<P: PageRead>(pages: &'a P, ptr: PagePtr, shape: Shape) -> Result<ValueLeaf<'a>> {
        match shape {
            Shape::Packed(width) => packed_at(pages, ptr, usize::from(width)).map(ValueLeaf::Packed),
            _ => leaf_at(pages, ptr).map(ValueLeaf::Keyed),
        }
    }

    pub(crate) fn id(&self) -> PageId {
        match self {
            ValueLeaf::Keyed(leaf) => leaf.id(),
            ValueLeaf::Packed(leaf) => leaf.id(),
        }
    }

    #[inline]
    pub(crate) fn count(&self) -> usize {
        match self {
            ValueLeaf::Keyed(leaf) => leaf.count(),
            ValueLeaf::Packed(leaf) => leaf.count(),
        }
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> Result<&'a [u8]> {
        Ok(match self {
            ValueLeaf::Keyed(leaf) => leaf.inline_key(index)?,
            ValueLeaf::Packed(leaf) => leaf.get(index)?,
        })
    }

    /// The index of the first value that is at least `value`, and whether it is equal.
    pub(crate) fn search(&self, value: &[u8]) -> Result<(usize, bool)> {
        match self {
            ValueLeaf::Keyed(leaf) => Ok(leaf.lower_bound(&NoLongKeys, value)?),
            ValueLeaf::Packed(leaf) => Ok(leaf.search(value)),
        }
    }
}

/// The packed leaf that a pointer leads to.
pub(crate) fn packed_at<P: PageRead>(pages: &P, ptr: PagePtr, width: usize) -> Result<Packed<'_>> {
    Ok(Packed::parse(pages.page(ptr)?, ptr.id, width)?)
}

/// Adds the pages of a value tree to a list of pages to free.
pub(crate) fn collect_pages<P: PageWrite>(pages: &P, root: &TreeRoot, extents: &mut Vec<OverflowExtent>) -> Result<()> {
    if hooks::is(Mutant::ValueTreeNotFreed) {
        return Ok(());
    }
    walk_depth_first(&mut CollectWalk { pages, shape: root.shape, last: None, extents }, root)
}

/// Collects the pages of a value tree. Values ascend from leaf to leaf, so the walk ends where
/// pointers of a damaged tree lead to one page.
struct CollectWalk<'c, P> {
    pages: &'c P,
    shape: Shape,
    last: Option<Vec<u8>>,
    extents: &'c mut Vec<OverflowExtent>,
}

impl<P: PageWrite> CollectWalk<'_, P> {
    fn push(&mut self, ptr: PagePtr) -> Result<()> {
        let born = header::page_txn(self.pages.page(ptr)?);
        self.extents.push(OverflowExtent { id: ptr.id, pages: 1, born });
        Ok(())
    }
}

impl<P: PageWrite> DepthFirst<()> for CollectWalk<'_, P> {
    fn enter(&mut self, ptr: PagePtr, level: usize, _parent: Option<&Parent<()>>) -> Result<Option<()>> {
        if level > 0 {
            return Ok(Some(()));
        }
        let leaf = ValueLeaf::at(self.pages, ptr, self.shape)?;
        let (first, last) = (leaf.get(0)?, leaf.get(leaf.count().wrapping_sub(1))?);
        if self.last.as_deref().is_some_and(|before| before >= first) || (leaf.count() > 1 && first >= last) {
            return Err(Error::corrupt(ptr.id, "values are not in ascending order"));
        }
        self.last = Some(last.to_vec());
        self.push(ptr)?;
        Ok(None)
    }

    fn next_child(&mut self, parent: &mut Parent<()>) -> Result<Option<PagePtr>> {
        let branch = branch_at(self.pages, parent.ptr, parent.level)?;
        Ok(next_child(&branch, &mut parent.next)?)
    }

    fn leave(&mut self, ptr: PagePtr, _parent: Option<&Parent<()>>) -> Result<()> {
        self.push(ptr)
    }
}

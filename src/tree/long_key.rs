//! Long keys and long separators: kept in overflow extents, with their first bytes in the page.
//!
//! Floor: tree. A key that is longer than a page keeps lies as a whole in an overflow extent of its
//! own, so that it is one slice. So does a separator that long: it occurs only between two long
//! keys that share a long beginning. `page::key` describes what the page holds.
//!
//! Invariants:
//!   LONGKEY-1  an extent belongs to one entry, or to one separator of one branch, and goes with it
//!       when it moves to another page. A removed entry or separator frees its extent. A copy of a
//!       page shares the extents of the page that it replaces.
//!   LONGKEY-2  a search reads the extent only if the bytes in the page do not decide.
//!
//! Failure: an extent that does not match its pointer is `Error::Corrupt`.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::error::{Error, Result};
use crate::hooks::{self, Mutant};
use crate::ids::TreeId;
use crate::limits::{long_key_inline_bytes, max_inline_key_bytes};
use crate::page::branch::Branch;
use crate::page::key::{LongKey, PageKey, PageKeyBuf, WholeKeys};
use crate::page::leaf::Leaf;
use crate::page::order::Order;
use crate::page::overflow;
use crate::pager::{PageRead, PageWrite};

use crate::tree::edit::plan;
use crate::tree::value::OverflowExtent;
use crate::tree::{Tree, TreeRoot};

impl<P: PageRead> WholeKeys for P {
    type Error = Error;

    #[inline(never)]
    fn whole_key(&self, long: LongKey) -> Result<&[u8]> {
        let extent = self.extent(long.ptr(), long_key_pages(self.page_size(), long))?;
        Ok(overflow::value(extent, long.ptr().id, long.len() as u64)?)
    }
}

/// Compares the key of an entry with a whole key. In a page without long keys, without a look at
/// the kind of the key.
#[inline]
pub(crate) fn compare_at<P: PageRead>(
    tree: Tree<'_, P>,
    leaf: &Leaf<'_>,
    index: usize,
    key: &[u8],
) -> Result<Ordering> {
    match leaf.has_long_keys() || !tree.root.order.is_bytewise() {
        true => tree.root.order.compare_stored(tree.pages, leaf.key(index)?, key),
        false => Ok(leaf.inline_key(index)?.cmp(key)),
    }
}

/// Pages of the extent of a long key.
pub(crate) fn long_key_pages(page_size: usize, long: LongKey) -> u64 {
    overflow::overflow_pages(page_size, long.len() as u64)
}

/// The whole key.
#[inline]
pub(crate) fn whole<'a, P: PageRead>(pages: &'a P, key: PageKey<'a>) -> Result<&'a [u8]> {
    match key.long {
        None => Ok(key.bytes),
        Some(long) => pages.whole_key(long),
    }
}

/// The whole key, for callers that change pages while they use it: a copy if the key is long.
pub(crate) fn whole_copy<'k, P: PageRead>(pages: &P, key: PageKey<'k>) -> Result<Cow<'k, [u8]>> {
    match key.long {
        None => Ok(Cow::Borrowed(key.bytes)),
        Some(long) => Ok(Cow::Owned(pages.whole_key(long)?.to_vec())),
    }
}

/// A copy of separator `index` as a whole. Separator 0 is empty.
pub(crate) fn whole_separator<P: PageRead>(pages: &P, branch: &Branch<'_>, index: usize) -> Result<Vec<u8>> {
    let mut separator = PageKeyBuf::default();
    branch.separator_into(index, &mut separator)?;
    match separator.long {
        None => Ok(separator.bytes),
        Some(long) => Ok(pages.whole_key(long)?.to_vec()),
    }
}

/// Returns an error for a long key in a tree that is not in bytewise order, whose pages hold whole
/// keys only.
#[inline]
pub(crate) fn check_inline_key<P: PageRead>(pages: &P, root: &TreeRoot, key: &[u8]) -> Result<()> {
    match root.order.is_bytewise() || key.len() <= max_inline_key_bytes(pages.page_size()) {
        true => Ok(()),
        false => Err(long_in_order(pages.page_size(), key.len())),
    }
}

#[cold]
fn long_in_order(page_size: usize, len: usize) -> Error {
    let what = "key of a table whose keys are not in bytewise order";
    Error::TooLarge { what, len: len as u64, limit: max_inline_key_bytes(page_size) as u64, table: None }
}

/// Prepares a key for its page: a long one is written to a new overflow extent. The key is within
/// the limits.
#[inline]
pub(crate) fn store_key<'k, P: PageWrite>(pages: &mut P, tree: TreeId, key: &'k [u8]) -> Result<PageKey<'k>> {
    if key.len() <= max_inline_key_bytes(pages.page_size()) {
        return Ok(PageKey::from(key));
    }
    store_long(pages, tree, key)
}

#[cold]
#[inline(never)]
fn store_long<'k, P: PageWrite>(pages: &mut P, tree: TreeId, key: &'k [u8]) -> Result<PageKey<'k>> {
    pages.note_long_key();
    let ptr = pages.write_value(tree, key)?;
    let bytes = &key[..long_key_inline_bytes(pages.page_size())];
    match LongKey::new(ptr, key.len()) {
        Some(long) => Ok(PageKey { bytes, long: Some(long) }),
        None => Err(Error::corrupt(ptr.id, "a key or separator is longer than the limit")),
    }
}

/// The form that a key will have in its page, with a pointer to nothing, for its size.
pub(crate) fn unstored(page_size: usize, key: &[u8]) -> PageKey<'_> {
    if key.len() <= max_inline_key_bytes(page_size) {
        return PageKey::from(key);
    }
    PageKey { bytes: &key[..long_key_inline_bytes(page_size)], long: LongKey::new(Default::default(), key.len()) }
}

/// The shortest separator between two keys, as in [`plan::separator`]; in an order that is not
/// bytewise, the right key. Reads long keys only if
/// their first bytes are equal.
pub(crate) fn separator<P: PageRead>(
    order: Order,
    pages: &P,
    left: PageKey<'_>,
    right: PageKey<'_>,
) -> Result<Vec<u8>> {
    if !order.is_bytewise() {
        return Ok(whole(pages, right)?.to_vec());
    }
    let shortest = plan::separator(left.bytes, right.bytes);
    let shared = shortest.len() - usize::from(!left.bytes.starts_with(shortest));
    let decided = shared < right.bytes.len() && (shared < left.bytes.len() || left.long.is_none());
    if decided || (left.long.is_none() && right.long.is_none()) {
        return Ok(shortest.to_vec());
    }
    Ok(plan::separator(whole(pages, left)?, whole(pages, right)?).to_vec())
}

/// Prepares a separator for its branch, as [`store_key`] does with a key.
pub(crate) fn store_separator<P: PageWrite>(pages: &mut P, tree: TreeId, separator: Vec<u8>) -> Result<PageKeyBuf> {
    if separator.len() <= max_inline_key_bytes(pages.page_size()) {
        return Ok(PageKeyBuf::from(separator));
    }
    Ok(store_long(pages, tree, &separator)?.to_buf())
}

/// Frees the extent of a key or separator that no page holds any more.
pub(crate) fn free_long<P: PageWrite>(pages: &mut P, long: Option<LongKey>) -> Result<()> {
    if hooks::is(Mutant::LongKeyNotFreed) {
        return Ok(());
    }
    if let Some(extent) = OverflowExtent::of_long(pages, long)? {
        extent.free(pages);
    }
    Ok(())
}

/// The extents of all long separators of a branch.
pub(crate) fn separator_extents<P: PageWrite>(pages: &P, branch: &Branch<'_>) -> Result<Vec<OverflowExtent>> {
    let mut extents = Vec::new();
    if branch.has_long_separators() {
        for index in 1..branch.count() {
            extents.extend(OverflowExtent::of_long(pages, branch.long_separator(index)?)?);
        }
    }
    Ok(extents)
}

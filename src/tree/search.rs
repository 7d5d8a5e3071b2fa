//! Point lookups.
//!
//! Floor: tree. No stack, no allocation: one page after the other, the level falling by one each step (T1).
//!
//! Failure: damage on the way is `Error::Corrupt`; the damage of pages beside the way is not seen.

use crate::error::Result;
use crate::ids::PagePtr;
use crate::limits::DEPTH_MAX;
use crate::page::leaf::Leaf;
use crate::page::lookup;
use crate::pager::PageRead;

use super::path::{branch_at, height_of, last_index, leaf_at, Side};
use super::value::resolve;
use super::{Entry, TreeRoot};

/// The value of a key, as it lies in the leaf or in its overflow run.
///
/// [`lookup`] does nearly all the work; each step that it leaves is done again by the cold functions below.
#[inline]
pub(crate) fn get<'a, P: PageRead>(pages: &'a P, root: &TreeRoot, key: &[u8]) -> Result<Option<&'a [u8]>> {
    let mut level = usize::from(root.height);
    if level == 0 {
        return Ok(None);
    }
    if level > DEPTH_MAX {
        height_of(root)?;
    }
    let mut ptr = root.ptr;
    while level > 1 {
        level -= 1;
        ptr = child_of(pages, ptr, level, key)?;
    }
    if let Some(page) = pages.page_at_once(ptr) {
        let found = lookup::find(page, ptr.id, key);
        if let Some(value) = found.value(page, key) {
            return Ok(Some(value));
        }
        if found == lookup::Found::ABSENT {
            return Ok(None);
        }
    }
    value_in(pages, ptr, key)
}

/// The child of a branch whose range holds the key.
#[inline(always)]
pub(super) fn child_of<P: PageRead>(pages: &P, ptr: PagePtr, level: usize, key: &[u8]) -> Result<PagePtr> {
    let mut next = PagePtr::default();
    if let Some(page) = pages.page_at_once(ptr) {
        next = lookup::child(page, ptr.id, level, key);
        if next.id.0 < 2 {
            next = lookup::child_of_any(page, ptr.id, level, key, next);
        }
    }
    if next.id.0 >= 2 {
        return Ok(next);
    }
    child_at(pages, ptr, level, key)
}

#[cold]
#[inline(never)]
fn child_at<P: PageRead>(pages: &P, ptr: PagePtr, level: usize, key: &[u8]) -> Result<PagePtr> {
    let branch = branch_at(pages, ptr, level)?;
    Ok(branch.child(branch.find(key)?)?)
}

#[cold]
#[inline(never)]
pub(super) fn value_in<'a, P: PageRead>(pages: &'a P, ptr: PagePtr, key: &[u8]) -> Result<Option<&'a [u8]>> {
    let leaf = leaf_at(pages, ptr)?;
    match leaf.find(key)? {
        Some(at) => resolve(pages, leaf.value(at)?).map(Some),
        None => Ok(None),
    }
}

/// The entry with the smallest key.
pub(crate) fn first<'a, P: PageRead>(pages: &'a P, root: &TreeRoot) -> Result<Option<Entry<'a>>> {
    outermost(pages, root, Side::First)
}

/// The entry with the largest key.
pub(crate) fn last<'a, P: PageRead>(pages: &'a P, root: &TreeRoot) -> Result<Option<Entry<'a>>> {
    outermost(pages, root, Side::Last)
}

fn outermost<'a, P: PageRead>(pages: &'a P, root: &TreeRoot, side: Side) -> Result<Option<Entry<'a>>> {
    if root.height == 0 {
        return Ok(None);
    }
    let mut ptr = root.ptr;
    for level in (1..height_of(root)?).rev() {
        let branch = branch_at(pages, ptr, level)?;
        ptr = branch.child(if side == Side::First { 0 } else { last_index(branch.count(), ptr)? })?;
    }
    let leaf = leaf_at(pages, ptr)?;
    let at = if side == Side::First { 0 } else { last_index(leaf.count(), ptr)? };
    entry_at(pages, &leaf, at).map(Some)
}

/// The entry at an index of a leaf, its value resolved.
#[inline(always)]
pub(super) fn entry_at<'a, P: PageRead>(pages: &'a P, leaf: &Leaf<'a>, at: usize) -> Result<Entry<'a>> {
    match leaf.inline_entry(at) {
        Some(entry) => Ok(entry),
        None => resolve_entry(pages, leaf, at),
    }
}

/// Values in runs, and damage; out of the way of scans.
#[cold]
#[inline(never)]
fn resolve_entry<'a, P: PageRead>(pages: &'a P, leaf: &Leaf<'a>, at: usize) -> Result<Entry<'a>> {
    let (key, value) = leaf.entry(at)?;
    Ok((key, resolve(pages, value)?))
}

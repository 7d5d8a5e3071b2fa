//! Many point lookups at once.
//!
//! Floor: tree. One lookup waits for memory once per level. Here a group of lookups goes down together, level by level: each
//! step asks for the lines that its lookup needs next, and by the time that its turn comes again they are there. So the waits
//! of a group overlap, which one lookup after the other allows only as far as the processor's reorder buffer goes. (Group
//! prefetching: Chen, Gibbons, Mowry, "Improving index performance through prefetching", 2001; for hash joins, 2004.)
//!
//! Invariants:
//!   N1  each key gets the answer that `get` gives, in the order of the keys.
//!   N2  a descent has as many steps as the root says (T1), so a group ends together.
//!
//! Failure: the first one that a group meets, with nothing said of the other keys.

use crate::error::Result;
use crate::ids::{PageId, PagePtr};
use crate::page::lookup;
use crate::pager::PageRead;

use super::path::height_of;
use super::search::{child_of, value_in};
use super::TreeRoot;

/// Lookups that go down together: enough for all requests that a core can have in flight. More would only push each other
/// out of the cache.
pub(crate) const GROUP: usize = 16;

/// What is asked for of a branch before it is searched: header, hints, and the first heads.
const BRANCH_BYTES: usize = 192;
/// The same of a leaf: header, heads and slots of some twenty entries.
const LEAF_BYTES: usize = 192;
/// The same of an entry: all of it if it is short.
const ENTRY_BYTES: usize = 256;

/// The values of keys, in their order: `give` is called once for each.
pub(crate) fn get_many<'a, P: PageRead>(
    pages: &'a P,
    root: &TreeRoot,
    keys: &[&[u8]],
    mut give: impl FnMut(Option<&'a [u8]>) -> Result<()>,
) -> Result<()> {
    if root.height == 0 {
        return keys.iter().try_for_each(|_| give(None));
    }
    let height = height_of(root)?;
    for group in keys.chunks(GROUP) {
        let mut at = [root.ptr; GROUP];
        for level in (1..height).rev() {
            let below = if level == 1 { LEAF_BYTES } else { BRANCH_BYTES };
            for (ptr, key) in at.iter_mut().zip(group) {
                *ptr = child_of(pages, *ptr, level, key)?;
                pages.prefetch(ptr.id, 0, below);
            }
        }
        let mut found = [lookup::Found::ASK_LEAF; GROUP];
        for ((found, ptr), key) in found.iter_mut().zip(&at).zip(group) {
            *found = find(pages, *ptr, key);
        }
        for ((found, ptr), key) in found.iter().zip(&at).zip(group) {
            give(value(pages, *found, *ptr, key)?)?;
        }
    }
    Ok(())
}

/// Finds the entry of a key in a leaf, if the page can be had at once, and asks for its bytes.
#[inline]
fn find<P: PageRead>(pages: &P, ptr: PagePtr, key: &[u8]) -> lookup::Found {
    let Some(page) = pages.page_at_once(ptr) else { return lookup::Found::ASK_LEAF };
    let found = lookup::find(page, ptr.id, key);
    if let Some(offset) = found.offset() {
        prefetch_entry(pages, ptr.id, offset, page.len());
    }
    found
}

#[inline]
fn prefetch_entry<P: PageRead>(pages: &P, id: PageId, offset: usize, page_size: usize) {
    pages.prefetch(id, offset, ENTRY_BYTES.min(page_size.saturating_sub(offset)));
}

#[inline]
fn value<'a, P: PageRead>(pages: &'a P, found: lookup::Found, ptr: PagePtr, key: &[u8]) -> Result<Option<&'a [u8]>> {
    if found == lookup::Found::ABSENT {
        return Ok(None);
    }
    match pages.page_at_once(ptr).and_then(|page| found.value(page, key)) {
        Some(value) => Ok(Some(value)),
        None => value_in(pages, ptr, key),
    }
}

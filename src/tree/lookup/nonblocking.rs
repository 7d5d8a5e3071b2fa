//! Lookups that do not wait for the disk.
//!
//! Floor: tree. Each page on the way is asked for by a call before it is read: marks say that a
//! page was verified once, not that it is still in memory. Between the answer and the access the
//! kernel may still take the page away; then the lookup waits for it like any other.
//!
//! Failure: [`Error::WouldBlock`](crate::Error::WouldBlock) at the first page that is not in
//! memory, which is asked for.

use crate::error::Result;
use crate::page::leaf::LeafValue;
use crate::pager::PageRead;

use crate::tree::path::{branch_at, height_of, leaf_at};
use crate::tree::value::{overflow_pages, resolve};
use crate::tree::TreeRoot;

/// The value of a key, if everything on the way to it is in memory, the value itself included.
///
/// Not a method of [`Tree`](crate::tree::Tree): the value may outlive the copy of the root that the
/// caller has.
pub(crate) fn get_nonblocking<'a, P: PageRead>(pages: &'a P, root: &TreeRoot, key: &[u8]) -> Result<Option<&'a [u8]>> {
    if root.height == 0 {
        return Ok(None);
    }
    let mut ptr = root.ptr;
    for level in (1..height_of(root)?).rev() {
        pages.at_once(ptr.id, 1)?;
        let branch = branch_at(pages, ptr, level)?;
        ptr = branch.child(branch.find(key)?)?;
    }
    pages.at_once(ptr.id, 1)?;
    let leaf = leaf_at(pages, ptr)?;
    let Some(at) = leaf.find(key)? else { return Ok(None) };
    let value = leaf.value(at)?;
    if let LeafValue::Overflow(pointer) = &value {
        pages.at_once(pointer.ptr.id, overflow_pages(pages.page_size(), pointer)?)?;
    }
    resolve(pages, value).map(Some)
}

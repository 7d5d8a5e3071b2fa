//! Lookups that do not wait for the disk.
//!
//! Floor: tree. Before the lookup reads a page, a system call asks the kernel whether the page is
//! in memory (`Residency::at_once`). The verified byte of the page cannot tell: it says that this
//! process verified the page once, not that the page is still in memory. The kernel may evict the
//! page between its answer and the access; then the lookup waits for the disk like any other.
//!
//! Failure: [`Error::WouldBlock`](crate::Error::WouldBlock) at the first page that is not in
//! memory. The lookup requests this page from the disk, so that a later try finds it.

use crate::error::{Error, Result};
use crate::page::key::{LongKey, WholeKeys};
use crate::page::leaf::LeafValue;
use crate::pager::PageRead;

use crate::tree::long_key::long_key_pages;
use crate::tree::path::{branch_at, height_of, leaf_at};
use crate::tree::value::{overflow_pages, resolve};
use crate::tree::TreeRoot;

/// Finds long keys that are in memory.
struct AtOnce<'a, P>(&'a P);

impl<P: PageRead> WholeKeys for AtOnce<'_, P> {
    type Error = Error;

    fn whole_key(&self, long: LongKey) -> Result<&[u8]> {
        self.0.at_once(long.ptr().id, long_key_pages(self.0.page_size(), long))?;
        self.0.whole_key(long)
    }
}

/// The value of a key, if all pages on its path are in memory, and its overflow extents too.
///
/// Not a method of [`Tree`](crate::tree::Tree): the value may outlive the caller's copy of the
/// root.
pub(crate) fn get_nonblocking<'a, P: PageRead>(pages: &'a P, root: &TreeRoot, key: &[u8]) -> Result<Option<&'a [u8]>> {
    if root.height == 0 {
        return Ok(None);
    }
    let mut ptr = root.ptr;
    for level in (1..height_of(root)?).rev() {
        pages.at_once(ptr.id, 1)?;
        let branch = branch_at(pages, ptr, level)?;
        ptr = branch.child(branch.find_in(root.order, &AtOnce(pages), key)?)?;
    }
    pages.at_once(ptr.id, 1)?;
    let leaf = leaf_at(pages, ptr)?;
    let Some(at) = leaf.find_in(root.order, &AtOnce(pages), key)? else { return Ok(None) };
    let value = leaf.value(at)?;
    if let LeafValue::Overflow(pointer) = &value {
        pages.at_once(pointer.ptr.id, overflow_pages(pages.page_size(), pointer)?)?;
    }
    resolve(pages, value).map(Some)
}

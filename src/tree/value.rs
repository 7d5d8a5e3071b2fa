//! Values: inline in the leaf, or in an overflow extent that the leaf points at. Also enforces the
//! limits of keys and values.
//!
//! Floor: tree. [`check_sizes`] enforces the limits that `limits` defines; every put, append and
//! load calls it before it stores an entry. An overflow extent is written whole and never changed.
//! Its checksum is known as soon as it is written, so a pointer to it is final at once, and `seal`
//! does not touch it.
//!
//! Failure: lengths above the limits are `Error::TooLarge`; an overflow extent that does not fit
//! its pointer is `Error::Corrupt`.

use crate::error::{Error, Result};
use crate::ids::{PageId, TreeId, TxnId};
use crate::limits::{max_inline_key_bytes, max_inline_value_bytes, MAX_KEY_BYTES, MAX_VALUE_BYTES, PAGE_SIZE_MIN};
use crate::page::key::{LongKey, PageKey};
use crate::page::leaf::{LeafValue, OverflowPtr};
use crate::page::overflow;
use crate::pager::{PageRead, PageWrite};

use crate::tree::long_key::long_key_pages;

/// The bytes of a value.
#[inline]
pub(crate) fn resolve<'a, P: PageRead>(pages: &'a P, value: LeafValue<'a>) -> Result<&'a [u8]> {
    match value {
        LeafValue::Inline(bytes) => Ok(bytes),
        LeafValue::Overflow(pointer) => {
            let extent = pages.extent(pointer.ptr, overflow_pages(pages.page_size(), &pointer)?)?;
            Ok(overflow::value(extent, pointer.ptr.id, pointer.len)?)
        }
        LeafValue::Set(_) | LeafValue::Tree(_) => Err(several_values()),
    }
}

/// The error of an entry with several values in a table that is no multimap.
#[cold]
pub(crate) fn several_values() -> Error {
    Error::corrupt(PageId::NONE, "an entry has several values, and its table is no multimap")
}

/// The number of pages of the overflow extent that a pointer names. Rejects a length that no value
/// can have.
pub(crate) fn overflow_pages(page_size: usize, pointer: &OverflowPtr) -> Result<u64> {
    if pointer.len > MAX_VALUE_BYTES {
        let what = format!("value length is {}, expected at most {MAX_VALUE_BYTES}", pointer.len);
        return Err(Error::corrupt(pointer.ptr.id, what));
    }
    Ok(overflow::overflow_pages(page_size, pointer.len))
}

/// Returns [`Error::TooLarge`] for a key or value that is longer than the limit of the format. All
/// ways to store an entry go through this check.
#[inline]
pub(crate) fn check_sizes(key: &[u8], value_bytes: usize) -> Result<()> {
    if key.len() > MAX_KEY_BYTES {
        return Err(too_large("key", key.len() as u64, MAX_KEY_BYTES as u64));
    }
    if value_bytes as u64 > MAX_VALUE_BYTES {
        return Err(too_large("value", value_bytes as u64, MAX_VALUE_BYTES));
    }
    Ok(())
}

#[cold]
fn too_large(what: &'static str, len: u64, limit: u64) -> Error {
    Error::TooLarge { what, len, limit, table: None }
}

/// Pages of the overflow extent of a key or value with so many bytes; 1 if it needs none.
#[inline]
pub(crate) fn extent_for(page_size: usize, bytes: usize) -> u64 {
    const { assert!(max_inline_key_bytes(PAGE_SIZE_MIN) == max_inline_value_bytes(PAGE_SIZE_MIN)) };
    match bytes > max_inline_value_bytes(page_size) {
        true => overflow::overflow_pages(page_size, bytes as u64),
        false => 1,
    }
}

/// Prepares a value for its leaf: a short value is stored inline, a long one is written to a new
/// overflow extent, and the leaf gets the pointer.
pub(crate) fn store<'v, P: PageWrite>(pages: &mut P, tree: TreeId, value: &'v [u8]) -> Result<LeafValue<'v>> {
    let page_size = pages.page_size();
    if value.len() <= max_inline_value_bytes(page_size) {
        return Ok(LeafValue::Inline(value));
    }
    let len = value.len() as u64;
    let ptr = pages.write_value(tree, value)?;
    Ok(LeafValue::Overflow(OverflowPtr { ptr, len }))
}

/// An overflow extent, or a page, that no pointer will lead to any more, to be freed.
#[derive(Clone, Copy)]
pub(crate) struct OverflowExtent {
    pub(super) id: PageId,
    pub(super) pages: u64,
    /// The transaction that wrote it.
    pub(super) born: TxnId,
}

impl OverflowExtent {
    /// The overflow extent of a value, if it has one.
    pub(crate) fn of<P: PageWrite>(pages: &P, value: LeafValue<'_>) -> Result<Option<OverflowExtent>> {
        let LeafValue::Overflow(pointer) = value else { return Ok(None) };
        let overflow_pages = overflow_pages(pages.page_size(), &pointer)?;
        let born = pages.extent_born(pointer.ptr.id, overflow_pages)?;
        Ok(Some(OverflowExtent { id: pointer.ptr.id, pages: overflow_pages, born }))
    }

    /// The overflow extent of a key or separator, if it is long.
    pub(crate) fn of_long<P: PageWrite>(pages: &P, long: Option<LongKey>) -> Result<Option<OverflowExtent>> {
        let Some(long) = long else { return Ok(None) };
        let long_key_pages = long_key_pages(pages.page_size(), long);
        let born = pages.extent_born(long.ptr().id, long_key_pages)?;
        Ok(Some(OverflowExtent { id: long.ptr().id, pages: long_key_pages, born }))
    }

    /// The overflow extents of an entry: of its key and of its value.
    #[inline]
    pub(crate) fn of_entry<P: PageWrite>(
        pages: &P,
        key: PageKey<'_>,
        value: LeafValue<'_>,
    ) -> Result<[Option<OverflowExtent>; 2]> {
        Ok([OverflowExtent::of_long(pages, key.long)?, OverflowExtent::of(pages, value)?])
    }

    pub(crate) fn free<P: PageWrite>(self, pages: &mut P) {
        pages.free(self.id, self.pages, self.born);
    }
}

/// Frees the overflow extent of a pointer that no entry holds any more.
pub(crate) fn free_extent<P: PageWrite>(pages: &mut P, to: OverflowPtr) -> Result<()> {
    if let Some(extent) = OverflowExtent::of(pages, LeafValue::Overflow(to))? {
        extent.free(pages);
    }
    Ok(())
}

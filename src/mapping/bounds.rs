//! Checked arithmetic for ranges of a file and of its windows: no overflow, whatever numbers a file
//! contains.
//!
//! Floor: mapping.
//!
//! Failure: `None` or `false` for a range outside; `io::Error` for a length that does not fit 64
//! bits.

use std::io;

use crate::ids::PageId;

/// Whether `offset..offset + len` is inside the first `mapped` bytes. Cannot overflow.
#[inline]
pub(super) fn inside(mapped: u64, offset: u64, len: usize) -> bool {
    offset <= mapped && len as u64 <= mapped - offset
}

/// `value` rounded up to a multiple of `unit`, a power of two.
pub(super) fn round_up(value: u64, unit: u64) -> io::Result<u64> {
    match value.checked_add(unit - 1) {
        Some(sum) => Ok(sum & !(unit - 1)),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "length beyond what 64 bits can count")),
    }
}

/// The byte offset and length of a range of pages, if they fit 63 bits (offsets of files are
/// signed).
#[inline]
pub(super) fn page_range(id: PageId, pages: u64, page_shift: u32) -> Option<(u64, u64)> {
    let limit = (i64::MAX as u64) >> page_shift;
    let end = id.0.checked_add(pages)?;
    (end <= limit).then(|| (id.0 << page_shift, pages << page_shift))
}

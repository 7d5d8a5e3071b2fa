//! Overflow extents: one large value, long key or long separator in consecutive pages.
//!
//! Floor: page. The extent has one header, at its start; the value or key follows it without gaps,
//! so that a reader gets one slice. Bytes after the value are zero. The checksum covers the whole
//! extent.
//!
//! Failure: an extent that does not match its pointer is a `DecodeError`.

use super::checksum::Running;
use super::header::{self, PageKind, PageStamp};
use super::layout::{put_u32, CHECKSUM, OVERFLOW_VALUE};
use super::{bad, checksum};
use crate::error::DecodeError;
use crate::ids::{PageId, TxnId};

/// Pages of the extent for a value of `len` bytes.
pub(crate) fn overflow_pages(page_size: usize, len: u64) -> u64 {
    len.saturating_add(OVERFLOW_VALUE as u64).div_ceil(page_size as u64)
}

/// Writes and seals the extent of a value; `extent` is the whole extent. Returns the checksum for
/// the pointer.
///
/// Panics if the lengths do not match: that is a bug in the caller.
pub(crate) fn write(extent: &mut [u8], page_size: usize, stamp: PageStamp, value: &[u8]) -> u32 {
    assert!(overflow_pages(page_size, value.len() as u64) * page_size as u64 == extent.len() as u64);
    begin(extent, page_size, stamp);
    let (written, padding) = extent[OVERFLOW_VALUE..].split_at_mut(value.len());
    written.copy_from_slice(value);
    padding.fill(0);
    checksum::seal(extent)
}

/// The header of an extent with its checksum, for an extent that is written in chunks. `value` is
/// the checksum of the value and the zeros after it. Returns the checksum too.
pub(crate) fn sealed_header(
    page_size: usize,
    stamp: PageStamp,
    len: u64,
    value: Running,
) -> ([u8; OVERFLOW_VALUE], u32) {
    let pages = overflow_pages(page_size, len);
    let mut header = [0; OVERFLOW_VALUE];
    header::init(&mut header, PageKind::Overflow, 0, stamp);
    header::put_extent_pages(&mut header, pages);
    let mut running = Running::default();
    running.add(&header);
    running.append(value);
    let crc = running.finish();
    put_u32(&mut header, CHECKSUM, crc);
    (header, crc)
}

/// Writes only the header; the caller writes the value at [`OVERFLOW_VALUE`] and seals later.
pub(crate) fn begin(extent: &mut [u8], page_size: usize, stamp: PageStamp) {
    let pages = (extent.len() / page_size) as u64;
    header::init(&mut extent[..OVERFLOW_VALUE], PageKind::Overflow, 0, stamp);
    header::put_extent_pages(extent, pages);
}

/// The value of `len` bytes in the extent that starts at page `id`; `extent` is the whole extent.
pub(crate) fn value(extent: &[u8], id: PageId, len: u64) -> Result<&[u8], DecodeError> {
    header::read_extent(extent, id, PageKind::Overflow)?;
    let end = usize::try_from(len).ok().and_then(|len| len.checked_add(OVERFLOW_VALUE));
    let found = end.and_then(|end| extent.get(OVERFLOW_VALUE..end));
    found.ok_or_else(|| bad(id, "value length", len, (extent.len() - OVERFLOW_VALUE) as u64))
}

/// The transaction that wrote the overflow extent that starts with this page; `None` if the page
/// does not start one.
pub(crate) fn born(first_page: &[u8], id: PageId) -> Option<TxnId> {
    let header = header::Header::read(first_page, id).ok()?;
    (header.kind == PageKind::Overflow).then_some(header.txn)
}

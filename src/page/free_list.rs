//! The free list: an extent with the free extents that are not in the free-space tree yet.
//!
//! Floor: page. The header, with the number of pages, is that of an overflow extent; then
//!
//! ```text
//! 32 item count u32 | 36 zero u32 | 40 items, 24 bytes each: start u48, pages u48, born u48, freed u48
//! ```
//!
//! Failure: a count too large for the extent, or an item with invalid pages, is a `DecodeError`.

use super::header::{self, PageKind, PageStamp};
use super::layout::{get_u32, get_u48, put_u32, put_u48, FREE_ITEM_BYTES, FREE_LIST_COUNT, FREE_LIST_ITEMS};
use super::{bad, checksum};
use crate::error::DecodeError;
use crate::ids::{PageId, TreeId, TxnId, MAX_U48};

/// A free extent: `pages` pages from `start`, written by transaction `born` and freed by
/// transaction `freed`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FreeItem {
    pub(crate) start: PageId,
    pub(crate) pages: u64,
    pub(crate) born: TxnId,
    pub(crate) freed: TxnId,
}

/// Pages that a list of `items` items takes.
pub(crate) fn list_pages(page_size: usize, items: usize) -> u64 {
    (items * FREE_ITEM_BYTES + FREE_LIST_ITEMS).div_ceil(page_size) as u64
}

/// Writes and seals a list; `extent` is the whole extent. Returns the checksum for the pointer.
///
/// Panics if the items do not fit: that is a bug in the caller.
pub(crate) fn write(extent: &mut [u8], page_size: usize, id: PageId, txn: TxnId, items: &[FreeItem]) -> u32 {
    assert!(
        extent.len().is_multiple_of(page_size)
            && extent.len() as u64 >= list_pages(page_size, items.len()) * page_size as u64
    );
    let pages = (extent.len() / page_size) as u64;
    header::init(extent, PageKind::FreeList, 0, PageStamp::new(id, TreeId::FREE_SPACE, txn));
    header::put_extent_pages(extent, pages);
    put_u32(extent, FREE_LIST_COUNT, items.len() as u32);
    for (place, item) in extent[FREE_LIST_ITEMS..].chunks_exact_mut(FREE_ITEM_BYTES).zip(items) {
        put_u48(place, 0, item.start.0);
        put_u48(place, 6, item.pages);
        put_u48(place, 12, item.born.0);
        put_u48(place, 18, item.freed.0);
    }
    checksum::seal(extent)
}

/// Reads the list that begins at page `id`; `extent` is the whole extent.
pub(crate) fn read(extent: &[u8], id: PageId) -> Result<Vec<FreeItem>, DecodeError> {
    header::read_extent(extent, id, PageKind::FreeList)?;
    let count = get_u32(extent, FREE_LIST_COUNT) as usize;
    let places = extent.get(FREE_LIST_ITEMS..).unwrap_or(&[]);
    let most = places.len() / FREE_ITEM_BYTES;
    if count > most {
        return Err(bad(id, "free list item count", count as u64, most as u64));
    }
    places.chunks_exact(FREE_ITEM_BYTES).take(count).map(|place| read_item(place, id)).collect()
}

fn read_item(place: &[u8], id: PageId) -> Result<FreeItem, DecodeError> {
    let item = FreeItem {
        start: PageId(get_u48(place, 0)),
        pages: get_u48(place, 6),
        born: TxnId(get_u48(place, 12)),
        freed: TxnId(get_u48(place, 18)),
    };
    if item.start.0 < 2 {
        return Err(bad(id, "free list item start", item.start.0, 2));
    }
    if item.pages == 0 || item.start.0 + item.pages > MAX_U48 {
        return Err(bad(id, "free list item pages", item.pages, MAX_U48 - item.start.0));
    }
    Ok(item)
}

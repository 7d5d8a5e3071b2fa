//! Reading all free extents of a state, for `check`, statistics and salvage.
//!
//! Floor: txn. The free space of a state is its free-space tree plus its free list. The writer
//! reads the list with [`read_list`] too.
//!
//! Failure: `Corrupt` when records overlap or leave the file.

use crate::error::Result;
use crate::ids::{PageId, TxnId};
use crate::page::free_list::{self, FreeItem};
use crate::page::meta::ExtentPtr;
use crate::pager::PageRead;
use crate::tree::{Cursor, Tree};
use crate::txn::free::free_records::{decode_items, decode_pending_key, decode_usable, in_file, TAG_BIG, TAG_USABLE};
use crate::txn::free::free_tree::overlap;
use crate::txn::state::State;

/// One record of the free space of a state, for `check` and statistics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FreeRecord {
    Usable { start: PageId, pages: u64 },
    Pending(FreeItem),
}

/// Calls `visit` for every free extent of a state, of the tree and of the free list.
pub(crate) fn walk<P: PageRead>(
    pages: &P,
    state: &State,
    visit: &mut dyn FnMut(FreeRecord) -> Result<()>,
) -> Result<()> {
    let mut cursor = Cursor::new(Tree::new(pages, &state.free_space));
    let mut next = cursor.seek_first()?;
    while let Some((key, value)) = next {
        records_in(key, value, state.page_count, visit)?;
        next = cursor.next()?;
    }
    for item in read_list(pages, &state.free_list, state.page_count)? {
        visit(match item.freed {
            TxnId(0) => FreeRecord::Usable { start: item.start, pages: item.pages },
            _ => FreeRecord::Pending(item),
        })?;
    }
    Ok(())
}

/// Calls `visit` for the extents of one record of the tree. A record of `TAG_BIG` repeats a usable
/// extent and is skipped.
pub(crate) fn records_in(
    key: &[u8],
    value: &[u8],
    page_count: u64,
    visit: &mut dyn FnMut(FreeRecord) -> Result<()>,
) -> Result<()> {
    match key.first() {
        Some(&TAG_USABLE) => {
            let (start, len) = decode_usable(key, value, page_count)?;
            visit(FreeRecord::Usable { start, pages: len })
        }
        Some(&TAG_BIG) => Ok(()),
        _ => {
            let items = decode_items(decode_pending_key(key)?, value, page_count)?;
            items.into_iter().try_for_each(|item| visit(FreeRecord::Pending(item)))
        }
    }
}

/// Reads the free list of a state; refuses items that overlap or leave the file.
pub(super) fn read_list<P: PageRead>(pages: &P, list: &ExtentPtr, page_count: u64) -> Result<Vec<FreeItem>> {
    if list.pages == 0 {
        return Ok(Vec::new());
    }
    let items = free_list::read(pages.extent(list.ptr, list.pages)?, list.ptr.id)?;
    items.iter().try_for_each(|item| in_file(item.start, item.pages, page_count))?;
    let mut extents: Vec<(PageId, u64)> = items.iter().map(|item| (item.start, item.pages)).collect();
    extents.sort_unstable();
    match extents.windows(2).find(|pair| pair[0].0 .0 + pair[0].1 > pair[1].0 .0) {
        None => Ok(items),
        Some(pair) => Err(overlap(pair[1].0, pair[1].1)),
    }
}

//! Reading extents of the free-space tree into memory: long usable ones, neighbours, and pending
//! ones.
//!
//! Floor: txn. Part of [`FreeCache`](super::free_tree::FreeCache), which loads all others in order.
//!
//! Failure: [`Error::Corrupt`](crate::error::Error::Corrupt) when records overlap or leave the
//! file.

use crate::error::Result;
use crate::ids::PageId;
use crate::page::free_list::FreeItem;
use crate::page::meta::TreeRoot;
use crate::pager::write::txn_pages::TxnPages;
use crate::tree::{Cursor, Tree};
use crate::txn::free::free_records::{
    big_key, decode_items, decode_pending_key, decode_usable, from_be48, in_file, pending_key, usable_key, PendingKey,
    TAG_BIG, TAG_USABLE,
};
use crate::txn::free::free_tree::overlap;
use crate::txn::state::State;

/// Extents that are loaded in one search for a long one.
const CANDIDATES: usize = 64;

/// Loads the smallest extents of at least `extent` pages, until one of them is usable.
pub(super) fn load_best_fit(pages: &mut TxnPages, latest: &State, extent: u64) -> Result<()> {
    let mut cursor = Cursor::new(Tree::new(pages, &latest.free_space));
    let mut next = cursor.seek(&big_key(extent, PageId(0)))?;
    // Load several candidates: the tree still lists extents that this transaction has used up.
    let mut found = Vec::new();
    while let Some((key, _)) = next.filter(|_| found.len() < CANDIDATES) {
        let Some(rest) = key.strip_prefix(&[TAG_BIG]).filter(|rest| rest.len() == 12) else { break };
        let (len, start) = (from_be48(&rest[..6]), PageId(from_be48(&rest[6..])));
        in_file(start, len, latest.page_count)?;
        found.push((start, len));
        next = cursor.next()?;
    }
    for (start, len) in found {
        load(pages, start, len)?;
        if pages.free.longest() >= extent {
            break;
        }
    }
    Ok(())
}

/// Loads the extents that the tree lists directly before and after each unlisted extent, so that
/// listing merges them. Without this, neighbours that were freed by different transactions would
/// stay separate, and short extents would never become a long run.
pub(super) fn load_neighbours(pages: &mut TxnPages, root: &TreeRoot) -> Result<()> {
    let unlisted: Vec<(PageId, u64)> = pages.free.unlisted().collect();
    let page_count = pages.page_count();
    let mut found = Vec::new();
    let mut cursor = Cursor::new(Tree::new(pages, root));
    for (start, len) in unlisted {
        // An extent in the tree that starts inside an unlisted one is loaded already.
        let end = PageId(start.0 + len);
        for entry in [cursor.seek_before(&usable_key(start))?, cursor.seek(&usable_key(end))?] {
            let usable = entry.filter(|(key, _)| key.first() == Some(&TAG_USABLE));
            let extent = usable.map(|(key, value)| decode_usable(key, value, page_count)).transpose()?;
            found.extend(extent.filter(|&(id, len)| id == end || id.0 + len == start.0));
        }
    }
    found.into_iter().try_for_each(|(start, len)| load(pages, start, len))
}

/// Loads an extent; an error if it overlaps another.
pub(super) fn load(pages: &mut TxnPages, start: PageId, len: u64) -> Result<()> {
    if pages.free.load(start, len) {
        Ok(())
    } else {
        Err(overlap(start, len))
    }
}

/// Reads the first pending record from a key on.
pub(super) fn pending_record(
    pages: &TxnPages,
    root: &TreeRoot,
    from: PendingKey,
    page_count: u64,
) -> Result<Option<(PendingKey, Vec<FreeItem>)>> {
    let mut cursor = Cursor::new(Tree::new(pages, root));
    match cursor.seek(&pending_key(from))? {
        None => Ok(None),
        Some((key, value)) => {
            let key = decode_pending_key(key)?;
            Ok(Some((key, decode_items(key, value, page_count)?)))
        }
    }
}

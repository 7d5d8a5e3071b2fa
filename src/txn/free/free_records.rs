//! Records of the free-space tree: keys and values as bytes.
//!
//! Floor: txn. `free_tree.rs` and `docs/format.md` show the layout.
//!
//! Failure: [`Error::Corrupt`] for malformed records and for extents that leave the file.

use crate::error::{Error, Result};
use crate::ids::{PageId, TreeId, TxnId};
use crate::page::free_list::FreeItem;
use crate::page::layout::{get_u48, put_u48};

pub(crate) const TAG_USABLE: u8 = 0;
pub(crate) const TAG_BIG: u8 = 1;
pub(crate) const TAG_PENDING: u8 = 2;

/// Bytes of a pending item in a record. [`ITEMS_PER_RECORD`] of them fit an inline value of the
/// smallest page.
pub(crate) const ITEM_BYTES: usize = 18;
pub(crate) const ITEMS_PER_RECORD: usize = 50;

/// Key of a pending record: the transaction that freed its extents, the transaction that saved it,
/// and a counter for several records with both in common.
pub(crate) type PendingKey = (TxnId, TxnId, u32);

pub(crate) fn in_file(start: PageId, len: u64, page_count: u64) -> Result<()> {
    let end = start.0.checked_add(len);
    if start.0 < 2 || len == 0 || end.is_none_or(|end| end > page_count) {
        return Err(Error::corrupt(
            start,
            format!("a free extent of {len} pages leaves the {page_count} pages in use"),
        ));
    }
    Ok(())
}

pub(crate) fn be48(value: u64) -> [u8; 6] {
    let [_, _, rest @ ..] = value.to_be_bytes();
    rest
}

pub(crate) fn from_be48(bytes: &[u8]) -> u64 {
    bytes.iter().take(6).fold(0, |value, &byte| value << 8 | u64::from(byte))
}

pub(crate) fn usable_key(start: PageId) -> [u8; 7] {
    let mut key = [TAG_USABLE; 7];
    key[1..].copy_from_slice(&be48(start.0));
    key
}

pub(crate) fn big_key(len: u64, start: PageId) -> [u8; 13] {
    let mut key = [TAG_BIG; 13];
    key[1..7].copy_from_slice(&be48(len));
    key[7..].copy_from_slice(&be48(start.0));
    key
}

pub(crate) fn pending_key((freed, saved, part): PendingKey) -> [u8; 21] {
    let mut key = [TAG_PENDING; 21];
    key[1..9].copy_from_slice(&freed.0.to_be_bytes());
    key[9..17].copy_from_slice(&saved.0.to_be_bytes());
    key[17..].copy_from_slice(&part.to_be_bytes());
    key
}

pub(crate) fn next_key((freed, saved, part): PendingKey) -> PendingKey {
    (freed, saved, part.saturating_add(1))
}

pub(crate) fn decode_usable(key: &[u8], value: &[u8], page_count: u64) -> Result<(PageId, u64)> {
    if key.len() != 7 || value.len() != 6 {
        return Err(malformed("usable"));
    }
    let (start, len) = (PageId(from_be48(&key[1..])), from_be48(value));
    in_file(start, len, page_count)?;
    Ok((start, len))
}

pub(crate) fn decode_pending_key(key: &[u8]) -> Result<PendingKey> {
    let rest = key.strip_prefix(&[TAG_PENDING]).filter(|rest| rest.len() == 20).ok_or_else(|| malformed("pending"))?;
    let number = |bytes: &[u8]| bytes.iter().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
    Ok((TxnId(number(&rest[..8])), TxnId(number(&rest[8..16])), number(&rest[16..]) as u32))
}

pub(crate) fn encode_items(items: &[FreeItem]) -> Vec<u8> {
    let mut bytes = vec![0; items.len() * ITEM_BYTES];
    for (chunk, item) in bytes.chunks_exact_mut(ITEM_BYTES).zip(items) {
        put_u48(chunk, 0, item.start.0);
        put_u48(chunk, 6, item.pages);
        put_u48(chunk, 12, item.born.0);
    }
    bytes
}

pub(crate) fn decode_items((freed, ..): PendingKey, bytes: &[u8], page_count: u64) -> Result<Vec<FreeItem>> {
    if !bytes.len().is_multiple_of(ITEM_BYTES) {
        return Err(malformed("pending"));
    }
    let item = |chunk: &[u8]| {
        let item = FreeItem {
            start: PageId(get_u48(chunk, 0)),
            pages: get_u48(chunk, 6),
            born: TxnId(get_u48(chunk, 12)),
            freed,
        };
        in_file(item.start, item.pages, page_count)?;
        Ok(item)
    };
    bytes.chunks_exact(ITEM_BYTES).map(item).collect()
}

#[cold]
pub(crate) fn malformed(what: &str) -> Error {
    Error::corrupt(PageId::NONE, format!("malformed {what} record in the free-space tree {}", TreeId::FREE_SPACE))
}

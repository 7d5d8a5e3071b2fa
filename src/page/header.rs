//! The page header: the first 32 bytes of leaves, branches, packed leaves, overflow extents and
//! free lists.
//!
//! Floor: page. The offsets of the header's fields are in `layout`; this module has none.
//! [`Header::read`] decodes all fields. Check, salvage, inspect, overflow extents and free lists
//! use it. Hot paths do not: `Leaf::parse`, `Branch::parse` and `lookup` read the few fields that
//! they need from the page themselves. Both `parse` call [`reject`] here only to name an invalid
//! field.
//!
//! Failure: an unknown kind, a reserved flag or another page's id is a `DecodeError`.

use super::bad;
use super::layout::{
    get_u16, get_u32, get_u48, put_u16, put_u32, put_u48, CHECKSUM, COUNT, EXTENT_PAGES, FLAGS, HEADER_BYTES, ID, KIND,
    LEVEL, LONG_KEYS_FLAG, LOWER, PREFIX_BYTES, TREE, TXN, UPPER,
};
use super::meta::TreeRoot;
use super::order::{are_page_flags, Order};
use crate::error::DecodeError;
use crate::ids::{PageId, TreeId, TxnId};

/// The kind of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum PageKind {
    Leaf = 1,
    Branch = 2,
    Overflow = 3,
    FreeList = 4,
    Packed = 6,
}

impl PageKind {
    fn from_byte(byte: u8) -> Option<PageKind> {
        match byte {
            1 => Some(PageKind::Leaf),
            2 => Some(PageKind::Branch),
            3 => Some(PageKind::Overflow),
            4 => Some(PageKind::FreeList),
            6 => Some(PageKind::Packed),
            _ => None,
        }
    }
}

/// Page id, tree and transaction: the fields of the header that identify a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PageStamp {
    pub(crate) id: PageId,
    pub(crate) tree: TreeId,
    /// The transaction that wrote the page.
    pub(crate) txn: TxnId,
    /// The order of the keys, of leaves and branches.
    pub(crate) order: Order,
}

impl PageStamp {
    /// The stamp of a page of a tree in bytewise order.
    pub(crate) const fn new(id: PageId, tree: TreeId, txn: TxnId) -> PageStamp {
        PageStamp { id, tree, txn, order: Order::Bytewise }
    }

    /// The stamp of a page of this tree.
    #[inline]
    pub(crate) fn of_tree(id: PageId, root: &TreeRoot, txn: TxnId) -> PageStamp {
        PageStamp { id, tree: root.tree, txn, order: root.order }
    }
}

/// All fields of a page header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) checksum: u32,
    pub(crate) kind: PageKind,
    pub(crate) level: u8,
    pub(crate) count: u16,
    /// Leaf and branch only, like `lower` and `upper`; other kinds store the number of pages of the
    /// extent in these bytes, see [`Header::extent_pages`].
    pub(crate) prefix_bytes: u16,
    pub(crate) lower: u16,
    pub(crate) upper: u16,
    pub(crate) flags: u16,
    pub(crate) id: PageId,
    pub(crate) txn: TxnId,
    pub(crate) tree: TreeId,
}

impl Header {
    /// Reads the header of page `id`. Rejects unknown kinds and flags, and the header of another
    /// page.
    pub(crate) fn read(page: &[u8], id: PageId) -> Result<Header, DecodeError> {
        let Some(bytes) = page.first_chunk::<HEADER_BYTES>() else {
            return Err(bad(id, "page size", page.len() as u64, HEADER_BYTES as u64));
        };
        let header = Header {
            checksum: get_u32(bytes, CHECKSUM),
            kind: page_kind(bytes, id)?,
            level: bytes[LEVEL],
            count: get_u16(bytes, COUNT),
            prefix_bytes: get_u16(bytes, PREFIX_BYTES),
            lower: get_u16(bytes, LOWER),
            upper: get_u16(bytes, UPPER),
            flags: get_u16(bytes, FLAGS),
            id: PageId(get_u48(bytes, ID)),
            txn: TxnId(get_u48(bytes, TXN)),
            tree: TreeId(get_u32(bytes, TREE)),
        };
        if !are_known(header.kind, header.flags) {
            return Err(bad(id, "page flags (a variant that this build does not read)", header.flags.into(), 0));
        }
        if header.id != id {
            return Err(bad(id, "page id", header.id.0, id.0));
        }
        Ok(header)
    }

    /// Pages of the extent, for overflow extents and free lists; 1 for other kinds.
    pub(crate) fn extent_pages(&self) -> u64 {
        match self.kind {
            PageKind::Leaf | PageKind::Branch | PageKind::Packed => 1,
            PageKind::Overflow | PageKind::FreeList => {
                u64::from(self.prefix_bytes) | u64::from(self.lower) << 16 | u64::from(self.upper) << 32
            }
        }
    }
}

/// Whether a page of this kind may have these flags.
fn are_known(kind: PageKind, flags: u16) -> bool {
    match kind {
        PageKind::Leaf | PageKind::Branch => are_page_flags(flags),
        PageKind::Overflow | PageKind::FreeList | PageKind::Packed => flags == 0,
    }
}

/// Whether the page may hold long keys or separators.
#[inline]
pub(super) fn has_long_keys(page: &[u8]) -> bool {
    get_u16(page, FLAGS) & LONG_KEYS_FLAG != 0
}

/// Says that the page holds long keys or separators.
pub(super) fn note_long_keys(page: &mut [u8]) {
    let flags = get_u16(page, FLAGS);
    put_u16(page, FLAGS, flags | LONG_KEYS_FLAG);
}

/// The transaction that wrote the page.
#[inline]
pub(crate) fn page_txn(page: &[u8]) -> TxnId {
    TxnId(get_u48(page, TXN))
}

/// The page's level: 0 for a leaf.
#[inline]
pub(crate) fn page_level(page: &[u8]) -> u8 {
    page.get(LEVEL).copied().unwrap_or(0)
}

/// The page's kind.
#[inline]
pub(crate) fn page_kind(page: &[u8], id: PageId) -> Result<PageKind, DecodeError> {
    let byte = page.get(KIND).copied().unwrap_or(0);
    PageKind::from_byte(byte).ok_or_else(|| bad(id, "page kind", byte.into(), PageKind::Leaf as u64))
}

/// Zeroes the page and writes a header without entries and checksum: kind, level and stamp. The
/// caller writes the other fields.
pub(crate) fn init(page: &mut [u8], kind: PageKind, level: u8, stamp: PageStamp) {
    page.fill(0);
    if let Some(bytes) = page.get_mut(KIND..=LEVEL) {
        bytes.copy_from_slice(&[kind as u8, level]);
    }
    put_u48(page, ID, stamp.id.0);
    put_u48(page, TXN, stamp.txn.0);
    put_u32(page, TREE, stamp.tree.0);
    put_u16(page, FLAGS, stamp.order.page_flags());
}

/// Sets page id and transaction in the header of a copied page.
pub(crate) fn restamp(page: &mut [u8], id: PageId, txn: TxnId) {
    put_u48(page, ID, id.0);
    put_u48(page, TXN, txn.0);
}

/// Names the invalid field of a leaf or branch that failed the combined check of `parse`.
#[cold]
#[inline(never)]
pub(super) fn reject(page: &[u8], id: PageId, kind: PageKind, arrays: usize, array_bytes: usize) -> DecodeError {
    let header = match Header::read(page, id) {
        Ok(header) => header,
        Err(e) => return e,
    };
    let (count, lower, upper) = (u64::from(header.count), u64::from(header.lower), u64::from(header.upper));
    let lower_expected = (arrays + array_bytes * usize::from(header.count)) as u64;
    let leaf = kind != PageKind::Branch;
    if header.kind != kind {
        bad(id, "page kind", header.kind as u64, kind as u64)
    } else if leaf != (header.level == 0) {
        bad(id, "page level", header.level.into(), u64::from(!leaf))
    } else if !leaf && count == 0 {
        bad(id, "child count", 0, 1)
    } else if lower != lower_expected {
        bad(id, "lower bound of free space", lower, lower_expected)
    } else if upper < lower {
        bad(id, "upper bound of free space", upper, lower)
    } else if upper > page.len() as u64 || kind == PageKind::Packed {
        bad(id, "upper bound of free space", upper, page.len() as u64)
    } else {
        bad(id, "prefix length", header.prefix_bytes.into(), page.len() as u64 - upper)
    }
}

/// Writes the number of pages of an overflow extent or free list.
pub(super) fn put_extent_pages(page: &mut [u8], pages: u64) {
    put_u48(page, EXTENT_PAGES, pages);
}

/// Checks the header of an extent of `kind`, and that `extent` has as many pages as the header
/// says.
pub(super) fn read_extent(extent: &[u8], id: PageId, kind: PageKind) -> Result<Header, DecodeError> {
    let header = Header::read(extent, id)?;
    if header.kind != kind {
        return Err(bad(id, "page kind", header.kind as u64, kind as u64));
    }
    let (bytes, pages) = (extent.len() as u64, header.extent_pages());
    let page_size = bytes.checked_div(pages).and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
    if !crate::limits::page_size_ok(page_size) || bytes % pages != 0 {
        return Err(bad(id, "extent length", pages, bytes / crate::limits::PAGE_SIZE_MIN as u64));
    }
    Ok(header)
}

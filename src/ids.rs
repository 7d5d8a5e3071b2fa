//! Numbers of pages, transactions and trees.
//!
//! Floor: base. Newtypes, so that a page id is never passed where a transaction id belongs. Page
//! ids have 48 bits in the file (16 TiB of 4 KiB pages need only 32), transaction ids 48 bits in
//! page headers.

use std::fmt;

/// The largest value that a 48-bit field of the file can hold.
pub(crate) const MAX_U48: u64 = (1 << 48) - 1;

/// The number of a page: its offset in the file divided by the page size.
///
/// Pages 0 and 1 are the meta pages, so `PageId(0)` never names a tree page and stands for "none".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PageId(pub u64);

impl PageId {
    /// Stands for "no page": page 0 is a meta page and no pointer leads to it.
    pub(crate) const NONE: PageId = PageId(0);

    /// Whether this is [`PageId::NONE`].
    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The number of a write transaction. Each commit has a larger one than the commit before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct TxnId(pub(crate) u64);

impl TxnId {
    /// The transaction after this one.
    pub(crate) fn next(self) -> TxnId {
        TxnId(self.0 + 1)
    }
}

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The number of a tree. Every page of a tree holds it, so that a page can be assigned to its table
/// without following pointers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct TreeId(pub(crate) u32);

impl TreeId {
    /// The tree of table names and table records.
    pub(crate) const CATALOG: TreeId = TreeId(0);
    /// The tree of free and pending extents.
    pub(crate) const FREE_SPACE: TreeId = TreeId(1);
    /// The tree of named snapshots.
    pub(crate) const SNAPSHOTS: TreeId = TreeId(2);
    /// The first number that a table can get.
    pub(crate) const FIRST_TABLE: TreeId = TreeId(16);
    /// Marks the pages of value trees: no table has a number with this bit.
    pub(crate) const VALUES: u32 = 1 << 31;

    /// The number in the pages of the value trees of a table.
    pub(crate) fn of_values(self) -> TreeId {
        TreeId(self.0 | TreeId::VALUES)
    }

    /// The number of the table that has these value trees.
    pub(crate) fn of_table(self) -> TreeId {
        TreeId(self.0 & !TreeId::VALUES)
    }

    /// Whether it is the number of value trees.
    pub(crate) fn is_of_values(self) -> bool {
        self.0 & TreeId::VALUES != 0
    }
}

impl fmt::Display for TreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A pointer in the file: a page (or the first page of an extent) and its checksum.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct PagePtr {
    pub(crate) id: PageId,
    /// CRC-32 (IEEE), equal to the checksum in the header of the page. Stale while the page is
    /// dirty; set when the page is sealed at commit.
    pub(crate) crc: u32,
}

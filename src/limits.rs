//! Limits of the format, each with its reason.
//!
//! Floor: base. Every size check compares with a constant or function of this module. This module
//! checks nothing itself: `tree::check_sizes` (`tree/value.rs`) enforces the limits of keys and
//! values, `catalog::check_name` that of table names, and `height_of` (`tree/path.rs`) that of a
//! tree's depth, before every descent.

/// Smallest page: in a smaller one a branch with long separators has too few children.
pub(crate) const PAGE_SIZE_MIN: usize = 4096;
/// Largest page: offsets within a page, its end included, fit 16 bits.
pub(crate) const PAGE_SIZE_MAX: usize = 32768;
/// Page size of a new database unless the caller says otherwise.
pub(crate) const PAGE_SIZE_DEFAULT: usize = 4096;

/// Bytes of each quarter page that are left for the overhead of entries, so that two entries with
/// the largest inline key and value always fit one leaf.
const QUARTER_OVERHEAD: usize = 24;

/// Longest key, in bytes, as its codec encodes it: 65,536 with any page size.
///
/// A longer key is an error of kind [`TooLarge`](crate::ErrorKind::TooLarge). Of a key of more than
/// a quarter page minus 24 bytes (1,000 bytes with pages of 4 KiB), its page holds only the first
/// bytes; the key lies in an extent of its own, of one page or more.
///
/// ```
/// use mapleaf::{Db, ErrorKind, Table, MAX_KEY_BYTES};
///
/// const PAGES: Table<&str, u64> = Table::new("pages");
/// let db = Db::in_memory()?;
/// let txn = db.begin_write()?;
/// let mut pages = txn.table(PAGES)?;
/// let url = format!("https://example.org/?q={}", "x".repeat(2000));
/// pages.insert(&url, 1)?;
/// assert_eq!(pages.get(&url)?, Some(1));
/// let refused = pages.insert(&"x".repeat(MAX_KEY_BYTES + 1), 1).unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::TooLarge);
/// # Ok::<(), mapleaf::Error>(())
/// ```
// More than URLs and paths need, and little enough that a transaction can hold several in memory.
pub const MAX_KEY_BYTES: usize = 1 << 16;

/// Longest key kept inside a page, in bytes: a quarter page minus overhead (1,000 for pages of 4
/// KiB). Of a longer one, a long key, the page holds [`long_key_inline_bytes`].
pub(crate) const fn max_inline_key_bytes(page_size: usize) -> usize {
    page_size / 4 - QUARTER_OVERHEAD
}

/// First bytes of a long key that lie inside its page (256 for pages of 4 KiB): enough to decide
/// most searches, and few enough for more than a dozen long keys in a page.
pub(crate) const fn long_key_inline_bytes(page_size: usize) -> usize {
    page_size / 16
}

/// Longest value kept inside a leaf, in bytes; a longer one goes to an overflow extent.
pub(crate) const fn max_inline_value_bytes(page_size: usize) -> usize {
    page_size / 4 - QUARTER_OVERHEAD
}

/// Longest value: 2^40 bytes. Far more than file systems can allocate as one extent today, and far
/// less than what could overflow page arithmetic.
pub(crate) const MAX_VALUE_BYTES: u64 = 1 << 40;

/// Longest table name, in bytes. Fits the key limit of every page size.
pub(crate) const MAX_TABLE_NAME_BYTES: usize = 255;

/// Longest name of a snapshot, in bytes. Fits the key limit of every page size.
pub(crate) const MAX_SNAPSHOT_NAME_BYTES: usize = 255;

/// Maximum number of levels of a tree: 2^48 pages with a fan-out of 4 need 24, so a greater level
/// is damage.
pub(crate) const DEPTH_MAX: usize = 32;

/// Whether a page size is one that the format allows: a power of two from 4 KiB to 32 KiB.
pub(crate) const fn page_size_ok(page_size: usize) -> bool {
    page_size.is_power_of_two() && page_size >= PAGE_SIZE_MIN && page_size <= PAGE_SIZE_MAX
}

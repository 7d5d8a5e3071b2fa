//! Limits of the format, each with its reason.
//!
//! Floor 0. Everything that is refused for its size is refused against a constant or function here.

/// Smallest page: below it a branch of long separators has too little fan-out.
pub(crate) const PAGE_SIZE_MIN: usize = 4096;
/// Largest page: in-page offsets are 16-bit, and an entry count must fit beside them.
pub(crate) const PAGE_SIZE_MAX: usize = 32768;
/// Page size of a new database unless the caller says otherwise.
pub(crate) const PAGE_SIZE_DEFAULT: usize = 4096;

/// Bytes of a page that entry overheads may take from each quarter, so that two entries of the
/// largest key and the largest inline value always fit into one leaf.
const QUARTER_OVERHEAD: usize = 24;

/// Longest key, in bytes: a quarter page less overhead (1,000 at 4 KiB).
pub(crate) const fn max_key_bytes(page_size: usize) -> usize {
    page_size / 4 - QUARTER_OVERHEAD
}

/// Longest value kept inside a leaf, in bytes; a longer one goes to an overflow extent.
pub(crate) const fn max_inline_value_bytes(page_size: usize) -> usize {
    page_size / 4 - QUARTER_OVERHEAD
}

/// Longest value at all: 2^40 bytes. Far above what a file system of today takes in one chunk, and
/// far below what could overflow page arithmetic.
pub(crate) const MAX_VALUE_BYTES: u64 = 1 << 40;

/// Longest table name, in bytes. Fits the key limit of every page size.
pub(crate) const MAX_TABLE_NAME_BYTES: usize = 255;

/// Bound of every descent: 2^48 pages with a fan-out of 4 need 24 levels, and a level above the
/// bound is damage.
pub(crate) const DEPTH_MAX: usize = 32;

/// Whether a page size is one that the format allows: a power of two from 4 KiB to 32 KiB.
pub(crate) const fn page_size_ok(page_size: usize) -> bool {
    page_size.is_power_of_two() && page_size >= PAGE_SIZE_MIN && page_size <= PAGE_SIZE_MAX
}

//! Pages: encoding and decoding of everything in the file.
//!
//! Floor: page. Works on `&[u8]` and `&mut [u8]`, and knows nothing of files, mappings or
//! transactions. Contains no unsafe code except for vector instructions (`heads`, `heads/x86`).
//! `layout` defines the offset of every field; the other modules read and write the fields:
//!
//! ```text
//! layout      offsets and sizes of all fields, each defined once
//! meta        the root record of the database, twice in each of pages 0 and 1
//! header      the first 32 bytes of leaves, branches, overflow extents and free lists
//! key         keys and separators: whole, or their first bytes and a pointer
//! leaf        entries; `leaf_mut` changes them
//! value_set   the values of one key of a multimap table, in its entry; `leaf_values` changes them
//! packed      leaves of a value tree whose values all have one size
//! branch      separators and children; `branch_mut` changes them
//! heads       searches the heads of a leaf or branch; `heads/x86` has the vector instructions
//! lookup      fast path of point lookups: the child in a branch, the entry in a leaf
//! order       the order of the keys of a tree; `ordered` searches pages that are not bytewise
//! overflow    the extent that holds one large value
//! free_list   the extent with the newest free-space records, written by each commit
//! log_record  the header and checksum of a record of the commit log
//! checksum    sealing and verifying pages
//! ```
//!
//! Failure: invalid bytes are a [`DecodeError`] that names page, field and value. No input can
//! panic, loop or cause a read out of bounds (R3): every length is read from the page once,
//! checked, and used from the local copy.

pub(crate) mod branch;
pub(crate) mod branch_mut;
pub(crate) mod checksum;
pub(crate) mod free_list;
pub(crate) mod header;
pub(crate) mod heads;
pub(crate) mod key;
pub(crate) mod layout;
pub(crate) mod leaf;
pub(crate) mod leaf_mut;
mod leaf_values;
pub(crate) mod log_record;
pub(crate) mod lookup;
pub(crate) mod meta;
pub(crate) mod order;
pub(crate) mod ordered;
pub(crate) mod overflow;
pub(crate) mod packed;
pub(crate) mod value_set;

use std::cmp::Ordering;

use crate::error::DecodeError;
use crate::ids::PageId;

/// Builds the error for an invalid field. Out of line, so that decoding pays only an untaken branch
/// for it.
#[cold]
#[inline(never)]
pub(crate) fn bad(page: PageId, field: &'static str, found: u64, expected: u64) -> DecodeError {
    DecodeError { page, field, found, expected }
}

/// Where a key sorts relative to all keys that begin with `prefix`: below them, above them, or
/// among them.
#[inline]
fn compare_prefix(key: &[u8], prefix: &[u8]) -> Ordering {
    // A key shorter than the prefix never equals it, so comparing the whole key decides.
    key.get(..prefix.len()).unwrap_or(key).cmp(prefix)
}

/// Length of the longest common prefix.
fn common_prefix_bytes(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests;

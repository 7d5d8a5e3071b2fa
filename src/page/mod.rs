//! Pages: what the bytes of the file mean.
//!
//! Floor: page. Takes `&[u8]` and `&mut [u8]`, knows nothing of files, mappings or transactions, and holds no
//! unsafe code but for vector instructions (`heads`). `layout` says where every field lies; the other modules give the fields their meaning:
//!
//! ```text
//! meta page        the root record of the database, twice in each of pages 0 and 1
//! header      the 32 bytes that all other pages begin with
//! leaf        entries; `leaf_mut` changes them
//! branch      separators and children; `branch_mut` changes them
//! heads       the search among the first bytes of keys, which both use
//! lookup      the steps of a point lookup through both, in few instructions
//! overflow    one large value over consecutive pages
//! free_list   the spill of the free space's own pages
//! checksum    sealing and verifying any of them
//! ```
//!
//! Failure: bytes that mean nothing valid are a [`DecodeError`] that names page, field and value. No input can
//! panic, loop or be read out of bounds (R3); every length is read from the page once and used from the copy.

pub(crate) mod branch;
pub(crate) mod branch_mut;
pub(crate) mod checksum;
pub(crate) mod free_list;
pub(crate) mod header;
pub(crate) mod heads;
pub(crate) mod layout;
pub(crate) mod leaf;
pub(crate) mod leaf_mut;
pub(crate) mod lookup;
pub(crate) mod meta;
pub(crate) mod overflow;

use std::cmp::Ordering;

use crate::error::DecodeError;
use crate::ids::PageId;

/// Builds the error of a field that is wrong. Out of line, so that decoding pays one untaken branch for it.
#[cold]
#[inline(never)]
pub(crate) fn bad(page: PageId, field: &'static str, found: u64, expected: u64) -> DecodeError {
    DecodeError { page, field, found, expected }
}

/// How a key lies to the keys that begin with `prefix`: below all of them, above all, or among them.
#[inline]
fn compare_prefix(key: &[u8], prefix: &[u8]) -> Ordering {
    // A key shorter than the prefix is never equal to it, so the whole key decides.
    key.get(..prefix.len()).unwrap_or(key).cmp(prefix)
}

/// Length of the longest common prefix.
fn common_prefix_bytes(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests;

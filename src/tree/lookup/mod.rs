//! Point lookups: one key or many, by branches or by a flat index, waiting for the disk or not.
//!
//! Floor: tree. Nothing here can change a page.
//!
//! ```text
//! search       one key; the first and the last entry
//! many         groups of keys, interleaved level by level
//! batch        asks the disk for the pages of many keys together
//! nonblocking  one key, without waiting for the disk
//! flat_index   one level of a tree as an array, searched instead of descending
//! ```
//!
//! A search has up to three forms, because a lookup in memory costs little more than the cache
//! misses of two or three pages:
//!
//! ```text
//! _fast     answers from pages that this process has verified, with vector instructions and without
//!           an error type; `None` means that the checked form has to decide
//! _any      the same for a page whose layout the fast form does not cover (long prefix, many heads)
//! _checked  verifies, decodes any layout, waits for the disk and reports damage
//! ```
//!
//! A search without a suffix (`get`, `leaf_of`) tries the fast form first, then the checked one.
//!
//! Failure: `Corrupt` with the page; damage never becomes an answer.

pub(crate) mod batch;
pub(crate) mod flat_index;
pub(crate) mod many;
pub(crate) mod nonblocking;
pub(crate) mod search;

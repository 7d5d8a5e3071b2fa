//! Proving a tree: each page, pointer, key and count, also of files that are damaged.
//!
//! Floor: tree. Nothing here can change a page.
//!
//! ```text
//! check  everything about a tree in an open database
//! walk   a tree of a file that may be damaged or cut, one page at a time
//! ```
//!
//! Failure: damage is a finding, not an error.

pub(crate) mod check;
pub(crate) mod walk;

//! The persistent free space.
//!
//! Floor: txn.
//!
//! ```text
//! free_tree     a B+tree of extents and a short list, read lazily and saved by what changed
//! free_records  its keys and values as bytes
//! ```
//!
//! Failure: `Corrupt` where records contradict themselves; `DiskFull` or `Io` of growing.

pub(crate) mod free_records;
pub(crate) mod free_tree;

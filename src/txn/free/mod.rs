//! The persistent free space.
//!
//! Floor: txn. A page that a commit supersedes is *pending* until no live state reaches it, then it
//! is *usable*. Whether a page may be used again is decided in one place: `free_tree`, functions
//! `begin` and `reclaim`, by the question `LiveStates::reach` (rule R5).
//!
//! ```text
//! free_tree     what the writer remembers: finds reusable extents, saves what changed
//! free_records  keys and values of the free-space tree as bytes
//! save_pages    the pages that the free-space tree itself takes while it is saved
//! free_extents  all free extents of one state, for check, statistics and the writer
//! ```
//!
//! Failure: `Corrupt` where records contradict themselves; `DiskFull` or `Io` of growing.

pub(crate) mod free_extents;
pub(crate) mod free_records;
pub(crate) mod free_tree;
mod save_pages;

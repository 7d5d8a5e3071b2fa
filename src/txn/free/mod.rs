//! The persistent free space.
//!
//! Floor: txn. A page that a commit supersedes is *pending* until no live state reaches it, then it
//! is *usable*. Whether a page may be used again is decided in one place: `free_tree`, functions
//! `begin` and `reclaim`, which ask `LiveStates::reach` (rule R5).
//!
//! ```text
//! free_tree     finds extents that may be used again, saves what a transaction changed
//! free_records  keys and values of the free-space tree as bytes
//! save_pages    allocates pages for the free-space tree itself while it is saved
//! free_extents  all free extents of one state, for check, statistics and the writer
//! ```
//!
//! Failure: `Corrupt` if records contradict each other; `DiskFull` or `Io` if the file cannot grow.

pub(crate) mod free_extents;
pub(crate) mod free_records;
pub(crate) mod free_tree;
mod save_pages;

//! The persistent free space.
//!
//! Floor: txn. A page that a commit supersedes is *pending* until no live state reaches it, then it
//! is *usable*. One function decides whether a page may be used again (rule R5):
//! `LiveStates::reach` in `pager/write/live_states.rs`, with the states that `Env::live_states`
//! collected. `FreeCache::begin` and `FreeCache::reclaim` in `free_tree` call it for each pending
//! extent and make it usable.
//!
//! ```text
//! free_tree     finds extents that may be used again, saves what a transaction changed
//! load_extents  reads extents of the tree: long ones, neighbours, pending ones
//! list_extents  extents for long free lists
//! list_writer   writes the free list
//! free_records  keys and values of the free-space tree as bytes
//! save_pages    allocates pages for the free-space tree itself while it is saved
//! take_out      takes pages out of pending extents that are in use again
//! free_extents  all free extents of one state, for check, statistics and the writer
//! ```
//!
//! Failure: `Corrupt` if records contradict each other; `DiskFull` or `Io` if the file cannot grow.

pub(crate) mod free_extents;
pub(crate) mod free_records;
pub(crate) mod free_tree;
mod list_extents;
mod list_writer;
mod load_extents;
mod save_pages;
mod take_out;

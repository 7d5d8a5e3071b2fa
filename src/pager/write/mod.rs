//! Changing pages: the pages that the running write transaction owns, and how they reach the file.
//!
//! Floor: pager. One writer at a time.
//!
//! ```text
//! txn_pages        pages of the running transaction: allocate, change, free
//! free_space       which pages may be allocated
//! live_states      which states keep a freed page from being allocated again
//! leaf_facts       what the writer remembers of the leaves that it has sealed
//! prefault         brings fresh pages into memory before the writer stores to them
//! write_queue      pages built in private memory and written by a thread
//! append_buffer    the page that appends fill, in private memory
//! overflow_writer  long values, written by `pwrite`
//! ```
//!
//! Failure: `DiskFull` or `Io` of growing and writing; a store without a claim is a bug and panics.

pub(crate) mod append_buffer;
pub(crate) mod free_space;
pub(crate) mod leaf_facts;
pub(crate) mod live_states;
pub(crate) mod overflow_writer;
pub(crate) mod prefault;
pub(crate) mod txn_pages;
pub(crate) mod write_queue;

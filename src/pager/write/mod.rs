//! Changing pages: what the running write transaction owns, allocates and frees, and how pages
//! reach the file.
//!
//! Floor: pager. One writer at a time.
//!
//! ```text
//! txn_pages        pages as the running transaction sees them: allocate, free, change its own
//! free_space       which pages may be handed out
//! prefault         fresh pages are brought into memory before they are stored to
//! write_queue      pages built in private memory, which a thread writes
//! append_buffer    the page that an append fills
//! overflow_writer  long values, written extent by extent
//! ```
//!
//! Failure: `DiskFull` or `Io` of growing and writing; a store without a claim is a bug and panics.

pub(crate) mod append_buffer;
pub(crate) mod free_space;
pub(crate) mod overflow_writer;
pub(crate) mod prefault;
pub(crate) mod txn_pages;
pub(crate) mod write_queue;

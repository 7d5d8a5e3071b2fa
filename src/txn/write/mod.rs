//! Write transactions and commits.
//!
//! Floor: txn. One write transaction runs at a time.
//!
//! ```text
//! shared       the transaction as its users see it, shared by the handles of its tables
//! handles      the handles of one table: one that writes, or any number that read
//! txn          the running transaction: begin, put, delete, append; errors of these calls
//! tables       its tables: open, list, drop, rename
//! table_set    the tables that it has open, found by name or number
//! load         many entries into one table
//! put_all      many entries, sorted first
//! multi        pairs of multimaps: one more, one less, many
//! remove       many entries that go: a range, or those that the caller rejects
//! savepoints   savepoints and nested transactions
//! long_values  values that are written in place, reserved or from a reader
//! commit       commit and abort: seals the trees, makes the next state
//! checkpoint   makes a state durable: flush the pages, store the meta page, flush it
//! folios       when a transaction looks for large folios
//! held_pages   when a checkpoint begins, and when writers wait for it
//! take_over    goes on from what a stopped thread has left
//! background   the thread that makes checkpoints beside writers
//! writer_lock  one writer at a time; no thread waits for ever
//! ```
//!
//! The order of the flushes of a commit: by checkpoint in `Core::commit_state` (`checkpoint`), by
//! log in `Core::flush_records` (`../log/lead.rs`).
//!
//! Failure: a transaction that may be half-changed answers every call with the first error and
//! cannot be committed.

pub(crate) mod background;
pub(crate) mod checkpoint;
pub(crate) mod commit;
pub(crate) mod folios;
pub(crate) mod handles;
pub(crate) mod held_pages;
pub(crate) mod load;
pub(crate) mod long_values;
pub(crate) mod multi;
pub(crate) mod put_all;
pub(crate) mod remove;
pub(crate) mod savepoints;
pub(crate) mod shared;
pub(crate) mod table_set;
mod tables;
pub(crate) mod take_over;
pub(crate) mod txn;
pub(crate) mod writer_lock;

//! The commit log: how a transaction becomes durable with one flush of a few neighbouring pages.
//!
//! Floor: txn. A transaction that is small enough writes its operations as one record at the head
//! of the log. Its pages stay in the writable mapping and reach the disk at the next checkpoint.
//! After a crash, the operations are applied again to the state of the newest meta page.
//!
//! ```text
//! operations  what a transaction did, as bytes: written by `TxnRecord`, read by `Operations`
//! append      writes a record at the head of the log; makes a new log or a new epoch
//! make        makes the log when it pays, gives it up when the database is closed
//! lead        flushes the log for all transactions that wait; waits for such a flush
//! scan        finds the valid records of a log after a crash
//! replay      applies them
//! ```
//!
//! Failure: a failed append goes on by checkpoint. A failed flush poisons the database (R9).

pub(crate) mod append;
pub(crate) mod lead;
mod make;
pub(crate) mod operations;
pub(crate) mod replay;
pub(crate) mod scan;

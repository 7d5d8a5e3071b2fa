//! The commit log: how a transaction becomes durable with one flush of a few neighbouring pages.
//!
//! Floor: txn. A transaction that is small enough writes its operations as one record at the head
//! of the log. Its pages stay in the writable mapping and reach the disk at the next checkpoint.
//! After a crash, the operations are applied again to the state of the newest meta page.
//!
//! ```text
//! operations  body of a record: `TxnRecord` writes operations, `Operations` reads them
//! append      adds header and checksum, writes the record at the head of the log; begins an epoch
//! make        makes the log, or a larger one; gives it up when the database is closed
//! lead        flushes the log for all transactions that wait; waits for such a flush
//! sole_commit appends and flushes a record with one write, if no other transaction commits
//! scan        finds the valid records of a log after a crash
//! replay      applies the records found
//! ```
//!
//! The header of a record is in `../../page/log_record.rs`, the file of the log (writes, flushes)
//! in `../../mapping/log_file.rs`.
//!
//! Failure: after a failed append the transaction commits by checkpoint. A failed flush poisons the
//! database (R9).

pub(crate) mod append;
pub(crate) mod lead;
mod make;
pub(crate) mod operations;
pub(crate) mod replay;
pub(crate) mod scan;
mod sole_commit;

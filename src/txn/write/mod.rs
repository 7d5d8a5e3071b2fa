//! Write transactions and commits.
//!
//! Floor: txn. One at a time.
//!
//! ```text
//! txn          the transaction: tables, changes, commit, abort
//! load         many entries into a table
//! long_values  values that are written in place, reserved or from a reader
//! checkpoint   makes a state durable: flush, meta page, flush
//! writer_lock  takes turns in the order of arrival
//! ```
//!
//! Failure: a transaction that may be half-changed answers every call with the first error and
//! cannot be committed.

pub(crate) mod checkpoint;
pub(crate) mod load;
pub(crate) mod long_values;
pub(crate) mod table_set;
pub(crate) mod txn;
pub(crate) mod writer_lock;

//! Read transactions and what they share.
//!
//! Floor: txn.
//!
//! ```text
//! snapshot      read transactions: one state, held until the last clone is gone
//! readers       reader slots: which snapshots are in use
//! open_table    tables that were found, kept for the next transactions of the same state
//! flat_indexes  flat indexes that the readers of a database share
//! ```
//!
//! Failure: `Poisoned`, `Busy`, `Corrupt` from the catalog.

pub(crate) mod flat_indexes;
pub(crate) mod open_table;
pub(crate) mod readers;
pub(crate) mod snapshot;

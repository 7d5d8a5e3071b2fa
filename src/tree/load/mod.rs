//! Loading many entries: sorts them, builds full leaves, merges them with the entries of the tree.
//!
//! Floor: tree.
//!
//! ```text
//! bulk        full leaves from ascending entries
//! sorted_run  entries in any order, collected and sorted in memory
//! merge       puts a sorted run among the entries of a tree
//! ```
//!
//! Failure: the errors of a put. After a failed load the transaction must be aborted.

pub(crate) mod bulk;
pub(crate) mod merge;
pub(crate) mod sorted_run;

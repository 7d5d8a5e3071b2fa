//! Loading many entries: sorted, built into full leaves, merged with those of the tree.
//!
//! Floor: tree.
//!
//! ```text
//! bulk        full leaves from ascending entries
//! sorted_run  entries in any order, collected and sorted in memory
//! merge       puts a sorted run among the entries of a tree
//! ```
//!
//! Failure: as a put; a load that fails leaves the transaction unusable.

pub(crate) mod bulk;
pub(crate) mod merge;
pub(crate) mod sorted_run;
